"""Virtual screens, records to look at, and a viewer that real keys are pressed in."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from prefrl.clips.codec import encode_clip
from prefrl.feedback import Answer, Query, Response
from prefrl.segments import Segment
from prefrl.store import Clip, PreferenceStore

SIDE = 320
COLOURS = [(200, 40, 40), (40, 40, 200), (40, 160, 40), (190, 170, 30), (150, 40, 160), (30, 160, 170), (120, 120, 120)]
needs_screen = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("Xvfb", "xdotool")), reason="needs Debian's xvfb and xdotool"
)


@dataclass
class Display:
    """An X server without a screen, whose picture lies in a file."""

    name: str
    folder: Path

    def key(self, *keys: str) -> None:
        for key in keys:
            self.do("key", key)
            time.sleep(0.1)

    def do(self, *arguments: str) -> str:
        environment = {**os.environ, "DISPLAY": self.name}
        return subprocess.run(
            ["xdotool", *arguments], env=environment, capture_output=True, text=True, timeout=20, check=False
        ).stdout

    def picture(self) -> NDArray[np.uint8]:
        """Return what is on the screen, `(H, W, 3)`."""
        data = (self.folder / "Xvfb_screen0").read_bytes()
        header = struct.unpack(">25I", data[:100])
        size, width, height, stride, colours = header[0], header[4], header[5], header[12], header[19]
        begin = size + 12 * colours
        rows = np.frombuffer(data[begin : begin + stride * height], np.uint8).reshape(height, stride)
        return rows[:, : 4 * width].reshape(height, width, 4)[:, :, 2::-1].copy()


def open_display(folder: Path, size: str = "1280x800") -> tuple[Display, subprocess.Popen[bytes]]:
    folder.mkdir()
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", f"{size}x24", "-fbdir", str(folder)]
    server = subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        number = pipe.readline().strip()
    assert number, "Xvfb did not start"
    return Display(f":{number}", folder), server


@dataclass
class Viewer:
    """`prefrl label` as a process."""

    record: Path | str
    display: Display
    options: tuple[str, ...] = ()
    process: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        environment = {**os.environ, "DISPLAY": self.display.name}
        environment.pop("SDL_VIDEODRIVER", None)
        command = [sys.executable, "-m", "prefrl", "label", str(self.record), "--repeat-share", "0", *self.options]
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        wait_for(lambda: bool(self.display.picture().any()), self.process)
        time.sleep(0.4)

    def end(self, number: int = signal.SIGTERM) -> str:
        self.process.send_signal(number)
        return self.process.communicate(timeout=20)[0]


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if process is not None and process.poll() is not None:
            pytest.fail(f"it ended: {process.communicate()[0]}")
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def answers(record: Path | str, *, standing: bool = False) -> list[Answer]:
    with PreferenceStore(record) as store:
        return [answer for _, answer in store.answers(standing=standing)]


def press(display: Display, record: Path | str, *keys: str) -> None:
    """Press keys, each of which is an answer, and wait until the record has each."""
    for key in keys:
        before = len(answers(record))
        display.key(key)
        wait_for(lambda before=before: len(answers(record)) > before)  # type: ignore[misc]


def segment(number: int) -> Segment:
    return Segment(
        observations=np.full((6, 1), number, np.float32),
        actions=np.zeros((5, 1), np.float32),
        true_rewards=np.full(5, float(number)),
        episode=number,
    )


def clip_of(number: int) -> Clip:
    """Return a clip of one colour with a black square that moves."""
    frames = np.full((20, SIDE, SIDE, 3), COLOURS[number % len(COLOURS)], np.uint8)
    for index, frame in enumerate(frames):
        frame[140:180, 10 * index : 10 * index + 40] = 0
    made = encode_clip(frames, 20)
    return Clip(data=made.data, format="mp4", frames_per_second=20, width=SIDE, height=SIDE, num_frames=made.num_frames)


def fill(store: PreferenceStore, pairs: list[tuple[int, int]], *, clips: bool = True, session: int = 0) -> list[str]:
    queries = [Query(segments=(segment(a), segment(b)), session=session) for a, b in pairs]
    store.add_queries(queries)
    if clips:
        for number in {number for pair in pairs for number in pair}:
            store.add_clip(segment(number).id, clip_of(number))
    return [query.id for query in queries]


def text_query(num: int, session: int) -> Query:
    told = "It was a bright cold day in April, and the clocks were striking thirteen. " * 30
    responses = tuple(
        Response(prompt="Begin a story.", text=f"Number {i}. " + told[: 700 * (i + 1)]) for i in range(num)
    )
    return Query(responses=responses, kind="comparison" if num == 2 else "ranking", session=session)

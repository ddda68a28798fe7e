"""The process that draws clips: takes segments of open queries from the record, draws each once, puts the clip back.

It is a process of its own, so that drawing takes nothing from the training and a renderer that crashes does no harm.
It ends with the process that started it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from prefrl.clips.trail import ClipSource
from prefrl.clips.worlds import find_world
from prefrl.control.folder import ControlFolder
from prefrl.control.policies import make_run_env
from prefrl.control.rendering import check_drawn, choose_gl_backend, prepare_pictures, why_not_drawn
from prefrl.control.strip import film, not_filmed
from prefrl.errors import ANYTHING, UserError, first_line, tell
from prefrl.store import Clip, PreferenceStore
from prefrl.store.clips import clip_of

POLL_SECONDS = 0.2
END_SECONDS = 5.0  # for a process to end by itself
AT_ONCE = 2
LEASE_SECONDS = 60.0  # after which another try is made at what was claimed and neither drawn nor given up
RESTART_SECONDS = 2.0
ATARI_FRAMES_PER_SECOND = 60


class ClipRenderer:
    """Draws the clips of one run.

    Args:
        folder: the run.
    """

    def __init__(self, folder: ControlFolder) -> None:
        self._settings = folder.settings
        self._env: gymnasium.Env[Any, Any] | None = None

    def render(self, replay: Any) -> Clip:
        """Draw a segment from what was saved of it.

        Raises:
            UserError: the environment cannot be made or drawn here, or nothing was saved.
        """
        if replay is None:
            raise UserError("Nothing was saved from which this segment could be drawn.")
        source = ClipSource.from_arrays(replay)
        env = self._made()
        length = self._settings.segment_length
        frames_per_second = _frames_per_second(env, source)
        try:
            pictures = list(find_world(env, segment_length=length).draw(source))
        except UserError:
            raise
        except ANYTHING as error:  # OpenGL bindings raise errors of many kinds, from many packages
            raise UserError(f"It cannot be drawn here {why_not_drawn(env, error)}") from error
        check_drawn(env, pictures)
        return clip_of(pictures, frames_per_second)

    def _made(self) -> gymnasium.Env[Any, Any]:
        if self._env is None:
            env = make_run_env(self._settings, render_mode="rgb_array")
            prepare_pictures(env)
            env.reset(seed=0)
            self._env = env
        return self._env

    def close(self) -> None:
        """Close the environment."""
        if self._env is not None:
            self._env.close()


def render_open(store: PreferenceStore, renderer: ClipRenderer, limit: int = AT_ONCE) -> int:
    """Draw some of what open queries show and has no clip yet; return how many segments were dealt with.

    Raises:
        UserError: the record cannot be read or written; what was not drawn is taken up again when the lease ends.
    """
    names = store.claim_renders(limit, LEASE_SECONDS)
    for name in names:
        segment = store.segments([name], replay=True)[name]
        try:
            clip = renderer.render(segment.replay)
        except UserError as error:
            store.note_render_failure(name, str(error))
            store.set_facts({"render_failure": str(error)})
        else:
            store.add_clip(name, clip)  # a record that is full or away is no reason to give the clip up
    return len(names)


class Films:
    """Films the agent along its training, when no clip waits to be drawn.

    Args:
        folder: the run.
    """

    def __init__(self, folder: ControlFolder) -> None:
        self._folder, self._failed = folder, False

    def make_one(self) -> bool:
        """Make the newest film that is missing, if there is one; return whether."""
        missing = [] if self._failed else not_filmed(self._folder)
        if missing:
            try:
                film(self._folder, missing[0])
            except ANYTHING as error:  # of a user's environment: of many kinds
                self._failed = True  # so would the others
                tell(f"prefrl: No films of the training: {first_line(error)}")
        return bool(missing)


def work(path: Path, parent: int) -> None:
    """Draw clips of the run in `path` until the process `parent` ends."""
    folder = ControlFolder.open(path)
    with suppress(UserError):  # said again, with the clip that cannot be drawn
        without_screen()
        choose_gl_backend()
    renderer, films = ClipRenderer(folder), Films(folder)
    with folder.open_record() as store:
        store.forget_render_failures()
        store.set_facts({"render_failure": ""})
        while os.getppid() == parent:
            try:
                if render_open(store, renderer) or films.make_one():
                    continue
            except UserError as error:  # the record is away: it may come back
                tell(f"prefrl: {error}")
                time.sleep(RESTART_SECONDS)
            time.sleep(POLL_SECONDS)
    renderer.close()


def without_screen() -> None:
    """Draw off screen even where there is a screen: no window may flash up."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        os.environ.pop(name, None)
    os.environ["PYGAME_HIDE_SUPPORT_PROMPT"] = "1"
    os.environ["SDL_NO_SIGNAL_HANDLERS"] = "1"  # SDL would take a signal to end for a click on the window's cross


@contextmanager
def clip_worker(folder: ControlFolder) -> Iterator[None]:
    """Keep a process that draws the clips of a run; one that dies is started again."""
    over = threading.Event()
    running: list[subprocess.Popen[bytes]] = []

    def keep() -> None:
        program = "from prefrl.control.clip_worker import main; main()"
        command = [sys.executable, "-c", program, str(folder.path), str(os.getpid())]
        while not over.is_set():
            # This program again, without a shell.
            running[:] = [subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)]  # noqa: S603
            if over.is_set():  # it was while this one began: nobody else ends it
                running[0].terminate()
            running[0].wait()
            over.wait(RESTART_SECONDS)

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        for process in running:
            process.terminate()
        thread.join(timeout=END_SECONDS)
        for process in running:
            process.kill()  # where a library caught the signal; nothing is done to one that has ended
        thread.join(timeout=END_SECONDS)


def _frames_per_second(env: gymnasium.Env[Any, Any], source: ClipSource) -> float:
    """Return the speed at which a clip plays in real time."""
    if source.kind == "ale":
        repeats = np.median(source.rows[:, 0][source.rows[:, 0] > 0]) if source.rows[:, 0].any() else 1
        return ATARI_FRAMES_PER_SECOND / float(env.unwrapped._frameskip * repeats)  # type: ignore[attr-defined]
    return float(env.metadata.get("render_fps") or 30)


def main() -> None:
    """Run the process: its arguments are the run and its parent."""
    if sys.platform != "win32":
        os.nice(5)
    with suppress(KeyboardInterrupt):
        try:
            work(Path(sys.argv[1]), int(sys.argv[2]))
        except UserError as error:  # it is started again
            tell(f"prefrl: {error}")
            sys.exit(1)

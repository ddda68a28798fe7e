"""How quick the viewer is: pictures per second with two clips, and the time from a key to the next clip.

    xvfb-run python scripts/benchmarks/benchmark_viewer.py     # or on a machine with a screen

A window of 1280 x 800 shows two 480 x 480 clips; every key press is answered by drawing the next question. The second
figure is taken over all presses, at two answers per second.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pygame
import tyro

from prefrl.clips.codec import FORMAT, encode_clip
from prefrl.feedback import Query
from prefrl.human_ui.actions import Action
from prefrl.human_ui.desk import Desk
from prefrl.human_ui.questions import Standing
from prefrl.human_ui.session import Session
from prefrl.human_ui.window import Window
from prefrl.segments import Segment
from prefrl.store import Clip, PreferenceStore


def fill(path: Path, questions: int) -> None:
    """Make a record of questions about two noisy clips each."""
    rng = np.random.default_rng(0)
    with PreferenceStore(path) as store:
        noise = rng.integers(0, 255, (20, 40, 3), np.uint8).repeat(24, 0).repeat(24, 1)
        for number in range(questions):
            parts = [np.full((51, 1), 2 * number + i, np.float32) for i in (0, 1)]
            pair = tuple(
                Segment(observations=p, actions=p[1:], true_rewards=np.zeros(50), episode=number) for p in parts
            )
            store.add_queries([Query(segments=pair, session=number)])
            for segment in pair:
                made = encode_clip([noise[:, 4 * t : 4 * t + 480] for t in range(50)], 50)
                size = {"width": made.width, "height": made.height, "num_frames": made.num_frames}
                store.add_clip(segment.id, Clip(data=made.data, format=FORMAT, frames_per_second=50, **size))


def main(questions: int = 40, size: str = "1280x800") -> None:
    path = Path(tempfile.mkdtemp()) / "record.sqlite"
    fill(path, questions)
    session = Session(Standing(run="benchmark", environment="two clips of 480 x 480"))
    desk = Desk(lambda: PreferenceStore(path), "robot", run="benchmark", environment="", repeat_share=0.0)
    width, height = (int(side) for side in size.split("x"))
    window = Window(session, desk, "benchmark", (width, height))
    desk.start()
    session.press(Action.CONFIRM)
    while session.question is None:
        window.take_news()
    frames, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < 3.0:
        session.tick(0.02)  # every picture is a new frame of both clips
        window.draw()
        frames += 1
    print(f"{frames / (time.perf_counter() - begin):.0f} pictures per second, each with two new frames")
    delays = []
    while len(delays) < questions - 1:
        until = time.perf_counter() + 0.5
        while time.perf_counter() < until:
            window.take_news()
            session.tick(1 / 60)
            window.draw()
            time.sleep(1 / 60)
        shown, begin = session.question, time.perf_counter()
        window.handle(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_LEFT, unicode=""))
        window._carry_out()
        while session.question in (None, shown):
            window.take_news()
            time.sleep(0.001)
        window.draw()
        delays.append(1000 * (time.perf_counter() - begin))
    print(f"key to next clip: median {statistics.median(delays):.1f} ms, longest {max(delays):.1f} ms")
    desk.close()


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

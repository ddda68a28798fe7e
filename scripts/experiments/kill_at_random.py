"""Kills the viewer, the training, or both at random instants while questions are answered, and counts what is lost.

    python scripts/experiments/kill_at_random.py --kills 50

Needs xdotool, and Xvfb where there is no screen. Keys are pressed in the real window all the while.
"""

import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tyro
from robot import open_screen

from prefrl.feedback import Undo
from prefrl.store import PreferenceStore


def prefrl(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "prefrl", *arguments], stdout=subprocess.DEVNULL, stderr=2)


def main(kills: int = 50, seed: int = 0) -> None:
    rng, out = random.Random(seed), Path(tempfile.mkdtemp()) / "run"
    open_screen()
    begin = ["train", "Pendulum-v1", "--annotator", "human", "--labels", "5000", "--steps", "400000", "--out", str(out)]
    begin += ["--segment-length", "10", "--wait", "10", "--no-viewer", "--quiet"]
    training, viewer = prefrl(*begin), None
    while not (out / "record.sqlite").exists():
        time.sleep(0.2)
    store = PreferenceStore(out / "record.sqlite")
    seen: dict[int, str] = {}
    killed = {"viewer": 0, "training": 0, "both": 0}
    while True:
        if training.poll() is not None:
            training = prefrl("resume", str(out), "--no-viewer", "--quiet")
        if viewer is None or viewer.poll() is not None:
            viewer = prefrl("label", str(out), "--name", "robot")
        target, until = store.num_answers() + rng.randint(1, 6), time.time() + 120
        while time.time() < until and store.num_answers() < target:  # both go on
            subprocess.run(["xdotool", "key", rng.choice(["Left", "Right", "Up", "Left", "Right", "z"])], check=True)
            time.sleep(rng.uniform(0.05, 0.4))
        rows = store.answers()
        undone = {answer.undoes for _, answer in rows if isinstance(answer, Undo)}
        standing = [a.query_id for row, a in rows if row not in undone and not isinstance(a, Undo)]
        assert all(dict(rows)[row].query_id == query for row, query in seen.items()), "an answer was lost"
        assert len(standing) == len(set(standing)), "a query was answered twice"
        assert len(rows) > len(seen), "nobody could answer any more"
        seen = {row: answer.query_id for row, answer in rows}
        if sum(killed.values()) == kills:
            break
        time.sleep(rng.uniform(0.0, 1.0))
        which = rng.choice(list(killed))
        killed[which] += 1
        print(f"{sum(killed.values())}: kill {which} at {len(seen)} rows", flush=True)
        for process in [viewer] * (which != "training") + [training] * (which != "viewer"):
            process.send_signal(signal.SIGKILL)
            process.wait()
    print(f"killed: {killed}; {len(seen)} rows, {len(standing)} answers stand; none was lost, none doubled, both go on")
    for process in (viewer, training):
        process.terminate()


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

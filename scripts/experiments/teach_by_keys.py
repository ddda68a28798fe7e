"""A robot sits in for a person: it presses real keys in the viewer's real window, and training goes on meanwhile.

    python scripts/experiments/teach_by_keys.py    # the command of the README, 150 answers, then the score
    python scripts/experiments/teach_by_keys.py --labels 20 --steps 20000

Needs xdotool, and Xvfb where there is no screen. The robot reads from the record which segments are on the screen and
presses the arrow of the one with the larger true return; training never sees that return.
"""

import subprocess
import sys
import time
from pathlib import Path

import tyro
from robot import Robot, open_screen, print_score


def main(
    env: str = "Pendulum-v1",
    labels: int = 150,
    steps: int | None = None,
    seconds: float = 1.0,
    seed: int = 0,
    out: Path = Path("runs/taught-by-keys"),
) -> None:
    """Teach, then print the score.

    Args:
        env: what to train on.
        labels: answers to give.
        seed: of the run.
        steps: least steps of the training; None: the environment's.
        seconds: looked at each pair of clips for.
        out: the run folder.
    """
    open_screen()
    command = ["train", env, "--annotator", "human", "--labels", str(labels), "--seed", str(seed), "--out", str(out)]
    command += ["--baseline", "--json", "--no-video", *(["--steps", str(steps)] if steps else [])]
    training = subprocess.Popen([sys.executable, "-m", "prefrl", *command], stdout=subprocess.PIPE, text=True)
    record = out / "record.sqlite"
    while not record.exists():
        time.sleep(0.5)
    robot = Robot(record, lambda query: [part.true_rewards.sum() for part in query.segments], seconds)
    while training.poll() is None and robot.store.facts().get("training_state") != "finished":
        robot.look()
    print_score(training, robot.store)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

"""A robot sits in for a person: it presses real keys in the viewer's real window, and training goes on meanwhile.

    python scripts/teach_by_keys.py                    # the command of the README, 150 answers, then the score
    python scripts/teach_by_keys.py --labels 20 --steps 20000

Needs xdotool, and Xvfb where there is no screen. The robot reads from the record which segments are on the screen and
presses the arrow of the one with the larger true return; training never sees that return.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from robot import Robot, open_screen

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--env", default="Pendulum-v1")
parser.add_argument("--labels", type=int, default=150)
parser.add_argument("--steps", type=int, default=None, help="least steps of the training; default: the environment's")
parser.add_argument("--seconds", type=float, default=1.0, help="looked at each pair of clips for")
parser.add_argument("--out", type=Path, default=Path("runs/taught-by-keys"))
given = parser.parse_args()

open_screen()
command = ["train", given.env, "--annotator", "human", "--labels", str(given.labels), "--out", str(given.out)]
command += ["--baseline", "--json", "--no-video", *(["--steps", str(given.steps)] if given.steps else [])]
training = subprocess.Popen([sys.executable, "-m", "prefrl", *command], stdout=subprocess.PIPE, text=True)

while not (given.out / "record.sqlite").exists():
    time.sleep(0.5)
robot = Robot(
    given.out / "record.sqlite", lambda query: [part.true_rewards.sum() for part in query.segments], given.seconds
)
while training.poll() is None and robot.store.facts().get("training_state") != "finished":
    robot.look()
score = json.loads(training.communicate()[0].splitlines()[-1])
random, best = score["random_true_return_mean"], score["baseline_true_return_mean"]
score["share_of_true_reward_gain"] = round((score["true_return_mean"] - random) / (best - random), 3)
print(json.dumps({**score, "answers": robot.store.num_answers()}, indent=2))

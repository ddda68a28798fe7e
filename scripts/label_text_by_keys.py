"""A robot compares a model's answers in the viewer's real window, and a reward model is trained on what it pressed.

    python scripts/label_text_by_keys.py --model runs/text-0/sft
    python scripts/label_text_by_keys.py --model runs/text-0/sft --prompts 20

Needs xdotool, and Xvfb where there is no screen. The robot presses the arrow of the answer with the larger gold reward,
which the reward model never sees. The reward model's accuracy on held-out comparisons is printed at the end.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from robot import Robot, open_screen

from prefrl.envs.service_desk import ServiceDesk

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", required=True, help="a fine-tuned model")
parser.add_argument("--prompts", type=int, default=200)
parser.add_argument("--seconds", type=float, default=0.1, help="looked at each pair of answers for")
parser.add_argument("--out", type=Path, default=Path("runs/text-by-keys"))
given = parser.parse_args()


def prefrl(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "prefrl", *arguments]


def gold(query) -> list[float]:
    texts = [response.text for response in query.responses]
    return list(ServiceDesk.gold([response.prompt for response in query.responses], texts))


given.out.mkdir(parents=True)
record = given.out / "people.sqlite"
ask = ["text", "ask", "--model", given.model, "--record", str(record), "--prompts", str(given.prompts)]
subprocess.run(prefrl(*ask), check=True)
open_screen()
viewer = subprocess.Popen(prefrl("label", str(record), "--name", "robot", "--repeat-share", "0"))
robot = Robot(record, gold, given.seconds)
while viewer.poll() is None and robot.store.num_answers() < given.prompts:
    robot.look()
subprocess.run(["xdotool", "key", "q"], check=True)
viewer.wait(timeout=30)
print(f"{robot.store.num_answers()} answers given in the window")
reward = ["text", "reward", "--model", given.model, "--data", str(record), "--out", str(given.out / "reward")]
reward += ["--training.epochs", "4", "--training.optimiser.learning-rate", "5e-4"]  # there are few answers
subprocess.run(prefrl(*reward), check=True)

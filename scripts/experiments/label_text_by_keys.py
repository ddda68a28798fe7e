"""A robot compares a model's answers in the viewer's real window, and a reward model is trained on what it pressed.

    python scripts/experiments/label_text_by_keys.py --model runs/text-0/sft
    python scripts/experiments/label_text_by_keys.py --model runs/text-0/sft --prompts 20

Needs xdotool, and Xvfb where there is no screen. The robot presses the arrow of the answer with the larger gold reward,
which the reward model never sees. The reward model's accuracy on held-out comparisons is printed at the end.
"""

import subprocess
import sys
from pathlib import Path

import tyro
from robot import Robot, open_screen

from prefrl.envs.service_desk import ServiceDesk


def prefrl(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "prefrl", *arguments]


def gold(query) -> list[float]:
    texts = [response.text for response in query.responses]
    return list(ServiceDesk.gold([response.prompt for response in query.responses], texts))


def main(model: str, prompts: int = 200, seconds: float = 0.1, out: Path = Path("runs/text-by-keys")) -> None:
    """Ask, answer, fit.

    Args:
        model: a fine-tuned model.
        prompts: questions to answer.
        seconds: looked at each pair of answers for.
        out: a new folder for the record and the reward model.
    """
    out.mkdir(parents=True)
    record = out / "people.sqlite"
    ask = ["text", "ask", "--model", model, "--record", str(record), "--prompts", str(prompts)]
    subprocess.run(prefrl(*ask), check=True)
    open_screen()
    viewer = subprocess.Popen(prefrl("label", str(record), "--name", "robot", "--repeat-share", "0"))
    robot = Robot(record, gold, seconds)
    while viewer.poll() is None and robot.store.num_answers() < prompts:
        robot.look()
    subprocess.run(["xdotool", "key", "q"], check=True)
    viewer.wait(timeout=30)
    print(f"{robot.store.num_answers()} answers given in the window")
    reward = ["text", "reward", "--model", model, "--data", str(record), "--out", str(out / "reward")]
    reward += ["--training.epochs", "4", "--training.optimiser.learning-rate", "5e-4"]  # there are few answers
    subprocess.run(prefrl(*reward), check=True)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

"""Does it cost anything to let people see the agent change early? Runs that wait for 20 answers, or for a quarter.

    python scripts/experiments/wait_for_people.py Pendulum-v1 --labels 150 --waits 20 38 --seeds 0 1 2

A program answers from the record as a person at the viewer would, a question each `--seconds`, by the true return of
the clips; training goes on beside it, as with people. One line a run: its true return, how many steps the agent had
made when the answers were half, and when they were all in.
"""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import tyro

from prefrl.feedback import Comparison
from prefrl.store import PreferenceStore


def main(
    env: tyro.conf.Positional[str],
    labels: int = 150,
    waits: tuple[int, ...] = (20, 38),
    seeds: tuple[int, ...] = (0, 1, 2),
    seconds: float = 0.5,
    out: Path = Path("runs/wait"),
) -> None:
    """Teach each run, and print what came of it."""
    for seed in seeds:
        for wait in waits:
            print(json.dumps({"wait": wait, "seed": seed, **teach(env, labels, wait, seed, seconds, out)}), flush=True)


def teach(env: str, labels: int, wait: int, seed: int, seconds: float, out: Path) -> dict[str, float]:
    """Run one training, answer its questions, and return its figures."""
    run = out / f"{env.replace('/', '-')}-{labels}-{wait}-{seed}"
    command = [sys.executable, "-m", "prefrl", "train", env, "--annotator", "human", "--labels", str(labels)]
    command += ["--wait", str(wait), "--seed", str(seed), "--out", str(run), "--no-viewer", "--no-video", "--json"]
    training = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    steps: dict[str, float] = {}
    threading.Thread(target=answer, args=(run, training, labels, seconds, steps), daemon=True).start()
    said = json.loads(training.communicate()[0].splitlines()[-1])
    return {"true return": said["true_return_mean"], **steps}


def answer(run: Path, training: subprocess.Popen[str], labels: int, seconds: float, steps: dict[str, float]) -> None:
    """Answer whatever is open until the training is over."""
    while not (run / "record.sqlite").exists():
        time.sleep(0.2)
    with PreferenceStore(run / "record.sqlite") as store:
        while training.poll() is None:
            time.sleep(seconds)
            for claim in store.claim("robot", 1, repeat_share=0, with_clips=False):
                first, second = (part.true_rewards.sum() for part in store.query(claim.query.id).segments)
                preference = 0.5 if first == second else float(first > second)
                said = Comparison(
                    query_id=claim.query.id,
                    preference=preference,
                    annotator="robot",
                    claim=claim.token,
                    shown=claim.shown,
                    seconds=seconds,
                )
                store.add_answers([said])
                given = store.num_answers()
                if given in (labels // 2, labels):
                    steps[f"steps at {given} answers"] = steps_so_far(run)


def steps_so_far(run: Path) -> float:
    """Return the environment steps of the newest row of the run's figures."""
    rows = (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").exists() else []
    return next((json.loads(row)["num_env_steps"] for row in reversed(rows) if "num_env_steps" in row), 0)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

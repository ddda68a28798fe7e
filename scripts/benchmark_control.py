"""How many answers are enough: every task at several numbers of labels, with the controls that must fail.

    python scripts/benchmark_control.py --minutes 60 --jobs 2

Every cell is one `prefrl train` in a folder of its own under `runs/benchmark`. Run it again to go on where it stopped.
The table goes to standard output; `docs/benchmarks.md` holds the one of the last release.
"""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tyro

TASKS = ("Pendulum-v1", "HalfCheetah-v5", "CartPole-v1", "Acrobot-v1", "Reacher-v5", "Swimmer-v5", "Hopper-v5")
CELLS = (("oracle", 200), ("coin", 200), ("inverted", 200), ("oracle", 50), ("oracle", 700))


def run_cell(out: Path, task: str, teacher: str, labels: int, seed: int, deadline: float) -> None:
    folder = out / f"{task}-{teacher}-{labels}-{seed}"
    if (folder / "done.json").is_file() or time.monotonic() > deadline:
        return
    first = ["resume", str(folder)] if (folder / "config.json").is_file() else ["train", task, "--out", str(folder)]
    if first[0] == "train":
        first += ["--labels", str(labels), "--teacher", teacher, "--seed", str(seed)]
        first += ["--baseline"] if (teacher, labels) == ("oracle", 200) else []
    command = [sys.executable, "-m", "prefrl.cli", *first, "--no-video", "--quiet", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"{folder.name}: {done.stderr.strip()[-300:]}", file=sys.stderr)
        return
    (folder / "done.json").write_text(done.stdout)
    print(f"{folder.name}: {json.loads(done.stdout)['true_return_mean']:.1f}", file=sys.stderr, flush=True)


def table(out: Path, seeds: int) -> str:
    rows = ["| task | random | true reward | " + " | ".join(f"{t} {n}" for t, n in CELLS) + " |", "|---" * 8 + "|"]
    for task in TASKS:
        cells, line = {}, [task]
        for teacher, labels in CELLS:
            paths = [out / f"{task}-{teacher}-{labels}-{seed}" / "done.json" for seed in range(seeds)]
            cells[teacher, labels] = [json.loads(p.read_text()) for p in paths if p.is_file()]
        main = cells["oracle", 200]
        random, true = (
            np.array([r[k] for r in main]) for k in ("random_true_return_mean", "baseline_true_return_mean")
        )
        line += [show(random), show(true)] if main else ["", ""]
        for found in cells.values():
            returns = np.array([r["true_return_mean"] for r in found])
            share = f", {np.median((returns - random.mean()) / (np.median(true) - random.mean())):.0%}" if main else ""
            line.append(show(returns) + share if found else "")
        rows.append("| " + " | ".join(line) + " |")
    return "\n".join(rows)


def show(values: np.ndarray) -> str:
    return f"{np.median(values):.4g} ({values.min():.4g} to {values.max():.4g})"


def main(minutes: float = 60.0, jobs: int = 2, seeds: int = 3, out: Path = Path("runs/benchmark")) -> None:
    deadline = time.monotonic() + 60 * minutes
    with ThreadPoolExecutor(jobs) as pool:
        for teacher, labels in CELLS:
            for seed in range(seeds):
                for task in TASKS:
                    pool.submit(run_cell, out, task, teacher, labels, seed, deadline)
    print(table(out, seeds))


if __name__ == "__main__":
    tyro.cli(main)

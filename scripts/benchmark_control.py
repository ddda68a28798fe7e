"""How many answers are enough: every task at several numbers of labels, with the controls that must fail.

    python scripts/benchmark_control.py --minutes 60 --jobs 2

Every cell is one `prefrl train` in a folder of its own under `runs/benchmark`. Run it again to go on where it stopped.
The tables go to standard output; `docs/benchmarks.md` holds those of the last release.
"""

import itertools
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import benchmark_tables
import tyro

STEPS = {
    "Pendulum-v1": 150_000, "HalfCheetah-v5": 300_000, "CartPole-v1": 60_000, "Acrobot-v1": 200_000,
    "Reacher-v5": 300_000, "Swimmer-v5": 200_000, "Hopper-v5": 200_000,
}  # fmt: skip
MAIN = ("oracle", 200)
OTHERS = (("coin", 200), ("inverted", 200), ("oracle", 50), ("oracle", 700))


def run_cell(out: Path, task: str, teacher: str, labels: int, seed: int, deadline: float, cores: SimpleQueue) -> None:
    folder = out / f"{task}-{teacher}-{labels}-{seed}"
    if (folder / "done.json").is_file() or time.monotonic() > deadline:
        return
    if (folder / "config.json").is_file():
        arguments = ["resume", str(folder)]
    else:
        arguments = ["train", task, "--out", str(folder), "--steps", str(STEPS[task])]
        arguments += ["--labels", str(labels), "--teacher", teacher, "--seed", str(seed)]
        arguments += ["--baseline"] if (teacher, labels) == MAIN else []
    command = [sys.executable, "-m", "prefrl.cli", *arguments, "--no-video", "--quiet", "--json"]
    core = cores.get()  # one each: threads that wait for each other's cores would only slow them down
    done = subprocess.run(["taskset", "-c", str(core), *command], capture_output=True, text=True)
    cores.put(core)
    if done.returncode:
        print(f"{folder.name}: {done.stderr.strip()[-300:]}", file=sys.stderr)
        return
    (folder / "done.json").write_text(done.stdout)
    print(f"{folder.name}: {json.loads(done.stdout)['true_return_mean']:.1f}", file=sys.stderr, flush=True)


def main(minutes: float = 60.0, jobs: int = 2, seeds: int = 3, out: Path = Path("runs/benchmark")) -> None:
    deadline = time.monotonic() + 60 * minutes
    cells = [(MAIN, seed) for seed in range(seeds)] + [(cell, seed) for seed in range(seeds) for cell in OTHERS]
    cores: SimpleQueue[int] = SimpleQueue()
    for core in itertools.islice(itertools.cycle(sorted(os.sched_getaffinity(0))), jobs):
        cores.put(core)
    with ThreadPoolExecutor(jobs) as pool:
        for (teacher, labels), seed in cells:
            for task in STEPS:
                pool.submit(run_cell, out, task, teacher, labels, seed, deadline, cores)
    print(benchmark_tables.tables(out, list(STEPS), [("oracle", 50), MAIN, ("oracle", 700), *OTHERS[:2]], seeds))


if __name__ == "__main__":
    tyro.cli(main)

"""How many answers are enough: every task at several numbers of labels, with the controls that must fail.

    python scripts/benchmarks/benchmark_control.py --minutes 60 --jobs 2
    python scripts/benchmarks/benchmark_control.py --minutes 60 --jobs 2 --paper --out runs/benchmark-paper
    python scripts/benchmarks/benchmark_control.py --tasks LunarLander-v3 --labels 300 --no-controls --seeds 300 5

Every cell is one `prefrl train` with the defaults of its task, in a folder of its own. Run it again to go on where it
stopped. `--paper` takes the eight tasks and the numbers of labels of Christiano et al. (2017), without the controls.
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

from prefrl.envs.registration import PAPER_SIZES

TASKS = ["Pendulum-v1", "HalfCheetah-v5", "CartPole-v1", "Acrobot-v1", "Reacher-v5", "Swimmer-v5", "Hopper-v5"]
LABELS = (200, 50, 700)
CONTROLS = ("coin", "inverted")
PAPER_TASKS = [f"prefrl/Christiano-{name}-v0" for name in PAPER_SIZES]
PAPER_LABELS = (700, 350, 1400)


def run_cell(folder: Path, arguments: list[str], deadline: float, cores: SimpleQueue) -> None:
    if (folder / "done.json").is_file() or time.monotonic() > deadline:
        return
    resumes = (folder / "config.json").is_file()
    arguments = ["resume", str(folder)] if resumes else ["train", *arguments, "--out", str(folder)]
    command = [sys.executable, "-m", "prefrl.cli", *arguments, "--no-video", "--quiet", "--json"]
    core = cores.get()  # one each: threads that wait for each other's cores would only slow them down
    done = subprocess.run(["taskset", "-c", str(core), *command], capture_output=True, text=True)
    cores.put(core)
    if done.returncode:
        print(f"{folder.name}: {done.stderr.strip()[-300:]}", file=sys.stderr)
        return
    (folder / "done.json").write_text(done.stdout)
    print(f"{folder.name}: {json.loads(done.stdout)['true_return_mean']:.1f}", file=sys.stderr, flush=True)


def main(
    minutes: float = 60.0,
    jobs: int = 2,
    seeds: tuple[int, int] = (300, 3),
    paper: bool = False,
    tasks: tuple[str, ...] = (),
    labels: tuple[int, ...] = (),
    controls: bool = True,
    out: Path = Path("runs/benchmark"),
) -> None:
    """Run what is missing of `tasks` and `labels` (none: all of the table), then print the table.

    The first number of labels is what the agent on the true reward and the controls are run beside; `seeds` are the
    first and how many.
    """
    deadline = time.monotonic() + 60 * minutes
    tasks, labels = tasks or tuple(PAPER_TASKS if paper else TASKS), labels or (PAPER_LABELS if paper else LABELS)
    main_cell = ("oracle", labels[0])
    others = [(control, labels[0]) for control in CONTROLS] if controls and not paper else []
    cells = [main_cell, *others, *(("oracle", num) for num in labels[1:])]
    cores: SimpleQueue[int] = SimpleQueue()
    for core in itertools.islice(itertools.cycle(sorted(os.sched_getaffinity(0))), jobs):
        cores.put(core)
    all_seeds = range(seeds[0], seeds[0] + seeds[1])
    order = [(main_cell, seed) for seed in all_seeds] + [(cell, seed) for seed in all_seeds for cell in cells[1:]]
    with ThreadPoolExecutor(jobs) as pool:
        for cell, seed in order:
            for task in tasks:
                arguments = [task, "--teacher", cell[0], "--labels", str(cell[1]), "--seed", str(seed)]
                arguments += ["--baseline"] if cell == main_cell else []
                folder = benchmark_tables.folder(out, task, cell, seed)
                pool.submit(run_cell, folder, arguments, deadline, cores)
    oracle = [("oracle", num) for num in sorted(labels)]
    print(benchmark_tables.tables(out, tasks, [*oracle, *others], main_cell, all_seeds))


if __name__ == "__main__":
    tyro.cli(main)

r"""What a part of the method is worth: settings beside the default ones, on the same seeds, with how sure one can be.

    python scripts/benchmarks/benchmark_parts.py --labels 100 --seeds 600 10 --variants "entropy: --warmup entropy" \\
        "pessimism: --reward.pessimism 1"
    python scripts/benchmarks/benchmark_parts.py --tasks Reacher-v5 Swimmer-v5 Hopper-v5 --labels 100 --seeds 600 10

Every run is one `prefrl train` in a folder of its own; run it again to go on where it stopped. A share is that of the
gain of the agent on the true reward over random actions. Over tasks and seeds, with 95 % intervals by drawing the seeds
of each task anew (Agarwal et al. 2021): the interquartile mean of the shares, its difference to the default's on the
same seeds, and the probability that a run with the variant is better than one without. The last line says how large a
difference must be to be told from chance with that many seeds: in 95 of 100 draws the default differs by less from
itself.
"""

import itertools
import json
import os
import shlex
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import benchmark_tables
import numpy as np
import tyro
from benchmark_control import run_cell

from prefrl.aggregate import better, drawn_seeds, interquartile_mean, middle_95

PANEL = ("Pendulum-v1", "CartPole-v1", "Reacher-v5")  # some two minutes for each seed of all three


def shares(out: Path, tasks: tuple[str, ...], name: str, labels: int, seeds: range) -> np.ndarray:
    """Return the share of each task and seed, `(tasks, seeds)`, NaN where there is no run yet."""
    found = np.full((len(tasks), len(seeds)), np.nan)
    for row, task in enumerate(tasks):
        beside = benchmark_tables.read(out, task, ("default", labels), seeds)
        if not beside:
            continue
        random = np.mean([run["random_true_return_mean"] for run in beside])
        true = interquartile_mean(np.array([run["baseline_true_return_mean"] for run in beside]))
        for column, seed in enumerate(seeds):
            path = benchmark_tables.folder(out, task, (name, labels), seed) / "done.json"
            if path.is_file():
                run = json.loads(path.read_text())
                found[row, column] = (run["true_return_mean"] - random) / (true - random)
    return found


def interval(figures: list[float], form: str) -> str:
    """Return the middle 95 % of what was drawn."""
    low, high = middle_95(figures)
    return f"[{form.format(low)}, {form.format(high)}]"


def table(found: dict[str, np.ndarray]) -> str:
    """Return a table of all variants, from shares `(tasks, seeds)`, and what could be told from chance."""
    default = found["default"]
    num = default.shape[1]
    rows = [
        "| settings | interquartile mean of shares | difference | better with probability | runs |",
        "|---" * 5 + "|",
    ]
    draws = drawn_seeds(len(default), num)
    for name, values in found.items():
        both = np.isfinite(values) & np.isfinite(default)
        if not both.any(1).all():
            rows.append(f"| {name} | | | | {int(np.isfinite(values).sum())} |")
            continue
        ours, theirs = np.where(both, values, np.nan), np.where(both, default, np.nan)
        drawn = [(np.take_along_axis(ours, draw, 1), np.take_along_axis(theirs, draw, 1)) for draw in draws]
        drawn = [pair for pair in drawn if np.isfinite(pair[0]).any(1).all()]
        middle = f"{interquartile_mean(ours):.0%} {interval([interquartile_mean(a) for a, _ in drawn], '{:.0%}')}"
        difference = chance = ""
        if name != "default":
            by = [interquartile_mean(a) - interquartile_mean(b) for a, b in drawn]
            difference = f"{interquartile_mean(ours) - interquartile_mean(theirs):+.0%} {interval(by, '{:+.0%}')}"
            chance = f"{better(ours, theirs):.2f} {interval([better(a, b) for a, b in drawn[:500]], '{:.2f}')}"
        rows.append(f"| {name} | {middle} | {difference} | {chance} | {int(both.sum())} |")
    halves = [interquartile_mean(np.take_along_axis(default, draw, 1)) for draw in draws]
    apart = np.abs(np.array(halves[::2]) - np.array(halves[1::2]))
    rows += ["", f"Told from chance: differences above {np.percentile(apart, 95):.0%} with {num} seeds a task."]
    return "\n".join(rows)


def main(
    tasks: tuple[str, ...] = PANEL,
    labels: int = 100,
    seeds: tuple[int, int] = (600, 10),
    variants: tuple[str, ...] = (),
    minutes: float = 60.0,
    jobs: int = 2,
    out: Path = Path("runs/parts"),
) -> None:
    """Run what is missing, then print the table.

    Args:
        tasks: environments.
        labels: answers of each run.
        seeds: the first, and how many.
        variants: "NAME: OPTIONS of prefrl train" each.
        minutes: no run is begun after these.
        jobs: runs at a time.
        out: folder of all runs.
    """
    deadline = time.monotonic() + 60 * minutes
    options = {"default": ["--baseline"]}
    for variant in variants:
        name, colon, given = variant.partition(":")
        if not colon or not name.replace("-", "").isalnum() or name == "default":
            raise SystemExit(f'A variant is "NAME: OPTIONS", e.g. "entropy: --warmup entropy". Received {variant!r}')
        options[name] = shlex.split(given)
    cores: SimpleQueue[int] = SimpleQueue()
    for core in itertools.islice(itertools.cycle(sorted(os.sched_getaffinity(0))), jobs):
        cores.put(core)
    numbers = range(seeds[0], seeds[0] + seeds[1])
    with ThreadPoolExecutor(jobs) as pool:
        for seed, name, task in itertools.product(numbers, options, tasks):
            folder = benchmark_tables.folder(out, task, (name, labels), seed)
            arguments = [task, "--labels", str(labels), "--seed", str(seed), *options[name]]
            pool.submit(run_cell, folder, arguments, deadline, cores)
    found = {name: shares(out, tasks, name, labels, numbers) for name in options}
    if not np.isfinite(found["default"]).any(1).all():
        raise SystemExit("Not every task has a run with the default settings yet: run this again.")
    print(table(found))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

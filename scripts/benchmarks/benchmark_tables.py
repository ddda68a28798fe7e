"""The tables of `benchmark_control.py`, from the `done.json` of its cells.

Over seeds: the interquartile mean with a 95 % bootstrap interval (Agarwal et al. 2021), and the least and the most.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from prefrl.aggregate import interquartile_mean
from prefrl.envs.measures import known_measures

Cell = tuple[str, int]


def folder(out: Path, task: str, cell: Cell, seed: int) -> Path:
    return out / f"{task.replace('/', '-')}-{cell[0]}-{cell[1]}-{seed}"


def read(out: Path, task: str, cell: Cell, seeds: Sequence[int]) -> list[dict[str, Any]]:
    paths = [folder(out, task, cell, seed) / "done.json" for seed in seeds]
    return [json.loads(path.read_text()) for path in paths if path.is_file()]


def tables(out: Path, tasks: Sequence[str], cells: list[Cell], main: Cell, seeds: Sequence[int]) -> str:
    """Return three tables: true returns, shares of the true-reward agent's gain over random actions, and measures."""
    names = [f"{teacher} {labels}" for teacher, labels in cells]
    returns = [_row("task", "random", "true reward", *names), "|---" * (len(cells) + 3) + "|"]
    shares = [_row("task", *names, "labels for 90 %"), "|---" * (len(cells) + 2) + "|"]
    measured = [_row("task", "measure", "random", "true reward", *names), "|---" * (len(cells) + 4) + "|"]
    for task in tasks:
        beside = read(out, task, main, seeds)
        if not beside:
            continue
        runs = [read(out, task, cell, seeds) for cell in cells]
        random = float(np.mean([run["random_true_return_mean"] for run in beside]))
        true = np.array([run["baseline_true_return_mean"] for run in beside])
        got = [np.array([run["true_return_mean"] for run in of_cell]) for of_cell in runs]
        gains = [(values - random) / (interquartile_mean(true) - random) for values in got]
        enough = [labels for (teacher, labels), x in zip(cells, gains, strict=True) if reaches(teacher, x)]
        name = f"{task} ({beside[0]['steps']:,} steps)"
        returns.append(_row(name, f"{random:.4g}", show(true), *map(show, got)))
        last = str(min(enough)) if enough else f"more than {max(labels for _, labels in cells)}"
        shares.append(_row(name, *(show(x, "{:.0%}") for x in gains), last))
        for measure in known_measures(task):
            figures = [(beside, "random_"), (beside, "baseline_"), *((of_cell, "") for of_cell in runs)]
            found = [[run[f"{prefix}measures"][measure.name] for run in of_cell] for of_cell, prefix in figures]
            text = [" ".join(measure.text(value) for value in sorted(values)) for values in found]
            text[0] = measure.text(float(np.mean(found[0])))
            measured.append(_row(name, measure.name, *text))
    head = "interquartile mean over seeds [95 % interval] (least to most; n):"
    parts = [f"True return, {head}", "", *returns, "", f"Share, {head}", "", *shares]
    return "\n".join([*parts, "", "Beside the return, one figure a seed in order of size:", "", *measured])


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def reaches(teacher: str, share: np.ndarray) -> bool:
    return teacher == "oracle" and len(share) > 0 and interquartile_mean(share) >= 0.9


def show(values: np.ndarray, form: str = "{:.4g}") -> str:
    if len(values) < 2:
        return form.format(values[0]) if len(values) else ""
    interval = ""
    if len(values) > 3 and np.ptp(values) > 0:
        found = stats.bootstrap(
            (values,), interquartile_mean, n_resamples=10_000, method="percentile", rng=0
        ).confidence_interval
        interval = f" [{form.format(found.low)}, {form.format(found.high)}]"
    limits = f"{form.format(values.min())} to {form.format(values.max())}"
    return f"{form.format(interquartile_mean(values))}{interval} ({limits}; {len(values)})"

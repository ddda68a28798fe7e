"""The tables of `benchmark_control.py`, from the `done.json` of its cells."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Cell = tuple[str, int]


def folder(out: Path, task: str, cell: Cell, seed: int) -> Path:
    return out / f"{task.replace('/', '-')}-{cell[0]}-{cell[1]}-{seed}"


def read(out: Path, task: str, cell: Cell, seeds: int) -> list[dict[str, Any]]:
    paths = [folder(out, task, cell, seed) / "done.json" for seed in range(seeds)]
    return [json.loads(path.read_text()) for path in paths if path.is_file()]


def tables(out: Path, tasks: Sequence[str], cells: list[Cell], main: Cell, seeds: int) -> str:
    """Return two tables: true returns, and shares of the true-reward agent's gain over random actions."""
    head = "| task | " + " | ".join(f"{teacher} {labels}" for teacher, labels in cells)
    line = "|---" * (len(cells) + 3) + "|"
    returns = [head.replace("task |", "task | random | true reward |") + " |", line]
    shares = [head + " | labels for 90 % |", line.removesuffix("---|")]
    for task in tasks:
        beside = read(out, task, main, seeds)
        if not beside:
            continue
        random = float(np.mean([run["random_true_return_mean"] for run in beside]))
        true = np.array([run["baseline_true_return_mean"] for run in beside])
        most = max(labels for _, labels in cells)
        row, share_row, enough = [show(np.array([random])), show(true)], [], f"more than {most}"
        for cell in reversed(cells):
            got = np.array([run["true_return_mean"] for run in read(out, task, cell, seeds)])
            share = (got - random) / (np.median(true) - random)
            row.insert(2, show(got))
            share_row.insert(0, f"{np.median(share):.0%} ({share.min():.0%} to {share.max():.0%})" if len(got) else "")
            if cell[0] == "oracle" and len(got) and np.median(share) >= 0.9:
                enough = str(cell[1])
        name = f"{task} ({beside[0]['steps']:,} steps)"
        returns.append(f"| {name} | " + " | ".join(row) + " |")
        shares.append(f"| {name} | " + " | ".join(share_row) + f" | {enough} |")
    return "\n".join(["True return, median over seeds (least to most):", "", *returns, "", "Share:", "", *shares])


def show(values: np.ndarray) -> str:
    if len(values) < 2:
        return f"{values[0]:.4g}" if len(values) else ""
    return f"{np.median(values):.4g} ({values.min():.4g} to {values.max():.4g}; n = {len(values)})"

"""What the runs of a sweep came to: a row for each, and over seeds the interquartile means and who is above whom."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prefrl.aggregate import Interval, Scores, better, interquartile_mean, interval_of
from prefrl.errors import UserError, near_names
from prefrl.files import write_atomically
from prefrl.runs.metrics import finite, numbers
from prefrl.sweeps.naming import get, option_paths, place_of
from prefrl.sweeps.plan import AS_GIVEN, Cell, Plan, shown

SHARE = "share"
"""Of the gain of the run on the true reward over random actions, where runs have that beside them."""
MOST_SHOWN = 12  # figures named in a message


@dataclass(frozen=True, kw_only=True)
class Line:
    """The runs of one variant on one task."""

    task: str
    variant: str
    num: int
    """Runs that have the figure."""
    wanted: int
    value: Interval | None
    least: float | None
    most: float | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How often a run of a variant is above one of the first, averaged over tasks."""

    variant: str
    above: Interval


@dataclass(frozen=True, kw_only=True)
class Results:
    """All rows, and over seeds what they say."""

    measure: str
    first: str
    rows: list[dict[str, Any]]
    lines: list[Line]
    comparisons: list[Comparison]

    @property
    def one_of_first(self) -> str:
        """What the comparisons are with, in words."""
        return "one as given" if self.first == AS_GIVEN else f"one of {self.first}"

    def to_json(self) -> dict[str, Any]:
        """Return them as JSON values."""
        return {
            "measure": self.measure,
            "lines": [vars(line) | {"value": line.value and line.value.to_json()} for line in self.lines],
            "above": {"first": self.first, "variants": {one.variant: one.above.to_json() for one in self.comparisons}},
            "runs": self.rows,
        }

    def write(self, out: Path) -> None:
        """Write `results.json` and `results.csv`."""
        write_atomically(out / "results.json", json.dumps(finite(self.to_json()), indent=1, allow_nan=False))
        names = list(dict.fromkeys(name for row in self.rows for name in (*row, *row["figures"]) if name != "figures"))
        table = io.StringIO()
        writer = csv.DictWriter(table, names, lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            writer.writerow({name: value for name, value in (row | row["figures"]).items() if name != "figures"})
        write_atomically(out / "results.csv", table.getvalue())


def rows_of(
    plan: Plan, out: Path, reasons: Mapping[str, str], cells: Sequence[Cell] | None = None
) -> list[dict[str, Any]]:
    """Return a row for each run: what is varied, its seed, its folder, whether it is over, and its figures.

    Args:
        plan: of the sweep.
        out: its folder.
        reasons: why runs failed, by name.
        cells: the runs; None: those of the plan.
    """
    rows = []
    for cell in plan.cells if cells is None else cells:
        folder = plan.kind.folder(out / cell.name)
        over = folder.finished and cell.name not in reasons
        rows.append(
            {
                "task": _task(plan, cell),
                "variant": _variant(plan, cell),
                **{f"vary.{name}": value for name, value in cell.varied.items()},
                "seed": cell.seed,
                "run": cell.name,
                "state": "done" if over else "failed" if cell.name in reasons else "open",
                "reason": reasons.get(cell.name, ""),
                "figures": dict(numbers(finite(folder.read_summary()))) if over else {},
            }
        )
    _add_baselines(rows, plan.cells if cells is None else cells)
    _add_shares(rows)
    return rows


def results_of(plan: Plan, rows: list[dict[str, Any]], measure: str | None = None) -> Results | None:
    """Return what rows say over seeds; None where no run is done.

    Args:
        plan: of the sweep.
        rows: from `rows_of`.
        measure: figure to compare by; None: the one that says how good such runs are.

    Raises:
        UserError: no run has that figure.
    """
    known = list(dict.fromkeys(name for row in rows for name in row["figures"]))
    if not known:
        return None
    measure = measure_of(plan, known, measure)
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    scores = {variant: _scores(rows, tasks, variant, measure) for variant in variants}
    lines = []
    for number, task in enumerate(tasks):
        for variant, found in scores.items():
            one = found[number : number + 1]
            there = one[np.isfinite(one)]
            value = interval_of(interquartile_mean, one) if there.size else None
            least, most = (float(there.min()), float(there.max())) if there.size else (None, None)
            lines.append(
                Line(task=task, variant=variant, num=there.size, wanted=one.size, value=value, least=least, most=most)
            )
    first = scores[variants[0]]
    comparisons = [
        Comparison(variant=variant, above=interval_of(better, found, first))
        for variant, found in list(scores.items())[1:]
        if np.isfinite(found).any(1).all() and np.isfinite(first).any(1).all()
    ]
    return Results(measure=measure, first=variants[0], rows=rows, lines=lines, comparisons=comparisons)


def measure_of(plan: Plan, known: Sequence[str], measure: str | None) -> str:
    """Return the figure that runs are compared by.

    Args:
        plan: of the sweep.
        known: figures that runs have.
        measure: the one asked for; None: the one that says how good such runs are.

    Raises:
        UserError: no run has that figure.
    """
    if measure is None:
        measure = next((name for name in plan.kind.measures if name in known), None)
        if measure is None:
            raise UserError(f"Name the figure that is to be compared: --measure {' | '.join(known[:MOST_SHOWN])}")
    elif measure not in known:
        some = ", ".join(known[:MOST_SHOWN]) + (", ..." if len(known) > MOST_SHOWN else "")
        raise UserError(f"No run has a figure {measure!r}; there are {some}.{near_names(measure, known)}")
    return measure


def _scores(rows: Sequence[Mapping[str, Any]], tasks: Sequence[str], variant: str, measure: str) -> Scores:
    """Return the figures of a variant, `(tasks, seeds)`, NaN where there is none."""
    seeds = list(dict.fromkeys(row["seed"] for row in rows))
    found = np.full((len(tasks), len(seeds)), np.nan)
    for row in rows:
        value = row["figures"].get(measure)
        if row["variant"] == variant and value is not None:
            found[tasks.index(row["task"]), seeds.index(row["seed"])] = value
    return found


def _task(plan: Plan, cell: Cell) -> str:
    return shown(get(cell.settings, (plan.kind.task,)) or "")


def _variant(plan: Plan, cell: Cell) -> str:
    """Return what is varied but the task."""
    paths = option_paths(plan.kind.settings)
    others = {
        name: value
        for name, value in cell.varied.items()
        if place_of(name, paths, plan.kind.aliases) != (plan.kind.task,)
    }
    return ", ".join(f"{name}={shown(value)}" for name, value in others.items()) or AS_GIVEN


def check_measure(plan: Plan, measure: str | None) -> None:
    """Refuse a figure that no run will have, before any is made.

    Raises:
        UserError: it is the share of what agents on the true reward gain, and none are trained.
    """
    if measure == SHARE and not plan.options.get("baseline"):
        raise UserError(
            "The share is of what the same agent gains on the true reward: --measure share needs --baseline, with "
            "which that is trained beside each run."
        )


OF_BASELINES = ("baseline_true_return", "baseline_measures")
"""Beginnings of the names of those figures of a baseline that do not depend on the run beside it."""


def _add_baselines(rows: Sequence[dict[str, Any]], cells: Sequence[Cell]) -> None:
    """Give runs without a baseline of their own the figures of the one that is theirs too; its time counts once.

    What it is worth by a learned reward is no such figure: that reward is the other run's. A run that an older version
    made with a baseline has its own.
    """
    by_name = {row["run"]: row["figures"] for row in rows}
    for row, cell in zip(rows, cells, strict=True):
        if cell.baseline_of is not None and row["figures"]:
            beside = by_name.get(cell.baseline_of, {})
            shared = {name: value for name, value in beside.items() if name.startswith(OF_BASELINES)}
            row["figures"] = shared | row["figures"]


def _add_shares(rows: list[dict[str, Any]]) -> None:
    """Add the share of the gain that is possible, where runs on the true reward stand beside."""
    needed = ("true_return_mean", "random_true_return_mean", "baseline_true_return_mean")
    for task in {row["task"] for row in rows}:
        beside = [row["figures"] for row in rows if row["task"] == task and all(n in row["figures"] for n in needed)]
        if not beside:
            continue
        random = float(np.mean([one["random_true_return_mean"] for one in beside]))
        gain = interquartile_mean(np.array([one["baseline_true_return_mean"] for one in beside])) - random
        for row in rows:
            if row["task"] == task and "true_return_mean" in row["figures"] and gain:
                row["figures"][SHARE] = (row["figures"]["true_return_mean"] - random) / gain

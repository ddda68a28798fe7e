"""A study: a claim of the theory put to the test on a small exact problem, with a table, a picture and a verdict."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prefrl.errors import UserError
from prefrl.files import write_atomically
from prefrl.runs.plotting import make_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Check:
    """A claim beside what was measured."""

    claim: str
    measured: str
    holds: bool


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a study found."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    """Of the table: texts and numbers."""
    checks: list[Check]
    notes: list[str] = field(default_factory=list)
    """Sentences for people, made from the figures."""
    draw: Callable[[Figure], None]
    """Draws the picture."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A claim and how it is put to the test."""

    name: str
    question: str
    source: str
    """Paper and place."""
    run: Callable[[int, int], Finding]
    """(number of repetitions, seed) -> what was found."""
    repetitions: int
    """By default: as many as take two minutes on two cores at most."""

    def __post_init__(self) -> None:
        if self.repetitions < 1:
            raise UserError(f"A study needs one repetition or more. Received {self.repetitions}")


def write_finding(study: Study, finding: Finding, out: Path, *, repetitions: int, seed: int) -> None:
    """Write `figure.png` and `finding.json` into a folder, which is made.

    Raises:
        UserError: it cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot make the folder {out}: {error.strerror or error}.") from error
    figure = make_figure(10.5, 4.2)
    finding.draw(figure)
    save_figure(figure, out / "figure.png")
    content = {
        "study": study.name,
        "question": study.question,
        "source": study.source,
        "repetitions": repetitions,
        "seed": seed,
        "columns": finding.columns,
        "rows": finding.rows,
        "checks": [asdict(check) for check in finding.checks],
        "notes": finding.notes,
    }
    write_atomically(out / "finding.json", json.dumps(content, indent=1, default=float).encode())


# ------------------------------------------------------------------------------------------------ small statistics


def mean_and_interval(values: Sequence[float] | NDArray[Any]) -> tuple[float, float]:
    """Return the mean and half the width of its 95 % interval, by the normal distribution; 0 for a single value."""
    found = np.asarray(values, dtype=np.float64)
    if len(found) < 2:
        return float(found.mean()), 0.0
    return float(found.mean()), float(1.96 * found.std(ddof=1) / math.sqrt(len(found)))


def slope(sizes: Sequence[float], values: NDArray[Any]) -> tuple[float, float]:
    """Return the slope of log(mean value) over log(size) and half its 95 % interval, by bootstrap over repetitions.

    Args:
        sizes: S positive.
        values: `(R, S)` float, positive: R repetitions.
    """
    x = np.log(np.asarray(sizes, dtype=np.float64))

    def fitted(means: NDArray[Any]) -> float:
        return float(np.polyfit(x, np.log(means), 1)[0])

    rng = np.random.default_rng(0)
    drawn = [fitted(values[rng.integers(len(values), size=len(values))].mean(axis=0)) for _ in range(200)]
    return fitted(values.mean(axis=0)), float(1.96 * np.std(drawn))

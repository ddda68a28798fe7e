"""Figures of several runs as one: interquartile means, bootstrap intervals, probabilities of improvement.

Scores are `(tasks, seeds)`, NaN where a run is missing; intervals come from drawing the seeds of each task anew, as
Agarwal et al. (2021) do, "Deep reinforcement learning at the edge of the statistical precipice".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
DRAWS = 2_000


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure with its 95 % interval; without ends where one run alone tells it."""

    value: float
    low: float | None
    high: float | None
    num: int
    """Runs that it is of."""

    def text(self, form: str = "{:.4g}") -> str:
        """Return it as `value [low, high]`."""
        ends = "" if self.low is None else f" [{form.format(self.low)}, {form.format(self.high)}]"
        return form.format(self.value) + ends

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def interquartile_mean(values: Scores) -> float:
    """Return the mean of the middle half of all values that are there: a quarter is cut off at each end.

    Args:
        values: of any shape, at least one of them finite; NaN is left out.
    """
    found = np.sort(values[np.isfinite(values)], axis=None)
    cut = found.size // 4
    return float(found[cut : found.size - cut].mean())


def better(ours: Scores, theirs: Scores) -> float:
    """Return the probability that a run of `ours` is above one of `theirs`, a tie counting a half, averaged over tasks.

    Args:
        ours: `(tasks, seeds)`, NaN where there is none; at least one of each task.
        theirs: `(tasks, seeds)` of the same tasks.
    """
    found = []
    for a, b in zip(ours, theirs, strict=True):
        above = np.sign(a[np.isfinite(a)][:, None] - b[np.isfinite(b)])
        found.append((1 + above.mean()) / 2)
    return float(np.mean(found))


def drawn_seeds(num_tasks: int, num_seeds: int, num_draws: int = DRAWS) -> list[NDArray[np.int64]]:
    """Return which seeds of each task are taken, `(tasks, seeds)` a draw, always the same ones."""
    rng = np.random.default_rng(0)
    return [rng.integers(num_seeds, size=(num_tasks, num_seeds)) for _ in range(num_draws)]


def middle_95(figures: Sequence[float]) -> tuple[float, float]:
    """Return the ends of the middle 95 % of what was drawn."""
    low, high = np.percentile(figures, [2.5, 97.5])
    return float(low), float(high)


def interval_of(statistic: Callable[..., float], *scores: Scores) -> Interval:
    """Return a statistic of scores with its bootstrap interval; the seeds of all of them are drawn together.

    Args:
        statistic: of as many arrays.
        scores: `(tasks, seeds)` each, at least one finite score of each task.
    """
    num = int(np.isfinite(scores[0]).sum())
    value = statistic(*scores)
    if num < 2:
        return Interval(value=value, low=None, high=None, num=num)
    drawn = []
    for draw in drawn_seeds(*scores[0].shape):
        taken = [np.take_along_axis(one, draw, 1) for one in scores]
        if all(np.isfinite(one).any(1).all() for one in taken):
            drawn.append(statistic(*taken))
    low, high = middle_95(drawn)
    return Interval(value=value, low=low, high=high, num=num)

"""Watching a run of PPO for a policy that learns not to end, because that pays."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from statistics import fmean

WINDOW = 5
"""Steps at the start, and lately, whose means are compared."""
FALL = 0.2
"""Of the share of responses that end, which is said."""


class EndWatch:
    """Says once when the share of responses that end falls while the objective rises."""

    def __init__(self) -> None:
        self._first: list[tuple[float, float]] = []
        self._last: list[tuple[float, float]] = []
        self._said = False

    def see(self, objective: float, end_rate: float) -> None:
        """Take in the figures of a step."""
        place = self._first if len(self._first) < WINDOW else self._last
        place.append((objective, end_rate))
        del self._last[:-WINDOW]
        if self._said or len(self._last) < WINDOW:
            return
        (objective_before, ends_before), (objective_now, ends_now) = (
            tuple(map(fmean, zip(*rows, strict=True))) for rows in (self._first, self._last)
        )
        if ends_now < ends_before - FALL and objective_now > objective_before:
            self._said = True
            warnings.warn(
                f"The share of responses that end fell from {ends_before:.0%} to {ends_now:.0%} while the objective "
                f"rose from {objective_before:.3g} to {objective_now:.3g}: the policy learns not to end, because that "
                "pays. Raise --training.missing-end-penalty, or --max-tokens.",
                stacklevel=2,
            )

    def state(self) -> list[list[float]]:
        """Return what a checkpoint must hold."""
        return [list(row) for row in (*self._first, *self._last)] + ([[]] if self._said else [])

    def restore(self, state: Sequence[Sequence[float]]) -> None:
        """Take over what `state` gave."""
        rows = [(row[0], row[1]) for row in state if row]
        self._first, self._last, self._said = rows[:WINDOW], rows[WINDOW:], any(not row for row in state)

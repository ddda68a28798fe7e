"""From summed rewards to ranks and grades: what simulated teachers share."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray


def ranks_of(
    felt: NDArray[np.float64], sums: NDArray[np.float64], tie_below: float, *, tie_equal: bool
) -> tuple[int, ...]:
    """Return the rank of each of K items, 1 the best.

    Args:
        felt: `(K,)`: what the order goes by, the greatest first.
        sums: `(K,)`: neighbours in the order are tied if these differ by less than `tie_below`.
        tie_below: see there.
        tie_equal: tie neighbours with equal sums too.
    """
    order = np.argsort(-felt, kind="stable")
    ranks = np.ones(len(felt), np.int64)
    for before, item in itertools.pairwise(order):
        apart = abs(sums[before] - sums[item])
        tied = apart < tie_below or (tie_equal and apart == 0)
        ranks[item] = ranks[before] + (not tied)
    return tuple(int(rank) for rank in ranks)


def grade(value: float, low: float, high: float, num_grades: int) -> int:
    """Return in which of `num_grades` equal parts of [low, high] a value lies, from 1; beyond the ends, the last."""
    if not low < high:
        return (num_grades + 1) // 2
    return int(np.clip(1 + np.floor((value - low) / (high - low) * num_grades), 1, num_grades))

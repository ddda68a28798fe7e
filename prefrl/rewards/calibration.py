"""Calibration: are predicted preferences as often right as they say?

A reward model that predicts "the first is better with probability 0.8" should be right in 80 % of such pairs. The curve
bins predictions and compares their mean with what happened; the expected calibration error (Naeini et al. 2015) is the
mean gap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from prefrl.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Predicted against observed preferences, by bins of the prediction."""

    bin_edges: tuple[float, ...]
    """Of n bins, n + 1 edges in [0, 1]; a prediction on an edge belongs to the bin below it."""
    counts: tuple[int, ...]
    """Pairs in each bin."""
    predicted: tuple[float | None, ...]
    """Mean prediction in each bin; None if it is empty."""
    observed: tuple[float | None, ...]
    """Share of pairs in each bin of which the first was better; None if it is empty."""
    expected_error: float
    """Expected calibration error: mean of |predicted - observed| over bins, weighted by counts; in [0, 1]."""


def calibration_curve(probabilities: ArrayLike, outcomes: ArrayLike, num_bins: int = 10) -> Calibration:
    """Compare predicted probabilities with what happened, in bins of equal width.

    Args:
        probabilities: `(n,)` float in [0, 1].
        outcomes: `(n,)` of 0 and 1 (or False and True).
        num_bins: number of bins over [0, 1].

    Raises:
        UserError: no predictions, or predictions outside [0, 1].
    """
    p, happened = np.asarray(probabilities, np.float64), np.asarray(outcomes, np.float64)
    if len(p) == 0 or not (np.isfinite(p).all() and p.min() >= 0 and p.max() <= 1):
        raise UserError(f"A calibration curve needs probabilities in [0, 1]. Received {p}")
    edges = np.linspace(0.0, 1.0, num_bins + 1)
    bins = np.searchsorted(edges[1:-1], p, side="left")
    counts, sum_p, sum_happened = (np.bincount(bins, w, num_bins) for w in (None, p, happened))
    full = counts > 0
    predicted, observed = (total / np.maximum(counts, 1) for total in (sum_p, sum_happened))
    return Calibration(
        bin_edges=tuple(edges.round(10).tolist()),
        counts=tuple(counts.tolist()),
        predicted=tuple(x if ok else None for x, ok in zip(predicted.tolist(), full, strict=True)),
        observed=tuple(x if ok else None for x, ok in zip(observed.tolist(), full, strict=True)),
        expected_error=float(np.abs(sum_p - sum_happened).sum() / len(p)),
    )

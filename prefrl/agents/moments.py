"""Running mean and variance."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from prefrl.spaces import Array

PRIOR = 1e-4  # samples that the mean and variance at the start count as
EPSILON = 1e-8  # added to variances, as in stable-baselines3's VecNormalize
HIDDEN = 1e-8  # variance of what both would hide
ROUNDING = 1e-6
"""Standard deviation of rounding errors, as a share of the mean, and of the largest deviation beside it, 1 at most."""


class RunningMoments:
    """Mean and variance of everything seen, joined batch by batch (Chan, Golub, LeVeque 1983).

    They start at mean 0 and variance 1 with the weight of 1e-4 samples, as in stable-baselines3.

    Args:
        shape: of one sample.
    """

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self.mean: Array = np.zeros(shape)
        self.variance: Array = np.ones(shape)
        self.count = PRIOR

    def update(self, samples: Array) -> None:
        """Take in samples `(B, *shape)`."""
        samples = np.asarray(samples, np.float64)
        mean, variance, count = samples.mean(0), samples.var(0), len(samples)
        total = self.count + count
        difference = mean - self.mean
        squares = self.variance * self.count + variance * count + difference**2 * self.count * count / total
        self.mean = self.mean + difference * count / total
        self.variance, self.count = squares / total, total

    def visible_variance(self) -> Array:
        """Return what to standardise by; see the function of that name."""
        return visible_variance(self.mean, self.variance, self.count)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        return {"mean": torch.tensor(self.mean), "variance": torch.tensor(self.variance), "count": self.count}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.mean, self.variance = state["mean"].numpy().copy(), state["variance"].numpy().copy()
        self.count = state["count"]


def visible_variance(mean: Array, variance: Array, count: float) -> Array:
    """Return what to divide by, squared: as in stable-baselines3, the variance and an epsilon, but for small units.

    Of what varies by less than 1e-4 that epsilon and the moments at the start would be most of it, and hide it. There
    it is the variance of what was seen alone; what varies by rounding errors only stays hidden.

    Args:
        mean: of samples and those at the start, in which `PRIOR` counts.
        variance: of the same.
        count: of the same.
    """
    sampled = sampled_variance(mean, variance, count)
    beside = min(1.0, float(np.sqrt(sampled.max(initial=0.0))))
    small = (sampled < HIDDEN) & (sampled > (ROUNDING * np.maximum(beside, np.abs(mean))) ** 2)
    return np.where(small, sampled, variance + EPSILON)


def sampled_variance(mean: Array, variance: Array, count: float) -> Array:
    """Return the variance of what was seen, without that at the start; 0 where nothing was."""
    seen = count - PRIOR
    if seen <= 0:
        return np.zeros_like(variance)
    of_seen = mean * count / seen
    squares = variance * count - PRIOR - of_seen**2 * PRIOR * seen / count
    return np.maximum(squares / seen, 0.0)

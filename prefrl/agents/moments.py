"""Running mean and variance."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from prefrl.spaces import Array

PRIOR = 1e-4  # samples that the mean and variance at the start count as


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

    def sampled_variance(self) -> Array:
        """Return the variance of what was seen, without that at the start; not below 0."""
        seen = self.count - PRIOR
        if seen <= 0:
            return np.zeros_like(self.variance)
        mean = self.mean * self.count / seen
        squares = self.variance * self.count - PRIOR - mean**2 * PRIOR * seen / self.count
        return np.maximum(squares / seen, 0.0)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        return {"mean": torch.tensor(self.mean), "variance": torch.tensor(self.variance), "count": self.count}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.mean, self.variance = state["mean"].numpy().copy(), state["variance"].numpy().copy()
        self.count = state["count"]

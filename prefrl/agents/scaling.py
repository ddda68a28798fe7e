"""Scaling of rewards by the spread of their discounted returns."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

CLIP = 10.0  # as stable-baselines3's VecNormalize


class ReturnScaler:
    """Divides rewards by the running standard deviation of the discounted return, so that values stay of order 1.

    What stable-baselines3's `VecNormalize(norm_reward=True)` does step by step, for a rollout at once. Learned rewards
    need it more than others: their scale is arbitrary and, with a discount near 1, their returns are in the thousands.

    Args:
        num_envs: E.
        gamma: discount of the agent.
    """

    def __init__(self, num_envs: int, gamma: float) -> None:
        self.gamma = gamma
        self._returns = np.zeros(num_envs)
        self._mean, self._variance, self._count = 0.0, 1.0, 1e-4

    def scale(self, rewards: NDArray[np.floating], ended: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Take in a rollout's rewards `(T, E)` and the ends of its episodes `(T, E)`; return them scaled and clipped."""
        returns = np.empty(rewards.shape)
        for step, reward in enumerate(rewards):
            self._returns = self.gamma * self._returns + reward
            returns[step] = self._returns
            self._returns = np.where(ended[step], 0.0, self._returns)
        self._merge(float(returns.mean()), float(returns.var()), returns.size)
        return np.clip(rewards / np.sqrt(self._variance + 1e-8), -CLIP, CLIP).astype(np.float32)

    def _merge(self, mean: float, variance: float, count: int) -> None:
        """Join the moments of a batch to the running ones (Chan, Golub, LeVeque 1983)."""
        total = self._count + count
        difference = mean - self._mean
        squares = self._variance * self._count + variance * count + difference**2 * self._count * count / total
        self._mean += difference * count / total
        self._variance, self._count = squares / total, total

    def restart(self) -> None:
        """Begin new episodes everywhere."""
        self._returns[:] = 0.0

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        return {
            "returns": torch.from_numpy(self._returns.copy()),
            "moments": [self._mean, self._variance, self._count],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._returns = state["returns"].numpy().copy()
        self._mean, self._variance, self._count = state["moments"]

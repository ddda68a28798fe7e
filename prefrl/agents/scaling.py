"""Centring of rewards, and scaling by the spread of their discounted returns."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from prefrl.agents.moments import RunningMoments

CLIP = 10.0  # as stable-baselines3's VecNormalize


class ReturnScaler:
    """Centres rewards and divides them by the running standard deviation of the discounted return.

    Values then stay of order 1, wherever a fit has moved the reward. With a discount near 1 a shift of every reward by
    d moves all values by d / (1 - gamma); an agent whose reward is fitted anew again and again would spend its time
    following. Where no episode terminates such a shift means nothing to the policy, and each rollout's mean is taken
    off (Naik et al. 2024, "Reward Centering"). Once an episode has terminated nothing is taken off any more: it would
    decide whether ending is good or bad.

    The scaling is what stable-baselines3's `VecNormalize(norm_reward=True)` does step by step.

    Args:
        num_envs: E.
        gamma: discount of the agent.
    """

    def __init__(self, num_envs: int, gamma: float) -> None:
        self.gamma = gamma
        self._returns = np.zeros(num_envs)
        self._moments = RunningMoments()
        self._terminates = False

    def scale(
        self, rewards: NDArray[np.floating], terminated: NDArray[np.bool_], truncated: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Take in a rollout's rewards and ends, `(T, E)` each; return the rewards centred, scaled and clipped."""
        self._terminates |= bool(terminated.any())
        if not self._terminates:
            rewards = rewards - rewards.mean()
        ended = terminated | truncated
        returns = np.empty(rewards.shape)
        for step, reward in enumerate(rewards):
            self._returns = self.gamma * self._returns + reward
            returns[step] = self._returns
            self._returns = np.where(ended[step], 0.0, self._returns)
        self._moments.update(returns.ravel())
        return np.clip(rewards / np.sqrt(self._moments.variance + 1e-8), -CLIP, CLIP).astype(np.float32)

    def restart(self) -> None:
        """Begin new episodes everywhere."""
        self._returns[:] = 0.0

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        return {
            "returns": torch.from_numpy(self._returns.copy()),
            "moments": self._moments.state(),
            "terminates": self._terminates,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._returns = state["returns"].numpy().copy()
        self._moments.restore(state["moments"])
        self._terminates = state["terminates"]

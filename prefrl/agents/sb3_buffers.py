"""stable-baselines3 buffers that take their rewards from a reward function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from prefrl.errors import require
from prefrl.rewards.function import RewardFunction, checked_rewards
from prefrl.spaces import Array, Batch, join_axes, take

buffers = require("stable_baselines3.common.buffers", "train")

RELABEL_CHUNK = 16_384  # transitions scored at once


class _LearnedRollout:
    """Adds the learned rewards of the whole rollout before advantages are computed.

    The rewards stored while collecting are zero but for the time-limit bootstraps that stable-baselines3 puts there
    (gamma times the value of the last observation), which therefore stay.
    """

    rewards_of_rollout: Callable[[], NDArray[np.floating]] | None = None
    rewards: Array

    def compute_returns_and_advantage(self, last_values: Any, dones: Array) -> None:
        if self.rewards_of_rollout is not None:
            self.rewards += self.rewards_of_rollout()
        super().compute_returns_and_advantage(last_values=last_values, dones=dones)  # type: ignore[misc]


class LearnedRolloutBuffer(_LearnedRollout, buffers.RolloutBuffer):  # type: ignore[misc, name-defined]
    """`RolloutBuffer` with learned rewards."""


class LearnedDictRolloutBuffer(_LearnedRollout, buffers.DictRolloutBuffer):  # type: ignore[misc, name-defined]
    """`DictRolloutBuffer` with learned rewards."""


class _LearnedReplay:
    """Scores transitions in batches: new ones when they are first needed, all of them after every fit."""

    reward_function: RewardFunction | None = None
    env_observations: Callable[[Batch], Batch]
    """Turns observations `(B, ...)` back into the environment's."""
    env_actions: Callable[[Array], Array]
    """Turns actions `(B, ...)` into what the environment was given."""
    num_unscored = 0
    buffer_size: int
    pos: int
    full: bool
    action_space: gymnasium.Space[Any]
    observations: Any
    next_observations: Any
    actions: Array
    rewards: Array

    def add(self, *args: Any, **kwargs: Any) -> None:
        super().add(*args, **kwargs)  # type: ignore[misc]
        self.num_unscored = min(self.num_unscored + 1, self.buffer_size)

    def sample(self, *args: Any, **kwargs: Any) -> Any:
        if self.num_unscored and self.reward_function is not None:
            self._score(np.arange(self.pos - self.num_unscored, self.pos) % self.buffer_size)
            self.num_unscored = 0
        return super().sample(*args, **kwargs)  # type: ignore[misc]

    def relabel(self, reward: RewardFunction) -> None:
        """Score everything with `reward`, now and from now on."""
        self.reward_function = reward
        self._score(np.arange(self.buffer_size if self.full else self.pos))
        self.num_unscored = 0

    def _score(self, rows: NDArray[np.int64]) -> None:
        assert self.reward_function is not None
        num_envs = self.rewards.shape[1]
        size = max(1, RELABEL_CHUNK // num_envs)
        for begin in range(0, len(rows), size):
            part = rows[begin : begin + size]
            scores = checked_rewards(
                self.reward_function,
                self.env_observations(_joined(self.observations, part)),
                self.env_actions(self.actions[part].reshape(-1, *(self.action_space.shape or ()))),
                self.env_observations(_joined(self.next_observations, part)),
            )
            self.rewards[part] = scores.reshape(len(part), num_envs)


def _joined(stored: Batch, rows: NDArray[np.int64]) -> Batch:
    """Return rows of what a buffer holds, those of all environments joined: `(B, ...)`."""
    return join_axes(take(stored, rows))


class LearnedReplayBuffer(_LearnedReplay, buffers.ReplayBuffer):  # type: ignore[misc, name-defined]
    """`ReplayBuffer` with learned rewards."""


class LearnedDictReplayBuffer(_LearnedReplay, buffers.DictReplayBuffer):  # type: ignore[misc, name-defined]
    """`DictReplayBuffer` with learned rewards."""

"""The seam between the training loop and whatever learns to act."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

from prefrl.rewards.function import RewardFunction
from prefrl.segments import Rollout
from prefrl.spaces import Array, Batch


@dataclass(frozen=True, kw_only=True)
class Improvement:
    """What one call of `Agent.improve` did."""

    rollout: Rollout
    """What the agent did in the environments."""
    learned_rewards: NDArray[np.float32]
    """`(T, E)`: the rewards it was given for it."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time by phase: "collect", "reward", "update"."""
    figures: dict[str, float] = field(default_factory=dict)
    """What the update came to, by the names of `prefrl.agents.figures`."""


class Agent(Protocol):
    """Learns to act from any reward function; never sees the environments' own reward unless it is given that."""

    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps of one call of `improve`."""

    @property
    def num_env_steps(self) -> int:
        """Steps made so far in all environments together."""

    def reset_environments(self, seed: int) -> None:
        """Start new episodes everywhere; what follows depends on `seed` and the agent's state alone."""

    def explore(self, num_env_steps: int, rng: np.random.Generator, *, uniform: bool = True) -> Rollout:
        """Act for at least this many steps without learning: uniformly at random, or as the policy does now."""

    def improve(self, reward: RewardFunction | None) -> Improvement:
        """Act for `steps_per_iteration` steps and learn from them.

        Args:
            reward: scores the steps; None: the environments' own reward, if the agent was made to learn from it (a
                baseline), else zeros.
        """

    def relabel(self, reward: RewardFunction) -> None:
        """The reward has changed: score again whatever experience is kept."""

    def act(self, observations: Batch, *, deterministic: bool = True) -> Array:
        """Return an action for each of B observations `(B, ...)`."""

    def policy_state(self) -> dict[str, Any]:
        """Return what `act` needs: tensors and plain values."""

    def load_policy_state(self, state: dict[str, Any]) -> None:
        """Act from now on as `policy_state` described."""

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return everything that learning needs: tensors and plain values, and large arrays."""

    def restore(self, state: dict[str, Any], arrays: dict[str, Array]) -> None:
        """Go on from what `state` gave; the environments must be reset after."""

    def close(self) -> None:
        """Close the environments."""

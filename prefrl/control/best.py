"""The policy with the best learned return."""

from __future__ import annotations

from typing import Any

import numpy as np

from prefrl.rewards.function import RewardFunction
from prefrl.runs import State
from prefrl.segments import Rollout
from prefrl.spaces import Array, Batch, from_arrays, to_arrays

MAX_STEPS = 4_096  # transitions by which a policy is remembered


class BestPolicy:
    """Keeps the policy whose behaviour the current learned reward scores highest, per step.

    A learned reward moves with every fit, so returns of different times cannot be compared. What the best policy so far
    did is kept, and scored again by today's reward whenever a new policy is held against it.
    """

    def __init__(self) -> None:
        self.policy: dict[str, Any] | None = None
        self.num_env_steps = 0
        self._transitions: tuple[Batch, Array, Batch] | None = None

    def offer(self, rollout: Rollout, policy: dict[str, Any], reward: RewardFunction, num_env_steps: int) -> bool:
        """Hold a policy, by the rollout it just made, against the best so far; return whether it is better."""
        transitions = _some_transitions(rollout)
        if self._transitions is not None:
            score, best = (float(np.mean(reward(*t))) for t in (transitions, self._transitions))
            if score <= best:
                return False
        self.policy, self.num_env_steps, self._transitions = policy, num_env_steps, transitions
        return True

    def state(self) -> State:
        """Return what a checkpoint must hold."""
        if self._transitions is None:
            return State(tensors={"policy": None, "num_env_steps": 0})
        observations, actions, following = self._transitions
        arrays = {
            **to_arrays("observations", observations),
            "actions": actions,
            **to_arrays("next_observations", following),
        }
        return State(tensors={"policy": self.policy, "num_env_steps": self.num_env_steps}, arrays=arrays)

    def restore(self, state: State) -> None:
        """Go on from what `state` gave."""
        self.policy, self.num_env_steps = state.tensors["policy"], state.tensors["num_env_steps"]
        arrays = state.arrays
        if self.policy is not None:
            self._transitions = (
                from_arrays("observations", arrays),
                arrays["actions"],
                from_arrays("next_observations", arrays),
            )


def _some_transitions(rollout: Rollout) -> tuple[Batch, Array, Batch]:
    every = -(-rollout.num_steps // MAX_STEPS)
    steps, envs = np.divmod(np.arange(0, rollout.num_steps, every), rollout.terminated.shape[1])
    return rollout.transitions_at(steps, envs)

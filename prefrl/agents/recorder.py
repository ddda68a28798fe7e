"""Between stable-baselines3 and the environments: keeps what happens, and keeps the true reward from the agent."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefrl.agents.action_scale import ActionScale
from prefrl.clips.saver import collect_marks
from prefrl.errors import require
from prefrl.segments import Rollout
from prefrl.spaces import Array, Batch, check_finite, map_batch, zip_batches

vec_env = require("stable_baselines3.common.vec_env", "train")


def _own(observations: Batch) -> Batch:
    """Return a dictionary apart from the one passed on: replay buffers put reshaped arrays into that."""
    return map_batch(np.asarray, observations)


def _cast(pair: list[Any]) -> Array:
    """Give the second the type of the first: at an episode's end environments hand out what they like."""
    return np.asarray(pair[1], pair[0].dtype)


class Recorder(vec_env.VecEnvWrapper):  # type: ignore[misc, name-defined]
    """Records every step of a stable-baselines3 vector environment; passes on zeros instead of rewards.

    stable-baselines3 does not tell a step that both terminates and truncates from one that only terminates; it is
    recorded as terminated.

    Args:
        venv: the vector environment.
        pass_true_reward: pass the environment's reward on, for training on it (a baseline).
        scale: turns the agent's actions into the environment's, which are what is recorded.
    """

    def __init__(self, venv: Any, *, pass_true_reward: bool = False, scale: ActionScale | None = None) -> None:
        super().__init__(venv, action_space=None if scale is None else scale.scaled_space)
        self._scale = scale
        self.pass_true_reward = pass_true_reward
        self._last: Batch | None = None
        self._actions_given: Array | None = None
        self._clear()

    def _clear(self) -> None:
        self._observations: list[Batch] = []
        self._actions: list[Array] = []
        self._rewards: list[Array] = []
        self._terminated: list[NDArray[np.bool_]] = []
        self._truncated: list[NDArray[np.bool_]] = []
        self._hidden_ends: list[NDArray[np.bool_]] = []
        self._ends: list[Batch] = []
        collect_marks(self.venv.envs)

    def reset(self) -> Any:
        """Start new episodes; what was recorded and not taken is dropped."""
        observations = self.venv.reset()
        check_finite(observations, "An observation")
        self._clear()
        self._last = _own(observations)
        return observations

    def step_async(self, actions: Array) -> None:
        """Remember the actions and pass them on."""
        given = np.array(actions) if self._scale is None else self._scale.to_env(actions)
        self._actions_given = given
        self.venv.step_async(given)

    def step_wait(self) -> Any:
        """Record the step; rewards are zeros for the agent."""
        observations, rewards, dones, infos = self.venv.step_wait()
        check_finite(observations, "An observation")
        assert self._last is not None and self._actions_given is not None
        truncated = np.zeros(len(dones), np.bool_)
        for env in np.flatnonzero(dones):
            truncated[env] = infos[env].get("TimeLimit.truncated", False)
            last = zip_batches(_cast, [observations, infos[env]["terminal_observation"]])
            check_finite(last, "An observation")
            self._ends.append(last)
        self._observations.append(self._last)
        self._actions.append(self._actions_given)
        self._rewards.append(np.asarray(rewards, np.float64))
        self._terminated.append(np.asarray(dones, np.bool_) & ~truncated)
        self._truncated.append(truncated)
        self._hidden_ends.append(np.array(["hidden_terminated" in info for info in infos]))
        self._last = _own(observations)
        return observations, rewards if self.pass_true_reward else np.zeros_like(rewards), dones, infos

    def take(self) -> Rollout:
        """Return what happened since the last call."""
        assert self._last is not None

        def stack(parts: list[Any]) -> Array:
            return np.stack(parts)

        if self._ends:
            ends = zip_batches(stack, self._ends)
        else:
            ends = map_batch(lambda x: x[:0], self._last)
        rollout = Rollout(
            observations=zip_batches(stack, [*self._observations, self._last]),
            actions=np.stack(self._actions),
            true_rewards=np.stack(self._rewards),
            terminated=np.stack(self._terminated),
            truncated=np.stack(self._truncated),
            hidden_ends=np.stack(self._hidden_ends),
            last_observations=ends,
            marks=collect_marks(self.venv.envs),
        )
        self._clear()
        return rollout

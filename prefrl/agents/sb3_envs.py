"""Between stable-baselines3 and the environments: keeps what happens, and keeps the true reward from the agent."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from prefrl.agents.action_scale import ActionScale
from prefrl.agents.stepping import Step, Stepper
from prefrl.errors import UserError, require
from prefrl.spaces import Array, Batch, map_batch, take

vec_env = require("stable_baselines3.common.vec_env", "train")

ONE_BY_ONE = (
    "This algorithm asks for single copies of the environment, which are stepped together here; choose another."
)


class Sb3Envs(vec_env.VecEnv):  # type: ignore[misc, name-defined]
    """Gymnasium's vector environments as stable-baselines3 takes them, with zeros instead of rewards.

    What happens is kept by a `Stepper`; rewards in float32, as stable-baselines3's own vector environments have them.

    Args:
        envs: restart episodes in the step in which they end (`AutoresetMode.SAME_STEP`).
        pass_true_reward: pass the environments' reward on, for training on it (a baseline).
        scale: turns the agent's actions into the environments', which are what is kept.
    """

    def __init__(self, envs: VectorEnv, *, pass_true_reward: bool = False, scale: ActionScale | None = None) -> None:
        self.stepper = Stepper(envs, np.float32)
        self.pass_true_reward, self._scale = pass_true_reward, scale
        self._actions: Array = np.empty(0)
        space = envs.single_action_space if scale is None else scale.scaled_space
        super().__init__(envs.num_envs, envs.single_observation_space, space)

    def reset(self) -> Any:
        """Start new episodes, with the seeds that `seed` gave; what was kept and not taken is dropped."""
        self.stepper.reset(self._seeds)
        self._reset_seeds()
        return _own(self.stepper.observations)

    def step_async(self, actions: Array) -> None:
        """Remember the actions."""
        self._actions = np.array(actions) if self._scale is None else self._scale.to_env(actions)

    def step_wait(self) -> Any:
        """Step; rewards are zeros for the agent."""
        step = self.stepper.step(self._actions)
        rewards = step.rewards.astype(np.float32) if self.pass_true_reward else np.zeros(self.num_envs, np.float32)
        return _own(step.observations), rewards, step.terminated | step.truncated, _infos(step)

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute of the vector environment, once for each copy."""
        return [getattr(self.stepper.envs, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refuse: copies cannot be told apart here."""
        raise UserError(ONE_BY_ONE)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Refuse: copies cannot be told apart here."""
        raise UserError(ONE_BY_ONE)

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """No copy is wrapped in what stable-baselines3 asks about."""
        return [False] * len(list(self._get_indices(indices)))

    def close(self) -> None:
        """Close the environments."""
        self.stepper.envs.close()


def _infos(step: Step) -> list[dict[str, Any]]:
    """Return what stable-baselines3 is told of each copy: where an episode ended, how, and what was seen last."""
    infos: list[dict[str, Any]] = [{} for _ in step.rewards]
    if step.ends is not None:
        for row, env in enumerate(np.flatnonzero(step.terminated | step.truncated)):
            infos[env]["terminal_observation"] = take(step.ends, row)
            infos[env]["TimeLimit.truncated"] = bool(step.truncated[env] and not step.terminated[env])
    return infos


def _own(observations: Batch) -> Batch:
    """Return arrays apart from those that are kept: replay buffers put reshaped ones into dictionaries."""
    return map_batch(np.array, observations)

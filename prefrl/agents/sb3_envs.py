"""Between stable-baselines3 and the environments: keeps what happens, and keeps the true reward from the agent."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from prefrl.agents.moments import visible_variance
from prefrl.agents.sb3_spaces import ActionTranslation, ObservationTranslation
from prefrl.agents.sb3_streams import StreamsApart
from prefrl.agents.stepping import Step, Stepper
from prefrl.errors import UserError, require
from prefrl.spaces import Array, take

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
        scale_actions: the agent acts in units of half the range of bounded actions; what is kept are the environments'.
    """

    def __init__(self, envs: VectorEnv, *, pass_true_reward: bool = False, scale_actions: bool = False) -> None:
        self.stepper = Stepper(envs, np.float32)
        self.pass_true_reward = pass_true_reward
        self.seen = ObservationTranslation(envs.single_observation_space)
        self.taken = ActionTranslation(envs.single_action_space, scale=scale_actions)
        self._actions: Array = np.empty(0)
        self._streams = StreamsApart()
        super().__init__(envs.num_envs, self.seen.space, self.taken.space)

    def reset(self) -> Any:
        """Start new episodes, with the seeds that `seed` gave; what was kept and not taken is dropped."""
        if self._seeds[0] is not None:
            self._streams.begin(self._seeds[0])
        with self._streams.call():
            self.stepper.reset(self._seeds)
        self._reset_seeds()
        return self.seen.forth(self.stepper.observations)

    def step_async(self, actions: Array) -> None:
        """Remember the actions."""
        self._actions = self.taken.to_env(actions)

    def step_wait(self) -> Any:
        """Step; rewards are zeros for the agent."""
        with self._streams.call():
            step = self.stepper.step(self._actions)
        rewards = step.rewards.astype(np.float32) if self.pass_true_reward else np.zeros(self.num_envs, np.float32)
        return self.seen.forth(step.observations), rewards, step.terminated | step.truncated, self._infos(step)

    def _infos(self, step: Step) -> list[dict[str, Any]]:
        """Return what stable-baselines3 is told of each copy: where an episode ended, how, and what was seen last."""
        infos: list[dict[str, Any]] = [{} for _ in step.rewards]
        if step.ends is not None:
            ends = self.seen.forth(step.ends)
            for row, env in enumerate(np.flatnonzero(step.terminated | step.truncated)):
                infos[env]["terminal_observation"] = take(ends, row)
                infos[env]["TimeLimit.truncated"] = bool(step.truncated[env] and not step.terminated[env])
        return infos

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


class Normalized(vec_env.VecNormalize):  # type: ignore[misc, name-defined]
    """Observations normalised by running statistics, in small units too (`visible_variance`)."""

    def _normalize_obs(self, obs: Array, obs_rms: Any) -> Array:
        scale = np.sqrt(visible_variance(obs_rms.mean, obs_rms.var, obs_rms.count))
        return np.clip((obs - obs_rms.mean) / scale, -self.clip_obs, self.clip_obs)

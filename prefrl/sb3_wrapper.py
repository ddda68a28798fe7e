"""Learned rewards in stable-baselines3's projects: a wrapper of its vectors of environments.

`prefrl.wrappers` has the wrappers of Gymnasium's environments; this one needs stable-baselines3.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize

from prefrl.rewards.function import RewardFunction, checked_rewards
from prefrl.spaces import Batch, map_batch, with_rows
from prefrl.values import copied
from prefrl.wrappers import as_reward_function, check_spaces, inside, warn_of_overwritten, warn_of_two


class VecLearnedReward(VecEnvWrapper):
    """Replaces the rewards of a vector of stable-baselines3 by learned ones: one call to the reward per step for all.

    `infos[i]["true_reward"]` is the environment's own reward of the step; where an episode ends, `infos[i]` holds its
    `true_return` and `learned_return`. A step that ends an episode is scored with `terminal_observation`, not with the
    first observation of the next one. A `VecMonitor` inside reports true returns, one outside learned ones; wrappers
    that change observations or actions (`VecNormalize`, `VecFrameStack`) belong outside, unless the reward was learned
    with them.

    Example, before and after:

        >>> from stable_baselines3.common.env_util import make_vec_env
        >>> envs = make_vec_env("CartPole-v1", n_envs=2, seed=0)
        >>> _ = envs.reset()
        >>> envs.step(np.array([1, 0]))[1]
        array([1., 1.], dtype=float32)
        >>> def upright(observations, actions, next_observations):
        ...     return 1.0 - abs(next_observations[:, 2])
        >>> envs = VecLearnedReward(make_vec_env("CartPole-v1", n_envs=2, seed=0), upright)
        >>> _ = envs.reset()
        >>> observations, rewards, dones, infos = envs.step(np.array([1, 0]))
        >>> rewards.dtype, bool((rewards < 1).all()), float(infos[0]["true_reward"])
        (dtype('float32'), True, 1.0)

    Args:
        venv: the vector to wrap.
        reward: a reward function, or the file of a saved `RewardEnsemble`.

    Raises:
        UserError: the spaces are not supported or not those of the reward. Later, from `step`: the reward function does
            not return finite numbers `(E,)`.
    """

    def __init__(self, venv: VecEnv, reward: RewardFunction | str | Path) -> None:
        super().__init__(venv)
        self.reward_function = as_reward_function(reward)
        self._rewards_of = getattr(self.reward_function, "of_few", self.reward_function)
        check_spaces(self.reward_function, venv.observation_space, venv.action_space)
        warn_of_two(venv, VecLearnedReward)
        if any(isinstance(each, VecNormalize) and each.norm_obs for each in inside(venv)):
            warnings.warn(
                "A VecNormalize inside gives the reward observations that keep changing their scale, under the old "
                "bounds: put that wrapper outside, around the learned reward.",
                stacklevel=2,
            )
        self._observations: Batch = {}
        self._actions: NDArray[Any] = np.empty(0)
        self._end_seen = False
        self._true_returns = np.zeros(venv.num_envs)
        self._learned_returns = np.zeros(venv.num_envs)

    def reset(self) -> Any:
        """Begin new episodes in all environments."""
        observations = self.venv.reset()
        self._observations = map_batch(copied, observations)  # type: ignore[arg-type]
        self._true_returns[:] = self._learned_returns[:] = 0.0
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        """Begin a step of all environments."""
        self._actions = np.array(actions)  # a copy: who steps may change its own
        self.venv.step_async(actions)

    def step_wait(self) -> Any:
        """Return observations, learned rewards `(E,)` float32, ends and infos of the step."""
        observations, true_rewards, dones, infos = self.venv.step_wait()
        current = map_batch(copied, observations)  # type: ignore[arg-type]
        ended = np.flatnonzero(dones).tolist()
        following = with_rows(current, {env: infos[env]["terminal_observation"] for env in ended})
        if ended and not self._end_seen:  # the first end shows it
            self._end_seen = True
            warn_of_overwritten(following, current, ended)
        rewards = checked_rewards(self._rewards_of, self._observations, self._actions, following)
        self._observations = current
        self._true_returns += true_rewards
        self._learned_returns += rewards
        infos = [{**info, "true_reward": reward} for info, reward in zip(infos, true_rewards, strict=True)]
        for env in ended:
            infos[env] |= {"true_return": self._true_returns[env], "learned_return": self._learned_returns[env]}
        self._true_returns[ended] = self._learned_returns[ended] = 0.0
        return observations, rewards.astype(np.float32), dones, infos

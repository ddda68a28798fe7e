"""Learned rewards in anybody's Gymnasium project.

`LearnedReward` wraps an environment, `VectorLearnedReward` a vector of environments. The agent is given the learned
reward; the environment's own stays readable beside it, for reports:

- `info["true_reward"]` on every step: a float, an array where the environment gives several, NaN where it gives none;
- `info["true_return"]` and `info["learned_return"]` on the last step of an episode: the two sums over it.

Episode statistics. Where `RecordEpisodeStatistics` (or stable-baselines3's `Monitor`) is inside the wrapper, its
`info["episode"]["r"]` is the true return and `info["episode"]["learned_r"]` is added. Where it is outside, its `r` is
the learned return, as it only sees what the agent sees; `info["true_return"]` stands beside it, and
`Monitor(env, info_keywords=("true_return",))` takes it in.

`docs/placement.md` says what belongs inside and what outside.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from numpy.typing import NDArray

from prefrl.errors import UserError
from prefrl.rewards.function import RewardFunction, checked_rewards
from prefrl.spaces import (
    Batch,
    alike,
    check_action_space,
    check_finite,
    check_observation_space,
    map_batch,
    same_bounds,
    to_arrays,
    with_rows,
)
from prefrl.values import NUMBERS, ONE_NUMBER, as_array, copied, has_masked, nan_where_masked, read_info, read_value

Space = gymnasium.Space[Any]
if TYPE_CHECKING:
    AnyVectorWrapper = VectorWrapper[Any, Any, Any, Any, Any]
else:
    AnyVectorWrapper = VectorWrapper  # takes no type arguments before Gymnasium 1.4


class LearnedReward(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Replaces the reward of an environment by a learned one.

    Example, before and after (any callable of a batch of transitions will do; usually it is the file that
    `prefrl train` saved):

        >>> import gymnasium
        >>> env = gymnasium.make("CartPole-v1")
        >>> _ = env.reset(seed=0)
        >>> env.step(1)[1]
        1.0
        >>> def upright(observations, actions, next_observations):
        ...     return 1.0 - abs(next_observations[:, 2])
        >>> env = LearnedReward(gymnasium.make("CartPole-v1"), upright)
        >>> _ = env.reset(seed=0)
        >>> observation, reward, terminated, truncated, info = env.step(1)
        >>> round(reward, 3), float(info["true_reward"])
        (0.953, 1.0)

    As a part of the environment's specification, e.g. for `gymnasium.make_vec`, given as a file:

        >>> from dataclasses import replace
        >>> wrapper = LearnedReward.wrapper_spec(reward="runs/cartpole/reward.safetensors")
        >>> spec = replace(gymnasium.spec("CartPole-v1"), additional_wrappers=(wrapper,))
        >>> envs = gymnasium.make_vec(spec, num_envs=4, vectorization_mode="async")  # doctest: +SKIP

    Args:
        env: the environment to wrap.
        reward: a reward function, or the file of a saved `RewardEnsemble`.

    Raises:
        UserError: the environment's spaces are not supported or not those of the reward. Later, from `step`: the
            observation holds NaN or infinity, or the reward function does not return finite numbers `(B,)`.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], reward: RewardFunction | str | Path) -> None:
        recorded = str(reward) if isinstance(reward, Path) else reward
        RecordConstructorArgs.__init__(self, _disable_deepcopy=True, reward=recorded)
        gymnasium.Wrapper.__init__(self, env)
        self.reward_function = as_reward_function(reward)
        self._rewards_of = getattr(self.reward_function, "of_few", self.reward_function)
        check_spaces(self.reward_function, env.observation_space, env.action_space)
        warn_of_two(env)
        self._read_space, self._action_dtype = env.observation_space, env.action_space.dtype
        self._observations: Batch | None = None  # the last one, as a batch of one
        self._ended = False
        self._true_return = self._learned_return = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin a new episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._observations = self._as_batch(observation)
        self._begin()
        return observation, info

    def _begin(self) -> None:
        self._ended, self._true_return, self._learned_return = False, 0.0, 0.0

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one step; the reward is the learned one, the environment's is `info["true_reward"]`."""
        if self._observations is None:
            raise gymnasium.error.ResetNeeded("Call reset before the first step.")
        actions = np.array(action, self._action_dtype)[None]  # a copy: the environment may change its input
        observation, true_reward, terminated, truncated, info = self.env.step(action)
        following, true_reward = self._as_batch(observation), _known_reward(true_reward)
        if self._ended:  # nobody called reset, so that an Autoreset inside began the next episode: this step is no step
            self._begin()
            reward = 0.0
        else:
            reward = float(checked_rewards(self._rewards_of, self._observations, actions, following)[0])
        self._observations, self._ended = following, bool(terminated or truncated)
        self._true_return = self._true_return + true_reward
        self._learned_return += reward
        info = {**read_info(info), "true_reward": true_reward}
        if self._ended:
            info |= {"true_return": self._true_return, "learned_return": np.float64(self._learned_return)}
            if isinstance(info.get("episode"), Mapping):
                info["episode"] = {**info["episode"], "learned_r": self._learned_return}
        return observation, reward, terminated, truncated, info

    def _as_batch(self, observation: Any) -> Batch:
        """Return a batch of one, a copy: environments may reuse their arrays."""
        batch = _batch_of_one(self._read_space, observation)
        check_finite(batch, "The observation")
        return batch


class VectorLearnedReward(AnyVectorWrapper):
    """Replaces the rewards of a vector of environments by learned ones: one call to the reward per step for all.

    `infos["true_return"]` and `infos["learned_return"]` are `(E,)` and hold the sums of the episodes that end at this
    step, marked by `infos["_true_return"]` and `infos["_learned_return"]` as everywhere in Gymnasium.

    Every autoreset mode is handled. With NEXT_STEP, the step that only resets an environment has a learned reward of
    0. With SAME_STEP, the last transition of an episode is scored with `infos["final_obs"]`, not with the first
    observation of the next episode.

    Example, before and after:

        >>> import gymnasium, numpy as np
        >>> envs = gymnasium.make_vec("CartPole-v1", 2, "sync")
        >>> _ = envs.reset(seed=0)
        >>> envs.step(np.array([1, 0]))[1]
        array([1., 1.])
        >>> def upright(observations, actions, next_observations):
        ...     return 1.0 - abs(next_observations[:, 2])
        >>> envs = VectorLearnedReward(gymnasium.make_vec("CartPole-v1", 2, "sync"), upright)
        >>> _ = envs.reset(seed=0)
        >>> observations, rewards, terminated, truncated, infos = envs.step(np.array([1, 0]))
        >>> rewards.round(3), infos["true_reward"]
        (array([0.953, 0.965]), array([1., 1.]))

    Args:
        env: the vector environment to wrap.
        reward: a reward function, or the file of a saved `RewardEnsemble`.

    Raises:
        UserError: as `LearnedReward`.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], reward: RewardFunction | str | Path) -> None:
        super().__init__(env)
        self.reward_function = as_reward_function(reward)
        self._rewards_of = getattr(self.reward_function, "of_few", self.reward_function)
        check_spaces(self.reward_function, env.single_observation_space, env.single_action_space)
        warn_of_two(env)
        self._mode = AutoresetMode(env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        self._observations: Batch | None = None
        self._ended = np.zeros(env.num_envs, bool)
        self._end_seen = False
        self._true_returns = np.zeros(env.num_envs)
        self._learned_returns = np.zeros(env.num_envs)

    @property
    def autoreset_mode(self) -> AutoresetMode:
        """When an environment begins its next episode, under the name by which torchrl and others ask for it."""
        return self._mode

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin new episodes in all environments, or in those of `options["reset_mask"]`."""
        # Read before the call: the environment takes the mask out of the options.
        mask = (
            np.ones(self.num_envs, bool) if options is None else options.get("reset_mask", np.ones(self.num_envs, bool))
        )
        observations, infos = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        self._observations = self._copy(observations)
        self._begin(mask)
        return observations, infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step all environments; rewards `(E,)` float64 are the learned ones."""
        if self._observations is None:
            raise gymnasium.error.ResetNeeded("Call reset before the first step.")
        taken = np.array(actions)
        observations, true_rewards, terminated, truncated, infos = self.env.step(actions)
        resetting = self._ended if self._mode is AutoresetMode.NEXT_STEP else np.zeros(self.num_envs, bool)
        ended = np.asarray(terminated | truncated, bool)
        current = self._copy(observations)
        following = self._with_final(current, ended, infos) if self._mode is AutoresetMode.SAME_STEP else current
        rewards = checked_rewards(self._rewards_of, self._observations, taken, following, ignored=resetting)
        self._observations = current
        self._begin(resetting)
        self._learned_returns += rewards
        if has_masked(true_rewards):
            true_rewards = nan_where_masked(true_rewards)
        self._true_returns += np.where(resetting, 0.0, true_rewards)
        infos = {
            **infos,
            "true_reward": np.array(true_rewards, np.float64),
            "_true_reward": np.ones(self.num_envs, bool),
        }
        if ended.any():
            infos |= self._returns(ended, infos)
        if self._mode is AutoresetMode.SAME_STEP:
            self._begin(ended)
        else:
            self._ended = ended
        return observations, rewards, terminated, truncated, infos

    def _begin(self, mask: NDArray[np.bool_]) -> None:
        """Start counting anew for the environments of `mask`."""
        self._true_returns[mask] = self._learned_returns[mask] = 0.0
        self._ended = self._ended & ~mask

    def _returns(self, ended: NDArray[np.bool_], infos: dict[str, Any]) -> dict[str, Any]:
        """Return the entries of `infos` that report the episodes that just ended."""
        learned = np.where(ended, self._learned_returns, 0.0)
        added: dict[str, Any] = {
            "true_return": np.where(ended, self._true_returns, 0.0),
            "_true_return": ended.copy(),
            "learned_return": learned,
            "_learned_return": ended.copy(),
        }
        if isinstance(infos.get("episode"), Mapping):
            added["episode"] = {**infos["episode"], "learned_r": learned}
        final = infos.get("final_info")  # statistics of each environment for itself, with SAME_STEP
        if isinstance(final, Mapping) and isinstance(final.get("episode"), Mapping):
            added["final_info"] = {**final, "episode": {**final["episode"], "learned_r": learned}}
        return added

    def _copy(self, observations: Batch) -> Batch:
        current = map_batch(copied, observations)
        check_finite(current, "An observation")
        return current

    def _with_final(self, observations: Batch, ended: NDArray[np.bool_], infos: dict[str, Any]) -> Batch:
        """Return the observations with the last ones of the episodes that ended in place of the next ones' first."""
        if not ended.any():
            return observations
        if "final_obs" not in infos:
            raise UserError(
                "A vector environment with SAME_STEP autoreset must give infos['final_obs'] when an episode ends; "
                "this one does not. Make it with autoreset_mode=AutoresetMode.NEXT_STEP."
            )
        final = infos["final_obs"]

        def last(env: int) -> Any:
            return {key: rows[env] for key, rows in final.items()} if isinstance(final, Mapping) else final[env]

        envs = np.flatnonzero(ended).tolist()
        following = with_rows(observations, {env: last(env) for env in envs})
        check_finite(following, "The last observation of an episode")
        if not self._end_seen:  # the first end shows it
            self._end_seen = True
            warn_of_overwritten(following, observations, envs)
        return following


def as_reward_function(reward: RewardFunction | str | Path) -> RewardFunction:
    """Return a reward function, read from the file of a saved reward if it is one.

    Raises:
        UserError: no such file, not a saved reward, or nothing that can be called.
    """
    if isinstance(reward, str | Path):
        from prefrl.rewards.ensemble import RewardEnsemble  # only here: functions need no torch

        return RewardEnsemble.load(reward)
    if not callable(reward):
        raise UserError(f"A reward must be a function or the file of a saved reward; got {type(reward).__name__}.")
    return reward


def check_spaces(reward: RewardFunction, observation_space: Space, action_space: Space) -> None:
    """Warn where the bounds of an environment's spaces are not those that the reward was learned with.

    Raises:
        UserError: they are not supported, or of another kind than the reward's.
    """
    check_observation_space(observation_space)
    check_action_space(action_space)
    for what, given in (("observation", observation_space), ("action", action_space)):
        expected = getattr(reward, f"{what}_space", None)
        if not isinstance(expected, gymnasium.Space):
            continue
        if not alike(expected, given):
            raise UserError(
                f"The reward was learned with the {what} space {expected}; the environment's is {given}. "
                "Wrap the environment as it was in training, or learn a reward for this one."
            )
        if not same_bounds(expected, given):
            warnings.warn(
                f"The reward was learned with the {what} space {expected}; the environment's is {given}. If a wrapper "
                f"inside changes {what}s (NormalizeObservation, RescaleAction, ...), the reward misreads them: put "
                "that wrapper outside, around the learned reward.",
                stacklevel=3,
            )


def warn_of_two(env: Any, *more: type[Any]) -> None:
    """Warn where a learned reward, or another of these wrappers, is inside already."""
    if any(isinstance(each, (LearnedReward, VectorLearnedReward, *more)) for each in inside(env)):
        warnings.warn(
            "A learned reward is inside already: this one takes its rewards for the environment's, so that "
            "`true_reward` and `true_return` are learned ones. Wrap once, the single copies or the vector of them.",
            stacklevel=3,
        )


def warn_of_overwritten(last: Batch, first: Batch, ended: list[int]) -> None:
    """Warn where the last observations of episodes are the first ones of the next.

    A vector that begins the next episode in the same step keeps no copy of a last observation: where an environment
    gives out one array again and again, that array holds the next episode's first observation by then.

    Args:
        last: `(E, ...)`: with the last observations of the episodes that ended.
        first: `(E, ...)`: with the first ones of those that began.
        ended: in which environments.
    """
    pairs = zip(to_arrays("", last).values(), to_arrays("", first).values(), strict=True)
    if all(np.array_equal(ends[ended], begins[ended]) for ends, begins in pairs):
        warnings.warn(
            "The last observation of an episode is exactly the first one of the next. If the environment gives out one "
            "array again and again, the vector has overwritten it and the last step of every episode is scored "
            "wrongly: let it return copies of its observations, or put a LearnedReward around each copy instead.",
            stacklevel=4,
        )


def inside(env: Any) -> Iterator[Any]:
    """Yield an environment and whatever is inside of it; of copies in this process, the first."""
    while env is not None:
        yield env
        held = vars(env)
        wrapped = [held[name] for name in ("env", "venv") if name in held]
        env = next(iter([*wrapped, *held.get("envs", ())]), None)


def _batch_of_one(space: Space, value: Any) -> Batch:
    read = read_value(space, value)
    return {key: np.asarray(x)[None] for key, x in read.items()} if type(read) is dict else np.asarray(read)[None]


def _known_reward(reward: Any) -> Any:
    """Return the environment's own reward: a number with a dtype, which torchrl looks for, or an array of several."""
    if type(reward) is float or isinstance(reward, ONE_NUMBER):  # asking a float for its type takes less time
        return np.float64(reward)
    array = as_array(reward)
    if array is None or array.dtype.kind not in NUMBERS:
        return np.float64("nan")
    if has_masked(reward):
        array = nan_where_masked(reward)
    return np.float64(array.reshape(())) if array.size == 1 else array.copy()

"""VecLearnedReward: the learned reward in a vector of stable-baselines3."""

from __future__ import annotations

import doctest
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecMonitor, VecNormalize

from prefrl import sb3_wrapper
from prefrl.errors import UserError
from prefrl.rewards import RewardEnsemble
from prefrl.sb3_wrapper import VecLearnedReward
from prefrl.wrappers import LearnedReward


class Counter(gymnasium.Env[Any, Any]):
    """Counts its steps; a step is worth 100."""

    def __init__(self, length: int = 3, as_dict: bool = False) -> None:
        box = spaces.Box(0, 1e6, (1,), np.float32)
        self.observation_space = spaces.Dict({"count": box}) if as_dict else box
        self.action_space = spaces.Discrete(5)
        self.length, self.as_dict, self.count = length, as_dict, np.zeros(1, np.float32)

    def _seen(self) -> Any:
        return {"count": self.count.copy()} if self.as_dict else self.count.copy()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.count[:] = 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        return self._seen(), 100.0, bool(self.count[0] >= self.length), False, {}


def by_all(observations: Any, actions: Any, following: Any) -> Any:
    """10 times the count before the step, 100 times the action, and the count after it."""
    if isinstance(observations, dict):
        observations, following = observations["count"], following["count"]
    return 10 * observations[:, 0] + 100 * actions + following[:, 0]


@pytest.mark.parametrize("as_dict", [False, True])
def test_every_step_is_scored_with_its_own_observations_ends_included(as_dict: bool) -> None:
    envs = VecLearnedReward(DummyVecEnv([lambda: Counter(2, as_dict), lambda: Counter(3, as_dict)]), by_all)
    envs.reset()
    steps = [envs.step(np.array([t % 2, 1])) for t in range(6)]
    assert [step[1].tolist() for step in steps] == [
        [1, 101],
        [112, 112],  # 10 x 1 + 100 + 2: the end itself, not the first observation of the next episode
        [1, 123],
        [112, 101],
        [1, 112],
        [112, 123],
    ]
    assert steps[0][1].dtype == np.float32
    assert all(info["true_reward"] == 100 for step in steps for info in step[3])
    ends = [(t, env, info["true_return"], info["learned_return"]) for t, step in enumerate(steps)
            for env, info in enumerate(step[3]) if "true_return" in info]  # fmt: skip
    assert ends == [(1, 0, 200, 113), (2, 1, 300, 336), (3, 0, 200, 113), (5, 0, 200, 113), (5, 1, 300, 336)]


def test_monitors_inside_see_true_returns_and_outside_learned_ones() -> None:
    inside = VecLearnedReward(VecMonitor(DummyVecEnv([lambda: Counter(2)])), by_all)
    outside = VecMonitor(VecLearnedReward(DummyVecEnv([lambda: Counter(2)]), by_all), info_keywords=("true_return",))
    for envs, expected in ((inside, 200), (outside, 13)):
        envs.reset()
        envs.step(np.array([0]))
        (info,) = envs.step(np.array([0]))[3]
        assert info["episode"]["r"] == expected
        assert info["true_return"] == 200


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    pole = gymnasium.make("CartPole-v1")
    reward, path = RewardEnsemble(pole.observation_space, pole.action_space, seed=0), tmp_path / "reward.safetensors"
    reward.save(path)
    return path


def test_a_saved_reward_gives_what_the_single_wrapper_gives(saved: Path) -> None:
    envs = VecLearnedReward(DummyVecEnv([lambda: gymnasium.make("CartPole-v1")]), saved)
    single = LearnedReward(gymnasium.make("CartPole-v1"), saved)
    envs.seed(3)
    envs.reset()
    single.reset(seed=3)
    for t in range(60):
        action = t % 2
        rewards, dones = envs.step(np.array([action]))[1:3]
        _, reward, terminated, truncated, _ = single.step(action)
        assert rewards[0] == pytest.approx(reward, abs=1e-6)
        assert dones[0] == (terminated or truncated)
        if dones[0]:
            break
    assert dones[0]


@pytest.mark.slow
def test_stable_baselines3_trains_on_it_beside_processes_and_normalisation(saved: Path) -> None:
    envs = VecNormalize(VecLearnedReward(SubprocVecEnv([lambda: gymnasium.make("CartPole-v1")] * 2), saved))
    PPO("MlpPolicy", envs, n_steps=32, batch_size=32, seed=0).learn(128)
    envs.close()


def test_the_reward_of_another_environment_is_refused_and_other_bounds_are_said(saved: Path) -> None:
    with pytest.raises(UserError, match="The reward was learned with the observation space"):
        VecLearnedReward(DummyVecEnv([Counter]), saved)
    with pytest.warns(UserWarning, match="put that wrapper outside"):
        VecLearnedReward(VecNormalize(DummyVecEnv([lambda: gymnasium.make("CartPole-v1")])), saved)


def test_the_example_in_the_docstring_is_true() -> None:
    assert doctest.testmod(sb3_wrapper).failed == 0


class OneArray(Counter):
    """Gives out one array again and again."""

    def _seen(self) -> Any:
        return {"count": self.count} if self.as_dict else self.count


@pytest.mark.parametrize("as_dict", [False, True])
def test_a_terminal_observation_that_the_next_episode_overwrote_is_told_once(as_dict: bool) -> None:
    envs = VecLearnedReward(DummyVecEnv([lambda: OneArray(2, as_dict)] * 2), by_all)
    envs.reset()
    actions = np.array([0, 1])
    envs.step(actions)
    with pytest.warns(UserWarning, match="one array again and again"):
        envs.step(actions)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        envs.step(actions)
        envs.step(actions)

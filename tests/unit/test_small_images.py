"""Images from 7 x 7 up, and smaller, have a network in rewards and in every agent."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from prefrl.agents import AGENTS
from prefrl.envs import EnvLoop
from prefrl.rewards import RewardEnsemble


class Dot(gymnasium.Env[Any, Any]):
    """A dot in a small picture; Discrete actions from 1."""

    action_space = spaces.Discrete(3, start=1)

    def __init__(self, shape: tuple[int, ...], with_vector: bool = False) -> None:
        self.picture = spaces.Box(0, 255, shape, np.uint8)
        self.with_vector = with_vector
        self.observation_space = (
            spaces.Dict({"a.b": self.picture, "values": spaces.Discrete(3, start=5)}) if with_vector else self.picture
        )

    def _see(self) -> Any:
        picture = np.zeros(self.picture.shape, np.uint8)
        picture.reshape(-1)[self.at] = 255
        return {"a.b": picture, "values": np.int64(5 + self.at % 3)} if self.with_vector else picture

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.at = 0
        return self._see(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        self.at += 1
        return self._see(), 0.0, False, self.at == 9, {}


@pytest.mark.parametrize("shape", [(7, 7, 3), (3, 7, 7), (4, 12, 3), (40, 40, 1), (42, 60, 3)], ids=str)
def test_small_images_have_a_reward_that_survives_saving(shape: tuple[int, ...], tmp_path: Any) -> None:
    space = spaces.Box(0, 255, shape, np.uint8)
    reward = RewardEnsemble(space, spaces.Discrete(2), seed=1)
    space.seed(0)
    images = np.stack([space.sample() for _ in range(4)])
    found = reward(images, np.zeros(4, np.int64), images)
    assert found.shape == (4,) and len(set(found.tolist())) == 4
    reward.save(tmp_path / "reward.safetensors")
    again = RewardEnsemble.load(tmp_path / "reward.safetensors")
    np.testing.assert_array_equal(again(images, np.zeros(4, np.int64), images), found)


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["ppo", "sb3-ppo", "dqn"])
@pytest.mark.parametrize("shape", [(7, 7, 3), (3, 9, 12)], ids=str)
def test_every_agent_learns_from_small_images_and_choices_from_one(agent: str, shape: tuple[int, ...]) -> None:
    check(agent, [lambda: Dot(shape)] * 2)


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["sb3-ppo", "dqn"])
def test_small_images_beside_choices_under_keys_with_dots(agent: str) -> None:
    check(agent, [lambda: Dot((7, 7, 3), with_vector=True)] * 2)


def check(name: str, makers: list[Any]) -> None:
    hyper = {"buffer_size": 200, "batch_size": 16} if name == "dqn" else {"n_steps": 20, "batch_size": 20}
    options: Any = {"total_env_steps": 2000, "hyperparameters": hyper, "seed": 0, "device": "cpu"}
    agent = AGENTS[name].make(EnvLoop(makers), pass_true_reward=False, **options)
    agent.reset_environments(0)
    explored = agent.explore(40, np.random.default_rng(0))
    assert set(np.unique(explored.actions)) == {1, 2, 3}
    seen: list[Any] = []

    def reward(observations: Any, actions: Any, following: Any) -> Any:
        seen.append((observations, actions))
        return np.asarray(actions, np.float32)

    agent.relabel(reward)
    agent.improve(reward)
    observations, actions = seen[-1]
    assert actions.min() >= 1 and actions.max() <= 3
    if isinstance(observations, dict):
        assert observations["a.b"].shape[1:] == (7, 7, 3)
        assert observations["values"].min() >= 5
    agent.close()

"""MinAtar's games are those of its package, seen as pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import prefrl.envs  # registers the names
from prefrl.agents.networks import CnnActorCritic
from prefrl.control.defaults import MINATAR, agent_defaults
from prefrl.envs.catalogue import make_env, make_vector_env
from prefrl.envs.registration import MINATAR_GAMES, camel_case
from prefrl.errors import UserError
from prefrl.rewards import RewardEnsemble
from prefrl.rewards.networks import EnsembleCNN
from prefrl.spaces import is_image

environments: Any = pytest.importorskip("minatar.environment")
GAMES = [camel_case(game) for game in MINATAR_GAMES]


def played(env: Any, seed: int, num_steps: int = 400) -> list[Any]:
    rng = np.random.default_rng(seed)
    seen: list[Any] = [env.reset(seed=seed)[0]]
    for _ in range(num_steps):
        observation, reward, terminated, truncated, _ = env.step(int(rng.integers(env.action_space.n)))
        seen += [observation, reward, terminated]
        if terminated or truncated:
            seen.append(env.reset()[0])
    return seen


@pytest.mark.parametrize("game", MINATAR_GAMES)
def test_a_game_is_the_packages_own_step_by_step(game: str) -> None:
    env = make_env(f"prefrl/MinAtar-{camel_case(game)}-v0", options={"sticky_action_prob": 0.0})
    theirs = environments.Environment(game, sticky_action_prob=0.0)
    observation, _ = env.reset(seed=3)
    base: Any = env.unwrapped
    theirs.env.random = np.random.RandomState()
    theirs.env.random.set_state(base._game.random.get_state())
    theirs.env.__dict__ |= {
        name: np.copy(value) if isinstance(value, np.ndarray) else _copied(value)
        for name, value in vars(base._game).items()
        if name != "random"
    }
    rng = np.random.default_rng(1)
    for _ in range(300):
        assert np.array_equal(observation, theirs.state() * np.uint8(255))
        action = int(rng.integers(6))
        theirs.env.random.rand()  # whether an action sticks is drawn from the stream of the game
        observation, reward, terminated, _, _ = env.step(action)
        wanted = theirs.env.act(action)
        assert (reward, terminated) == wanted
        if terminated:
            break


def _copied(value: Any) -> Any:
    return [_copied(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("game", GAMES)
def test_a_seed_fixes_everything_whatever_came_before(game: str) -> None:
    used, new = (make_env(f"prefrl/MinAtar-{game}-v1") for _ in range(2))
    played(used, seed=9)
    for ours, theirs in zip(played(used, seed=4), played(new, seed=4), strict=True):
        assert np.array_equal(ours, theirs)
    other = played(new, seed=5)
    assert any(not np.array_equal(a, b) for a, b in zip(other, played(used, seed=4), strict=False))


def test_actions_stick_as_often_as_is_said() -> None:
    env: Any = make_env("prefrl/MinAtar-Freeway-v0", options={"sticky_action_prob": 0.25}).unwrapped
    env.reset(seed=0)
    stuck = 0
    for step in range(2_000):  # no action twice in a row: whatever is repeated has stuck
        env.step(step % 6)
        stuck += env._before != step % 6
    assert 420 < stuck < 580


def test_the_packages_names_are_pictures_too() -> None:
    env = make_env("MinAtar/Breakout-v1")
    assert is_image(env.observation_space) and env.action_space.n == 3  # type: ignore[attr-defined]
    assert make_env("MinAtar/Breakout-v0").action_space.n == 6  # type: ignore[attr-defined]
    assert agent_defaults("ppo", "MinAtar/Breakout-v1") is MINATAR is agent_defaults("ppo", "prefrl/MinAtar-Asterix-v1")
    task = prefrl.envs.task("MinAtar/Breakout-v1")
    assert task == prefrl.envs.task("prefrl/MinAtar-Breakout-v1") and task.fixed_horizon == 500


@pytest.mark.parametrize("game", GAMES)
def test_networks_of_agent_and_reward_read_pictures_with_kernels_of_three(game: str) -> None:
    env = make_env(f"prefrl/MinAtar-{game}-v1")
    space: Any = env.observation_space
    ensemble = RewardEnsemble(space, env.action_space)
    assert isinstance(ensemble.network, EnsembleCNN)
    height, width, channels = space.shape
    assert (height, width) == (10, 10) and ensemble.network.kernels[0].shape[2:] == (channels, 3, 3)
    network = CnnActorCritic((channels, height, width), 3, torch.Generator())
    assert network.trunk[0].weight.shape[1:] == (channels, 3, 3)
    observation, _ = env.reset(seed=0)
    assert set(np.unique(observation)) == {0, 255}
    assert ensemble(observation[None], np.zeros(1, np.int64), observation[None]).shape == (1,)


@pytest.mark.parametrize("game", GAMES)
def test_everything_that_is_seen_has_a_colour(game: str) -> None:
    env: Any = make_env(f"prefrl/MinAtar-{game}-v1", render_mode="rgb_array").unwrapped
    env.reset(seed=0)
    picture = env.render()
    assert picture.shape == (200, 200, 3) and picture.dtype == np.uint8
    channels = env.observation_space.shape[2]
    empty = np.zeros((10, 10, channels), np.uint8)
    for channel in range(channels):
        one = empty.copy()
        one[3, 7, channel] = 255
        changed = (env.picture(one) != env.picture(empty)).any(-1)
        assert changed[60:80, 140:160].all() and changed.sum() == 400


def test_many_games_step_in_a_loop_with_ends_hidden() -> None:
    envs = make_vector_env("prefrl/MinAtar-Breakout-v1", 3, fixed_horizon=50)
    observations, _ = envs.reset(seed=0)
    assert observations.shape == (3, 10, 10, 4)
    rewards = []
    for _ in range(50):
        _, reward, terminated, truncated, _ = envs.step(np.zeros(3, np.int64))
        rewards.append(reward)
        assert not terminated.any()
    assert truncated.all() and np.min(rewards) == -1.0  # a ball lost


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"game": "pong"}, "no game 'pong'"),
        ({"sticky_action_prob": 1.5}, "must be in"),
        ({"difficulty_ramping": 1}, "true or false"),
    ],
)
def test_options_without_a_meaning_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_env("prefrl/MinAtar-Breakout-v1", options=options)

"""Actions in units of half their range."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from prefrl.agents import AGENTS, PpoAgent
from prefrl.agents.action_scale import ActionScale
from prefrl.envs import EnvLoop, make_vector_env

MIXED = spaces.Box(np.array([-2.0, 0.0, -np.inf, -3e38], np.float32), np.array([2.0, 10.0, np.inf, 3e38], np.float32))


def test_bounds_are_one_unit_from_the_middle_and_what_is_unbounded_stays() -> None:
    scale = ActionScale(MIXED)
    given = np.array([[-1.0, -1.0, -1.0, -1.0], [0.0, 0.0, 5.0, 0.0], [0.5, 0.5, 0.5, 0.5], [3.0, -3.0, 30.0, 9.0]])
    expected = [[-2, 0, -1, -1], [0, 5, 5, 0], [1, 7.5, 0.5, 0.5], [2, 0, 30, 9]]
    np.testing.assert_array_equal(scale.to_env(given), np.array(expected, np.float32))
    assert scale.to_env(given).dtype == MIXED.dtype
    assert scale.scaled_space.contains(np.array([1, -1, 1e9, 1e9], np.float32))


def test_unscaled_actions_are_only_clipped() -> None:
    np.testing.assert_array_equal(ActionScale(MIXED, wanted=False).to_env(np.full((1, 4), 3.0)), [[2, 3, 3, 3]])


@pytest.mark.slow
@pytest.mark.parametrize("size", [0.01, 1.0, 50.0])
@pytest.mark.parametrize("agent", ["ppo", "sb3-ppo", "a2c"])
def test_exploring_means_the_same_whatever_the_units_of_the_action(agent: str, size: float) -> None:
    """The spread of the first actions, as a share of the range, does not depend on the range."""

    def make() -> gymnasium.Env:
        env = gymnasium.make("Pendulum-v1", max_episode_steps=50)
        return gymnasium.wrappers.RescaleAction(env, np.float32(-size), np.float32(size))

    hyper = {"n_steps": 200, "scale_actions": True, "policy_kwargs": {"log_std_init": -1.0}}
    options = {"total_env_steps": 10_000, "hyperparameters": hyper}
    learner = AGENTS[agent].make(EnvLoop([make] * 2), seed=0, device="cpu", pass_true_reward=False, **options)  # type: ignore[arg-type]
    learner.reset_environments(0)
    rollout = learner.explore(400, np.random.default_rng(0), uniform=False)
    assert np.abs(rollout.actions).max() <= size
    assert 0.3 < rollout.actions.std() / size < 0.45  # exp(-1) = 0.37, a little of it clipped
    learned = learner.improve(lambda observations, actions, following: np.zeros(len(actions)))
    assert 0.3 < learned.rollout.actions.std() / size < 0.45
    chosen = learner.act(rollout.flat_transitions()[0], deterministic=False)
    assert np.abs(chosen).max() <= size and 0.3 < chosen.std() / size < 0.45


@pytest.mark.slow
def test_warm_up_keeps_a_cheetah_on_its_feet_where_uniform_actions_flip_it() -> None:
    feet = {}
    for uniform in (False, True):
        hyper = {"scale_actions": True, "policy_kwargs": {"log_std_init": -1.0}}
        agent = PpoAgent(make_vector_env("HalfCheetah-v5", 8), total_env_steps=100_000, hyperparameters=hyper)
        agent.reset_environments(3)
        rollout = agent.explore(8_000, np.random.default_rng(0), uniform=uniform)
        feet[uniform] = (np.cos(np.asarray(rollout.observations)[..., 1]) > 0.5).mean()
        agent.close()
    assert feet[False] > 0.99
    assert feet[True] < 0.95

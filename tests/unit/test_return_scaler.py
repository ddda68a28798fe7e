"""Centring and scaling of the rewards that on-policy agents learn from."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from prefrl.agents.scaling import ReturnScaler

NEVER = np.zeros((40, 3), np.bool_)


def rewards(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(1.0, 2.0, (40, 3))


@given(shift=st.floats(-1e3, 1e3), factor=st.floats(1e-2, 1e3))
@settings(max_examples=30, deadline=None)
def test_neither_shift_nor_positive_scale_of_a_reward_matters(shift: float, factor: float) -> None:
    plain = ReturnScaler(3, 0.99).scale(rewards(0), NEVER, NEVER)
    moved = ReturnScaler(3, 0.99).scale(factor * rewards(0) + shift, NEVER, NEVER)
    np.testing.assert_allclose(moved, plain, rtol=1e-2, atol=1e-3)


def test_nothing_is_taken_off_once_an_episode_has_terminated() -> None:
    terminated = NEVER.copy()
    terminated[5, 0] = True
    scaler = ReturnScaler(3, 0.9)
    assert scaler.scale(np.full((40, 3), 2.0), terminated, NEVER).min() > 0
    assert scaler.scale(np.full((40, 3), 2.0), NEVER, NEVER).min() > 0
    assert np.all(ReturnScaler(3, 0.9).scale(np.full((40, 3), 2.0), NEVER, NEVER) == 0)


def test_discounted_returns_begin_again_at_an_end() -> None:
    ended = NEVER.copy()
    ended[::4] = True
    short = ReturnScaler(3, 1.0)
    short.scale(np.ones((40, 3)), ended, NEVER)
    assert short._moments.variance < 2.0  # returns of 1 to 4; without ends they would reach 40


class OneStepCounter(gymnasium.Env[Any, Any]):
    """Rewards drawn from a seeded stream; every tenth step ends the episode."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self) -> None:
        self.stream = np.random.default_rng(0)
        self.steps = 0

    def reset(self, **_: Any) -> Any:
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return np.zeros(1, np.float32), float(self.stream.normal(1.0, 2.0)), self.steps == 10, False, {}


def test_scale_agrees_with_stable_baselines3_where_episodes_terminate() -> None:
    theirs = VecNormalize(DummyVecEnv([OneStepCounter]), norm_obs=False, norm_reward=True, gamma=0.9)
    theirs.reset()
    for _ in range(40):
        theirs.step(np.array([0]))
    raw = np.random.default_rng(0).normal(1.0, 2.0, (40, 1))
    terminated = (np.arange(1, 41) % 10 == 0)[:, None]
    ours = ReturnScaler(1, 0.9)
    ours.scale(raw, terminated, np.zeros_like(terminated))
    np.testing.assert_allclose(ours._moments.variance, theirs.ret_rms.var, rtol=1e-6)


def test_restored_scaler_goes_on_exactly() -> None:
    whole, first = ReturnScaler(3, 0.99), ReturnScaler(3, 0.99)
    whole.scale(rewards(1), NEVER, NEVER)
    first.scale(rewards(1), NEVER, NEVER)
    again = ReturnScaler(3, 0.99)
    again.restore(first.state())
    np.testing.assert_array_equal(whole.scale(rewards(2), NEVER, NEVER), again.scale(rewards(2), NEVER, NEVER))

"""The fixed-horizon form: what the agent sees, what the teacher is paid, and what one seed determines."""

from __future__ import annotations

import doctest
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from prefrl.envs import FixedHorizon, fixed_horizon
from prefrl.errors import UserError

pytestmark = pytest.mark.lowest


class Corridor(gymnasium.Env[Any, Any]):
    """Walks one cell per step and ends at cell `length`; every step is worth 1. Episodes begin at a random cell."""

    observation_space = spaces.Box(0, 100, (1,), np.float64)
    action_space = spaces.Discrete(2)

    def __init__(self, length: int = 3, truncates: bool = False, max_start: int = 0) -> None:
        self.length, self.truncates, self.max_start = length, truncates, max_start
        self.cell = 0
        self.seen_options: list[dict[str, Any] | None] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.seen_options.append(options)
        self.cell = int(self.np_random.integers(self.max_start + 1))
        return np.array([self.cell], np.float64), {"fresh": True}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.cell += 1
        ended = self.cell >= self.length
        observation = np.array([self.cell], np.float64)
        return observation, 1.0, ended and not self.truncates, ended and self.truncates, {}


def run(env: gymnasium.Env[Any, Any], seed: int | None = None) -> list[tuple[Any, ...]]:
    """Play one episode of action 0; return its steps."""
    env.reset(seed=seed)
    steps = [env.step(0)]
    while not (steps[-1][2] or steps[-1][3]):
        steps.append(env.step(0))
    return steps


def test_an_end_is_hidden_and_paid_for_by_the_step_after_it() -> None:
    steps = run(FixedHorizon(Corridor(3), horizon=9, terminal_reward=-5.0, hold=1))
    assert [s[0][0] for s in steps] == [1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert [s[1] for s in steps] == [1, 1, 1, -5, 1, 1, 1, -5, 1]
    assert [s[2] for s in steps] == [False] * 9
    assert [s[3] for s in steps] == [False] * 8 + [True]
    assert [i for i, s in enumerate(steps) if s[4].get("hidden_terminated")] == [2, 6]
    assert [i for i, s in enumerate(steps) if s[4].get("restarted")] == [3, 7]
    assert steps[3][4]["fresh"] is True


def test_an_end_is_held_long_enough_to_be_seen() -> None:
    steps = run(FixedHorizon(Corridor(2), horizon=9, terminal_reward=-5.0, hold=3))
    assert [s[0][0] for s in steps] == [1, 2, 2, 2, 0, 1, 2, 2, 2]
    assert [s[1] for s in steps] == [1, 1, -5, -5, -5, 1, 1, -5, -5]
    assert [i for i, s in enumerate(steps) if s[4].get("restarted")] == [4]
    assert steps[-1][3]


def test_an_end_at_the_last_step_costs_nothing_and_does_not_reach_into_the_next_episode() -> None:
    env = FixedHorizon(Corridor(3), horizon=3, terminal_reward=-5.0)
    for _ in range(2):
        steps = run(env)
        assert [s[0][0] for s in steps] == [1, 2, 3]
        assert sum(s[1] for s in steps) == 3.0
        assert (steps[-1][2], steps[-1][3]) == (False, True)


def test_an_inner_time_limit_restarts_without_the_terminal_reward() -> None:
    steps = run(FixedHorizon(Corridor(2, truncates=True), horizon=5, terminal_reward=-5.0))
    assert [s[1] for s in steps] == [1, 1, 0, 1, 1]
    assert not any("hidden_terminated" in s[4] for s in steps)
    assert [i for i, s in enumerate(steps) if s[4].get("restarted")] == [2]


def test_the_action_of_a_restarting_step_has_no_effect() -> None:
    rows = []
    for action in (0, 1):
        env = FixedHorizon(gymnasium.make("CartPole-v1"), 30, -1.0, hold=1)
        env.reset(seed=5)
        observation: Any = None
        for _ in range(30):
            observation, _, _, _, info = env.step(action if observation is None else 0)
            if "hidden_terminated" in info:
                break
        observation, reward, *_ = env.step(action)
        rows.append((reward, np.abs(observation).max() < 0.05))
    assert rows == [(-1.0, True), (-1.0, True)]


def test_restarts_use_the_options_of_the_reset_and_do_not_reseed() -> None:
    inner = Corridor(2, max_start=1)
    env = FixedHorizon(inner, horizon=40, terminal_reward=0.0, hold=1)
    env.reset(seed=0, options={"a": 1})
    starts = [step[0][0] for step in (env.step(0) for _ in range(40)) if step[4].get("restarted")]
    assert len(inner.seen_options) > 10
    assert all(options == {"a": 1} for options in inner.seen_options)
    assert set(starts) == {0.0, 1.0}  # reseeding would begin every attempt in the same cell


@given(length=st.integers(1, 6), horizon=st.integers(1, 25), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_every_episode_lasts_exactly_the_horizon(length: int, horizon: int, seed: int) -> None:
    env = FixedHorizon(Corridor(length, max_start=length - 1), horizon, -1.0, hold=1)
    for _ in range(2):
        steps = run(env, seed)
        assert len(steps) == horizon
        assert not any(s[2] for s in steps)
        restarts = sum("restarted" in s[4] for s in steps)
        assert sum(s[1] for s in steps) == (horizon - restarts) - restarts


def test_one_seed_fixes_the_whole_episode() -> None:
    def play() -> list[Any]:
        env = FixedHorizon(gymnasium.make("CartPole-v1"), 200, -10.0)
        env.reset(seed=11)
        return [env.step(t % 3 % 2)[:4] for t in range(200)]

    for one, other in zip(play(), play(), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        assert one[1:] == other[1:]


def test_a_second_reset_with_a_seed_repeats_the_episode() -> None:
    env = FixedHorizon(gymnasium.make("CartPole-v1"), 60, -10.0)
    first = [s[0] for s in run(env, seed=4)]
    second = [s[0] for s in run(env, seed=4)]
    np.testing.assert_array_equal(first, second)


@pytest.mark.filterwarnings("ignore")
def test_gymnasium_finds_nothing_to_complain_about() -> None:
    check_env(FixedHorizon(gymnasium.make("CartPole-v1"), 100, -10.0), skip_render_check=True)


def test_the_specification_rebuilds_the_wrapper() -> None:
    env = FixedHorizon(gymnasium.make("CartPole-v1", max_episode_steps=70), 70, -3.0)
    assert env.spec is not None
    again = gymnasium.make(env.spec)
    assert isinstance(again, FixedHorizon)
    assert (again.horizon, again.terminal_reward) == (70, -3.0)


def test_a_horizon_of_no_steps_is_refused() -> None:
    with pytest.raises(UserError, match=r"at least 1 step\. Received 0"):
        FixedHorizon(Corridor(), 0, 0.0)
    with pytest.raises(UserError, match=r"hold must be at least 1 step\. Received 0"):
        FixedHorizon(Corridor(), 5, 0.0, hold=0)


def test_the_example_in_the_docstring_is_true() -> None:
    result = doctest.testmod(fixed_horizon)
    assert result.attempted > 0
    assert result.failed == 0

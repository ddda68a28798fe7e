"""Evaluation within bounds, of environments that have no end, are slow, have no reward or fail."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from prefrl.control.evaluation import evaluate
from prefrl.errors import UserError


class Endless(gymnasium.Env[Any, Any]):
    """Gives 1 at each step and never ends."""

    observation_space = spaces.Box(0, np.inf, (1,))
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps, self.number = 0, seed or 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.steps += 1
        return np.full(1, self.steps, np.float32), self.reward(), False, False, {}

    def reward(self) -> Any:
        return 1.0


class RewardOf(Endless):
    """Ends after three steps; the second reward of copy 1 is not a number."""

    unknown: Any = None

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, _, _, info = super().step(action)
        return observation, reward, self.steps == 3, False, info

    def reward(self) -> Any:
        return self.unknown if self.number == 1 and self.steps == 2 else 1.0


class FailsToClose(RewardOf):
    unknown = 1.0

    def close(self) -> None:
        raise RuntimeError("the simulator is gone")


def stay(seen: Any) -> Any:
    return np.zeros(len(seen), int)


def test_an_episode_without_an_end_is_stopped_at_the_limit_and_that_is_said() -> None:
    result = evaluate(Endless, stay, num_episodes=3, seed=0, max_steps=7)
    assert result.true_returns == [7.0, 7.0, 7.0] and result.lengths == [7, 7, 7]
    assert result.num_stopped == 3 and not result.out_of_time
    assert result.remarks() == [
        "3 of 3 episodes were stopped after 7 steps (the limit of an episode); their returns are those of these steps."
    ]


def test_an_evaluation_stops_when_its_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 40))
    monkeypatch.setattr("prefrl.control.evaluation.time.monotonic", lambda: float(next(clock)))
    result = evaluate(Endless, stay, num_episodes=2, seed=0, max_minutes=2.0)
    assert result.lengths == [4, 4], "40 seconds a step: 160 is the first that is over 120"
    assert result.out_of_time and "the time was up" in result.remarks()[0]


@pytest.mark.parametrize("unknown", [None, math.nan, math.inf])
def test_a_return_with_an_unknown_reward_is_unknown_and_the_mean_is_of_the_others(unknown: Any) -> None:
    def make() -> RewardOf:
        env = RewardOf()
        env.unknown = unknown
        return env

    result = evaluate(make, stay, num_episodes=3, seed=0)
    assert result.true_returns[::2] == [3.0, 3.0] and math.isnan(result.true_returns[1])
    assert (result.mean, result.std, result.num_unknown) == (3.0, 0.0, 1)
    assert "1 of 3 episodes is unknown" in result.remarks()[0]


def test_where_no_reward_is_known_there_is_no_mean() -> None:
    class Nothing(RewardOf):
        def reward(self) -> None:
            return None

    result = evaluate(Nothing, stay, num_episodes=2, seed=0)
    assert result.mean is None and result.std is None
    assert result.remarks() == ["The true return is unknown: the environment's reward is NaN, None or infinite."]


def test_a_simulator_that_fails_to_close_takes_nothing_from_what_was_measured() -> None:
    assert evaluate(FailsToClose, stay, num_episodes=2, seed=0).mean == 3.0


def test_every_step_is_told() -> None:
    told: list[tuple[int, int]] = []
    evaluate(RewardOf, stay, num_episodes=1, seed=0, on_step=lambda step, over: told.append((step, over)))
    assert told == [(1, 0), (2, 0), (3, 1)]


@pytest.mark.parametrize("bound", [{"num_episodes": 0}, {"max_steps": 0}, {"max_minutes": 0.0}, {"seed": -1}])
def test_bounds_out_of_range_are_refused(bound: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="Received"):
        evaluate(Endless, stay, **{"num_episodes": 1, "seed": 0, **bound})


class Tells(RewardOf):
    """Tells of each step what differs from copy to copy."""

    unknown = 1.0
    told: Any = None

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        return (*super().step(action)[:4], {"told": self.told[self.number]})


@pytest.mark.parametrize(
    "told",
    [(np.zeros(2), np.zeros(3)), (3, "three"), (1, None), (5, {"a": 1}), ({"a": 1}, 5), (1, 2**70), (1, object())],
    ids=["lengths", "kinds", "None", "dict", "dict first", "large", "object"],
)
def test_what_copies_tell_beside_their_steps_may_be_of_any_kind(told: tuple[Any, Any]) -> None:
    class These(Tells):
        pass

    These.told = told
    assert evaluate(These, stay, num_episodes=2, seed=0).true_returns == [3.0, 3.0]

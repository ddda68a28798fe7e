"""EPIC on rewards whose canonical forms are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from prefrl.errors import UserError
from prefrl.rewards.epic import (
    MAX_FEATURES,
    FittedReward,
    Transitions,
    canonicalise,
    epic_distance,
    fit_true_reward,
    in_turn,
    independent_samples,
    pearson_correlation,
    pearson_distance,
)
from prefrl.segments import Segment, stack_transitions

NUM_STATES, NUM_ACTIONS = 5, 3
Table = NDArray[np.float64]
Reward = Callable[..., NDArray[np.float64]]


def table(seed: int) -> Table:
    return np.random.default_rng(seed).normal(size=(NUM_STATES, NUM_ACTIONS, NUM_STATES))


def of_table(values: Table) -> Reward:
    return lambda s, a, s2: values[s, a, s2]


def shaped(values: Table, potential: NDArray[np.floating[Any]], gamma: float) -> Table:
    return values + gamma * potential[None, None, :] - potential[:, None, None]


def everything() -> Transitions:
    """Every (s, a, s') once: as coverage, and as samples an exact uniform expectation."""
    s, a, s2 = (x.ravel() for x in np.indices((NUM_STATES, NUM_ACTIONS, NUM_STATES)))
    return s, a, s2


def by_definition(values: Table, gamma: float) -> Table:
    """Definition 4.1 with uniform D_S and D_A, written out with loops."""
    out = np.empty_like(values)
    mean_from = [values[s].mean() for s in range(NUM_STATES)]
    for s, a, s2 in np.ndindex(*values.shape):
        out[s, a, s2] = values[s, a, s2] + gamma * mean_from[s2] - mean_from[s] - gamma * values.mean()
    return out


def test_canonical_form_is_the_definition_on_a_table() -> None:
    values = table(0)
    got = canonicalise(of_table(values), everything(), everything(), 0.9)
    np.testing.assert_allclose(got, by_definition(values, 0.9).ravel(), atol=1e-12)


@given(
    scale=st.floats(0.01, 100),
    constant=st.floats(-10, 10),
    potential=st.lists(st.floats(-10, 10), min_size=NUM_STATES, max_size=NUM_STATES),
    gamma=st.floats(0, 1),
)
def test_scale_shift_and_shaping_change_nothing_even_with_few_samples(
    scale: float, constant: float, potential: list[float], gamma: float
) -> None:
    values = table(1)
    other = shaped(scale * values + constant, np.array(potential), gamma)
    rng = np.random.default_rng(3)
    few = rng.integers(NUM_STATES, size=7), rng.integers(NUM_ACTIONS, size=7), rng.integers(NUM_STATES, size=7)
    distance = epic_distance(of_table(values), of_table(other), everything(), few, gamma)
    assert distance == pytest.approx(0.0, abs=1e-5)


def test_a_negated_reward_is_at_distance_one_however_shaped() -> None:
    values, potential = table(2), np.arange(NUM_STATES) * 3.0
    other = shaped(-2.0 * values, potential, 0.99)
    assert epic_distance(of_table(values), of_table(other), everything(), everything()) == pytest.approx(1.0, abs=1e-6)


def test_without_canonicalising_shaping_hides_the_agreement() -> None:
    values, potential = table(2), np.arange(NUM_STATES) * 30.0
    direct = pearson_distance(values.ravel(), shaped(values, potential, 0.5).ravel())
    assert direct is not None and direct > 0.5


@pytest.mark.parametrize("constant", [0.0, 0.1, 1234.5])
def test_a_constant_reward_has_no_distance(constant: float) -> None:
    nothing = np.full_like(table(0), constant)
    assert epic_distance(of_table(nothing), of_table(table(0)), everything(), everything()) is None


def test_a_reward_that_is_only_shaping_has_no_distance() -> None:
    nothing = shaped(np.zeros_like(table(0)), np.array([3.0, -1.0, 0.3, 2.0, 7.0]), 0.9)
    assert epic_distance(of_table(nothing), of_table(table(0)), everything(), everything(), 0.9) is None


def test_canonicalising_in_parts_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = canonicalise(of_table(table(4)), everything(), everything(), 0.9)
    monkeypatch.setattr("prefrl.rewards.epic.MAX_BATCH_BYTES", 8 * 80)  # one state at a time
    np.testing.assert_array_equal(canonicalise(of_table(table(4)), everything(), everything(), 0.9), whole)


def test_gamma_outside_its_range_is_refused() -> None:
    with pytest.raises(UserError, match="Received 99"):
        canonicalise(of_table(table(0)), everything(), everything(), 99)


def test_pearson_distance_at_known_correlations() -> None:
    x = np.array([1.0, -1.0, 0.0, 0.0])
    assert pearson_distance(x, 5 * x + 3) == pytest.approx(0.0, abs=1e-7)
    assert pearson_distance(x, -x) == pytest.approx(1.0)
    assert pearson_distance(x, np.array([0.0, 0.0, 1.0, -1.0])) == pytest.approx(np.sqrt(0.5))
    assert pearson_distance(x, np.ones(4)) is None


@given(st.integers(0, 1000), st.sampled_from([1e-150, 1.0, 1e150]))
def test_correlation_agrees_with_numpy_at_any_magnitude(seed: int, magnitude: float) -> None:
    x, y = np.random.default_rng(seed).normal(size=(2, 30))
    assert pearson_correlation(x * magnitude, y) == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-9)


def segments(reward: Reward, *, episodes: int = 40, k: int = 20, seed: int = 0) -> list[Segment]:
    rng = np.random.default_rng(seed)
    made = []
    for number in range(episodes):
        observations, actions = rng.normal(size=(k + 1, 3)), rng.uniform(-1, 1, (k, 2))
        true = reward(observations[:-1], actions, observations[1:])
        made.append(Segment(observations=observations, actions=actions, true_rewards=true, episode=number))
    return made


BOX: tuple[spaces.Space[Any], spaces.Space[Any]] = (spaces.Box(-9, 9, (3,)), spaces.Box(-1, 1, (2,)))


def test_a_linear_true_reward_is_recovered() -> None:
    made = segments(lambda s, a, s2: s[:, 0] - 2 * a[:, 1] + 3 * s2[:, 2])
    model, r2, others = fit_true_reward(*BOX, made, np.random.default_rng(0))
    assert model.kind == "ridge" and r2 is not None and r2 > 0.9999
    assert 15 <= len(others) <= 25


def test_a_curved_true_reward_takes_the_network() -> None:
    made = segments(lambda s, a, s2: s[:, 0] ** 2 - a[:, 1] ** 2, episodes=150)
    model, r2, _ = fit_true_reward(*BOX, made, np.random.default_rng(0))
    assert model.kind == "ridge + network"
    assert r2 is not None and r2 > 0.9


def test_noise_is_not_predicted() -> None:
    rng = np.random.default_rng(5)
    _, r2, _ = fit_true_reward(*BOX, segments(lambda s, a, s2: rng.normal(size=len(s))), np.random.default_rng(0))
    assert r2 is not None and r2 < 0.1


def test_segments_of_one_episode_stay_on_one_side() -> None:
    made = [s for s in segments(lambda s, a, s2: s[:, 0], episodes=10) for _ in range(3)]
    *_, others = fit_true_reward(*BOX, made, np.random.default_rng(0))
    counts = [sum(o.episode == number for o in others) for number in range(10)]
    assert set(counts) == {0, 3}


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 255, (4, 84, 84), np.uint8),
        spaces.Box(0, 255, (84, 84, 3), np.uint8),
        spaces.Dict({"a": spaces.Box(-1, 1, (2, 2)), "b": spaces.Discrete(3)}),
        spaces.Discrete(4, start=2),
    ],
)
def test_every_supported_space_can_be_fitted(space: spaces.Space[Any]) -> None:
    space.seed(0)
    made = []
    for _ in range(4):
        rows = [space.sample() for _ in range(6)]
        observations = (
            {k: np.stack([r[k] for r in rows]) for k in rows[0]} if isinstance(rows[0], dict) else np.stack(rows)
        )
        actions = np.arange(5) % 2
        made.append(
            Segment(observations=observations, actions=actions, true_rewards=np.array(actions * 2.0, np.float64))
        )
    model, r2, _ = fit_true_reward(space, spaces.Discrete(2), made, np.random.default_rng(0))
    assert r2 is not None and np.isfinite(model(*made[0].transitions())).all()


def test_a_regression_on_large_float_pictures_has_few_features() -> None:
    space = spaces.Box(0, 1, (84, 84, 3), np.float32)
    model = FittedReward(space, spaces.Discrete(3))
    rng = np.random.default_rng(0)
    brightness = rng.random((60, 1, 1, 1), np.float32)
    seen = np.broadcast_to(brightness, (60, 84, 84, 3)).astype(np.float32)
    made = [
        Segment(
            observations=seen[[i, i]], actions=rng.integers(3, size=1), true_rewards=brightness[i, 0, 0].astype(float)
        )
        for i in range(60)
    ]
    model.fit(made, rng)
    assert len(model._weights) == 2 * MAX_FEATURES + 3, "not 42,339, whose solve takes 13 GiB"
    np.testing.assert_allclose(in_turn(model, made), brightness[:, 0, 0, 0], atol=0.02)


def test_samples_are_states_and_actions_of_the_segments_drawn_apart() -> None:
    made = segments(lambda s, a, s2: s[:, 0], episodes=30)
    s, a, s2 = (np.asarray(part) for part in independent_samples(made, 500, np.random.default_rng(0)))
    states, actions, _ = (np.asarray(part) for part in stack_transitions(made))
    row_of, action_of = ({tuple(row): i for i, row in enumerate(rows)} for rows in (states, actions))
    rows = np.array(
        [[row_of[tuple(x)], action_of[tuple(y)], row_of[tuple(z)]] for x, y, z in zip(s, a, s2, strict=True)]
    )
    assert (np.abs(np.corrcoef(rows.T) - np.eye(3)) < 0.2).all()


def test_a_reward_is_evaluated_in_parts_to_the_same_values(monkeypatch: pytest.MonkeyPatch) -> None:
    made = segments(lambda s, a, s2: s[:, 0], episodes=7)
    asked: list[int] = []

    def reward(s: Any, a: Any, s2: Any) -> NDArray[np.float64]:
        asked.append(len(a))
        return np.asarray(s[:, 0] + a[:, 1] - s2[:, 2])

    whole = in_turn(reward, made)
    monkeypatch.setattr("prefrl.rewards.epic.MAX_BATCH_BYTES", 2 * 21 * 3 * 8)  # two segments at a time
    np.testing.assert_array_equal(in_turn(reward, made), whole)
    assert asked == [140, 40, 40, 40, 20]

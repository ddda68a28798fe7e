"""The report card on rewards whose agreement with the truth is known."""

from __future__ import annotations

import json
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from numpy.typing import NDArray
from scipy import stats
from sklearn import calibration as sklearn_calibration
from sklearn import metrics as sklearn_metrics

from prefrl.errors import UserError
from prefrl.rewards.calibration import calibration_curve
from prefrl.rewards.report import ReportCard, report_card, spearman_correlation
from prefrl.segments import Segment, stack_transitions
from prefrl.spaces import Array, Batch

Formula = Callable[[Array, Array, Array], NDArray[np.float64]]
TRUTH = np.array([1.0, -0.5, 2.0])


def truth(s: Array, a: Array, s2: Array) -> NDArray[np.float64]:
    return np.asarray(s @ TRUTH + a[:, 0])


class Formulas:
    """A reward of M members, each a formula; every agent-facing reward is their mean."""

    observation_space: spaces.Space[Any] = spaces.Box(-9, 9, (3,))
    action_space: spaces.Space[Any] = spaces.Box(-1, 1, (1,))

    def __init__(self, *members: Formula) -> None:
        self.members = members

    def __call__(self, observations: Batch, actions: Array, next_observations: Batch) -> NDArray[np.float64]:
        return np.mean([np.asarray(m(observations, actions, next_observations)) for m in self.members], axis=0)  # type: ignore[arg-type]

    def segment_returns(self, segments: list[Segment]) -> NDArray[np.float64]:
        transitions = stack_transitions(segments)
        each = [np.asarray(m(*transitions)) for m in self.members]  # type: ignore[arg-type]
        return np.array([values.reshape(len(segments), -1).sum(1) for values in each])


def segments(formula: Formula = truth, num: int = 60, k: int = 8) -> list[Segment]:
    rng = np.random.default_rng(0)
    made = []
    for number in range(num):
        observations, actions = rng.normal(size=(k + 1, 3)), rng.uniform(-1, 1, (k, 1))
        true = formula(observations[:-1], actions, observations[1:])
        made.append(Segment(observations=observations, actions=actions, true_rewards=true, episode=number))
    return made


def card(reward: Formulas, given: list[Segment] | None = None, **options: Any) -> ReportCard:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = report_card(reward, given or segments(), rng=np.random.default_rng(1), **options)
    json.dumps(made.to_json(), allow_nan=False)
    for name, value in made.to_json().items():
        assert (value is None) <= (name in made.missing), name
    return made


def test_the_true_reward_gets_full_marks() -> None:
    got = card(Formulas(truth))
    assert got.accuracy == 1.0
    for value in (got.pearson_per_step, got.spearman_per_step, got.pearson_per_segment, got.spearman_per_segment):
        assert value == pytest.approx(1.0)
    assert [third.accuracy for third in got.terciles] == [1.0, 1.0, 1.0]
    assert got.direct_distance == pytest.approx(0.0, abs=1e-6)
    assert got.true_reward_r2 is not None and got.true_reward_r2 > 0.999
    assert got.epic_distance is not None and got.epic_distance < 0.02
    assert got.missing == {} and got.num_ties == 0 and got.num_pairs == 2000


def test_the_opposite_of_the_true_reward_gets_none() -> None:
    got = card(Formulas(lambda s, a, s2: -truth(s, a, s2)))
    assert got.accuracy == 0.0
    assert got.spearman_per_segment == pytest.approx(-1.0)
    assert got.direct_distance == pytest.approx(1.0)
    assert got.epic_distance == pytest.approx(1.0, abs=0.02)


def test_noise_is_a_coin() -> None:
    rng = np.random.default_rng(2)
    got = card(Formulas(lambda s, a, s2: rng.normal(size=len(s))), segments(num=400))
    assert got.accuracy == pytest.approx(0.5, abs=0.07)
    assert got.pearson_per_step == pytest.approx(0.0, abs=0.1)


def test_potential_shaping_hides_from_the_direct_distance_but_not_from_epic() -> None:
    def shaped(s: Array, a: Array, s2: Array) -> NDArray[np.float64]:
        return np.asarray(2 * truth(s, a, s2) + 0.99 * 9 * s2[:, 1] - 9 * s[:, 1])

    got = card(Formulas(shaped), gamma=0.99)
    assert got.epic_distance is not None and got.epic_distance < 0.02
    assert got.direct_distance is not None and got.direct_distance > 0.4


def test_terciles_show_where_the_agreement_ends() -> None:
    def level(s: Array, a: Array, s2: Array) -> NDArray[np.float64]:
        return np.asarray(s[:, 0])

    def true(s: Array, a: Array, s2: Array) -> NDArray[np.float64]:
        return np.asarray(np.where(s[:, 0] > 0.45, -s[:, 0], s[:, 0]))  # the best in the wrong order

    rng, made = np.random.default_rng(3), []
    for mean in np.linspace(-1, 1, 90):
        observations = np.full((5, 3), mean)
        observations[:, 1:] = rng.normal(size=(5, 2))
        actions = rng.uniform(-1, 1, (4, 1))
        rewards = true(observations[:-1], actions, observations[1:])
        made.append(Segment(observations=observations, actions=actions, true_rewards=rewards))
    low, middle, high = card(Formulas(level), made).terciles
    assert (low.accuracy, middle.accuracy) == (1.0, 1.0)
    assert high.accuracy is not None and high.accuracy < 0.2
    assert low.learned_return_to <= middle.learned_return_from <= middle.learned_return_to <= high.learned_return_from
    assert low.num_segments == middle.num_segments == high.num_segments == 30


def test_ties_are_left_out_and_counted() -> None:
    made = segments(lambda s, a, s2: np.zeros(len(s)), num=30) + segments(lambda s, a, s2: np.ones(len(s)), num=30)
    got = card(Formulas(truth), made)
    assert got.num_ties == pytest.approx(1000, abs=120)
    assert got.num_pairs + got.num_ties == 2000


def test_calibrated_members_have_no_calibration_error() -> None:
    rng = np.random.default_rng(4)
    made = []
    for _ in range(3000):  # answers as Bradley-Terry would give them: Gumbel noise on the return
        observations = rng.normal(size=(2, 3))
        actions = np.zeros((1, 1))
        true = truth(observations[:-1], actions, observations[1:]) + rng.gumbel(size=1)
        made.append(Segment(observations=observations, actions=actions, true_rewards=true))
    got = card(Formulas(truth), made, num_pairs=20_000)
    assert got.calibration is not None and got.calibration.expected_error < 0.02
    too_sure = card(Formulas(lambda s, a, s2: 5 * truth(s, a, s2)), made, num_pairs=20_000)
    assert too_sure.calibration is not None and too_sure.calibration.expected_error > 0.08
    assert too_sure.log_loss is not None and got.log_loss is not None and too_sure.log_loss > got.log_loss


def test_predictions_are_averaged_over_members_and_include_the_error_rate() -> None:
    certain = 1e4  # one member sure of the truth, one of its opposite: P = 1/2 (1 - e + e/2) + 1/2 (e/2) = 1/2
    both = Formulas(lambda s, a, s2: certain * truth(s, a, s2), lambda s, a, s2: -certain * truth(s, a, s2))
    assert card(both).log_loss == pytest.approx(np.log(2), rel=1e-3)
    sure = Formulas(lambda s, a, s2: certain * truth(s, a, s2))
    assert card(sure, error_rate=0.1).log_loss == pytest.approx(-np.log(0.95), rel=1e-3)
    wrong = Formulas(lambda s, a, s2: -certain * truth(s, a, s2))
    assert card(wrong, error_rate=0.1).log_loss == pytest.approx(-np.log(0.05), rel=1e-3)
    assert card(wrong).calibration is not None  # and finite, however sure it was


def test_a_constant_learned_reward_gives_reasons_instead_of_numbers() -> None:
    got = card(Formulas(lambda s, a, s2: np.full(len(s), 0.1)))
    assert got.accuracy == 0.5 and got.log_loss == pytest.approx(np.log(2))
    assert got.pearson_per_step is None and got.epic_distance is None and got.direct_distance is None
    assert got.missing["pearson_per_step"] == "The learned reward is the same for every step."
    assert got.true_reward_r2 is not None


def test_a_constant_true_reward_gives_reasons_instead_of_numbers() -> None:
    got = card(Formulas(truth), segments(lambda s, a, s2: np.ones(len(s))))
    assert got.accuracy is None and got.calibration is None and got.num_ties == 2000
    assert got.epic_distance is None and got.true_reward_r2 is None
    assert got.missing["accuracy"] == "The true returns of both segments are equal in every pair."
    assert got.missing["spearman_per_segment"] == "The true reward is the same for every segment."


def test_two_segments_are_enough() -> None:
    got = card(Formulas(truth), segments(num=2))
    assert got.accuracy == 1.0 and got.terciles == () and "terciles" in got.missing


def test_the_same_seed_gives_the_same_card() -> None:
    assert card(Formulas(truth)) == card(Formulas(truth))


def test_where_the_true_reward_is_unknown_the_card_says_so_and_is_none_the_less_a_card() -> None:
    got = card(Formulas(truth), segments(lambda s, a, s2: np.full(len(s), np.nan), num=12))
    assert (got.num_segments, got.num_unknown) == (0, 12)
    assert got.accuracy is None and got.epic_distance is None
    assert "unknown (NaN, None or infinite) in 12 of 12 segments" in got.missing["accuracy"]
    assert "unknown" in got.to_text()


def test_segments_whose_true_reward_is_unknown_are_left_out_and_counted() -> None:
    made = segments(num=20)
    spoilt = replace(made[0], true_rewards=np.full(len(made[0]), np.nan))
    got = card(Formulas(truth), [*made, spoilt])
    assert (got.num_segments, got.num_unknown) == (20, 1)
    assert got.accuracy == card(Formulas(truth), made).accuracy
    assert "1 segments whose true reward is unknown" in got.to_text()


def test_what_cannot_be_reported_is_refused() -> None:
    made = segments(num=3)
    with pytest.raises(UserError, match="at least 2 segments"):
        card(Formulas(truth), made[:1])
    with pytest.raises(UserError, match="equal length"):
        card(Formulas(truth), [*made, *segments(num=1, k=5)])
    with pytest.raises(UserError, match="num_pairs"):
        card(Formulas(truth), made, num_pairs=0)
    with pytest.raises(UserError, match="learned rewards hold NaN"):
        card(Formulas(lambda s, a, s2: np.full(len(s), np.inf)), made)
    with pytest.raises(UserError, match=r"in \[0, 1\]"):
        calibration_curve([0.5, 1.5], [0, 1])


def test_calibration_curve_agrees_with_sklearn() -> None:
    rng = np.random.default_rng(6)
    p = np.concatenate([rng.uniform(size=500) ** 2, [0.0, 0.1, 0.3, 1.0]])
    happened = rng.uniform(size=len(p)) < p
    got = calibration_curve(p, happened)
    observed, predicted = sklearn_calibration.calibration_curve(happened, p, n_bins=10)
    np.testing.assert_allclose([x for x in got.observed if x is not None], observed)
    np.testing.assert_allclose([x for x in got.predicted if x is not None], predicted)
    assert sum(got.counts) == len(p)
    full = [c for c in got.counts if c]
    assert got.expected_error == pytest.approx(np.average(np.abs(observed - predicted), weights=full))


def test_empty_bins_hold_none() -> None:
    got = calibration_curve([0.05, 0.95], [False, True])
    assert got.counts == (1, *[0] * 8, 1)
    assert got.observed == (0.0, *[None] * 8, 1.0)
    assert got.expected_error == pytest.approx(0.05)


def test_log_loss_agrees_with_sklearn() -> None:
    reward = Formulas(lambda s, a, s2: 0.1 * s[:, 0], lambda s, a, s2: 0.2 * s[:, 2])
    made = segments(num=200)
    got = card(reward, made, num_pairs=500)
    rng = np.random.default_rng(1)  # the pairs are the first thing drawn
    first = rng.integers(200, size=500)
    second = (first + rng.integers(1, 200, size=500)) % 200
    returns, true = reward.segment_returns(made), np.array([s.true_rewards.sum() for s in made])
    p = (1 / (1 + np.exp(returns[:, second] - returns[:, first]))).mean(0)
    better = true[first] > true[second]
    assert got.log_loss == pytest.approx(sklearn_metrics.log_loss(better, p))


def test_spearman_agrees_with_scipy_ties_included() -> None:
    rng = np.random.default_rng(7)
    x, y = rng.integers(0, 6, size=(2, 80))
    assert spearman_correlation(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert spearman_correlation(x, np.ones(80)) is None


class Brightness(Formulas):
    """Of large float pictures: how bright the next one is."""

    observation_space = spaces.Box(0, 1, (84, 84, 3), np.float32)
    action_space = spaces.Discrete(3)

    def segment_returns(self, segments: list[Segment]) -> NDArray[np.float64]:
        return np.array([[self(*segment.transitions()).sum() for segment in segments]])


def test_a_report_on_large_pictures_takes_a_fraction_of_what_they_would_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefrl.rewards.epic.MAX_BATCH_BYTES", 8_000_000)
    rng = np.random.default_rng(0)
    played = np.repeat(rng.random((300, 1, 1, 3), np.float32), 84 * 84, axis=1).reshape(300, 84, 84, 3)
    brightness = played.mean((1, 2, 3), dtype=np.float64)
    starts = rng.integers(290, size=200)
    given = [  # windows of one history, as a run's are
        Segment(
            observations=played[start : start + 9],
            actions=rng.integers(3, size=8),
            true_rewards=brightness[start + 1 : start + 9],
            episode=int(start) // 20,
        )
        for start in starts.tolist()
    ]
    tracemalloc.start()
    got = report_card(Brightness(lambda s, a, s2: s2.mean((1, 2, 3))), given, rng=rng)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    joined = 2 * 200 * 8 * played[0].nbytes
    assert peak < joined / 4, f"{peak:,} bytes, where all joined take {joined:,}"
    assert got.accuracy == 1.0
    assert got.pearson_per_step == pytest.approx(1.0)

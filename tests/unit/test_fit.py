"""Fitting: what is learned from which answers, and what every part of a fit does."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chisquare
from sklearn.linear_model import LogisticRegression
from torch import nn

from prefrl.errors import UserError
from prefrl.feedback import Ranking, Rating
from prefrl.likelihood import bradley_terry_log_likelihood
from prefrl.rewards import ComparisonData, FitReport, FitSettings, Fitter, RewardEnsemble, RewardSettings
from prefrl.rewards.explaining import CutPoints, Examples
from prefrl.rewards.fit import _windows
from prefrl.segments import Segment, stack_transitions
from prefrl.spaces import Array

OBSERVATIONS = spaces.Box(-np.inf, np.inf, (3,))
ACTIONS = spaces.Box(-1, 1, (1,))
TRUTH = np.array([1.0, -0.5, 2.0, 0.7])
K = 8

Pairs = list[tuple[Segment, Segment]]
Teacher = Callable[[float, float], float]


def true_rewards(observations: Array, actions: Array) -> NDArray[np.float64]:
    return np.asarray(np.concatenate([observations, actions], axis=1) @ TRUTH)


def make_segment(rng: np.random.Generator, k: int = K) -> Segment:
    observations, actions = rng.normal(size=(k + 1, 3)), rng.uniform(-1, 1, (k, 1))
    return Segment(observations=observations, actions=actions, true_rewards=true_rewards(observations[:-1], actions))


def cut(segment: Segment, begin: int, end: int) -> Segment:
    observations, actions = np.asarray(segment.observations)[begin : end + 1], np.asarray(segment.actions)[begin:end]
    return Segment(observations=observations, actions=actions, true_rewards=segment.true_rewards[begin:end])


def make_pairs(num: int, seed: int = 0, k: int = K) -> Pairs:
    rng = np.random.default_rng(seed)
    return [(make_segment(rng, k), make_segment(rng, k)) for _ in range(num)]


def oracle(first: float, second: float) -> float:
    return float(first > second)


def inverted(first: float, second: float) -> float:
    return float(first < second)


def coin(seed: int) -> Teacher:
    rng = np.random.default_rng(seed)
    return lambda first, second: float(rng.random() < 0.5)


def answers(pairs: Pairs, teacher: Teacher) -> list[float]:
    return [teacher(a.true_rewards.sum(), b.true_rewards.sum()) for a, b in pairs]


def make_reward(seed: int = 0, **settings: Any) -> RewardEnsemble:
    reward = RewardEnsemble(OBSERVATIONS, ACTIONS, RewardSettings(**settings), seed=seed)
    clips = [segment for pair in make_pairs(50, seed=99) for segment in pair]
    reward.set_input_statistics(*stack_transitions(clips))
    return reward


def make_data(
    reward: RewardEnsemble, pairs: Pairs, preferences: Sequence[float], *, seed: int = 0, **settings: Any
) -> ComparisonData:
    data = ComparisonData(reward, K, capacity=1, **settings)
    data.add(pairs, preferences, np.random.default_rng(seed))
    return data


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fit(
    teacher: Teacher, num: int = 300, seed: int = 0, **settings: Any
) -> tuple[RewardEnsemble, FitReport, ComparisonData]:
    reward, pairs = make_reward(seed), make_pairs(num)
    data = make_data(reward, pairs, answers(pairs, teacher))
    report = Fitter(reward, FitSettings(**settings)).fit(data, generator(seed))
    return reward, report, data


def correlation(reward: RewardEnsemble) -> float:
    """Return the correlation with the true reward on steps that no fit has seen."""
    transitions = stack_transitions([pair[0] for pair in make_pairs(60, seed=1234)])
    observations, actions, _ = transitions
    assert isinstance(observations, np.ndarray)
    return float(np.corrcoef(reward(*transitions), true_rewards(observations, actions))[0, 1])


def weights(reward: RewardEnsemble) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in reward.state_dict().items()}


def through_a_file(state: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


# --- what is learned ---


def test_a_linear_reward_is_recovered_from_300_comparisons() -> None:
    reward, report, _ = fit(oracle)
    assert correlation(reward) > 0.95
    assert all(accuracy is not None and accuracy > 0.85 for accuracy in report.held_out_accuracy)


def test_inverted_answers_give_the_opposite_reward() -> None:
    reward, _, _ = fit(inverted)
    assert correlation(reward) < -0.95


def test_a_coin_teaches_nothing_that_holds_for_what_was_left_out() -> None:
    accuracies, correlations = [], []
    for seed in range(3):
        reward, report, _ = fit(coin(seed), seed=seed)
        accuracies += [accuracy for accuracy in report.held_out_accuracy if accuracy is not None]
        correlations.append(abs(correlation(reward)))
    assert len(accuracies) == 15  # of about 60 comparisons each: a standard deviation of 0.017 of their mean, or more
    assert np.mean(accuracies) == pytest.approx(0.5, abs=0.08)
    assert min(correlations) < 0.5


def test_segments_that_tie_come_to_equal_sums() -> None:
    pairs = make_pairs(100)
    reward = make_reward(num_members=1)
    data = make_data(reward, pairs, [0.5] * 100, held_out=0.0)
    before = reward.segment_returns([a for a, _ in pairs]) - reward.segment_returns([b for _, b in pairs])
    report = Fitter(reward, FitSettings(held_out=0.0, first_steps=200)).fit(data, generator())
    after = reward.segment_returns([a for a, _ in pairs]) - reward.segment_returns([b for _, b in pairs])
    assert np.abs(after).mean() < 0.2 * np.abs(before).mean()
    assert report.train_loss[0] == pytest.approx(math.log(2), abs=1e-2)
    assert report.train_accuracy == [None]  # there is nothing to be right about


def test_with_an_error_rate_no_answer_counts_as_certain() -> None:
    pairs = make_pairs(20)
    losses = {}
    for error_rate in (0.0, 0.1):
        reward = make_reward()
        data = make_data(reward, pairs, answers(pairs, oracle), held_out=0.0)
        settings = FitSettings(held_out=0.0, first_steps=200, learning_rate=1e-2, error_rate=error_rate)
        losses[error_rate] = Fitter(reward, settings).fit(data, generator()).train_loss
    assert all(loss is not None and loss < 1e-2 for loss in losses[0.0])
    assert losses[0.1] == pytest.approx([-math.log(0.95)] * 5, abs=1e-3)  # P' = 0.9 + 0.05 at the most


def test_cropped_segments_are_as_long_as_each_other_and_every_length_and_begin_comes_as_often() -> None:
    source, lengths, begins = torch.Generator().manual_seed(0), [], []
    for _ in range(2000):
        windows = _windows(8, 0.5, source, torch.device("cpu"))(3)
        assert windows.shape == (3, 8) and set(windows.unique().tolist()) <= {0.0, 1.0}
        (length,) = set(windows.sum(1).int().tolist())
        assert all((row.diff() != 0).sum() <= 2 for row in windows), "one piece"
        lengths.append(length)
        begins += [int(row.argmax()) for row in windows if length == 4]
    assert set(lengths) == {4, 5, 6, 7, 8} and set(begins) == {0, 1, 2, 3, 4}
    assert all(chisquare(np.unique(found, return_counts=True)[1]).pvalue > 1e-3 for found in (lengths, begins))


def test_the_likelihood_of_cropped_segments_is_that_of_their_sums_over_what_is_left() -> None:
    pairs = make_pairs(5)
    reward = make_reward()
    data = make_data(reward, pairs, answers(pairs, oracle), held_out=0.0)
    cut_points = CutPoints(reward.num_members, reward.device)
    cut_points.follow(data, reward)
    window = torch.zeros(10, K)
    window[:, 2:5] = 1.0
    found = Examples(reward, data, cut_points).batch(torch.arange(5), 0.0, lambda num: window[:num]).log_likelihood
    short = [[cut(one, 2, 5) for one in pair] for pair in pairs]
    sums = [reward.segment_returns([pair[side] for pair in short]) for side in (0, 1)]
    preferences = torch.tensor(answers(pairs, oracle))
    expected = bradley_terry_log_likelihood(torch.from_numpy(sums[0] - sums[1]), preferences, 0.0)
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-4, atol=1e-5)


def test_a_cropped_fit_learns_and_is_the_same_each_time_and_without_it_nothing_is_drawn() -> None:
    pairs, new = make_pairs(200), make_pairs(300, seed=9)
    fits = []
    for crop in (0.5, 0.5, 0.0):
        reward = make_reward()
        data = make_data(reward, pairs, answers(pairs, oracle))
        Fitter(reward, FitSettings(first_steps=300, crop=crop)).fit(data, generator())
        differences = reward.segment_returns([a for a, _ in new]) - reward.segment_returns([b for _, b in new])
        fits.append(differences.mean(0))
    right = np.array(answers(new, oracle)) == 1.0
    assert ((fits[0] > 0) == right).mean() > 0.85
    np.testing.assert_array_equal(fits[0], fits[1])
    assert np.abs(fits[0] - fits[2]).max() > 1e-3


# --- against a third party ---


@pytest.mark.parametrize("chosen", [{}, {"held_out": 0.0}, {"bootstrap": True}])
def test_linear_members_come_to_the_optimum_of_logistic_regression(chosen: dict[str, Any]) -> None:
    rng = np.random.default_rng(5)
    pairs = make_pairs(300)

    def noisy(first: float, second: float) -> float:
        return float(rng.random() < 1 / (1 + math.exp((second - first) / 4)))

    preferences = answers(pairs, noisy)
    reward = RewardEnsemble(
        OBSERVATIONS, ACTIONS, RewardSettings(clip_inputs=100), factory=lambda: nn.Linear(4, 1, bias=False)
    )
    reward.set_input_statistics(*stack_transitions([a for a, _ in pairs]))
    data = make_data(reward, pairs, preferences, **chosen)
    settings = FitSettings(
        batch_size=300, first_steps=250, learning_rate=5e-2, l2=0, adapt_l2=False, patience=0, **chosen
    )
    Fitter(reward, settings).fit(data, generator())

    def summed(segment: Segment) -> Array:
        vector = reward.features(*segment.transitions()).vector
        assert vector is not None
        return vector.sum(0).numpy()

    differences = np.stack([summed(a) - summed(b) for a, b in pairs]).astype(np.float64)
    (stacked,) = (tensor.reshape(5, 4).numpy() for name, tensor in reward.network.state_dict().items())
    for member in range(5):
        regression = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=1000)
        regression.fit(differences, np.asarray(preferences) > 0.5, sample_weight=data.counts[:, member])
        np.testing.assert_allclose(stacked[member], regression.coef_[0], rtol=1e-2, atol=1e-3)


# --- the report ---


@pytest.mark.parametrize("chosen", [{}, {"bootstrap": True}])
def test_report_holds_weighted_losses_and_accuracies_of_every_member_on_its_own_and_on_held_out_data(
    chosen: dict[str, Any],
) -> None:
    reward, pairs = make_reward(), make_pairs(60)
    preferences = np.array(answers(pairs, oracle))
    preferences[:10] = 0.5
    data = make_data(reward, pairs, preferences.tolist(), **chosen)
    report = Fitter(reward, FitSettings(error_rate=0.1, patience=0, **chosen)).fit(data, generator())
    logits = reward.segment_returns([a for a, _ in pairs]) - reward.segment_returns([b for _, b in pairs])
    losses = -bradley_terry_log_likelihood(torch.from_numpy(logits), torch.from_numpy(preferences), 0.1).numpy()
    right = (logits > 0) == (preferences > 0.5)
    decided = preferences != 0.5
    for member in range(5):
        counts = data.counts[:, member]
        assert report.train_loss[member] == pytest.approx(np.average(losses[member], weights=counts), abs=1e-5)
        assert report.held_out_loss[member] == pytest.approx(losses[member][counts == 0].mean(), abs=1e-5)
        assert report.train_accuracy[member] == pytest.approx(right[member][(counts > 0) & decided].mean(), abs=1e-5)
        held_out = right[member][(counts == 0) & decided]
        assert report.held_out_accuracy[member] == pytest.approx(held_out.mean(), abs=1e-5)
    assert (report.num_comparisons, report.num_steps) == (60, FitSettings().first_steps)


def test_members_without_held_out_comparisons_report_none_and_train_on_everything() -> None:
    reward, pairs = make_reward(), make_pairs(10)
    data = make_data(reward, pairs, answers(pairs, oracle), held_out=0.0)
    report = Fitter(reward).fit(data, generator())
    assert report.held_out_loss == report.held_out_accuracy == [None] * 5
    assert all(loss is not None for loss in report.train_loss)


def test_a_member_whose_bootstrap_left_out_everything_keeps_its_weights() -> None:
    reward, pairs = make_reward(num_members=3), make_pairs(2)
    data = make_data(reward, pairs, answers(pairs, oracle))
    data.counts = np.array([[0, 1, 1], [0, 1, 0]], np.float32)
    before = reward.network.state_dict()["weights.0"].clone()
    report = Fitter(reward, FitSettings(l2=0, adapt_l2=False, patience=0)).fit(data, generator())
    after = reward.network.state_dict()["weights.0"]
    assert torch.equal(after[0], before[0])
    assert not torch.equal(after[1], before[1])
    assert report.train_loss[0] is None
    assert report.held_out_loss[1] is None


def test_losses_do_not_depend_on_which_segment_comes_first() -> None:
    reports = []
    pairs = make_pairs(50)
    for swap in (False, True):
        reward = make_reward()
        given = [pair[::-1] for pair in pairs] if swap else pairs
        data = make_data(reward, given, answers(given, oracle))
        reports.append(Fitter(reward).fit(data, generator()))
    assert reports[0].train_loss == pytest.approx(reports[1].train_loss, abs=1e-3)
    assert reports[0].held_out_accuracy == reports[1].held_out_accuracy


# --- bootstrap ---


def test_every_member_leaves_out_its_own_share_of_one_over_e() -> None:
    reward = make_reward()
    num = 20_000
    data = make_data(reward, make_pairs(1) * num, [1.0] * num, bootstrap=True)
    left_out = data.counts == 0
    deviation = math.sqrt(math.exp(-1) * (1 - math.exp(-1)) / num)
    np.testing.assert_allclose(left_out.mean(0), math.exp(-1), atol=4 * deviation)
    np.testing.assert_allclose(data.counts.mean(0), 1, atol=4 / math.sqrt(num))
    np.testing.assert_allclose(
        (left_out[:, 0] & left_out[:, 1]).mean(), math.exp(-2), atol=4 * deviation
    )  # independent


def test_with_nothing_held_out_every_comparison_counts_once() -> None:
    data = make_data(make_reward(), make_pairs(5), [1.0] * 5, held_out=0.0)
    assert (data.counts == 1).all()


@pytest.mark.parametrize(("members", "share"), [(3, 0.2), (5, 0.2), (10, 0.2), (2, 0.5), (1, 0.1)])
def test_folds_hold_each_answer_out_of_another_member_and_count_the_others_once(members: int, share: float) -> None:
    num = 4000
    reward = make_reward(num_members=members)
    counts = ComparisonData(reward, K, held_out=share).draw_counts(num, np.random.default_rng(0))
    assert set(np.unique(counts)) == {0.0, 1.0}
    np.testing.assert_allclose((counts == 0).mean(0), share, atol=4 * math.sqrt(share * (1 - share) / num))
    missed = (counts == 0).sum(1)
    assert {math.floor(members * share), math.ceil(members * share)} >= set(missed)


def test_folds_are_alike_in_every_group() -> None:
    reward = make_reward(num_members=3, groups=2)
    counts = ComparisonData(reward, K, held_out=0.3).draw_counts(50, np.random.default_rng(0))
    np.testing.assert_array_equal(counts[:, :3], counts[:, 3:])
    assert (counts == 0).any()


def test_what_folds_hold_out_is_not_learned_from_and_is_judged() -> None:
    pairs = make_pairs(200)
    chosen = FitSettings(held_out=0.2, first_steps=300, patience=0)

    def fitted(given: list[float]) -> tuple[FitReport, list[torch.Tensor]]:
        reward = make_reward(num_members=5)
        data = ComparisonData(reward, K, held_out=0.2)
        data.add(pairs, given, np.random.default_rng(0))
        held_out.extend(np.flatnonzero(data.counts[:, 0] == 0))
        report = Fitter(reward, chosen).fit(data, generator())
        return report, [value[0] for value in reward.network.state_dict().values()]

    held_out: list[int] = []
    told = answers(pairs, oracle)
    report, first = fitted(told)
    assert report.num_judged == 200, "each answer is judged by the member that it was held out of"
    assert report.num_agreed > 180 and all(l2 != chosen.l2 for l2 in report.l2)
    other = [1 - value if number in held_out else value for number, value in enumerate(told)]
    # what the first member misses is the other way round: it is the same, but for its l2, which goes by that
    chosen = replace(chosen, adapt_l2=False)
    (_, first), (_, again) = fitted(told), fitted(other)
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"held_out": 0.2, "bootstrap": True}, "leave out --fit.bootstrap or --fit.held-out"),
        ({"held_out": 0.6}, r"held_out must be in \[0, 0.5\]. Received 0.6"),
        ({"held_out": math.nan}, "held_out must be in"),
    ],
)
def test_shares_that_cannot_be_held_out_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        FitSettings(**settings)
    with pytest.raises(UserError, match=told):
        ComparisonData(make_reward(), K, **settings)


def test_data_hold_out_what_settings_say_also_where_these_say_nothing() -> None:
    for held_out, share in ((None, 0.2), (0.0, 0.0), (0.1, 0.1)):
        data, chosen = ComparisonData(make_reward(), K, held_out=held_out), FitSettings(held_out=held_out)
        assert (data.held_out, data.holds_out, chosen.holds_out) == (share, share > 0, share > 0)
    assert ComparisonData(make_reward(), K, bootstrap=True).holds_out and FitSettings(bootstrap=True).holds_out


def test_counts_of_earlier_comparisons_never_change() -> None:
    reward, pairs = make_reward(), make_pairs(20)
    data = make_data(reward, pairs[:10], [1.0] * 10)
    before = data.counts.copy()
    data.add(pairs[10:], [0.0] * 10, np.random.default_rng(7))
    np.testing.assert_array_equal(data.counts[:10], before)
    assert len(data) == len(data.counts) == 20


# --- comparisons on the device ---


def test_segments_are_kept_once_however_often_they_are_compared() -> None:
    (a, b), (c, _) = make_pairs(2)
    data = make_data(make_reward(), [(a, b), (c, a), (b, c), (a, b)], [1.0, 0.0, 1.0, 0.5])
    assert data.items == [(0, 1), (2, 0), (1, 2), (0, 1)]


def test_features_of_segments_are_those_that_the_ensemble_reads() -> None:
    reward, pairs = make_reward(), make_pairs(5)  # more than the capacity of one comparison
    data = make_data(reward, pairs, [1.0] * 5)
    vector = data.features(torch.tensor([9, 0])).vector
    expected = [reward.features(*segment.transitions()).vector for segment in (pairs[4][1], pairs[0][0])]
    assert vector is not None
    assert torch.equal(vector, torch.cat([x for x in expected if x is not None]))


def test_the_share_of_ties_is_of_the_answers_that_stand() -> None:
    reward, pairs = make_reward(), make_pairs(4)
    assert make_data(reward, [], []).share_of_ties() is None
    data = make_data(reward, pairs, [1.0, 0.5, 0.5, 0.0])
    assert data.share_of_ties() == 0.5
    data.remove(1)
    assert data.share_of_ties() == pytest.approx(1 / 3)


def test_what_tells_is_all_but_ties_and_grades_other_than_the_commonest() -> None:
    reward, pairs = make_reward(), make_pairs(3)
    data = make_data(reward, pairs, [1.0, 0.5, 0.0])
    assert data.num_telling() == 2
    first, second, third = (data.encode([segments[0]])[0] for segments in pairs)
    rankings = [Ranking(query_id="", annotator="anna", ranks=ranks) for ranks in ((1, 1, 1), (1, 2, 1))]
    counts = np.ones((2, reward.num_members))
    data.add_answers([(first, second, third)] * 2, rankings, [None, None], counts)
    assert data.num_telling() == 3
    for grades, telling in (((2, 2), 3), ((2, 4), 4), ((4, 4), 6)):  # then 2 2 2 4, then three of each
        ratings = [Rating(query_id="", annotator="anna", rating=grade) for grade in grades]
        data.add_answers([(first,), (second,)], ratings, [5, 5], counts)
        assert data.num_telling() == telling
    assert ComparisonData(reward, K).num_telling() == 0


def test_features_of_segments_follow_the_ensembles_statistics() -> None:
    reward, pairs = make_reward(), make_pairs(5)
    data = make_data(reward, pairs, [1.0] * 5)
    reward.follow_inputs(*stack_transitions([pairs[3][0]]))
    vector, expected = data.features(torch.tensor([2])).vector, reward.features(*pairs[1][0].transitions()).vector
    assert vector is not None and expected is not None
    assert torch.equal(vector, expected)


def test_segments_of_another_length_are_refused() -> None:
    with pytest.raises(UserError, match="segments of 8 steps; got one of 5"):
        make_data(make_reward(), make_pairs(1, k=5), [1.0])


def image_segment(images: Array, *, stacked: int = 0, last: bool = False) -> Segment:
    """Return a segment whose observations are stacks of single images, or the images as they are."""
    if stacked:
        images = np.stack([images[i : i + stacked] for i in range(len(images) - stacked + 1)])
    if last:
        images = np.moveaxis(images, 1, -1)
    k = len(images) - 1
    return Segment(observations=images, actions=np.zeros((k, 1), np.float32), true_rewards=np.zeros(k))


def image_reward(channels: int, last: bool, inputs: str = "s") -> RewardEnsemble:
    shape = (44, 45, channels) if last else (channels, 44, 45)
    return RewardEnsemble(spaces.Box(0, 255, shape, np.uint8), ACTIONS, RewardSettings(inputs=inputs, num_members=1))


def assert_expanded_exactly(data: ComparisonData, segments: list[Segment]) -> None:
    features = data.features(torch.arange(len(segments)))
    expected = data.ensemble.encode(*stack_transitions(segments))
    assert features.images is not None and expected.images is not None
    assert torch.equal(features.images, expected.images)


@pytest.mark.parametrize("last", [False, True])
def test_a_stack_of_four_is_kept_as_single_images_and_expanded_exactly(last: bool) -> None:
    rng, k = np.random.default_rng(0), 25
    segments = [
        image_segment(rng.integers(256, size=(k + 4, 44, 45), dtype=np.uint8), stacked=4, last=last) for _ in range(4)
    ]
    data = ComparisonData(image_reward(4, last), k, capacity=2)
    data.add([(segments[0], segments[1]), (segments[2], segments[3])], [1.0, 0.0], rng)
    assert data.images.stored_shape(0) == (k + 4, 44, 45)  # in place of (k + 1, 4, 44, 45)
    assert data._vector is None
    assert_expanded_exactly(data, segments)


def test_images_of_games_are_held_in_a_fraction_of_their_size() -> None:
    k, images = 25, np.zeros((29, 84, 84), np.uint8)
    for number, image in enumerate(images):  # a ball that flies
        image[10 + number : 14 + number, 2 * number : 2 * number + 3] = 200
    data = ComparisonData(image_reward(4, False), k)
    segments = [image_segment(images, stacked=4), image_segment(images[::-1].copy(), stacked=4)]
    data.add([(segments[0], segments[1])], [1.0], np.random.default_rng(0))
    assert data.images.nbytes < 2 * images.nbytes / 20


@settings(max_examples=30)
@given(
    depth=st.integers(1, 3),
    k=st.integers(1, 4),
    stacked=st.lists(st.sampled_from(["stack", "plain", "black"]), min_size=2, max_size=4),
    last=st.booleans(),
    inputs=st.sampled_from(["s", "ss", "sas"]),
)
def test_images_come_out_as_they_went_in_whatever_they_hold(
    depth: int, k: int, stacked: list[str], last: bool, inputs: str
) -> None:
    rng = np.random.default_rng(0)
    segments = []
    for number, kind in enumerate(stacked):
        if kind == "plain":
            segments.append(image_segment(rng.integers(256, size=(k + 1, depth, 44, 45), dtype=np.uint8), last=last))
        elif kind == "stack":
            images = rng.integers(256, size=(k + depth, 44, 45), dtype=np.uint8)
            segments.append(image_segment(images, stacked=depth, last=last))
        else:  # looks like a stack along any axis
            segments.append(image_segment(np.full((k + 1, depth, 44, 45), number, np.uint8), last=last))
    data = ComparisonData(image_reward(depth, last, inputs), k, capacity=1)
    data.add(list(itertools.pairwise(segments)), [1.0] * (len(segments) - 1), rng)
    assert_expanded_exactly(data, segments)


def test_a_convolutional_ensemble_is_fitted_to_images() -> None:
    rng, k = np.random.default_rng(0), 2
    bright = rng.uniform(0, 1, 24)
    segments = [
        image_segment((rng.integers(60, size=(k + 1, 1, 44, 45)) + 190 * light).astype(np.uint8)) for light in bright
    ]
    reward = image_reward(1, last=False)
    data = ComparisonData(reward, k, held_out=0.0)
    pairs = [(segments[i], segments[i + 1]) for i in range(0, 24, 2)]
    data.add(pairs, [float(bright[i] > bright[i + 1]) for i in range(0, 24, 2)], rng)
    report = Fitter(reward, FitSettings(held_out=0.0, first_steps=40, learning_rate=3e-3)).fit(data, generator())
    assert report.train_accuracy[0] is not None and report.train_accuracy[0] > 0.85
    assert not reward.network.training


# --- adaptive l2 ---


def adapted(l2: float, train: float, held_out: float, **settings: Any) -> float:
    fitter = Fitter(make_reward(num_members=1), FitSettings(l2=l2, **settings))
    fitter._adapt_l2(torch.tensor([train]), torch.tensor([held_out]))
    return float(fitter.l2[0])


@pytest.mark.parametrize(
    ("train", "held_out", "expected"),
    [
        (0.2, 0.4, 1.5e-2),  # overfits: more
        (0.4, 0.3, 1e-2 / 1.5),  # could fit more: less
        (0.5, 0.6, 1e-2),  # between 1.1 and 1.5: stay
        (0.5, math.nan, 1e-2),  # nothing held out: stay
        (math.nan, 0.5, 1e-2),
        (0.0, 0.5, 1.5e-2),
    ],
)
def test_l2_grows_where_a_member_overfits_and_shrinks_where_it_does_not(
    train: float, held_out: float, expected: float
) -> None:
    assert adapted(1e-2, train, held_out) == pytest.approx(expected)


def test_adapted_l2_stays_within_its_bounds() -> None:
    assert adapted(0.09, 0.1, 1.0, max_l2=0.1) == pytest.approx(0.1)
    assert adapted(1e-6, 1.0, 1.0) == pytest.approx(1e-6)


def test_every_member_has_its_own_l2() -> None:
    fitter = Fitter(make_reward(num_members=3), FitSettings(l2=1e-2))
    fitter._adapt_l2(torch.tensor([0.2, 0.4, 0.5]), torch.tensor([0.4, 0.3, 0.6]))
    assert fitter.l2.tolist() == pytest.approx([1.5e-2, 1e-2 / 1.5, 1e-2])


def test_l2_shrinks_weights_apart_from_the_gradient() -> None:
    reward = make_reward(num_members=3)
    data = make_data(reward, make_pairs(4), [1.0] * 4)
    data.counts[:] = 0  # no data, no gradient: only the shrinking is left
    before = [p.detach().clone() for p in reward.network.parameters()]
    fitter = Fitter(reward, FitSettings(first_steps=3, learning_rate=0.1, adapt_l2=False, patience=0))
    fitter.l2 = torch.tensor([0.0, 0.5, 1.0])
    fitter.fit(data, generator())
    shrunk = torch.tensor([1.0, 0.95**3, 0.9**3])
    for old, new in zip(before, reward.network.parameters(), strict=True):
        torch.testing.assert_close(new.detach(), old * shrunk.view(-1, 1, 1))


def test_fitting_noise_for_long_raises_l2() -> None:
    _, report, _ = fit(coin(0), num=60, first_steps=300, learning_rate=5e-3, patience=0)
    assert min(report.l2) > 10 * FitSettings().l2


# --- early stop ---


def test_a_fit_that_gets_worse_stops_and_goes_back_to_the_best() -> None:
    reward, pairs = make_reward(), make_pairs(30)
    data = make_data(reward, pairs, answers(pairs, oracle))
    snapshots: dict[int, list[torch.Tensor]] = {}
    spoilt_from = 2 * Fitter.LEAST_STEPS_PER_CHECK + 1

    def spoil(made: int) -> None:
        snapshots[made] = [p.detach().clone() for p in reward.network.parameters()]
        if made >= spoilt_from:
            with torch.no_grad():
                for parameter in reward.network.parameters():
                    parameter.normal_(std=5.0)

    report = Fitter(reward, FitSettings(patience=2)).fit(data, generator(), on_step=spoil)
    assert report.num_steps == 4 * Fitter.LEAST_STEPS_PER_CHECK  # two checks well, two worse
    for kept, best in zip(reward.network.parameters(), snapshots[spoilt_from - 1], strict=True):
        assert torch.equal(kept, best)


@pytest.mark.parametrize("settings", [{"patience": 0}, {"held_out": 0.0}])
def test_without_patience_or_held_out_data_every_step_is_made(settings: dict[str, Any]) -> None:
    _, report, _ = fit(coin(0), num=30, first_steps=200, **settings)
    assert report.num_steps == 200


def test_the_first_fit_has_its_own_number_of_steps() -> None:
    reward, pairs = make_reward(), make_pairs(30)
    data = make_data(reward, pairs, answers(pairs, oracle))
    fitter = Fitter(reward, FitSettings(first_steps=12, num_steps=7, patience=0))
    steps: list[int] = []
    assert [fitter.fit(data, generator(), steps.append).num_steps for _ in range(3)] == [12, 7, 7]
    assert steps == [*range(1, 13), *range(1, 8), *range(1, 8)]


# --- repeatability ---


def test_the_same_seeds_give_the_same_bits_and_no_global_stream_is_touched() -> None:
    state = torch.get_rng_state()
    first, again, other = fit(oracle, num=60), fit(oracle, num=60), fit(oracle, num=60, seed=1)
    assert weights(first[0]) == weights(again[0]) != weights(other[0])
    assert first[1] == again[1]
    assert torch.equal(torch.get_rng_state(), state)


def test_dropout_of_images_is_repeatable() -> None:
    def fitted() -> dict[str, bytes]:
        torch.rand(1)  # wherever the global stream stands
        rng, reward = np.random.default_rng(0), image_reward(1, last=False)
        segments = [image_segment(rng.integers(256, size=(3, 1, 44, 45), dtype=np.uint8)) for _ in range(4)]
        data = ComparisonData(reward, 2)
        data.add([(segments[0], segments[1]), (segments[2], segments[3])], [1.0, 0.0], rng)
        Fitter(reward, FitSettings(first_steps=4)).fit(data, generator())
        return weights(reward)

    assert fitted() == fitted()


def test_a_fitter_restored_between_two_fits_goes_on_bit_for_bit() -> None:
    pairs = make_pairs(80)
    preferences = answers(pairs, coin(0))  # moves l2

    def data_of(reward: RewardEnsemble, num: int) -> ComparisonData:
        return make_data(reward, pairs[:num], preferences[:num])

    reward = make_reward()
    fitter = Fitter(reward)
    fitter.fit(data_of(reward, 40), generator(0))
    kept = through_a_file({"fitter": fitter.state(), "reward": reward.state_dict()})
    report = fitter.fit(data_of(reward, 80), generator(1))

    other = make_reward(seed=5)
    other.load_state_dict(kept["reward"])
    resumed = Fitter(other)
    resumed.restore(kept["fitter"])
    assert resumed.fit(data_of(other, 80), generator(1)) == report
    assert weights(other) == weights(reward)


def test_a_fit_goes_on_from_where_the_reward_is() -> None:
    reward, pairs = make_reward(), make_pairs(100)
    data = make_data(reward, pairs, answers(pairs, oracle), held_out=0.0)
    fitter = Fitter(reward, FitSettings(held_out=0.0, first_steps=30, num_steps=30))
    losses = [fitter.fit(data, generator(number)).train_loss[0] for number in range(4)]
    assert losses == sorted(losses, reverse=True)


# --- errors ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be positive and finite. Received 0.0"),
        ({"batch_size": 0}, "batch_size must be positive"),
        ({"num_steps": -1}, "num_steps must be positive"),
        ({"first_steps": 0}, "first_steps must be positive"),
        ({"max_l2": 0.0}, "max_l2 must be positive"),
        ({"l2": -1e-4}, "l2 must not be negative"),
        ({"l2": 2.0}, "l2 must not exceed max_l2"),
        ({"patience": -1}, "patience must not be negative"),
        ({"crop": 1.0}, r"crop must be in \[0, 1\). Received 1.0"),
        ({"error_rate": 1.0}, r"error_rate must be in \[0, 1\). Received 1.0"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        FitSettings(**settings)


def test_fitting_to_nothing_is_refused() -> None:
    reward = make_reward()
    with pytest.raises(UserError, match="no comparison"):
        Fitter(reward).fit(ComparisonData(reward, K), generator())

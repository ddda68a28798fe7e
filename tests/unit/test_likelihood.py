"""Likelihoods: by hand, by enumeration, at any magnitude, and against choix."""

from __future__ import annotations

import itertools
import math

import choix
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from prefrl.errors import UserError
from prefrl.likelihood import (
    bradley_terry_log_likelihood,
    choices,
    plackett_luce_log_likelihood,
    ranking_log_likelihood,
    rating_log_likelihood,
)

ERROR_RATES = (0.0, 0.1)
moderate = st.floats(-20, 20, width=32)


def value_and_gradient(function: str, inputs: list[float], *args: float) -> tuple[float, list[float]]:
    leaf = torch.tensor(inputs, requires_grad=True)
    if function == "pair":
        value = bradley_terry_log_likelihood(leaf[0] - leaf[1], torch.tensor(args[0]), *args[1:])
    else:
        value = plackett_luce_log_likelihood(leaf, *args)
    value.backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    return value.item(), leaf.grad.tolist()


def test_pair_by_hand() -> None:
    # R(1) - R(2) = log 3, so P[1 > 2] = 3 / (3 + 1)
    logits = torch.full((3,), math.log(3.0))
    found = bradley_terry_log_likelihood(logits, torch.tensor([1.0, 0.0, 0.5]))
    expected = [math.log(3 / 4), math.log(1 / 4), (math.log(3 / 4) + math.log(1 / 4)) / 2]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_ranking_by_hand() -> None:
    # weights 4, 2, 1: the first is chosen from all three, the second from the two that are left
    scores = torch.tensor([4.0, 2.0, 1.0]).log()
    torch.testing.assert_close(plackett_luce_log_likelihood(scores).exp(), torch.tensor(4 / 7 * 2 / 3))
    torch.testing.assert_close(plackett_luce_log_likelihood(scores.flip(0)).exp(), torch.tensor(1 / 7 * 2 / 6))


def test_pair_with_errors_is_nine_tenths_of_the_model_plus_a_twentieth() -> None:
    logits = torch.linspace(-8, 8, 33)
    plain = bradley_terry_log_likelihood(logits, torch.ones(33)).exp()
    mixed = bradley_terry_log_likelihood(logits, torch.ones(33), 0.1).exp()
    torch.testing.assert_close(mixed, 0.9 * plain + 0.05)


def test_ranking_of_two_with_errors_is_nine_tenths_of_the_model_plus_a_twentieth() -> None:
    scores = torch.stack([torch.linspace(-8, 8, 33), torch.zeros(33)], dim=-1)
    mixed = plackett_luce_log_likelihood(scores, 0.1).exp()
    torch.testing.assert_close(mixed, 0.9 * plackett_luce_log_likelihood(scores).exp() + 0.05)


def test_ranking_with_errors_spreads_them_over_all_orders() -> None:
    scores = torch.tensor([0.3, -1.0, 2.0])
    mixed = plackett_luce_log_likelihood(scores, 0.3).exp()
    torch.testing.assert_close(mixed, 0.7 * plackett_luce_log_likelihood(scores).exp() + 0.3 / 6)


@given(st.lists(moderate, min_size=2, max_size=5), st.sampled_from(ERROR_RATES))
def test_probabilities_of_all_orders_sum_to_one(scores: list[float], error_rate: float) -> None:
    orders = torch.tensor(list(itertools.permutations(scores)), dtype=torch.float64)
    total = plackett_luce_log_likelihood(orders, error_rate).exp().sum().item()
    assert total == pytest.approx(1.0, abs=1e-9)


@given(moderate, moderate, st.sampled_from(ERROR_RATES))
def test_a_ranking_of_two_is_a_pair(first: float, second: float, error_rate: float) -> None:
    ranked, ranked_gradient = value_and_gradient("ranking", [first, second], error_rate)
    paired, paired_gradient = value_and_gradient("pair", [first, second], 1.0, error_rate)
    assert ranked == pytest.approx(paired, rel=1e-5, abs=1e-6)
    assert ranked_gradient == pytest.approx(paired_gradient, rel=1e-4, abs=1e-6)


@given(moderate, st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from(ERROR_RATES))
def test_swapping_the_sides_and_the_answer_changes_nothing(logit: float, preference: float, error_rate: float) -> None:
    one = bradley_terry_log_likelihood(torch.tensor(logit), torch.tensor(preference), error_rate)
    other = bradley_terry_log_likelihood(torch.tensor(-logit), torch.tensor(1 - preference), error_rate)
    assert one.item() == pytest.approx(other.item(), rel=1e-6)


@pytest.mark.parametrize("error_rate", ERROR_RATES)
@pytest.mark.parametrize("preference", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("logit", [1e6, -1e6, 1e30, -1e30])
def test_pair_is_finite_with_the_right_gradient_at_any_magnitude(
    logit: float, preference: float, error_rate: float
) -> None:
    value, gradient = value_and_gradient("pair", [logit, 0.0], preference, error_rate)
    assert math.isfinite(value)
    if error_rate == 0:
        # d/dx [p log sigmoid(x) + (1 - p) log sigmoid(-x)] = p - sigmoid(x)
        assert gradient[0] == pytest.approx(preference - (logit > 0))
        assert value == pytest.approx(-abs(logit) * abs(preference - (logit > 0)), rel=1e-6)
    else:  # an answer against certainty is an error, whose likelihood does not depend on the rewards
        assert gradient[0] == 0.0
        right, wrong = math.log(0.95), math.log(0.05)
        share = preference if logit > 0 else 1 - preference
        assert value == pytest.approx(share * right + (1 - share) * wrong, rel=1e-5)


@pytest.mark.parametrize("error_rate", ERROR_RATES)
@pytest.mark.parametrize("offset", [0.0, 1e6, -1e6])
def test_ranking_depends_on_differences_alone_also_of_huge_scores(offset: float, error_rate: float) -> None:
    plain = value_and_gradient("ranking", [0.0, 1.0, 2.0], error_rate)
    moved = value_and_gradient("ranking", [offset, offset + 1, offset + 2], error_rate)
    assert moved[0] == pytest.approx(plain[0], rel=1e-6)
    assert moved[1] == pytest.approx(plain[1], rel=1e-5)


@pytest.mark.parametrize("error_rate", ERROR_RATES)
@pytest.mark.parametrize("scores", [[1e6, 0.0, -1e6], [-1e6, 0.0, 1e6], [1e6, 1e6, -1e6], [0.0, 1e6, 1e6, -1e6]])
def test_ranking_is_finite_with_finite_gradients_at_any_magnitude(scores: list[float], error_rate: float) -> None:
    value, gradient = value_and_gradient("ranking", scores, error_rate)
    assert math.isfinite(value)
    assert value <= 0
    assert all(math.isfinite(g) for g in gradient)
    assert sum(gradient) == pytest.approx(0.0, abs=1e-5)  # an offset of all scores changes nothing


def test_ranking_against_certainty_pulls_with_full_weight() -> None:
    value, gradient = value_and_gradient("ranking", [-1e6, 0.0, 1e6])
    assert value == pytest.approx(-3e6)
    assert gradient == pytest.approx([1.0, 1.0, -2.0])


@pytest.mark.parametrize("error_rate", ERROR_RATES)
def test_gradients_agree_with_finite_differences(error_rate: float) -> None:
    logits = torch.randn(7, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    preferences = torch.tensor([0, 0.5, 1, 1, 0, 0.5, 1], dtype=torch.float64)
    scores = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: bradley_terry_log_likelihood(x, preferences, error_rate), logits)
    assert torch.autograd.gradcheck(lambda x: plackett_luce_log_likelihood(x, error_rate), scores)


def test_batches_of_any_shape() -> None:
    scores = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    batched = plackett_luce_log_likelihood(scores, 0.1)
    assert batched.shape == (2, 3)
    torch.testing.assert_close(batched[1, 2], plackett_luce_log_likelihood(scores[1, 2], 0.1))
    assert bradley_terry_log_likelihood(scores, torch.full((4,), 0.5)).shape == (2, 3, 4)


@pytest.mark.parametrize("error_rate", [-0.1, 1.0, math.nan])
def test_an_error_rate_outside_its_range_is_refused(error_rate: float) -> None:
    with pytest.raises(UserError, match=r"error_rate must be in \[0, 1\)"):
        bradley_terry_log_likelihood(torch.zeros(1), torch.ones(1), error_rate)
    with pytest.raises(UserError, match=r"error_rate must be in \[0, 1\)"):
        plackett_luce_log_likelihood(torch.zeros(2), error_rate)


def test_a_ranking_of_one_is_refused() -> None:
    with pytest.raises(UserError, match="at least 2 scores"):
        plackett_luce_log_likelihood(torch.zeros(3, 1))


def maximise(log_likelihood: object, num_items: int) -> np.ndarray:
    """Return the scores `(num_items,)` of highest likelihood, of mean 0."""
    scores = torch.zeros(num_items, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [scores], max_iter=500, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = -log_likelihood(scores).sum()  # type: ignore[operator]
        loss.backward()
        return loss

    optimizer.step(closure)
    return (scores - scores.mean()).detach().numpy()


def test_maximum_likelihood_of_pairs_agrees_with_choix() -> None:
    rng = np.random.default_rng(0)
    strength = rng.normal(size=6)
    pairs = [tuple(rng.choice(6, 2, replace=False).tolist()) for _ in range(400)]
    won = [(a, b) if rng.random() < 1 / (1 + np.exp(strength[b] - strength[a])) else (b, a) for a, b in pairs]
    winners, losers = torch.tensor(won).T
    ours = maximise(lambda s: bradley_terry_log_likelihood(s[winners] - s[losers], torch.ones(400)), 6)
    np.testing.assert_allclose(ours, choix.opt_pairwise(6, won, tol=1e-12), atol=1e-4)
    at = torch.tensor(ours)
    value = bradley_terry_log_likelihood(at[winners] - at[losers], torch.ones(400)).sum().item()
    assert value == pytest.approx(choix.log_likelihood_pairwise(won, ours))


@pytest.mark.slow
def test_maximum_likelihood_of_rankings_agrees_with_choix() -> None:
    rng = np.random.default_rng(1)
    strength = rng.normal(size=6)
    rankings = []
    for _ in range(60):
        items = rng.choice(6, 4, replace=False)
        rankings.append(items[np.argsort(-(strength[items] + rng.gumbel(size=4)))].tolist())
    index = torch.tensor(rankings)
    ours = maximise(lambda s: plackett_luce_log_likelihood(s[index]), 6)
    np.testing.assert_allclose(ours, choix.opt_rankings(6, rankings, method="BFGS", tol=1e-8), atol=1e-4)
    value = plackett_luce_log_likelihood(torch.tensor(ours)[index]).sum().item()
    assert value == pytest.approx(choix.log_likelihood_rankings(rankings, ours))


# rankings with ties


def ranked(scores: Tensor, ranks: list[int], error_rate: float = 0.0) -> Tensor:
    left, chosen = choices(ranks)
    return ranking_log_likelihood(scores, left, chosen.to(scores.dtype), error_rate)


@given(st.lists(st.tuples(moderate, st.integers(1, 4)), min_size=2, max_size=6))
def test_a_ranking_with_ties_is_the_mean_over_all_orders_that_they_allow(items: list[tuple[float, int]]) -> None:
    scores = torch.tensor([score for score, _ in items], dtype=torch.float64)
    places = sorted({rank for _, rank in items})
    ranks = [1 + places.index(rank) for _, rank in items]
    allowed = [
        order for order in itertools.permutations(range(len(items))) if [ranks[item] for item in order] == sorted(ranks)
    ]
    expected = torch.stack([plackett_luce_log_likelihood(scores[list(order)]) for order in allowed]).mean()
    torch.testing.assert_close(ranked(scores, ranks), expected)


def test_a_tie_of_two_is_the_label_of_one_half_each() -> None:
    scores = torch.tensor([1.5, -0.25])
    pair = bradley_terry_log_likelihood(scores[0] - scores[1], torch.tensor(0.5))
    torch.testing.assert_close(ranked(scores, [1, 1]), pair)


@pytest.mark.parametrize("error_rate", ERROR_RATES)
def test_a_ranking_without_ties_is_plackett_luce(error_rate: float) -> None:
    scores = torch.tensor([0.3, -2.0, 1.0, 0.5])
    expected = plackett_luce_log_likelihood(scores[[2, 0, 1, 3]], error_rate)
    torch.testing.assert_close(ranked(scores, [2, 3, 1, 4], error_rate), expected)


def test_rankings_of_different_size_and_ties_fit_in_one_batch() -> None:
    cases = [([1, 2, 2, 3], torch.tensor([0.5, 1.0, -1.0, 3.0])), ([2, 1, 3], torch.tensor([1.0, 4.0, -2.0]))]
    left, chosen = torch.zeros(2, 5, 6, dtype=torch.bool), torch.zeros(2, 5, 6)
    scores = torch.full((2, 6), 1e6)  # where there is no item, anything may stand
    for row, (ranks, values) in enumerate(cases):
        sets, weights = choices(ranks)
        left[row, : len(sets), : len(ranks)], chosen[row, : len(sets), : len(ranks)] = sets, weights.float()
        scores[row, : len(ranks)] = values
    scores.requires_grad_()
    for error_rate in (*ERROR_RATES, torch.tensor([0.2, 0.0001])):
        found = ranking_log_likelihood(scores, left, chosen, error_rate)
        for row, (ranks, values) in enumerate(cases):
            rate = float(error_rate[row]) if isinstance(error_rate, Tensor) else error_rate
            torch.testing.assert_close(found[row], ranked(values, ranks, rate))
        (gradient,) = torch.autograd.grad(found.sum(), scores)
        assert gradient.isfinite().all() and (gradient[0, 4:] == 0).all() and (gradient[1, 3:] == 0).all()


def test_a_ranking_with_ties_keeps_its_precision_under_a_common_offset() -> None:
    scores = torch.tensor([1.0, 0.25, 0.25, -3.0])
    torch.testing.assert_close(ranked(scores + 2.0**20, [1, 2, 2, 3]), ranked(scores, [1, 2, 2, 3]))
    assert ranked(torch.tensor([0.0, 1e30, 1e30]), [1, 2, 2]).isfinite()


# ratings


def test_rating_by_hand() -> None:
    # sigmoid(R - t) at cut points log 1 and log 3 and R = 0: 1/2 and 1/4 are above them
    cuts = torch.tensor([0.0, math.log(3.0)])
    found = rating_log_likelihood(torch.zeros(3), torch.tensor([1, 2, 3]), cuts)
    torch.testing.assert_close(found.exp(), torch.tensor([1 / 2, 1 / 4, 1 / 4]))


def test_a_rating_of_two_grades_is_a_comparison_with_the_cut_point() -> None:
    returns = torch.linspace(-9, 9, 19)
    for grade, preference in ((2, 1.0), (1, 0.0)):
        found = rating_log_likelihood(returns, torch.full((19,), grade), torch.tensor([0.75]))
        torch.testing.assert_close(found, bradley_terry_log_likelihood(returns - 0.75, torch.full((19,), preference)))


@given(moderate, st.lists(st.floats(0.015625, 8, width=32), min_size=1, max_size=8), st.sampled_from(ERROR_RATES))
def test_probabilities_of_all_grades_sum_to_one(score: float, gaps: list[float], error_rate: float) -> None:
    cuts = torch.tensor(gaps, dtype=torch.float64).cumsum(0) - 10
    grades = torch.arange(1, len(cuts) + 2)
    returns = torch.full(grades.shape, score, dtype=torch.float64)
    padded = torch.cat([cuts, torch.tensor([math.inf, math.inf])])
    for points in (cuts, padded):
        total = rating_log_likelihood(returns, grades, points, error_rate).exp().sum()
        torch.testing.assert_close(total, torch.ones((), dtype=torch.float64))


def test_ratings_are_finite_with_the_right_gradient_at_any_magnitude() -> None:
    cuts = torch.tensor([-1.0, 1.0, math.inf], requires_grad=True)
    for score in (-1e30, -100.0, 0.0, 100.0, 1e30):
        for grade in (1, 2, 3):
            returns = torch.tensor([score], requires_grad=True)
            found = rating_log_likelihood(returns, torch.tensor([grade]), cuts)
            gradients = torch.autograd.grad(found.sum(), [returns, cuts])
            assert found.isfinite().all() and all(g.isfinite().all() for g in gradients)
    assert torch.autograd.gradcheck(
        lambda r, t: rating_log_likelihood(r, torch.tensor([1, 2, 3, 4]), t, 0.1),
        (
            torch.tensor([0.1, 2.0, -1.0, 0.4], dtype=torch.float64, requires_grad=True),
            torch.tensor([-1.0, 0.5, 0.6], dtype=torch.float64, requires_grad=True),
        ),
    )


def test_maximum_likelihood_of_ratings_agrees_with_statistics_of_the_grades() -> None:
    # with one common return of 0, the cut points are the log-odds of the cumulative shares
    grades = torch.tensor([1] * 20 + [2] * 50 + [3] * 30)
    cuts = torch.tensor([-0.5, 0.5], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([cuts], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = -rating_log_likelihood(torch.zeros(100, dtype=torch.float64), grades, cuts).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    expected = torch.logit(torch.tensor([0.2, 0.7], dtype=torch.float64))
    torch.testing.assert_close(cuts.detach(), expected, atol=1e-4, rtol=0)

"""Linear rewards from rankings, held against closed forms, finite differences and other libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import chi2

from prefrl.errors import UserError
from prefrl.theory.convergence import fit_pairs_with_errors
from prefrl.theory.linear import (
    Ellipsoid,
    difference_covariance,
    fit_rankings,
    fit_split,
    radius,
    sample_rankings,
    split_into_pairs,
)

THETA = np.array([1.0, -0.5, 0.3])


def ranked(n: int, k: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return sample_rankings(rng.normal(size=(n, k, 3)), THETA, rng)


def test_the_estimate_from_one_dimension_is_the_logit() -> None:
    won, lost = 30, 10
    pairs = np.array([[[1.0], [0.0]], [[0.0], [1.0]]])
    fitted = fit_rankings(pairs, counts=np.array([won, lost], dtype=float))
    assert fitted.theta[0] == pytest.approx(math.log(won / lost))
    share = won / (won + lost)
    assert fitted.covariance[0, 0] == pytest.approx(1 / ((won + lost) * share * (1 - share)))
    assert fitted.log_likelihood == pytest.approx(won * math.log(share) + lost * math.log(1 - share))


def test_pairs_are_logistic_regression_as_scikit_learn_fits_it() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    pairs = ranked(300, 2)
    signs = np.where(np.arange(300) % 2, 1.0, -1.0)
    differences = (pairs[:, 0] - pairs[:, 1]) * signs[:, None]
    model = linear_model.LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-12, max_iter=1000)
    assert fit_rankings(pairs).theta == pytest.approx(model.fit(differences, signs > 0).coef_[0], abs=1e-6)


def test_rankings_of_numbered_items_are_those_of_choix() -> None:
    choix = pytest.importorskip("choix")
    rng = np.random.default_rng(0)
    orders = [rng.permutation(4) for _ in range(60)]
    ours = fit_rankings(np.eye(4)[np.stack(orders)], ridge=0.2).theta
    theirs = choix.opt_rankings(4, [tuple(order) for order in orders], alpha=0.1)  # its penalty is alpha |theta|^2
    assert ours - ours.mean() == pytest.approx(theirs - theirs.mean(), abs=1e-5)


@given(k=st.integers(2, 6), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_at_the_optimum_no_direction_helps(k: int, seed: int) -> None:
    answers = ranked(200, k, seed)
    fitted = fit_rankings(answers)

    def log_likelihood(theta: np.ndarray) -> float:
        scores = answers @ theta
        return float(sum((scores[:, i] - np.log(np.exp(scores[:, i:]).sum(1))).sum() for i in range(k - 1)))

    best = log_likelihood(fitted.theta)
    assert fitted.log_likelihood == pytest.approx(best)
    for direction in np.vstack([np.eye(3), -np.eye(3)]):
        assert log_likelihood(fitted.theta + 0.01 * direction) < best


def test_drawn_rankings_have_the_probabilities_of_plackett_luce() -> None:
    rng = np.random.default_rng(0)
    items = np.array([[1.0], [0.0], [-1.0]])
    drawn = sample_rankings(np.repeat(items[None], 40_000, axis=0), np.array([0.8]), rng)
    weights = np.exp(0.8 * items[:, 0])
    expected = weights[0] / weights.sum() * weights[1] / weights[1:].sum()
    share = np.mean((drawn[:, 0, 0] == 1.0) & (drawn[:, 1, 0] == 0.0))
    assert share == pytest.approx(expected, abs=0.01)


def test_the_ellipsoid_of_the_information_holds_the_truth_as_often_as_it_says() -> None:
    reach = math.sqrt(chi2.ppf(0.9, 3))
    inside = 0
    for seed in range(200):
        fitted = fit_rankings(ranked(300, 3, seed))
        inside += Ellipsoid(centre=fitted.theta, matrix=np.linalg.inv(fitted.covariance), radius=reach).contains(THETA)
    assert 0.84 < inside / 200 < 0.96


def test_values_within_an_ellipsoid_by_hand() -> None:
    ball = Ellipsoid(centre=np.array([1.0, 0.0]), matrix=np.diag([4.0, 1.0]), radius=2.0)
    items = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert ball.pessimistic_values(items) == pytest.approx([0.0, -2.0])  # 1 - 2 / 2 and 0 - 2 / 1
    assert ball.optimistic_values(items) == pytest.approx([2.0, 2.0])
    assert ball.contains(np.array([2.0, 0.0]))
    assert not ball.contains(np.array([2.1, 0.0]))


def test_the_radius_of_the_lemma_by_hand() -> None:
    gamma = 1 / (2 + math.exp(-1) + math.exp(1))
    expected = math.sqrt((3 + math.log(10)) / (gamma**2 * 100) + 0.5 * 1.0)
    assert radius(100, 3, max_norm=1.0, max_feature=1.0, ridge=0.5, miss=0.1) == pytest.approx(expected)


def test_split_rankings_cost_what_the_sandwich_says() -> None:
    errors = []
    for seed in range(150):
        answers = ranked(100, 5, seed)
        errors.append([((fitted(answers).theta - THETA) ** 2).sum() for fitted in (fit_rankings, fit_split)])
    whole, split = np.mean(errors, axis=0)
    many = ranked(20_000, 5, 999)
    assert whole == pytest.approx(np.trace(fit_rankings(many).covariance) * 200, rel=0.2)
    assert split == pytest.approx(np.trace(fit_split(many).covariance) * 200, rel=0.2)
    assert split > whole


def test_the_covariance_of_differences_is_over_all_pairs() -> None:
    features = np.array([[[0.0], [1.0], [3.0]]])
    assert difference_covariance(features)[0, 0] == pytest.approx((1 + 9 + 4) / 3)
    assert split_into_pairs(features)[:, :, 0].tolist() == [[0, 1], [0, 3], [1, 3]]


def test_without_a_finite_estimate_it_is_said_or_held_to_the_ball() -> None:
    pairs = np.array([[[1.0, 0.0], [0.0, 0.0]]] * 3 + [[[0.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]])
    with pytest.raises(UserError, match="max_norm"):
        fit_rankings(pairs)
    held = fit_rankings(pairs, max_norm=2.0)
    assert held.at_bound
    assert held.theta == pytest.approx([2.0, 0.0], abs=1e-5)
    assert fit_rankings(pairs, ridge=0.1).theta[1] == pytest.approx(0.0, abs=1e-9)
    inside = fit_rankings(ranked(100, 3), max_norm=100.0)
    assert not inside.at_bound
    assert inside.theta == pytest.approx(fit_rankings(ranked(100, 3)).theta)


def test_a_known_share_of_random_answers_is_allowed_for() -> None:
    rng = np.random.default_rng(0)
    answers = sample_rankings(rng.normal(size=(20_000, 2, 3)), 2 * THETA, rng)
    wrong = rng.random(len(answers)) < 0.1
    answers[wrong] = answers[wrong][:, ::-1]
    assert fit_pairs_with_errors(answers, 0.2) == pytest.approx(2 * THETA, abs=0.1)
    assert np.linalg.norm(fit_rankings(answers).theta) < 0.8 * np.linalg.norm(2 * THETA)
    differences = answers[:50, 0] - answers[:50, 1]
    assert 0.5 < expit(differences @ THETA).mean() < 1


@pytest.mark.parametrize(
    "bad", [np.zeros((0, 2, 3)), np.zeros((4, 1, 3)), np.zeros((4, 3)), np.full((1, 2, 1), np.nan)]
)
def test_what_is_no_ranking_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"Rankings are given by|must be finite"):
        fit_rankings(bad)
    with pytest.raises(UserError, match="counts"):
        fit_rankings(ranked(3, 2), counts=np.array([1.0, 0.0, 2.0]))

"""Linear rewards from rankings: the maximum-likelihood estimate, its covariance, and what may safely be made of it.

The reward of an item with features phi is theta . phi. Pairs are answered by Bradley-Terry-Luce, rankings of K by
Plackett-Luce, of which K = 2 is Bradley-Terry-Luce. Zhu, Jordan and Jiao 2023 ("Principled reinforcement learning with
human feedback from pairwise or K-wise comparisons") give the estimates, the covariance of feature differences and the
pessimistic value; the optimistic one is its mirror image. The log-likelihood is concave, so Newton's method finds the
one optimum; everything is float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefrl.errors import UserError, require

Floats = NDArray[np.floating[Any]]

_ENOUGH = 1e-9  # of the gradient per answer
_MOST_STEPS = 200
_BEYOND_DOUBT = 10.0  # difference of rewards in nats


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A maximum-likelihood estimate of a linear reward."""

    theta: Floats
    """`(d,)` float64."""
    covariance: Floats
    """`(d, d)` float64: of `theta`, as far as n is large."""
    log_likelihood: float
    """Of all answers, in nats."""
    at_bound: bool
    """The estimate lies on the border of the ball to which it was held: the answers alone would send it further."""


def sample_rankings(features: Floats, theta: Floats, rng: np.random.Generator) -> Floats:
    """Let an annotator rank items whose reward is linear.

    The order of scores with Gumbel noise is Plackett-Luce's (Yellott 1977), for K = 2 Bradley-Terry-Luce's.

    Args:
        features: `(n, K, d)` float, K >= 2.
        theta: `(d,)` float, or `(n, d)`: one for each answer.
        rng: of the annotator.

    Returns:
        `(n, K, d)` float64: the same items, the best first.
    """
    scores = np.einsum("nkd,...d->nk", features, theta) if theta.ndim == 1 else np.einsum("nkd,nd->nk", features, theta)
    order = np.argsort(-(scores + rng.gumbel(size=scores.shape)), axis=1)
    return np.take_along_axis(features, order[:, :, None], axis=1)


def fit_rankings(
    ranked: Floats, *, counts: Floats | None = None, max_norm: float = math.inf, ridge: float = 0.0,
    start: Floats | None = None,
) -> Fit:  # fmt: skip
    """Estimate a linear reward by the likelihood of whole rankings (Zhu et al. 2023, Eq. 6; for K = 2, Eq. 1).

    Args:
        ranked: `(n, K, d)` float: features of the items of each answer, the best first.
        counts: `(n,)` float, positive: how often each answer was given, or how much it weighs; default: once.
        max_norm: the estimate is held to this ball, as the theory asks for; without it answers that a reward can follow
            without exception have no finite estimate.
        ridge: weight of |theta|^2 / 2 that is subtracted from the log-likelihood.
        start: `(d,)` float, where the search begins; the optimum is the same.

    Raises:
        UserError: no answers, fewer than two items, or without `max_norm` and `ridge` no finite estimate.
    """
    ranked = _checked(ranked)
    counts = np.ones(len(ranked)) if counts is None else np.asarray(counts, dtype=np.float64)
    if counts.shape != (len(ranked),) or not (counts > 0).all():
        raise UserError(f"Expected {len(ranked)} positive counts, one an answer. Received shape {counts.shape}")
    theta, at_bound = _held_to(ranked, counts, max_norm, ridge, start)
    value, _, information = _derivatives(ranked, counts, theta)
    information += ridge * np.eye(len(theta))
    return Fit(theta=theta, covariance=np.linalg.pinv(information), log_likelihood=value, at_bound=at_bound)


def fit_split(ranked: Floats, *, max_norm: float = math.inf) -> Fit:
    """Estimate a linear reward from rankings cut into pairs, each an answer of its own (Zhu et al. 2023, Eq. 7).

    The pairs of a ranking are not independent, so the estimate, though consistent, has a larger variance than that of
    `fit_rankings`; its covariance here is the sandwich over rankings (White 1982), `log_likelihood` that of the pairs.

    Args:
        ranked: `(n, K, d)` float, the best first.
        max_norm: the estimate is held to this ball.

    Raises:
        UserError: as `fit_rankings`.
    """
    ranked = _checked(ranked)
    pairs = split_into_pairs(ranked)
    counts = np.ones(len(pairs))
    theta, at_bound = _held_to(pairs, counts, max_norm, 0.0, None)
    value, _, bread = _derivatives(pairs, counts, theta)
    differences = (pairs[:, 0] - pairs[:, 1]).reshape(len(ranked), -1, ranked.shape[2])
    losing = 1.0 / (1.0 + np.exp(differences @ theta))
    scores = np.einsum("np,npd->nd", losing, differences)  # of each ranking
    inverse = np.linalg.pinv(bread)
    covariance = inverse @ (scores.T @ scores) @ inverse
    return Fit(theta=theta, covariance=covariance, log_likelihood=value, at_bound=at_bound)


def split_into_pairs(ranked: Floats) -> Floats:
    """Return the K (K - 1) / 2 pairs of each ranking, `(n K (K - 1) / 2, 2, d)`, the better first."""
    better, worse = np.triu_indices(ranked.shape[1], k=1)
    return np.stack([ranked[:, better], ranked[:, worse]], axis=2).reshape(-1, 2, ranked.shape[2])


def difference_covariance(features: Floats) -> Floats:
    """Return Sigma_D: 2 / (n K (K - 1)) sum over answers and pairs of the outer product of their difference.

    Zhu et al. 2023, Lemma 5.1; for pairs Lemma 3.1.

    Args:
        features: `(n, K, d)` float.

    Returns:
        `(d, d)` float64.
    """
    pairs = split_into_pairs(_checked(features))
    differences = pairs[:, 0] - pairs[:, 1]
    covariance: Floats = differences.T @ differences / len(differences)
    return covariance


@dataclass(frozen=True, kw_only=True)
class Ellipsoid:
    """Rewards that the answers leave possible: |theta - centre| <= radius in the norm of `matrix`.

    Args:
        centre: `(d,)` float.
        matrix: `(d, d)` float, positive definite: Sigma_D + lambda I of Zhu et al. 2023, or an inverse covariance.
        radius: in that norm.
    """

    centre: Floats
    matrix: Floats
    radius: float

    def contains(self, theta: Floats) -> bool:
        """Tell whether a reward is among them."""
        off = theta - self.centre
        return bool(off @ self.matrix @ off <= self.radius**2)

    def widths(self, features: Floats) -> Floats:
        """Return how far the value of each item may lie from its estimate.

        Args:
            features: `(A, d)` float, less those of a reference v where values are measured from one.

        Returns:
            `(A,)` float64: radius times the norm of the features in the inverse of `matrix`.
        """
        solved = np.linalg.solve(self.matrix, features.T)
        widths: Floats = self.radius * np.sqrt(np.maximum(np.einsum("ad,da->a", features, solved), 0.0))
        return widths

    def pessimistic_values(self, features: Floats) -> Floats:
        """Return the least value of each item that is possible (Zhu et al. 2023, Eq. 5)."""
        values: Floats = features @ self.centre - self.widths(features)
        return values

    def optimistic_values(self, features: Floats) -> Floats:
        """Return the greatest value of each item that is possible."""
        values: Floats = features @ self.centre + self.widths(features)
        return values


def radius(num_answers: int, dim: int, *, max_norm: float, max_feature: float, ridge: float, miss: float) -> float:
    """Return the radius of an ellipsoid about the estimate that holds the true reward (Zhu et al. 2023, Lemma 3.1).

    sqrt((d + log(1 / miss)) / (gamma^2 n) + ridge B^2), gamma = 1 / (2 + exp(-L B) + exp(L B)). The lemma leaves a
    constant before it open; here it is 1.

    Args:
        num_answers: n.
        dim: d.
        max_norm: B, of the reward.
        max_feature: L, of the features of an item.
        ridge: lambda in Sigma_D + lambda I.
        miss: probability that the true reward lies outside.
    """
    reach = max_feature * max_norm
    gamma = 1.0 / (2.0 + math.exp(-reach) + math.exp(reach))
    return math.sqrt((dim + math.log(1.0 / miss)) / (gamma**2 * num_answers) + ridge * max_norm**2)


# ---------------------------------------------------------------------------------------------------- the optimum


def _checked(ranked: Floats) -> Floats:
    ranked = np.asarray(ranked, dtype=np.float64)
    if ranked.ndim != 3 or 0 in ranked.shape or ranked.shape[1] < 2:
        raise UserError(
            f"Rankings are given by features of shape (answers, items, dimensions) with two items or more. Received "
            f"shape {ranked.shape}"
        )
    if not np.isfinite(ranked).all():
        raise UserError("Features of items must be finite. Some are NaN or infinite.")
    return ranked


def _derivatives(ranked: Floats, counts: Floats, theta: Floats) -> tuple[float, Floats, Floats]:
    """Return the log-likelihood, its gradient and its information, the Hessian's negative.

    A ranking is K - 1 choices, each of the best among those left: the gradient of a choice is the chosen item's
    features less their expectation under the softmax, its information their covariance.
    """
    scores = ranked @ theta
    value, gradient, information = 0.0, np.zeros_like(theta), np.zeros((len(theta), len(theta)))
    for rank in range(ranked.shape[1] - 1):
        left, features = scores[:, rank:], ranked[:, rank:]
        top = left.max(axis=1, keepdims=True)
        weights = np.exp(left - top)
        total = weights.sum(axis=1, keepdims=True)
        value += float(counts @ (left[:, 0] - top[:, 0] - np.log(total[:, 0])))
        shares = weights / total
        expected = np.einsum("nk,nkd->nd", shares, features)
        gradient += counts @ (features[:, 0] - expected)
        about = (features - expected[:, None]) * np.sqrt(counts[:, None] * shares)[:, :, None]
        flat = about.reshape(-1, len(theta))
        information += flat.T @ flat
    return value, gradient, information


def _newton(ranked: Floats, counts: Floats, ridge: float, start: Floats) -> Floats | None:
    """Return the optimum of the log-likelihood less ridge |theta|^2 / 2, or None where the likelihood has none."""
    theta = start.copy()
    value, gradient, information = _derivatives(ranked, counts, theta)
    for _ in range(_MOST_STEPS):
        slope = gradient - ridge * theta
        if np.abs(slope).max() <= _ENOUGH * counts.sum():
            return theta
        step = np.linalg.lstsq(information + ridge * np.eye(len(theta)), slope, rcond=1e-12)[0]
        length, objective = 1.0, value - ridge * float(theta @ theta) / 2
        while True:
            tried = theta + length * step
            value, gradient, information = _derivatives(ranked, counts, tried)
            rounding = 1e-12 * abs(objective)
            if value - ridge * float(tried @ tried) / 2 >= objective - rounding or length < 1e-10:
                break
            length /= 2
        theta = tried
        if not np.isfinite(theta).all() or np.abs(theta).max() > 1e8:
            return None
    return None


def _held_to(
    ranked: Floats, counts: Floats, max_norm: float, ridge: float, start: Floats | None
) -> tuple[Floats, bool]:
    """Return the optimum within a ball, and whether it lies on its border.

    On the border the gradient points outwards: the optimum is that of the ridge under which its norm is the ball's.
    """
    dim = ranked.shape[2]
    free = _newton(ranked, counts, ridge, np.zeros(dim) if start is None else start)
    if free is not None and ridge == 0 and _has_no_optimum(ranked, free):
        free = None
    if free is not None and np.linalg.norm(free) <= max_norm:
        return free, False
    if math.isinf(max_norm):
        raise UserError(
            "Some reward contradicts none of the answers and could grow forever, so that there is no finite estimate. "
            "Give max_norm, the norm of the largest reward that is possible, or a ridge."
        )
    low, high = -12.0, 12.0  # of the logarithm of the ridge per answer
    theta: Floats = np.zeros(dim)
    for _ in range(60):
        middle = (low + high) / 2
        tried = _newton(ranked, counts, ridge + counts.sum() * math.exp(middle), np.zeros(dim))
        assert tried is not None, "with a ridge there is one optimum"
        theta = tried
        low, high = (middle, high) if np.linalg.norm(theta) > max_norm else (low, middle)
        if high - low < 1e-9:
            break
    return theta, True


def _has_no_optimum(ranked: Floats, theta: Floats) -> bool:
    """Tell whether some reward contradicts no answer and agrees with one (Albert and Anderson 1984): it could grow."""
    scores = ranked @ theta
    if np.abs(scores[:, :, None] - scores[:, None, :]).max() < _BEYOND_DOUBT:
        return False  # it would have grown until the gradient is next to nothing
    pairs = split_into_pairs(ranked)
    differences = pairs[:, 0] - pairs[:, 1]
    found = require("scipy.optimize", "train").linprog(
        -differences.sum(axis=0), A_ub=-differences, b_ub=np.zeros(len(differences)), bounds=(-1.0, 1.0)
    )
    return bool(found.success and -found.fun > 1e-9 * len(differences))

"""Annotators who want different things: mixtures of linear rewards, and a test of whether one reward fits all.

Each annotator belongs to one of G groups, each group has its own reward, and nobody says who belongs where. Expectation
maximisation (Dempster, Laird and Rubin 1977) estimates rewards and shares together (Chakraborty et al. 2024,
MaxMin-RLHF, for preferences). Whether there are groups at all is told by the likelihood ratio, whose distribution where
there are none is found by drawing answers from the single reward again and again (parametric bootstrap): the usual
chi-squared does not hold for mixtures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prefrl.errors import UserError, require
from prefrl.theory.linear import Floats, fit_rankings, sample_rankings

RIDGE = 0.1  # keeps a group of few answers finite
_STEPS = 100
_ENOUGH = 1e-3  # nats that a step gains


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Rewards of groups of annotators."""

    thetas: Floats
    """`(G, d)` float64."""
    shares: Floats
    """`(G,)` float64: of annotators, descending."""
    belongs: Floats
    """`(A, G)` float64: probability that an annotator belongs to a group."""
    log_likelihood: float
    """Of all answers, in nats."""


def fit_mixture(
    answers: Sequence[Floats], num_groups: int, rng: np.random.Generator, *, starts: int = 6, ridge: float = RIDGE
) -> Mixture:
    """Estimate the rewards of groups that nobody names.

    Args:
        answers: of each annotator, `(n, K, d)` float: features of the items of each answer, the best first.
        num_groups: G.
        rng: of the starts.
        starts: random ones, of which the likeliest end counts: the likelihood of a mixture has several peaks.
        ridge: of each reward.

    Raises:
        UserError: fewer annotators than groups.
    """
    if num_groups < 1 or len(answers) < num_groups:
        raise UserError(f"{num_groups} groups need as many annotators or more. There are {len(answers)}.")
    ends = [_climb(answers, num_groups, rng, ridge) for _ in range(starts if num_groups > 1 else 1)]
    return max(ends, key=lambda end: end.log_likelihood)


def _climb(answers: Sequence[Floats], num_groups: int, rng: np.random.Generator, ridge: float) -> Mixture:
    belongs = rng.dirichlet(np.full(num_groups, 0.3), size=len(answers))
    ranked = np.concatenate(list(answers))
    owners = np.repeat(np.arange(len(answers)), [len(one) for one in answers])
    last = -math.inf
    thetas = np.zeros((num_groups, ranked.shape[2]))
    for _ in range(_STEPS):
        shares = np.maximum(belongs.mean(axis=0), 1e-12)
        counts = np.maximum(belongs[owners], 1e-12)
        thetas = np.stack(
            [
                fit_rankings(ranked, counts=counts[:, group], ridge=ridge, start=theta).theta
                for group, theta in enumerate(thetas)
            ]
        )
        each = np.stack([_log_likelihoods(ranked, theta) for theta in thetas], axis=1)
        joint = np.log(shares) + np.stack([np.bincount(owners, column) for column in each.T], axis=1)
        top = joint.max(axis=1, keepdims=True)
        evidence = top[:, 0] + np.log(np.exp(joint - top).sum(axis=1))
        belongs = np.exp(joint - evidence[:, None])
        total = float(evidence.sum())
        if total - last < _ENOUGH:
            break
        last = total
    order = np.argsort(-shares)
    return Mixture(thetas=thetas[order], shares=shares[order], belongs=belongs[:, order], log_likelihood=total)


def _log_likelihoods(ranked: Floats, theta: Floats) -> Floats:
    """Return the log-likelihood of each answer, `(n,)`."""
    scores = ranked @ theta
    total = np.zeros(len(ranked))
    for rank in range(scores.shape[1] - 1):
        left = scores[:, rank:]
        top = left.max(axis=1)
        total += left[:, 0] - top - np.log(np.exp(left - top[:, None]).sum(axis=1))
    return total


@dataclass(frozen=True, kw_only=True)
class GroupTest:
    """Does one reward fit all annotators?"""

    statistic: float
    """Twice the gain in log-likelihood of two groups over one."""
    p_value: float
    """Share of draws without groups that gain as much, (1 + how many) / (1 + draws)."""
    mixture: Mixture
    """Of two groups."""


def find_groups(answers: Sequence[Floats], rng: np.random.Generator, *, draws: int = 99) -> GroupTest:
    """Test whether there are two groups of annotators with rewards of their own.

    Args:
        answers: of each annotator, as for `fit_mixture`; two annotators or more.
        rng: of the starts and of the draws.
        draws: answers to the same questions drawn from the single reward; the p value is at least 1 / (1 + draws).
    """
    mixture, statistic, single = _gain(answers, rng)
    above = 0
    for _ in range(draws):
        drawn = [sample_rankings(one, single, rng) for one in answers]
        above += _gain(drawn, rng)[1] >= statistic
    return GroupTest(statistic=statistic, p_value=(1 + above) / (1 + draws), mixture=mixture)


def _gain(answers: Sequence[Floats], rng: np.random.Generator) -> tuple[Mixture, float, Floats]:
    one = fit_mixture(answers, 1, rng)
    two = fit_mixture(answers, 2, rng, starts=2)
    return two, 2 * max(0.0, two.log_likelihood - one.log_likelihood), one.thetas[0]


def main_directions(pairs: Floats, most: int) -> Floats:
    """Return features of pairs in units of their spread along their main directions.

    Args:
        pairs: `(n, 2, d)` float.
        most: directions that are kept, those of the greatest spread.

    Returns:
        `(n, 2, at most most)` float64; features that never vary count for nothing.
    """
    flat = pairs.reshape(-1, pairs.shape[2])
    spread = flat.std(axis=0)
    scaled = (flat - flat.mean(axis=0))[:, spread > 1e-9] / spread[spread > 1e-9]
    if scaled.shape[1] == 0:
        return np.zeros((*pairs.shape[:2], 1))
    _, sizes, directions = np.linalg.svd(scaled, full_matrices=False)
    kept = directions[:most][sizes[:most] > 1e-9 * sizes[0]]
    turned = scaled @ kept.T
    return (turned / turned.std(axis=0)).reshape(len(pairs), 2, len(kept))


def worst_group_choice(items: Floats, thetas: Floats) -> Floats:
    """Return the mixture of items whose value to the worst-off group is greatest (MaxMin, Chakraborty et al. 2024).

    A game of items against groups, solved by linear programming.

    Args:
        items: `(A, d)` float, features.
        thetas: `(G, d)` float, rewards of the groups.

    Returns:
        `(A,)` float64: how often each item is to be chosen.
    """
    values = items @ thetas.T  # (A, G)
    num = len(items)
    bounds = [(0.0, None)] * num + [(None, None)]
    found = require("scipy.optimize", "train").linprog(
        np.append(np.zeros(num), -1.0),
        A_ub=np.hstack([-values.T, np.ones((values.shape[1], 1))]),
        b_ub=np.zeros(values.shape[1]),
        A_eq=np.append(np.ones(num), 0.0)[None],
        b_eq=[1.0],
        bounds=bounds,
    )
    assert found.success, "a game has a value"
    chosen: Floats = found.x[:num]
    return chosen

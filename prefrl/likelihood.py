"""Likelihoods of answers given summed rewards: pure functions of logits.

Bradley-Terry for pairs (Christiano et al. 2017, Eq. 1), Plackett-Luce for rankings of K, with or without ties, and the
cumulative logit for ratings on a scale (McCullagh 1980), all optionally mixed with a share of uniformly random answers
(Christiano et al. 2017, s. 2.2.3). Everything is computed from logits, so values and gradients stay finite and accurate
at any magnitude.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefrl.errors import UserError


def bradley_terry_log_likelihood(logits: Tensor, preferences: Tensor, error_rate: float | Tensor = 0.0) -> Tensor:
    """Log-likelihood of answers to pairs.

    P[1 > 2] = sigmoid(R(1) - R(2)) (Christiano et al. 2017, Eq. 1). With probability `error_rate` the annotator answers
    uniformly: P' = (1 - error_rate) P + error_rate / 2 (s. 2.2.3, error_rate 0.1). A tie (preference 1/2) counts half
    of each answer, the cross-entropy of the paper.

    Args:
        logits: `(...)` float, any real: R(1) - R(2), summed rewards of the first segment less those of the second.
        preferences: `(...)` float in [0, 1]: probability that the first is better.
        error_rate: share of uniformly random answers, in [0, 1); one number, or one for each answer `(...)`.

    Returns:
        `(...)` float, at most 0, in nats.

    Raises:
        UserError: `error_rate` outside [0, 1).
    """
    first = _mixed(logsigmoid(logits), error_rate, 2)
    second = _mixed(logsigmoid(-logits), error_rate, 2)
    return preferences * first + (1 - preferences) * second


def plackett_luce_log_likelihood(scores: Tensor, error_rate: float = 0.0) -> Tensor:
    """Log-likelihood of rankings of K: sum over ranks i < K of [R_i - logsumexp_{j >= i} R_j].

    K = 2 is Bradley-Terry. With probability `error_rate` the annotator gives a uniformly random order:
    P' = (1 - error_rate) P + error_rate / K!, which for K = 2 is the mixture of Christiano et al. 2017, s. 2.2.3.

    Args:
        scores: `(..., K)` float, any real: summed rewards in the order of the ranking, best first; K >= 2.
        error_rate: share of uniformly random orders, in [0, 1).

    Returns:
        `(...)` float, at most 0, in nats.

    Raises:
        UserError: `error_rate` outside [0, 1), or K < 2.
    """
    k = scores.shape[-1]
    if k < 2:
        raise UserError(f"A ranking needs at least 2 scores. Received {k}")
    # Differences of scores, not scores: a common offset would eat the precision of the values and their gradients.
    behind = scores.unsqueeze(-2) - scores.unsqueeze(-1)  # (..., K, K): R_j - R_i
    earlier = torch.ones(k, k, dtype=torch.bool, device=scores.device).tril(-1)  # j < i: placed already
    per_rank = -torch.logsumexp(behind.masked_fill(earlier, -math.inf), dim=-1)
    return _mixed(per_rank[..., :-1].sum(-1), error_rate, math.factorial(k))


def choices(ranks: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the choices that a ranking with ties is made of, for `ranking_log_likelihood`.

    A strict ranking is a sequence of choices, each of the best among those left. Items that share a rank could have
    been chosen in any order: each order counts alike, so that a choice counts as often as it is met.

    Args:
        ranks: rank of each of K items, 1 the best; equal ranks are ties.

    Returns:
        left: `(P, K)` bool: which items were left at a choice.
        chosen: `(P, K)` float64: how often each of them was chosen then; columns sum to 1.
    """
    k = len(ranks)
    left, chosen = [], []
    for rank in sorted(set(ranks)):
        group = [item for item in range(k) if ranks[item] == rank]
        later = [item for item in range(k) if ranks[item] > rank]
        for size in range(1, len(group) + 1):
            weight = 1 / (math.comb(len(group), size) * size)
            for part in itertools.combinations(group, size):
                left.append([item in part or item in later for item in range(k)])
                chosen.append([weight * (item in part) for item in range(k)])
    return torch.tensor(left), torch.tensor(chosen, dtype=torch.float64)


def ranking_log_likelihood(scores: Tensor, left: Tensor, chosen: Tensor, error_rate: float | Tensor = 0.0) -> Tensor:
    """Log-likelihood of rankings with ties under Plackett-Luce: the mean over all orders that the ties allow.

    Without ties this is Plackett-Luce; a tie of two is Christiano's label (1/2, 1/2). Departure: `error_rate` mixes
    that mean (a geometric one, of probabilities) with 1 / K!, not each order by itself, of which there may be K!.

    Args:
        scores: `(..., K)` float, any real: summed rewards of the items; what stands where there is no item is ignored.
        left: `(..., P, K)` bool, of `choices`; rows of False and
        chosen: `(..., P, K)` float rows of zeros fill up where there are fewer choices or items.
        error_rate: share of uniformly random orders, in [0, 1), one number or `(...)`.

    Returns:
        `(...)` float, at most 0, in nats.
    """
    happens = left.any(-1)
    spread = scores.unsqueeze(-2).expand(torch.broadcast_shapes(scores.unsqueeze(-2).shape, left.shape))
    # Differences of scores, not scores: a common offset would eat the precision of the values and their gradients.
    anchor = spread.masked_fill(~left, -math.inf).amax(-1, keepdim=True).detach()
    behind = (spread - torch.where(happens.unsqueeze(-1), anchor, 0.0)).masked_fill(~left, 0.0)
    total = torch.logsumexp(behind.masked_fill(~(left | ~happens.unsqueeze(-1)), -math.inf), dim=-1)
    log_probability = ((chosen * behind).sum(-1) - chosen.sum(-1) * total).sum(-1)
    num_items = left.any(-2).sum(-1)
    return mixed_with_chance(log_probability, error_rate, torch.lgamma(num_items + 1.0).to(scores.dtype))


def rating_log_likelihood(
    returns: Tensor, ratings: Tensor, cut_points: Tensor, error_rate: float | Tensor = 0.0
) -> Tensor:
    """Log-likelihood of ratings on a scale of C grades: the cumulative logit (McCullagh 1980, "proportional odds").

    P[rating > c] = sigmoid(R - t_c) with cut points t_1 < ... < t_(C-1): a grade says of each cut point whether the
    segment is better, as Bradley-Terry would of another segment. So ratings and comparisons are in the same units.

    Args:
        returns: `(...)` float, any real: summed rewards.
        ratings: `(...)` int64, 1 to C.
        cut_points: `(..., C - 1)` float, ascending; +infinity fills up where a scale has fewer.
        error_rate: share of uniformly random grades, in [0, 1), one number or `(...)`.

    Returns:
        `(...)` float, at most 0, in nats.
    """
    ends = torch.full_like(cut_points[..., :1], math.inf)
    edges = torch.cat([-ends, cut_points, ends], dim=-1)
    edges = edges.expand(*ratings.shape, -1)
    below = edges.gather(-1, (ratings - 1).unsqueeze(-1)).squeeze(-1)
    above = edges.gather(-1, ratings.unsqueeze(-1)).squeeze(-1)
    # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), of which no factor cancels
    log_probability = logsigmoid(above - returns) + logsigmoid(returns - below) + _log1m_exp(below - above)
    num_grades = (cut_points < math.inf).sum(-1) + 1.0
    return mixed_with_chance(log_probability, error_rate, torch.log(num_grades).to(returns.dtype))


def _log1m_exp(x: Tensor) -> Tensor:
    """Return log(1 - exp(x)) for x < 0, accurate at both ends."""
    near = x > -math.log(2)
    # where() evaluates both sides: keep the one not taken away from where its gradient is infinite
    close = torch.log(-torch.expm1(torch.where(near, x, -1.0)))
    return torch.where(near, close, torch.log1p(-torch.exp(torch.where(near, -1.0, x))))


def _mixed(log_probability: Tensor, error_rate: float | Tensor, num_outcomes: int) -> Tensor:
    return mixed_with_chance(log_probability, error_rate, torch.full_like(log_probability, math.log(num_outcomes)))


def mixed_with_chance(log_probability: Tensor, error_rate: float | Tensor, log_num_outcomes: Tensor) -> Tensor:
    """Return the log-likelihood of answers that are given at random now and then.

    P' = (1 - error_rate) P + error_rate / num_outcomes (Christiano et al. 2017, s. 2.2.3).

    Args:
        log_probability: `(...)` float, at most 0, in nats: of answers by the reward.
        error_rate: share of uniformly random answers, in [0, 1), one number or `(...)`.
        log_num_outcomes: `(...)` float: logarithm of the number of answers that could have been given.

    Raises:
        UserError: `error_rate` outside [0, 1).
    """
    if isinstance(error_rate, Tensor):
        return torch.logaddexp(
            log_probability + torch.log1p(-error_rate),
            (torch.log(error_rate) - log_num_outcomes).expand_as(log_probability),
        )
    if not 0 <= error_rate < 1:
        raise UserError(f"error_rate must be in [0, 1). Received {error_rate}")
    if error_rate == 0:
        return log_probability
    uniform = (math.log(error_rate) - log_num_outcomes).expand_as(log_probability)
    return torch.logaddexp(log_probability + math.log1p(-error_rate), uniform)

"""Likelihoods of answers given summed rewards: pure functions of logits.

Bradley-Terry for pairs (Christiano et al. 2017, Eq. 1) and Plackett-Luce for rankings of K, both optionally mixed with
a share of uniformly random answers (Christiano et al. 2017, s. 2.2.3). Everything is computed from logits, so values
and gradients stay finite and accurate at any magnitude.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefrl.errors import UserError


def bradley_terry_log_likelihood(logits: Tensor, preferences: Tensor, error_rate: float = 0.0) -> Tensor:
    """Log-likelihood of answers to pairs.

    P[1 > 2] = sigmoid(R(1) - R(2)) (Christiano et al. 2017, Eq. 1). With probability `error_rate` the annotator answers
    uniformly: P' = (1 - error_rate) P + error_rate / 2 (s. 2.2.3, error_rate 0.1). A tie (preference 1/2) counts half
    of each answer, the cross-entropy of the paper.

    Args:
        logits: `(...)` float, any real: R(1) - R(2), summed rewards of the first segment less those of the second.
        preferences: `(...)` float in [0, 1]: probability that the first is better.
        error_rate: share of uniformly random answers, in [0, 1).

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


def _mixed(log_probability: Tensor, error_rate: float, num_outcomes: int) -> Tensor:
    if not 0 <= error_rate < 1:
        raise UserError(f"error_rate must be in [0, 1). Received {error_rate}")
    if error_rate == 0:
        return log_probability
    uniform = math.log(error_rate / num_outcomes)
    return torch.logaddexp(log_probability + math.log1p(-error_rate), torch.full_like(log_probability, uniform))

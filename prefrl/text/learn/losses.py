"""Losses of learning from preferences over responses: pure functions of log-probabilities and scores.

Throughout, rho(y) = log pi(y | x) - log pi_ref(y | x), summed over the tokens of the response: `policy` less
`reference`. Direct preference optimisation is Bradley-Terry (or Plackett-Luce) on the implicit rewards beta rho, so it
shares `prefrl.likelihood` with the reward models of control.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from prefrl.errors import UserError
from prefrl.likelihood import bradley_terry_log_likelihood, plackett_luce_log_likelihood


def dpo_loss(
    chosen: Tensor, rejected: Tensor, beta: float, *, label_smoothing: float = 0.0, preferences: Tensor | None = None
) -> Tensor:
    """Direct preference optimisation: -log sigmoid(beta (rho_w - rho_l)) (Rafailov et al. 2023, Eq. 7).

    Args:
        chosen: `(B,)` float, rho of the better response, in nats.
        rejected: `(B,)` float, rho of the other.
        beta: strength of the tie to the reference, above 0.
        label_smoothing: share of answers that are wrong: the cross-entropy against 1 - label_smoothing ("cDPO").
        preferences: `(B,)` float in [0, 1], probability that the first is better, instead of 1 - label_smoothing; 1/2
            is a
            tie.

    Returns:
        `(B,)` float, in nats.

    Raises:
        UserError: beta not above 0, or label_smoothing outside [0, 1/2).
    """
    _check_beta(beta)
    if not 0 <= label_smoothing < 0.5:
        raise UserError(f"label_smoothing must be in [0, 0.5). Received {label_smoothing}")
    logits = beta * (chosen - rejected)
    wanted = torch.full_like(logits, 1 - label_smoothing) if preferences is None else preferences.to(logits)
    return -bradley_terry_log_likelihood(logits, wanted)


def dpo_ranking_loss(log_ratios: Tensor, beta: float) -> Tensor:
    """Direct preference optimisation for rankings, under Plackett-Luce (Rafailov et al. 2023, app. A.3, Eq. 20).

    Args:
        log_ratios: `(B, K)` float, rho of the responses in the order of the ranking, best first.
        beta: above 0.

    Returns:
        `(B,)` float, in nats; for K = 2 it is `dpo_loss`.
    """
    _check_beta(beta)
    return -plackett_luce_log_likelihood(beta * log_ratios)


def ipo_loss(chosen: Tensor, rejected: Tensor, tau: float, *, preferences: Tensor | None = None) -> Tensor:
    """Identity preference optimisation: (rho_w - rho_l - 1 / (2 tau))^2 (Azar et al. 2023, Eq. 17).

    The paper sums over the tokens of a response. Common libraries give it the mean per token instead: pass means for
    that.

    Args:
        chosen: `(B,)` float, rho of the better response.
        rejected: `(B,)` float, rho of the other.
        tau: strength of the tie to the reference, above 0.
        preferences: `(B,)` float in [0, 1], probability that the first is better; the margin is then (p - 1/2) / tau,
            the
            mean of the targets of both answers (their expected losses differ by a constant).

    Returns:
        `(B,)` float, in squared nats.
    """
    _check_beta(tau, "tau")
    target = torch.full_like(chosen, 0.5) if preferences is None else preferences.to(chosen) - 0.5
    return (chosen - rejected - target / tau) ** 2


def simpo_loss(chosen: Tensor, rejected: Tensor, beta: float, gamma: float, *, label_smoothing: float = 0.0) -> Tensor:
    """Simple preference optimisation: -log sigmoid(beta (m_w - m_l) - gamma) (Meng et al. 2024, Eq. 6).

    It has no reference: nothing but the learning rate keeps the policy near its start.

    Args:
        chosen: `(B,)` float, m of the better response: its log-probability over its length in tokens, in nats.
        rejected: `(B,)` float, m of the other.
        beta: scale of the differences, above 0 (2 to 2.5 in the paper).
        gamma: margin by which the better should lead, at least 0 (0.3 to 1.6 in the paper).
        label_smoothing: share of answers that are wrong.

    Returns:
        `(B,)` float, in nats.

    Raises:
        UserError: beta not above 0, gamma below 0, or label_smoothing outside [0, 1/2).
    """
    _check_beta(beta)
    if not 0 <= gamma < math.inf:
        raise UserError(f"gamma must be at least 0. Received {gamma}")
    if not 0 <= label_smoothing < 0.5:
        raise UserError(f"label_smoothing must be in [0, 0.5). Received {label_smoothing}")
    logits = beta * (chosen - rejected) - gamma
    return -bradley_terry_log_likelihood(logits, torch.full_like(logits, 1 - label_smoothing))


def kto_loss(
    log_ratios: Tensor,
    liked: Tensor,
    kl_reference: Tensor,
    beta: float,
    *,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Kahneman-Tversky optimisation from likes and dislikes (Ethayarajh et al. 2024, Eq. 8).

    Args:
        log_ratios: `(B,)` float, rho of the responses.
        liked: `(B,)` bool.
        kl_reference: `()` float, z0 from `kto_reference_point`.
        beta: above 0.
        desirable_weight: lambda_D; keep lambda_D n_D / (lambda_U n_U) in [1, 4/3], see `kto_weights`.
        undesirable_weight: lambda_U.

    Returns:
        `(B,)` float: lambda_D (1 - sigmoid(beta (rho - z0))) for the liked, and for the others
        lambda_U (1 - sigmoid(beta (z0 - rho))).
    """
    _check_beta(beta)
    margin = beta * (log_ratios - kl_reference.detach())
    return torch.where(
        liked, desirable_weight * (1 - torch.sigmoid(margin)), undesirable_weight * (1 - torch.sigmoid(-margin))
    )


def kto_reference_point(mismatched_log_ratios: Tensor) -> Tensor:
    """Return z0 = max(0, mean rho of mismatched pairs), detached: a prompt with the response to another.

    Args:
        mismatched_log_ratios: `(B,)` float.

    Returns:
        `()` float, at least 0: a biased, low-variance estimate of KL(pi || pi_ref) (Ethayarajh et al. 2024, s. 4.1).
    """
    return mismatched_log_ratios.detach().mean().clamp(min=0)


def kto_weights(num_liked: int, num_disliked: int) -> tuple[float, float]:
    """Return (lambda_D, lambda_U) that balance likes and dislikes: lambda_D n_D / (lambda_U n_U) = 1.

    The larger side weighs 1 (Ethayarajh et al. 2024, s. 4.2, ask for a ratio in [1, 4/3]).

    Raises:
        UserError: there are none of one kind.
    """
    if not num_liked or not num_disliked:
        raise UserError(
            f"Learning from likes and dislikes needs both. Received {num_liked} likes and {num_disliked} dislikes."
        )
    if num_liked >= num_disliked:
        return 1.0, num_liked / num_disliked
    return num_disliked / num_liked, 1.0


def pairwise_reward_loss(scores: Tensor) -> Tensor:
    """Loss of a reward model on rankings, by all pairs: -1/C(K, 2) sum log sigmoid(r_better - r_worse).

    InstructGPT, Eq. 1: all pairs of one prompt weigh together as one example, so that a prompt with many responses does
    not drown the others.

    Args:
        scores: `(B, K)` float in the order of the ranking, best first; K >= 2.

    Returns:
        `(B,)` float, in nats; for K = 2 it is Bradley-Terry's.
    """
    k = scores.shape[-1]
    if k < 2:
        raise UserError(f"A ranking needs at least 2 scores. Received {k}")
    first, second = torch.triu_indices(k, k, offset=1, device=scores.device)
    logits = scores[..., first] - scores[..., second]
    return -bradley_terry_log_likelihood(logits, torch.ones_like(logits)).mean(-1)


def grouped_reward_loss(scores: Tensor, ranks: Tensor, groups: Tensor, *, plackett_luce: bool = False) -> Tensor:
    """Loss of a reward model on rankings of different lengths and with ties, laid out flat.

    By pairs, a tie counts half of each answer (1/2, 1/2). Plackett-Luce knows no ties and refuses them.

    Args:
        scores: `(N,)` float.
        ranks: `(N,)` int, 0 is best, equal ranks are ties.
        groups: `(N,)` int: the prompt each response belongs to, equal ones side by side.
        plackett_luce: the likelihood of the whole order instead of that of its pairs.

    Returns:
        `(G,)` float, one loss for each prompt, in nats.

    Raises:
        UserError: a prompt with one response only, or a tie with Plackett-Luce.
    """
    _, sizes = torch.unique_consecutive(groups, return_counts=True)
    ends = [0, *torch.cumsum(sizes, 0).tolist()]
    losses = []
    for start, end in pairwise(ends):
        if end - start < 2:
            raise UserError("A ranking needs at least 2 responses to a prompt. Received 1")
        own, order = scores[start:end], ranks[start:end]
        if plackett_luce:
            if len(torch.unique(order)) < len(order):
                raise UserError(f"Plackett-Luce knows no ties; the ranking is {order.tolist()}. Use the loss by pairs.")
            losses.append(-plackett_luce_log_likelihood(own[torch.argsort(order)]))
        else:
            first, second = torch.triu_indices(end - start, end - start, offset=1, device=scores.device)
            wanted = (torch.sign(order[second] - order[first]).to(own) + 1) / 2
            losses.append(-bradley_terry_log_likelihood(own[first] - own[second], wanted).mean())
    return torch.stack(losses)


def _check_beta(value: float, name: str = "beta") -> None:
    if not 0 < value < math.inf:
        raise UserError(f"{name} must be above 0 and finite. Received {value}")

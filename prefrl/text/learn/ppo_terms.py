"""The pieces of PPO for text: per-token rewards, advantages, clipped losses, whitening, the KL controllers.

Pure functions on arrays `(B, R)`: B responses of R token places, with a bool mask of those that hold a token of the
response (its end token included). gamma is 1 throughout: a response is one action, its tokens are not discounted.
Ziegler et al. 2019, Stiennon et al. 2020 and the details of Huang et al. 2024.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from prefrl.errors import UserError

EPS = 1e-8


def token_rewards(scores: Tensor, log_ratios: Tensor, mask: Tensor, beta: float) -> Tensor:
    """Return -beta (log pi - log pi_ref) at every token, and the score at the last one (Ziegler et al. 2019, s. 2.2).

    Args:
        scores: `(B,)` float, the reward of each whole response.
        log_ratios: `(B, R)` float, log pi - log pi_ref of the sampled tokens.
        mask: `(B, R)` bool; each row holds one run of true values, from its start.
        beta: at least 0.

    Returns:
        `(B, R)` float, 0 outside the mask.

    Raises:
        UserError: a response without any token.
    """
    lengths = mask.sum(1)
    if (lengths == 0).any():
        raise UserError("A response without any token cannot be rewarded; generate at least one token.")
    rewards = torch.where(mask, -beta * log_ratios, torch.zeros_like(log_ratios))
    rows = torch.arange(len(scores), device=scores.device)
    rewards[rows, lengths - 1] += scores
    return rewards


def advantages(rewards: Tensor, values: Tensor, mask: Tensor, gae_lambda: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation with gamma 1 (Schulman et al. 2016, Eq. 16).

    Args:
        rewards: `(B, R)` float, 0 outside the mask.
        values: `(B, R)` float: value before each token; outside the mask it is taken as 0, so that the last token of a
            response looks at nothing beyond it.
        mask: `(B, R)` bool.
        gae_lambda: in [0, 1].

    Returns:
        Advantages and returns (advantage + value), both `(B, R)`, 0 outside the mask.
    """
    values = values * mask
    advantage = torch.zeros_like(rewards)
    last = torch.zeros_like(rewards[:, 0])
    following = torch.zeros_like(last)
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + following - values[:, t]
        last = (delta + gae_lambda * last) * mask[:, t]
        advantage[:, t] = last
        following = values[:, t]
    return advantage, (advantage + values) * mask


def whiten(
    values: Tensor, mask: Tensor, *, shift_mean: bool = True, total: Callable[[Tensor], Tensor] = lambda part: part
) -> Tensor:
    """Return values scaled to variance 1 over the mask; biased variance, eps 1e-8 (Huang et al. 2024, s. 4).

    Args:
        values: `(B, R)` float.
        mask: `(B, R)` bool.
        shift_mean: also shift the mean to 0: for advantages, not for rewards.
        total: gives the sum over all processes of which each holds some of the rows.

    Returns:
        `(B, R)`, 0 outside the mask.
    """
    mean = total((values * mask).sum()) / total(mask.sum()).clamp(min=1)
    variance = spread(values, mask, total=total) ** 2
    white = (values - mean) * torch.rsqrt(variance + EPS)
    return (white if shift_mean else white + mean) * mask


def spread(values: Tensor, mask: Tensor, *, total: Callable[[Tensor], Tensor] = lambda part: part) -> Tensor:
    """Return the biased standard deviation over the mask, `()`; `total` as for `whiten`."""
    count = total(mask.sum()).clamp(min=1)
    mean = total((values * mask).sum()) / count
    return (total(((values - mean) ** 2 * mask).sum()) / count).sqrt()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the mask, `()`."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def policy_loss(log_probs: Tensor, old_log_probs: Tensor, advantage: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Clipped surrogate, averaged over all tokens of the batch (Schulman et al. 2017, Eq. 7), `()`, to be minimised."""
    ratio = torch.exp((log_probs - old_log_probs) * mask)
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
    return -masked_mean(surrogate, mask)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Half the squared error, the greater of clipped and unclipped (Huang et al. 2024, s. 4), `()`."""
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    worse = torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)
    return 0.5 * masked_mean(worse, mask)


def full_kl(log_policy: Tensor, log_reference: Tensor) -> Tensor:
    """KL(pi || pi_ref) over the whole vocabulary at each token.

    Summed over the tokens of the policy's own samples it is an unbiased estimate of the divergence of whole responses,
    with far less variance than the log-ratio of the samples alone.

    Args:
        log_policy: `(..., V)` float, log-probabilities.
        log_reference: `(..., V)` float.

    Returns:
        `(...)` float, at least 0 (up to rounding), in nats.
    """
    return (log_policy.exp() * (log_policy - log_reference)).sum(-1)


@dataclass(kw_only=True)
class FixedKL:
    """A constant beta."""

    beta: float

    def update(self, kl_nats: float, num_episodes: int) -> None:
        """Leave beta as it is."""


@dataclass(kw_only=True)
class AdaptiveKL:
    """Steers beta so that the divergence stays near a target (Ziegler et al. 2019, s. 2.2).

    e = clip(KL / target - 1, -0.2, 0.2); beta <- beta (1 + e n / horizon).
    """

    beta: float
    target_nats: float = 6.0
    """KL of a whole response."""
    horizon: int = 10_000
    """Episodes."""

    def update(self, kl_nats: float, num_episodes: int) -> None:
        """Adapt beta to the mean KL of a whole response over the last `num_episodes`."""
        error = min(max(kl_nats / self.target_nats - 1, -0.2), 0.2)
        self.beta *= 1 + error * num_episodes / self.horizon


KLController = FixedKL | AdaptiveKL

"""What an update of PPO computes: advantages, the gradients of its losses, and the figures that it is judged by.

Pure functions of tensors and arrays, without network, optimiser or settings of a device.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prefrl.agents.ppo_settings import PpoSettings


class Minibatch(NamedTuple):
    """B steps to learn from."""

    inputs: Tensor
    """`(B, ...)`"""
    actions: Tensor
    """`(B, ...)`"""
    log_probs: Tensor
    """`(B,)`: before the update."""
    values: Tensor
    """`(B,)`: before the update."""
    advantages: Tensor
    """`(B,)`"""
    returns: Tensor
    """`(B,)`"""


def advantages_of(
    rewards: NDArray[np.floating],
    values: NDArray[np.floating],
    next_values: NDArray[np.floating],
    terminated: NDArray[np.bool_],
    truncated: NDArray[np.bool_],
    gamma: float,
    gae_lambda: float,
) -> NDArray[np.float32]:
    """Return generalised advantage estimates `(T, E)` (Schulman et al. 2016, eq. 16).

    Args:
        rewards: `(T, E)`.
        values: `(T, E)`: of what was seen before each step.
        next_values: `(T, E)`: of what each step led to, the last observation where an episode was cut off.
        terminated: `(T, E)`: nothing follows.
        truncated: `(T, E)`: the episode was cut off.
        gamma: discount.
        gae_lambda: 0 takes one step's difference, 1 the whole return.
    """
    differences = rewards + gamma * next_values * ~terminated - values
    carried = gamma * gae_lambda * ~(terminated | truncated)
    advantages = np.empty(rewards.shape, np.float32)
    following = np.zeros(rewards.shape[1])
    for step in range(len(rewards) - 1, -1, -1):
        following = differences[step] + carried[step] * following
        advantages[step] = following
    return advantages


def surrogate_gradients(
    log_probs: Tensor, values: Tensor, batch: Minibatch, settings: PpoSettings, clip: float, clip_values: float | None
) -> tuple[Tensor, Tensor]:
    """Return the gradients `(B,)` each of policy and value loss by the log-probabilities and values now.

    The losses are -mean(min(ratio * A, clip(ratio) * A)) (Schulman et al. 2017, eq. 7) and vf_coef times the mean
    squared error of the values.
    """
    size = len(values)
    advantages = batch.advantages
    if settings.normalize_advantage and size > 1:
        std, mean = torch.std_mean(advantages)
        advantages = (advantages - mean).div_(std + 1e-8)
    ratio = (log_probs - batch.log_probs).exp_()
    gain = advantages * ratio
    unclipped = torch.le(gain, ratio.clamp_(1 - clip, 1 + clip).mul_(advantages))
    error = values - batch.returns
    if clip_values is not None:
        change = values - batch.values
        error = change.clamp(-clip_values, clip_values).add_(batch.values).sub_(batch.returns)
        error.mul_(change.abs() <= clip_values)
    return gain.mul_(unclipped).div_(-size), error.mul_(2 * settings.vf_coef / size)


def approximate_kl(log_ratios: NDArray[np.floating]) -> float:
    """Return how far a policy has moved, in nats: mean(ratio - 1 - log ratio).

    Schulman 2020, "Approximating KL divergence", k3.

    Args:
        log_ratios: `(B,)`: log-probability of each action now, less that before.
    """
    return float((np.exp(log_ratios) - 1 - log_ratios).mean())


def update_figures(
    log_ratios: NDArray[np.floating],
    advantages: NDArray[np.floating],
    errors: NDArray[np.floating],
    clip: float,
) -> dict[str, float]:
    """Return policy loss, value loss, approximate KL and share clipped of what a policy makes of B steps.

    The policy loss is that of `surrogate_gradients`; the value loss is the mean squared error of the values, without
    factor or clipping. The divergence from the policy before the update is that of `approximate_kl`.

    Args:
        log_ratios: `(B,)`: log-probability of each action now, less that before the update.
        advantages: `(B,)`: as the loss takes them.
        errors: `(B,)`: values now, less the returns.
        clip: range of the probability ratio.
    """
    ratios = np.exp(log_ratios)
    gains = np.minimum(ratios * advantages, np.clip(ratios, 1 - clip, 1 + clip) * advantages)
    return {
        "policy_loss": -float(gains.mean()),
        "value_loss": float((errors * errors).mean()),
        "approx_kl": approximate_kl(log_ratios),
        "clip_share": float((np.abs(ratios - 1) > clip).mean()),
    }

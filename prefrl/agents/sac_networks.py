"""The squashed Gaussian of soft actor-critic: actions, their densities, and gradients written out."""

from __future__ import annotations

import torch
from torch import Tensor

from prefrl.agents.distributions import LOG_2PI

LEAST_LOG_STD, MOST_LOG_STD = -20.0, 2.0  # as in Haarnoja et al. 2018 and stable-baselines3
SQUASH_EPSILON = 1e-6  # in log(1 - a^2), as in stable-baselines3


class SquashedGaussian:
    """Actions tanh(mean + std * noise) of a policy's outputs (Haarnoja et al. 2018, appendix C).

    Args:
        outputs: `(B, 2 A)`: means, and logarithms of standard deviations, clamped to [-20, 2].
        noise: `(B, A)`, standard normal.
    """

    def __init__(self, outputs: Tensor, noise: Tensor) -> None:
        means, given = outputs.chunk(2, 1)
        log_stds = given.clamp(LEAST_LOG_STD, MOST_LOG_STD)
        self.noise, self._inside = noise, given == log_stds
        self.spread = log_stds.exp().mul_(noise)
        self.actions = torch.tanh(means + self.spread)
        """`(B, A)`, each in (-1, 1)."""
        self._slope = self.actions.square().neg_().add_(1.0)
        self._log_stds = log_stds

    def log_probs(self) -> Tensor:
        """Return the log-density of each action, `(B,)`."""
        terms = noise_terms(self.noise).sub_(self._log_stds).sub_(torch.log(self._slope + SQUASH_EPSILON))
        return terms.sum(1)

    def by_outputs(self, by_log_probs: float | Tensor, by_actions: Tensor) -> Tensor:
        """Return the gradient of a loss by the outputs, `(B, 2 A)`, the noise being given.

        Args:
            by_log_probs: that by each log-density, the same for all.
            by_actions: `(B, A)`: that by the actions where they enter otherwise.
        """
        squash = self.actions.mul(self._slope).mul_(2.0).div_(self._slope + SQUASH_EPSILON)  # of -log(1 - a^2 + e)
        by_means = squash.mul_(by_log_probs).addcmul_(by_actions, self._slope)
        by_log_stds = (by_means * self.spread).sub_(by_log_probs).mul_(self._inside)
        return torch.cat([by_means, by_log_stds], 1)


def noise_terms(noise: Tensor) -> Tensor:
    """Return the log-density of standard normal noise, term by term."""
    return noise.square().add_(LOG_2PI).mul_(-0.5)

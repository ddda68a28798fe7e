"""IQL: implicit Q-learning (Kostrikov et al. 2022), from the first loss to the last.

Only actions in the data are ever evaluated. V is an expectile of Q over them, Q follows r + discount x V, and the
policy clones the data with the weight exp(temperature x (Q - V)). What differs from the public code: V is evaluated
before either moves, for its loss and for the targets of Q; networks are smaller, and rewards are scaled by
`prefrl.offline.transitions.scaled_rewards`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prefrl.offline.losses import cloning_weights, expectile_loss
from prefrl.offline.policy import OfflinePolicy
from prefrl.offline.settings import LearnerSettings
from prefrl.offline.transitions import Transitions
from prefrl.offline.values import Values


class Iql:
    """Learns values and a policy from transitions.

    Args:
        data: with rewards.
        policy: to be trained.
        settings: how.
        generator: source of the starting weights.
    """

    def __init__(
        self, data: Transitions, policy: OfflinePolicy, settings: LearnerSettings, generator: torch.Generator
    ) -> None:
        self.data, self.policy, self.settings = data, policy, settings
        self.values = Values(data.observations.shape[1], data.action_features.shape[1], settings, generator)

    def update(self, rows: Tensor, pairs: Tensor, remaining: float) -> dict[str, Tensor]:
        """Make one step with transitions of the data; return the figures of it.

        Args:
            rows: `(B,)` int64: which.
            pairs: numbers of comparisons, which are not read.
            remaining: share of the training that is left.
        """
        data, settings = self.data, self.settings
        at = data.at[rows]
        now, following = data.observations[at], data.observations[at + 1]
        q, v, next_v, target_q = self.values.evaluate(now, data.action_features[rows], following)

        v.requires_grad_()
        v_loss = expectile_loss(target_q - v, settings.expectile)
        q.requires_grad_()
        backup = data.rewards[rows] + settings.discount * data.goes_on[rows] * next_v
        q_loss = (q - backup).square().mean(1).sum()
        self.values.learn(*torch.autograd.grad(v_loss + q_loss, [q, v]))

        advantages = target_q - v.detach()
        weights = cloning_weights(advantages, settings.temperature)
        log_probs = self.policy.log_prob(now, data.actions[rows])
        self.policy.step(-weights / len(rows), remaining)  # the gradient of -mean(weight x log-probability)
        return {
            "q_loss": q_loss.detach() / 2,
            "value_loss": v_loss.detach(),
            "policy_loss": -(weights * log_probs).mean(),
            "value": v.detach().mean(),
            "advantage": advantages.mean(),
        }

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        return self.values.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.values.restore(state)

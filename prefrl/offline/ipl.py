"""IPL: inverse preference learning (Hejna & Sadigh 2023), a policy from comparisons without a reward model.

Q itself says what was rewarded: r(s, a) = Q(s, a) - discount x V(s'). The likelihood of the answers under these implied
rewards is the loss of Q, with the square of them to keep them small where nobody was asked. V and the policy are those
of IQL.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prefrl.offline.losses import cloning_weights, expectile_loss, preference_loss
from prefrl.offline.policy import OfflinePolicy
from prefrl.offline.settings import LearnerSettings
from prefrl.offline.transitions import Comparisons, Transitions
from prefrl.offline.values import Values


class Ipl:
    """Learns values and a policy from transitions and comparisons.

    Args:
        data: its rewards are not read.
        comparisons: of segments of the data.
        policy: to be trained.
        settings: how.
        generator: source of the starting weights.
    """

    def __init__(
        self,
        data: Transitions,
        comparisons: Comparisons,
        policy: OfflinePolicy,
        settings: LearnerSettings,
        generator: torch.Generator,
    ) -> None:
        self.data, self.comparisons, self.policy, self.settings = data, comparisons, policy, settings
        self.values = Values(data.observations.shape[1], data.action_features.shape[1], settings, generator)

    def update(self, rows: Tensor, pairs: Tensor, remaining: float) -> dict[str, Tensor]:
        """Make one step with transitions of the data and comparisons; return the figures of it.

        Args:
            rows: `(B,)` int64: which transitions.
            pairs: `(P,)` int64: which comparisons.
            remaining: share of the training that is left.
        """
        data, settings, length = self.data, self.settings, self.comparisons.length
        compared = self.comparisons.steps(pairs)  # (P, 2, k)
        rows = torch.cat([compared.flatten(), rows])
        at = data.at[rows]
        now, following = data.observations[at], data.observations[at + 1]
        q, v, next_v, target_q = self.values.evaluate(now, data.action_features[rows], following)

        v.requires_grad_()
        v_loss = expectile_loss(target_q - v, settings.expectile)
        q.requires_grad_()
        implied = q - settings.discount * data.goes_on[rows] * next_v  # (2, B)
        returns = implied[:, : compared.numel()].reshape(2, len(pairs), 2, length).sum(-1)
        answers_loss = preference_loss(returns[..., 0], returns[..., 1], self.comparisons.preferences[pairs])
        size = implied.square().mean()
        loss = v_loss + 2 * answers_loss + 2 * settings.regularisation * size  # means over two networks
        self.values.learn(*torch.autograd.grad(loss, [q, v]))

        advantages = target_q - v.detach()
        weights = cloning_weights(advantages, settings.temperature)
        log_probs = self.policy.log_prob(now, data.actions[rows])
        self.policy.step(-weights / len(rows), remaining)
        return {
            "answers_loss": answers_loss.detach(),
            "value_loss": v_loss.detach(),
            "policy_loss": -(weights * log_probs).mean(),
            "advantage": advantages.mean(),
        }

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        return self.values.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.values.restore(state)

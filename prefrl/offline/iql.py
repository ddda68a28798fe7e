"""IQL: implicit Q-learning (Kostrikov et al. 2022), from the first loss to the last.

Only actions in the data are ever evaluated. V is an expectile of Q over them, Q follows r + discount x V, and the
policy clones the data with the weight exp(temperature x (Q - V)). What differs from the public code: V is evaluated
once for both its loss and the targets of Q, before either moves; networks are smaller, and rewards are scaled by
`prefrl.offline.transitions.scaled_rewards`.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from prefrl.offline.losses import cloning_weights, expectile_loss
from prefrl.offline.policy import OfflinePolicy
from prefrl.offline.settings import LearnerSettings
from prefrl.offline.transitions import Transitions
from prefrl.rewards.networks import EnsembleMLP, Features


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
        num_seen, num_done = data.observations.shape[1], data.action_features.shape[1]
        self.q = EnsembleMLP(2, num_seen + num_done, settings.hidden, generator)  # two, of which the lesser counts
        self.v = EnsembleMLP(1, num_seen, settings.hidden, generator)
        self.target = copy.deepcopy(self.q).requires_grad_(False)
        self._trained = [*self.q.parameters(), *self.v.parameters()]
        self.optimizer = torch.optim.Adam(self._trained, lr=settings.learning_rate, fused=True)

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
        both = Features(None, torch.cat([now, data.action_features[rows]], 1))

        values = self.v(Features(None, torch.cat([now, following])))[0]
        v, next_v = values[: len(rows)], values[len(rows) :].detach()
        with torch.no_grad():
            target_q = self.target(both).amin(0)
        v_loss = expectile_loss(target_q - v, settings.expectile)
        q = self.q(both)
        backup = data.rewards[rows] + settings.discount * data.goes_on[rows] * next_v
        q_loss = (q - backup).square().mean(1).sum()
        self.optimizer.zero_grad(set_to_none=True)
        (v_loss + q_loss).backward()
        self.optimizer.step()

        advantages = target_q - v.detach()
        weights = cloning_weights(advantages, settings.temperature)
        log_probs = self.policy.log_prob(now, data.actions[rows])
        self.policy.step(-weights / len(rows), remaining)  # the gradient of -mean(weight x log-probability)

        torch._foreach_lerp_(list(self.target.parameters()), list(self.q.parameters()), settings.target_rate)
        return {
            "q_loss": q_loss.detach() / 2,
            "value_loss": v_loss.detach(),
            "policy_loss": -(weights * log_probs).mean(),
            "value": v.detach().mean(),
            "advantage": advantages.mean(),
        }

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        networks = {"q": self.q, "v": self.v, "target": self.target}
        return {name: network.state_dict() for name, network in networks.items()} | {
            "optimizer": self.optimizer.state_dict()
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        for name, network in (("q", self.q), ("v", self.v), ("target", self.target)):
            network.load_state_dict(state[name])
        self.optimizer.load_state_dict(state["optimizer"])

"""Behaviour cloning: the policy that makes the actions in the data likeliest, whoever did better."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prefrl.offline.policy import OfflinePolicy
from prefrl.offline.transitions import Transitions


class Cloning:
    """Learns a policy from transitions.

    Args:
        data: given; its rewards are not read.
        policy: to be trained.
    """

    def __init__(self, data: Transitions, policy: OfflinePolicy) -> None:
        self.data, self.policy = data, policy

    def update(self, rows: Tensor, pairs: Tensor, remaining: float) -> dict[str, Tensor]:
        """Make one step with transitions of the data; arguments as of `Iql.update`."""
        log_probs = self.policy.log_prob(self.data.observations[self.data.at[rows]], self.data.actions[rows])
        self.policy.step(torch.full_like(log_probs, -1 / len(rows)), remaining)
        return {"policy_loss": -log_probs.mean()}

    def state(self) -> dict[str, Any]:
        """Return nothing: the policy is all there is."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Do nothing: there is no state."""

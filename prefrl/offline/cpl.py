"""CPL: contrastive preference learning (Hejna et al. 2024), a policy from comparisons without reward or values.

People compare by how much better than usual a segment is, and the advantage of an action under the best policy is alpha
times its log-probability: so the likelihood of the answers is one of the policy's own log-probabilities. All data are
cloned first, since the answers are about few of them. The noise is that of cloning from then on: with a noise that
could shrink, any difference would count for more and more.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prefrl.offline.cloning import Cloning
from prefrl.offline.losses import contrastive_loss
from prefrl.offline.policy import OfflinePolicy
from prefrl.offline.settings import LearnerSettings
from prefrl.offline.transitions import Comparisons, Transitions


class Cpl:
    """Learns a policy from comparisons.

    Args:
        data: given; its rewards are not read.
        comparisons: of segments of the data.
        policy: to be trained.
        settings: how.
    """

    def __init__(
        self, data: Transitions, comparisons: Comparisons, policy: OfflinePolicy, settings: LearnerSettings
    ) -> None:
        self.data, self.comparisons, self.policy, self.settings = data, comparisons, policy, settings
        self._cloning = Cloning(data, policy)

    def update(self, rows: Tensor, pairs: Tensor, remaining: float) -> dict[str, Tensor]:
        """Make one step with comparisons, or at first with transitions of the data; arguments as of `Ipl.update`."""
        settings, data = self.settings, self.data
        if 1 - remaining < settings.cloning_share:
            return self._cloning.update(rows, pairs, remaining)
        compared = self.comparisons.steps(pairs)  # (P, 2, k)
        steps = compared.flatten()
        log_probs = self.policy.log_prob(data.observations[data.at[steps]], data.actions[steps]).requires_grad_()
        first, second = (settings.contrast * log_probs.view(compared.shape).sum(-1)).unbind(1)
        loss = contrastive_loss(first, second, self.comparisons.preferences[pairs], settings.bias)
        (gradient,) = torch.autograd.grad(loss, log_probs)
        self.policy.step(gradient, remaining, learns_noise=False)
        return {"answers_loss": loss.detach()}

    def state(self) -> dict[str, Any]:
        """Return nothing: the policy is all there is."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Do nothing: there is no state."""

"""How reliable each annotator is, estimated along with the reward.

An annotator answers by the reward with probability rho, and at random else: a mixture of Bradley-Terry (Plackett-Luce,
the cumulative logit) and chance, as in Christiano et al. 2017, s. 2.2.3, but with a share learned for each annotator.
(Chen et al. 2013 learn such shares for comparisons too; their careless annotators answer the opposite, not at random.)
Between passes of the fit rho is set to where the likelihood of the annotator's answers is greatest.

Two choices of ours. A network can learn random answers by heart, after which they look well explained; so each member
judges only the answers that were held out of it (all, where none are). And ties count for nothing here:
the cross-entropy of a tie is never below that of chance. A prior worth a few answers keeps the first estimates calm.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prefrl.rewards.explaining import Examples

START = 0.9  # Christiano et al. 2017, s. 2.2.3 assume a tenth of random answers
PRIOR_ANSWERS = 3.0  # the prior is as if so many comparisons had been answered as expected, for certain, ...
PRIOR_AGAINST = PRIOR_ANSWERS * (1 - START) / (1 + START)  # ... and so many otherwise: most likely is START
LEAST = 0.01  # shares stay in [LEAST, 1 - LEAST]
HALVINGS = 30


class Reliability:
    """Estimated share of each annotator's answers that are not random, by name."""

    def __init__(self) -> None:
        self.shares: dict[str, float] = {}

    def error_rates(self, annotators: Sequence[str]) -> Tensor:
        """Return the share of random answers of each annotator `(A,)` float32."""
        return 1.0 - torch.tensor([self.shares.get(name, START) for name in annotators])

    @torch.no_grad()
    def update(self, examples: Examples) -> None:
        """Estimate the shares anew under the ensemble as it is now."""
        network, counts = examples.ensemble.network, examples.counts
        training = network.training
        network.eval()
        log_likelihood = torch.empty_like(counts)
        for batch in examples.everything(0.0):
            log_likelihood[:, batch.order] = batch.log_likelihood
        network.train(training)
        judged = counts == 0 if examples.data.holds_out else torch.ones_like(counts, dtype=torch.bool)
        judged = judged & ~examples.tied
        chance = -examples.log_num_outcomes
        for number, name in enumerate(examples.data.annotators):
            mine = judged & (examples.annotator_of == number)
            by_reward, by_chance = log_likelihood[mine].double(), chance.expand_as(mine)[mine].double()
            # an answer that several members left out counts once
            weight = mine.any(0).sum().item() / max(int(mine.sum()), 1)
            self.shares[name] = most_likely_share(by_reward, by_chance, weight)

    def rounded(self) -> dict[str, float]:
        """Return the shares by name, for reports."""
        return {name: round(share, 4) for name, share in sorted(self.shares.items())}


def most_likely_share(by_reward: Tensor, by_chance: Tensor, weight: float = 1.0) -> float:
    """Return rho in [0.01, 0.99] with the greatest posterior.

    Args:
        by_reward: `(N,)`: log-likelihood of each answer under the reward.
        by_chance: `(N,)`: under chance.
        weight: how much each of them counts.
    """
    gain = (by_reward - by_chance).exp() - 1
    low, high = LEAST, 1 - LEAST
    for _ in range(HALVINGS):  # the logarithm is concave in rho: its slope falls
        middle = (low + high) / 2
        slope = weight * float((gain / (1 + middle * gain)).sum())
        slope += PRIOR_ANSWERS / (1 + middle) - PRIOR_AGAINST / (1 - middle)
        low, high = (middle, high) if slope > 0 else (low, middle)
    return (low + high) / 2

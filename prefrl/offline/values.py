"""Q, V and the slow copy of Q that IQL and IPL learn, with gradients written out as those of our PPO are.

A learner gives the gradient of its loss by the values that it was handed, a few numbers a step; the chain rule from
there is that of `prefrl.agents.networks.Tower`. Networks this small spend most of their time on bookkeeping otherwise.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from prefrl.agents.adam import FlatAdam
from prefrl.agents.networks import Tower, flatten_parameters
from prefrl.offline.settings import LearnerSettings


class Evaluated(NamedTuple):
    """What values say of B steps."""

    q: Tensor
    """`(2, B)`: of both networks for the actions in the data."""
    v: Tensor
    """`(B,)`: before the steps."""
    next_v: Tensor
    """`(B,)`: after them."""
    target_q: Tensor
    """`(B,)`: the lesser of both slow copies."""


class Values:
    """Two networks for Q, of which the lesser counts, and one for V.

    Args:
        num_seen: size of an observation as the policy sees it.
        num_done: size of the features of an action.
        settings: sizes and rates.
        generator: source of the starting weights.
    """

    def __init__(self, num_seen: int, num_done: int, settings: LearnerSettings, generator: torch.Generator) -> None:
        def tower(num_inputs: int) -> Tower:
            return Tower([num_inputs, *settings.hidden, 1], 1.0, "relu", generator)

        self._q, self._v = [tower(num_seen + num_done) for _ in range(2)], tower(num_seen)
        self._targets = [tower(num_seen + num_done) for _ in range(2)]
        owned = [parameter for network in [*self._q, self._v] for parameter in network.parameters()]
        self._adam = FlatAdam(*flatten_parameters(owned), None)
        slow = [parameter for network in self._targets for parameter in network.parameters()]
        self._slow, _ = flatten_parameters(slow)
        self._fast = self._adam.parameters[: len(self._slow)]  # those of Q come first
        self._slow.copy_(self._fast)
        self._learning_rate, self._rate = settings.learning_rate, settings.target_rate

    @torch.no_grad()
    def evaluate(self, now: Tensor, done: Tensor, following: Tensor) -> Evaluated:
        """Evaluate steps; what `learn` needs is kept.

        Args:
            now: `(B, D)`: observations before each step.
            done: `(B, A)`: features of the actions.
            following: `(B, D)`: observations after it.
        """
        both = torch.cat([now, done], 1)
        next_v = self._v.forward(following)[:, 0]
        target_q = torch.minimum(*(network.forward(both) for network in self._targets))[:, 0]
        q = torch.stack([network.forward(both)[:, 0] for network in self._q])
        return Evaluated(q=q, v=self._v.forward(now)[:, 0], next_v=next_v, target_q=target_q)

    @torch.no_grad()
    def learn(self, d_q: Tensor, d_v: Tensor) -> None:
        """Make one step of Adam, and let the slow copies follow.

        Args:
            d_q: `(2, B)`: gradient of a loss by `q` of the last `evaluate`.
            d_v: `(B,)`: by its `v`.
        """
        for network, gradient in zip([*self._q, self._v], [*d_q, d_v], strict=True):
            network.backward(gradient.unsqueeze(1))
        self._adam.step(self._learning_rate)
        self._slow.lerp_(self._fast, self._rate)

    def value(self, observations: Tensor) -> Tensor:
        """Return V `(B,)` of observations `(B, D)`."""
        return self._v.forward(observations)[:, 0]

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        return {"weights": self._adam.parameters.clone(), "slow": self._slow.clone(), "adam": self._adam.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._adam.parameters.copy_(state["weights"])
        self._slow.copy_(state["slow"])
        self._adam.restore(state["adam"])

"""Teaching a reward network what follows what, before it is fitted to answers (`prefrl.rewards.dynamics`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prefrl.rewards.dynamics import EnsembleDynamics, consistency_loss
from prefrl.rewards.ensemble import RewardEnsemble
from prefrl.segments import Transitions

LEARNING_RATE = 1e-3
"""Of Adam, which takes the place of the paper's plain gradient steps: of those there are too few here."""


class DynamicsLearner:
    """Makes gradient steps on transitions; its optimiser's state lives as long as it does.

    All members see the same minibatches, as in a fit (in the paper each draws its own).

    Args:
        ensemble: whose network is taught.
        num_steps: gradient steps before every fit.
        batch_size: transitions of a gradient step.
    """

    def __init__(self, ensemble: RewardEnsemble, *, num_steps: int, batch_size: int) -> None:
        assert isinstance(ensemble.network, EnsembleDynamics)
        self.ensemble, self.network = ensemble, ensemble.network
        self.num_steps, self.batch_size = num_steps, batch_size
        self.optimizer = torch.optim.Adam(self.network.dynamics_parameters(), lr=LEARNING_RATE, fused=True)

    def learn(self, transitions: Transitions, generator: torch.Generator) -> float:
        """Make the gradient steps; return the mean loss of the last pass over the transitions, in [-1, 1].

        Args:
            transitions: observations, actions and next observations of n steps.
            generator: source of the minibatches.
        """
        inputs, following = self._encoded(transitions)
        size = min(self.batch_size, len(inputs))
        losses: list[Tensor] = []
        order, cursor = torch.empty(0, dtype=torch.int64), 0
        for _ in range(self.num_steps):
            if cursor + size > len(order):  # what is left over would be too few to be standardised by
                order, cursor = torch.randperm(len(inputs), generator=generator), 0
            rows = order[cursor : cursor + size].to(inputs.device)
            cursor += size
            loss = consistency_loss(*self.network.next_encodings(inputs[rows], following[rows]))
            self.optimizer.zero_grad(set_to_none=True)
            loss.sum().backward()  # members do not share parameters
            self.optimizer.step()
            losses.append(loss.detach().mean())
        return float(torch.stack(losses[-max(1, len(inputs) // size) :]).mean())

    def _encoded(self, transitions: Transitions) -> tuple[Tensor, Tensor]:
        """Return the standardised inputs `(n, D)`, and the next states in the same units `(n, S)`."""
        observations, actions, following = transitions
        now = self.ensemble.features(observations, actions, following).vector
        later = self.ensemble.features(following, actions, following).vector
        assert now is not None and later is not None
        return now, later[:, : self.network.num_state_inputs]

    def state(self) -> dict[str, Any]:
        """Return the optimiser's state; the weights are the reward's."""
        return {"optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.optimizer.load_state_dict(state["optimizer"])

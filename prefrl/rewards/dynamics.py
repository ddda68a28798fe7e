"""A reward network that knows the dynamics: from what it tells rewards by, it can also tell what follows.

REED (Metcalf et al. 2024, s. 4): state and action are encoded apart, joined and read by hidden layers. From their
output the reward is told, and before every fit to answers the same layers learn from transitions, which need no
answers, to predict the encoding of the next state (`prefrl.rewards.dynamics_learner`). The loss is minus the cosine
between the prediction and that encoding, through which no gradient flows (SimSiam, Chen and He 2021). Nothing is frozen
afterwards.

Departures: encodings are standardised over the minibatch before they are projected (the public code has a batch norm
with running statistics and weights there): all point nearly the same way otherwise, and every cosine is near 1. The
projection is one layer of 64 units (the code: 256 hidden ones and 128), for a CPU. Rewards have no tanh, as in our
other networks: they are normalised anyway.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from prefrl.rewards.networks import LEAKY_SLOPE, EnsembleMLP, Features, uniform_weights

LEAST_SPREAD = 1e-5  # is added to what encodings are divided by


def consistency_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Return each member's loss `(M,)`, in [-1, 1]: minus the mean cosine of predictions and targets `(M, B, P)`.

    Metcalf et al. 2024, s. 4. No gradient flows into the targets.
    """
    return -functional.cosine_similarity(predicted, target.detach(), dim=-1).mean(-1)


class EnsembleDynamics(EnsembleMLP):
    """M perceptrons that encode state and action apart, and can be asked what follows (`prefrl.rewards.dynamics`).

    As a reward it is a perceptron whose first layer has no weights between the state and the units of the action, nor
    the other way round; these stay 0. Beside it are the layers that learning the dynamics needs: one that predicts the
    encoding of the next state, one that projects encodings, and one that predicts projections.

    Args:
        num_members: M.
        num_inputs: of the state and of the action, `(S, A)`.
        encoders: units that encode the state and the action.
        hidden: units of each hidden layer that reads both.
        generator: source of the starting weights.
    """

    PROJECTION = 64

    def __init__(
        self,
        num_members: int,
        num_inputs: tuple[int, int],
        encoders: tuple[int, int],
        hidden: tuple[int, ...],
        generator: torch.Generator,
    ) -> None:
        super().__init__(num_members, sum(num_inputs), (sum(encoders), *hidden), generator)
        self.num_state_inputs, self.num_state_units = num_inputs[0], encoders[0]
        (of_state, of_action), (units, more) = num_inputs, encoders

        def layer(i: int, o: int) -> nn.Parameter:
            return uniform_weights((num_members, i, o), i, generator)

        with torch.no_grad():
            first, bias = self.weights[0].zero_(), self.biases[0]
            first[:, :of_state, :units], first[:, of_state:, units:] = layer(of_state, units), layer(of_action, more)
            bias[..., :units] = uniform_weights((num_members, 1, units), of_state, generator)
            bias[..., units:] = uniform_weights((num_members, 1, more), of_action, generator)
        last = hidden[-1] if hidden else sum(encoders)
        self.following, self.following_bias = layer(last, units), nn.Parameter(torch.zeros(num_members, 1, units))
        self.project, self.predict_in, self.predict_out = (
            layer(i, self.PROJECTION) for i in (units, self.PROJECTION, self.PROJECTION)
        )

    def reward_parameters(self) -> list[nn.Parameter]:
        """Return what rewards depend on."""
        return [*self.weights, *self.biases]

    def dynamics_parameters(self) -> list[nn.Parameter]:
        """Return what is learned from transitions: all but the layer that tells the reward."""
        beside = [self.following, self.following_bias, self.project, self.predict_in, self.predict_out]
        return [*list(self.weights)[:-1], *list(self.biases)[:-1], *beside]

    def forward(self, features: Features) -> Tensor:
        """Return raw rewards `(M, B)`."""
        assert features.vector is not None
        return (self._read(features.vector) * self.weights[-1].mT).sum(-1) + self.biases[-1].squeeze(-1)

    def _read(self, vector: Tensor) -> Tensor:
        """Return what the last hidden layer says of states and actions `(B, S + A)`: `(M, B, H)`."""
        x = vector.expand(len(self.weights[0]), -1, -1)
        states, units = self.num_state_inputs, self.num_state_units
        action = torch.baddbmm(self.biases[0][..., units:], x[..., states:], self.weights[0][:, states:, units:])
        x = torch.cat([self.encode_states(vector[..., :states]), functional.leaky_relu_(action, LEAKY_SLOPE)], dim=-1)
        for weight, bias in list(zip(self.weights, self.biases, strict=True))[1:-1]:
            x = functional.leaky_relu_(torch.baddbmm(bias, x, weight), LEAKY_SLOPE)
        return x

    def encode_states(self, states: Tensor) -> Tensor:
        """Return the encodings `(M, B, E)` of states `(B, S)` or `(M, B, S)`, standardised as inputs are."""
        num, units = self.num_state_inputs, self.num_state_units
        weight, bias = self.weights[0][:, :num, :units], self.biases[0][..., :units]
        return functional.leaky_relu_(torch.baddbmm(bias, states.expand(len(weight), -1, -1), weight), LEAKY_SLOPE)

    def next_encodings(self, vector: Tensor, following: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is predicted of the next states' projected encodings, and these: `(M, B, P)` each.

        Args:
            vector: states and actions `(B, S + A)`, standardised.
            following: the next states `(B, S)`, standardised likewise.
        """
        predicted = self._projected(torch.baddbmm(self.following_bias, self._read(vector), self.following))
        predicted = functional.leaky_relu(predicted @ self.predict_in, LEAKY_SLOPE) @ self.predict_out
        with torch.no_grad():
            target = self._projected(self.encode_states(following))
        return predicted, target

    def _projected(self, encodings: Tensor) -> Tensor:
        std, mean = torch.std_mean(encodings, dim=1, keepdim=True, correction=0)
        standard = (encodings - mean) / (std + LEAST_SPREAD)
        return functional.leaky_relu(standard, LEAKY_SLOPE) @ self.project

"""Several perceptrons of one shape, evaluated at once: the networks of agents that learn from a replay buffer.

Gradients are written out, as those of PPO are: building an autograd graph takes longer than all the arithmetic of
networks this small.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from prefrl.agents.networks import ACTIVATIONS
from prefrl.errors import UserError


class Towers(nn.Module):
    """N multilayer perceptrons of one shape, evaluated together, that know their own gradient.

    Their start is that of `torch.nn.Linear`, as in stable-baselines3's off-policy algorithms.

    Args:
        num: N.
        sizes: of the inputs, the hidden layers and the outputs.
        activation: "relu" or "tanh".
        generator: source of the starting weights.

    Raises:
        UserError: another activation.
    """

    def __init__(self, num: int, sizes: Sequence[int], activation: str, generator: torch.Generator) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise UserError(f"activation_fn must be one of {', '.join(ACTIVATIONS)}. Received {activation!r}")
        self.num, self.relu = num, activation == "relu"
        weights, biases = [], []
        for fan_in, fan_out in itertools.pairwise(sizes):
            bound = 1 / math.sqrt(fan_in)
            weights.append(torch.empty(num, fan_in, fan_out).uniform_(-bound, bound, generator=generator))
            biases.append(torch.empty(num, 1, fan_out).uniform_(-bound, bound, generator=generator))
        self.weights = nn.ParameterList([nn.Parameter(weight, requires_grad=False) for weight in weights])
        self.biases = nn.ParameterList([nn.Parameter(bias, requires_grad=False) for bias in biases])
        self._layers = list(zip(self.weights, self.biases, strict=True))
        self._inputs: list[Tensor] = []

    def parameters_of(self, number: int) -> list[Tensor]:
        """Return views of the weights and biases of one of the N."""
        return [parameter[number] for parameter in self.parameters()]

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs `(N, B, out)` of inputs `(B, in)`; what `backward` and `by_inputs` need is kept."""
        x = x.expand(self.num, *x.shape)
        self._inputs = [x]
        *hidden, (weight, bias) = self._layers
        for w, b in hidden:
            x = torch.baddbmm(b, x, w)
            x = x.relu_() if self.relu else x.tanh_()
            self._inputs.append(x)
        return torch.baddbmm(bias, x, weight)

    def backward(self, gradient: Tensor) -> None:
        """Write the gradient of a loss by every parameter to its `.grad`.

        Args:
            gradient: `(N, B, out)`: that by the outputs of the last `forward`.
        """
        for layer in range(len(self._layers) - 1, -1, -1):
            (weight, bias), x = self._layers[layer], self._inputs[layer]
            assert weight.grad is not None and bias.grad is not None
            torch.bmm(x.transpose(1, 2), gradient, out=weight.grad)
            torch.sum(gradient, 1, keepdim=True, out=bias.grad)
            if layer > 0:
                gradient = self._through(layer, gradient)

    def by_inputs(self, gradient: Tensor) -> Tensor:
        """Return the gradient of a loss by the inputs of the last `forward`, `(B, in)`, summed over the networks.

        Args:
            gradient: `(N, B, out)`: that by its outputs.
        """
        for layer in range(len(self._layers) - 1, 0, -1):
            gradient = self._through(layer, gradient)
        return torch.bmm(gradient, self._layers[0][0].transpose(1, 2)).sum(0)

    def _through(self, layer: int, gradient: Tensor) -> Tensor:
        """Return the gradient by what the layer before put out, before its activation."""
        output = self._inputs[layer]
        gradient = torch.bmm(gradient, self._layers[layer][0].transpose(1, 2))
        if self.relu:
            return gradient.mul_(output.sign())  # a sixth of the time of threshold_backward on a CPU
        return torch.ops.aten.tanh_backward(gradient, output)

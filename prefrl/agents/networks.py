"""Actor-critic networks: a policy head and a value, with flat parameters and gradients.

The multilayer perceptron carries its gradient written out, the convolutional network leaves it to autograd; both are
used in the same way: `forward`, then `backward` with the gradients of the loss by the outputs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from prefrl.errors import UserError

HIDDEN_GAIN = math.sqrt(2)  # orthogonal starts as in stable-baselines3 (Engstrom et al. 2020 found them to matter)
POLICY_GAIN, VALUE_GAIN = 0.01, 1.0
LEAST_IMAGE = 36  # height and width that the network of Mnih et al. 2015 can read


def flatten_parameters(parameters: Iterable[nn.Parameter]) -> tuple[Tensor, Tensor]:
    """Move parameters into one vector, of which they become views, and their gradients into another; return both.

    Clipping and the optimiser's step are then a few operations on vectors.
    """
    owned = list(parameters)
    flat = torch.cat([parameter.detach().reshape(-1) for parameter in owned])
    gradient = torch.zeros_like(flat)
    begin = 0
    for parameter in owned:
        end = begin + parameter.numel()
        parameter.data = flat[begin:end].view_as(parameter)
        parameter.grad = gradient[begin:end].view_as(parameter)
        begin = end
    return flat, gradient


def _tanh_layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return tanh(x W + b) as 2 sigmoid(2 (x W + b)) - 1, which takes half the time on a CPU."""
    y = torch.addmm(bias, x, weight, beta=2, alpha=2).sigmoid_()
    return y.add_(y).sub_(1.0)


def _relu_layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.addmm(bias, x, weight).relu_()


def _relu_backward(gradient: Tensor, output: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward(gradient, output, 0.0)


Layer = tuple[Callable[[Tensor, Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]
ACTIVATIONS: dict[str, Layer] = {
    "tanh": (_tanh_layer, torch.ops.aten.tanh_backward),
    "relu": (_relu_layer, _relu_backward),
}
"""Hidden layers, and the gradient by their inputs' sum of the gradient by their outputs and these."""


class Tower(nn.Module):
    """A multilayer perceptron, its weights `(in, out)`, that knows its own gradient.

    Args:
        sizes: of the inputs, the hidden layers and the outputs.
        gain: of the last layer's orthogonal start.
        activation: "tanh" or "relu".
        generator: source of the starting weights.
    """

    def __init__(self, sizes: Sequence[int], gain: float, activation: str, generator: torch.Generator) -> None:
        super().__init__()
        weights = [torch.empty(i, o) for i, o in itertools.pairwise(sizes)]
        for layer, weight in enumerate(weights):
            last = layer == len(weights) - 1
            nn.init.orthogonal_(weight, gain if last else HIDDEN_GAIN, generator=generator)
        self.weights = nn.ParameterList([nn.Parameter(weight, requires_grad=False) for weight in weights])
        self.biases = nn.ParameterList([nn.Parameter(torch.zeros(n), requires_grad=False) for n in sizes[1:]])
        self._layers = list(zip(self.weights, self.biases, strict=True))
        self.activation = activation
        self._hidden, self._hidden_backward = ACTIVATIONS[activation]
        self._inputs: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs `(B, out)` of inputs `(B, in)`; what `backward` needs is kept."""
        self._inputs = [x]
        *hidden, (weight, bias) = self._layers
        for w, b in hidden:
            x = self._hidden(x, w, b)
            self._inputs.append(x)
        return torch.addmm(bias, x, weight)

    def backward(self, gradient: Tensor) -> None:
        """Write the gradient of a loss by every parameter to its `.grad`.

        Args:
            gradient: `(B, out)`: that by the outputs of the last `forward`.
        """
        for layer in range(len(self._layers) - 1, -1, -1):
            (weight, bias), x = self._layers[layer], self._inputs[layer]
            assert weight.grad is not None and bias.grad is not None
            torch.mm(x.t(), gradient, out=weight.grad)
            torch.sum(gradient, 0, out=bias.grad)
            if layer > 0:
                gradient = self._hidden_backward(torch.mm(gradient, weight.t()), x)


class MlpActorCritic(nn.Module):
    """Separate perceptrons for policy and value (stable-baselines3's `MlpPolicy`).

    Args:
        num_inputs: size of the observation vector.
        num_outputs: outputs of the policy.
        generator: source of the starting weights.
        hidden: units of the hidden layers of the policy and of the value.
        activation: "tanh" or "relu".
    """

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        generator: torch.Generator,
        hidden: tuple[Sequence[int], Sequence[int]] = ((64, 64), (64, 64)),
        activation: str = "tanh",
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise UserError(f"activation_fn must be one of {', '.join(ACTIVATIONS)}. Received {activation!r}")
        self.actor = Tower([num_inputs, *hidden[0], num_outputs], POLICY_GAIN, activation, generator)
        self.critic = Tower([num_inputs, *hidden[1], 1], VALUE_GAIN, activation, generator)

    no_graph = staticmethod(torch.inference_mode)
    """Context in which to use it: no operation is watched by autograd."""

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Return policy outputs `(B, num_outputs)` and values `(B,)` of observations `(B, num_inputs)`."""
        return self.actor.forward(observations), self.critic.forward(observations)[:, 0]

    def policy(self, observations: Tensor) -> Tensor:
        """Return policy outputs `(B, num_outputs)` alone."""
        return self.actor.forward(observations)

    def backward(self, d_outputs: Tensor, d_values: Tensor) -> None:
        """Write the gradient by every parameter to its `.grad`, given those by the outputs of the last `forward`."""
        self.actor.backward(d_outputs)
        self.critic.backward(d_values.unsqueeze(1))


def small_image_layers(channels: int) -> list[nn.Module]:
    """Return layers for images of any size: kernels of 3, strides 1, 2, 2 and a margin of one pixel.

    `(B, channels, H, W)` becomes `(B, 64, ceil(H / 4), ceil(W / 4))`.
    """
    layers: list[nn.Module] = []
    for filters, stride in ((32, 1), (64, 2), (64, 2)):
        layers += [nn.Conv2d(channels, filters, 3, stride, padding=1), nn.ReLU()]
        channels = filters
    return layers


class CnnActorCritic(nn.Module):
    """The network of Mnih et al. 2015 under both heads (stable-baselines3's `CnnPolicy`).

    Images smaller than 36 x 36, for which it is too large, are read by the layers of `small_image_layers` in its place.

    Args:
        image_shape: (C, H, W) of uint8 images.
        num_outputs: outputs of the policy.
        generator: source of the starting weights.
        bf16: run the convolutions in bfloat16 (GPU).
    """

    FEATURES = 512

    def __init__(
        self, image_shape: tuple[int, int, int], num_outputs: int, generator: torch.Generator, bf16: bool = False
    ) -> None:
        super().__init__()
        self.bf16 = bf16
        channels, height, width = image_shape
        layers: list[nn.Module] = []
        if min(height, width) < LEAST_IMAGE:
            layers = small_image_layers(channels)
            channels, height, width = 64, (height + 3) // 4, (width + 3) // 4
        else:
            for filters, kernel, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
                layers += [nn.Conv2d(channels, filters, kernel, stride), nn.ReLU()]
                channels, height, width = filters, (height - kernel) // stride + 1, (width - kernel) // stride + 1
        self.trunk = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(channels * height * width, self.FEATURES), nn.ReLU()
        )
        self.heads = nn.Linear(self.FEATURES, num_outputs + 1)
        for module in self.trunk:
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.orthogonal_(module.weight, HIDDEN_GAIN, generator=generator)
                module.get_parameter("bias").data.zero_()
        nn.init.orthogonal_(self.heads.weight.data[:num_outputs], POLICY_GAIN, generator=generator)
        nn.init.orthogonal_(self.heads.weight.data[num_outputs:], VALUE_GAIN, generator=generator)
        self.heads.bias.data.zero_()
        self._outputs: Tensor | None = None

    no_graph = staticmethod(torch.no_grad)
    """Context in which to use it: `forward` turns autograd on where it needs it."""

    def _heads(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16, cache_enabled=False):
            features = self.trunk(images.float() / 255.0)
        return functional.linear(features.float(), self.heads.weight, self.heads.bias)

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Return policy outputs `(B, num_outputs)` and values `(B,)` of images `(B, C, H, W)`.

        In training mode the graph is kept for `backward`.
        """
        with torch.set_grad_enabled(self.training):
            self._outputs = self._heads(observations)
        both = self._outputs.detach()
        return both[:, :-1], both[:, -1]

    @torch.no_grad()
    def policy(self, observations: Tensor) -> Tensor:
        """Return policy outputs `(B, num_outputs)` alone."""
        return self._heads(observations)[:, :-1]

    def backward(self, d_outputs: Tensor, d_values: Tensor) -> None:
        """Write the gradient by every parameter to its `.grad`, given those by the outputs of the last `forward`."""
        assert self._outputs is not None and self._outputs.requires_grad
        for parameter in self.parameters():
            assert parameter.grad is not None
            parameter.grad.zero_()
        self._outputs.backward(torch.cat([d_outputs, d_values.unsqueeze(1)], 1))
        self._outputs = None

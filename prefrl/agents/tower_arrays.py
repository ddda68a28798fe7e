"""The perceptrons of off-policy agents on the CPU: what `Towers` do, on the same memory, in less time.

Each of N perceptrons works by itself, so that two processors can do two of them, and in memory that is used again and
again. Products are NumPy's, activations and Adam PyTorch's: whichever was measured to take less time. The formulas are
those of `towers.Towers`, to which tests hold them.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prefrl.agents.towers import Towers
from prefrl.threads import SideBySide

Floats = NDArray[np.float32]


class _Room:
    """Memory for what one perceptron makes of B inputs.

    Args:
        size: B.
        widths: of the outputs of each layer.
    """

    def __init__(self, size: int, widths: list[int]) -> None:
        self.outputs, self.output_tensors = _pairs(size, widths)
        self.gradients, self.gradient_tensors = _pairs(size, widths[:-1])
        self.chosen, self.chosen_tensors = _pairs(size, widths[:-1])
        self.ones = np.ones(size, np.float32)


def _pairs(size: int, widths: list[int]) -> tuple[list[Floats], list[Tensor]]:
    arrays = [np.empty((size, width), np.float32) for width in widths]
    return arrays, [torch.from_numpy(values) for values in arrays]


class ArrayTower:
    """One of `Towers`, with room of its own for what it makes of a batch.

    Args:
        towers: whose weights and gradients are used.
        number: which of them.
    """

    def __init__(self, towers: Towers, number: int = 0) -> None:
        self._weights: list[Floats] = [weight[number].numpy() for weight in towers.weights]
        self._biases = [bias[number, 0] for bias in towers.biases]
        self._by_weights = [_gradient_of(weight)[number].numpy() for weight in towers.weights]
        self._by_biases = [_gradient_of(bias)[number, 0].numpy() for bias in towers.biases]
        self._to_output = towers.weights[-1][number, :, 0]
        self._relu = towers.relu
        self._widths = [weight.shape[1] for weight in self._weights]
        self._room = _Room(0, self._widths)
        self._inputs: list[Floats] = []

    def forward(self, x: Floats) -> Floats:
        """Return outputs `(B, out)` of inputs `(B, in)`; they and what `backward` needs stand until the next call."""
        if len(x) != len(self._room.ones):
            self._room = _Room(len(x), self._widths)
        outputs, tensors = self._room.outputs, self._room.output_tensors
        self._inputs = [x, *outputs[:-1]]
        for layer, weight in enumerate(self._weights):
            np.dot(self._inputs[layer], weight, out=outputs[layer])
            tensors[layer].add_(self._biases[layer])
            if layer < len(self._weights) - 1:
                if self._relu:
                    tensors[layer].relu_()
                else:
                    tensors[layer].tanh_()
        return outputs[-1]

    def backward(self, gradient: Floats, side_by_side: SideBySide | None = None) -> None:
        """Write the gradient of a loss by every parameter into the array of its `.grad`.

        Args:
            gradient: `(B, out)`: that by the outputs of the last `forward`.
            side_by_side: does the two products of a layer at once; None: one after the other.
        """
        for layer in range(len(self._weights) - 1, 0, -1):
            by_outputs, gradient = gradient, self._room.gradients[layer - 1]
            if side_by_side is None:
                self._by_parameters(layer, by_outputs)
                self._through(layer, by_outputs)
            else:
                side_by_side(partial(self._through, layer, by_outputs), partial(self._by_parameters, layer, by_outputs))
        self._by_parameters(0, gradient)

    def _by_parameters(self, layer: int, gradient: Floats) -> None:
        np.dot(self._inputs[layer].T, gradient, out=self._by_weights[layer])
        np.dot(self._room.ones, gradient, out=self._by_biases[layer])  # their sum

    def _through(self, layer: int, gradient: Floats) -> None:
        """Find the gradient by what the layer before put out, before its activation."""
        room, before = self._room, layer - 1
        np.dot(gradient, self._weights[layer].T, out=room.gradients[before])
        self._slope(room.gradient_tensors[before], room.output_tensors[before], room.gradient_tensors[before])

    def _slope(self, gradient: Tensor, output: Tensor, out: Tensor) -> None:
        """Write the gradient by an activation's inputs, given that by its outputs."""
        if self._relu:
            torch.ops.aten.threshold_backward.grad_input(gradient, output, 0.0, grad_input=out)
        else:
            torch.ops.aten.tanh_backward.grad_input(gradient, output, grad_input=out)

    def by_inputs(self, by_output: float, begin: int, rows: NDArray[np.int64] | None = None) -> Floats:
        """Return the gradient of `by_output` times the one output by the inputs from `begin` on: `(M, in - begin)`.

        Args:
            by_output: a factor.
            begin: first of the inputs that are asked for.
            rows: `(M,)`: of the batch of the last `forward`; None: all of it.
        """
        room, last = self._room, len(self._weights) - 1
        num = len(room.ones) if rows is None else len(rows)
        by_last = (self._to_output * by_output).expand(num, -1)
        if last == 0:
            return by_last[:, begin:].contiguous().numpy()  # all rows are one in memory
        for layer in range(last - 1, -1, -1):
            output, gradient = room.output_tensors[layer], room.gradient_tensors[layer][:num]
            if rows is not None:
                room.outputs[layer].take(rows, 0, out=room.chosen[layer][:num], mode="clip")
                output = room.chosen_tensors[layer][:num]
            if layer < last - 1:
                np.dot(room.gradients[layer + 1][:num], self._weights[layer + 1].T, out=room.gradients[layer][:num])
            self._slope(by_last if layer == last - 1 else gradient, output, gradient)
        found: Floats = np.dot(room.gradients[0][:num], self._weights[0][begin:].T)
        return found


def _gradient_of(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None, "parameters are flattened first"
    return parameter.grad

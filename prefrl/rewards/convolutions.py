"""The convolutions of an `EnsembleCNN` on a CPU: what its `forward` says, part by part and member by member.

Convolution, batch norm, leaky ReLU and dropout of filters, each over all images of a minibatch, are bound by memory:
the first of Atari's layers alone gives 200 MB for three members, which every operation reads and writes and the system
zeroes anew. Here a few images at a time go through them while they lie in the cache, channels last, which oneDNN's
convolutions need not reorder, and each member apart, since grouped convolutions take twice as long. Only what a
convolution gives and its gradient are kept whole, because batch norm needs the means over all images, forward and
backward: Ioffe & Szegedy 2015, sections 3 and 3.1 (there without the scale and shift that are learned).

Sums are taken in another order than `EnsembleCNN.forward` takes them on a GPU; nothing else differs, and the draws of
dropout are the same ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

NUMBERS_AT_ONCE = 1 << 20  # of one member, 4 MiB: the last cache holds it with what is made of it
_BACKWARD = torch.ops.aten.convolution_backward.default
_LEAKY_BACKWARD = torch.ops.aten.leaky_relu_backward.default


class Layers(NamedTuple):
    """What all layers have in common, and their strides."""

    strides: tuple[int, ...]
    padding: int
    slope: float
    """Of the leaky ReLU, for negative numbers."""
    eps: float
    """Added to the variances."""


class Norm(NamedTuple):
    """Means and variances of a layer's filters over all images, `(M, F)` each."""

    mean: Tensor
    variance: Tensor
    """Biased: what they are normed by."""


def convolve(images: Tensor, kernels: Sequence[Tensor], norms: Sequence[Norm], layers: Layers) -> Tensor:
    """Return what the last layer gives for images, with norms that are known and without dropout: no gradients.

    Args:
        images: `(B, C, H, W)` uint8, on the CPU.
        kernels: of each layer, `(M, F, C, K, K)`.
        norms: of each layer.
        layers: the rest.

    Returns:
        `(M, B, F * H * W)`.
    """
    num_members = len(kernels[0])
    shapes = _shapes(images, kernels, layers)
    out = kernels[0].new_empty(num_members, len(images), int(np.prod(shapes[-1])))
    for part in _parts(len(images), max(int(np.prod(shape)) for shape in shapes)):
        read = _read(images[part], kernels[0].dtype)
        for member in range(num_members):
            x = read
            for kernel, norm, stride in zip(kernels, norms, layers.strides, strict=True):
                x = functional.conv2d(x, kernel[member], stride=stride, padding=layers.padding)
                x = functional.leaky_relu_(_normed(x, norm, member, layers), layers.slope)
            out[member, part] = x.flatten(1)
    return out


class Rooms:
    """Large arrays that one gradient step leaves to the next: the system takes long to prepare new ones."""

    def __init__(self) -> None:
        self._free: list[Tensor] = []

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return an array that holds anything."""
        for number, room in enumerate(self._free):
            if room.shape == shape and room.dtype == dtype:
                return self._free.pop(number)
        return torch.empty(shape, dtype=dtype)

    def leave(self, rooms: list[Tensor]) -> None:
        """Take back arrays that nothing reads any more, in place of those that nobody took."""
        self._free = rooms


def convolve_to_learn(
    images: Tensor, kernels: Sequence[Tensor], masks: Sequence[Tensor], layers: Layers, rooms: Rooms
) -> tuple[Tensor, list[Norm]]:
    """Return what the last layer gives for images, normed by them and with dropout; kernels get gradients.

    Args:
        images: `(B, C, H, W)` uint8, on the CPU.
        kernels: of each layer, `(M, F, C, K, K)`.
        masks: by what each layer's filters are multiplied in each image, `(B, M, F)`; none: by nothing.
        layers: the rest.
        rooms: what the step before has left.

    Returns:
        `(M, B, F * H * W)`, and the norms of each layer by all images, with unbiased variances.
    """
    flat, *moments = _Learning.apply(images, layers, list(masks), rooms, *kernels)  # type: ignore[no-untyped-call]
    norms = []
    for mean, variance, shape in zip(moments[::2], moments[1::2], _shapes(images, kernels, layers)[1:], strict=True):
        count = len(images) * shape[1] * shape[2]
        norms.append(Norm(mean, variance * (count / max(count - 1, 1))))
    return flat, norms


class _Learning(torch.autograd.Function):
    """`convolve_to_learn`; activations are made again where the gradient needs them."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, layers: Layers, masks: list[Tensor], rooms: Rooms, *kernels: Tensor
    ) -> tuple[Tensor, ...]:
        num_members, dtype = len(kernels[0]), kernels[0].dtype
        shapes = _shapes(images, kernels, layers)
        given: list[Tensor] = []  # what each convolution gives (M, B, H, W, F)
        norms: list[Norm] = []
        forward = _Forward(images, given, norms, masks, layers, dtype)
        for number, (kernel, stride) in enumerate(zip(kernels, layers.strides, strict=True)):
            given.append(rooms.take((num_members, len(images), *_channels_last(shapes[number + 1])), dtype))
            sums = [_Moments(shapes[number + 1][0]) for _ in range(num_members)]
            for part in _parts(len(images), int(max(np.prod(shapes[number]), np.prod(shapes[number + 1])))):
                for member in range(num_members):
                    x = forward.activations(number - 1, member, part)
                    x = functional.conv2d(x, kernel[member], stride=stride, padding=layers.padding)
                    given[number][member, part] = x.permute(0, 2, 3, 1)
                    sums[member].add(x)
            norms.append(Norm(*(torch.stack(rows).to(dtype) for rows in zip(*map(_Moments.take, sums), strict=True))))
        last = len(kernels) - 1
        flat = torch.stack([forward.activations(last, member, slice(None)).flatten(1) for member in range(num_members)])
        ctx.forward_pass, ctx.shapes, ctx.rooms = forward, shapes, rooms
        ctx.save_for_backward(*kernels)
        moments = [part for norm in norms for part in norm]
        ctx.mark_non_differentiable(*moments)
        return flat, *moments

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        kernels, forward, shapes = ctx.saved_tensors, ctx.forward_pass, ctx.shapes
        used = list(forward.given)

        def like(given: Tensor) -> Tensor:
            used.append(ctx.rooms.take(given.shape, given.dtype))
            return used[-1]

        layers, (num_members, num_images) = forward.layers, gradients[0].shape[:2]
        last = len(kernels) - 1
        of_kernels = [torch.zeros_like(kernel, memory_format=torch.contiguous_format) for kernel in kernels]
        # gradient of what a layer's norm gives (M, B, H, W, F), and its sums: alone, and times what the norm gives
        above, sums = like(forward.given[last]), _Sums(num_members, shapes[-1][0])
        for member in range(num_members):
            for part in _parts(num_images, int(np.prod(shapes[-1]))):
                gradient = gradients[0][member, part].unflatten(1, shapes[-1])
                above[member, part] = forward.through(last, member, part, gradient, sums).permute(0, 2, 3, 1)
        for number in range(last, -1, -1):
            below = like(forward.given[number - 1]) if number else None
            below_sums = _Sums(num_members, shapes[number][0])
            stride, padding = [layers.strides[number]] * 2, [layers.padding] * 2
            means = sums.means(num_images * int(np.prod(shapes[number + 1][1:])))
            for part in _parts(num_images, int(max(np.prod(shapes[number]), np.prod(shapes[number + 1])))):
                for member in range(num_members):
                    x = forward.activations(number - 1, member, part)
                    gradient = forward.through_norm(number, member, part, above, means)
                    kernel = kernels[number][member]
                    of_input, of_kernel, _ = _BACKWARD(
                        gradient, x, kernel, None, stride, padding, [1, 1], False, [0, 0], 1, [number > 0, True, False]
                    )
                    of_kernels[number][member] += of_kernel
                    if below is not None:
                        passed = forward.through(number - 1, member, part, of_input, below_sums)
                        below[member, part] = passed.permute(0, 2, 3, 1)
            if below is not None:
                above, sums = below, below_sums
        ctx.forward_pass = None
        ctx.rooms.leave(used)
        return None, None, None, None, *of_kernels


class _Forward:
    """What a forward pass has kept, and what can be made of it again.

    Args:
        images: `(B, C, H, W)` uint8.
        given: what each convolution gives `(M, B, H, W, F)`; more are added.
        norms: of each layer; more are added.
        masks: of dropout `(B, M, F)`, or none.
        layers: the rest.
        dtype: of the numbers.
    """

    def __init__(
        self,
        images: Tensor,
        given: list[Tensor],
        norms: list[Norm],
        masks: list[Tensor],
        layers: Layers,
        dtype: torch.dtype,
    ) -> None:
        self.images, self.given, self.norms, self.masks = images, given, norms, masks
        self.layers, self.dtype = layers, dtype
        self._last: tuple[slice, Tensor] | None = None

    def activations(self, number: int, member: int, part: slice) -> Tensor:
        """Return what a layer gives for a part of the images; layer -1 gives the images."""
        if number < 0:
            if self._last is None or self._last[0] != part:  # all members read the same ones
                self._last = part, _read(self.images[part], self.dtype)
            return self._last[1]
        x = functional.leaky_relu_(self.normed(number, member, part), self.layers.slope)
        return x.mul_(self._mask(number, member, part)) if self.masks else x

    def normed(self, number: int, member: int, part: slice) -> Tensor:
        """Return what a layer's norm gives for a part of the images `(b, F, H, W)`, channels last."""
        x = self.given[number][member, part].permute(0, 3, 1, 2)
        return _normed(x, self.norms[number], member, self.layers)

    def _mask(self, number: int, member: int, part: slice) -> Tensor:
        return self.masks[number][part, member, :, None, None]

    def through(self, number: int, member: int, part: slice, gradient: Tensor, sums: _Sums) -> Tensor:
        """Return the gradient of what a layer's norm gives, from that of what the layer gives, and add it to `sums`."""
        if self.masks:
            gradient = gradient * self._mask(number, member, part)
        normed = self.normed(number, member, part)
        gradient = _LEAKY_BACKWARD(gradient, normed, self.layers.slope, False)
        sums.add(member, gradient, normed)
        return gradient

    def through_norm(self, number: int, member: int, part: slice, above: Tensor, means: Tensor) -> Tensor:
        """Return the gradient of what a convolution gives, from that of what its norm gives, and the means of that."""
        normed = self.normed(number, member, part)
        mean, mean_product = means[:, member, :, None, None].to(self.dtype)
        gradient = above[member, part].permute(0, 3, 1, 2) - normed.mul_(mean_product).add_(mean)
        scale = (self.norms[number].variance[member] + self.layers.eps).rsqrt()
        return gradient.mul_(scale[:, None, None])


class _Moments:
    """Mean and variance of numbers that come in parts, joined as Chan, Golub & LeVeque 1979 do: nothing cancels."""

    def __init__(self, num_filters: int) -> None:
        self._mean = torch.zeros(num_filters, dtype=torch.float64)
        self._squares = torch.zeros(num_filters, dtype=torch.float64)
        self._count = 0

    def add(self, values: Tensor) -> None:
        """Add a part `(b, F, H, W)`, channels last."""
        rows = values.permute(0, 2, 3, 1).flatten(0, 2)
        mean = rows.mean(0)
        squares = (rows - mean).square_().sum(0).double()
        count = self._count + len(rows)
        apart = mean.double() - self._mean
        self._mean += apart * (len(rows) / count)
        self._squares += squares + apart.square() * (self._count * len(rows) / count)
        self._count = count

    def take(self) -> tuple[Tensor, Tensor]:
        """Return the mean and the biased variance `(F,)` float64."""
        return self._mean, self._squares / self._count


class _Sums:
    """Sums over images and places, of gradients and of their products with what the norm gave."""

    def __init__(self, num_members: int, num_filters: int) -> None:
        self._sums = torch.zeros(2, num_members, num_filters, dtype=torch.float64)

    def add(self, member: int, gradient: Tensor, normed: Tensor) -> None:
        """Add a part, `(b, F, H, W)` each; `normed` is written over."""
        self._sums[0, member] += gradient.sum((0, 2, 3)).double()
        self._sums[1, member] += normed.mul_(gradient).sum((0, 2, 3)).double()

    def means(self, count: int) -> Tensor:
        """Return the means `(2, M, F)`."""
        return self._sums / count


def _normed(x: Tensor, norm: Norm, member: int, layers: Layers) -> Tensor:
    return functional.batch_norm(x, norm.mean[member], norm.variance[member], training=False, eps=layers.eps)


def _read(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a part of the images as numbers from 0 to 1, channels last."""
    return images.contiguous(memory_format=torch.channels_last).to(dtype).div_(255.0)


def _shapes(images: Tensor, kernels: Sequence[Tensor], layers: Layers) -> list[tuple[int, int, int]]:
    """Return the shape of an image and of what each layer makes of it, (F, H, W)."""
    _, channels, height, width = images.shape
    shapes = [(channels, height, width)]
    for kernel, stride in zip(kernels, layers.strides, strict=True):
        reach = kernel.shape[-1] - 2 * layers.padding
        height, width = ((size - reach) // stride + 1 for size in (height, width))
        shapes.append((kernel.shape[1], height, width))
    return shapes


def _parts(num_images: int, numbers: int) -> Iterator[slice]:
    """Yield parts of the images, by how many numbers of each are in use at once."""
    size = max(1, NUMBERS_AT_ONCE // numbers)
    for begin in range(0, num_images, size):
        yield slice(begin, min(begin + size, num_images))


def _channels_last(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    filters, height, width = shape
    return height, width, filters

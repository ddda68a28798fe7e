"""Networks whose M members are evaluated as one: every parameter has a leading axis M.

Each takes `Features` and returns raw rewards `(M, B)`. Features given once `(B, ...)` are read by every member.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from prefrl.errors import UserError
from prefrl.rewards.convolutions import Layers, Norm, Rooms, convolve, convolve_to_learn

LEAKY_SLOPE = 0.01  # Christiano et al. 2017, app. A


class Features(NamedTuple):
    """What reward networks read, B transitions."""

    images: Tensor | None
    """`(B, C, H, W)` uint8, or None."""
    vector: Tensor | None
    """`(B, D)` float32, or None."""
    length: int = 1
    """Rows that follow each other in one segment: B is a multiple of it. Only networks with a memory read it."""


class EnsembleNetwork(Protocol):
    """A module of M members in one."""

    def __call__(self, features: Features) -> Tensor:
        """Return raw rewards `(M, B)` float32 of features of B transitions."""


def uniform_weights(shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> nn.Parameter:
    """Return weights of a layer with so many inputs, drawn as torch draws them."""
    bound = 1 / math.sqrt(fan_in)  # as torch.nn.Linear and Conv2d start
    return nn.Parameter((torch.rand(shape, generator=generator) * 2 - 1) * bound)


class EnsembleMLP(nn.Module):
    """M multilayer perceptrons with leaky ReLU (Christiano et al. 2017, app. A.1: two hidden layers of 64).

    Args:
        num_members: M.
        num_inputs: D, size of the feature vector.
        hidden: units of each hidden layer.
        generator: source of the starting weights.
    """

    def __init__(self, num_members: int, num_inputs: int, hidden: tuple[int, ...], generator: torch.Generator) -> None:
        super().__init__()
        pairs = list(itertools.pairwise([num_inputs, *hidden, 1]))
        self.weights = nn.ParameterList([uniform_weights((num_members, i, o), i, generator) for i, o in pairs])
        self.biases = nn.ParameterList([uniform_weights((num_members, 1, o), i, generator) for i, o in pairs])

    def forward(self, features: Features) -> Tensor:
        """Return raw rewards `(M, B)`."""
        assert features.vector is not None
        num_members = self.weights[0].shape[0]
        x = features.vector.expand(num_members, -1, -1)
        *hidden, last = zip(self.weights, self.biases, strict=True)
        for weight, bias in hidden:
            x = functional.leaky_relu_(torch.baddbmm(bias, x, weight), LEAKY_SLOPE)
        weight, bias = last
        return (x * weight.mT).sum(-1) + bias.squeeze(-1)  # a matrix of one column is slow to multiply by

    @torch.no_grad()
    def change_inputs(self, shift: Tensor, scale: Tensor) -> None:
        """Give the same rewards for inputs x' as it gave for x = scale x' + shift; both `(D,)`."""
        weight, bias = self.weights[0], self.biases[0]
        bias += torch.einsum("d,mdh->mh", shift, weight)[:, None]
        weight *= scale[:, None]


class EnsembleCNN(nn.Module):
    """M convolutional networks for images (Christiano et al. 2017, app. A.2), run as grouped convolutions on a GPU.

    Kernels 7, 5, 3, 3 with strides 3, 2, 1, 1 and 16 filters each, batch norm and dropout 0.5 after every convolution,
    then a layer of 64; leaky ReLU throughout. Dropout is of whole filters. Vector features (actions), where given, join
    before the layer of 64. Images smaller than 43 x 43, for which these are too large, are read with three kernels of 3
    and a margin of one pixel, which fits any size. Their strides are 1, 2, 2; or 2, 2, 1 for images of 28 x 28 pixels
    and more, which end as large and would else cost several times what images of 43 x 43 do.

    On a CPU the same is computed part by part, but for small images (`prefrl.rewards.convolutions`).

    Args:
        num_members: M.
        image_shape: (C, H, W).
        num_inputs: size of the feature vector beside the image; 0 for none.
        generator: source of the starting weights.
        dropout: share of the filters dropped while fitting.
    """

    KERNELS = (7, 5, 3, 3)
    STRIDES = (3, 2, 1, 1)
    LEAST = 43
    SMALL_KERNELS, SMALL_STRIDES = (3, 3, 3), (1, 2, 2)
    MIDDLE, MIDDLE_STRIDES = 28 * 28, (2, 2, 1)
    FILTERS = 16
    HIDDEN = 64

    def __init__(
        self,
        num_members: int,
        image_shape: tuple[int, int, int],
        num_inputs: int,
        generator: torch.Generator,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.num_members, self.dropout = num_members, dropout
        channels, height, width = image_shape
        small = min(height, width) < self.LEAST
        self.strides: tuple[int, ...] = self.STRIDES
        if small:
            self.strides = self.SMALL_STRIDES if height * width < self.MIDDLE else self.MIDDLE_STRIDES
        if self.strides == self.MIDDLE_STRIDES:  # saved with the weights, which fit other strides too, but differ there
            self.register_buffer("moves", torch.tensor(self.strides))
        self.padding = 1 if small else 0
        kernels, norms = [], []
        for kernel, stride in zip(self.SMALL_KERNELS if small else self.KERNELS, self.strides, strict=True):
            shape = (num_members, self.FILTERS, channels, kernel, kernel)
            kernels.append(uniform_weights(shape, channels * kernel * kernel, generator))
            norms.append(nn.BatchNorm2d(num_members * self.FILTERS, affine=False))
            reach = kernel - 2 * self.padding
            channels, height, width = self.FILTERS, (height - reach) // stride + 1, (width - reach) // stride + 1
        self.kernels = nn.ParameterList(kernels)
        self.norms = nn.ModuleList(norms)
        self.head = EnsembleMLP(num_members, channels * height * width + num_inputs, (self.HIDDEN,), generator)
        self._rooms = Rooms()

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        """Take over weights with the strides that they were learned with: those of before had 1, 2, 2 at every size."""
        moves = self._buffers.get("moves")
        if moves is not None:
            held = state_dict.setdefault(f"{prefix}moves", torch.tensor(self.SMALL_STRIDES))
            if tuple(held.tolist()) not in (self.SMALL_STRIDES, self.MIDDLE_STRIDES):
                raise ValueError(f"strides {held.tolist()} are those of no network")
            self.strides = tuple(held.tolist())
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, features: Features) -> Tensor:
        """Return raw rewards `(M, B)`."""
        assert features.images is not None
        images = features.images
        large = self.padding == 0  # small images take as long either way
        in_parts = large and images.device.type == "cpu" and (self.training or not torch.is_grad_enabled())
        flat = self._convolve_in_parts(images) if in_parts else self._convolve(images)  # (M, B, F)
        if features.vector is not None:
            flat = torch.cat([flat, features.vector.expand(self.num_members, -1, -1)], dim=-1)
        return self.head(Features(None, flat))

    def _convolve(self, images: Tensor) -> Tensor:
        x = images.float() / 255.0
        batch, groups = len(x), 1  # the first convolutions of all members read the same images
        for kernel, stride, norm in zip(self.kernels, self.strides, self.norms, strict=True):
            x = functional.conv2d(x, kernel.flatten(0, 1), stride=stride, padding=self.padding, groups=groups)
            groups = self.num_members
            x = functional.leaky_relu(norm(x), LEAKY_SLOPE)
            x = functional.dropout2d(x, self.dropout, self.training)
        return x.reshape(batch, self.num_members, -1).transpose(0, 1)

    def _convolve_in_parts(self, images: Tensor) -> Tensor:
        """Return what `_convolve` does, on a CPU."""
        norms = [norm for norm in self.norms if isinstance(norm, nn.BatchNorm2d)]
        layers = Layers(self.strides, self.padding, LEAKY_SLOPE, norms[0].eps)
        members = (self.num_members, self.FILTERS)
        kernels = list(self.kernels)
        running = []
        for norm in norms:
            assert norm.running_mean is not None and norm.running_var is not None
            running.append(Norm(norm.running_mean.view(members), norm.running_var.view(members)))
        if not self.training:
            return convolve(images, kernels, running, layers)
        masks = []
        if self.dropout:
            kept = 1 - self.dropout  # drawn as functional.dropout2d draws them
            empty = [kernel.new_empty(len(images), *members) for kernel in kernels]
            masks = [mask.bernoulli_(kept).div_(kept) for mask in empty]
        flat, found = convolve_to_learn(images, kernels, masks, layers, self._rooms)
        for norm, held, new in zip(norms, running, found, strict=True):
            assert norm.momentum is not None and norm.num_batches_tracked is not None
            held.mean.lerp_(new.mean, norm.momentum)  # views of the norm's own
            held.variance.lerp_(new.variance, norm.momentum)
            norm.num_batches_tracked += 1
        return flat

    def train(self, mode: bool = True) -> EnsembleCNN:
        """Begin to learn, or end, and give back the memory that takes."""
        if not mode:
            self._rooms = Rooms()
        return super().train(mode)

    def change_inputs(self, shift: Tensor, scale: Tensor) -> None:
        """As `EnsembleMLP.change_inputs`, for the vector features."""
        before = self.head.weights[0].shape[1] - len(scale)  # what the convolutions give stays as it is
        self.head.change_inputs(functional.pad(shift, (before, 0)), functional.pad(scale, (before, 0), value=1.0))


class EnsembleOf(nn.Module):
    """M copies of any user module, evaluated together with `torch.func`.

    Args:
        factory: called M times; each result maps features `(B, D)` float32 to raw rewards `(B,)` or `(B, 1)`. If the
            observations are images, it is given images `(B, C, H, W)` uint8 and, where the reward reads actions too,
            their features `(B, D)` as a second argument.
        num_members: M.

    Raises:
        UserError: the factory does not make a new module at every call.
    """

    def __init__(self, factory: Callable[[], nn.Module], num_members: int) -> None:
        super().__init__()
        members = [factory() for _ in range(num_members)]
        for member in members:
            if not isinstance(member, nn.Module):
                raise UserError(f"The network factory must return a torch.nn.Module. Received {type(member).__name__}")
        if len({id(member) for member in members}) < num_members:
            raise UserError("The network factory returned the same module twice; expected a new one at every call.")
        params, buffers = torch.func.stack_module_state(members)
        self._names = list(params)
        self.stacked = nn.ParameterList([nn.Parameter(p.detach(), p.requires_grad) for p in params.values()])
        self._buffer_names = list(buffers)
        for index, value in enumerate(buffers.values()):
            self.register_buffer(f"stacked_buffer_{index}", value)
        self._skeleton = [members[0].to("meta")]  # in a list: its parameters are not ours

    def forward(self, features: Features) -> Tensor:
        """Return raw rewards `(M, B)`."""
        given = tuple(part for part in (features.images, features.vector) if part is not None)
        skeleton = self._skeleton[0].train(self.training)
        buffers = {name: getattr(self, f"stacked_buffer_{i}") for i, name in enumerate(self._buffer_names)}

        def call(params: dict[str, Tensor], member_buffers: dict[str, Tensor]) -> Tensor:
            return torch.func.functional_call(skeleton, (params, member_buffers), given)

        named = dict(zip(self._names, self.stacked, strict=True))
        rewards: Tensor = torch.vmap(call, randomness="different")(named, buffers)
        if rewards.ndim == 3 and rewards.shape[-1] == 1:
            rewards = rewards.squeeze(-1)
        if rewards.ndim != 2:
            raise UserError(f"A reward network must return (B,) or (B, 1) values; got {tuple(rewards.shape[1:])}.")
        return rewards

"""Reward networks by name, and a user's own: what makes one member, evaluated for all members together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prefrl.errors import ANYTHING, UserError, first_line
from prefrl.rewards.dynamics import EnsembleDynamics
from prefrl.rewards.networks import EnsembleCNN, EnsembleMLP, EnsembleOf, Features
from prefrl.rewards.transformer import EnsembleTransformer
from prefrl.seams import Registry, check_call


@dataclass(frozen=True, kw_only=True)
class NetworkInputs:
    """What a reward network reads."""

    num_inputs: int
    """D: size of the feature vector `(B, D)` float32, standardised; 0 for none."""
    image_shape: tuple[int, int, int] | None
    """(C, H, W) of the images `(B, C, H, W)` uint8, which come before the vector; None for none."""
    hidden: tuple[int, ...]
    """Units of the hidden layers, as `RewardSettings.hidden` has them."""
    num_action_inputs: int = 0
    """How many of the feature vector, the last of it, tell the action; 0 where it holds none, or what follows too."""
    encoders: tuple[int, int] = (20, 10)
    """Units that encode state and action, as `RewardSettings.encoders` has them."""


MakeNetwork = Callable[[NetworkInputs, int, torch.Generator], nn.Module]
"""Makes M members in one (see `EnsembleNetwork`), given what they read, M, and the source of their starting weights."""


def _mlp(inputs: NetworkInputs, num_members: int, generator: torch.Generator) -> nn.Module:
    if inputs.image_shape is not None:
        raise UserError("The reward network 'mlp' reads vectors, and these observations are images. Use cnn or auto.")
    return EnsembleMLP(num_members, inputs.num_inputs, inputs.hidden, generator)


def _cnn(inputs: NetworkInputs, num_members: int, generator: torch.Generator) -> nn.Module:
    if inputs.image_shape is None:
        raise UserError("The reward network 'cnn' reads images, and these observations are vectors. Use mlp or auto.")
    return EnsembleCNN(num_members, inputs.image_shape, inputs.num_inputs, generator)


def _transformer(inputs: NetworkInputs, num_members: int, generator: torch.Generator) -> nn.Module:
    if inputs.image_shape is not None:
        raise UserError("The reward network 'transformer' reads vectors, and these observations are images. Use cnn.")
    return EnsembleTransformer(num_members, inputs.num_inputs, inputs.hidden[0], generator)


def _dynamics(inputs: NetworkInputs, num_members: int, generator: torch.Generator) -> nn.Module:
    if inputs.image_shape is not None:
        raise UserError(
            "The reward network 'dynamics' reads vectors, and these observations are images. Use cnn or auto; or wrap "
            "the environment, with --wrapper, in one whose observations are vectors."
        )
    sizes = inputs.num_inputs - inputs.num_action_inputs, inputs.num_action_inputs
    if not all(sizes):
        raise UserError(
            "The reward network 'dynamics' reads a state and an action: --reward.inputs sa, and an observation space "
            f"that holds numbers. Received {sizes[0]} numbers of a state and {sizes[1]} of an action"
        )
    return EnsembleDynamics(num_members, sizes, inputs.encoders, inputs.hidden, generator)


def _auto(inputs: NetworkInputs, num_members: int, generator: torch.Generator) -> nn.Module:
    return (_mlp if inputs.image_shape is None else _cnn)(inputs, num_members, generator)


def members_of(factory: Callable[[], nn.Module], num_members: int, seed: int) -> EnsembleOf:
    """Return M copies of a user's module, its starting weights drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return EnsembleOf(factory, num_members)


def _adopt(thing: Any, where: str) -> MakeNetwork:
    check_call(thing, where, ("inputs",))

    def make(inputs: NetworkInputs, num_members: int, generator: torch.Generator) -> nn.Module:
        network = members_of(lambda: thing(inputs), num_members, generator.initial_seed()).eval()
        _try(network, inputs, where, num_members)
        return network

    return make


@torch.no_grad()
def _try(network: nn.Module, inputs: NetworkInputs, where: str, num_members: int) -> None:
    """Let a user's network score three transitions, so that one that cannot is refused before anything is asked."""
    images = None if inputs.image_shape is None else torch.zeros(3, *inputs.image_shape, dtype=torch.uint8)
    vector = torch.zeros(3, inputs.num_inputs) if inputs.num_inputs else None
    given = " and ".join(str(tuple(part.shape)) for part in (images, vector) if part is not None)
    try:
        rewards = network(Features(images, vector))
    except UserError:
        raise
    except ANYTHING as error:
        raise UserError(
            f"The {where} cannot read inputs {given}: {type(error).__name__}: {first_line(error)}"
        ) from error
    if rewards.shape != (num_members, 3):
        raise UserError(
            f"The {where} must return (B,) or (B, 1) values for inputs {given}, B = 3; got {tuple(rewards.shape[1:])}."
        )


NETWORKS: Registry[MakeNetwork] = Registry(
    "reward network",
    {"auto": _auto, "mlp": _mlp, "cnn": _cnn, "transformer": _transformer, "dynamics": _dynamics},
    _adopt,
)
"""Every reward network that settings can name."""

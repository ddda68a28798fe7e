"""What reads small images in stable-baselines3's policies, whose own network needs 36 x 36."""

from __future__ import annotations

from typing import Any

import gymnasium
import torch
from gymnasium import spaces
from torch import Tensor, nn

from prefrl.agents.networks import LEAST_IMAGE, small_image_layers
from prefrl.errors import require
from prefrl.spaces import is_image

layers = require("stable_baselines3.common.torch_layers", "train")


def extractor_for(space: gymnasium.Space[Any]) -> dict[str, Any]:
    """Return the arguments of a policy for images, the channels first, that are too small for stable-baselines3's own.

    Empty where there are none, so that its own is taken.
    """
    if isinstance(space, spaces.Dict):
        small = any(_is_small(leaf) for leaf in space.spaces.values())
        return {"features_extractor_class": SmallCombinedExtractor} if small else {}
    return {"features_extractor_class": SmallImageExtractor} if _is_small(space) else {}


def _is_small(space: gymnasium.Space[Any]) -> bool:
    return is_image(space) and min((space.shape or ())[1:]) < LEAST_IMAGE


class SmallImageExtractor(layers.BaseFeaturesExtractor):  # type: ignore[misc, name-defined]
    """`small_image_layers`, then a layer of `features_dim`; images `(B, C, H, W)` float32 in [0, 1]."""

    def __init__(self, observation_space: spaces.Box, features_dim: int = 512) -> None:
        super().__init__(observation_space, features_dim)
        channels, height, width = observation_space.shape
        flat = 64 * ((height + 3) // 4) * ((width + 3) // 4)
        self.network = nn.Sequential(
            *small_image_layers(channels), nn.Flatten(), nn.Linear(flat, features_dim), nn.ReLU()
        )

    def forward(self, observations: Tensor) -> Tensor:
        """Return features `(B, features_dim)`."""
        features: Tensor = self.network(observations)
        return features


class SmallCombinedExtractor(layers.BaseFeaturesExtractor):  # type: ignore[misc, name-defined]
    """As stable-baselines3's `CombinedExtractor`, with images of any size; 256 features of each."""

    def __init__(self, observation_space: spaces.Dict, cnn_output_dim: int = 256) -> None:
        super().__init__(observation_space, features_dim=1)
        parts: dict[str, nn.Module] = {}
        size = 0
        for key, leaf in observation_space.spaces.items():
            if is_image(leaf):
                kind: Any = SmallImageExtractor if _is_small(leaf) else layers.NatureCNN
                parts[key], width = kind(leaf, features_dim=cnn_output_dim), cnn_output_dim
            else:
                parts[key], width = nn.Flatten(), layers.get_flattened_obs_dim(leaf)
            size += width
        self.extractors = nn.ModuleDict(parts)
        self._features_dim = size

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Return features `(B, size)`, joined in the order of the keys of the space."""
        return torch.cat([part(observations[key]) for key, part in self.extractors.items()], dim=1)

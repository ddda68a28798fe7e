"""What a policy sees: observations as tensors, vectors normalised by running statistics."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from prefrl.agents.moments import RunningMoments
from prefrl.errors import UserError
from prefrl.spaces import Batch, SpaceEncoder, channels_first, is_image

CLIP = 10.0  # standard deviations, as stable-baselines3's VecNormalize


class PolicyInputs:
    """Turns batches of observations into the input of a network.

    Images stay uint8 with the channels first; everything else becomes one float32 vector per observation, shifted and
    scaled by running statistics where `normalize` is set.

    Args:
        space: of the observations.
        normalize: keep running statistics and normalise by them.
        device: where the inputs go.

    Raises:
        UserError: images beside other observations, or `normalize` for what is not all floats.
    """

    def __init__(self, space: gymnasium.Space[Any], normalize: bool | None, device: torch.device) -> None:
        self.device = device
        self.images = is_image(space)
        leaves = list(space.spaces.values()) if isinstance(space, spaces.Dict) else [space]
        if len(leaves) > 1 and any(is_image(leaf) for leaf in leaves):
            raise UserError(
                "This PPO reads images or vectors, not dictionaries that hold both; observations are "
                f"{space}. Use --agent sb3-ppo."
            )
        floats = all(isinstance(leaf, spaces.Box) and np.dtype(leaf.dtype).kind == "f" for leaf in leaves)
        if normalize and not floats:
            raise UserError(
                f"normalize_observations needs observations that are all boxes of floats; these are {space}. "
                "Leave it out."
            )
        self.shape: tuple[int, ...]
        if self.images:
            assert isinstance(space, spaces.Box)
            self._channels_last = not channels_first(space)
            height, width, channels = space.shape if self._channels_last else (*space.shape[1:], space.shape[0])
            self.shape = (channels, height, width)
            self.moments = None
        else:
            self._encoder = SpaceEncoder(space)
            self.shape = (self._encoder.size,)
            wanted = floats if normalize is None else normalize
            self.moments = RunningMoments(self.shape) if wanted else None
        self._refresh()

    def _refresh(self) -> None:
        if self.moments is not None:
            self._mean = np.asarray(self.moments.mean, np.float32)
            self._scale = np.asarray(1 / np.sqrt(self.moments.visible_variance()), np.float32)

    def encode(self, observations: Batch) -> Tensor:
        """Return the input `(B, *shape)` for observations `(B, ...)`."""
        if self.images:
            images = torch.from_numpy(np.asarray(observations)).to(self.device)
            return images.permute(0, 3, 1, 2) if self._channels_last else images
        return torch.from_numpy(self.encode_vectors(observations)).to(self.device)

    def encode_vectors(self, observations: Batch) -> NDArray[np.float32]:
        """Return the input `(B, num)` for observations `(B, ...)` that are no images."""
        vectors: NDArray[np.float32] = self._encoder.encode(observations)
        if self.moments is None:
            return vectors
        vectors = vectors - self._mean
        vectors *= self._scale
        np.maximum(vectors, -CLIP, out=vectors)
        return np.minimum(vectors, CLIP, out=vectors)

    def learn(self, observations: Batch) -> None:
        """Take observations `(B, ...)` into the statistics, if there are any."""
        if self.moments is not None:
            self.moments.update(self._encoder.encode(observations))
            self._refresh()

    def state(self) -> dict[str, Any]:
        """Return the statistics."""
        return {} if self.moments is None else self.moments.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        if self.moments is not None:
            self.moments.restore(state)
            self._refresh()

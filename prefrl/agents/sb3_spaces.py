"""Between the spaces of environments and those that stable-baselines3 knows.

stable-baselines3 counts choices from 0, wants boxes of at least one axis and one number, images with the channels first
and of values up to 255, and keys that torch takes as names of modules. Each leaf of an observation space is translated
by itself; what is translated can be turned back exactly.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from torch import nn

from prefrl.agents.action_scale import ActionScale
from prefrl.spaces import Array, Batch, channels_first, is_image

LARGEST = 255  # value of an image


class ObservationTranslation:
    """Turns batches of observations of an environment into those of a space for stable-baselines3, and back.

    Args:
        space: of the environment.
    """

    def __init__(self, space: gymnasium.Space[Any]) -> None:
        self.space: gymnasium.Space[Any]
        """stable-baselines3's."""
        self._leaves: dict[str, tuple[str, _Leaf]] | None = None
        if isinstance(space, spaces.Dict):
            names = _module_names(list(space.spaces))
            self._leaves = {key: (names[key], _Leaf(leaf)) for key, leaf in space.spaces.items()}
            self.space = spaces.Dict([(name, leaf.space) for name, leaf in self._leaves.values()])
        else:
            self._leaf = _Leaf(space)
            self.space = self._leaf.space

    def forth(self, batch: Batch) -> Batch:
        """Return observations `(B, ...)` of the environment as stable-baselines3 takes them: copies."""
        if self._leaves is None:
            return self._leaf.forth(batch)  # type: ignore[arg-type]
        return {name: leaf.forth(batch[key]) for key, (name, leaf) in self._leaves.items()}

    def back(self, batch: Batch) -> Batch:
        """Return observations `(B, ...)` of stable-baselines3 as the environment gave them."""
        if self._leaves is None:
            return self._leaf.back(batch)  # type: ignore[arg-type]
        return {key: leaf.back(batch[name]) for key, (name, leaf) in self._leaves.items()}


class _Leaf:
    """One array of an observation."""

    def __init__(self, space: gymnasium.Space[Any]) -> None:
        self._given = space
        self._shift: Any = 0
        self._times = 1
        self._turned = False  # channels moved to the front
        self._nothing = False  # it holds no numbers, and is seen as a 0
        self.space = space
        if isinstance(space, spaces.Discrete):
            self._shift = int(space.start)
            self.space = spaces.Discrete(int(space.n))
        elif isinstance(space, spaces.MultiDiscrete):
            self._shift = np.asarray(space.start, np.int64).reshape(-1)
            self.space = spaces.MultiDiscrete(np.asarray(space.nvec, np.int64).reshape(-1))
        elif isinstance(space, spaces.MultiBinary):
            self.space = spaces.MultiBinary(int(np.prod(space.shape)))
        elif is_image(space):
            assert isinstance(space, spaces.Box)
            self._turned = not channels_first(space)
            self._times = LARGEST // max(1, int(space.high.max()))
            shape = (space.shape[2], *space.shape[:2]) if self._turned else space.shape
            self.space = spaces.Box(0, LARGEST, shape, np.uint8)
        elif isinstance(space, spaces.Box):
            dtype = np.uint8 if space.dtype == np.bool_ else space.dtype
            shape = space.shape or (1,)
            low, high = space.low.astype(dtype).reshape(shape), space.high.astype(dtype).reshape(shape)
            self._nothing = not space.low.size
            self.space = spaces.Box(0, 1, (1,), dtype) if self._nothing else spaces.Box(low, high, dtype=dtype)

    def forth(self, values: Array) -> Array:
        if self._nothing:
            return np.zeros((len(values), 1), self.space.dtype)
        if self._turned:
            values = np.moveaxis(values, -1, 1)
        shape, dtype = (len(values), *(self.space.shape or ())), self.space.dtype
        changed = values.reshape(shape)
        if self._times != 1:
            changed = changed * self._times
        return np.array(changed - self._shift if np.any(self._shift) else changed, dtype)

    def back(self, values: Array) -> Array:
        values = np.asarray(values)
        if self._nothing:
            return np.zeros((len(values), *(self._given.shape or ())), self._given.dtype)
        changed = values.reshape(len(values), *(self.space.shape or ()))
        if np.any(self._shift):
            changed = changed + self._shift
        if self._times != 1:
            changed = changed // self._times
        if self._turned:
            changed = np.moveaxis(changed, 1, -1)
        given: Array = changed.reshape(len(values), *(self._given.shape or ())).astype(self._given.dtype, copy=False)
        return given


class ActionTranslation:
    """Turns batches of actions of stable-baselines3 into an environment's.

    Args:
        space: of the environment.
        scale: act in units of half the range where a box is bounded; see `ActionScale`.
    """

    def __init__(self, space: gymnasium.Space[Any], *, scale: bool = False) -> None:
        self._given = space
        self._box: ActionScale | None = None
        self._shift: Any = 0
        self.space: gymnasium.Space[Any]
        """stable-baselines3's."""
        if isinstance(space, spaces.Box):
            self._box = ActionScale(space, scale)
            box = _apart(space) if not scale and np.dtype(space.dtype).kind == "f" else _apart(self._box.scaled_space)
            self.space = box if box.shape else spaces.Box(box.low.reshape(1), box.high.reshape(1))
        elif isinstance(space, spaces.Discrete):
            self._shift = int(space.start)
            self.space = spaces.Discrete(int(space.n))
        elif isinstance(space, spaces.MultiDiscrete):
            self._shift = np.asarray(space.start, np.int64)
            self.space = spaces.MultiDiscrete(np.asarray(space.nvec, np.int64).reshape(-1))
        else:
            self.space = spaces.MultiBinary(int(np.prod(space.shape or ())))

    def to_env(self, actions: Array) -> Array:
        """Return actions `(B, ...)` as the environment takes them."""
        given = np.asarray(actions).reshape(len(actions), *(self._given.shape or ()))
        if self._box is not None:
            return self._box.to_env(given)
        shifted: Array = (given + self._shift).astype(self._given.dtype)
        return shifted


def _apart(box: spaces.Box) -> spaces.Box:
    """Return a box whose bounds differ everywhere: stable-baselines3 divides by their distance."""
    fixed = box.low == box.high
    return spaces.Box(box.low - fixed, box.high + fixed, dtype=box.dtype) if fixed.any() else box


def _module_names(keys: list[str]) -> dict[str, str]:
    """Return names that `torch.nn.ModuleDict` takes; where it takes a key, the key."""
    taken = nn.ModuleDict()
    refused = [key for key in keys if not key or "." in key or hasattr(taken, key)]
    names = {key: key for key in keys}
    for number, key in enumerate(refused):
        name = f"entry {number}"
        while name in keys:
            name += "'"
        names[key] = name
    return names

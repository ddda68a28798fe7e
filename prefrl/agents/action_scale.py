"""Actions in units of half their range, so that noise means the same in every environment."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from prefrl.spaces import Array

UNBOUNDED = 1e6  # a range as wide as this is no statement about what actions are like


class ActionScale:
    """Turns the actions of a policy into those of an environment.

    Where an action is bounded, -1 and 1 are its bounds and 0 is their middle; elsewhere it stays as it is. What lies
    beyond the bounds is clipped.

    Args:
        space: of the environment's actions.
        wanted: False: actions stay as they are, and are clipped.
    """

    def __init__(self, space: spaces.Box, wanted: bool = True) -> None:
        self.space = space
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        bounded = space.bounded_below & space.bounded_above & (high - low < UNBOUNDED) & wanted
        low, high = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
        self._middle, self._unit = (high + low) / 2, (high - low) / 2
        self.scaled_space = spaces.Box(
            np.where(bounded, -1.0, space.low), np.where(bounded, 1.0, space.high), dtype=np.float32
        )
        """The policy's actions that come to no others."""
        self._changes = bool((self._middle != 0).any() or (self._unit != 1).any())

    def to_env(self, actions: Array) -> Array:
        """Return actions `(B, ...)` as the environment takes them."""
        if self._changes:
            actions = actions * self._unit + self._middle
        clipped: Array = np.clip(actions, self.space.low, self.space.high).astype(self.space.dtype)
        return clipped

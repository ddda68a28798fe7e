"""Actions in units of half their range, so that noise means the same in every environment."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from prefrl.spaces import Array

UNBOUNDED = 1e6  # a range as wide as this is no statement about what actions are like


class ActionScale:
    """Turns the actions of a policy into those of an environment, each number by itself.

    Where an action is bounded on both sides, -1 and 1 are its bounds and 0 is their middle. Elsewhere it stays in the
    environment's units, and 0 is the value nearest to 0 within the bounds: of [0, inf) and (-inf, inf) it is 0, of
    [1000, inf) it is 1000. What lies beyond the bounds is clipped; integers are rounded.

    Args:
        space: of the environment's actions.
        wanted: False: actions stay as they are, and are clipped and rounded.
    """

    def __init__(self, space: spaces.Box, wanted: bool = True) -> None:
        self.space = space
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        bounded = space.bounded_below & space.bounded_above & (high - low < UNBOUNDED) & wanted
        nearest = np.clip(0.0, low, high) if wanted else np.zeros(space.shape)
        with np.errstate(invalid="ignore"):  # the middle of what has none
            self._middle = np.where(bounded, (high + low) / 2, nearest)
            self._unit = np.where(bounded, (high - low) / 2, 1.0)
        self.scaled_space = spaces.Box(
            np.where(bounded, -1.0, low - self._middle).astype(np.float32),
            np.where(bounded, 1.0, high - self._middle).astype(np.float32),
            dtype=np.float32,
        )
        """The policy's actions that come to no others."""
        self._changes = bool((self._middle != 0).any() or (self._unit != 1).any())
        self._whole = np.dtype(space.dtype).kind != "f"

    def to_env(self, actions: Array) -> Array:
        """Return actions `(B, ...)` as the environment takes them."""
        if self._changes:
            actions = actions * self._unit + self._middle
        if self._whole:
            actions = np.rint(actions)
        clipped: Array = np.clip(actions, self.space.low, self.space.high).astype(self.space.dtype)
        return clipped

    def from_env(self, actions: Array) -> Array:
        """Return actions `(B, ...)` of the environment as the policy would give them: the inverse of `to_env`."""
        given = np.asarray(actions, np.float64)
        return (given - self._middle) / self._unit if self._changes else given

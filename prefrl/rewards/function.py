"""The seam between rewards and whatever uses them."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from prefrl.spaces import Array, Batch


class RewardFunction(Protocol):
    """Any callable that scores a batch of transitions; a learned reward, a formula, a remote judge."""

    def __call__(self, observations: Batch, actions: Array, next_observations: Batch) -> NDArray[np.floating]:
        """Return one reward per transition: `(B,)` float for observations, actions and next observations `(B, ...)`."""

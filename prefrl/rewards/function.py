"""The seam between rewards and whatever uses them."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from prefrl.errors import UserError
from prefrl.spaces import Array, Batch, all_finite
from prefrl.values import unmasked


class RewardFunction(Protocol):
    """Any callable that scores a batch of transitions; a learned reward, a formula, a remote judge."""

    def __call__(self, observations: Batch, actions: Array, next_observations: Batch) -> NDArray[np.floating]:
        """Return one reward per transition: `(B,)` float for observations, actions and next observations `(B, ...)`."""


def checked_rewards(
    reward: RewardFunction, observations: Batch, actions: Array, next_observations: Batch, ignored: Array | None = None
) -> NDArray[np.float64]:
    """Return the rewards `(B,)` float64 of B transitions; 0 for the rows of `ignored`, whatever the function says.

    Raises:
        UserError: not one finite number per transition.
    """
    scores = np.asarray(unmasked(reward(observations, actions, next_observations), "What a reward function returned"))
    if scores.shape != (len(actions),) or scores.dtype.kind not in "fiub":
        raise UserError(
            f"A reward function must return one number per transition, an array of shape ({len(actions)},). "
            f"Received shape {scores.shape}, dtype {scores.dtype}"
        )
    scores = scores.astype(np.float64)
    if ignored is not None:
        scores[ignored] = 0.0
    if not all_finite(scores):
        raise UserError(
            f"A reward function must return finite numbers. Received {scores[~np.isfinite(scores)][0]} for transition "
            f"{int(np.flatnonzero(~np.isfinite(scores))[0])} of {len(scores)}"
        )
    return scores

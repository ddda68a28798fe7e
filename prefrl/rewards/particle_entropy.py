"""A reward for seeing what was not seen before: what an agent learns from before anybody has answered anything.

Liu and Abbeel 2021 ("Behavior from the void", Eq. 8) estimate the entropy of the states by the distance of each to its
k-th nearest neighbour; Lee et al. 2021 (PEBBLE) explore by it before the first questions, so that these are about
different things. Here states are measured in standard deviations, a neighbour may be of any earlier step, and the
reward of one step does not depend on which others are scored with it beyond those of its batch. Theirs is the 5th
nearest of all; ours is the 50th of some 4,096 that are remembered: where there are few different states, the 5th is the
same state again, and nothing is new (a corridor of 51 places: one agent of five never left its beginning).
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from prefrl.errors import UserError
from prefrl.spaces import Array, Batch, SpaceEncoder, batch_length, is_image, take

NEIGHBOUR = 50
REMEMBERED = 4_096
AT_ONCE = 1_024
MOST_NUMBERS = 1_024  # of an observation
LEAST_STD = 1e-6


def knows_states(space: gymnasium.Space[Any]) -> bool:
    """Tell whether distances between observations say how different two states are: not where they are pictures.

    What has more than 1,024 numbers counts as a picture, whatever its form.
    """
    return not _has_images(space) and SpaceEncoder(space).size <= MOST_NUMBERS


def _has_images(space: gymnasium.Space[Any]) -> bool:
    leaves = list(space.spaces.values()) if isinstance(space, gymnasium.spaces.Dict) else [space]
    return any(is_image(leaf) for leaf in leaves)


class ParticleEntropy:
    """log(1 + distance to the 50th nearest neighbour) of each next observation, as a `RewardFunction`.

    Args:
        space: of the observations.

    Raises:
        UserError: they are images, whose distances in pixels say little.
    """

    def __init__(self, space: gymnasium.Space[Any]) -> None:
        if _has_images(space):
            raise UserError("Exploring by particle entropy needs states, not images. Use --warmup policy or uniform.")
        self._encoder = SpaceEncoder(space)
        self._seen: NDArray[np.float32] = np.zeros((0, self._encoder.size), np.float32)
        self._scale = np.ones(self._encoder.size, np.float32)

    def remember(self, observations: Batch, rng: np.random.Generator) -> None:
        """Take states `(B, ...)` into what was seen; of more than 4,096 a random choice is kept.

        Args:
            observations: the states.
            rng: chooses.
        """
        before, num = len(self.seen), len(self.seen) + batch_length(observations)
        kept = rng.permutation(num)[:REMEMBERED] if num > REMEMBERED else np.arange(num)
        new = kept >= before
        states = np.empty((len(kept), self._encoder.size), np.float32)
        states[~new] = self.seen[kept[~new]]
        states[new] = self._encoder.encode(take(observations, kept[new] - before))
        self.seen = states

    @property
    def seen(self) -> NDArray[np.float32]:
        """The states that are remembered, encoded `(M, F)`; set it to go on from what another knew."""
        return self._seen

    @seen.setter
    def seen(self, states: NDArray[np.float32]) -> None:
        self._seen = states
        deviations = self._seen.std(0)
        self._scale = np.where(deviations > LEAST_STD, 1 / np.maximum(deviations, LEAST_STD), 0).astype(np.float32)

    def __call__(self, observations: Batch, actions: Array, next_observations: Batch) -> NDArray[np.float32]:
        """Return the reward of each transition, `(B,)` float32."""
        states = torch.from_numpy(self._encoder.encode(next_observations) * self._scale)
        pool = torch.cat([states, torch.from_numpy(self._seen * self._scale)])
        nth = min(NEIGHBOUR + 1, len(pool))  # the first is the state itself
        found = [torch.cdist(part, pool).kthvalue(nth, 1).values for part in states.split(AT_ONCE)]
        return np.asarray(torch.log1p(torch.cat(found)).numpy())

"""ComparisonData: the answered comparisons, encoded once and kept on the device as tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from prefrl.errors import UserError
from prefrl.rewards.ensemble import RewardEnsemble
from prefrl.rewards.networks import Features
from prefrl.segments import Segment
from prefrl.spaces import Array, channels_first


class ComparisonData:
    """Comparisons of segments of k steps, for `prefrl.rewards.fit`.

    Vector features of every segment are kept as one tensor `(S, k, D)`; image stacks as single images
    `(S, k + C, H, W)` uint8, expanded batch by batch. Every comparison carries one bootstrap count per member, drawn
    once when it arrives: Poisson(1), the limit of n draws with replacement from n, which leaves it out of a member's
    data with probability exactly 1/e. What is left out is that member's held-out data, now and in every later fit.
    (Christiano et al. 2017, s. 2.2.3 draw anew from all comparisons; with warm-started members that would leak held-out
    comparisons into the fit.)

    Args:
        ensemble: the ensemble whose features are kept. Its input statistics must be set already.
        length: k, steps per segment.
        bootstrap: draw the counts; otherwise every member is fitted on everything and nothing is held out.
        capacity: number of comparisons to make room for at first.
    """

    def __init__(self, ensemble: RewardEnsemble, length: int, *, bootstrap: bool = True, capacity: int = 256) -> None:
        self.ensemble, self.length, self.bootstrap = ensemble, length, bootstrap
        self._index: dict[str, int] = {}
        self.pairs = np.zeros((0, 2), np.int64)
        self.preferences = np.zeros(0, np.float32)
        self.counts = np.zeros((0, ensemble.num_members), np.float32)
        self._capacity = max(1, capacity) * 2
        self._vector: Tensor | None = None
        self._images: Tensor | None = None
        self._stacked = False  # images are kept as single channels, each stack sharing all but one with the one before

    def __len__(self) -> int:
        return len(self.preferences)

    def add(self, pairs: Sequence[Sequence[Segment]], preferences: Sequence[float], rng: np.random.Generator) -> None:
        """Take in answered comparisons.

        Args:
            pairs: the segments of each.
            preferences: probability that the first is better, in [0, 1].
            rng: source of the bootstrap counts.
        """
        if not pairs:
            return
        shape = (len(pairs), self.ensemble.num_members)
        counts = rng.poisson(1.0, shape) if self.bootstrap else np.ones(shape)
        self.add_encoded([self.encode(pair) for pair in pairs], np.asarray(preferences, np.float32), counts)

    def encode(self, pair: Sequence[Segment]) -> tuple[int, int]:
        """Keep the features of two segments; return their numbers, for `add_encoded`."""
        return self._segment_index(pair[0]), self._segment_index(pair[1])

    def add_encoded(self, pairs: Sequence[tuple[int, int]], preferences: Array, counts: Array) -> None:
        """Take in comparisons of segments kept by `encode`, with bootstrap counts `(N, M)` drawn before."""
        self.pairs = np.concatenate([self.pairs, np.asarray(pairs, np.int64).reshape(-1, 2)])
        self.preferences = np.concatenate([self.preferences, preferences.astype(np.float32)])
        self.counts = np.concatenate([self.counts, counts.astype(np.float32)])

    def pair_embeddings(self) -> Array | None:
        """Return the features of all pairs `(N, 2 k D)`, as `prefrl.queries.pair_embeddings`; None for images."""
        if self._vector is None or self._images is not None:
            return None
        rows: Array = self._vector[torch.from_numpy(self.pairs)].flatten(1).cpu().numpy()
        return rows

    def _segment_index(self, segment: Segment) -> int:
        if segment.id in self._index:
            return self._index[segment.id]
        if len(segment) != self.length:
            raise UserError(f"Expected segments of {self.length} steps; got one of {len(segment)}.")
        index = len(self._index)
        if self.ensemble.images:
            self._store_images(index, segment)
        if self.ensemble.num_inputs:
            features = self.ensemble.features(*segment.transitions()).vector
            assert features is not None
            self._vector = self._room(self._vector, index, features)
            self._vector[index] = features
        self._index[segment.id] = index
        return index

    def _room(self, bank: Tensor | None, index: int, like: Tensor) -> Tensor:
        if bank is None:
            return torch.empty((self._capacity, *like.shape), dtype=like.dtype, device=self.ensemble.device)
        if index < len(bank):
            return bank
        return torch.cat([bank, torch.empty_like(bank)])

    def _store_images(self, index: int, segment: Segment) -> None:
        space, values = self.ensemble.observation_space, segment.observations
        assert isinstance(space, spaces.Box) and isinstance(values, np.ndarray)
        whole = values if channels_first(space) else np.moveaxis(values, -1, 1)  # (k + 1, C, H, W)
        shares = whole.shape[1] > 1 and np.array_equal(whole[1:, :-1], whole[:-1, 1:])
        if self._images is None:
            self._stacked = shares
        elif self._stacked and not shares:  # those before looked like stacks by chance, e.g. all black
            self._images, self._stacked = self._unfold(self._images).contiguous(), False
        stored = np.concatenate([whole[0, :-1], whole[:, -1]]) if self._stacked else whole
        images = torch.from_numpy(np.require(stored, requirements=["C", "W"])).to(self.ensemble.device)
        self._images = self._room(self._images, index, images)
        self._images[index] = images

    def _unfold(self, stored: Tensor) -> Tensor:
        """Return all observations `(n, k + 1, C, H, W)` of n segments as they are kept."""
        if not self._stacked:
            return stored
        return stored.unfold(1, stored.shape[1] - self.length, 1).movedim(-1, 2)

    def features(self, segments: Tensor) -> Features:
        """Return the features of all steps of the segments numbered `(n,)`, joined: `(n * k, ...)`."""
        vector = None if self._vector is None else self._vector[segments].flatten(0, 1)
        return Features(None if self._images is None else self._image_batch(self._images[segments]), vector)

    def _image_batch(self, stored: Tensor) -> Tensor:
        observations = self._unfold(stored)
        now = observations[:, :-1]
        if self.ensemble.inputs == "sas":
            now = torch.cat([now, observations[:, 1:]], dim=2)
        return now.flatten(0, 1)

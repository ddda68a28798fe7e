"""Images of many segments, held so that thousands of them fit into memory."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import Tensor

from prefrl.spaces import Array


class ImageBank:
    """Observations of segments of k steps, images or stacks of images; what comes out is exactly what went in.

    A stack that shares all but one image with the one before it gives only that one: `(k + C, H, W)` in place of
    `(k + 1, C, H, W)`. In main memory segments are held compressed and unpacked batch by batch: it costs little beside
    the convolutions of a fit; 5,500 comparisons of 25 Atari steps would take 2.2 GB as they are. On a GPU they are held
    as they are.

    Args:
        device: where batches go.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self._held: list[bytes | Tensor] = []
        self._shapes: list[tuple[int, ...]] = []
        self._depths: list[int] = []  # images of a stack; 0: held whole

    def __len__(self) -> int:
        return len(self._held)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(len(held) if isinstance(held, bytes) else held.nbytes for held in self._held)

    def append(self, whole: Array) -> None:
        """Add a segment's observations, `(k + 1, C, H, W)` uint8."""
        stacked = whole.shape[1] > 1 and np.array_equal(whole[1:, :-1], whole[:-1, 1:])
        kept = np.ascontiguousarray(np.concatenate([whole[0, :-1], whole[:, -1]]) if stacked else whole)
        packs = self.device.type == "cpu"
        self._held.append(zlib.compress(kept.data, level=1) if packs else torch.from_numpy(kept).to(self.device))
        self._shapes.append(kept.shape)
        self._depths.append(whole.shape[1] if stacked else 0)

    def stored_shape(self, index: int) -> tuple[int, ...]:
        """Return the shape in which segment `index` is held."""
        return self._shapes[index]

    def batch(self, segments: Tensor) -> Tensor:
        """Return the observations of n segments, `(n, k + 1, C, H, W)` uint8."""
        return torch.stack([self._observations(index) for index in segments.tolist()])

    def _observations(self, index: int) -> Tensor:
        held = self._held[index]
        if isinstance(held, bytes):
            unpacked = bytearray(zlib.decompress(held))
            held = torch.frombuffer(unpacked, dtype=torch.uint8).reshape(self._shapes[index])
        depth = self._depths[index]
        return held.unfold(0, depth, 1).movedim(-1, 1) if depth else held

"""Sequences of arrays in which each image of a stack is kept once."""

from __future__ import annotations

import numpy as np

from prefrl.spaces import Array


class FrameTrack:
    """A growing sequence of arrays; consecutive image stacks that share all but one image are kept as single images.

    Sharing is checked on every value, so what comes out is exactly what went in.
    """

    def __init__(self) -> None:
        self.length = 0
        self.stack_axis: int | None = None  # axis of one value along which images are stacked; None: kept whole
        self._data: Array | None = None
        self._used = 0

    @property
    def nbytes(self) -> int:
        """Bytes in use (spare room for growth, at most as much again, is not counted)."""
        return 0 if self._data is None else self._data[: self._used].nbytes

    def append(self, values: Array) -> None:
        """Add `values` `(n, ...)` at the end."""
        if len(values) == 0:
            return
        if self._data is None:
            self.stack_axis = _shared_axis(values)
            kept = values if self.stack_axis is None else _unstack(values, self.stack_axis)
            self._data, self._used, self.length = kept.copy(), len(kept), len(values)
            return
        if self.stack_axis is not None:
            seam = np.concatenate([self.window(self.length - 1, self.length), values])
            if _shares(seam, self.stack_axis):
                self._push(np.take(values, -1, axis=self.stack_axis + 1))
                self.length += len(values)
                return
            # These are no stacks after all, or stacked along the other axis: begin again with all that is known.
            whole = np.concatenate([self.window(0, self.length), values])
            self._data = None
            self.append(whole)
            return
        self._push(values)
        self.length += len(values)

    def _push(self, rows: Array) -> None:
        assert self._data is not None
        needed = self._used + len(rows)
        if needed > len(self._data):
            grown = np.empty((max(needed, 2 * len(self._data)), *self._data.shape[1:]), self._data.dtype)
            grown[: self._used] = self._data[: self._used]
            self._data = grown
        self._data[self._used : needed] = rows
        self._used = needed

    def trim(self) -> None:
        """Give back the spare room; called when nothing more will come."""
        if self._data is not None and self._used < len(self._data):
            self._data = self._data[: self._used].copy()

    def window(self, start: int, stop: int) -> Array:
        """Return values `start` to `stop` `(stop - start, ...)`; a view, not to be written to."""
        assert self._data is not None
        if self.stack_axis is None:
            return self._data[start:stop]
        depth = self._used - self.length + 1
        images = self._data[start : stop + depth - 1]
        stacked = np.lib.stride_tricks.sliding_window_view(images, depth, axis=0)  # (n, ..., depth)
        return np.moveaxis(stacked, -1, self.stack_axis + 1)

    def stored(self) -> Array:
        """Return the array that holds the track, for saving."""
        assert self._data is not None
        return self._data[: self._used]

    @classmethod
    def restore(cls, stored: Array, length: int, stack_axis: int | None) -> FrameTrack:
        """Rebuild a track from what `stored`, `length` and `stack_axis` gave."""
        track = cls()
        track._data, track._used, track.length, track.stack_axis = stored.copy(), len(stored), length, stack_axis
        return track


def _shared_axis(values: Array) -> int | None:
    """Return the axis of one value along which consecutive uint8 image stacks share all but one image."""
    if values.dtype != np.uint8 or values.ndim not in (4, 5) or len(values) < 2:  # grey or colour images
        return None
    for axis in (0, values.ndim - 2):
        if values.shape[axis + 1] > 1 and _shares(values, axis):
            return axis
    return None


def _shares(values: Array, axis: int) -> bool:
    moved = np.moveaxis(values, axis + 1, 1)
    return bool(np.array_equal(moved[1:, :-1], moved[:-1, 1:]))


def _unstack(values: Array, axis: int) -> Array:
    moved = np.moveaxis(values, axis + 1, 1)
    return np.concatenate([moved[0, :-1], moved[:, -1]])

"""What is kept of each step so that it can be drawn later: a small row of numbers, and now and then a blob.

`Marks` are those of a rollout, a `Trail` those of an episode, a `ClipSource` those of one segment: all that its
frames are made from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from prefrl.errors import UserError
from prefrl.frames import FrameTrack
from prefrl.spaces import Array


@dataclass(frozen=True, kw_only=True)
class Marks:
    """The marks of T steps of E environments."""

    kind: str
    """Of the world they were made in, see `prefrl.clips.worlds`."""
    rows: Array
    """`(T, E, S)`"""
    blobs: dict[tuple[int, int], bytes]
    """By (step, environment)."""


@dataclass(frozen=True, kw_only=True)
class ClipSource:
    """All that the frames of a segment of k steps are made from."""

    kind: str
    rows: Array
    """`(lead + k, S)`"""
    blobs: dict[int, bytes] = field(default_factory=dict)
    """By index into `rows`."""
    lead: int = 0
    """Steps before the segment's first that must be gone through."""

    def to_arrays(self) -> dict[str, Array]:
        """Return it as arrays, as the record keeps them; `from_arrays` is the inverse."""
        steps = sorted(self.blobs)
        return {
            "kind": np.frombuffer(self.kind.encode(), np.uint8),
            "rows": self.rows,
            "lead": np.array([self.lead]),
            "steps": np.array(steps, np.int64),
            "sizes": np.array([len(self.blobs[step]) for step in steps], np.int64),
            "content": np.frombuffer(b"".join(self.blobs[step] for step in steps), np.uint8),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> ClipSource:
        """Rebuild what `to_arrays` gave.

        Raises:
            UserError: arrays are missing or do not fit together.
        """
        try:
            ends = np.cumsum(arrays["sizes"])
            content = arrays["content"].tobytes()
            blobs = {
                int(step): content[end - size : end]
                for step, size, end in zip(arrays["steps"], arrays["sizes"], ends, strict=True)
            }
            kind, rows, lead = arrays["kind"].tobytes().decode(), arrays["rows"], int(arrays["lead"][0])
        except (KeyError, ValueError, IndexError) as error:
            raise UserError(f"The states saved for a clip are damaged ({error!r}); it cannot be drawn.") from error
        return cls(kind=kind, rows=rows, blobs=blobs, lead=lead)


class Trail:
    """The marks of one episode as it grows."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.rows = FrameTrack()
        self.blobs: dict[int, bytes] = {}

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes + sum(len(blob) for blob in self.blobs.values())

    def append(self, rows: Array, blobs: Mapping[int, bytes]) -> None:
        """Add n steps `(n, S)` and their blobs, by index into `rows`."""
        begin = self.rows.length
        self.rows.append(rows)
        self.blobs |= {begin + step: blob for step, blob in blobs.items()}

    def starts(self, length: int) -> Array | None:
        """Return the first steps of the windows of `length` steps that can be drawn; None: all of them."""
        if self.kind != "film":
            return None
        filmed = np.zeros(self.rows.length, np.int64)
        filmed[list(self.blobs)] = 1
        sums = np.concatenate([[0], np.cumsum(filmed)])
        whole = (
            np.flatnonzero(sums[length:] - sums[:-length] == length) if len(sums) > length else np.zeros(0, np.int64)
        )
        return whole

    def source(self, start: int, length: int) -> ClipSource:
        """Cut out what is needed to draw steps `start` to `start + length`."""
        begin, stop = start, start + length
        if self.kind in ("ale", "atari"):  # from the last saved state of the emulator on, or the last start of a game
            saved = [step for step in self.blobs if step <= start]
            if self.kind == "atari":
                saved += np.flatnonzero(self.rows.window(0, start + 1)[:, 1])[-1:].tolist()
            begin = max(saved, default=start)
        return ClipSource(
            kind=self.kind,
            rows=self.rows.window(begin, stop),
            blobs={step - begin: blob for step, blob in self.blobs.items() if begin <= step < stop},
            lead=start - begin,
        )

    def state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Return it as arrays and JSON; `restore` is the inverse."""
        steps = sorted(self.blobs)
        content = np.frombuffer(b"".join(self.blobs[step] for step in steps), np.uint8)
        meta = {"kind": self.kind, "length": self.rows.length, "blobs": [[s, len(self.blobs[s])] for s in steps]}
        return {"rows": self.rows.stored(), "content": content}, meta

    @classmethod
    def restore(cls, rows: Array, content: Array, meta: Mapping[str, Any]) -> Trail:
        """Rebuild what `state` gave."""
        trail = cls(meta["kind"])
        trail.rows = FrameTrack.restore(rows, meta["length"], None)
        data, begin = content.tobytes(), 0
        for step, size in meta["blobs"]:
            trail.blobs[step] = data[begin : begin + size]
            begin += size
        return trail

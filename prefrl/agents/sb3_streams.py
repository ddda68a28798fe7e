"""The global random streams, which stable-baselines3 draws from, kept apart from environments that use them too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch

from prefrl.runs.streams import stream_seed

WATCHED = 64  # calls


class _Streams(NamedTuple):
    """The global streams of NumPy and PyTorch as they stand."""

    numpy: np.random.BitGenerator
    torch: torch.Tensor
    cuda: list[torch.Tensor]


class StreamsApart:
    """Gives environments that use the global random streams some of their own.

    An environment that calls `np.random.seed(0)` or `torch.manual_seed(0)` in every reset or step would otherwise make
    the agent explore alike in every episode. Such environments find their own streams as they left them; the agent's
    go on beside these. Python's own stream is left alone: stable-baselines3 does not draw from it.

    Looking costs some 0.2 ms, so it is done in the first calls only; afterwards a call costs some microseconds, and
    next to nothing where the environments leave the streams alone.
    """

    def __init__(self) -> None:
        self.begin(0)

    def begin(self, seed: int) -> None:
        """Look anew, in the next `WATCHED` calls, whether environments use the streams.

        All that follows depends on `seed` and the streams as they stand, so a run that begins here again is the same.

        Args:
            seed: of the agent's streams, if the environments turn out to use the global ones.
        """
        self._seed, self._left = seed, WATCHED
        self._theirs: _Streams | None = None

    @contextmanager
    def call(self) -> Iterator[None]:
        """Within, environments run."""
        if self._theirs is not None:
            ours = _exchange(self._theirs)
            try:
                yield
            finally:
                self._theirs = _exchange(ours)
        elif self._left:
            before = _numbers()
            try:
                yield
            finally:
                self._left -= 1
                if before is None or _numbers() != before:
                    self._part()
        else:
            yield

    def _part(self) -> None:
        """Leave the streams as they are to the environments; the agent's begin anew."""
        self._theirs = _now()
        own = stream_seed(self._seed, "agent apart from its environments")
        np.random.set_bit_generator(np.random.MT19937(own))  # type: ignore[attr-defined]
        torch.manual_seed(own)


def _now() -> _Streams:
    cuda = torch.cuda.default_generators if torch.cuda.is_initialized() else ()
    numpy = np.random.get_bit_generator()  # type: ignore[attr-defined]
    return _Streams(numpy, torch.default_generator.get_state(), [one.get_state() for one in cuda])


def _exchange(streams: _Streams) -> _Streams:
    """Put streams in place; return those that were."""
    before = _now()
    np.random.set_bit_generator(streams.numpy)  # type: ignore[attr-defined]
    torch.default_generator.set_state(streams.torch)
    for generator, state in zip(torch.cuda.default_generators, streams.cuda, strict=False):
        generator.set_state(state)
    return before


def _numbers() -> tuple[object, ...] | None:
    """Return what tells whether a stream was used since; None where NumPy's is of another kind than it begins with."""
    generator = np.random.get_bit_generator()  # type: ignore[attr-defined]
    if not isinstance(generator, np.random.MT19937):
        return None
    _, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    cuda = torch.cuda.default_generators if torch.cuda.is_initialized() else ()
    states = [one.get_state().numpy().tobytes() for one in (torch.default_generator, *cuda)]
    return id(generator), np.asarray(keys).tobytes(), *rest, *states

"""Named random streams of one seed.

Every draw outside the agent comes from a stream named by what it is for and when, so no stream has a state that a
checkpoint must hold, and drawing more in one place never changes another.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch

from prefrl.errors import UserError

MOST_SEED = 2**63 - 1
"""The largest seed that all generators take."""


def check_seed(seed: int) -> None:
    """Refuse a seed that not every generator takes.

    Raises:
        UserError: it is below 0 or above `MOST_SEED`.
    """
    if not 0 <= seed <= MOST_SEED:
        raise UserError(f"A seed must be from 0 to 2^63 - 1. Received {seed}")


def stream(seed: int, name: str, *numbers: int) -> np.random.Generator:
    """Return the generator for `name` and the numbers that say which use, e.g. `stream(0, "queries", session)`."""
    check_seed(seed)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(zlib.crc32(name.encode()), *numbers)))


def stream_seed(seed: int, name: str, *numbers: int) -> int:
    """Return an integer seed in [0, 2^31) from the stream."""
    return int(stream(seed, name, *numbers).integers(2**31))


def torch_stream(seed: int, name: str, *numbers: int) -> torch.Generator:
    """Return a PyTorch generator (on the CPU) from the stream."""
    return torch.Generator().manual_seed(stream_seed(seed, name, *numbers))

"""How many threads PyTorch and NumPy use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from prefrl.errors import require


@contextmanager
def one_thread() -> Iterator[int]:
    """Let PyTorch and NumPy's products use one thread within; gives the number that PyTorch used before.

    Networks this small lose by more, and two runs beside each other even more so.
    """
    limits = require("threadpoolctl", "train").threadpool_limits(1, user_api="blas")
    with limits, torch_threads(1) as before:
        yield before


@contextmanager
def torch_threads(number: int) -> Iterator[int]:
    """Let PyTorch use `number` threads within; gives the number that it used before."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield before
    finally:
        torch.set_num_threads(before)

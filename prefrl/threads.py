"""How many threads PyTorch and NumPy use, and two things done at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

from prefrl.errors import require

PATIENCE, LEAST_WAIT = 2.0, 5e-4  # waits longer than so many times its own work, and these seconds, are for processors
TIMES_ALONE = 256

_held_back = 0


@contextmanager
def one_thread() -> Iterator[int]:
    """Let PyTorch and NumPy's products use one thread within; gives the number that PyTorch used before.

    Networks this small lose by more, and two runs beside each other even more so.
    """
    global _held_back
    limits = require("threadpoolctl", "train").threadpool_limits(1, user_api="blas")
    with limits, torch_threads(1) as before:
        outside, _held_back = _held_back, max(_held_back, before - 1)
        try:
            yield before
        finally:
            _held_back = outside


@contextmanager
def torch_threads(number: int) -> Iterator[int]:
    """Let PyTorch use `number` threads within; gives the number that it used before."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


class SideBySide:
    """Does two things at once where `one_thread` holds a thread back, else one after the other.

    Neither may need the other's results, so that these are the same either way. What the second thread has not begun
    when the first is done, the first does too; and where it kept the first waiting, because other programs have the
    processors, the next things are done one after the other.
    """

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(1, "prefrl-beside")
        self._alone = 0  # times that are still to be done one after the other

    def __call__(self, here: Callable[[], object], aside: Callable[[], object]) -> None:
        """Do both, without autograd; what either raises is raised."""
        if not _held_back or self._alone > 0:
            self._alone = max(self._alone - 1, 0)
            here()
            aside()
            return
        began = time.perf_counter()
        begun = self._worker.submit(_without_autograd, aside)
        try:
            here()
        except BaseException:
            if not begun.cancel():
                begun.exception()  # it has to be over
            raise
        if begun.cancel():
            aside()
            return
        done = time.perf_counter()
        begun.result()
        if time.perf_counter() - done > PATIENCE * (done - began) + LEAST_WAIT:
            self._alone = TIMES_ALONE

    def close(self) -> None:
        """End the second thread."""
        self._worker.shutdown()


def _without_autograd(work: Callable[[], object]) -> None:
    with torch.inference_mode():
        work()

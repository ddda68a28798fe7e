"""Two computations side by side on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from prefrl.threads import torch_threads

_First = TypeVar("_First")
_Second = TypeVar("_Second")


class Lanes:
    """Runs two computations that do not touch each other's tensors at the same time, each on half of the threads.

    For networks this small that beats one after the other, each on all threads: most of their operations are over
    before a second thread has begun. On a GPU, or with one thread, they run one after the other. Both may read the same
    weights, but not add to the same gradients.

    Args:
        device: where the tensors are.
        one_by_one: one after the other in any case, as where other processes must do the same in the same order.
    """

    def __init__(self, device: torch.device, *, one_by_one: bool = False) -> None:
        beside = device.type == "cpu" and not one_by_one
        self._worker = ThreadPoolExecutor(1, "prefrl-lane") if beside else None

    @property
    def side_by_side(self) -> bool:
        """Whether two computations run at the same time."""
        return self._worker is not None and torch.get_num_threads() > 1

    def alone(self, work: Callable[[], _First]) -> _First:
        """Return what `work` returns, in one thread: in many small operations two would mostly wait for each other."""
        with torch_threads(1 if self.side_by_side else torch.get_num_threads()):
            return work()

    def run(self, aside: Callable[[], _First], here: Callable[[], _Second]) -> tuple[_First, _Second]:
        """Return what both return; `here` runs in the calling thread. What either raises is raised."""
        threads = torch.get_num_threads()
        if self._worker is None or not self.side_by_side:
            return aside(), here()
        with_gradients = torch.is_grad_enabled()

        def in_worker() -> _First:
            with torch_threads(threads // 2), torch.set_grad_enabled(with_gradients):
                return aside()

        future = self._worker.submit(in_worker)
        try:
            with torch_threads(threads - threads // 2):
                result = here()
        finally:
            future.exception()  # it has to be over, whatever happened here
        return future.result(), result

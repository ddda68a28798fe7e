"""What is particular to GPUs: work recorded once and replayed, and what to say where their memory does not suffice."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from prefrl.errors import UserError, first_line

WARM_UPS = 3
Record = Callable[[Callable[[], None]], Callable[[], None]]
"""Turns a function without arguments into one that does the same, faster; it may call it first."""
Batch = TypeVar("Batch", bound=tuple[Tensor, ...])


@contextmanager
def enough_gpu_memory(mend: str) -> Iterator[None]:
    """Say which settings to lower where the GPU's memory does not suffice.

    Args:
        mend: a sentence that says so.

    Raises:
        UserError: PyTorch, or a library under it, could not get memory on the GPU.
    """
    try:
        yield
    except RuntimeError as error:
        reason = first_line(error)
        refused = "ALLOC_FAILED" in reason or "CUDA error: out of memory" in reason  # cuBLAS and cuDNN; the driver
        if not isinstance(error, torch.cuda.OutOfMemoryError) and not refused:
            raise
        raise UserError(f"The GPU has too little memory: {reason} {mend}") from error


def restore_generator(generator: torch.Generator, state: Tensor) -> None:
    """Put a generator where `get_state` of another was; on another kind of device it begins anew, by that state.

    Generators of CPUs and of GPUs draw other numbers, so a run that moves between them cannot go on bit for bit.

    Args:
        generator: to go on drawing with.
        state: `(n,)` uint8, of the generator that drew before.
    """
    if state.shape == generator.get_state().shape:
        generator.set_state(state)
        return
    generator.manual_seed(int.from_bytes(hashlib.sha256(state.numpy().tobytes()).digest()[:7], "little"))
    warnings.warn(
        f"The run was on another kind of device and goes on on {generator.device.type}: from here on its random draws "
        "are others than they would have been there.",
        stacklevel=2,
    )


def record_cuda_graph(function: Callable[[], None]) -> Callable[[], None]:
    """Record what a function does on the GPU; the result repeats it on the same memory.

    Raises:
        RuntimeError: it does something that cannot be recorded, such as waiting for the GPU.
    """
    current, aside = torch.cuda.current_stream(), torch.cuda.Stream()
    aside.wait_stream(current)
    try:
        with torch.cuda.stream(aside):
            for _ in range(WARM_UPS):
                function()
    finally:  # what it changed is put back on the current stream, also where it failed
        current.wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


class ReplayedStep:
    """Makes the same step on batches of one size again and again.

    Args:
        record: makes a replay of it, e.g. `record_cuda_graph`.
        failure: what is warned of where that fails, e.g. "The update could not be recorded".
        kept: tensors that the step changes; recording leaves them as they were.
    """

    def __init__(self, record: Record, failure: str, kept: Sequence[Tensor] = ()) -> None:
        self._record, self._failure, self._kept = record, failure, kept
        self._sizes: tuple[torch.Size, ...] = ()
        self._batch: tuple[Tensor, ...] = ()
        self._replay: Callable[[], None] | None = None
        self._failed = False

    def __call__(self, step: Callable[[Batch], None], batch: Batch) -> None:
        """Do what `step(batch)` does.

        Args:
            step: reads the tensors of the batch, and nothing else that changes but in tensors that stay where they are.
            batch: tensors of the sizes met before, else it is recorded anew.
        """
        if self._failed:
            step(batch)
            return
        if self._sizes != (sizes := tuple(tensor.shape for tensor in batch)):
            self._prepare(step, batch)
            self._sizes = sizes
        if self._replay is None:
            step(batch)
            return
        for place, tensor in zip(self._batch, batch, strict=True):
            place.copy_(tensor)
        self._replay()

    def _prepare(self, step: Callable[[Batch], None], batch: Batch) -> None:
        before = [tensor.clone() for tensor in self._kept]
        static = type(batch)._make(tensor.clone() for tensor in batch)  # type: ignore[attr-defined]
        try:
            self._replay = self._record(lambda: step(static))
        except RuntimeError as error:
            self._failed, self._replay = True, None
            warnings.warn(f"{self._failure} and runs slower: {first_line(error)}", stacklevel=3)
        for tensor, values in zip(self._kept, before, strict=True):
            tensor.copy_(values)
        self._batch = static

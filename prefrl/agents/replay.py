"""A step of learning recorded once and replayed: on a GPU most of its time goes into launching small kernels."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from prefrl.gpu import Record

Batch = TypeVar("Batch", bound=tuple[Tensor, ...])


class ReplayedStep:
    """Makes the same step on batches of one size again and again.

    Args:
        record: makes a replay of it, e.g. `record_cuda_graph`.
        kept: tensors that the step changes; recording leaves them as they were.
    """

    def __init__(self, record: Record, kept: Sequence[Tensor]) -> None:
        self._record, self._kept = record, kept
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
            reason = str(error).splitlines()[0]
            warnings.warn(f"The update could not be recorded as a CUDA graph and runs slower: {reason}", stacklevel=3)
        for tensor, values in zip(self._kept, before, strict=True):
            tensor.copy_(values)
        self._batch = static

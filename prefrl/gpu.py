"""What is particular to GPUs: work recorded once and replayed, and what to say where their memory does not suffice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from prefrl.errors import UserError

WARM_UPS = 3
Record = Callable[[Callable[[], None]], Callable[[], None]]
"""Turns a function without arguments into one that does the same, faster; it may call it first."""


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
        reason = str(error).splitlines()[0] if str(error) else ""
        refused = "ALLOC_FAILED" in reason or "CUDA error: out of memory" in reason  # cuBLAS and cuDNN; the driver
        if not isinstance(error, torch.cuda.OutOfMemoryError) and not refused:
            raise
        raise UserError(f"The GPU has too little memory: {reason} {mend}") from error


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

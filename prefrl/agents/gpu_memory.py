"""What to say where a GPU has too little memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from prefrl.errors import UserError


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

"""Reading tensors that somebody else may have saved with `torch.save`."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import torch

from prefrl.files import check_stored


def read_tensors(data: bytes) -> Any:
    """Return tensors in lists and dictionaries, on the CPU, from the content of a file of `torch.save`.

    Nothing is unpickled but tensors and what holds them, and no tensor takes more memory than the file does: one that
    is saved as a view, with a stride of 0, could say that it has any size.

    Raises:
        ValueError: a part is compressed, a tensor is larger than the file, or all is nested too deeply.
        Exception: it is no such file; of many kinds.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        check_stored(file)
    value = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    try:
        _check_sizes(value, len(data))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value


def _check_sizes(value: Any, num_bytes: int) -> None:
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided or value.numel() * value.element_size() > num_bytes:
            raise ValueError(f"a tensor of shape {tuple(value.shape)} is not in its {num_bytes} bytes")
    elif isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            _check_sizes(one, num_bytes)

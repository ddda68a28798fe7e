"""Writing files so that a crash or a full disk never damages what was there."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefrl.errors import UserError


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all: into a neighbour, flushed to disk, then renamed over `path`.

    Raises:
        UserError: it cannot be written (full disk, no permission); what was at `path` before is untouched.
    """
    data = content.encode() if isinstance(content, str) else content
    neighbour = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(neighbour, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(neighbour, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            neighbour.unlink(missing_ok=True)
        raise UserError(
            f"Could not write {path}: {error.strerror or error}. What was saved before is untouched; free some space "
            "or choose another folder, and go on."
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def npz_bytes(arrays: Mapping[str, NDArray[Any]], *, compressed: bool = False) -> bytes:
    """Return arrays as the bytes of an `.npz` file, in which nothing is pickled.

    NumPy's own `allow_pickle=False` would be kept as one more array before NumPy 2.1.

    Raises:
        ValueError: an array holds Python objects.
    """
    for name, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise ValueError(f"Expected arrays of numbers or text; {name!r} holds Python objects.")
    buffer = io.BytesIO()
    save: Any = np.savez_compressed if compressed else np.savez
    save(buffer, **arrays)
    return buffer.getvalue()


def text_or_file(text: str) -> str:
    """Return the content of the file of that name, or else the text itself.

    Raises:
        UserError: there is such a file, and it cannot be read.
    """
    path = Path(text)
    try:
        if text and len(text) < 500 and path.is_file():
            return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise UserError(f"The instruction {text} cannot be read: {error}") from None
    return text

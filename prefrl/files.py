"""Writing files so that a crash or a full disk never damages what was there, and reading those of strangers."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from prefrl.errors import UserError, first_line

MOST_BYTES = 1 << 30
"""Of one file, or of the arrays that it unpacks to: more is refused before it is read."""
MOST_JSON_BYTES = 1 << 26
"""Of a file or an answer of a server that is one JSON value."""

MOST_DIGITS = 300
"""Of a whole number in JSON: any of them can be turned into a float."""

WHOLE_BYTES = 1 << 28
"""Files up to this size are hashed whole."""
BLOCK_BYTES, BLOCKS = 1 << 16, 256
"""Of larger ones so many blocks, evenly apart."""


def write_atomically(path: Path, content: bytes | str, *, private: bool = False) -> None:
    """Write a file whole or not at all: into a neighbour, flushed to disk, then renamed over `path`.

    Args:
        path: the file.
        content: of it.
        private: nobody but its owner may read it.

    Raises:
        UserError: it cannot be written (full disk, no permission); what was at `path` before is untouched.
    """
    data = content.encode() if isinstance(content, str) else content
    neighbour = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(neighbour, "wb", opener=_private if private else None) as file:
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


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


def write_json(path: Path, value: Any, *, private: bool = False) -> None:
    """Write `value` as indented JSON, atomically; `private` is that of `write_atomically`."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False) + "\n", private=private)


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text that a stranger may have written, in which there is nothing that JSON has not.

    Raises:
        ValueError: it is no JSON, nested too deeply, or holds a number that is none, or half of a character.
    """
    try:
        value = _DECODER.decode(text if isinstance(text, str) else text.decode(json.detect_encoding(text)))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if (b"\\u" if isinstance(text, bytes) else "\\u") in text:  # type: ignore[operator]
        json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair has no encoding
    return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is no finite number")
    return number


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"{text[:20]}... has {len(text)} digits; {MOST_DIGITS} at most are read")
    return int(text)


_DECODER = json.JSONDecoder(parse_float=_finite, parse_int=_whole, parse_constant=_finite)


def read_json(path: Path) -> Any:
    """Return the value of a JSON file.

    Raises:
        UserError: it is not there, no plain file, larger than `MOST_JSON_BYTES`, or holds no JSON.
    """
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            raise ValueError("it is missing, or no plain file")
        with open(path, "rb") as file:
            data = file.read(MOST_JSON_BYTES + 1)
        if len(data) > MOST_JSON_BYTES:
            raise ValueError(f"it is larger than the {MOST_JSON_BYTES:,} bytes that are read")
        return parse_json(data)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {first_line(error).rstrip('.')}. Restore it from a copy.") from None


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


def npz_arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays of an `.npz` file; what it says of its sizes is checked before memory is taken.

    Raises:
        ValueError: it is damaged, holds Python objects, or unpacks to more than `MOST_BYTES`.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            total = sum(member.file_size for member in file.infolist())
            if total > MOST_BYTES:
                raise ValueError(f"it unpacks to {total:,} bytes; {MOST_BYTES:,} at most are read")
            return {member.filename.removesuffix(".npy"): _npy_array(file.read(member)) for member in file.infolist()}
    except ValueError:
        raise
    except Exception as error:  # of zipfile, zlib and the parser of the header: many kinds
        raise ValueError(f"it is no .npz file: {error or type(error).__name__}") from error


def _npy_array(data: bytes) -> NDArray[Any]:
    buffer = io.BytesIO(data)
    version = np.lib.format.read_magic(buffer)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"an array is in version {version} of its format")
    shape, _, dtype = read(buffer)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data) - buffer.tell():
        raise ValueError(f"an array of shape {shape} and type {dtype} does not fit its {len(data)} bytes")
    buffer.seek(0)
    return np.asarray(np.lib.format.read_array(buffer, allow_pickle=False))


def read_inside(folder: Path, name: str) -> bytes:
    """Return the content of a file of a folder that somebody else may have made.

    Raises:
        ValueError: it leads out of the folder, is no plain file, or is larger than `MOST_BYTES`.
        OSError: it cannot be read.
    """
    path = folder / name
    if not is_inside(folder, path):
        raise ValueError(f"{name} leads out of the folder")
    return read_plain(path)


def is_inside(folder: Path, path: Path) -> bool:
    """Tell whether a path, which data may name, leads to something below a folder; links are followed."""
    try:
        return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
    except ValueError:  # no name of a file can hold that
        return False


def append_to(path: Path) -> BinaryIO:
    """Open a file to write at its end; it is made where there is none.

    Raises:
        UserError: something else is there (a pipe would be waited for), or it cannot be opened.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no plain file, so nothing can be written to its end. Move it away, and go on.")
    try:
        return open(path, "ab")
    except OSError as error:
        raise UserError(f"Could not write to {path}: {error.strerror or error}.") from error


def read_plain(path: Path) -> bytes:
    """Return the content of a file that somebody else may have made.

    Raises:
        ValueError: it is no plain file (a pipe would be waited for, a device read for ever), or is larger than
            `MOST_BYTES`.
        OSError: it cannot be read.
    """
    if not path.is_file():
        raise ValueError(f"{path.name} is missing, or no plain file")
    with open(path, "rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"{path.name} is larger than the {MOST_BYTES:,} bytes that are read")
    return data


def check_stored(file: zipfile.ZipFile) -> None:
    """Check that an archive of PyTorch's holds its parts as they are: it never packs them, so that none can unpack.

    Raises:
        ValueError: a part is compressed: it may unpack to any size.
    """
    packed = [member.filename for member in file.infolist() if member.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise ValueError(f"its part {packed[0]!r} is compressed, as none is in what torch.save writes")


def text_or_file(text: str) -> str:
    """Return the content of the file of that name, or else the text itself.

    Raises:
        UserError: there is such a file, and it cannot be read.
    """
    path = Path(text)
    try:
        if not text or not path.is_file():
            return text
    except (OSError, ValueError):  # too long for a name of a file, or with what no name can hold
        return text
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise UserError(f"The instruction {text} cannot be read: {error}") from None


def digest_of_files(files: Sequence[Path]) -> str:
    """Return a digest of names, sizes and contents."""
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with open(path, "rb") as file:
            if size <= WHOLE_BYTES:
                for block in iter(lambda file=file: file.read(1 << 20), b""):  # type: ignore[misc]
                    digest.update(block)
            else:
                for number in range(BLOCKS):
                    file.seek(number * (size - BLOCK_BYTES) // (BLOCKS - 1))
                    digest.update(file.read(BLOCK_BYTES))
    return digest.hexdigest()

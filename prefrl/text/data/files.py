"""Rows of data files as other people write them: JSONL, JSON arrays, Parquet, packed or not, in any Unicode."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefrl.errors import UserError, require
from prefrl.files import MOST_BYTES, read_plain

JSON_SUFFIXES = (".jsonl", ".json", ".ndjson")
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSONL, JSON or Parquet file.

    Lines end at a line feed alone, so that a string may hold U+2028, U+2029 or U+0085. An array of objects is read like
    lines, and so is one under a single name, as in `{"data": [...]}`.

    Raises:
        UserError: it is not there, not readable, of another kind, or empty; a row is no object, names a column twice,
            or holds half of a character.
    """
    if not path.is_file():
        raise UserError(
            f"There is no data file {path}. Give a .jsonl, .json or .parquet file, a record, a world such as "
            "'servicedesk' or 'docstrings', or one of your own as module:Name."
        )
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix == ".parquet":
        try:
            rows = _parquet_rows(path)
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is not a readable Parquet file: {error}") from error
    elif suffix in JSON_SUFFIXES:
        rows = list(_json_rows(path, _decoded(path)))
    else:
        raise UserError(f"Data must be a .jsonl, .json or .parquet file (the first two also as .gz). Received {path}")
    if not rows:
        raise UserError(f"The data set {path} is empty.")
    return rows


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    file = require("pyarrow.parquet", "text").ParquetFile(path)
    size = sum(file.metadata.row_group(group).total_byte_size for group in range(file.metadata.num_row_groups))
    if size > MOST_BYTES:
        raise ValueError(f"it unpacks to {size:,} bytes; {MOST_BYTES:,} at most are read")
    rows: list[dict[str, Any]] = file.read().to_pylist()
    return rows


def _decoded(path: Path) -> str:
    try:
        content = read_plain(path)
        if content[:2] == b"\x1f\x8b":
            with gzip.open(io.BytesIO(content)) as packed:
                content = packed.read(MOST_BYTES + 1)
            if len(content) > MOST_BYTES:
                raise ValueError(f"it unpacks to more than the {MOST_BYTES:,} bytes that are read")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    encoding = next((name for mark, name in _BOMS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line} is not {encoding}: {error.reason} at byte {error.start}. Save the file as UTF-8; one "
            f"in Latin-1 becomes that by: iconv -f latin1 -t utf-8 {path} > NEW"
        ) from None
    if "\0" in text[:4]:
        raise UserError(f"{path} looks like UTF-16 without its byte order mark. Save it as UTF-8.")
    return text


def _json_rows(path: Path, text: str) -> Iterator[dict[str, Any]]:
    start = text.lstrip(" \t\r\n")[:1]
    whole = _whole(path, text, must=start == "[") if start == "[" or (start == "{" and not _is_lines(text)) else None
    if whole is not None:
        yield from (_object(path, f"row {number}", row) for number, row in enumerate(whole, 1))
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip(" \t\r"):
            place = f"line {number}"
            try:
                row = json.loads(line, object_pairs_hook=_once)
            except _Twice as error:
                raise UserError(f"{path}, {place} {error}") from None
            except (ValueError, RecursionError) as error:  # a number of too many digits is no JSONDecodeError
                comma = " There is a comma behind the object." if line.rstrip(" \t\r").endswith("},") else ""
                raise UserError(f"{path}, {place} is not JSON: {error}.{comma} Write one object a line.") from None
            yield _object(path, place, row)


def _is_lines(text: str) -> bool:
    """Tell whether the first line with anything is an object of its own that is no wrapper of an array."""
    first = next(line for line in text.split("\n") if line.strip(" \t\r"))
    try:
        return _wrapped(json.loads(first)) is None
    except (ValueError, RecursionError):
        return False


def _whole(path: Path, text: str, *, must: bool) -> list[Any] | None:
    """Return the rows of a file that is one JSON value; None if it is not, and need not be."""
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        if must and not error.msg.startswith("Extra data"):
            raise UserError(f"{path} begins an array, but is not JSON: {error}. Fix it there.") from None
        return None
    except _Twice as error:
        raise UserError(f"{path}: an object {error}") from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply to be rows of data.") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}.") from None
    return value if isinstance(value, list) else _wrapped(value) or [value]


def _wrapped(value: Any) -> list[Any] | None:
    """Return the rows of `{"data": [...]}`: the one list of objects that an object of one name holds."""
    (inner,) = value.values() if isinstance(value, dict) and len(value) == 1 else (None,)
    is_rows = isinstance(inner, list) and inner and all(isinstance(row, dict) and len(row) > 1 for row in inner)
    messages = is_rows and all({"role", "content"} <= set(row) or {"from", "value"} <= set(row) for row in inner or ())
    return inner if is_rows and not messages else None


class _Twice(ValueError):
    pass


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Twice(f"names {twice!r} twice; only one of the two values could be read. Keep one.")
    return found


def _object(path: Path, place: str, row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise UserError(f"{path}, {place} must be a JSON object. Received {shortened(row)}")
    broken = _half_a_character(row)
    if broken is not None:
        raise UserError(
            f"{path}, {place}: {broken} holds half of a surrogate pair, so a character was cut in two there. Fix the "
            "text or leave the row out."
        )
    return row


def _half_a_character(value: Any, name: str = "the row") -> str | None:
    """Return the name of a column whose text is no Unicode; None if all are."""
    if isinstance(value, str):
        return None if value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value) else name
    parts = (
        value.items()
        if isinstance(value, dict)
        else ((name, part) for part in value)
        if isinstance(value, list)
        else ()
    )
    for key, part in parts:
        if (
            found := _half_a_character(part, key if name == "the row" else name) or _half_a_character(key, name)
        ) is not None:
            return found
    return None


def shortened(value: Any, letters: int = 80) -> str:
    """Return a value as a message shows it: not longer than some letters."""
    shown = repr(value)
    return shown if len(shown) <= letters else shown[: letters - 4] + " ..."

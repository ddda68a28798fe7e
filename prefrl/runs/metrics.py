"""Figures of a run as they come: rows of `metrics.jsonl`, and TensorBoard."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from prefrl.errors import UserError, first_line, require
from prefrl.files import append_to, parse_json, read_plain


class MetricsPlace(Protocol):
    """Where metrics are written: a run folder of any kind."""

    path: Path
    metrics_path: Path
    tensorboard: Path
    COUNTER: ClassVar[str]
    """The figure of a row that counts how far the run has come."""


class MetricsWriter:
    """Appends rows to `metrics.jsonl` and to TensorBoard.

    Args:
        folder: the run folder.
        size: bytes of the file to keep: rows written after the checkpoint that a run goes on from are cut off.
        count: how far the run had come at that checkpoint, by its counter.
    """

    def __init__(self, folder: MetricsPlace, size: int = 0, count: int = 0) -> None:
        tensorboard = require("torch.utils.tensorboard", "train")
        self._counter = folder.COUNTER
        folder.path.mkdir(parents=True, exist_ok=True)
        self._file = append_to(folder.metrics_path)
        self._file.truncate(self._kept(folder.metrics_path, size))
        self._tensorboard = tensorboard.SummaryWriter(str(folder.tensorboard), purge_step=count + 1 if size else None)

    @staticmethod
    def _kept(path: Path, size: int) -> int:
        """Return how many bytes to keep: whole rows only, and no more than there are, where the file was changed."""
        there = path.stat().st_size
        with open(path, "rb") as file:
            kept = file.read(size).rfind(b"\n") + 1
        if there < size:
            warnings.warn(
                f"{path} holds {there:,} of the {size:,} bytes that the checkpoint knew: what is missing is missing "
                "from curves and figures too. The rows that are there are kept.",
                stacklevel=3,
            )
        elif kept < size:
            warnings.warn(
                f"{path} is not what the checkpoint knew: it has no end of a row at byte {size:,}. The whole rows "
                "before that are kept, and curves and figures are of these.",
                stacklevel=3,
            )
        return kept

    def write(self, row: dict[str, Any]) -> None:
        """Append a row; numbers that are not finite become null."""
        clean = finite(row)
        self._file.write(json.dumps(clean, allow_nan=False).encode() + b"\n")
        self._file.flush()
        for name, value in numbers(clean):
            if name != self._counter:
                self._tensorboard.add_scalar(name, value, row[self._counter])

    def sync(self) -> int:
        """Flush to disk; return the size of the file in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._tensorboard.flush()
        return self._file.tell()

    def close(self) -> None:
        """Bring every row to the disk, and close the file."""
        self.sync()
        self._file.close()
        self._tensorboard.close()


def finite(value: Any) -> Any:
    """Return `value` ready for JSON: NumPy numbers as plain ones, and None for NaN and infinity."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def mean_of_known(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are finite numbers; None where none is: it is not known."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return float(np.mean(known)) if known else None


def numbers(row: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """Return the numbers of a row by name, those within parts of it as `part/name`."""
    out: list[tuple[str, float]] = []
    for key, value in row.items():
        if isinstance(value, dict):
            out += numbers(value, f"{prefix}{key}/")
        elif isinstance(value, int | float):
            out.append((prefix + key, value))
    return out


def _holds_figures(row: dict[str, Any], counter: str) -> bool:
    """Tell whether a row is one of figures: numbers, unknown ones, names or lists of these, and a sample."""

    def is_figure(value: Any) -> bool:
        if isinstance(value, dict | list):
            return all(map(is_figure, value.values() if isinstance(value, dict) else value))
        return value is None or isinstance(value, int | float)

    figures = {name: value for name, value in row.items() if name != "sample"}  # a prompt and its answer
    return type(row.get(counter)) is int and type(row.get("seconds", 0)) in (int, float, dict) and is_figure(figures)


def read_rows(path: Path, counter: str | None = None) -> list[dict[str, Any]]:
    """Return the rows of a JSONL file, if it is there; a last line that a kill cut short is left out.

    Lines within it that are no rows are left out with a warning: the file was damaged.

    Args:
        path: the file.
        counter: rows are of figures, and this one, a whole number, says how far a run had come.

    Raises:
        UserError: it cannot be read.
    """
    try:
        lines = read_plain(path).split(b"\n") if path.is_file() else [b""]
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}") from None
    rows: list[dict[str, Any]] = []
    damaged = []
    for number, line in enumerate(lines[:-1], 1):  # what follows the last end of a line is a row cut short, or nothing
        try:
            row = parse_json(line)
        except ValueError:
            row = None
        if isinstance(row, dict) and (counter is None or _holds_figures(row, counter)):
            rows.append(row)
        else:
            damaged.append(number)
    if damaged:
        warnings.warn(
            f"{path} is damaged: {len(damaged)} of its {len(lines) - 1} lines are no rows, the first of them line "
            f"{damaged[0]}; they are missing from curves and figures.",
            stacklevel=2,
        )
    return rows

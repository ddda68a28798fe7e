"""Figures of a run as they come: rows of `metrics.jsonl`, and TensorBoard."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from prefrl.errors import require


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
        self._file = open(folder.metrics_path, "ab")  # noqa: SIM115  (lives as long as the writer)
        self._file.truncate(size)
        self._tensorboard = tensorboard.SummaryWriter(str(folder.tensorboard), purge_step=count + 1 if size else None)

    def write(self, row: dict[str, Any]) -> None:
        """Append a row; numbers that are not finite become null."""
        clean = finite(row)
        self._file.write(json.dumps(clean, allow_nan=False).encode() + b"\n")
        self._file.flush()
        for name, value in _numbers(clean):
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


def _numbers(row: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    out: list[tuple[str, float]] = []
    for key, value in row.items():
        if isinstance(value, dict):
            out += _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, int | float):
            out.append((prefix + key, value))
    return out


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSONL file, if it is there; a last line that a kill cut short is left out."""
    rows: list[dict[str, Any]] = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows

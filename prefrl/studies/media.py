"""Files of pictures as things to ask about: a folder of videos or images, with a table of what is known of each.

Each file is a segment of one step. What a reward could be learned from are the numbers in the table; without any, the
segment holds what tells files apart, and nothing can be learned of it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefrl.errors import UserError, first_line, require
from prefrl.files import is_inside, read_plain
from prefrl.segments import Segment
from prefrl.store.clips import clip_of
from prefrl.studies.asking import Shown

VIDEOS = (".mp4", ".webm", ".mkv", ".mov", ".avi", ".gif", ".m4v")
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,image2,png_pipe,apng,jpeg_pipe,jpegls_pipe,mjpeg,webp_pipe,bmp_pipe"
)
"""Of libavformat, for these."""
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MOST_SECONDS = 60.0  # of a video; what is longer is cut, which is said


@dataclass(frozen=True, kw_only=True)
class Medium:
    """A file to be shown."""

    path: Path
    numbers: tuple[float, ...]
    """What the table knows of it."""
    row: int
    """Its place in the table, or among the files, from 0."""


def find_media(folder: Path, table: Path | None = None) -> list[Medium]:
    """Return the files of a folder that can be shown: all of them by name, or those of a table in its order.

    Args:
        folder: of videos and images.
        table: CSV with a column `file`, names within the folder; its columns of numbers go with each file.

    Raises:
        UserError: there is none, a file of the table is not there or leads out of the folder, or it is no such table.
    """
    if table is None:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEOS + IMAGES)
        if not paths:
            known = ", ".join(VIDEOS + IMAGES)
            raise UserError(f"There are no videos or images in {folder}; expected files ending in {known}.")
        return [Medium(path=path, numbers=(), row=row) for row, path in enumerate(paths)]
    try:
        rows = list(csv.DictReader(io.StringIO(read_plain(table).decode("utf-8-sig"), newline="")))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{table} cannot be read: {first_line(error)}") from None
    if not rows or "file" not in rows[0]:
        columns = ", ".join(map(str, rows[0])) if rows else "none"
        raise UserError(f"{table} must have a column 'file', of names of files in {folder}; its columns: {columns}.")
    numeric = [name for name in rows[0] if name != "file" and all(_number(row[name]) is not None for row in rows)]
    found = []
    for number, row in enumerate(rows):
        path = folder / (row["file"] or ".")
        if not os.path.isfile(path) or not is_inside(folder, path):  # of a name that none can have it tells False
            raise UserError(f"{table}, row {number + 1}: there is no file {row['file']!r} in {folder}.")
        if path.suffix.lower() not in VIDEOS + IMAGES:
            raise UserError(f"{table}, row {number + 1}: {row['file']!r} is neither a video nor an image.")
        found.append(Medium(path=path, numbers=tuple(float(row[name]) for name in numeric), row=number))
    return found


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def of_media(media: list[Medium]) -> tuple[list[Shown], list[str]]:
    """Return a segment and a clip of each file, and what must be said of some.

    Raises:
        UserError: a file cannot be read.
    """
    shown, remarks = [], []
    for medium in media:
        frames = _Frames(medium.path)
        clip = clip_of(iter(frames), frames.rate)
        if frames.was_cut:
            remarks.append(f"{medium.path.name} is longer than {MOST_SECONDS:.0f} seconds, and is cut there.")
        known = np.array(medium.numbers, np.float32)
        if not len(known):
            known = np.frombuffer(hashlib.sha256(medium.path.read_bytes()).digest()[:16], np.uint8).astype(np.float32)
        segment = Segment(
            observations=np.stack([known, known]),
            actions=np.zeros((1, 1), np.float32),
            true_rewards=np.full(1, np.nan),
            episode=medium.row,
        )
        shown.append((segment, clip))
    return shown, remarks


class _Frames:
    """The pictures of a file, one after another."""

    def __init__(self, path: Path) -> None:
        self._path, self.was_cut = path, False
        self._av = require("av", "ui")
        try:
            with self._open() as file:
                rate = file.streams.video[0].average_rate or Fraction(30)
        except (self._av.error.FFmpegError, IndexError, OSError) as error:
            raise UserError(f"{path} cannot be shown: {first_line(error)}") from None
        self.rate = float(rate) if 0 < rate <= 240 else 30.0

    def _open(self) -> Any:
        """Open the file itself: what is a list of others (HLS, DASH, concat) would lead to files of this machine."""
        return self._av.open(str(self._path), options={"format_whitelist": FORMATS, "protocol_whitelist": "file"})

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        try:
            with self._open() as file:
                for number, frame in enumerate(file.decode(video=0)):
                    if number >= MOST_SECONDS * self.rate:
                        self.was_cut = True
                        return
                    picture: Any = frame.to_ndarray(format="rgb24")
                    yield picture
        except (self._av.error.FFmpegError, OSError) as error:
            raise UserError(f"{self._path} cannot be shown: {first_line(error)}") from None

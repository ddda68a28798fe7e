"""Rankings of pictures as files: one JSON object a line, the pictures beside it.

    {"prompt": "two red squares", "images": ["pictures/0-0.png", "pictures/0-1.png"], "ranks": [2, 1]}

`ranks` has 1 for the best; `chosen` and `rejected` in place of `images` and `ranks` are read as a pair. Names are of
files below the folder of the file, and no other: a data set of a stranger reads nothing else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefrl.errors import UserError, first_line, require
from prefrl.feedback.answers import ranks_of
from prefrl.files import is_inside, parse_json, read_plain, write_atomically
from prefrl.image.reward_model import Ranked

FILE = "rankings.jsonl"
MAX_BYTES = 16 << 20


def write_rankings(folder: Path, rows: Sequence[Ranked]) -> Path:
    """Write rankings with their pictures; return the file.

    Raises:
        UserError: the folder exists and is not empty.
    """
    require("PIL", "image")
    from PIL import Image

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists already. Choose another --out.")
    (folder / "pictures").mkdir(parents=True)
    lines = []
    for number, row in enumerate(rows):
        names = [f"pictures/{number}-{place}.png" for place in range(len(row.pictures))]
        for name, picture in zip(names, row.pictures, strict=True):
            Image.fromarray(picture).save(folder / name)
        lines.append(json.dumps({"prompt": row.prompt, "images": names, "ranks": list(row.ranks)}))
    write_atomically(folder / FILE, "".join(line + "\n" for line in lines))
    return folder / FILE


def read_rankings(place: str, shape: tuple[int, int, int]) -> list[Ranked]:
    """Read rankings.

    Args:
        place: the file, or the folder that `prefrl image compare` wrote.
        shape: rows, columns and 3 that pictures must have; others are made so, which is for the caller to have said.

    Raises:
        UserError: there are none, or a row is not a ranking of pictures below the folder.
    """
    path = Path(place) / FILE if Path(place).is_dir() else Path(place)
    if not path.is_file():
        raise UserError(f"There are no rankings in {place}: expected a folder with {FILE}, or such a file.")
    rows = []
    try:
        lines = read_plain(path).split(b"\n")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}.") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            rows.append(_read_row(path, number, line, shape))
    if not rows:
        raise UserError(f"{path} holds no rankings.")
    return rows


def _read_row(path: Path, number: int, line: bytes, shape: tuple[int, int, int]) -> Ranked:
    where = f"{path}, line {number}"
    try:
        row = parse_json(line)
    except ValueError as error:
        raise UserError(f"{where}: this is not JSON: {first_line(error)}") from error
    if isinstance(row, dict) and "images" not in row and {"chosen", "rejected"} <= row.keys():
        row = {"prompt": row.get("prompt"), "images": [row["chosen"], row["rejected"]], "ranks": [1, 2]}
    if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
        raise UserError(f'{where}: expected an object with "prompt", "images" and "ranks". Received {str(row)[:60]}')
    names, ranks = row.get("images"), row.get("ranks")
    if not isinstance(names, list) or not 2 <= len(names) <= 32 or not all(isinstance(name, str) for name in names):
        raise UserError(f'{where}: "images" should be a list of 2 to 32 names of files. Received {str(names)[:60]}')
    if not isinstance(ranks, list) or len(ranks) != len(names) or not all(type(rank) is int for rank in ranks):
        raise UserError(
            f'{where}: "ranks" should be a whole number for each image, 1 for the best. Received {str(ranks)[:60]}'
        )
    pictures = np.stack([read_picture(path.parent, name, where, shape) for name in names])
    return Ranked(row["prompt"], pictures, ranks_of(-rank for rank in ranks))


def read_picture(folder: Path, name: str, where: str, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Read a picture below a folder, in the size of `shape`.

    Raises:
        UserError: the name leads out of the folder, there is no such file, or it is no picture.
    """
    require("PIL", "image")
    from PIL import Image

    path = folder / name
    there = os.path.isfile(path) and path.stat().st_size <= MAX_BYTES  # of a name that none can have it tells False
    if there and not is_inside(folder, path):
        raise UserError(f"{where}: {name[:60]!r} is not below {folder}, so it is not read.")
    if not there:
        raise UserError(f"{where}: there is no picture {name[:60]!r} of at most {MAX_BYTES >> 20} MB.")
    try:
        with Image.open(path) as image:
            if image.width * image.height > 64_000_000:
                raise ValueError(f"{image.width} x {image.height} pixels")
            picture: Any = image.convert("RGB")
            if picture.size != (shape[1], shape[0]):
                picture = picture.resize((shape[1], shape[0]), Image.Resampling.LANCZOS)
            return np.asarray(picture, np.uint8)
    except Exception as error:
        raise UserError(f"{where}: {name[:60]!r} is not a picture that can be read: {first_line(error)}") from error

"""Clips of segments in the record, and who renders them.

A segment is drawn once, when a query shows it, by whoever claims the work; its clip then lies in the record for every
viewer. What cannot be drawn is noted with the reason, so that a viewer can say it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from prefrl.clips.codec import FORMAT, encode_clip
from prefrl.errors import UserError
from prefrl.store import tables
from prefrl.store.engine import chunks

FORMATS = (FORMAT,)
"""All there are: the format ends the names of files."""
LARGEST = 100_000  # pixels, frames and frames per second


@dataclass(frozen=True, kw_only=True)
class Clip:
    """The frames of a segment, compressed."""

    data: bytes
    format: str
    """How `data` is compressed, e.g. "mp4"."""
    frames_per_second: float
    """Real speed."""
    width: int
    """In pixels."""
    height: int
    num_frames: int

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UserError(f"The format of a clip must be {' or '.join(FORMATS)}. Received {self.format!r}")
        for name in ("frames_per_second", "width", "height", "num_frames"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < LARGEST:
                raise UserError(f"{name} of a clip must be positive and below {LARGEST}. Received {value!r}")


def clip_of(pictures: Any, frames_per_second: float) -> Clip:
    """Return pictures, as `encode_clip` takes them, as a clip for the record."""
    made = encode_clip(pictures, frames_per_second)
    size = {"width": made.width, "height": made.height, "num_frames": made.num_frames}
    return Clip(data=made.data, format=FORMAT, frames_per_second=frames_per_second, **size)


def claim_renders(connection: sa.Connection, limit: int, expires_at: float, now: float) -> list[str]:
    """Take segments of open queries that have no clip; return their names, those to be shown first in front."""
    segment_id = tables.query_items.c.segment_id
    statement = (
        sa.select(segment_id)
        .join(tables.queries)
        .where(
            tables.is_open,
            segment_id.isnot(None),
            ~sa.exists().where(tables.clips.c.segment_id == segment_id),
            ~sa.exists().where(
                tables.renders.c.segment_id == segment_id,
                sa.or_(tables.renders.c.expires_at > now, tables.renders.c.error.isnot(None)),
            ),
        )
        .order_by(tables.queries.c.session, tables.queries.c.position, tables.query_items.c.position)
    )
    names: list[str] = []
    for name in connection.scalars(statement):
        if name not in names:
            names.append(name)
        if len(names) == limit:
            break
    for name in names:
        _set_render(connection, name, expires_at, None)
    return names


def add_clip(connection: sa.Connection, segment_id: str, clip: Clip) -> None:
    """Keep a clip, unless there is one already."""
    if connection.scalar(sa.select(tables.clips.c.segment_id).where(tables.clips.c.segment_id == segment_id)) is None:
        row = {name: getattr(clip, name) for name in Clip.__dataclass_fields__}
        connection.execute(sa.insert(tables.clips), {"segment_id": segment_id, **row})
    connection.execute(sa.delete(tables.renders).where(tables.renders.c.segment_id == segment_id))


def note_failure(connection: sa.Connection, segment_id: str, error: str) -> None:
    """Note why a segment cannot be drawn."""
    _set_render(connection, segment_id, 0.0, error)


def read_clips(connection: sa.Connection, segment_ids: Sequence[str]) -> dict[str, Clip]:
    """Return those clips that there are."""
    found = {}
    for chunk in chunks(dict.fromkeys(segment_ids)):
        for row in connection.execute(sa.select(tables.clips).where(tables.clips.c.segment_id.in_(chunk))):
            values: dict[str, Any] = {name: getattr(row, name) for name in Clip.__dataclass_fields__}
            try:
                found[row.segment_id] = Clip(**values)
            except UserError as error:
                raise ValueError(f"the clip of segment {row.segment_id}: {error}") from None
    return found


def read_failures(connection: sa.Connection, segment_ids: Sequence[str]) -> dict[str, str]:
    """Return why segments could not be drawn, of those that could not."""
    found = {}
    for chunk in chunks(dict.fromkeys(segment_ids)):
        condition = tables.renders.c.segment_id.in_(chunk) & tables.renders.c.error.isnot(None)
        for row in connection.execute(sa.select(tables.renders).where(condition)):
            found[row.segment_id] = row.error
    return found


def forget_failures(connection: sa.Connection) -> None:
    """Let everything that could not be drawn be tried again."""
    connection.execute(sa.delete(tables.renders).where(tables.renders.c.error.isnot(None)))


def _set_render(connection: sa.Connection, segment_id: str, expires_at: float, error: str | None) -> None:
    connection.execute(sa.delete(tables.renders).where(tables.renders.c.segment_id == segment_id))
    connection.execute(sa.insert(tables.renders), {"segment_id": segment_id, "expires_at": expires_at, "error": error})

"""What a row of each table of the record holds."""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import sqlalchemy as sa

from prefrl.errors import UserError
from prefrl.feedback import KINDS, Answer, Edit, Entry, Query, Response, Undo
from prefrl.files import MOST_BYTES, npz_arrays, npz_bytes, parse_json
from prefrl.segments import Segment, segment_arrays, segment_from_arrays
from prefrl.spaces import Array
from prefrl.store import tables


@dataclass(frozen=True, kw_only=True)
class QueryCard:
    """A query without the arrays of its segments: what a viewer needs to show it."""

    id: str
    kind: str
    session: int
    num_env_steps: int
    scale: int | None
    instruction: str
    overlap: int
    repeat_of: str | None
    reserved_for: str | None
    segment_ids: tuple[str, ...]
    """Names of its segments, in the query's order; their clips are in the record."""
    responses: tuple[Response, ...]
    """In place of segments: its responses to one prompt."""

    @property
    def num_items(self) -> int:
        """How many segments or responses it shows, K."""
        return len(self.segment_ids) or len(self.responses)


def segment_row(segment: Segment) -> dict[str, Any]:
    """Return the row of a segment: compressed arrays, each image of a stack once; true rewards as float64."""
    return {
        "id": segment.id,
        "arrays": pack(segment_arrays(segment)),
        "true_rewards": np.asarray(segment.true_rewards, "<f8").tobytes(),
        "terminated": bool(segment.terminated),
        "truncated": bool(segment.truncated),
        "episode": int(segment.episode),
        "start": int(segment.start),
    }


def read_segment(row: sa.Row[Any], replay: bytes | None = None) -> Segment:
    """Rebuild a segment from its row, with what is needed to draw it if that is given.

    Raises:
        ValueError: the row does not hold what was stored under its name.
    """
    try:
        segment = segment_from_arrays(
            unpack(row.arrays),
            np.frombuffer(row.true_rewards, "<f8").astype(np.float64),
            terminated=row.terminated,
            truncated=row.truncated,
            episode=row.episode,
            start=row.start,
            replay=None if replay is None else unpack(replay),
        )
    except Exception as error:  # whatever a damaged row makes NumPy and zlib raise
        raise ValueError(f"segment {row.id} cannot be unpacked") from error
    if segment.id != row.id:
        raise ValueError(f"segment {row.id} is not what was stored")
    return segment


def query_row(query: Query, position: int | None) -> dict[str, Any]:
    """Return the row of the query that is number `position` of its session; a repeat has no position."""
    return {
        "id": query.id,
        "kind": query.kind,
        "session": int(query.session),
        "position": position,
        "num_env_steps": int(query.num_env_steps),
        "scale": query.scale,
        "instruction": query.instruction,
        "overlap": int(query.overlap),
        "missing": int(query.overlap),
        "repeat_of": query.repeat_of,
        "reserved_for": query.reserved_for,
    }


def item_rows(query: Query) -> list[dict[str, Any]]:
    """Return the rows of what a query shows."""
    column = "segment_id" if query.segments else "response_id"
    empty = {"segment_id": None, "response_id": None}
    return [
        {"query_id": query.id, "position": number, **empty, column: item.id} for number, item in enumerate(query.items)
    ]


def entry_row(entry: Entry, kind: str, token: str, now: float) -> dict[str, Any]:
    """Return the row of an entry recorded `now`, in seconds since 1970; `kind` is the name of its kind."""
    return {
        "token": token,
        "query_id": entry.query_id,
        "kind": kind,
        "value": json.dumps(entry_value(entry)),
        "annotator": entry.annotator,
        "shown": None if entry.shown is None else json.dumps(list(entry.shown)),
        "shown_at": entry.shown_at,
        "answered_at": entry.answered_at,
        "seconds": float(entry.seconds),
        "comment": entry.comment,
        "reason": entry.reason,
        "flagged": entry.flagged,
        "adjudicates": entry.adjudicates,
        "undoes": entry.undoes if isinstance(entry, Undo) else None,
        "recorded_at": now,
    }


def entry_value(entry: Entry) -> Any:
    """Return what an entry says as a JSON value; `make_entry` is the inverse."""
    if isinstance(entry, Edit):
        return {"item": entry.item, "text": entry.text}
    return entry.to_json() if isinstance(entry, Answer) else None


def make_entry(kind: str, value: Any, undoes: int | None, common: Mapping[str, Any]) -> Entry:
    """Rebuild an entry from the name of its kind, its JSON value and what entries of all kinds carry.

    Raises:
        ValueError: a kind that this version does not know.
        UserError: values that cannot be, or a kind of a user's own that is not here.
    """
    if kind == Undo.kind:
        assert undoes is not None
        return Undo(undoes=undoes, **common)
    if kind == Edit.kind:
        return Edit(item=value["item"], text=value["text"], **common)
    if ":" not in kind and kind not in KINDS:
        raise ValueError(f"an answer is of the kind {kind!r}, which this version does not know")
    return KINDS.find(kind).from_json(value, **common)


_of_answers = tables.answers.c
ENTRY_COLUMNS = (
    _of_answers.id, _of_answers.kind, _of_answers.value, _of_answers.undoes, _of_answers.query_id,
    _of_answers.annotator, _of_answers.seconds, _of_answers.shown, _of_answers.shown_at, _of_answers.answered_at,
    _of_answers.comment, _of_answers.reason, _of_answers.flagged, _of_answers.adjudicates, _of_answers.token,
)  # fmt: skip
"""What `read_entry` reads: by place, which takes half of the time that names take."""


def read_entry(row: Sequence[Any]) -> Entry:
    """Rebuild an entry from its row of `ENTRY_COLUMNS`.

    Raises:
        ValueError: the row holds none.
        UserError: likewise.
    """
    (_, kind, value, undoes, query_id, annotator, seconds, shown, shown_at, answered_at, comment, reason, flagged,
     adjudicates, token) = row  # fmt: skip
    common = {
        "query_id": query_id,
        "annotator": sys.intern(annotator),
        "seconds": seconds,
        "shown": None if shown is None else places_of(shown),
        "shown_at": shown_at,
        "answered_at": answered_at,
        "comment": comment,
        "reason": reason,
        "flagged": bool(flagged),
        "adjudicates": bool(adjudicates),
        "claim": token,
    }
    return make_entry(kind, _said(value), undoes, common)


_said = lru_cache(maxsize=1024)(parse_json)  # few things are said, many times


@lru_cache(maxsize=1024)  # a record has few orders of its items, and many answers
def places_of(shown: str) -> tuple[int, ...]:
    """Return which item was shown at each place.

    Raises:
        ValueError: the text does not say so.
    """
    places = parse_json(shown)
    if not isinstance(places, list) or not all(type(place) is int for place in places):
        raise ValueError(f"{shown[:60]!r} is no order in which items are shown")
    return tuple(places)


def read_card(row: sa.Row[Any], items: Sequence[str | Response]) -> QueryCard:
    """Rebuild a query without its arrays."""
    return QueryCard(
        segment_ids=tuple(item for item in items if isinstance(item, str)),
        responses=tuple(item for item in items if isinstance(item, Response)),
        **query_fields(row),
        id=row.id,
    )


def query_fields(row: sa.Row[Any]) -> dict[str, Any]:
    """Return the fields that `Query` and `QueryCard` share."""
    KINDS.check_read(row.kind)
    names = ("kind", "session", "num_env_steps", "scale", "instruction", "overlap", "repeat_of", "reserved_for")
    return {name: getattr(row, name) for name in names}


def pack(arrays: Mapping[str, Array]) -> bytes:
    """Return arrays as compressed bytes; `unpack` is the inverse.

    Raises:
        UserError: more than can be read back.
    """
    data = npz_bytes(arrays)
    if len(data) > MOST_BYTES:
        raise UserError(f"A segment must have no more than {MOST_BYTES:,} bytes; got {len(data):,}. Use shorter ones.")
    return zlib.compress(data, level=1)


def unpack(data: bytes) -> dict[str, Array]:
    """Return the arrays that `pack` packed.

    Raises:
        ValueError: the bytes are damaged, or unpack to more than `MOST_BYTES`.
        zlib.error: likewise.
    """
    unpacker = zlib.decompressobj()
    unpacked = unpacker.decompress(data, MOST_BYTES + 1)
    if len(unpacked) > MOST_BYTES or not unpacker.eof:
        raise ValueError("the arrays are cut short, or unpack to too much")
    return npz_arrays(unpacked)

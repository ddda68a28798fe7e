"""The tables of the record of preferences, and what a row of each holds."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from prefrl.errors import require
from prefrl.feedback import Comparison, Query
from prefrl.segments import Segment, segment_arrays, segment_from_arrays
from prefrl.spaces import Array

try:
    import sqlalchemy as sa
except ModuleNotFoundError:
    require("sqlalchemy", "train")  # says which extra brings it
    raise

SCHEMA_VERSION = 1
"""Raised whenever a table changes."""
FORMAT = "prefrl preferences"

metadata = sa.MetaData()
about = sa.Table(
    "about",
    metadata,
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("value", sa.String, nullable=False),
)
segments = sa.Table(
    "segments",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("arrays", sa.LargeBinary, nullable=False),
    sa.Column("true_rewards", sa.LargeBinary, nullable=False),
    sa.Column("terminated", sa.Boolean, nullable=False),
    sa.Column("truncated", sa.Boolean, nullable=False),
    sa.Column("episode", sa.Integer, nullable=False),
    sa.Column("start", sa.Integer, nullable=False),
)
queries = sa.Table(
    "queries",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("session", sa.Integer, nullable=False),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("num_env_steps", sa.Integer, nullable=False),
    sa.Column("first", sa.ForeignKey("segments.id"), nullable=False),
    sa.Column("second", sa.ForeignKey("segments.id"), nullable=False),
    sa.UniqueConstraint("session", "position"),
)
answers = sa.Table(
    "answers",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("query_id", sa.ForeignKey("queries.id"), nullable=False, index=True),
    sa.Column("preference", sa.Float),
    sa.Column("annotator", sa.String, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("created_at", sa.String, nullable=False),
    sqlite_autoincrement=True,
)


def segment_row(segment: Segment) -> dict[str, Any]:
    """Return the row of a segment: compressed arrays, each image of a stack once; true rewards as float64."""
    return {
        "id": segment.id,
        "arrays": _pack(segment_arrays(segment)),
        "true_rewards": np.asarray(segment.true_rewards, "<f8").tobytes(),
        "terminated": bool(segment.terminated),
        "truncated": bool(segment.truncated),
        "episode": int(segment.episode),
        "start": int(segment.start),
    }


def read_segment(row: sa.Row[Any]) -> Segment:
    """Rebuild a segment from its row.

    Raises:
        ValueError: the row does not hold what was stored under its name.
    """
    try:
        segment = segment_from_arrays(
            _unpack(row.arrays),
            np.frombuffer(row.true_rewards, "<f8").astype(np.float64),
            terminated=row.terminated,
            truncated=row.truncated,
            episode=row.episode,
            start=row.start,
        )
    except (zlib.error, zipfile.BadZipFile, KeyError, ValueError, OSError, EOFError) as error:
        raise ValueError(f"segment {row.id} cannot be unpacked") from error
    if segment.id != row.id:
        raise ValueError(f"segment {row.id} is not what was stored")
    return segment


def query_row(query: Query, position: int) -> dict[str, Any]:
    """Return the row of the query that is number `position` of its session."""
    return {
        "id": query.id,
        "session": int(query.session),
        "position": position,
        "num_env_steps": int(query.num_env_steps),
        "first": query.segments[0].id,
        "second": query.segments[1].id,
    }


def answer_row(answer: Comparison, now: str) -> dict[str, Any]:
    """Return the row of an answer; `now` is UTC in ISO 8601."""
    return {
        "query_id": answer.query_id,
        "preference": answer.preference,
        "annotator": answer.annotator,
        "seconds": float(answer.seconds),
        "created_at": now,
    }


def read_comparison(row: sa.Row[Any]) -> Comparison:
    """Rebuild an answer from its row."""
    return Comparison(
        query_id=row.query_id,
        preference=row.preference,
        annotator=row.annotator,
        seconds=row.seconds,
    )


def _pack(arrays: Mapping[str, Array]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return zlib.compress(buffer.getbuffer(), level=1)


def _unpack(data: bytes) -> dict[str, Array]:
    with np.load(io.BytesIO(zlib.decompress(data)), allow_pickle=False) as arrays:
        return dict(arrays)

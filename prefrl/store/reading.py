"""Reading the record: queries, segments and answers from their rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from prefrl.errors import UserError
from prefrl.feedback import KINDS, Entry, Query, Response, Undo
from prefrl.feedback.queries import JUDGING_SESSION, AskedPairs
from prefrl.segments import Segment
from prefrl.store import tables
from prefrl.store.claims import standing as stands
from prefrl.store.engine import chunks
from prefrl.store.facts import check_fact
from prefrl.store.rows import ENTRY_COLUMNS, QueryCard, query_fields, read_card, read_entry, read_segment

ROWS_AT_ONCE = 1000  # fetched before they are read


def queries(
    connection: sa.Connection, condition: sa.ColumnElement[bool], name: str, *, repeats: bool = False
) -> list[Query]:
    """Return queries, oldest session first; repeats only if asked for."""
    if not repeats:
        condition &= tables.queries.c.repeat_of.is_(None)
    order = tables.queries.c.session, tables.queries.c.position
    rows = connection.execute(sa.select(tables.queries).where(condition).order_by(*order)).all()
    shown = _items(connection, [row.id for row in rows])
    names = [item for row in rows for item in shown[row.id] if isinstance(item, str)]
    found = segments(connection, names, name)
    result = []
    for row in rows:
        items = shown[row.id]
        query = Query(
            segments=tuple(found[item] for item in items if isinstance(item, str)),
            responses=tuple(item for item in items if isinstance(item, Response)),
            **query_fields(row),
        )
        if query.id != row.id:  # which is made of what it shows and asks
            raise ValueError(f"the query {row.id} is not what was asked")
        result.append(query)
    return result


def cards(connection: sa.Connection, query_ids: Sequence[str]) -> list[QueryCard]:
    """Return queries without their arrays, in the order given, those that there are."""
    rows = {}
    for chunk in chunks(query_ids):
        for row in connection.execute(sa.select(tables.queries).where(tables.queries.c.id.in_(chunk))):
            rows[row.id] = row
    items = _items(connection, query_ids)
    return [read_card(rows[query_id], items[query_id]) for query_id in query_ids if query_id in rows]


@dataclass(frozen=True, slots=True)
class Outline:
    """What the answers to a query can be."""

    scale: int | None
    num_items: int


def outlines(connection: sa.Connection, query_ids: Sequence[str]) -> dict[str, Outline]:
    """Return the outlines of queries by their names."""
    query, item = tables.queries.c, tables.query_items.c
    shows = sa.select(sa.func.count()).where(item.query_id == query.id).scalar_subquery()
    found = {}
    for chunk in chunks(dict.fromkeys(query_ids)):
        for name, *values in connection.execute(sa.select(query.id, query.scale, shows).where(query.id.in_(chunk))):
            found[name] = Outline(*values)
    return found


def asked_again(connection: sa.Connection) -> dict[str, str | None]:
    """Return the queries whose answers teach nothing, and which each asks again; None: it judges what was learned."""
    query = tables.queries.c
    idle = query.repeat_of.isnot(None) | (query.session >= JUDGING_SESSION)
    return dict(connection.execute(sa.select(query.id, query.repeat_of).where(idle)).all())


def _items(connection: sa.Connection, query_ids: Sequence[str]) -> dict[str, list[str | Response]]:
    """Return what each query shows, in its order: names of segments, or responses."""
    found: dict[str, list[str | Response]] = {query_id: [] for query_id in query_ids}
    item, response = tables.query_items.c, tables.responses.c
    columns = item.query_id, item.segment_id, response.prompt, response.text
    for chunk in chunks(query_ids):
        statement = (
            sa.select(*columns)
            .select_from(tables.query_items.outerjoin(tables.responses))
            .where(item.query_id.in_(chunk))
            .order_by(item.query_id, item.position)
        )
        for query_id, segment_id, prompt, text in connection.execute(statement):
            found[query_id].append(segment_id or Response(prompt=prompt, text=text))
    return found


def segments(
    connection: sa.Connection, segment_ids: Sequence[str], name: str, *, replay: bool = False
) -> dict[str, Segment]:
    """Return segments by their names, those that there are."""
    found = {}
    for chunk in chunks(dict.fromkeys(segment_ids)):
        replays: dict[str, bytes] = {}
        if replay:
            states = sa.select(tables.replays).where(tables.replays.c.segment_id.in_(chunk))
            replays = {row.segment_id: row.arrays for row in connection.execute(states)}
        for row in connection.execute(sa.select(tables.segments).where(tables.segments.c.id.in_(chunk))):
            try:
                found[row.id] = read_segment(row, replays.get(row.id))
            except (ValueError, UserError) as error:
                raise damaged(name, error) from error
    return found


def answers(
    connection: sa.Connection, condition: sa.ColumnElement[bool], name: str, at_most: int | None = None
) -> list[tuple[int, Entry]]:
    """Return answers with their rows, ascending; the condition may speak of their queries."""
    statement = sa.select(*ENTRY_COLUMNS).join_from(tables.answers, tables.queries).where(condition)
    statement = statement.order_by(tables.answers.c.id).limit(at_most)
    found: list[tuple[int, Entry]] = []
    loaded: set[str] = set()
    for rows in connection.execute(statement).partitions(ROWS_AT_ONCE):
        for row in rows:
            if row[1] not in loaded:
                _load_kind(row[1])
                loaded.add(row[1])
            try:
                found.append((row[0], read_entry(row)))
            except (ValueError, UserError) as error:
                raise damaged(name, error) from error
    return found


def answer(connection: sa.Connection, row: int, name: str, *, standing: bool = True) -> Entry | None:
    """Return one answer, with `standing` only if it was not taken back; or None."""
    condition = (tables.answers.c.id == row) & (stands() if standing else sa.true())
    found = connection.execute(sa.select(*ENTRY_COLUMNS).where(condition)).first()
    if found is None:
        return None
    _load_kind(found.kind)
    try:
        return read_entry(found)
    except (ValueError, UserError) as error:
        raise damaged(name, error) from error


def _load_kind(name: str) -> None:
    """Load a kind of a user's own, so that one whose module is not here is not taken for damage."""
    if ":" in name:
        KINDS.check_read(name)
        KINDS.find(name)


def num_answers(connection: sa.Connection, annotator: str | None) -> int:
    """Return how many answers stand."""
    column, undo = tables.answers.c, tables.undos
    given = sa.select(sa.func.count()).select_from(tables.answers).where(tables.is_answer())
    taken_back = (
        sa.select(sa.func.count())
        .select_from(tables.answers.join(undo, undo.c.undoes == column.id))
        .where(tables.is_answer(), undo.c.kind == Undo.kind)
    )
    if annotator is not None:
        given = given.where(column.annotator == annotator)
        taken_back = taken_back.where(undo.c.annotator == annotator)
    return connection.scalars(given).one() - connection.scalars(taken_back).one()


def num_idle(connection: sa.Connection, annotator: str | None) -> int:
    """Return how many of those that stand teach nothing: "can't tell", what was asked again, what judges the run."""
    column, query = tables.answers.c, tables.queries.c
    joined = sa.select(sa.func.count()).select_from(tables.answers.join(tables.queries))
    joined = joined.where(tables.is_answer(), stands())
    if annotator is not None:
        joined = joined.where(column.annotator == annotator)
    again = joined.where(
        query.repeat_of.isnot(None)
    )  # three counts: each finds its few rows by an index, or in one pass
    asked = query.repeat_of.is_(None)
    cannot_tell = joined.where(asked, column.value == "null", query.session < JUDGING_SESSION)
    judging = joined.where(asked, query.session >= JUDGING_SESSION)
    return sum(connection.scalars(count).one() for count in (again, cannot_tell, judging))


def asked_pairs(connection: sa.Connection) -> AskedPairs:
    """Return what was shown together."""
    item, found = tables.query_items.c, AskedPairs()
    joined = sa.func.string_agg if connection.dialect.name == "postgresql" else sa.func.group_concat
    names = joined(sa.func.coalesce(item.segment_id, item.response_id), " ")
    for rows in connection.execute(sa.select(names).group_by(item.query_id)).partitions(ROWS_AT_ONCE):
        for (together,) in rows:
            found.add(together.split())
    return found


def asked_windows(connection: sa.Connection) -> dict[int, list[int]]:
    """Return the first steps of segments by the number of their episode."""
    windows: dict[int, list[int]] = {}
    for row in connection.execute(sa.select(tables.segments.c.episode, tables.segments.c.start)):
        windows.setdefault(row.episode, []).append(row.start)
    return windows


def facts(connection: sa.Connection) -> dict[str, Any]:
    """Return what a run has told those who watch it.

    Raises:
        ValueError: one of them is not what it should be.
    """
    found = {row.key: json.loads(row.value) for row in connection.execute(sa.select(tables.facts))}
    for name, value in found.items():
        check_fact(name, value)
    return found


def damaged(name: str, error: Exception) -> UserError:
    """Return the error that says what in a record cannot be read."""
    return UserError(f"The record {name} is damaged: {error}. Restore it from a copy.")

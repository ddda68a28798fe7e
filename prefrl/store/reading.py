"""Reading the record: queries, segments and answers from their rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from prefrl.errors import UserError
from prefrl.feedback import KINDS, Entry, Query, Response, Undo
from prefrl.feedback.queries import JUDGING_SESSION
from prefrl.segments import Segment
from prefrl.store import tables
from prefrl.store.claims import standing as stands
from prefrl.store.engine import chunks
from prefrl.store.rows import QueryCard, query_fields, read_card, read_entry, read_segment


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
        result.append(
            Query(
                segments=tuple(found[item] for item in items if isinstance(item, str)),
                responses=tuple(item for item in items if isinstance(item, Response)),
                **query_fields(row),
            )
        )
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
    """What is asked by a query, but not of what."""

    kind: str
    scale: int | None
    repeat_of: str | None
    num_items: int


def outlines(connection: sa.Connection) -> dict[str, Outline]:
    """Return the outlines of all queries by their names."""
    query, item = tables.queries.c, tables.query_items.c
    counted = sa.select(item.query_id, sa.func.count().label("num_items")).group_by(item.query_id).subquery()
    statement = sa.select(query.id, query.kind, query.scale, query.repeat_of, counted.c.num_items)
    statement = statement.join(counted, counted.c.query_id == query.id)
    return {name: Outline(*values) for name, *values in connection.execute(statement)}


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
    statement = sa.select(tables.answers).join(tables.queries).where(condition).order_by(tables.answers.c.id)
    if at_most is not None:
        statement = statement.limit(at_most)
    rows = connection.execute(statement).all()
    _load_kinds(row.kind for row in rows)
    try:
        return [(row.id, read_entry(row)) for row in rows]
    except (ValueError, UserError) as error:
        raise damaged(name, error) from error


def answer(connection: sa.Connection, row: int, name: str, *, standing: bool = True) -> Entry | None:
    """Return one answer, with `standing` only if it was not taken back; or None."""
    condition = (tables.answers.c.id == row) & (stands() if standing else sa.true())
    found = connection.execute(sa.select(tables.answers).where(condition)).first()
    if found is None:
        return None
    _load_kinds([found.kind])
    try:
        return read_entry(found)
    except (ValueError, UserError) as error:
        raise damaged(name, error) from error


def _load_kinds(names: Iterable[str]) -> None:
    """Load kinds of a user's own, so that one whose module is not here is not taken for damage."""
    for name in dict.fromkeys(names):
        if ":" in name:
            KINDS.check_read(name)
            KINDS.find(name)


def num_answers(connection: sa.Connection, annotator: str | None) -> int:
    """Return how many answers stand."""
    column, undo = tables.answers.c, tables.answers.alias()
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


def asked_pairs(connection: sa.Connection) -> set[frozenset[str]]:
    """Return the sets of names of what was shown together."""
    item = tables.query_items.c
    together: dict[str, list[str]] = {}
    for query_id, segment_id in connection.execute(
        sa.select(item.query_id, sa.func.coalesce(item.segment_id, item.response_id))
    ):
        together.setdefault(query_id, []).append(segment_id)
    return {frozenset(names) for names in together.values()}


def asked_windows(connection: sa.Connection) -> dict[int, list[int]]:
    """Return the first steps of segments by the number of their episode."""
    windows: dict[int, list[int]] = {}
    for row in connection.execute(sa.select(tables.segments.c.episode, tables.segments.c.start)):
        windows.setdefault(row.episode, []).append(row.start)
    return windows


def damaged(name: str, error: Exception) -> UserError:
    """Return the error that says what in a record cannot be read."""
    return UserError(f"The record {name} is damaged: {error}. Restore it from a copy.")

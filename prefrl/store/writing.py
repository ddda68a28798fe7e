"""Writing the record: rows of queries, answers, annotators and facts.

Everything here may be done twice without harm: rows have names that follow from their content, or that were drawn
before the transaction began.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from prefrl.errors import UserError
from prefrl.feedback import KINDS, Answer, Edit, Entry, Query
from prefrl.store import reading, tables
from prefrl.store.claims import count_missing
from prefrl.store.engine import chunks
from prefrl.store.rows import QueryCard, entry_row, item_rows, pack, query_row, segment_row

ANNOTATOR_KINDS = ("person", "teacher", "model", "unknown")


def add_queries(connection: sa.Connection, queries: Sequence[Query]) -> None:
    """Record queries and what they show; those already recorded stay as they are."""
    known = _known(connection, tables.queries, (query.id for query in queries))
    fresh = list({query.id: query for query in queries if query.id not in known}.values())
    segments = {segment.id: segment for query in fresh for segment in query.segments}
    stored = _known(connection, tables.segments, segments)
    for chunk in chunks([s for s in segments.values() if s.id not in stored]):
        connection.execute(sa.insert(tables.segments), [segment_row(segment) for segment in chunk])
        replays = [{"segment_id": s.id, "arrays": pack(s.replay)} for s in chunk if s.replay is not None]
        _insert(connection, tables.replays, replays)
    responses = {response.id: response for query in fresh for response in query.responses}
    stored = _known(connection, tables.responses, responses)
    _insert(
        connection,
        tables.responses,
        [{"id": r.id, "prompt": r.prompt, "text": r.text} for r in responses.values() if r.id not in stored],
    )
    positions = _next_positions(connection, {query.session for query in fresh})
    rows = []
    for query in fresh:
        asked_anew = query.repeat_of is None
        rows.append(query_row(query, positions[query.session] if asked_anew else None))
        positions[query.session] += asked_anew
    _insert(connection, tables.queries, rows)
    _insert(connection, tables.query_items, [row for query in fresh for row in item_rows(query)])


def add_repeat(connection: sa.Connection, query_id: str, annotator: str) -> QueryCard:
    """Ask one annotator a query again; return the query that does."""
    (original,) = reading.queries(connection, tables.queries.c.id == query_id, "")
    again = Query(
        kind=original.kind,
        scale=original.scale,
        segments=original.segments,
        responses=original.responses,
        instruction=original.instruction,
        session=original.session,
        num_env_steps=original.num_env_steps,
        repeat_of=query_id,
        reserved_for=annotator,
    )
    add_queries(connection, [again])
    return reading.cards(connection, [again.id])[0]


def make_tokens(answers: Sequence[Entry | None]) -> list[str]:
    """Return a name for each answer that makes recording it twice harmless: its claim's, or a new one."""
    return [uuid.uuid4().hex if a is None or a.claim is None else a.claim for a in answers]


def add_answers(connection: sa.Connection, answers: Sequence[Entry], tokens: Sequence[str], name: str) -> list[int]:
    """Record those answers that are not recorded yet; return the rows of all."""
    if not answers:
        return []
    rows = rows_of(connection, tokens)
    fresh = {token: answer for token, answer in zip(tokens, answers, strict=True) if token not in rows}
    kinds = _check(connection, list(fresh.values()), name)
    known = set(connection.scalars(sa.select(tables.annotators.c.name)))
    for annotator in dict.fromkeys(answer.annotator for answer in fresh.values()):
        if annotator not in known:
            connection.execute(sa.insert(tables.annotators), {"name": annotator, "kind": "unknown"})
    now = time.time()
    made = zip(fresh.items(), kinds, strict=True)
    _insert(connection, tables.answers, [entry_row(answer, kind, token, now) for (token, answer), kind in made])
    count_missing(connection, (answer.query_id for answer in fresh.values()))
    for chunk in chunks(fresh):
        connection.execute(sa.delete(tables.claims).where(tables.claims.c.token.in_(chunk)))
    if fresh:
        rows |= rows_of(connection, list(fresh))
    return [rows[token] for token in tokens]


def add_annotator(connection: sa.Connection, name: str, kind: str) -> None:
    """Note what an annotator is."""
    if kind not in ANNOTATOR_KINDS:
        raise UserError(f"The kind of an annotator must be one of {', '.join(ANNOTATOR_KINDS)}. Received {kind!r}")
    changed = connection.execute(sa.update(tables.annotators).where(tables.annotators.c.name == name).values(kind=kind))
    if not changed.rowcount:
        connection.execute(sa.insert(tables.annotators), {"name": name, "kind": kind})


def set_facts(connection: sa.Connection, facts: Mapping[str, Any]) -> None:
    """Put facts in place of those of the same name."""
    for chunk in chunks(facts):
        connection.execute(sa.delete(tables.facts).where(tables.facts.c.key.in_(chunk)))
    _insert(connection, tables.facts, [{"key": k, "value": json.dumps(v)} for k, v in facts.items()])


def _check(connection: sa.Connection, entries: Sequence[Entry], name: str) -> list[str]:
    """Raise `UserError` unless every entry fits its query; return the names of their kinds."""
    queries = {}
    item, query = tables.query_items.c, tables.queries.c
    for chunk in chunks(dict.fromkeys(entry.query_id for entry in entries)):
        num_items = sa.func.count(item.position)
        statement = sa.select(query.id, query.kind, query.scale, num_items).join(tables.query_items)
        for row in connection.execute(statement.where(query.id.in_(chunk)).group_by(query.id)):
            queries[row[0]] = row[1:]
    names = []
    for entry in entries:
        if entry.query_id not in queries:
            raise UserError(
                f"The record {name} holds no query {entry.query_id!r}, so it cannot be answered. "
                "Record the query first (add_queries), or open the record it was asked in."
            )
        kind, scale, num_items = queries[entry.query_id]
        if isinstance(entry, Answer):
            KINDS.check_read(kind)
            if type(entry) is not KINDS.find(kind):
                raise UserError(f"The query {entry.query_id} asks for a {kind}; got a {entry.kind}.")
            entry.check(num_items, scale)
        elif isinstance(entry, Edit):
            _check_edit(connection, entry)
        names.append(kind if isinstance(entry, Answer) else entry.kind)
    return names


def _check_edit(connection: sa.Connection, edit: Edit) -> None:
    (card,) = reading.cards(connection, [edit.query_id])
    if not 0 <= edit.item < len(card.responses):
        raise UserError(
            f"An edit rewrites one of the {len(card.responses)} responses of query {edit.query_id}, by its number "
            f"from 0. Received {edit.item}"
        )


def _known(connection: sa.Connection, table: sa.Table, names: Iterable[str]) -> set[str]:
    """Return those of `names` that `table` holds."""
    found: set[str] = set()
    for chunk in chunks(names):
        found.update(connection.scalars(sa.select(table.c.id).where(table.c.id.in_(chunk))))
    return found


def rows_of(connection: sa.Connection, tokens: Sequence[str]) -> dict[str, int]:
    """Return the rows of those answers that are recorded, by their tokens."""
    columns = tables.answers.c.token, tables.answers.c.id
    found: dict[str, int] = {}
    for chunk in chunks(tokens):
        statement = sa.select(*columns).where(tables.answers.c.token.in_(chunk))
        for row in connection.execute(statement):
            found[row.token] = row.id
    return found


def _next_positions(connection: sa.Connection, sessions: set[int]) -> dict[int, int]:
    last = sa.select(sa.func.max(tables.queries.c.position))
    found = {session: connection.scalar(last.where(tables.queries.c.session == session)) for session in sessions}
    return {session: 0 if position is None else position + 1 for session, position in found.items()}


def _insert(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        connection.execute(sa.insert(table), list(rows))

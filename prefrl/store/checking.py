"""Is a record whole? What a damaged page, a hand or a lost log takes from it is found before the rest is used.

SQLite follows what it finds: a row that an index or a page lost is missing from what is read, without a word.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from prefrl.errors import UserError
from prefrl.feedback import KINDS, Answer, Comparison, Response, Undo
from prefrl.store import reading, tables
from prefrl.store.writing import ANNOTATOR_KINDS

AT_ONCE = 10_000  # answers in memory


def check(connection: sa.Connection, name: str) -> None:
    """Check pages and indices, what rows refer to, and that each answer fits its query.

    Raises:
        UserError: the record is damaged.
    """
    if connection.dialect.name == "sqlite":
        found = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar_one()
        if found != "ok":
            raise reading.damaged(name, ValueError(str(found).replace("\n", " ")[:200]))
        lost = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
        if lost is not None:
            raise reading.damaged(name, ValueError(f"a row of {lost[0]} refers to one of {lost[2]} that is missing"))
        _check_types(connection, name)
    _check_items(connection, name)
    _check_kinds(connection, name)
    _check_responses(connection, name)
    reading.facts(connection)
    after, kind = 0, tables.answers.c.kind
    others = kind.not_in((Comparison.kind, Undo.kind))  # which fit whatever shows two
    while entries := reading.answers(connection, others & (tables.answers.c.id > after), name, AT_ONCE):
        outlines = reading.outlines(connection, [entry.query_id for _, entry in entries])
        for row, entry in entries:
            try:
                outline = outlines[entry.query_id]
                if isinstance(entry, Answer):
                    entry.check(outline.num_items, outline.scale)
            except UserError as error:
                raise reading.damaged(name, ValueError(f"answer {row}: {error}")) from error
        after = entries[-1][0]


def _check_types(connection: sa.Connection, name: str) -> None:
    """Check that columns hold values of their types: a file takes a text for a number as well."""
    for table in tables.metadata.tables.values():
        kinds = {column.name: sa.func.typeof(column) for column in table.c}
        known = {column.name: (*_kinds_of(column.type), "null") for column in table.c}
        wrong = [kind.not_in(known[column]) for column, kind in kinds.items()]
        shown = [kind.label(column) for column, kind in kinds.items()]
        found = connection.execute(sa.select(*shown).where(sa.or_(*wrong)).limit(1)).first()
        for column, kind in [] if found is None else found._mapping.items():
            if kind not in known[column]:
                raise reading.damaged(name, ValueError(f"{table.name}.{column} holds a value of type {kind}"))


def _kinds_of(column: sa.types.TypeEngine[Any]) -> tuple[str, ...]:
    """Return what SQLite calls values of a type of column."""
    if isinstance(column, sa.Integer | sa.Double | sa.Boolean):
        return ("integer", "real")
    return ("blob",) if isinstance(column, sa.LargeBinary) else ("text",)


def _check_responses(connection: sa.Connection, name: str) -> None:
    """Check that texts are those that they are named after."""
    responses = sa.select(tables.responses).execution_options(yield_per=AT_ONCE)
    for response_id, prompt, text in connection.execute(responses):
        if Response(prompt=prompt, text=text).id != response_id:
            raise reading.damaged(name, ValueError(f"the response {response_id} is not what was recorded"))


def _check_kinds(connection: sa.Connection, name: str) -> None:
    """Check that each query shows as many as its kind asks for; kinds of a user's own are left alone."""
    item, query, count = tables.query_items.c, tables.queries.c, sa.func.count().label("num_items")
    shows = sa.select(item.query_id, count).group_by(item.query_id).subquery()
    statement = sa.select(query.kind, shows.c.num_items, sa.func.min(query.id))
    statement = statement.join(shows, shows.c.query_id == query.id).group_by(query.kind, shows.c.num_items)
    for kind, num_items, query_id in connection.execute(statement):
        known = KINDS.get(kind)
        if ":" not in kind and (known is None or not known.fewest <= num_items <= known.most):
            raise reading.damaged(name, ValueError(f"query {query_id} shows {num_items} and asks for a {kind}"))


def _check_items(connection: sa.Connection, name: str) -> None:
    """Check that each query shows something, and that each item is a segment or a response."""
    item, query = tables.query_items.c, tables.queries.c
    neither = sa.select(item.query_id).where(item.segment_id.is_(None) == item.response_id.is_(None))
    nothing = sa.select(query.id).where(~sa.exists().where(item.query_id == query.id))
    count, positions = sa.func.count(), (sa.func.min(item.position), sa.func.max(item.position))
    gaps = sa.select(item.query_id).group_by(item.query_id).having((positions[0] != 0) | (positions[1] != count - 1))
    who = tables.annotators.c
    if (strange := connection.scalar(sa.select(who.name).where(who.kind.not_in(ANNOTATOR_KINDS)).limit(1))) is not None:
        raise reading.damaged(name, ValueError(f"what kind of annotator {strange!r} is, is none that is known"))
    for statement in (neither, nothing, gaps):
        found = connection.scalar(statement.limit(1))
        if found is not None:
            raise reading.damaged(name, ValueError(f"what query {found} shows is missing"))

"""Questions whose answer is known, since somebody who is trusted gave it: put to others, they tell how good theirs are.

Such a question is one asked again of one annotator (`repeat_of`, `reserved_for`): its answer teaches nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import sqlalchemy as sa

from prefrl.feedback import Answer, Undo
from prefrl.store import reading, tables
from prefrl.store.claims import standing
from prefrl.store.engine import chunks


def choose(
    connection: sa.Connection, annotator: str, known_by: str, now: float, rng: np.random.Generator
) -> str | None:
    """Return a query that `known_by` decided and `annotator` neither answered, nor is answering, now or again."""
    answer, query = tables.answers.c, tables.queries.c
    theirs, again, given, claim = (
        tables.answers.alias(),
        tables.queries.alias(),
        tables.answers.alias(),
        tables.claims.c,
    )
    asked = (again.c.repeat_of == query.id) & (again.c.reserved_for == annotator)
    item = tables.query_items.c
    drawn = sa.exists().where(tables.clips.c.segment_id == item.segment_id)
    statement = (
        sa.select(answer.query_id)
        .join(tables.queries)
        .where(
            answer.annotator == known_by,
            tables.is_answer(),
            answer.value.not_in(("null", "0.5", "0")),
            standing(),
            query.repeat_of.is_(None),
            ~sa.exists().where(item.query_id == query.id, item.segment_id.isnot(None), ~drawn),
            ~sa.exists().where(
                theirs.c.query_id == query.id, theirs.c.annotator == annotator, theirs.c.kind != Undo.kind,
                standing(theirs),
            ),
            ~sa.exists().where(claim.query_id == query.id, claim.annotator == annotator, claim.expires_at > now),
            ~sa.exists().where(
                asked, given.c.query_id == again.c.id, given.c.kind != Undo.kind, standing(given)
            ),
            ~sa.exists().where(
                asked, claim.query_id == again.c.id, claim.annotator == annotator, claim.expires_at > now
            ),
        )
        .order_by(answer.id)
    )  # fmt: skip
    names = list(connection.scalars(statement))
    return names[int(rng.integers(len(names)))] if names else None


def has_answered(connection: sa.Connection, query_id: str, annotator: str) -> bool:
    """Tell whether an annotator's answer to a query stands."""
    answer = tables.answers.c
    of_theirs = (answer.query_id == query_id) & (answer.annotator == annotator) & tables.is_answer()
    return connection.scalar(sa.select(answer.id).where(of_theirs, standing()).limit(1)) is not None


def held(connection: sa.Connection, query_id: str, annotator: str) -> str | None:
    """Return the query by which an annotator was asked `query_id` before, and did not answer."""
    query = tables.queries.c
    return connection.scalar(sa.select(query.id).where(query.repeat_of == query_id, query.reserved_for == annotator))


def both(connection: sa.Connection, annotator: str, known_by: str, name: str) -> list[tuple[Answer, Answer]]:
    """Return what is known and what an annotator said of it, in the order in which they said it."""
    if annotator == known_by:
        return []
    answer, query = tables.answers.c, tables.queries.c
    condition = tables.is_answer() & standing()
    asked = condition & (answer.annotator == annotator) & (query.reserved_for == annotator)
    said = reading.answers(connection, asked & query.repeat_of.isnot(None), name)
    of = dict(connection.execute(sa.select(query.id, query.repeat_of).where(query.reserved_for == annotator)).all())
    originals: dict[str, Any] = {}
    for chunk in chunks(of.values()):
        theirs = condition & (answer.annotator == known_by) & answer.query_id.in_(chunk)
        originals |= {known.query_id: known for _, known in reading.answers(connection, theirs, name)}
    return [(originals[of[a.query_id]], a) for _, a in said if of[a.query_id] in originals and isinstance(a, Answer)]

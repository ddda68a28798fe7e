"""Withdrawal: a person's answers leave the record, while whoever trains on it goes on.

A row of an answer stays, since trainings remember which rows they have read; but nothing of the person does: their name
gives way to one that says nothing, what they said to "can't tell", times and comments to none, and a row that takes the
answer back makes every training drop it, also one that was stopped. Their queries are asked of somebody else.
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass

import sqlalchemy as sa

from prefrl.errors import UserError
from prefrl.feedback import Edit, Undo
from prefrl.store import assigning, tables
from prefrl.store.claims import count_missing, standing
from prefrl.store.engine import chunks
from prefrl.store.links import forget_links
from prefrl.store.participants import forget_participant

WITHDRAWN = "withdrawn-"
"""How the names of those begin who withdrew."""


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """What was removed."""

    answers: int
    """Answers that stood."""
    links: int

    def __str__(self) -> str:
        return f"{self.answers} answers and {self.links} links"


def forget(connection: sa.Connection, annotator: str, name: str) -> Forgotten:
    """Remove a person's answers from a record.

    Args:
        connection: within a transaction that writes.
        annotator: the person.
        name: of the record, for messages.

    Raises:
        UserError: nobody of that name, or a teacher or model, who cannot withdraw.
    """
    kinds: dict[str, str] = {row.name: row.kind for row in connection.execute(sa.select(tables.annotators))}
    links = forget_links(connection, annotator)
    known = forget_participant(connection, annotator)
    if annotator not in kinds and not links and not known:
        people = ", ".join(sorted(n for n, k in kinds.items() if k == "person" and not n.startswith(WITHDRAWN)))
        raise UserError(f"Nobody called {annotator!r} is in the record {name}. People there: {people or 'none'}")
    if kinds.get(annotator) in ("teacher", "model"):
        raise UserError(
            f"{annotator!r} is a {kinds[annotator]}, not a person. Leave its answers out with: "
            f"prefrl fit RUN --without {annotator}"
        )
    connection.execute(sa.delete(tables.claims).where(tables.claims.c.annotator == annotator))
    connection.execute(
        sa.delete(tables.facts).where(tables.facts.c.key.in_([f"viewer {annotator}", f"left {annotator}"]))
    )
    assigning.free(connection, [annotator])
    num = _forget_answers(connection, annotator) if annotator in kinds else 0
    connection.execute(sa.delete(tables.annotators).where(tables.annotators.c.name == annotator))
    return Forgotten(answers=num, links=links)


def _forget_answers(connection: sa.Connection, annotator: str) -> int:
    answer, query = tables.answers.c, tables.queries.c
    mine = sa.select(answer.id, answer.query_id).where(answer.annotator == annotator, answer.kind != Undo.kind)
    num = len(connection.execute(mine.where(answer.kind != Edit.kind, standing())).all())
    own = sa.select(query.id).where(query.reserved_for == annotator, query.repeat_of.isnot(None))
    own_ids = list(connection.scalars(own))
    for chunk in chunks(own_ids):  # what was asked again for them alone goes altogether: it teaches nothing
        undone = sa.delete(tables.answers).where(answer.query_id.in_(chunk), answer.undoes.isnot(None))
        connection.execute(undone)
        for table in (tables.answers, tables.query_items, tables.claims):
            connection.execute(sa.delete(table).where(table.c.query_id.in_(chunk)))
        connection.execute(sa.delete(tables.queries).where(query.id.in_(chunk)))
    pseudonym = WITHDRAWN + uuid.uuid4().hex[:12]
    connection.execute(sa.insert(tables.annotators), {"name": pseudonym, "kind": "person"})
    stands = connection.execute(mine.where(standing())).all()
    empty = {"shown": None, "shown_at": None, "answered_at": None, "seconds": 0.0, "comment": "", "reason": ""}
    empty |= {"flagged": False, "adjudicates": False}
    for chunk in chunks(row._asdict() for row in stands):
        undo = {"kind": Undo.kind, "value": "null", "annotator": pseudonym, **empty, "recorded_at": time.time()}
        rows = [{**undo, "token": uuid.uuid4().hex, "query_id": row["query_id"], "undoes": row["id"]} for row in chunk]
        connection.execute(sa.insert(tables.answers), rows)
    of_them = answer.annotator == annotator
    nothing = sa.case((answer.kind == Edit.kind, json.dumps({"item": 0, "text": ""})), else_="null")
    connection.execute(
        sa.update(tables.answers).where(of_them).values(annotator=pseudonym, value=nothing, recorded_at=0.0, **empty)
    )
    count_missing(connection, (row.query_id for row in stands))
    return num

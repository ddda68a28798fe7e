"""Who is asked which open question: some are reserved for one person, the others are for whoever comes first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from prefrl.store import tables
from prefrl.store.claims import standing
from prefrl.store.engine import chunks

_query = tables.queries.c
_MACHINES = sa.select(tables.annotators.c.name).where(tables.annotators.c.kind.in_(("teacher", "model")))


@dataclass(frozen=True, kw_only=True)
class Assigned:
    """What was given to whom, and why the rest was not."""

    given: dict[str, int]
    """Questions by person."""
    settled: int = 0
    """Those that miss no answer."""
    several: int = 0
    """Those that want answers of several people, so that one alone cannot settle them."""
    answered: int = 0
    """Those that all of these people have answered."""


def assign(
    connection: sa.Connection, people: Sequence[str], query_ids: Sequence[str] | None, at_most: int | None
) -> Assigned:
    """Reserve open questions for people, turn by turn, those that are asked first in front.

    Args:
        connection: within a transaction that writes.
        people: for whom.
        query_ids: which; None: those that are reserved for nobody.
        at_most: how many; None: all.
    """
    rows, num = _candidates(connection, query_ids), len(people)
    given: dict[str, list[str]] = {name: [] for name in people}
    answered_by = _answered_by(connection, people)
    settled = several = answered = turn = 0
    for row in rows:
        if at_most is not None and sum(map(len, given.values())) >= at_most:
            break
        if row.missing < 1:
            settled += 1
        elif row.missing > 1:
            several += 1
        else:
            places = [place for place in range(turn, turn + num) if row.id not in answered_by[people[place % num]]]
            if places:
                given[people[places[0] % num]].append(row.id)
                turn = places[0] + 1
            else:
                answered += 1
    for name, ids in given.items():
        for chunk in chunks(ids):
            connection.execute(sa.update(tables.queries).where(_query.id.in_(chunk)).values(reserved_for=name))
    counts = {name: len(ids) for name, ids in given.items()}
    return Assigned(given=counts, settled=settled, several=several, answered=answered)


def free(connection: sa.Connection, people: Sequence[str] | None = None) -> int:
    """Let everybody answer the open questions that are reserved for these people, or for any; return how many."""
    condition = _of_people() if people is None else _of_people() & _query.reserved_for.in_(people)
    return connection.execute(sa.update(tables.queries).where(condition).values(reserved_for=None)).rowcount


def reserved(connection: sa.Connection) -> dict[str, int]:
    """Return how many open questions are reserved for each person."""
    statement = sa.select(_query.reserved_for, sa.func.count()).where(_of_people()).group_by(_query.reserved_for)
    return {str(row[0]): int(row[1]) for row in connection.execute(statement.order_by(_query.reserved_for))}


def _of_people() -> sa.ColumnElement[bool]:
    """Return the condition that an open question is reserved for a person; those of a panel's teachers stay theirs."""
    asked_anew = _query.repeat_of.is_(None) & _query.reserved_for.isnot(None)
    return tables.is_open & asked_anew & _query.reserved_for.not_in(_MACHINES)


def _candidates(connection: sa.Connection, query_ids: Sequence[str] | None) -> list[sa.Row[Any]]:
    statement = sa.select(_query.id, _query.missing).where(_query.repeat_of.is_(None))
    statement = statement.order_by(_query.session, _query.position)
    if query_ids is None:
        return list(connection.execute(statement.where(tables.is_open, _query.reserved_for.is_(None))))
    may = _query.reserved_for.is_(None) | _query.reserved_for.not_in(_MACHINES)
    found: list[sa.Row[Any]] = []
    for chunk in chunks(dict.fromkeys(query_ids)):
        found.extend(connection.execute(statement.where(_query.id.in_(chunk), may)))
    return found


def _answered_by(connection: sa.Connection, people: Sequence[str]) -> dict[str, set[str]]:
    answer = tables.answers.c
    statement = sa.select(answer.annotator, answer.query_id).where(
        answer.annotator.in_(people), tables.is_answer(), standing()
    )
    found: dict[str, set[str]] = {name: set() for name in people}
    for row in connection.execute(statement):
        found[row.annotator].add(row.query_id)
    return found

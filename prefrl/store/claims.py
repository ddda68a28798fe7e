"""Open queries: who may answer one now, what comes back, and what is asked again.

A query is open while answers to it are missing. An annotator claims it, so that nobody else is given the same place,
and has until the lease ends; then it comes back. Now and then a claim asks a comparison again that the same annotator
has answered, with the sides swapped.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa

from prefrl.errors import UserError
from prefrl.feedback import Comparison, Strength
from prefrl.store import tables
from prefrl.store.engine import chunks
from prefrl.store.rows import QueryCard, places_of

REPEAT_CANDIDATES = 200  # latest comparisons of an annotator, among which the one to ask again is chosen
REPEAT_DISTANCE = 5  # latest of them that are not: they are still remembered


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A query given to one annotator for a time."""

    token: str
    """Name of the claim; goes into its answer as `claim`."""
    query: QueryCard
    annotator: str
    shown: tuple[int, ...]
    """`shown[place]` is the number of the item to show there, left to right; goes into the answer."""
    expires_at: float
    """When the query comes back, in seconds since 1970."""


def standing(answer: sa.FromClause = tables.answers) -> sa.ColumnElement[bool]:
    """Return the condition that an answer was not taken back."""
    return ~sa.exists().where(tables.undos.c.undoes == answer.c.id).correlate(answer)


def count_missing(connection: sa.Connection, query_ids: Iterable[str]) -> None:
    """Bring up to date how many answers to each query are missing, and end the claims of those that miss none."""
    answer = tables.answers.c
    given = (
        sa.select(sa.func.count(sa.distinct(answer.annotator)))
        .where(answer.query_id == tables.queries.c.id, tables.is_answer(), standing())
        .scalar_subquery()
    )
    left = tables.queries.c.overlap - given
    for chunk in chunks(dict.fromkeys(query_ids)):
        connection.execute(
            sa.update(tables.queries)
            .where(tables.queries.c.id.in_(chunk))
            .values(missing=sa.case((left > 0, left), else_=0))
        )


def find_open(
    connection: sa.Connection,
    annotator: str,
    limit: int,
    now: float,
    *,
    kinds: Collection[str] | None,
    with_clips: bool,
) -> list[str]:
    """Return names of queries that the annotator may answer now, those asked first in front; of all kinds, if None."""
    query = tables.queries.c
    statement = sa.select(query.id).where(may_answer(annotator, now)).order_by(query.session, query.position)
    statement = statement.limit(limit)
    if kinds is not None:
        statement = statement.where(query.kind.in_(kinds))
    if with_clips:
        item = tables.query_items.c
        drawn = sa.exists().where(tables.clips.c.segment_id == item.segment_id)
        statement = statement.where(~sa.exists().where(item.query_id == query.id, item.segment_id.isnot(None), ~drawn))
    return list(connection.scalars(statement))


def may_answer(annotator: str, now: float) -> sa.ColumnElement[bool]:
    """Return the condition that a query is open, not all claimed, and not answered or claimed by this annotator."""
    query, claim, answer = tables.queries.c, tables.claims.c, tables.answers.c
    live = sa.select(sa.func.count()).where(claim.query_id == query.id, claim.expires_at > now).scalar_subquery()
    mine = sa.exists().where(claim.query_id == query.id, claim.annotator == annotator, claim.expires_at > now)
    answered = sa.exists().where(
        answer.query_id == query.id, answer.annotator == annotator, tables.is_answer(), standing()
    )
    return sa.and_(
        tables.is_open,
        query.missing > live,
        sa.or_(query.reserved_for.is_(None), query.reserved_for == annotator),
        ~mine,
        ~answered,
    )


def add_claim(
    connection: sa.Connection, card: QueryCard, annotator: str, shown: tuple[int, ...], expires_at: float
) -> Claim:
    """Give a query to an annotator; a claim of theirs that has expired goes."""
    claim = tables.claims.c
    connection.execute(sa.delete(tables.claims).where(claim.query_id == card.id, claim.annotator == annotator))
    token = uuid.uuid4().hex
    connection.execute(
        sa.insert(tables.claims),
        {
            "token": token,
            "query_id": card.id,
            "annotator": annotator,
            "shown": json.dumps(list(shown)),
            "expires_at": expires_at,
        },
    )
    return Claim(token=token, query=card, annotator=annotator, shown=shown, expires_at=expires_at)


def renew_claim(connection: sa.Connection, claim: Claim, expires_at: float, now: float) -> bool:
    """Extend a claim; return whether it still held, or could be had again."""
    column = tables.claims.c
    extended = connection.execute(
        sa.update(tables.claims)
        .where(column.token == claim.token, column.expires_at > now)
        .values(expires_at=expires_at)
    )
    if extended.rowcount:
        return True
    free = sa.select(tables.queries.c.id).where(tables.queries.c.id == claim.query.id, may_answer(claim.annotator, now))
    if connection.scalar(free) is None:
        return False
    connection.execute(
        sa.delete(tables.claims).where(column.query_id == claim.query.id, column.annotator == claim.annotator)
    )
    row = {"query_id": claim.query.id, "annotator": claim.annotator, "shown": json.dumps(list(claim.shown))}
    connection.execute(sa.insert(tables.claims), {"token": claim.token, "expires_at": expires_at, **row})
    return True


def end_claims(connection: sa.Connection, tokens: Iterable[str]) -> None:
    """Give claimed queries back."""
    for chunk in chunks(tokens):
        connection.execute(sa.delete(tables.claims).where(tables.claims.c.token.in_(chunk)))


def end_claims_of(connection: sa.Connection, annotator: str) -> None:
    """Give everything back that an annotator has claimed."""
    connection.execute(sa.delete(tables.claims).where(tables.claims.c.annotator == annotator))


def choose_repeat(
    connection: sa.Connection, annotator: str, rng: np.random.Generator
) -> tuple[str, tuple[int, ...]] | None:
    """Return a comparison of the annotator's to ask again, and the places its sides were shown at; None: no such."""
    answer, query = tables.answers.c, tables.queries.c
    again = tables.queries.alias()
    statement = (
        sa.select(answer.query_id, answer.shown)
        .join(tables.queries)
        .where(
            answer.annotator == annotator,
            answer.kind.in_((Comparison.kind, Strength.kind)),
            answer.shown.isnot(None),
            standing(),
            query.repeat_of.is_(None),
            ~sa.exists().where(again.c.repeat_of == query.id, again.c.reserved_for == annotator),
        )
        .order_by(answer.id.desc())
        .limit(REPEAT_CANDIDATES)
    )
    candidates = connection.execute(statement).all()[REPEAT_DISTANCE:]
    if not candidates:
        return None
    row = candidates[int(rng.integers(len(candidates)))]
    return row.query_id, places_of(row.shown)


def shown_before(connection: sa.Connection, query_id: str, annotator: str) -> tuple[int, ...] | None:
    """Return the places that a query's items were last shown at to an annotator; None if they were not."""
    answer = tables.answers.c
    shown = connection.scalar(
        sa.select(answer.shown)
        .where(answer.query_id == query_id, answer.annotator == annotator, answer.shown.isnot(None))
        .order_by(answer.id.desc())
        .limit(1)
    )
    return None if shown is None else places_of(shown)


def check_lease(lease_seconds: float) -> None:
    """Raise `UserError` unless a lease is a positive time."""
    if not lease_seconds > 0:
        raise UserError(f"lease_seconds must be positive. Received {lease_seconds}")

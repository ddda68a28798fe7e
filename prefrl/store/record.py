"""PreferenceStore: the durable record of segments, queries, answers and annotators.

A query is recorded before it is put to anyone and an answer before it is used, each in a transaction that is on the
disk when the call returns: what was recorded survives a kill at any instant. Several processes may hold one record.
Queries and answers are only ever added; taking an answer back adds a row too.

A segment is stored once under the hash of its observations and actions, however many queries show it: its arrays as a
compressed `.npz`, each image of a stack of images once, its true rewards in a column of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import sqlalchemy as sa

from prefrl.errors import UserError
from prefrl.feedback import Answer, Comparison, Entry, Query, Undo
from prefrl.feedback.queries import JUDGING_SESSION, AskedPairs
from prefrl.segments import Segment
from prefrl.store import assigning, checking, claims, clips, forgetting, known, reading, tables, writing
from prefrl.store.addition import Addition
from prefrl.store.assigning import Assigned
from prefrl.store.claims import Claim
from prefrl.store.clips import Clip
from prefrl.store.engine import Database, chunks
from prefrl.store.forgetting import Forgotten
from prefrl.store.links import Links
from prefrl.store.migration import open_schema
from prefrl.store.participants import Participants
from prefrl.store.reading import Outline
from prefrl.store.rows import QueryCard

_Result = TypeVar("_Result")
LEASE_SECONDS = 120.0
REPEAT_SHARE = 0.1


class PreferenceStore:
    """The record of one run; created if it is not there.

    Args:
        where: a file (SQLite), whose folder must exist, or the URL of a PostgreSQL database,
            `postgresql://user:password@host/database`.
        patience_seconds: how long each call waits for a server that has gone away.
        rng: which side is shown where, and what is asked again; default: unpredictable.
        create: make it if it is not there; otherwise refuse that.

    Raises:
        UserError: it is no record of preferences, was written by a newer version, or cannot be opened. It is left as it
            was. Every method raises it when the record can no longer be read or written, e.g. because the disk is full
            or the server is away; a transaction that failed leaves nothing behind.
    """

    def __init__(
        self,
        where: Path | str,
        *,
        patience_seconds: float = 30.0,
        rng: np.random.Generator | None = None,
        create: bool = True,
    ) -> None:
        self._database = Database(where, patience_seconds, create=create)
        self.name = self._database.name
        self.links = Links(self._database)
        """By which people reach the page of this record."""
        self.participants = Participants(self._database)
        """What is known of those who answer."""
        self._rng = rng or np.random.default_rng()
        try:
            open_schema(self._database, create=create)
        except UserError:
            self.close()
            raise

    @property
    def patience_seconds(self) -> float:
        """How long each call waits for a server that has gone away; it is said when one is waited for."""
        return self._database.patience_seconds

    @patience_seconds.setter
    def patience_seconds(self, seconds: float) -> None:
        self._database.patience_seconds = seconds

    def reading_together(self) -> AbstractContextManager[None]:
        """Make what this thread reads meanwhile one transaction, up to what it writes: fewer are faster."""
        return self._database.reading_together()

    # ------------------------------------------------------------------------------------------ asking and answering

    def add_queries(self, queries: Sequence[Query]) -> None:
        """Record queries that are about to be asked, in one transaction; those already recorded stay as they are."""
        self._database.write(lambda c: writing.add_queries(c, queries))

    def add_answers(self, answers: Sequence[Entry]) -> list[int]:
        """Record answers, and edits, in one transaction that is on the disk when this returns; return their rows.

        An answer to a claim is recorded once, however often it is sent. What comes when the query has been answered by
        others, because the claim ran out, is kept too.

        Raises:
            UserError: an answer belongs to no query of this record or does not fit it; none of them is recorded then.
        """
        tokens = writing.make_tokens(answers)
        return self._database.write(lambda c: writing.add_answers(c, answers, tokens, self.name))

    def add_together(self, work: Callable[[Addition], _Result]) -> _Result:
        """Let `work` add queries, answers, annotators and clips in one transaction: all of it is recorded, or nothing.

        It may be run again if a server goes away: it must do no harm when done twice.
        """
        return self._database.write(lambda c: work(Addition(c, self.name)))

    def undo(
        self, row: int, annotator: str, lease_seconds: float = LEASE_SECONDS, *, token: str | None = None
    ) -> Claim:
        """Take an answer back, and give its query to the same annotator again, shown as before.

        Args:
            row: of the answer.
            annotator: whose answer it is, and who answers again.
            lease_seconds: time to answer in.
            token: a name for this request that makes sending it twice harmless; default: a new one.

        Raises:
            UserError: there is no such answer of this annotator's, or it was taken back before.
        """
        claims.check_lease(lease_seconds)
        name = token or writing.make_tokens([None])[0]

        def work(connection: sa.Connection) -> Claim:
            done = bool(writing.rows_of(connection, [name]))
            answer = reading.answer(connection, row, self.name, standing=not done)
            if answer is None or answer.annotator != annotator or isinstance(answer, Undo):
                raise UserError(f"The record {self.name} holds no answer {row} of {annotator!r} to take back.")
            undo = Undo(query_id=answer.query_id, annotator=annotator, undoes=row)
            writing.add_answers(connection, [undo], [name], self.name)
            (card,) = reading.cards(connection, [answer.query_id])
            shown = answer.shown or tuple(range(card.num_items))
            expires_at = self._database.now(connection) + lease_seconds
            return claims.add_claim(connection, card, annotator, shown, expires_at)

        return self._database.write(work)

    def claim(
        self,
        annotator: str,
        limit: int = 1,
        *,
        lease_seconds: float = LEASE_SECONDS,
        kinds: Collection[str] | None = None,
        with_clips: bool = False,
        repeat_share: float = REPEAT_SHARE,
    ) -> list[Claim]:
        """Take up to `limit` open queries that nobody else is answering, those asked first in front.

        A query that is not answered when the lease ends comes back. Where each item is shown is drawn at random. With
        probability `repeat_share` a claim is a comparison that this annotator has answered before, with its sides
        swapped (`query.repeat_of`).

        Args:
            annotator: who will answer; nobody is given a query that they have answered or claimed.
            limit: how many.
            lease_seconds: time to answer in; `renew` extends it.
            kinds: names of the kinds of answers that can be given; None: all.
            with_clips: only those all of whose segments have clips.
            repeat_share: in [0, 1).
        """
        claims.check_lease(lease_seconds)
        if not 0 <= repeat_share < 1:
            raise UserError(f"repeat_share must be in [0, 1). Received {repeat_share}")

        def work(connection: sa.Connection) -> list[Claim]:
            now = self._database.now(connection)
            names = claims.find_open(connection, annotator, limit, now, kinds=kinds, with_clips=with_clips)
            repeats = self._rng.random(len(names)) < repeat_share
            made = []
            for card, again in zip(reading.cards(connection, names), repeats, strict=True):
                shown = claims.shown_before(connection, card.repeat_of, annotator) if card.repeat_of else None
                if again and not card.repeat_of and (kinds is None or Comparison.kind in kinds):
                    chosen = claims.choose_repeat(connection, annotator, self._rng)
                    if chosen is not None:
                        card, shown = writing.add_repeat(connection, chosen[0], annotator), chosen[1]
                if shown is None:
                    places = tuple(int(place) for place in self._rng.permutation(card.num_items))
                else:
                    places = shown[::-1]
                made.append(claims.add_claim(connection, card, annotator, places, now + lease_seconds))
            return made

        return self._database.write(work)

    def claim_known(self, annotator: str, known_by: str, lease_seconds: float = LEASE_SECONDS) -> list[Claim]:
        """Claim a question again that somebody else has answered, to see whether this annotator says the same.

        It teaches nothing, like what is asked again to measure consistency.

        Args:
            annotator: who will answer; nobody is given the same one twice.
            known_by: whose answers are taken to be right; ties and "can't tell" are left out.
            lease_seconds: time to answer in.

        Returns:
            One claim, or none if there is nothing left to ask.
        """
        claims.check_lease(lease_seconds)

        def work(connection: sa.Connection) -> list[Claim]:
            now = self._database.now(connection)
            query_id = known.choose(connection, annotator, known_by, now, self._rng)
            if query_id is None:
                return []
            held = known.held(connection, query_id, annotator)
            card = reading.cards(connection, [held])[0] if held else writing.add_repeat(connection, query_id, annotator)
            places = tuple(int(place) for place in self._rng.permutation(card.num_items))
            return [claims.add_claim(connection, card, annotator, places, now + lease_seconds)]

        return self._database.write(work)

    def known_answers(self, annotator: str, known_by: str) -> list[tuple[Answer, Answer]]:
        """Return what an annotator said where somebody else's answer is taken to be right, in order: (known, said)."""
        return self._database.read(lambda c: known.both(c, annotator, known_by, self.name))

    def has_answered(self, query_id: str, annotator: str) -> bool:
        """Tell whether an annotator's answer to a query stands."""
        return self._database.read(lambda c: known.has_answered(c, query_id, annotator))

    def answer_of_claim(self, token: str) -> int | None:
        """Return the row of the answer to a claim, None if it was not answered."""
        return self._database.read(lambda c: writing.rows_of(c, [token])).get(token)

    def renew(self, claim: Claim, lease_seconds: float = LEASE_SECONDS) -> bool:
        """Extend a claim; return False if it ran out and somebody else has the query by now."""
        claims.check_lease(lease_seconds)

        def work(connection: sa.Connection) -> bool:
            now = self._database.now(connection)
            return claims.renew_claim(connection, claim, now + lease_seconds, now)

        return self._database.write(work)

    def release(self, held: Sequence[Claim]) -> None:
        """Give claimed queries back unanswered."""
        self._database.write(lambda c: claims.end_claims(c, [claim.token for claim in held]))

    def release_all(self, annotator: str) -> None:
        """Give everything back that an annotator has claimed, e.g. in a viewer that was killed."""
        self._database.write(lambda c: claims.end_claims_of(c, annotator))

    # ------------------------------------------------------------------------------------------ reading

    def session_queries(self, session: int) -> list[Query]:
        """Return the queries of a session in the order they were added; none if it was not asked yet."""
        condition = tables.queries.c.session == session
        return self._database.read(lambda c: reading.queries(c, condition, self.name))

    def open_queries(self) -> list[Query]:
        """Return the queries to which answers are missing, oldest session first."""
        return self._database.read(lambda c: reading.queries(c, tables.is_open, self.name))

    def query(self, query_id: str) -> Query:
        """Return one query.

        Raises:
            UserError: there is none of that name.
        """
        condition = tables.queries.c.id == query_id
        found = self._database.read(lambda c: reading.queries(c, condition, self.name, repeats=True))
        if not found:
            raise UserError(f"The record {self.name} holds no query {query_id!r}.")
        return found[0]

    def queries(self, query_ids: Sequence[str]) -> list[Query]:
        """Return queries by their names, those that there are, oldest session first."""

        def work(connection: sa.Connection) -> list[Query]:
            found = []
            for chunk in chunks(dict.fromkeys(query_ids)):
                condition = tables.queries.c.id.in_(chunk)
                found += reading.queries(connection, condition, self.name, repeats=True)
            return found

        return self._database.read(work)

    def query_ids(self) -> list[str]:
        """Return the names of all queries, oldest session first, and those asked again after all others."""
        query = tables.queries.c
        order = query.repeat_of.isnot(None), query.session, query.position, query.id
        return self._database.read(lambda c: list(c.scalars(sa.select(query.id).order_by(*order))))

    def cards(self, query_ids: Sequence[str]) -> list[QueryCard]:
        """Return queries without the arrays of their segments; those that there are, in the order given."""
        return self._database.read(lambda c: reading.cards(c, query_ids))

    def segments(self, segment_ids: Sequence[str], *, replay: bool = False) -> dict[str, Segment]:
        """Return segments by their names, those that there are; with `replay`, what is needed to draw them too."""
        return self._database.read(lambda c: reading.segments(c, segment_ids, self.name, replay=replay))

    def answers(
        self, after: int = 0, up_to_session: int | None = None, *, standing: bool = False, repeats: bool = True,
        at_most: int | None = None,
    ) -> list[tuple[int, Entry]]:  # fmt: skip
        """Return answers, edits and what was taken back with their row numbers, ascending.

        Args:
            after: leave out rows up to and including this number: what was read before.
            up_to_session: leave out answers to queries of later sessions.
            standing: leave out what was taken back, and the rows that say so.
            repeats: include answers to what was asked again, and to what judges what was learned.
            at_most: return no more than so many; `after` the last of them come the next.
        """
        condition = tables.answers.c.id > after
        if up_to_session is not None:
            condition &= tables.queries.c.session <= up_to_session
        if standing:
            condition &= claims.standing() & (tables.answers.c.kind != Undo.kind)
        if not repeats:
            condition &= tables.queries.c.repeat_of.is_(None) & (tables.queries.c.session < JUDGING_SESSION)
        return self._database.read(lambda c: reading.answers(c, condition, self.name, at_most))

    def last_row(self) -> int:
        """Return the row number of the newest answer, 0 if there is none."""
        return self._database.read(lambda c: c.scalar(sa.select(sa.func.max(tables.answers.c.id))) or 0)

    def check(self) -> None:
        """Check that the record is whole: nothing that its parts refer to is missing, and each answer fits its query.

        Raises:
            UserError: it is damaged.
        """
        self._database.read(lambda c: checking.check(c, self.name))

    def text_queries(self) -> set[str]:
        """Return the names of the queries that show texts."""
        item = tables.query_items.c
        names = sa.select(item.query_id).where(item.response_id.isnot(None)).distinct()
        return self._database.read(lambda c: set(c.scalars(names)))

    def outlines(self, query_ids: Sequence[str]) -> dict[str, Outline]:
        """Return of queries what is needed to read their answers, by their names."""
        return self._database.read(lambda c: reading.outlines(c, query_ids))

    def asked_again(self) -> dict[str, str | None]:
        """Return what teaches nothing: queries by name, and which each asks again; None: it judges what was learned."""
        return self._database.read(reading.asked_again)

    def next_session(self, *, judging: bool = False) -> int:
        """Return the first session after those asked so far: of what is learned from, or of what judges."""
        session = tables.queries.c.session
        of_kind = session >= JUDGING_SESSION if judging else session < JUDGING_SESSION
        last = self._database.read(lambda c: c.scalar(sa.select(sa.func.max(session)).where(of_kind)))
        return (JUDGING_SESSION if judging else 0) if last is None else int(last) + 1

    def num_judging(self) -> int:
        """Return how many questions judge what was learned, answered or not."""
        judging = (tables.queries.c.session >= JUDGING_SESSION) & tables.queries.c.repeat_of.is_(None)
        count = sa.select(sa.func.count()).select_from(tables.queries).where(judging)
        return self._database.read(lambda c: c.scalars(count).one())

    def judgements(self) -> list[Answer]:
        """Return the answers that stand to the newest questions that judge what was learned (`JUDGING_SESSION`)."""

        def work(connection: sa.Connection) -> list[tuple[int, Entry]]:
            query = tables.queries.c
            newest = connection.scalar(sa.select(sa.func.max(query.session)).where(query.session >= JUDGING_SESSION))
            of_it = (query.session == newest) & query.repeat_of.is_(None) & claims.standing() & tables.is_answer()
            return [] if newest is None else reading.answers(connection, of_it, self.name)

        return [answer for _, answer in self._database.read(work) if isinstance(answer, Answer)]

    def answer(self, row: int) -> Answer | None:
        """Return the answer of a row, if it stands."""
        found = self._database.read(lambda c: reading.answer(c, row, self.name))
        return found if isinstance(found, Answer) else None

    def num_answers(self, annotator: str | None = None, *, teaching: bool = False) -> int:
        """Return how many answers stand, of everybody or of one annotator.

        With `teaching`, without those that teach nothing: "can't tell", and what was asked again.
        """
        return self._database.read(
            lambda c: reading.num_answers(c, annotator) - (reading.num_idle(c, annotator) if teaching else 0)
        )

    def num_open(self, annotator: str | None = None) -> int:
        """Return how many queries miss answers, or how many of them this annotator could be given now."""

        def work(connection: sa.Connection) -> int:
            condition: sa.ColumnElement[bool] = tables.is_open & tables.queries.c.repeat_of.is_(None)
            if annotator is not None:
                condition = claims.may_answer(annotator, self._database.now(connection))
            statement = sa.select(sa.func.count()).select_from(tables.queries).where(condition)
            return connection.scalars(statement).one()

        return self._database.read(work)

    def assign(
        self, people: Sequence[str], query_ids: Sequence[str] | None = None, at_most: int | None = None
    ) -> Assigned:
        """Reserve open queries for people, turn by turn; nobody else is given them from then on.

        Whoever was given one before may still answer it.

        Args:
            people: for whom; none twice.
            query_ids: which; None: those that are reserved for nobody.
            at_most: how many; None: all.
        """
        return self._database.write(lambda c: assigning.assign(c, people, query_ids, at_most))

    def unassign(self, people: Sequence[str] | None = None) -> int:
        """Let everybody answer what is reserved for these people, or for any; return how many queries that were."""
        return self._database.write(lambda c: assigning.free(c, people))

    def num_assigned(self) -> dict[str, int]:
        """Return how many open queries are reserved for each person."""
        return self._database.read(assigning.reserved)

    def asked_pairs(self) -> AskedPairs:
        """Return what was shown together, in whichever order."""
        return self._database.read(reading.asked_pairs)

    def asked_windows(self) -> dict[int, list[int]]:
        """Return the first steps of the segments that were asked about, by the number of their episode."""
        return self._database.read(reading.asked_windows)

    # ------------------------------------------------------------------------------------------ clips

    def claim_renders(self, limit: int, lease_seconds: float = LEASE_SECONDS) -> list[str]:
        """Take the work of drawing segments of open queries; return their names, those shown first in front.

        Nobody else is given them until the lease ends.
        """
        claims.check_lease(lease_seconds)

        def work(connection: sa.Connection) -> list[str]:
            now = self._database.now(connection)
            return clips.claim_renders(connection, limit, now + lease_seconds, now)

        return self._database.write(work)

    def add_clip(self, segment_id: str, clip: Clip) -> None:
        """Keep the clip of a segment, unless there is one already."""
        self._database.write(lambda c: clips.add_clip(c, segment_id, clip))

    def clips(self, segment_ids: Sequence[str]) -> dict[str, Clip]:
        """Return the clips of segments by their names, those that there are."""
        return self._database.read(lambda c: clips.read_clips(c, segment_ids))

    def note_render_failure(self, segment_id: str, reason: str) -> None:
        """Note that a segment cannot be drawn here, and why; nobody is given it again."""
        self._database.write(lambda c: clips.note_failure(c, segment_id, reason))

    def render_failures(self, segment_ids: Sequence[str]) -> dict[str, str]:
        """Return why segments could not be drawn, by their names, of those that could not."""
        return self._database.read(lambda c: clips.read_failures(c, segment_ids))

    def forget_render_failures(self) -> None:
        """Let everything that could not be drawn be tried again, e.g. on another machine."""
        self._database.write(clips.forget_failures)

    # ------------------------------------------------------------------------------------------ annotators and facts

    def add_annotator(self, name: str, kind: str) -> None:
        """Note what an annotator is: "person", "teacher" or "model"; who answers without this is "unknown".

        Raises:
            UserError: another kind.
        """
        self._database.write(lambda c: writing.add_annotator(c, name, kind))

    def annotators(self) -> dict[str, str]:
        """Return the kind of every annotator by name."""
        statement = sa.select(tables.annotators).order_by(tables.annotators.c.name)
        return self._database.read(lambda c: {row.name: row.kind for row in c.execute(statement)})

    def forget(self, annotator: str) -> Forgotten:
        """Remove everything that a person said, and their name; trainings drop it as they go on.

        Raises:
            UserError: nobody of that name, or no person.
        """
        forgotten = self._database.write(lambda c: forgetting.forget(c, annotator, self.name))
        self._database.wipe()
        return forgotten

    def set_facts(self, facts: Mapping[str, Any]) -> None:
        """Tell those who watch the run; values are JSON, and take the place of those of the same name."""
        self._database.write(lambda c: writing.set_facts(c, facts))

    def facts(self) -> dict[str, Any]:
        """Return what the run has told."""
        return self._database.read(reading.facts)

    def now(self) -> float:
        """Return the time in seconds since 1970 by the record's own clock, which all who use it share."""
        return self._database.read(self._database.now) if self._database.on_server else time.time()

    def close(self) -> None:
        """Close the record."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

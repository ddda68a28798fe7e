"""Those who answer, beyond their names: what they agreed to, where they came from, how much they are to do.

Kept in tables of their own, which are made when the first of this is said; a person who withdraws leaves them too.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa

from prefrl.errors import UserError
from prefrl.store.engine import Database

_Result = TypeVar("_Result")
PLATFORM = ("PROLIFIC_PID", "STUDY_ID", "SESSION_ID")
"""What a crowd platform adds to the link of a study (Prolific's names)."""
_IDENTIFIER = re.compile("[A-Za-z0-9_-]{1,64}")

_metadata = sa.MetaData()  # apart from the record's own tables
_participants = sa.Table(
    "participants",
    _metadata,
    sa.Column("annotator", sa.String, primary_key=True),
    sa.Column("participant", sa.String),
    sa.Column("study", sa.String),
    sa.Column("session", sa.String),
    sa.Column("most_answers", sa.Integer),
    sa.Column("completed_at", sa.Double),
)
_consents = sa.Table(
    "consents",
    _metadata,
    sa.Column("annotator", sa.String, primary_key=True),
    sa.Column("version", sa.String, primary_key=True),
    sa.Column("agreed_at", sa.Double, nullable=False),
)
_texts = sa.Table(
    "consent_texts",
    _metadata,
    sa.Column("version", sa.String, primary_key=True),
    sa.Column("text", sa.Text, nullable=False),
)


@dataclass(frozen=True, kw_only=True)
class Participant:
    """What is known of one who answers; all of it may be None."""

    annotator: str
    participant: str | None = None
    """Their name on a crowd platform."""
    study: str | None = None
    session: str | None = None
    most_answers: int | None = None
    """Answers after which they are done."""
    completed_at: float | None = None
    """When they were done, in seconds since 1970."""


def consent_version(text: str) -> str:
    """Return the name of a version of a consent text: a hash, so that no two texts share one."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


class Participants:
    """Those who answer in one record."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, annotator: str) -> Participant | None:
        """Return what is known of one of them; None if nothing is."""
        return next(iter(self._read(_participants.c.annotator == annotator)), None)

    def all(self) -> list[Participant]:
        """Return all of whom something is known."""
        return self._read(sa.true())

    def enter(self, given: Mapping[str, Any]) -> str:
        """Let in who comes from a crowd platform; return the name that they answer under.

        Args:
            given: what the platform added to the link, by the names of `PLATFORM`.

        Raises:
            UserError: something is missing, or the same participant came by another session before.
        """
        values = [given.get(name) for name in PLATFORM]
        for name, value in zip(PLATFORM, values, strict=True):
            if not isinstance(value, str) or not _IDENTIFIER.fullmatch(value):
                raise UserError(
                    f"This link leads here from a crowd platform, which adds {', '.join(PLATFORM)}; {name} is missing "
                    "or is none. Open it from there."
                )
        participant, study, session = values
        annotator = f"prolific-{participant}"  # no name of anybody else's

        def work(connection: sa.Connection) -> bool:
            row = connection.execute(sa.select(_participants).where(_participants.c.annotator == annotator)).first()
            if row is None:
                said = {"participant": participant, "study": study, "session": session}
                connection.execute(sa.insert(_participants), {"annotator": annotator, **said})
            return row is None or (row.study, row.session) == (study, session)

        if not self._write(work):
            raise UserError("This participant has begun in another session. Open the link from that one.")
        return annotator

    def limit(self, annotator: str, most_answers: int) -> None:
        """Say after how many answers somebody is done."""
        self._set(annotator, most_answers=most_answers)

    def complete(self, annotator: str) -> None:
        """Note that somebody is done, unless that is noted."""
        found = self.of(annotator)
        if found is None or found.completed_at is None:
            self._set(annotator, completed_at=time.time())

    def agree(self, annotator: str, text: str) -> str:
        """Note that somebody agrees to a text; return its version."""
        self._write(lambda c: add_consent(c, annotator, text, time.time()))
        return consent_version(text)

    def consents(self) -> dict[str, dict[str, float]]:
        """Return what everybody agreed to: by annotator the versions, and when, in seconds since 1970."""
        found: dict[str, dict[str, float]] = {}
        for row in self._rows(sa.select(_consents).order_by(_consents.c.agreed_at)):
            found.setdefault(row.annotator, {})[row.version] = row.agreed_at
        return found

    def has_agreed(self, annotator: str, version: str) -> bool:
        """Tell whether somebody agreed to a version."""
        mine = (_consents.c.annotator == annotator) & (_consents.c.version == version)
        return bool(self._rows(sa.select(_consents.c.version).where(mine)))

    def texts(self) -> dict[str, str]:
        """Return the texts that anybody agreed to, by version."""
        return {row.version: row.text for row in self._rows(sa.select(_texts))}

    # ------------------------------------------------------------------------------------------------ inside

    def _set(self, annotator: str, **values: Any) -> None:
        def work(connection: sa.Connection) -> None:
            mine = _participants.c.annotator == annotator
            if not connection.execute(sa.update(_participants).where(mine).values(**values)).rowcount:
                connection.execute(sa.insert(_participants), {"annotator": annotator, **values})

        self._write(work)

    def _read(self, condition: sa.ColumnElement[bool]) -> list[Participant]:
        statement = sa.select(_participants).where(condition).order_by(_participants.c.annotator)
        return [Participant(**row._asdict()) for row in self._rows(statement)]

    def _rows(self, statement: sa.Select[Any]) -> list[Any]:
        def work(connection: sa.Connection) -> list[Any]:
            return list(connection.execute(statement)) if _is_there(connection) else []

        return self._database.read(work)

    def _write(self, work: Callable[[sa.Connection], _Result]) -> _Result:
        def made(connection: sa.Connection) -> _Result:
            _metadata.create_all(connection)
            return work(connection)

        return self._database.write(made)


def add_consent(connection: sa.Connection, annotator: str, text: str, agreed_at: float) -> None:
    """Note that somebody agreed to a text, unless that is noted."""
    _metadata.create_all(connection)
    version = consent_version(text)
    if connection.scalar(sa.select(_texts.c.version).where(_texts.c.version == version)) is None:
        connection.execute(sa.insert(_texts), {"version": version, "text": text})
    mine = (_consents.c.annotator == annotator) & (_consents.c.version == version)
    if connection.scalar(sa.select(_consents.c.version).where(mine)) is None:
        connection.execute(sa.insert(_consents), {"annotator": annotator, "version": version, "agreed_at": agreed_at})


def forget_participant(connection: sa.Connection, annotator: str) -> bool:
    """Remove what is known of somebody; return whether anything was. Texts stay: they tell of nobody."""
    if not _is_there(connection):
        return False
    tables = (_participants, _consents)
    return sum(connection.execute(sa.delete(t).where(t.c.annotator == annotator)).rowcount for t in tables) > 0


def _is_there(connection: sa.Connection) -> bool:
    return bool(sa.inspect(connection).has_table(_participants.name))

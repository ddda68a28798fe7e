"""The durable record of segments, queries and answers: one SQLite file.

A query is recorded before it is put to anyone and an answer before it is used, each in a transaction that is on the
disk when the call returns (write-ahead log, `synchronous=FULL`): what was recorded survives a kill at any instant.
Several processes may hold one record. Rows are only ever added.

A segment is stored once under the hash of its observations and actions, however many queries show it: its arrays as a
compressed `.npz`, each image of a stack of images once, its true rewards in a column of their own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from prefrl import store_tables as tables
from prefrl.errors import UserError, require
from prefrl.feedback import Comparison, Query

try:
    import sqlalchemy as sa
except ModuleNotFoundError:
    require("sqlalchemy", "train")  # says which extra brings it
    raise

_Item = TypeVar("_Item")
_BUSY_SECONDS = 30.0
_CHUNK = 256  # rows per statement: bounds the memory of packed segments and the number of bound variables


class PreferenceStore:
    """The record of one run; created if the file is missing.

    Args:
        path: the file; its folder must exist.

    Raises:
        UserError: the file is no record of preferences, was written by a newer version, or cannot be opened. It is left
            as it was. Every method raises it when the file can no longer be read or written, e.g. because the disk is
            full; a transaction that failed leaves nothing behind.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not self.path.parent.is_dir():
            raise UserError(f"The folder of the record {self.path} does not exist. Create it, or name another.")
        if self.path.is_dir():
            raise UserError(f"The record {self.path} should be a file; it is a folder. Name a file.")
        self._engine = sa.create_engine(sa.URL.create("sqlite", database=str(self.path)))
        sa.event.listen(self._engine, "connect", _set_up_connection)
        sa.event.listen(self._engine, "begin", _begin)
        self._writer = self._engine.execution_options(writes=True)
        try:
            with self._explained("opened"):
                self._open()
        except UserError:
            self.close()
            raise

    def add_queries(self, queries: Sequence[Query]) -> None:
        """Record queries that are about to be asked, in one transaction; those already recorded stay as they are."""
        with self._writing() as connection:
            known = self._known(connection, tables.queries, (query.id for query in queries))
            fresh = list({query.id: query for query in queries if query.id not in known}.values())
            segments = {segment.id: segment for query in fresh for segment in query.segments}
            stored = self._known(connection, tables.segments, segments)
            for chunk in _chunks([s for s in segments.values() if s.id not in stored]):
                connection.execute(sa.insert(tables.segments), [tables.segment_row(segment) for segment in chunk])
            positions = self._next_positions(connection, {query.session for query in fresh})
            rows = []
            for query in fresh:
                rows.append(tables.query_row(query, positions[query.session]))
                positions[query.session] += 1
            if rows:
                connection.execute(sa.insert(tables.queries), rows)

    def add_answers(self, answers: Sequence[Comparison]) -> None:
        """Record answers, in one transaction that is on the disk when this returns.

        Raises:
            UserError: an answer belongs to no query of this record; none of them is recorded then.
        """
        if not answers:
            return
        now = datetime.now(UTC).isoformat()
        with self._writing() as connection:
            known = self._known(connection, tables.queries, (answer.query_id for answer in answers))
            for answer in answers:
                if answer.query_id not in known:
                    raise UserError(
                        f"The record {self.path} holds no query {answer.query_id!r}, so it cannot be answered. "
                        "Record the query first (add_queries), or open the record it was asked in."
                    )
            connection.execute(sa.insert(tables.answers), [tables.answer_row(answer, now) for answer in answers])

    def session_queries(self, session: int) -> list[Query]:
        """Return the queries of a session in the order they were added; none if it was not asked yet."""
        return self._select_queries(tables.queries.c.session == session)

    def open_queries(self) -> list[Query]:
        """Return the queries that nobody answered yet, oldest session first."""
        return self._select_queries(~sa.exists().where(tables.answers.c.query_id == tables.queries.c.id))

    def query(self, query_id: str) -> Query:
        """Return one query.

        Raises:
            UserError: there is none of that name.
        """
        found = self._select_queries(tables.queries.c.id == query_id)
        if not found:
            raise UserError(f"The record {self.path} holds no query {query_id!r}.")
        return found[0]

    def answers(self, after: int = 0, up_to_session: int | None = None) -> list[tuple[int, Comparison]]:
        """Return answers with their row numbers, ascending.

        Args:
            after: leave out rows up to and including this number: what was read before.
            up_to_session: leave out answers to queries of later sessions.
        """
        statement = sa.select(tables.answers).where(tables.answers.c.id > after).order_by(tables.answers.c.id)
        if up_to_session is not None:
            statement = statement.join(tables.queries).where(tables.queries.c.session <= up_to_session)
        with self._reading() as connection:
            return [(row.id, tables.read_comparison(row)) for row in connection.execute(statement)]

    def asked_pairs(self) -> set[frozenset[str]]:
        """Return the pairs of segment names that were asked about, in whichever order."""
        with self._reading() as connection:
            return {
                frozenset(row) for row in connection.execute(sa.select(tables.queries.c.first, tables.queries.c.second))
            }

    def asked_windows(self) -> dict[int, list[int]]:
        """Return the first steps of the segments that were asked about, by the number of their episode."""
        statement = sa.select(tables.segments.c.episode, tables.segments.c.start)
        windows: dict[int, list[int]] = {}
        with self._reading() as connection:
            for row in connection.execute(statement):
                windows.setdefault(row.episode, []).append(row.start)
        return windows

    def close(self) -> None:
        """Close the file."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self) -> None:
        """Check the file before anything is written to it, and create the tables of a new one."""
        with self._engine.begin() as connection:
            new = self._is_empty(connection)
        if new:
            with self._writer.begin() as connection:
                if self._is_empty(connection):  # no other process was quicker
                    tables.metadata.create_all(connection)
                    about = {"format": tables.FORMAT, "schema_version": str(tables.SCHEMA_VERSION)}
                    connection.execute(
                        sa.insert(tables.about),
                        [{"key": k, "value": v} for k, v in about.items()],
                    )
        raw = self._engine.raw_connection()
        with suppress(sqlite3.OperationalError):  # busy or read-only: the journal that it has is safe too, only slower
            raw.cursor().execute("PRAGMA journal_mode=WAL").close()
        raw.close()

    def _is_empty(self, connection: sa.Connection) -> bool:
        names = sa.inspect(connection).get_table_names()
        if not names:
            return True
        about: dict[str, str] = {}
        if tables.about.name in names:
            try:
                about = {row.key: row.value for row in connection.execute(sa.select(tables.about))}
            except sa.exc.OperationalError:  # a table of that name with other columns
                about = {}
        if about.get("format") != tables.FORMAT:
            raise UserError(
                f"{self.path} is a database, but not a record of preferences. It was left as it is; name another file."
            )
        if int(about["schema_version"]) > tables.SCHEMA_VERSION:
            raise UserError(
                f"The record {self.path} was written by a newer version of prefrl (schema {about['schema_version']}; "
                f"this one reads up to {tables.SCHEMA_VERSION}). Update prefrl to use it."
            )
        return False

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with self._explained("read"), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with self._explained("written to"), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turn the database's errors into one that says what became of the record and what to do."""
        try:
            yield
        except sa.exc.DBAPIError as error:
            reason = str(error.orig)
            raise UserError(f"The record {self.path} could not be {what}: {reason}. {_advice(reason)}") from error

    def _select_queries(self, condition: sa.ColumnElement[bool]) -> list[Query]:
        statement = (
            sa.select(tables.queries).where(condition).order_by(tables.queries.c.session, tables.queries.c.position)
        )
        with self._reading() as connection:
            rows = connection.execute(statement).all()
            names = list(dict.fromkeys(name for row in rows for name in (row.first, row.second)))
            segments = {}
            for chunk in _chunks(names):
                for row in connection.execute(sa.select(tables.segments).where(tables.segments.c.id.in_(chunk))):
                    try:
                        segments[row.id] = tables.read_segment(row)
                    except ValueError as error:
                        raise UserError(
                            f"The record {self.path} is damaged: {error}. Restore it from a copy."
                        ) from error
        return [
            Query(
                segments=(segments[row.first], segments[row.second]),
                session=row.session,
                num_env_steps=row.num_env_steps,
            )
            for row in rows
        ]

    @staticmethod
    def _known(connection: sa.Connection, table: sa.Table, names: Iterable[str]) -> set[str]:
        """Return those of `names` that `table` holds."""
        found: set[str] = set()
        for chunk in _chunks(names):
            found.update(connection.scalars(sa.select(table.c.id).where(table.c.id.in_(chunk))))
        return found

    @staticmethod
    def _next_positions(connection: sa.Connection, sessions: set[int]) -> dict[int, int]:
        return {
            session: connection.scalars(
                sa.select(sa.func.count()).select_from(tables.queries).where(tables.queries.c.session == session)
            ).one()
            for session in sessions
        }


def _set_up_connection(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where `_begin` says, not at the first INSERT
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={int(_BUSY_SECONDS * 1000)}")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    """Take the write lock at once where it will be needed: a reader that turns writer could fail instead of wait."""
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _advice(reason: str) -> str:
    if "full" in reason or "I/O" in reason:
        return (
            "Nothing recorded before was lost, and nothing of this step was recorded. "
            "Free some space on the disk (or mend it), then go on."
        )
    if "locked" in reason:
        return f"Another process has held it for {_BUSY_SECONDS:.0f} seconds; end it, then go on. Nothing was lost."
    if "readonly" in reason or "unable to open" in reason:
        return "Allow writing to the file and its folder, then go on. Nothing was lost."
    if "not a database" in reason:
        return "It is not a record of preferences. It was left as it is; name another file."
    return "If it is damaged, restore it from a copy."


def _chunks(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk

"""Transactions of the record: SQLite or PostgreSQL, what their errors mean, and going on when a server comes back.

Writers take turns, on both: a transaction that writes holds the record's one lock from its beginning. So a claim never
sees half of another's, and the rows of answers become visible in the order of their numbers.
"""

from __future__ import annotations

import os
import random
import re
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from prefrl.errors import UserError, first_line, require
from prefrl.store.filesystems import network_filesystem
from prefrl.store.watch import FileWatch

try:
    import sqlalchemy as sa
except ModuleNotFoundError:
    require("sqlalchemy", "train")  # says which extra brings it
    raise

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
BUSY_SECONDS = 30.0
TELL_SECONDS = 5.0  # after which it is said that a server is waited for
CONNECTIONS = 20  # of one process that are kept; further ones are opened and closed again, which takes long
CHUNK = 256  # rows per statement: bounds the memory of packed segments and the number of bound variables
NETWORK = {"connect_timeout": 10, "keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3}
"""Of libpq, in seconds: a server that can no longer be reached is noticed after half a minute, also while waiting."""
_SENSELESS = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError, RecursionError)
_SCHEMA = re.compile("[a-z][a-z0-9_]{0,62}")
_LOCK = 0x70726566726C  # "prefrl": the writers' lock of a PostgreSQL database, and with its name, of a schema in it
_TAKE_LOCK = f"""SELECT pg_advisory_xact_lock(CASE WHEN coalesce(current_schema(), 'public') = 'public' THEN {_LOCK}
ELSE hashtextextended(current_schema(), {_LOCK}) END)"""


class _Kept(threading.local):
    """The transaction of what one thread reads together."""

    wanted = False
    connection: sa.Connection | None = None

    def begin(self, engine: sa.Engine) -> sa.Connection:
        """Begin it."""
        connection = engine.connect()
        try:
            connection.begin()
        except BaseException:
            connection.close()
            raise
        self.connection = connection
        return connection

    def end(self) -> None:
        """End it, if there is one."""
        connection, self.connection = self.connection, None
        if connection is not None:
            with suppress(sa.exc.DBAPIError):  # the server went away: nothing was written in it
                connection.close()


class Database:
    """The file or the server that holds a record.

    Args:
        where: a path, or a URL such as `postgresql://user@host/database`, which may end in `?schema=NAME`.
        patience_seconds: how long to wait for a server that has gone away before giving up.
        create: make the file where there is none.

    Raises:
        UserError: no such folder, not a file, or a URL that cannot be used.
    """

    schema: str | None = None
    """That of the server's database which holds the record; None: the one that the server chooses."""

    def __init__(self, where: Path | str, patience_seconds: float, *, create: bool = True) -> None:
        self.patience_seconds = patience_seconds
        self._file: FileWatch | None = None
        url = _url(where)
        self.on_server = url.get_backend_name() == "postgresql"
        self.name = shown_address(where) if self.on_server else str(url.database)
        if self.on_server:
            require("psycopg", "postgres")
            url, self.schema = _without_schema(url.set(drivername="postgresql+psycopg"), str(where))
            self.engine = sa.create_engine(url, pool_pre_ping=True, connect_args=NETWORK, pool_size=CONNECTIONS)
        else:
            self._check_path(Path(self.name))
            if not create and not Path(self.name).is_file():
                raise gone(self.name)
            opened = _read_only(url) if _is_locked_up(Path(self.name)) else url
            self.engine = sa.create_engine(opened, pool_size=CONNECTIONS)
            self._file = FileWatch(Path(self.name))
            sa.event.listen(self.engine, "do_connect", self._file.before_connecting)
            sa.event.listen(self.engine, "connect", _set_up_connection)
            sa.event.listen(self.engine, "begin", self._file.before_transaction)
        sa.event.listen(self.engine, "begin", _begin)
        self._writer = self.engine.execution_options(writes=True)
        self._kept = _Kept()

    def read(self, work: Callable[[sa.Connection], _Result]) -> _Result:
        """Run `work` in a transaction that only reads; it may be run again if the server goes away.

        Raises:
            UserError: it cannot be read, or `work` made no sense of what is there.
        """
        return self._run(self.engine, work, "read")

    def write(self, work: Callable[[sa.Connection], _Result]) -> _Result:
        """Run `work` in a transaction that is on the disk when this returns.

        It may be run again if the server goes away, also when it cannot be told whether it was done: `work` must do
        no harm when done twice.
        """
        return self._run(self._writer, work, "written to")

    @contextmanager
    def reading_together(self) -> Iterator[None]:
        """Make what this thread reads meanwhile one transaction, up to what it writes: fewer are faster.

        What is read is then as it was at the first of these reads.
        """
        if self._kept.wanted:
            yield
            return
        self._kept.wanted = True
        try:
            yield
        finally:
            self._kept.wanted = False
            self._kept.end()

    def now(self, connection: sa.Connection) -> float:
        """Return the time in seconds since 1970: a server's own, so that all who use it agree."""
        if self.on_server:
            return float(connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())").scalar_one())
        return time.time()

    def make_schema(self, connection: sa.Connection) -> None:
        """Make the schema that the address names, if it is not there."""
        if self.schema is not None:
            connection.execute(sa.schema.CreateSchema(self.schema, if_not_exists=True))

    def use_write_ahead_log(self) -> None:
        """Let readers and a writer of a file not wait for each other."""
        if self.on_server:
            return
        raw = self.engine.raw_connection()
        with suppress(sqlite3.OperationalError):  # busy or read-only: the journal that it has is safe too, only slower
            raw.cursor().execute("PRAGMA journal_mode=WAL").close()
        raw.close()

    def wipe(self) -> None:
        """Write over what was removed from a file, so that it cannot be read from the disk either.

        Raises:
            UserError: the file is damaged.
        """
        if self.on_server:
            return
        raw = self.engine.raw_connection()
        try:
            with suppress(sqlite3.OperationalError):  # somebody reads: what is in the log is written over later
                raw.cursor().execute("VACUUM").close()
            with suppress(sqlite3.OperationalError):
                raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"The record {self.name} is damaged ({first_line(error)}): what was removed is gone from it, but could "
                "not be written over, so that its bytes may still be on the disk. Delete the file, restore it from a "
                "copy and remove it there."
            ) from error
        finally:
            raw.close()

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def _run(self, engine: sa.Engine, work: Callable[[sa.Connection], _Result], what: str) -> _Result:
        began, pause, told = time.monotonic(), 0.05, ""
        while True:
            try:
                return self._within(engine, work)
            except _SENSELESS as error:  # rows that hold what was never written
                reason = f"{error} is missing" if isinstance(error, KeyError) else first_line(error)
                raise UserError(f"The record {self.name} is damaged: {reason}. Restore it from a copy.") from error
            except sa.exc.DBAPIError as error:
                hindrance = _hindrance(error) if self.on_server else None
                waited = time.monotonic() - began
                if hindrance is None or waited + pause > self.patience_seconds:
                    raise self._explained(error, what, hindrance) from error
                if waited > TELL_SECONDS and told != hindrance:
                    told = hindrance
                    patience = f"It is waited for, {self.patience_seconds:.0f} seconds at most; nothing is lost."
                    warnings.warn(f"The record {self.name} {hindrance}. {patience}", stacklevel=2)
            time.sleep(pause)
            pause = min(2 * pause, 1.0)

    def _within(self, engine: sa.Engine, work: Callable[[sa.Connection], _Result]) -> _Result:
        """Do work in a transaction of its own, or in that of what is read together."""
        if engine is self._writer:
            self._kept.end()
        elif self._kept.wanted:
            try:
                return work(self._kept.connection or self._kept.begin(engine))
            except BaseException:
                self._kept.end()
                raise
        with engine.begin() as connection:
            return work(connection)

    def _explained(self, error: sa.exc.DBAPIError, what: str, hindrance: str | None) -> UserError:
        reason = " ".join(str(error.orig).split()).rstrip(".")
        return UserError(f"The record {self.name} could not be {what}: {reason}. {_advice(reason, hindrance)}")

    @staticmethod
    def _check_path(path: Path) -> None:
        if not path.parent.is_dir():
            raise UserError(f"The folder of the record {path} does not exist. Create it, or name another.")
        if path.is_dir():
            raise UserError(f"The record {path} should be a file; it is a folder. Name a file.")
        kind = network_filesystem(path)
        if kind is not None and not _is_locked_up(path):  # what nobody can write to has no locks to rely on
            raise UserError(
                f"The record {path} lies on a network file system ({kind}), where a file that several programs or "
                "machines write to gets damaged. Keep the run on a disk of the machine that trains and let others "
                "answer in the browser (prefrl serve RUN), or keep the record on a server "
                "(--record postgresql://user@host/database). "
                "A finished run can be read here from a copy on a local disk."
            )


def gone(name: str, elsewhere: Sequence[str] = ()) -> UserError:
    """Return the error that says that a record which should be there is not, and where others are."""
    if elsewhere:
        return UserError(f"There is no record at {name}. The database has records at {', '.join(elsewhere)}.")
    return UserError(
        f"There is no record at {name}, or an empty one. If there was one, restore it from a copy, with the file that "
        "ends in -wal if there is one beside it; the record of a run is made when the training begins."
    )


def chunks(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    """Cut `items` into lists that one statement can hold."""
    iterator = iter(items)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk


def shown_address(where: Path | str) -> str:
    """Return where a record lies as messages may show it: without the password of a URL."""
    if isinstance(where, Path) or "://" not in where:
        return str(where)
    try:
        url = sa.make_url(where)
    except (sa.exc.ArgumentError, ValueError):
        return "***"
    secret = {name: "***" for name in url.query if "pass" in name.lower()}
    return url.update_query_dict(secret).render_as_string(hide_password=True)


def _url(where: Path | str) -> sa.URL:
    if isinstance(where, Path) or "://" not in where:
        return sa.URL.create("sqlite", database=str(where))
    try:
        url = sa.make_url(where)
    except (sa.exc.ArgumentError, ValueError):  # not shown: it may hold a password
        raise UserError("This is not the address of a database. Use postgresql://user@host/database.") from None
    if url.get_backend_name() not in ("sqlite", "postgresql") or not url.database:
        raise UserError(
            f"A record lies in a file (its path), or on a server (postgresql://user@host/database). "
            f"Received {shown_address(where)}"
        )
    return url


def _without_schema(url: sa.URL, written: str) -> tuple[sa.URL, str | None]:
    """Take the schema out of an address, for the server to look in it and nowhere else.

    Raises:
        UserError: it is no name of one.
    """
    empty = re.search("[?&]schema=(&|$)", written)  # which is left out of the query
    if "schema" not in url.query and not empty:
        return url, None
    schema, options = "" if empty else url.query["schema"], url.query.get("options", "")
    if not isinstance(schema, str) or not _SCHEMA.fullmatch(schema) or schema.startswith("pg_"):
        raise UserError(
            "The schema in an address is one name of at most 63 small letters, digits and underscores that begins "
            f"with a letter, as in postgresql://user@host/database?schema=run_1. Received {schema!r}"
        )
    if not isinstance(options, str):
        raise UserError(f"The address names options more than once: {shown_address(str(url))}")
    query = {name: value for name, value in url.query.items() if name != "schema"}
    return url.set(query={**query, "options": f"{options} -csearch_path={schema}".strip()}), schema


def _is_locked_up(path: Path) -> bool:
    """Tell whether a finished file can only be read: SQLite could not make its log beside it, nor does it need one."""
    wal = path.with_name(path.name + "-wal")
    writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    return path.is_file() and not writable and not wal.exists()


def _read_only(url: sa.URL) -> sa.URL:
    address = f"file:{quote(str(url.database))}"
    return url.set(database=address, query={"mode": "ro", "immutable": "1", "uri": "true"})


def _set_up_connection(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where `_begin` says, not at the first INSERT
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={int(BUSY_SECONDS * 1000)}")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    """Take the writers' lock at once where it will be needed: a reader that turns writer could fail instead of wait."""
    writes = connection.get_execution_options().get("writes", False)
    if connection.dialect.name == "sqlite" and writes:
        _take_file_lock(connection.connection.dbapi_connection)
    elif connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN")
    elif writes:
        connection.exec_driver_sql(
            f"SET LOCAL lock_timeout = {int(1000 * TELL_SECONDS)}"
        )  # then it is said, and asked again
        connection.exec_driver_sql(_TAKE_LOCK)


def _take_file_lock(connection: Any) -> None:
    """Begin a transaction that writes; ask often, since SQLite's own wait of 0.1 s lets busy writers starve others."""
    deadline = time.monotonic() + BUSY_SECONDS
    connection.execute("PRAGMA busy_timeout=0")
    try:
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise sa.exc.OperationalError("BEGIN IMMEDIATE", None, error) from error
            time.sleep(random.uniform(0.001, 0.004))  # noqa: S311  (a pause, no secret)
    finally:
        connection.execute(f"PRAGMA busy_timeout={int(BUSY_SECONDS * 1000)}")


AWAY, FULL, HELD = "cannot be reached", "has no free connection", "is being written to by another process"
_WORDS = {
    AWAY: ("starting up", "shutting down", "recovery", "terminating"),
    FULL: ("too many clients", "remaining connection slots", "too many connections"),
}


def _hindrance(error: sa.exc.DBAPIError) -> str | None:
    """Return what keeps a server from doing what it is asked now, in words; None where asking again would not help."""
    if not isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError):
        return None
    state = str(getattr(error.orig, "sqlstate", None) or "")
    if state:
        by_state = {"08": AWAY, "57P": AWAY, "53300": FULL, "55P03": HELD}
        return next((what for start, what in by_state.items() if state.startswith(start)), None)
    reason = str(error.orig)
    if "FATAL" in reason:  # somebody is there, and refuses: for now, or for good
        return next((what for what, words in _WORDS.items() if any(word in reason for word in words)), None)
    return AWAY if error.connection_invalidated or "connect" in reason else None


def _advice(reason: str, hindrance: str | None) -> str:
    if hindrance == AWAY:
        return (
            "The server cannot be reached; start it, or check the address and the network, then go on. "
            "Nothing recorded before was lost."
        )
    if hindrance == FULL:
        return (
            "All connections that the server allows are in use: end programs that hold some, or raise its "
            "max_connections, then go on. Nothing was lost."
        )
    if hindrance == HELD:
        return "Another process holds the record's lock for too long; end it, then go on. Nothing was lost."
    if "full" in reason or "I/O" in reason or "No space" in reason:
        return (
            "Nothing recorded before was lost, and nothing of this step was recorded. "
            "Free some space on the disk (or repair it), then go on."
        )
    if "locked" in reason:
        return f"Another process has held it for {BUSY_SECONDS:.0f} seconds; end it, then go on. Nothing was lost."
    if "readonly" in reason or "unable to open" in reason or "read-only" in reason:
        return "Allow writing to the file and its folder, then go on. Nothing was lost."
    if "not a database" in reason:
        return "It is not a record of preferences. It was left as it is; name another file."
    if "password" in reason or "authentication" in reason:
        return "Put the password into ~/.pgpass or the variable PGPASSWORD, and check the user's name."
    if "permission denied" in reason:
        return (
            "Let the user of the address write: GRANT ALL ON ALL TABLES IN SCHEMA public (or that of the address), and "
            "on its sequences; a schema that is not there yet asks for GRANT CREATE ON DATABASE. Who only looks "
            "(quality, export) needs SELECT alone, and USAGE of the schema."
        )
    if "does not exist" in reason:
        return "Create the database (createdb NAME) and its user, or name another."
    return "If it is damaged, restore it from a copy."

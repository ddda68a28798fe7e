"""Opening a record: checking what it is before anything is written, creating it, and bringing older ones up to date.

Version 1 held comparisons of two segments only, in the columns `first` and `second` of a query, and a preference as a
number. Version 2 kept of what was said beside an answer its comment only: no reason, no flag, and nobody adjudicated.
Each step is done in one transaction: either all of it, or nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime

import sqlalchemy as sa

from prefrl.errors import UserError
from prefrl.store import tables
from prefrl.store.engine import CHUNK, Database, gone


def open_schema(database: Database, *, create: bool = True) -> None:
    """Create the tables of a new record, or bring those of an older one up to date.

    Args:
        database: which.
        create: make the tables where there are none.

    Raises:
        UserError: a database that holds something else, or a record of a newer version.
    """

    def version(connection: sa.Connection) -> int | None:
        return _version(connection, database.name)

    def prepare(connection: sa.Connection) -> None:
        found = version(connection)  # again, under the lock: another process may have been quicker
        if found is None:
            database.make_schema(connection)
            tables.metadata.create_all(connection)
            about = {"format": tables.FORMAT, "schema_version": str(tables.SCHEMA_VERSION)}
            connection.execute(sa.insert(tables.about), [{"key": k, "value": v} for k, v in about.items()])
            return
        for step in range(found, tables.SCHEMA_VERSION):
            _STEPS[step](connection)
        connection.execute(
            sa.update(tables.about)
            .where(tables.about.c.key == "schema_version")
            .values(value=str(tables.SCHEMA_VERSION))
        )

    there = database.read(version)
    if there is None and not create:
        others = database.read(_schemas_with_records) if database.on_server else []
        raise gone(database.name, [f"?schema={name}" for name in others])
    if there != tables.SCHEMA_VERSION:
        try:
            database.write(prepare)
        except (ValueError, TypeError) as error:
            raise UserError(f"The record {database.name} is damaged: {error}. Restore it from a copy.") from error
    database.use_write_ahead_log()


def _schemas_with_records(connection: sa.Connection) -> list[str]:
    """Return which schemas of a server's database seem to hold a record, by name."""
    found = connection.execute(
        sa.text(
            "SELECT table_schema FROM information_schema.tables WHERE table_name IN (:about, :items) "
            "GROUP BY table_schema HAVING count(*) = 2 ORDER BY table_schema"
        ),
        {"about": tables.about.name, "items": tables.query_items.name},
    )
    return [str(name) for name in found.scalars()]


def _version(connection: sa.Connection, name: str) -> int | None:
    """Return the version of a record, None for an empty database."""
    if connection.dialect.name == "sqlite":
        _check_plain(connection, name)
    names = sa.inspect(connection).get_table_names()
    if not names:
        return None
    about: dict[str, str] = {}
    if tables.about.name in names:
        columns = {column["name"] for column in sa.inspect(connection).get_columns(tables.about.name)}
        if columns == set(tables.about.c.keys()):
            about = {row.key: row.value for row in connection.execute(sa.select(tables.about))}
    if about.get("format") != tables.FORMAT:
        raise UserError(f"{name} is a database, but not a record of preferences. It was left as it is; name another.")
    version = int(about["schema_version"])
    if version > tables.SCHEMA_VERSION:
        raise UserError(
            f"The record {name} was written by a newer version of prefrl (schema {version}; "
            f"this one reads up to {tables.SCHEMA_VERSION}). Update prefrl to use it."
        )
    return version


def _check_plain(connection: sa.Connection, name: str) -> None:
    """Check that a file's tables hold what they say: a trigger changes what is written, a view is worked out anew.

    Raises:
        UserError: it has a trigger, or something else in the place of a table.
    """
    schema = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE type != 'index'"
    for kind, its_name, table, sql in connection.exec_driver_sql(schema).all():
        what = "virtual table" if kind == "table" and str(sql).upper().startswith("CREATE VIRTUAL") else kind
        if table in tables.metadata.tables and what != "table":
            raise UserError(
                f"The record {name} has a {what} {its_name!r}, which no record of prefrl has: it may change or make up "
                "answers. It was left as it is. Name another, or take it out with sqlite3 if you know what it is for."
            )
    for table in tables.metadata.tables:
        found = connection.exec_driver_sql("SELECT name FROM pragma_table_xinfo(?) WHERE hidden > 0", (table,)).scalar()
        if found is not None:
            raise UserError(
                f"The record {name} has a column {table}.{found} that is worked out from others, which no record of "
                "prefrl has. It was left as it is. Name another."
            )


def _from_1_to_2(connection: sa.Connection) -> None:
    for statement in (
        "DROP INDEX ix_answers_query_id",
        "ALTER TABLE queries RENAME TO queries_1",
        "ALTER TABLE answers RENAME TO answers_1",
    ):
        connection.exec_driver_sql(statement)
    tables.metadata.create_all(connection)
    connection.exec_driver_sql(
        "INSERT INTO queries (id, kind, session, position, num_env_steps, instruction, overlap, missing) "
        "SELECT id, 'comparison', session, position, num_env_steps, '', 1, "
        "CASE WHEN EXISTS (SELECT 1 FROM answers_1 a WHERE a.query_id = q.id) THEN 0 ELSE 1 END FROM queries_1 q"
    )
    for position, column in enumerate(("first", "second")):
        connection.exec_driver_sql(
            # Both names come from the line above.
            f"INSERT INTO query_items (query_id, position, segment_id) SELECT id, {position}, {column} "  # noqa: S608
            "FROM queries_1"
        )
    connection.exec_driver_sql(
        "INSERT INTO annotators (name, kind) SELECT DISTINCT annotator, 'unknown' FROM answers_1"
    )
    old = connection.exec_driver_sql(
        "SELECT id, query_id, preference, annotator, seconds, created_at FROM answers_1 ORDER BY id"
    )
    for rows in old.partitions(CHUNK):
        connection.execute(
            sa.insert(tables.answers),
            [
                {
                    "id": row.id,
                    "token": f"schema-1-{row.id}",
                    "query_id": row.query_id,
                    "kind": "comparison",
                    "value": json.dumps(row.preference),
                    "annotator": row.annotator,
                    "seconds": row.seconds,
                    "comment": "",
                    "recorded_at": datetime.fromisoformat(row.created_at).timestamp(),
                }
                for row in rows
            ],
        )
    for table in ("answers_1", "queries_1"):
        connection.exec_driver_sql(f"DROP TABLE {table}")


def _from_2_to_3(connection: sa.Connection) -> None:
    there = {column["name"] for column in sa.inspect(connection).get_columns(tables.answers.name)}
    for name, what in (
        ("reason", "VARCHAR NOT NULL DEFAULT ''"),
        ("flagged", "BOOLEAN NOT NULL DEFAULT false"),
        ("adjudicates", "BOOLEAN NOT NULL DEFAULT false"),
    ):
        if name not in there:  # it is, where the tables were made by the step before
            connection.exec_driver_sql(f"ALTER TABLE answers ADD COLUMN {name} {what}")


_STEPS: dict[int, Callable[[sa.Connection], None]] = {1: _from_1_to_2, 2: _from_2_to_3}

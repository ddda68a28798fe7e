"""Records in SQLite files: what is refused, what damage is told, and what older files become."""

from __future__ import annotations

import gzip
import os
import sqlite3
import subprocess
import sys
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from prefrl.errors import UserError
from prefrl.feedback import Comparison, Query
from prefrl.segments import Segment
from prefrl.store import PreferenceStore

ROOT = Path(__file__).parents[2]
OLD_RECORD = ROOT / "tests" / "data" / "record-schema-1.sqlite.gz"  # written by `prefrl train` at commit 0b1694b


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "preferences.sqlite"


def segment(number: int, k: int = 4, **where: Any) -> Segment:
    rng = np.random.default_rng(number)
    return Segment(
        observations=rng.normal(size=(k + 1, 3)),
        actions=rng.normal(size=(k, 2)).astype(np.float32),
        true_rewards=rng.normal(size=k),
        **where,
    )


def query(number: int, session: int = 0, num_env_steps: int = 0) -> Query:
    return Query(segments=(segment(2 * number), segment(2 * number + 1)), session=session, num_env_steps=num_env_steps)


def answer(asked: Query, preference: float | None = 1.0, annotator: str = "anna") -> Comparison:
    return Comparison(query_id=asked.id, preference=preference, annotator=annotator, seconds=1.5)


def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.write_text("time,reward\n" * 500)
    before = path.read_bytes()
    with pytest.raises(UserError, match="not a record of preferences"):
        PreferenceStore(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "statement", ["create table mine (x)", "create table about (x)", "create table about (key, value)"]
)
def test_somebody_elses_database_is_refused_and_left_alone(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(UserError, match="not a record of preferences"):
        PreferenceStore(path)
    assert path.read_bytes() == before


def test_a_record_of_a_newer_version_is_refused(path: Path) -> None:
    PreferenceStore(path).close()
    connection = sqlite3.connect(path)
    connection.execute("update about set value = '99' where key = 'schema_version'")
    connection.commit()
    connection.close()
    with pytest.raises(UserError, match=r"newer version of prefrl \(schema 99.*Update prefrl"):
        PreferenceStore(path)


def test_an_empty_file_becomes_a_record(path: Path) -> None:
    path.touch()
    with PreferenceStore(path) as store:
        assert store.answers() == []


def test_a_missing_folder_and_a_folder_in_place_of_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"folder of the record .* does not exist"):
        PreferenceStore(tmp_path / "no" / "r.sqlite")
    with pytest.raises(UserError, match="it is a folder"):
        PreferenceStore(tmp_path)


def test_a_full_disk_loses_nothing_that_was_recorded(path: Path) -> None:
    first, second = query(0), Query(segments=(segment(8, k=4000), segment(9, k=4000)), session=1)
    with PreferenceStore(path) as store:
        store.add_queries([first])
        store.add_answers([answer(first)])

        def limit(connection: Any, record: object) -> None:
            pages = connection.execute("pragma page_count").fetchone()[0]
            connection.execute(f"pragma max_page_count = {pages + 4}")

        store._database.engine.dispose()
        sa.event.listen(store._database.engine, "connect", limit)
        with pytest.raises(UserError, match=r"full.*Nothing recorded before was lost.*Free some space"):
            store.add_queries([second])
        assert store.session_queries(1) == []
        assert store.answers() == [(1, answer(first))]
    with PreferenceStore(path) as store:  # there is space again
        store.add_queries([second])
        assert [q.id for q in store.open_queries()] == [second.id]


def test_a_segment_that_is_not_what_was_stored_is_reported(path: Path) -> None:
    asked = query(0)
    with PreferenceStore(path) as store:
        store.add_queries([asked])
    for damage in (b"rubbish", zlib.compress(b"rubbish")):
        connection = sqlite3.connect(path)
        connection.execute("update segments set arrays = ? where id = ?", (damage, asked.segments[0].id))
        connection.commit()
        connection.close()
        with PreferenceStore(path) as store, pytest.raises(UserError, match="damaged: segment"):
            store.session_queries(0)


def test_answers_are_synchronised_to_the_disk_through_a_write_ahead_log(path: Path) -> None:
    with PreferenceStore(path) as store, store._database.engine.connect() as connection:
        assert connection.exec_driver_sql("pragma journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("pragma synchronous").scalar() == 2  # FULL


def test_a_record_of_version_1_is_brought_up_to_date_and_loses_nothing(path: Path) -> None:
    path.write_bytes(gzip.decompress(OLD_RECORD.read_bytes()))
    old = sqlite3.connect(path)
    old.execute("update answers set preference = null where id = 3")
    old.execute("update answers set preference = 0.5 where id = 4")
    old.execute("delete from answers where id = 7")
    old.commit()
    segments = dict(old.execute("select id, arrays from segments"))
    queries = old.execute("select id, session, num_env_steps, first, second from queries order by session, position")
    asked = queries.fetchall()
    answers = old.execute("select id, query_id, preference, annotator, seconds from answers order by id").fetchall()
    old.close()
    assert (len(segments), len(asked), len(answers)) == (48, 24, 23)
    for _ in range(2):  # the second time it is up to date already
        with PreferenceStore(path) as store:
            back = [q for session in range(1 + max(row[1] for row in asked)) for q in store.session_queries(session)]
            assert [(q.id, q.session, q.num_env_steps, *(s.id for s in q.segments)) for q in back] == asked
            assert [(n, a.query_id, a.preference, a.annotator, a.seconds) for n, a in store.answers()] == answers
            assert len(store.open_queries()) == 1
            assert store.annotators() == {"skip": "unknown"}
    with PreferenceStore(path) as store:  # and it goes on from there
        (last,) = store.open_queries()
        assert store.add_answers([answer(last)]) == [24 + 1]
        assert store.open_queries() == []
    new = sqlite3.connect(path)
    assert dict(new.execute("select id, arrays from segments")) == segments
    assert new.execute("pragma foreign_key_check").fetchall() == []
    assert new.execute("pragma integrity_check").fetchall() == [("ok",)]
    left = new.execute("select name from sqlite_master where name in ('queries_1', 'answers_1')").fetchall()
    assert left == []
    new.close()


def test_an_old_record_that_cannot_be_brought_up_to_date_stays_as_it_was(path: Path) -> None:
    path.write_bytes(gzip.decompress(OLD_RECORD.read_bytes()))
    old = sqlite3.connect(path)
    old.execute("update answers set created_at = 'yesterday' where id = 20")
    old.commit()
    before = list(old.iterdump())
    with pytest.raises(UserError, match=r"damaged: .*yesterday"):
        PreferenceStore(path)
    assert list(old.iterdump()) == before
    old.close()


@pytest.mark.parametrize("change", ["reserved_for = 'nobody'", "session = 7"])
def test_a_query_that_is_not_what_was_asked_is_damage(path: Path, change: str) -> None:
    asked = query(0)
    with PreferenceStore(path) as store:
        store.add_queries([asked, query(1)])
        store.add_answers([answer(asked)])
    changed = sqlite3.connect(path)
    changed.execute(f"UPDATE queries SET {change} WHERE id = ?", (asked.id,))
    changed.commit()
    changed.close()
    with PreferenceStore(path) as store:
        with pytest.raises(UserError, match=f"damaged: the query {asked.id} is not what was asked"):
            store.queries([asked.id])
        assert store.queries([query(1).id])[0].id == query(1).id


def test_a_damaged_file_is_reported(path: Path) -> None:
    with PreferenceStore(path) as store:
        asked = query(0)
        store.add_queries([asked] + [query(n) for n in range(1, 60)])
        store.add_answers([answer(asked)])
    content = bytearray(path.read_bytes())
    content[4096:] = np.random.default_rng(0).bytes(len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"malformed.*restore it from a copy"), PreferenceStore(path) as store:
        store.session_queries(0)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"malformed.*restore it from a copy"), PreferenceStore(path) as store:
        store.session_queries(0)


@pytest.mark.skipif(sys.platform == "win32", reason="owners of files are POSIX")
@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM about WHERE key = 'schema_version'",
        "UPDATE about SET value = 'two' WHERE key = 'schema_version'",
        "UPDATE facts SET value = '{'",
        "UPDATE answers SET value = '{'",
        "DELETE FROM segments",
    ],
)
def test_rows_that_make_no_sense_are_reported_as_damage(path: Path, statement: str) -> None:
    with PreferenceStore(path) as store:
        store.add_queries([query(0)])
        store.add_answers([answer(query(0))])
        store.set_facts({"labels_wanted": 5})
    with sqlite3.connect(path) as raw:
        raw.execute(statement)

    def read() -> None:
        with PreferenceStore(path) as store:
            store.facts()
            store.answers()
            store.query(query(0).id)

    with pytest.raises(UserError, match=r"is damaged: .* Restore it from a copy"):
        read()


def test_a_read_only_record_can_be_read_and_says_why_it_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "record" / "r.sqlite"
    path.parent.mkdir()
    with PreferenceStore(path) as store:
        store.add_queries([query(0), query(1)])
        store.add_answers([answer(query(0))])
    script = (
        "import encodings.cp437, os, sys\n"
        "from prefrl.errors import UserError\n"
        "from prefrl.feedback import Comparison\n"
        "from prefrl.store import PreferenceStore\n"
        "PreferenceStore(sys.argv[2]).close()\n"  # everything is imported now
        "if os.geteuid() == 0:\n"
        "    os.setuid(65534)\n"  # root may write anywhere
        "store = PreferenceStore(sys.argv[1])\n"
        "print(len(store.answers()))\n"
        "try:\n"
        "    store.add_answers([Comparison(query_id=store.open_queries()[0].id, preference=1.0, annotator='a')])\n"
        "except UserError as error:\n"
        "    print(error)\n"
    )
    for name in (path, *path.parent.glob("r.sqlite-*")):
        name.chmod(0o444)
    path.parent.chmod(0o555)
    changed = [folder for folder in path.parents if not folder.stat().st_mode & 0o001 and folder != path.parent]
    if os.geteuid() == 0:
        for folder in changed:
            folder.chmod(folder.stat().st_mode | 0o011)
    command = [sys.executable, "-c", script, str(path), str(tmp_path / "other.sqlite")]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=env, check=False)
    path.parent.chmod(0o755)
    assert done.stdout.startswith("1\n"), done.stdout + done.stderr
    assert "Allow writing to the file and its folder" in done.stdout, done.stdout


def test_a_record_that_another_process_holds_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefrl.store.engine.BUSY_SECONDS", 0.05)
    with PreferenceStore(path) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("begin immediate")
        with pytest.raises(UserError, match=r"database is locked. Another process has held it"):
            store.add_queries([query(0)])
        assert store.open_queries() == []  # it can be read meanwhile
        other.execute("rollback")
        other.close()
        store.add_queries([query(0)])
        assert len(store.open_queries()) == 1


def test_a_copy_made_while_a_record_is_used_holds_all_that_was_acknowledged(tmp_path: Path) -> None:
    path, copy = tmp_path / "record.sqlite", tmp_path / "copies.sqlite"
    queries = [Query(segments=(segment(n), segment(n + 2))) for n in (0, 1)]
    with PreferenceStore(path) as store:
        store.add_queries(queries)
        given = Comparison(query_id=queries[0].id, preference=1.0, annotator="anna")
        store.add_answers([given])
        assert (tmp_path / "record.sqlite-wal").stat().st_size > 0, "the newest is not in the file itself"
        with closing(sqlite3.connect(path)) as other:
            other.execute("VACUUM INTO ?", (str(copy),))
        store.add_answers([Comparison(query_id=queries[1].id, preference=0.0, annotator="anna")])
    with PreferenceStore(copy, create=False) as kept:
        kept.check()
        assert [answer for _, answer in kept.answers()] == [given]

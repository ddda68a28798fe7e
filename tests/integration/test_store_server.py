"""A record on a server that goes away, comes back, is not there, or holds something else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psycopg
import pytest
from postgres import PostgresServer

from prefrl.control import ControlFolder, TrainSettings
from prefrl.errors import UserError
from prefrl.feedback import Comparison, Query
from prefrl.segments import Segment
from prefrl.start import main
from prefrl.store import PreferenceStore, engine


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of its own, which these tests may stop."""
    with PostgresServer() as started:
        yield started


def query(number: int) -> Query:
    rng = np.random.default_rng(number)

    def one() -> Segment:
        return Segment(observations=rng.normal(size=(6, 3)), actions=rng.normal(size=(5, 1)), true_rewards=np.ones(5))

    return Query(segments=(one(), one()))


def test_work_goes_on_when_a_server_that_was_killed_comes_back(server: PostgresServer) -> None:
    with PreferenceStore(server.new_database("back")) as store:
        store.add_queries([query(n) for n in range(40)])
        (held,) = store.claim("anna")
        server.stop()
        timer = threading.Timer(1.0, server.start)
        timer.start()
        store.add_answers([Comparison(query_id=held.query.id, preference=1.0, annotator="anna", claim=held.token)])
        timer.join()
        assert [answer.claim for _, answer in store.answers()] == [held.token]
        server.stop()
        server.start()
        assert len(store.claim("anna", 100, repeat_share=0)) == 39  # connections that broke unnoticed


def test_it_is_said_that_a_server_is_waited_for(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "TELL_SECONDS", 0.2)
    with PreferenceStore(server.new_database("waited"), patience_seconds=0.1) as store:
        store.patience_seconds = 60.0
        server.stop()
        timer = threading.Timer(1.5, server.start)
        timer.start()
        with pytest.warns(UserWarning, match="cannot be reached. It is waited for, 60 seconds at most"):
            store.add_queries([query(0)])
        timer.join()
        assert store.num_open() == 1


def test_a_server_that_stays_away_is_told_and_nothing_is_lost(server: PostgresServer) -> None:
    url = server.new_database("away")
    with PreferenceStore(url, patience_seconds=0.3) as store:
        store.add_queries([query(0)])
        (held,) = store.claim("anna")
        answer = Comparison(query_id=held.query.id, preference=0.5, annotator="anna", claim=held.token)
        server.stop()
        try:
            with pytest.raises(
                UserError, match=r"could not be written to: .*start it.*Nothing recorded before was lost"
            ):
                store.add_answers([answer])
            with pytest.raises(UserError, match="cannot be reached"):
                PreferenceStore(url, patience_seconds=0.1)
        finally:
            server.start()
        store.add_answers([answer])  # the same again
        store.add_answers([answer])
        assert [a for _, a in store.answers()] == [answer]


def test_answers_given_while_a_server_is_killed_again_and_again_are_there_once(server: PostgresServer) -> None:
    url, total = server.new_database("killed"), 120
    with PreferenceStore(url) as store:
        store.add_queries([query(n) for n in range(total)])
    errors: list[BaseException] = []

    def answer_all(name: str) -> None:
        try:
            with PreferenceStore(url) as store:
                while claims := store.claim(name, repeat_share=0):
                    (claim,) = claims
                    given = Comparison(query_id=claim.query.id, preference=1.0, annotator=name, claim=claim.token)
                    store.add_answers([given])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=answer_all, args=(name,)) for name in ("anna", "ben")]
    for thread in threads:
        thread.start()
    for _ in range(3):
        threads[0].join(0.3)
        server.stop()
        server.start()
    for thread in threads:
        thread.join(120)
    assert errors == []
    with PreferenceStore(url) as store:
        answered = [answer.query_id for _, answer in store.answers()]
    # A claim whose receipt was lost with the server stays until its lease ends: one for each kill and annotator.
    assert total - 6 <= len(answered) == len(set(answered)) <= total


def test_addresses_that_cannot_be_a_record_are_refused(server: PostgresServer) -> None:
    with pytest.raises(UserError, match="Create the database"):
        PreferenceStore(server.url("nowhere"), patience_seconds=0)
    for wrong in ("mysql://root@localhost/x", "postgresql://localhost", "http//://"):
        with pytest.raises(UserError, match="postgresql://user"):
            PreferenceStore(wrong)
    with pytest.raises(UserError, match=r"postgresql://anna:\*\*\*@127.0.0.1:1/x could not be read") as refused:
        PreferenceStore("postgresql://anna:secret@127.0.0.1:1/x", patience_seconds=0)
    assert "secret" not in str(refused.value)


def test_a_database_that_holds_something_else_is_left_alone(server: PostgresServer) -> None:
    url = server.new_database("other")
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE about (key text)")
    with pytest.raises(UserError, match="not a record of preferences"):
        PreferenceStore(url)


def test_a_full_disk_of_the_server_loses_nothing(server: PostgresServer) -> None:
    with PreferenceStore(server.new_database("full")) as store:
        store.add_queries([query(0)])
        with store._database.engine.begin() as connection:  # the message of a server whose disk is full
            connection.exec_driver_sql(
                "CREATE FUNCTION full_disk() RETURNS trigger AS $$ BEGIN RAISE EXCEPTION "
                "'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$ LANGUAGE plpgsql"
            )
            connection.exec_driver_sql(
                "CREATE TRIGGER full_disk BEFORE INSERT ON answers FOR EACH ROW EXECUTE FUNCTION full_disk()"
            )
        answer = Comparison(query_id=query(0).id, preference=1.0, annotator="anna")
        with pytest.raises(UserError, match=r"No space.*Nothing recorded before was lost.*Free some space"):
            store.add_answers([answer])
        with store._database.engine.begin() as connection:
            connection.exec_driver_sql("DROP TRIGGER full_disk ON answers")
        store.add_answers([answer])
        assert len(store.answers()) == 1


def role(server: PostgresServer, url: str, name: str, grants: str, limit: int = -1) -> str:
    """Make a user of a database who may do so much with its tables; return the address by which they reach it."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN CONNECTION LIMIT {limit}".encode())
        connection.execute(f"GRANT {grants} ON ALL TABLES IN SCHEMA public TO {name}".encode())
        connection.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {name}".encode())
    return url.replace("postgres@", f"{name}@")


def test_a_lock_that_another_holds_is_waited_for_with_a_word(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "TELL_SECONDS", 0.2)
    url = server.new_database("held")
    with PreferenceStore(url) as store, psycopg.connect(url, autocommit=True) as other:
        other.execute(f"SELECT pg_advisory_lock({engine._LOCK})".encode())

        def let_go() -> None:
            """Unlock when somebody waited long enough to say so."""
            waiting = 0
            while waiting < 5:
                time.sleep(0.1)
                found = other.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
                waiting += found != (0,)
            other.execute(f"SELECT pg_advisory_unlock({engine._LOCK})".encode())

        store.patience_seconds = 3.0
        with (
            pytest.warns(UserWarning, match="is being written to by another process. It is waited for"),
            pytest.raises(UserError, match=r"Another process holds the record's lock for too long.*Nothing was lost"),
        ):
            store.add_queries([query(0)])
        assert store.num_open() == 0  # reading waits for nobody
        store.patience_seconds = 60.0
        timer = threading.Thread(target=let_go)
        timer.start()
        with pytest.warns(UserWarning, match="60 seconds at most"):
            store.add_queries([query(0)])
        timer.join()
        assert store.num_open() == 1


def test_a_limit_of_connections_is_waited_out(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "TELL_SECONDS", 0.1)
    url = server.new_database("limited")
    PreferenceStore(url).close()
    hers = role(server, url, "anna", "ALL", limit=1)
    other = psycopg.connect(hers)
    with pytest.raises(UserError, match=r"too many connections for role.*raise its max_connections"):
        PreferenceStore(hers, patience_seconds=0)
    timer = threading.Timer(5.0, other.close)
    timer.start()
    with pytest.warns(UserWarning, match="has no free connection. It is waited for"):
        store = PreferenceStore(hers, patience_seconds=60)
    timer.join()
    with store:
        store.add_queries([query(0)])
        assert store.num_open() == 1


def test_who_may_only_read_can_judge_and_export(server: PostgresServer, tmp_path: Path) -> None:
    url = server.new_database("looked")
    with PreferenceStore(url) as store:
        store.add_queries([query(0)])
        store.add_answers([Comparison(query_id=query(0).id, preference=1.0, annotator="anna")])
    his = role(server, url, "ben", "SELECT")
    assert main(["export", his, "--to", str(tmp_path / "data")]) == 0
    assert main(["quality", his, "--json"]) == 0
    with PreferenceStore(his) as store, pytest.raises(UserError, match=r"permission denied.*GRANT ALL.*SELECT alone"):
        store.add_queries([query(1)])


def test_every_verb_that_takes_a_record_takes_a_file_a_run_and_an_address(
    server: PostgresServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ControlFolder.create(tmp_path / "run", TrainSettings(env_id="Pendulum-v1").resolve(), baseline=False)
    (tmp_path / "remarks.jsonl").write_text('{"prompt": "p", "response": "r", "critique": "c"}\n')
    for number, place in enumerate((str(folder.path), str(tmp_path / "own.sqlite"), server.new_database("verbs"))):
        record = folder.record if number == 0 else place
        with PreferenceStore(record if "://" in str(record) else Path(record)) as store:
            store.add_queries([query(0)])
            store.add_answers([Comparison(query_id=query(0).id, preference=1.0, annotator="anna")])
            store.add_annotator("anna", "person")
        data = str(tmp_path / f"data{number}")
        for line in (
            ["quality", place, "--json"],
            ["export", place, "--to", data],
            ["import", data, "--to", place],
            ["text", "tell", "--record", place, "--data", str(tmp_path / "remarks.jsonl"), "--annotator", "eve"],
            ["invite", place, "--name", "dora"],
            ["invite", place, "--list"],
            ["forget", place, "--annotator", "anna"],
        ):
            assert main(line) == 0, (line, capsys.readouterr().err)


def test_runs_have_a_schema_each_in_one_database_and_do_not_see_each_other(server: PostgresServer) -> None:
    url = server.new_database("shared")
    with PreferenceStore(url) as plain, PreferenceStore(f"{url}?schema=one") as one:
        with PreferenceStore(f"{url}?options=-cstatement_timeout%3D60000&schema=two") as two:
            for number, store in enumerate((plain, one, two)):
                store.add_queries([query(number)])
                (claim,) = store.claim("anna")
                assert claim.query.id == query(number).id
                given = Comparison(query_id=claim.query.id, preference=1.0, annotator="anna", claim=claim.token)
                store.add_answers([given] * (number % 2))
            assert [store.num_answers() for store in (plain, one, two)] == [0, 1, 0]
            assert one.name.endswith("?schema=one")
        with PreferenceStore(f"{url}?schema=one", create=False) as again:
            assert again.num_answers() == 1
        with pytest.raises(UserError, match=r"no record at \S+=three. The database has records at "
                                            r"\?schema=one, \?schema=public, \?schema=two\."):  # fmt: skip
            PreferenceStore(f"{url}?schema=three", create=False)


def test_writers_of_one_schema_do_not_wait_for_those_of_another(server: PostgresServer) -> None:
    url = server.new_database("busy")
    with PreferenceStore(f"{url}?schema=one") as one, PreferenceStore(f"{url}?schema=two") as two:
        two.patience_seconds = 0.0

        def write(_: object) -> None:
            two.add_queries([query(0)])  # while a transaction that writes holds the lock of the other schema

        one._database.write(write)
        assert two.num_open() == 1
        first, second = (PreferenceStore(f"{url}?schema={name}") for name in ("new", "new"))
        with first, second:
            threads = [threading.Thread(target=store.add_queries, args=([query(0)],)) for store in (first, second)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert first.num_open() == second.num_open() == 1


@pytest.mark.parametrize("name", ["", "Run", "1st", "a-b", "a b", "pg_own", "a" * 64, "public,other", 'a"b'])
def test_a_name_that_is_no_schema_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"begins with a letter, as in postgresql://user@host/database\?schema=run_1"):
        PreferenceStore(f"postgresql://anna:secret@127.0.0.1:1/x?schema={name}", patience_seconds=0)


def test_a_record_comes_back_from_the_copies_that_the_docs_make(server: PostgresServer, tmp_path: Path) -> None:
    url, copy = server.new_database("kept"), str(tmp_path / "run_1.dump")
    place = f"{url}?schema=run_1"
    with PreferenceStore(place) as store, PreferenceStore(f"{url}?schema=run_2") as other:
        for one in (store, other):
            one.add_queries([query(0), query(1)])
        given = Comparison(query_id=query(0).id, preference=1.0, annotator="anna")
        store.add_answers([given])
        server.client("pg_dump", "--format=custom", "--schema=run_1", f"--file={copy}", url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA run_1 CASCADE")
    with pytest.raises(UserError, match=r"records at \?schema=run_2"):
        PreferenceStore(place, create=False)
    server.client("pg_restore", f"--dbname={url}", copy)
    with PreferenceStore(place, create=False) as store:
        store.check()
        assert [answer for _, answer in store.answers()] == [given]
        store.add_answers([Comparison(query_id=query(1).id, preference=0.0, annotator="anna")])
        assert store.num_answers() == 2


def test_advice_fits_what_is_wrong() -> None:
    for reason, advice in (
        ('FATAL: password authentication failed for user "anna"', "pgpass"),
        ('permission denied for table "answers"', "GRANT"),
        ('FATAL: database "x" does not exist', "createdb"),
        ("could not extend file: No space left on device", "Free some space"),
    ):
        assert advice in engine._advice(reason, None)

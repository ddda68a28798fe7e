"""A record on a server that goes away, comes back, is not there, or holds something else."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import psycopg
import pytest
from postgres import PostgresServer

from prefrl.errors import UserError
from prefrl.feedback import Comparison, Query
from prefrl.segments import Segment
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

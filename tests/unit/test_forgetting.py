"""A person who withdraws: their answers leave the record, and whoever trains on it drops them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from prefrl.control.intake import Intake
from prefrl.errors import UserError
from prefrl.feedback import Comparison, Edit, Query, Response
from prefrl.quality import measure_quality
from prefrl.store import PreferenceStore

SECRET = "I am Anna and live in Basel"


def query(number: int) -> Query:
    return Query(responses=tuple(Response(prompt="Which?", text=f"{side} {number}") for side in "ab"))


def said(number: int, name: str, preference: float | None = 1.0, **options: str) -> Comparison:
    return Comparison(query_id=query(number).id, annotator=name, preference=preference, **options)  # type: ignore[arg-type]


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "record.sqlite"
    with PreferenceStore(path) as store:
        store.add_queries([query(number) for number in range(5)])
        store.add_annotator("anna", "person")
        store.add_annotator("ben", "person")
        store.add_answers([said(0, "anna", comment=SECRET), said(1, "ben", 0.0), said(2, "anna")])
        store.add_answers([Edit(query_id=query(0).id, annotator="anna", item=1, text=SECRET)])
        (row,) = store.add_answers([said(3, "anna", 0.0)])
        store.undo(row, "anna")
        again = Query(responses=query(0).responses, repeat_of=query(0).id, reserved_for="anna")
        store.add_queries([again])
        (row,) = store.add_answers([Comparison(query_id=again.id, annotator="anna", preference=0.0)])
        store.undo(row, "anna")
        store.links.make("anna")
        store.set_facts({"viewer anna": {"at": 1.0}})
    return path


def test_nothing_of_a_person_is_left_in_the_record_nor_on_the_disk(record: Path) -> None:
    with PreferenceStore(record) as store:
        forgotten = store.forget("anna")
        assert (forgotten.answers, forgotten.links) == (2, 1)
        assert [answer.annotator for _, answer in store.answers(standing=True)] == ["ben"]
        assert "anna" not in store.annotators() and "viewer anna" not in store.facts()
        assert [one.name for one in measure_quality(store).annotators] == ["ben"]
        assert store.links.all() == []
    with sqlite3.connect(record) as connection:
        dump = "\n".join(connection.iterdump())
    assert "anna" not in dump and SECRET not in dump
    kept = b"".join(path.read_bytes() for path in record.parent.glob("record.sqlite*"))
    assert b"anna" not in kept and SECRET.encode() not in kept


def test_queries_of_a_person_who_withdrew_are_asked_of_others(record: Path) -> None:
    with PreferenceStore(record) as store:
        store.forget("anna")
        asked = {claim.query.id for claim in store.claim("carl", 9, repeat_share=0.0)}
        assert asked == {query(number).id for number in (0, 2, 3, 4)}


@pytest.mark.parametrize("restored", [False, True])
def test_a_training_drops_what_was_withdrawn_while_it_goes_on_and_after_a_restart(record: Path, restored: bool) -> None:
    with PreferenceStore(record) as store:
        intake = Intake()
        intake.ask([query(number) for number in range(5)])
        intake.take_in(store.answers(repeats=False))
        assert intake.taken == [1, 2, 3]
        store.forget("anna")
        if restored:
            state, intake = intake.state(), Intake()
            intake.ask([query(number) for number in range(5)])
            intake.restore(state, store.answers(repeats=False))
        intake.take_in(store.answers(after=intake.read_up_to, repeats=False))
        assert intake.taken == [2] and intake.labels == 1
        assert set(intake.open) == {query(number).id for number in (0, 2, 3, 4)}


def test_nobody_and_teachers_cannot_withdraw(record: Path) -> None:
    with PreferenceStore(record) as store:
        store.add_annotator("oracle", "teacher")
        with pytest.raises(UserError, match=r"Nobody called 'carl'.*People there: anna, ben"):
            store.forget("carl")
        with pytest.raises(UserError, match=r"teacher, not a person.*--without oracle"):
            store.forget("oracle")
        store.forget("anna")
        with pytest.raises(UserError, match=r"People there: ben$"):
            store.forget("anna")


def test_where_a_damaged_file_cannot_be_written_over_it_is_said(record: Path) -> None:
    with PreferenceStore(record) as store:
        store.add_answers([Comparison(query_id=query(0).id, annotator="zoe", preference=1.0)])
    with sqlite3.connect(record) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        page_size = connection.execute("PRAGMA page_size").fetchone()[0]
        roots = dict(connection.execute("SELECT name, rootpage FROM sqlite_master WHERE name = 'clips'"))
    content = bytearray(record.read_bytes())
    first = (roots["clips"] - 1) * page_size
    content[first : first + page_size] = bytes(page_size)
    record.write_bytes(content)
    with PreferenceStore(record) as store:
        with pytest.raises(UserError, match=r"is damaged .*may still be on the disk"):
            store.forget("zoe")
        with pytest.raises(UserError, match="Nobody called 'zoe'"):
            store.forget("zoe")


def test_a_link_of_no_role_there_is_lets_nobody_in(record: Path) -> None:
    with PreferenceStore(record) as store:
        token = store.links.make("carl")
    with sqlite3.connect(record) as connection:
        connection.execute("UPDATE links SET role = 'queen' WHERE annotator = 'carl'")
    with PreferenceStore(record) as store, pytest.raises(UserError, match="the role of a link of 'carl' is 'queen'"):
        store.links.of_token(token)
    with sqlite3.connect(record) as connection:
        connection.execute("UPDATE links SET role = 'annotator', made_at = 'yesterday' WHERE annotator = 'carl'")
    with PreferenceStore(record) as store, pytest.raises(UserError, match="a link is of 'carl', 'yesterday' to None"):
        store.links.all()

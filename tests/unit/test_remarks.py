"""What is said beside an answer: reason, flag, comment, adjudication; and what those who answer agreed to."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from postgres import PostgresServer

from prefrl.control.intake import Intake
from prefrl.dataset import export_record, import_record, text_comparisons
from prefrl.errors import UserError
from prefrl.feedback import Comparison, Query, Response, Undo, settled
from prefrl.store import PreferenceStore, tables
from prefrl.store.participants import consent_version

CONSENT = "You will compare texts. You may stop whenever you like."


def query(number: int = 0, **options: Any) -> Query:
    return Query(responses=tuple(Response(prompt="Which?", text=f"{side} {number}") for side in "ab"), **options)


def said(name: str, preference: float | None = 1.0, number: int = 0, **options: Any) -> Comparison:
    return Comparison(query_id=query(number).id, annotator=name, preference=preference, **options)


@pytest.fixture
def store(new_record: Callable[[], Path | str]) -> Any:
    with PreferenceStore(new_record()) as opened:
        opened.add_queries([query(number) for number in range(3)])
        yield opened


def test_reason_flag_comment_and_adjudication_come_back_as_they_were(store: PreferenceStore) -> None:
    answers = [
        said("anna", None, reason="alike", comment="the same to me"),
        said("ben", 0.0, flagged=True),
        said("owner", 1.0, adjudicates=True),
    ]
    store.add_answers(answers)
    assert [answer for _, answer in store.answers()] == answers


def test_an_unknown_reason_is_refused() -> None:
    with pytest.raises(UserError, match=r"A reason is one of alike, broken, unclear, or empty. Received 'bored'"):
        said("anna", None, reason="bored")


def test_a_record_of_version_2_gets_the_columns_and_keeps_its_answers(tmp_path: Path) -> None:
    path = tmp_path / "record.sqlite"
    with PreferenceStore(path) as store:
        store.add_queries([query()])
        store.add_answers([said("anna", comment="hm")])
    with sqlite3.connect(path) as connection:  # as version 2 had it
        for column in ("reason", "flagged", "adjudicates"):
            connection.execute(f"ALTER TABLE answers DROP COLUMN {column}")
        connection.execute("UPDATE about SET value = '2' WHERE key = 'schema_version'")
    with PreferenceStore(path) as store:
        assert [answer for _, answer in store.answers()] == [said("anna", comment="hm")]
        store.add_answers([said("ben", None, reason="broken")])
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT value FROM about WHERE key = 'schema_version'").fetchone() == (
            str(tables.SCHEMA_VERSION),
        )


def test_a_record_of_version_2_on_a_server_is_brought_up_to_date() -> None:
    with PostgresServer() as server:
        where = server.new_database("older")
        with PreferenceStore(where) as store:
            store.add_queries([query()])
            store.add_answers([said("anna")])
            with store._database.engine.begin() as connection:
                for column in ("reason", "flagged", "adjudicates"):
                    connection.exec_driver_sql(f"ALTER TABLE answers DROP COLUMN {column}")
                connection.exec_driver_sql("UPDATE about SET value = '2' WHERE key = 'schema_version'")
        with PreferenceStore(where) as store:
            store.add_answers([said("ben", None, reason="broken", flagged=True)])
            assert [answer.flagged for _, answer in store.answers()] == [False, True]


def test_an_adjudication_counts_in_place_of_what_it_settles_until_it_is_taken_back() -> None:
    asked = query(overlap=2)
    rows = [(1, said("anna", 1.0)), (2, said("ben", 0.0)), (3, said("owner", 0.0, adjudicates=True))]
    intake = Intake()
    intake.ask([asked])
    intake.take_in(rows[:2])
    assert (intake.taken, intake.labels) == ([1, 2], 2)
    change = intake.take_in(rows)
    assert (change.removed, [number for number, _ in change.added]) == ((1, 2), [3])
    assert (intake.taken, intake.labels, intake.open) == ([3], 1, ())
    intake.take_in([*rows, (4, Undo(query_id=asked.id, annotator="owner", undoes=3))])
    assert (intake.taken, intake.labels) == ([1, 2], 2)


def test_an_adjudicator_who_is_left_out_settles_nothing_and_cannot_tell_leaves_nothing_to_learn() -> None:
    rows = [(1, said("anna", 1.0)), (2, said("owner", None, adjudicates=True))]
    intake = Intake()
    intake.ask([query()])
    intake.take_in(rows)
    assert (intake.taken, intake.labels) == ([], 0)
    without = Intake(without=["owner"])
    without.ask([query()])
    without.take_in(rows)
    assert without.taken == [1]


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from([0.0, 0.5, 1.0]), st.booleans()), max_size=8),
    st.data(),
)
def test_what_counts_is_the_same_however_rows_with_adjudications_come(
    given_answers: list[tuple[str, float, bool]], data: st.DataObject
) -> None:
    asked = query(overlap=2)
    rows = [(n, said(who, what, adjudicates=final)) for n, (who, what, final) in enumerate(given_answers, 1)]
    at_once, one_by_one = Intake(), Intake()
    for intake in (at_once, one_by_one):
        intake.ask([asked])
    at_once.take_in(rows)
    cut = data.draw(st.integers(0, len(rows)))
    one_by_one.take_in(rows[:cut])
    one_by_one.take_in(rows)
    assert sorted(at_once.taken) == sorted(one_by_one.taken) and at_once.labels == one_by_one.labels
    final = [number for number, answer in rows if answer.adjudicates]
    if final:
        assert at_once.taken == final[-1:]
        assert settled([answer for _, answer in rows]) == [rows[final[-1] - 1][1]]


def test_pairs_of_texts_are_those_that_an_adjudication_leaves(store: PreferenceStore) -> None:
    store.add_answers([said("anna", 1.0), said("ben", 0.0), said("owner", 0.0, adjudicates=True), said("anna", 1.0, 1)])
    assert [(pair["chosen"], pair["rejected"]) for pair in text_comparisons(store)] == [("b 0", "a 0"), ("a 1", "b 1")]


def test_an_export_keeps_remarks_adjudications_and_consents(store: PreferenceStore, tmp_path: Path) -> None:
    store.add_answers([said("anna", None, reason="unclear", flagged=True, comment="what for?"), said("ben", 1.0)])
    store.add_answers([said("owner", 0.0, adjudicates=True)])
    store.participants.agree("anna", CONSENT)
    if store._database.on_server:
        pytest.skip("its address has a password that is shown nowhere")
    export_record(Path(store.name), tmp_path / "data")
    for _ in range(2):
        import_record(tmp_path / "data", tmp_path / "back.sqlite")
    with PreferenceStore(tmp_path / "back.sqlite") as back:
        assert [answer for _, answer in back.answers()] == [answer for _, answer in store.answers()]
        assert back.participants.consents() == store.participants.consents()
        assert back.participants.texts() == {consent_version(CONSENT): CONSENT}


def test_a_data_set_of_version_1_is_read(store: PreferenceStore, tmp_path: Path) -> None:
    import json

    from pyarrow import parquet

    if store._database.on_server:
        pytest.skip("one record is enough")
    store.add_answers([said("anna"), said("ben", 0.0)])
    export_record(Path(store.name), tmp_path / "data")
    table = parquet.read_table(tmp_path / "data" / "answers.parquet")
    parquet.write_table(table.drop_columns(["reason", "flagged", "adjudicates"]), tmp_path / "data" / "answers.parquet")
    about = json.loads((tmp_path / "data" / "dataset.json").read_text())
    (tmp_path / "data" / "dataset.json").write_text(json.dumps({**about, "version": 1}))
    import_record(tmp_path / "data", tmp_path / "back.sqlite")
    with PreferenceStore(tmp_path / "back.sqlite") as back:
        assert [answer for _, answer in back.answers()] == [said("anna"), said("ben", 0.0)]


# ---------------------------------------------------------------------------------------------------- participants


def test_who_agreed_to_which_version_is_kept_once_each(store: PreferenceStore) -> None:
    people = store.participants
    assert not people.has_agreed("anna", consent_version(CONSENT)) and people.consents() == {}
    assert people.agree("anna", CONSENT) == people.agree("anna", CONSENT) == consent_version(CONSENT)
    people.agree("anna", CONSENT + " New.")
    assert people.has_agreed("anna", consent_version(CONSENT)) and not people.has_agreed(
        "ben", consent_version(CONSENT)
    )
    assert len(people.consents()["anna"]) == 2 and len(people.texts()) == 2


def test_who_comes_from_a_platform_answers_under_a_name_that_is_nobody_elses(store: PreferenceStore) -> None:
    given_by = {"PROLIFIC_PID": "5f" * 12, "STUDY_ID": "a" * 24, "SESSION_ID": "b" * 24}
    name = store.participants.enter(given_by)
    assert name == "prolific-" + "5f" * 12 == store.participants.enter(given_by)
    found = store.participants.of(name)
    assert found is not None and (found.participant, found.study, found.session) == ("5f" * 12, "a" * 24, "b" * 24)
    with pytest.raises(UserError, match="begun in another session"):
        store.participants.enter({**given_by, "SESSION_ID": "c" * 24})
    for wrong in ({}, {**given_by, "STUDY_ID": ""}, {**given_by, "PROLIFIC_PID": "{{%PROLIFIC_PID%}}"}):
        with pytest.raises(UserError, match="is missing or is none"):
            store.participants.enter(wrong)


def test_a_person_who_withdraws_leaves_consents_and_platform_too(store: PreferenceStore) -> None:
    name = store.participants.enter({"PROLIFIC_PID": "p1", "STUDY_ID": "s", "SESSION_ID": "t"})
    store.participants.agree(name, CONSENT)
    store.participants.limit(name, 5)
    store.add_annotator(name, "person")
    store.add_answers([said(name, None, reason="alike", flagged=True, comment="p1 says")])
    store.forget(name)
    assert store.participants.of(name) is None and store.participants.consents() == {}
    (row, undo) = (answer for _, answer in store.answers())
    assert (row.reason, row.flagged, row.comment) == ("", False, "") and undo.kind == "undo"

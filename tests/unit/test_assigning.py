"""Open questions that are reserved for somebody: `prefrl assign`."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefrl.errors import USER_ERROR
from prefrl.feedback import Comparison, Query, Response
from prefrl.start import main
from prefrl.store import PreferenceStore


def question(number: int, **settings: object) -> Query:
    return Query(responses=tuple(Response(prompt=f"{number}", text=text) for text in "ab"), **settings)  # type: ignore[arg-type]


def answer(query: Query, name: str) -> Comparison:
    return Comparison(query_id=query.id, annotator=name, preference=1.0)


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """Five open questions in order, one that two are to answer, one that ben has answered, one of a panel's teacher."""
    path = tmp_path / "record.sqlite"
    with PreferenceStore(path) as store:
        store.add_annotator("oracle", "teacher")
        store.add_annotator("ben", "person")
        store.add_queries([question(n) for n in range(5)])
        store.add_queries([question(10, overlap=2), done := question(11), question(12, reserved_for="oracle")])
        store.add_answers([answer(done, "ben")])
    return path


def asked(record: Path, name: str) -> list[str]:
    """Return the prompts of the questions that somebody is given."""
    with PreferenceStore(record) as store:
        claims = store.claim(name, 20, repeat_share=0.0)
        store.release(claims)
        return sorted(claim.query.responses[0].prompt for claim in claims)


def test_questions_go_turn_by_turn_to_those_named_and_to_nobody_else(
    record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["assign", str(record), "--to", "anna", "--to", "ben", "--questions", "3"]) == 0
    told = capsys.readouterr().out
    assert "2 questions are given to anna." in told and "1 question is given to ben." in told
    assert "anna has neither a link nor answers here" in told and "ben has neither" not in told
    assert "Open questions: 2 for anna, 1 for ben, 4 for everybody." in told, "the teacher's is not a person's"
    assert asked(record, "anna") == ["0", "10", "2", "3", "4"]
    assert asked(record, "ben") == ["1", "10", "3", "4"]
    assert asked(record, "carla") == ["10", "3", "4"]


def test_what_is_left_is_counted_and_machines_keep_theirs(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with PreferenceStore(record) as store:
        everything = store.query_ids()
    assert main(["assign", str(record), "--to", "ben", *everything]) == 0
    told = capsys.readouterr().out
    assert "5 questions are given to ben." in told
    assert "1 answered already" in told and "1 for several people" in told
    assert asked(record, "oracle") == ["10", "12"]
    assert main(["assign", str(record), "--free"]) == 0
    assert "5 questions are free for everybody." in capsys.readouterr().out
    assert asked(record, "anna") == ["0", "1", "10", "2", "3", "4"]
    assert asked(record, "oracle") == ["0", "1", "10", "12", "2", "3", "4"]


def test_a_question_that_somebody_answered_goes_to_the_other(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with PreferenceStore(record) as store:
        (twice,) = [card for card in store.cards(store.query_ids()) if card.overlap == 2]
        store.add_answers([Comparison(query_id=twice.id, annotator="ben", preference=0.0)])
    assert main(["assign", str(record), twice.id, "--to", "ben"]) == 0
    assert "1 answered by all of these people already" in capsys.readouterr().out
    assert main(["assign", str(record), twice.id, "--to", "ben", "--to", "anna"]) == 0
    assert "1 question is given to anna." in capsys.readouterr().out
    assert "10" in asked(record, "anna") and "10" not in asked(record, "carla")


def test_the_questions_of_somebody_who_withdraws_are_everybodys(record: Path) -> None:
    assert main(["assign", str(record), "--to", "ben"]) == 0
    assert asked(record, "anna") == ["10"]
    assert main(["forget", str(record), "--annotator", "ben"]) == 0
    assert asked(record, "anna") == ["0", "1", "10", "11", "2", "3", "4"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--to oracle", "names people, each once. Received oracle"),
        ("--to anna --to anna", "each once"),
        ("--to anna --questions 0", "at least 1"),
        ("--list --questions 2", "goes with --to"),
        ("abc --list", "together with whoever"),
        ("zzz --to anna", "No question begins with 'zzz'"),
    ],
)
def test_what_cannot_be_assigned_is_a_sentence(
    record: Path, words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["assign", str(record), *words.split()]) == USER_ERROR
    assert message in capsys.readouterr().err

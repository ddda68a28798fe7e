"""People's feedback on responses: from the record to what a model learns from."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefrl.cli import main
from prefrl.errors import UserError
from prefrl.feedback import Comparison, Edit, Query, Ranking, Rating, Response
from prefrl.store import PreferenceStore
from prefrl.text.data.examples import Example, Liked, RankedResponses
from prefrl.text.data.recorded import ask_people
from prefrl.text.data.sources import read_examples, read_likes, read_prompts, read_rankings, read_remarks, write_rows


@pytest.fixture
def record(tmp_path: Path) -> str:
    return str(tmp_path / "people.sqlite")


def test_what_people_say_becomes_rankings_and_examples(record: str) -> None:
    asked = ask_people(record, ["p", "q", "same"], [["a", "b"], ["c", "d", "e"], ["x", "x"]])
    assert asked == 2, "two equal responses are no question"
    with PreferenceStore(Path(record)) as store:
        pair, three = store.open_queries()
        store.add_answers(
            [
                Comparison(query_id=pair.id, preference=0.0, annotator="anna", comment="a is rude"),
                Ranking(query_id=three.id, ranks=(2, 1, 2), annotator="ben"),
                Edit(query_id=pair.id, annotator="anna", item=1, text="better b"),
            ]
        )
        assert store.answers()[0][1].comment == "a is rude", "critiques are kept"
    assert read_rankings(record) == [
        RankedResponses(prompt="p", responses=("a", "b"), ranks=(1, 0)),
        RankedResponses(prompt="q", responses=("c", "d", "e"), ranks=(1, 0, 1)),
        RankedResponses(prompt="p", responses=("better b", "b"), ranks=(0, 1)),
    ]
    assert read_examples(record, seed=0, count=1) == [Example(prompt="p", response="better b")]
    assert read_prompts(record, seed=0, count=9) == ["p", "q"]
    assert len(read_likes(record)) == 6


def test_responses_are_asked_to_be_rated(record: str) -> None:
    assert ask_people(record, ["p", "q"], [["a", "b", "a"], ["c"]], scale=5) == 3
    with PreferenceStore(Path(record)) as store:
        queries = store.open_queries()
        assert [(q.kind, q.scale, q.responses[0].text) for q in queries] == [("rating", 5, t) for t in "abc"]
        store.add_answers([Rating(query_id=queries[0].id, rating=5, annotator="anna")])
    assert read_likes(record) == [Liked(prompt="p", response="a", liked=True)]
    assert read_prompts(record, seed=0, count=9) == ["p"]
    with pytest.raises(UserError, match="scale of 2 to 9"):
        ask_people(record, ["p"], [["a"]], scale=1)


def test_what_people_wrote_in_a_file_is_kept_and_teaches(record: str, tmp_path: Path) -> None:
    rows = [{"prompt": "p", "response": "a", "edited": "A", "critique": "no capital"},
            {"prompt": "p", "response": "b", "critique": "rude", "edited": None}]  # fmt: skip
    written = tmp_path / "written.jsonl"
    write_rows(written, rows)
    tell = ["text", "tell", "--record", record, "--annotator", "anna", "--data", str(written)]
    assert main(tell) == 0
    with PreferenceStore(Path(record)) as store:
        assert store.num_open() == 0, "nobody is asked what is told already"
        assert store.annotators() == {"anna": "person"}
        assert {answer.comment for _, answer in store.answers()} == {"no capital", "rude"}
    assert read_examples(record, seed=0, count=9) == [Example(prompt="p", response="A")]
    assert read_rankings(record) == [RankedResponses(prompt="p", responses=("A", "a"), ranks=(0, 1))]
    for bad, message in (({"edited": "a"}, "the response itself"), ({}, "Received neither")):
        write_rows(written, [{"prompt": "p", "response": "a"} | bad])
        with pytest.raises(UserError, match=message):
            read_remarks(str(written))


def test_the_prefix_sqlite_is_no_part_of_the_name_of_a_file(record: str) -> None:
    assert ask_people(f"sqlite:{record}", ["p"], [["a", "b"]]) == 1
    with PreferenceStore(Path(record)) as store:
        (query,) = store.open_queries()
        store.add_answers([Comparison(query_id=query.id, preference=1.0, annotator="anna")])
    assert read_rankings(f"sqlite:{record}") == read_rankings(record)


def test_ratings_become_likes(record: str) -> None:
    with PreferenceStore(Path(record)) as store:
        queries = [
            Query(responses=(Response(prompt="p", text=text),), kind="rating", scale=5)
            for text in ("bad", "so", "good")
        ]
        store.add_queries(queries)
        store.add_answers(
            [Rating(query_id=q.id, rating=r, annotator="anna") for q, r in zip(queries, (1, 3, 4), strict=True)]
        )
    assert read_likes(record) == [
        Liked(prompt="p", response="bad", liked=False),
        Liked(prompt="p", response="good", liked=True),
    ]


def test_records_without_answers_say_so(record: str) -> None:
    with pytest.raises(UserError, match="no record"):
        read_rankings(record)
    ask_people(record, ["p"], [["a", "b"]])
    with pytest.raises(UserError, match="Answer some first"):
        read_rankings(record)
    with pytest.raises(UserError, match="Nobody edited"):
        read_examples(record, seed=0, count=1)
    with pytest.raises(UserError, match="nothing to compare"):
        ask_people(record, ["p"], [["a", "a"]])


def test_where_there_is_nothing_to_ask_no_record_is_made(tmp_path: Path) -> None:
    record = tmp_path / "new.sqlite"
    with pytest.raises(UserError, match="nothing to compare"):
        ask_people(str(record), ["p"], [["a", "a"]])
    assert not record.exists()


def test_what_people_are_to_look_for_and_how_many_of_them_goes_with_each_question(tmp_path: Path) -> None:
    record = str(tmp_path / "record.sqlite")
    assert ask_people(record, ["p"], [["a", "b"]], instruction="Be brief.", overlap=2) == 1
    with PreferenceStore(tmp_path / "record.sqlite") as store:
        (asked,) = store.open_queries()
    assert (asked.instruction, asked.overlap) == ("Be brief.", 2)

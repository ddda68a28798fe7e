"""People's feedback on responses: from the record to what a model learns from."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefrl.errors import UserError
from prefrl.feedback import Comparison, Edit, Query, Ranking, Rating, Response
from prefrl.store import PreferenceStore
from prefrl.text.data import Example, Liked, RankedResponses
from prefrl.text.people import ask_people
from prefrl.text.sources import read_examples, read_likes, read_prompts, read_rankings


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

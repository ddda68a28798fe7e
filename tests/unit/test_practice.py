"""Practice, gold questions and answers that came too fast: what is made of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefrl.errors import UserError
from prefrl.feedback import Answer, Comparison, Query, Ranking, Rating, Response
from prefrl.human_ui.page.gate import Campaign
from prefrl.human_ui.page.practice import Stage, stage_of
from prefrl.quality import measure_quality, same_judgement
from prefrl.store import PreferenceStore


@pytest.mark.parametrize(
    ("right", "more", "stage"),
    [
        ([], True, Stage.PRACTISING),
        ([], False, Stage.PASSED),  # nothing is known: nothing can be asked
        ([True, True, False], True, Stage.PASSED),
        ([True, False, False], True, Stage.PRACTISING),
        ([False, False, True, True], True, Stage.PASSED),  # the last three
        ([False, False, False], False, Stage.FAILED),
        ([True], False, Stage.PASSED),
        ([False], False, Stage.FAILED),
        ([False] * 8, True, Stage.PRACTISING),
        ([False] * 9, True, Stage.FAILED),
        ([False] * 9 + [True] * 3, True, Stage.FAILED),  # it was enough before
    ],
)
def test_practice_is_passed_by_a_run_of_answers_that_are_right_often_enough(
    right: list[bool], more: bool, stage: Stage
) -> None:
    assert stage_of(right, 3, 2 / 3, more=more) is stage


def test_without_practice_everybody_begins() -> None:
    assert stage_of([], 0, 1.0, more=True) is Stage.PASSED


def comparison(preference: float | None) -> Answer:
    return Comparison(query_id="q", annotator="a", preference=preference)


def ranking(*ranks: int) -> Answer:
    return Ranking(query_id="q", annotator="a", ranks=ranks, shown=tuple(range(len(ranks))))


def rating(grade: int | None) -> Answer:
    return Rating(query_id="q", annotator="a", rating=grade)


@pytest.mark.parametrize(
    ("known", "said", "same"),
    [
        (comparison(1.0), comparison(1.0), True),
        (comparison(1.0), comparison(0.0), False),
        (comparison(1.0), comparison(0.5), False),
        (comparison(1.0), comparison(None), False),
        (ranking(1, 2, 3, 4), ranking(1, 2, 4, 3), True),  # one pair of six turned round
        (ranking(1, 2, 3, 4), ranking(2, 1, 4, 3), False),
        (ranking(1, 2, 3, 4), ranking(1, 1, 1, 1), False),
        (rating(3), rating(4), True),
        (rating(3), rating(5), False),
        (rating(3), rating(None), False),
    ],
)
def test_an_answer_is_right_if_it_says_what_is_known(known: Answer, said: Answer, same: bool) -> None:
    assert same_judgement(known, said) is same


def test_quality_tells_who_answers_too_fast_and_how_often_known_answers_were_given(tmp_path: Path) -> None:
    queries = [Query(responses=tuple(Response(prompt="?", text=f"{side} {n}") for side in "ab")) for n in range(24)]
    with PreferenceStore(tmp_path / "record.sqlite") as store:
        store.add_queries(queries)
        for name in ("anna", "ben"):
            store.add_annotator(name, "person")
        store.set_facts({"known_by": "anna"})
        store.add_answers(
            [Comparison(query_id=q.id, annotator="anna", preference=1.0, seconds=3.0) for q in queries[:12]]
            + [Comparison(query_id=q.id, annotator="ben", preference=1.0, seconds=0.1) for q in queries[12:]]
        )
        for preference in (1.0, 1.0, 0.0):
            (claim,) = store.claim_known("ben", "anna")
            given = Comparison(query_id=claim.query.id, annotator="ben", preference=preference, claim=claim.token)
            store.add_answers([given])
        assert store.num_answers(teaching=True) == 24
        anna, ben = measure_quality(store).annotators
    assert (anna.is_too_fast, ben.is_too_fast) == (False, True)
    assert anna.gold is None and ben.gold is not None and (ben.gold.num, ben.gold.share) == (3, pytest.approx(2 / 3))
    assert ben.consistency is None, "what somebody else answered first tells nothing of consistency"


@pytest.mark.parametrize(
    ("options", "told"),
    [({"must_see": 1.5}, "--must-see"), ({"practice": 2}, "--known-by"), ({"gold_share": 0.1}, "--known-by")],
)
def test_a_campaign_that_cannot_be_is_refused(options: dict[str, float], told: str) -> None:
    with pytest.raises(UserError, match=told):
        Campaign(**options)  # type: ignore[arg-type]

"""Queries and the answers to them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from prefrl.errors import UserError
from prefrl.feedback import Comparison, Query
from prefrl.segments import Segment

pytestmark = pytest.mark.lowest


def segment(value: float, length: int = 3, **where: Any) -> Segment:
    return Segment(
        observations=np.full((length + 1, 2), value, np.float32),
        actions=np.zeros((length, 1), np.float32),
        true_rewards=np.zeros(length),
        **where,
    )


def test_a_query_has_the_same_name_whenever_it_is_built_from_the_same_segments() -> None:
    one = Query(segments=(segment(0), segment(1)), session=2)
    assert one.id == Query(segments=(segment(0, episode=9, start=4), segment(1)), session=2, num_env_steps=5).id


def test_the_name_of_a_query_tells_sessions_and_sides_apart() -> None:
    first, second = segment(0), segment(1)
    names = {
        Query(segments=(first, second)).id,
        Query(segments=(second, first)).id,
        Query(segments=(first, second), session=1).id,
    }
    assert len(names) == 3


def test_the_pair_of_a_query_does_not_depend_on_the_sides() -> None:
    first, second = segment(0), segment(1)
    pair = Query(segments=(first, second)).pair
    assert pair == Query(segments=(second, first), session=3).pair == {first.id, second.id}


def test_segments_of_unequal_length_are_refused() -> None:
    with pytest.raises(UserError, match="equal length; got 3 and 4 steps"):
        Query(segments=(segment(0, 3), segment(0, 4)))


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_query_needs_two_segments(number: int) -> None:
    with pytest.raises(UserError, match=f"A query for a comparison shows 2 segments; got {number}"):
        Query(segments=tuple([segment(0)] * number))  # type: ignore[arg-type]


@pytest.mark.parametrize("preference", [0, 0.5, 1, 0.0, 1.0, None])
def test_answers_that_there_are(preference: float | None) -> None:
    answer = Comparison(query_id="q", preference=preference, annotator="anna", seconds=1.5)
    assert answer.preference == preference


@pytest.mark.parametrize("preference", [0.3, -1, 2, math.nan, math.inf, "left"])
def test_answers_that_there_are_not(preference: Any) -> None:
    with pytest.raises(UserError, match="A preference must be 1"):
        Comparison(query_id="q", preference=preference, annotator="anna")


def test_an_answer_carries_the_name_of_who_gave_it() -> None:
    with pytest.raises(UserError, match="name of its annotator"):
        Comparison(query_id="q", preference=1.0, annotator="")

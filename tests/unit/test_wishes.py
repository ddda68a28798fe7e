"""Does one reward fit all who answered? Told where it does not, and not where it does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prefrl.feedback import Comparison, Query
from prefrl.segments import Segment
from prefrl.store import PreferenceStore
from prefrl.studies.wishes import compare_wishes


def fill(store: PreferenceStore, wishes: dict[str, float], each: int, rng: np.random.Generator) -> None:
    """Let annotators compare walks; each likes the first coordinate so many times as much as the second."""
    for name, wish in wishes.items():
        for _ in range(each):
            walks = [np.cumsum(rng.normal(size=(6, 3)), axis=0).astype(np.float32) for _ in range(2)]
            segments = tuple(
                Segment(observations=walk, actions=np.zeros((5, 1), np.float32), true_rewards=np.zeros(5))
                for walk in walks
            )
            query = Query(segments=segments, kind="comparison")
            first, second = (float((wish * walk[:, 0] + walk[:, 1]).mean()) for walk in walks)
            store.add_queries([query])
            preference = float(rng.random() < 1 / (1 + np.exp(second - first)))
            store.add_answers([Comparison(query_id=query.id, annotator=name, preference=preference)])


@pytest.mark.slow
def test_two_groups_are_told_apart(tmp_path: Path) -> None:
    with PreferenceStore(tmp_path / "r.sqlite") as store:
        fill(store, {"a": 2.0, "b": 2.0, "c": 2.0, "d": -2.0}, 30, np.random.default_rng(0))
        found = compare_wishes(store, store.answers(standing=True))
    assert found is not None
    assert found.differ
    assert found.groups == (("a", "b", "c"), ("d",))
    assert "a, b, c and d" in found.sentence()


@pytest.mark.slow
def test_where_all_want_the_same_nothing_is_said_against_it(tmp_path: Path) -> None:
    with PreferenceStore(tmp_path / "r.sqlite") as store:
        fill(store, {"a": 2.0, "b": 2.0, "c": 2.0}, 30, np.random.default_rng(1))
        found = compare_wishes(store, store.answers(standing=True))
    assert found is not None
    assert not found.differ
    assert found.num_answers == 90
    assert "One reward seems to fit all" in found.sentence()


@pytest.mark.parametrize("wishes", [{"a": 1.0}, {}])
def test_of_one_annotator_it_cannot_be_told(wishes: dict[str, float], tmp_path: Path) -> None:
    with PreferenceStore(tmp_path / "r.sqlite") as store:
        fill(store, wishes, 12, np.random.default_rng(0))
        fill(store, {"few": 1.0}, 5, np.random.default_rng(1))
        assert compare_wishes(store, store.answers(standing=True)) is None

"""The queries of a record one after the other: in the order asked for, few at a time where they are large."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prefrl.feedback import Query
from prefrl.segments import Segment
from prefrl.store import PreferenceStore
from prefrl.studies.queries_in_turn import in_turn


def filled(store: PreferenceStore, num: int, size: int) -> list[str]:
    """Add queries of two segments whose observations take `32 * size` bytes together; return their names."""
    queries = []
    for number in range(num):
        seen = np.full((2, 2, size), number, np.float64)
        seen[1] += 0.5
        clips = (Segment(observations=part, actions=np.zeros(1), true_rewards=np.zeros(1)) for part in seen)
        queries.append(Query(segments=tuple(clips), kind="comparison"))
    store.add_queries(queries)
    return [query.id for query in queries]


def test_they_come_in_the_order_asked_for_as_often_as_asked_for(tmp_path: Path) -> None:
    with PreferenceStore(tmp_path / "r.sqlite") as store:
        names = filled(store, 5, 3)
        asked = [names[3], names[0], names[3], names[4]]
        assert [query.id for query in in_turn(store, asked)] == asked
        assert list(in_turn(store, [])) == []


def test_of_large_ones_few_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefrl.studies.queries_in_turn.MOST_BYTES", 3 * 32 * 100)  # three of them
    with PreferenceStore(tmp_path / "r.sqlite") as store:
        names = filled(store, 10, 100)
        read: list[int] = []
        queries = store.queries

        def counted(query_ids: list[str]) -> list[Query]:
            read.append(len(query_ids))
            return queries(query_ids)

        monkeypatch.setattr(store, "queries", counted)
        assert [query.id for query in in_turn(store, names)] == names
    assert read == [1, 3, 3, 3]

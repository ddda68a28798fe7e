"""The record of segments, queries and answers: what comes back, what is stored once, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from prefrl.errors import UserError
from prefrl.feedback import Comparison, Query
from prefrl.segments import Segment
from prefrl.spaces import to_arrays
from prefrl.store import PreferenceStore

pytestmark = pytest.mark.lowest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "preferences.sqlite"


@pytest.fixture
def store(where: Path | str) -> Iterator[PreferenceStore]:
    with PreferenceStore(where) as opened:
        yield opened


def segment(number: int, k: int = 4, **where: Any) -> Segment:
    rng = np.random.default_rng(number)
    return Segment(
        observations=rng.normal(size=(k + 1, 3)),
        actions=rng.normal(size=(k, 2)).astype(np.float32),
        true_rewards=rng.normal(size=k),
        **where,
    )


def query(number: int, session: int = 0, num_env_steps: int = 0) -> Query:
    return Query(segments=(segment(2 * number), segment(2 * number + 1)), session=session, num_env_steps=num_env_steps)


def answer(asked: Query, preference: float | None = 1.0, annotator: str = "anna") -> Comparison:
    return Comparison(query_id=asked.id, preference=preference, annotator=annotator, seconds=1.5)


def assert_same(one: Segment, two: Segment) -> None:
    ours, theirs = ({**to_arrays("observations", s.observations), "actions": s.actions} for s in (one, two))
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name].dtype == theirs[name].dtype
        np.testing.assert_array_equal(ours[name], theirs[name])
    np.testing.assert_array_equal(one.true_rewards, two.true_rewards)
    assert two.true_rewards.dtype == np.float64
    assert (one.id, one.terminated, one.truncated, one.episode, one.start) == (
        two.id,
        two.terminated,
        two.truncated,
        two.episode,
        two.start,
    )


# what goes in comes out


def test_queries_come_back_whole_and_in_order(store: PreferenceStore) -> None:
    asked = [query(n, session=3, num_env_steps=n * 10) for n in (5, 1, 4, 2)]
    store.add_queries(asked)
    back = store.session_queries(3)
    assert [q.id for q in back] == [q.id for q in asked]
    assert [(q.session, q.num_env_steps) for q in back] == [(3, 50), (3, 10), (3, 40), (3, 20)]
    for one, two in zip(asked, back, strict=True):
        for ours, theirs in zip(one.segments, two.segments, strict=True):
            assert_same(ours, theirs)
    assert store.session_queries(0) == []


def test_where_a_segment_came_from_is_kept(store: PreferenceStore) -> None:
    pair = (segment(0, terminated=True, episode=7, start=12), segment(1, truncated=True))
    store.add_queries([Query(segments=pair)])
    for ours, theirs in zip(pair, store.session_queries(0)[0].segments, strict=True):
        assert_same(ours, theirs)


def test_true_rewards_that_are_not_numbers_come_back_as_they_were(store: PreferenceStore) -> None:
    odd = np.array([np.nan, np.inf, -np.inf, -0.0])
    pair = tuple(
        Segment(observations=s.observations, actions=s.actions, true_rewards=odd) for s in (segment(0), segment(1))
    )
    store.add_queries([Query(segments=(pair[0], pair[1]))])
    for back in store.session_queries(0)[0].segments:
        np.testing.assert_array_equal(back.true_rewards, odd)
        assert np.signbit(back.true_rewards[3])


_DTYPES = st.sampled_from([np.float32, np.float64, np.uint8, np.int64])


@given(data=st.data(), k=st.integers(1, 4), as_dict=st.booleans())
@settings(max_examples=30, deadline=None)
def test_observations_of_every_kind_come_back_exactly(
    data: st.DataObject, k: int, as_dict: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def values(rows: int) -> np.ndarray[Any, Any]:
        shape = (rows, *data.draw(hnp.array_shapes(min_dims=0, max_dims=3, max_side=3)))
        return data.draw(hnp.arrays(data.draw(_DTYPES), shape))

    def one() -> Segment:
        observations = {"a": values(k + 1), "b c/d": values(k + 1)} if as_dict else values(k + 1)
        return Segment(observations=observations, actions=values(k), true_rewards=np.zeros(k))

    asked = Query(segments=(one(), one()))
    with PreferenceStore(tmp_path_factory.mktemp("store") / "r.sqlite") as store:
        store.add_queries([asked])
        for ours, theirs in zip(asked.segments, store.query(asked.id).segments, strict=True):
            assert_same(ours, theirs)


def test_answers_come_back_with_ascending_numbers(store: PreferenceStore) -> None:
    asked = [query(n) for n in range(4)]
    store.add_queries(asked)
    given_ = [answer(q, p) for q, p in zip(asked, (1.0, 0.0, 0.5, None), strict=True)]
    store.add_answers(given_[:2])
    store.add_answers(given_[2:])
    assert store.answers() == [(n + 1, a) for n, a in enumerate(given_)]
    assert store.answers(after=2) == [(3, given_[2]), (4, given_[3])]
    assert store.answers(after=4) == []


def test_answers_can_be_limited_to_the_first_sessions(store: PreferenceStore) -> None:
    asked = [query(n, session=n) for n in range(3)]
    store.add_queries(asked)
    store.add_answers([answer(q) for q in reversed(asked)])
    assert [c.query_id for _, c in store.answers(up_to_session=1)] == [asked[1].id, asked[0].id]
    assert [n for n, _ in store.answers(after=2, up_to_session=1)] == [3]


def test_a_query_is_open_until_somebody_answers_it_even_with_cannot_tell(store: PreferenceStore) -> None:
    late, early, other = query(0, session=2), query(1, session=1), query(2, session=1)
    store.add_queries([late])
    store.add_queries([early, other])
    assert [q.id for q in store.open_queries()] == [early.id, other.id, late.id]
    store.add_answers([answer(other, None)])
    assert [q.id for q in store.open_queries()] == [early.id, late.id]


def test_pairs_are_known_in_either_order(store: PreferenceStore) -> None:
    asked = query(0)
    store.add_queries([asked])
    known = store.asked_pairs()
    assert len(known) == 1
    assert frozenset(s.id for s in reversed(asked.segments)) in known
    assert query(1).pair not in known


def test_a_second_answer_to_a_query_is_added_not_put_in_place_of_the_first(store: PreferenceStore) -> None:
    asked = query(0)
    store.add_queries([asked])
    store.add_answers([answer(asked, 1.0, "anna")])
    store.add_answers([answer(asked, 0.0, "ben")])
    assert [(c.annotator, c.preference) for _, c in store.answers()] == [("anna", 1.0), ("ben", 0.0)]


def test_everything_is_there_after_reopening(where: Path | str) -> None:
    asked = query(0)
    with PreferenceStore(where) as store:
        store.add_queries([asked])
        store.add_answers([answer(asked)])
    with PreferenceStore(where) as store:
        assert store.answers() == [(1, answer(asked))]
        assert store.query(asked.id).pair == asked.pair


# once and no more


def test_adding_queries_again_changes_nothing(store: PreferenceStore) -> None:
    asked = [query(n, num_env_steps=5) for n in range(3)]
    store.add_queries(asked[:2])
    store.add_queries([asked[1], asked[2], asked[2], asked[0]])
    store.add_queries(asked)
    assert [q.id for q in store.session_queries(0)] == [q.id for q in asked]


def count(store: PreferenceStore, table: str) -> int:
    with store._database.engine.connect() as connection:
        return int(connection.exec_driver_sql(f"select count(*) from {table}").scalar_one())


def test_what_is_read_together_is_one_transaction_up_to_what_is_written(where: Path | str) -> None:
    with PreferenceStore(where) as store, PreferenceStore(where) as other:
        store.add_queries([query(0), query(1)])
        engine, began = store._database.engine, []
        sa.event.listen(engine, "begin", began.append)
        with store.reading_together():
            assert (store.num_answers(), store.num_open()) == (0, 2)
            with store.reading_together():
                assert store.num_answers("anna") == 0
            assert len(began) == 1
            other.add_answers([answer(query(0))])  # a transaction that reads keeps nobody from writing
            store.add_answers([answer(query(1))])
            assert store.num_answers() == 2, "what was written before is not seen"
        assert store.num_answers() == 2
        assert len(began) == 4
        with store.reading_together():
            assert store.num_answers() == 2
            with pytest.raises(UserError, match="no query"):
                store.add_answers([answer(query(7))])
        assert store.num_answers() == 2
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def test_a_segment_of_several_queries_is_stored_once(store: PreferenceStore) -> None:
    a, b, c = (segment(n) for n in range(3))
    store.add_queries([Query(segments=(a, b)), Query(segments=(b, c))])
    store.add_queries([Query(segments=(a, b), session=1), Query(segments=(c, a))])
    assert count(store, "segments") == 3
    assert count(store, "queries") == 4
    assert len(store.asked_pairs()) == 3


def test_images_of_a_stack_are_stored_once(path: Path) -> None:
    k, size = 25, 84
    images = np.random.default_rng(0).integers(0, 256, (k + 4, size, size), np.uint8)  # noise: cannot be compressed
    stacks = np.stack([images[t : t + 4] for t in range(k + 1)])
    pair = (
        Segment(observations=stacks, actions=np.zeros(k, np.int64), true_rewards=np.zeros(k)),
        Segment(observations=np.flip(stacks, 3), actions=np.zeros(k, np.int64), true_rewards=np.zeros(k)),
    )
    PreferenceStore(path).close()
    empty = path.stat().st_size
    with PreferenceStore(path) as store:
        store.add_queries([Query(segments=pair)])
        for ours, theirs in zip(pair, store.session_queries(0)[0].segments, strict=True):
            assert_same(ours, theirs)
    assert path.stat().st_size - empty < 1.1 * 2 * images.nbytes  # four times as much if whole stacks were kept


@pytest.mark.slow
def test_ten_thousand_comparisons_fit_through_in_parts(store: PreferenceStore) -> None:
    pool = [segment(n, k=2) for n in range(150)]
    pairs = [(a, b) for i, a in enumerate(pool) for b in pool[:i]][:10_000]
    asked = [Query(segments=pair, session=n // 100) for n, pair in enumerate(pairs)]
    store.add_queries(asked)
    store.add_answers([answer(q, float(n % 2)) for n, q in enumerate(asked)])
    assert [c.query_id for _, c in store.answers()] == [q.id for q in asked]
    assert len(store.asked_pairs()) == 10_000
    assert store.open_queries() == []
    assert [q.id for q in store.session_queries(99)] == [q.id for q in asked[9_900:]]


# what is refused, and what it leaves behind


def test_an_answer_to_an_unknown_query_is_refused_with_all_that_came_with_it(store: PreferenceStore) -> None:
    asked = query(0)
    store.add_queries([asked])
    with pytest.raises(UserError, match="holds no query"):
        store.add_answers([answer(asked), answer(query(1))])
    assert store.answers() == []
    with pytest.raises(UserError, match="holds no query 'nothing'"):
        store.query("nothing")


@pytest.mark.parametrize(("name", "value"), [
    ("held_out_agreement", 0), ("held_out_agreement", {"num": 3}), ("labels_wanted", "many"), ("seen_at", None),
    ("steadiness", []), ("examples", {"query": "q"}), ("examples", [{"query": "q", "item": 1.5}]), ("viewer anna", 3),
    ("left anna", {"at": 1.0}), ("num_env_steps", 10**30), ("training_state", True),
])  # fmt: skip
def test_what_a_run_cannot_have_told_is_damage(tmp_path: Path, name: str, value: Any) -> None:
    with PreferenceStore(tmp_path / "record.sqlite") as store:
        store.set_facts({"something of a newer version": 3, "held_out_agreement": None, "labels_wanted": 5})
        assert store.facts()["labels_wanted"] == 5
        store.set_facts({name: value})
        with pytest.raises(UserError, match=f"is damaged: what it says of '{name}' is .* Restore it from a copy"):
            store.facts()

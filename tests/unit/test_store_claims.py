"""Open queries in the record: claims, leases, overlap, repeats, undo; rankings, ratings and texts; clips and facts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefrl.errors import UserError
from prefrl.feedback import Answer, Comparison, Edit, Query, Ranking, Rating, Response, Undo
from prefrl.segments import Segment
from prefrl.store import Claim, Clip, PreferenceStore

Opener = Callable[[], PreferenceStore]


@pytest.fixture
def store(where: Path | str) -> Iterator[PreferenceStore]:
    with PreferenceStore(where, rng=np.random.default_rng(0)) as opened:
        yield opened


def segment(number: int, **where: Any) -> Segment:
    rng = np.random.default_rng(number)
    return Segment(
        observations=rng.normal(size=(3, 2)), actions=rng.normal(size=(2, 1)), true_rewards=np.ones(2), **where
    )


def query(number: int, **given: Any) -> Query:
    return Query(segments=(segment(2 * number), segment(2 * number + 1)), **given)


def reply(claim: Claim, preference: float | None = 1.0, **given: Any) -> Comparison:
    return Comparison(
        query_id=claim.query.id,
        preference=preference,
        annotator=claim.annotator,
        shown=claim.shown,
        claim=claim.token,
        **given,
    )


class Clock:
    """Moves the time that leases go by."""

    def __init__(self, store: PreferenceStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        now = store._database.now
        monkeypatch.setattr(store._database, "now", lambda connection: now(connection) + self.ahead)


# who is given what


def test_a_claimed_query_is_given_to_nobody_else_until_it_is_given_back(store: PreferenceStore) -> None:
    store.add_queries([query(n) for n in range(3)])
    first, second = store.claim("anna", 2)
    assert [first.query.id, second.query.id] == [query(0).id, query(1).id]
    (third,) = store.claim("ben", 5)
    assert third.query.id == query(2).id
    assert store.claim("ben") == [] and store.claim("anna") == []
    assert (store.num_open(), store.num_open("ben")) == (3, 0)
    store.release([first])
    (again,) = store.claim("ben")
    assert again.query.id == first.query.id


def test_the_same_name_in_two_windows_is_never_given_one_query_twice(store: PreferenceStore) -> None:
    store.add_queries([query(0), query(1)])
    names = [claim.query.id for _ in range(3) for claim in store.claim("anna")]
    assert names == [query(0).id, query(1).id]


def test_a_query_comes_back_when_the_lease_ends(store: PreferenceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(store, monkeypatch)
    store.add_queries([query(0)])
    (lost,) = store.claim("anna", lease_seconds=60)
    clock.ahead = 59
    assert store.claim("ben") == []
    assert store.renew(lost, 60)
    clock.ahead = 118
    assert store.claim("ben") == []
    clock.ahead = 120
    (taken,) = store.claim("ben")
    assert not store.renew(lost)  # ben has it
    store.release([taken])
    assert store.renew(lost)  # free again
    assert store.claim("ben") == []


def test_an_answer_that_comes_too_late_is_kept(store: PreferenceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(store, monkeypatch)
    store.add_queries([query(0)])
    (slow,) = store.claim("anna", lease_seconds=60)
    clock.ahead = 61
    (quick,) = store.claim("ben")
    store.add_answers([reply(quick)])
    store.add_answers([reply(slow, 0.0)])
    assert [(a.annotator, a.preference) for _, a in store.answers() if isinstance(a, Comparison)] == [
        ("ben", 1.0),
        ("anna", 0.0),
    ]
    assert store.num_open() == 0


def test_an_answer_ends_the_claim_and_is_recorded_once(store: PreferenceStore) -> None:
    store.add_queries([query(0)])
    (claim,) = store.claim("anna")
    rows = store.add_answers([reply(claim, shown_at=100.25, answered_at=103.5, seconds=3.25, comment="wobbles")])
    assert store.add_answers([reply(claim)]) == rows  # sent again, because the line broke before the receipt came
    ((row, back),) = store.answers()
    assert (row, back) == (rows[0], reply(claim, shown_at=100.25, answered_at=103.5, seconds=3.25, comment="wobbles"))
    assert back.claim == claim.token
    assert store.claim("ben") == []


def test_a_query_wants_answers_of_as_many_annotators_as_it_says(store: PreferenceStore) -> None:
    store.add_queries([query(0, overlap=2)])
    (anna,) = store.claim("anna")
    (ben,) = store.claim("ben")
    assert store.claim("carl") == []
    store.add_answers([reply(anna)])
    assert store.claim("anna") == [] and store.claim("carl") == []
    store.release([ben])
    assert store.num_open() == 1
    (carl,) = store.claim("carl")
    store.add_answers([reply(carl, None)])
    assert store.num_open() == 0
    store.add_answers([Comparison(query_id=query(0).id, preference=0.0, annotator="dora")])
    assert store.num_answers() == 3 and store.num_answers("anna") == 1


def test_two_answers_of_one_annotator_are_one_of_those_wanted(store: PreferenceStore) -> None:
    store.add_queries([query(0, overlap=2)])
    for _ in range(2):
        store.add_answers([Comparison(query_id=query(0).id, preference=0.0, annotator="anna")])
    assert store.num_open() == 1


def test_sides_are_shown_either_way_about_as_often(store: PreferenceStore) -> None:
    store.add_queries([query(n) for n in range(60)])
    swapped = sum(claim.shown == (1, 0) for claim in store.claim("anna", 60))
    assert 15 < swapped < 45  # 4 standard deviations


def test_only_those_kinds_are_given_that_can_be_answered(store: PreferenceStore) -> None:
    store.add_queries([query(0), Query(kind="rating", scale=5, segments=(segment(9),))])
    (claim,) = store.claim("anna", 5, kinds=("rating",))
    assert (claim.query.kind, claim.query.scale, claim.shown) == ("rating", 5, (0,))


def test_bad_requests_are_refused(store: PreferenceStore) -> None:
    with pytest.raises(UserError, match="lease_seconds must be positive"):
        store.claim("anna", lease_seconds=0)
    with pytest.raises(UserError, match="repeat_share must be in"):
        store.claim("anna", repeat_share=1)
    with pytest.raises(UserError, match="kind of an annotator"):
        store.add_annotator("anna", "cat")


# taking back


def test_an_answer_taken_back_opens_its_query_for_the_same_annotator(store: PreferenceStore) -> None:
    store.add_queries([query(0), query(1)])
    (claim,) = store.claim("anna")
    (row,) = store.add_answers([reply(claim)])
    again = store.undo(row, "anna")
    assert (again.query, again.shown) == (claim.query, claim.shown)
    assert [c.query.id for c in store.claim("ben", 5)] == [query(1).id]
    store.add_answers([reply(again, 0.0)])
    assert [type(a) for _, a in store.answers()] == [Comparison, Undo, Comparison]
    assert [a.preference for _, a in store.answers(standing=True) if isinstance(a, Comparison)] == [0.0]
    assert store.num_answers() == 1 and store.num_open() == 1


def test_an_answer_is_taken_back_once_and_only_by_who_gave_it(store: PreferenceStore) -> None:
    store.add_queries([query(0)])
    (claim,) = store.claim("anna")
    (row,) = store.add_answers([reply(claim)])
    for wrong, name in ((row, "ben"), (row + 7, "anna")):
        with pytest.raises(UserError, match="no answer"):
            store.undo(wrong, name)
    store.undo(row, "anna")
    for again in (row, row + 1):
        with pytest.raises(UserError, match="no answer"):
            store.undo(again, "anna")
    assert len(store.answers()) == 2


# asking again


@pytest.mark.slow
def test_what_is_asked_again_is_the_annotators_own_with_sides_swapped_and_known_as_such(
    store: PreferenceStore,
) -> None:
    store.add_queries([query(n, session=n // 20, instruction="run") for n in range(60)])
    first: dict[str, tuple[int, ...]] = {}
    repeats = []
    while claims := store.claim("anna", repeat_share=0.5):
        (claim,) = claims
        if claim.query.repeat_of is None:
            first[claim.query.id] = claim.shown
        else:
            assert claim.shown == first[claim.query.repeat_of][::-1]
            assert claim.query.repeat_of not in repeats
            assert claim.query.repeat_of not in list(first)[-5:]
            assert claim.query.instruction == "run"
            repeats.append(claim.query.repeat_of)
        store.add_answers([reply(claim)])
    assert len(first) == 60 and 20 < len(repeats) <= 55
    assert store.claim("ben") == []  # anna's repeats are not for him
    assert len(store.answers(repeats=False)) == 60 and store.num_answers() == 60 + len(repeats)
    assert sum(len(store.session_queries(n)) for n in range(3)) == 60
    assert store.open_queries() == []
    assert len(store.asked_pairs()) == 60


def test_two_annotators_may_be_asked_the_same_comparison_again(store: PreferenceStore) -> None:
    store.add_queries([query(n, overlap=2) for n in range(12)])
    repeated: dict[str, set[str]] = {"anna": set(), "ben": set()}
    for name, seen in repeated.items():
        while claims := store.claim(name, repeat_share=0.9):
            seen |= {c.query.repeat_of for c in claims if c.query.repeat_of}
            store.add_answers([reply(c) for c in claims])
    assert repeated["anna"] & repeated["ben"]


def test_a_repeat_given_back_comes_again_swapped(store: PreferenceStore) -> None:
    store.add_queries([query(n) for n in range(9)])
    for claim in store.claim("anna", 8, repeat_share=0):
        store.add_answers([reply(claim)])
    first = {a.query_id: a.shown for _, a in store.answers()}
    while not (held := store.claim("anna", repeat_share=0.9))[0].query.repeat_of:
        store.release(held)
    store.release(held)
    claims = store.claim("anna", 5, repeat_share=0)
    (again,) = [claim for claim in claims if claim.query.repeat_of]
    shown = first[str(again.query.repeat_of)]
    assert shown is not None and again.shown == shown[::-1]


# rankings, ratings, texts


def test_rankings_ratings_and_texts_come_back_with_their_answers(store: PreferenceStore) -> None:
    ranking = Query(kind="ranking", segments=tuple(segment(n) for n in range(4)), instruction="jump")
    rating = Query(kind="rating", scale=5, segments=(segment(1),))
    responses = tuple(Response(prompt="Où est ma commande ?", text=text) for text in ("Ici.", "Là 🚚", "Ici."))
    text = Query(kind="ranking", responses=responses)
    pair = Query(responses=responses[:2])
    store.add_queries([ranking, rating, text, pair])
    for asked in (ranking, rating, text, pair):
        back = store.query(asked.id)
        assert (back.id, back.kind, back.scale, back.instruction) == (
            asked.id,
            asked.kind,
            asked.scale,
            asked.instruction,
        )
        assert back.responses == asked.responses
        assert [item.id for item in back.items] == [item.id for item in asked.items]
        (card,) = store.cards([asked.id])
        assert (card.responses, card.num_items) == (asked.responses, len(asked.items))
    given: list[Answer] = [
        Ranking(query_id=ranking.id, ranks=(1, 2, 2, 3), annotator="anna", shown=(3, 1, 0, 2)),
        Rating(query_id=rating.id, rating=4, annotator="anna"),
        Ranking(query_id=text.id, ranks=None, annotator="anna"),
        Comparison(query_id=pair.id, preference=0.5, annotator="anna", comment="both rude"),
    ]
    rows = store.add_answers(given)
    edit = Edit(query_id=pair.id, item=1, text="Là, monsieur.", annotator="anna")
    store.add_answers([edit])
    assert [a for _, a in store.answers()] == [*given, edit]
    assert store.num_answers() == 4 and store.num_open() == 0
    store.undo(rows[0], "anna")
    assert [a for _, a in store.answers(standing=True)] == [*given[1:], edit]


def test_an_edit_leaves_its_query_open(store: PreferenceStore) -> None:
    asked = Query(responses=(Response(prompt="p", text="a"), Response(prompt="p", text="b")))
    store.add_queries([asked])
    store.add_answers([Edit(query_id=asked.id, item=0, text="c", annotator="anna")])
    assert [q.id for q in store.open_queries()] == [asked.id]


def test_an_answer_that_does_not_fit_its_query_is_refused(store: PreferenceStore) -> None:
    ranking = Query(kind="ranking", segments=tuple(segment(n) for n in range(4)))
    rating = Query(kind="rating", scale=5, segments=(segment(1),))
    store.add_queries([ranking, rating, query(0)])
    wrong: list[tuple[Answer, str]] = [
        (Comparison(query_id=ranking.id, preference=1.0, annotator="a"), "asks for a ranking; got a comparison"),
        (Ranking(query_id=ranking.id, ranks=(1, 2, 3), annotator="a"), "asks to rank 4; got 3"),
        (Rating(query_id=rating.id, rating=6, annotator="a"), "grade of 1 to 5. Received 6"),
        (Edit(query_id=query(0).id, item=0, text="", annotator="a"), "one of the 0 responses"),
    ]
    for answer, message in wrong:
        with pytest.raises(UserError, match=message):
            store.add_answers([Comparison(query_id=query(0).id, preference=1.0, annotator="a"), answer])
    assert store.answers() == []


# clips, replays, facts, annotators


def clip(number: int) -> Clip:
    return Clip(data=bytes([number]) * 50, format="mp4", frames_per_second=20.0, width=8, height=6, num_frames=3)


def test_a_clip_is_drawn_by_one_and_kept_once(store: PreferenceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(store, monkeypatch)
    pairs = [query(0), Query(segments=(segment(1), segment(2)))]
    store.add_queries(pairs)
    names = [segment(n).id for n in range(3)]
    assert store.claim_renders(2, lease_seconds=60) == names[:2]
    assert store.claim_renders(5) == names[2:]
    assert store.claim("anna", with_clips=True) == []
    store.add_clip(names[0], clip(0))
    store.add_clip(names[0], clip(7))
    assert store.claim_renders(5) == []
    clock.ahead = 61
    assert store.claim_renders(5, lease_seconds=60) == names[1:2]  # whoever had it died
    store.add_clip(names[1], clip(1))
    (claim,) = store.claim("anna", 5, with_clips=True)
    assert claim.query.segment_ids == (names[0], names[1])
    assert store.clips([*names, "nothing"]) == {names[0]: clip(0), names[1]: clip(1)}


def test_what_cannot_be_drawn_is_told_and_not_tried_again_until_asked(store: PreferenceStore) -> None:
    store.add_queries([query(0)])
    name = store.claim_renders(1)[0]
    store.note_render_failure(name, "no mujoco here")
    assert store.render_failures([name, segment(1).id]) == {name: "no mujoco here"}
    assert store.claim_renders(5) == [segment(1).id]
    store.forget_render_failures()
    assert store.claim_renders(5) == [name]
    assert store.render_failures([name]) == {}


def test_nothing_is_drawn_for_queries_that_are_answered(store: PreferenceStore) -> None:
    store.add_queries([query(0)])
    store.add_answers([Comparison(query_id=query(0).id, preference=1.0, annotator="a")])
    assert store.claim_renders(5) == []


def test_what_is_needed_to_draw_a_segment_comes_back_when_asked_for(store: PreferenceStore) -> None:
    states = {"qpos": np.arange(6.0).reshape(3, 2), "frames": np.zeros((3, 4, 4, 3), np.uint8)}
    pair = segment(0, replay=states), segment(1)
    assert pair[0].id == segment(0).id
    store.add_queries([Query(segments=pair)])
    names = [s.id for s in pair]
    assert store.segments(names)[names[0]].replay is None
    back = store.segments(names, replay=True)
    assert back[names[1]].replay is None
    found = back[names[0]].replay
    assert found is not None and found.keys() == states.keys()
    for name, values in states.items():
        np.testing.assert_array_equal(found[name], values)


def test_facts_and_annotators_are_told(store: PreferenceStore) -> None:
    store.set_facts({"labels": 300, "env": "Hopper-v5", "agreement": None})
    store.set_facts({"labels": 301})
    assert store.facts() == {"labels": 301, "env": "Hopper-v5", "agreement": None}
    store.add_annotator("anna", "person")
    store.add_queries([query(0)])
    for name in ("anna", "oracle"):
        store.add_answers([Comparison(query_id=query(0).id, preference=1.0, annotator=name)])
    store.add_annotator("oracle", "teacher")
    assert store.annotators() == {"anna": "person", "oracle": "teacher"}

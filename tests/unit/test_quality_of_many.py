"""What is measured of the answers of a record, found in one pass, is what it is defined to be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from prefrl.feedback import Answer, Comparison, Query, Ranking, Rating, Strength
from prefrl.feedback.queries import JUDGING_SESSION, AskedPairs
from prefrl.quality import AnnotatorQuality, Unit, krippendorff_alpha, measure_quality
from prefrl.segments import Segment
from prefrl.shares import share_of
from prefrl.store import PreferenceStore

NAMES = ("anna", "ben", "carla", "teacher")


def fill(store: PreferenceStore, rng: np.random.Generator) -> None:
    """Add questions of every kind, some asked again or of judging, answered by several, now and then taken back."""

    def some(num: int) -> tuple[Segment, ...]:
        walks = rng.normal(size=(num, 4, 2))
        return tuple(Segment(observations=w, actions=w[1:], true_rewards=np.ones(3)) for w in walks)

    for name in NAMES[:3]:
        store.add_annotator(name, "person")
    asked = [Query(segments=some(2), session=n, overlap=2) for n in range(40)]
    asked += [Query(kind="ranking", segments=some(3), session=n) for n in range(10)]
    asked += [Query(kind="rating", segments=some(1), session=n, scale=5) for n in range(10)]
    asked += [Query(kind="strength", segments=some(2), session=n, scale=Strength.fixed_scale) for n in range(5)]
    asked += [Query(segments=some(2), session=JUDGING_SESSION)]
    asked += [
        Query(segments=first.segments, session=first.session, repeat_of=first.id, reserved_for=name)
        for first in asked[:15]
        for name in NAMES[:2]
    ]
    store.add_queries(asked)
    for query in asked:
        for name in NAMES if query.reserved_for is None else [query.reserved_for]:
            if rng.random() < 0.6:
                order = tuple(int(n) for n in rng.permutation(len(query.segments)))
                common = {"annotator": name, "query_id": query.id, "seconds": float(rng.gamma(2)), "shown": order}
                said: Answer
                if query.kind == "ranking":
                    said = Ranking(ranks=tuple(int(n) + 1 for n in rng.permutation(3)), **common)
                elif query.kind == "rating":
                    said = Rating(rating=int(rng.integers(1, 6)), **common)
                elif query.kind == "strength":
                    said = Strength.from_json(int(rng.integers(1, 4)), **common)
                else:
                    said = Comparison(preference=[0.0, 1.0, 0.5, None][int(rng.integers(4))], **common)
                (row,) = store.add_answers([said])
                if rng.random() < 0.1:
                    store.undo(row, name)


def preferred(answer: Answer) -> float | None:
    said = answer.pairs(2)
    return said[0][2] if isinstance(answer, Comparison | Strength) and said else None


def plain(store: PreferenceStore, name: str, answers: Sequence[Answer]) -> AnnotatorQuality:
    """Return what one annotator's answers look like, by looking at every answer for every figure."""
    again = {query.id: query.repeat_of for query in store.queries(store.query_ids())}
    mine = [a for a in answers if a.annotator == name]
    said = {a.query_id: preferred(a) for a in mine if isinstance(a, Comparison | Strength)}
    pairs = [(said.get(again[one] or ""), what) for one, what in said.items()]
    left = [preferred(a) == float(a.shown[0] == 0) for a in mine if a.shown and preferred(a) in (0.0, 1.0)]
    judged = [(a, pair) for a in answers if again[a.query_id] is None for pair in a.pairs(len(a.shown or ()))]
    by_pair: dict[object, Unit] = {}
    for answer, (i, j, what) in judged:
        by_pair.setdefault((answer.query_id, i, j), {})[answer.annotator] = what
    same = [unit[name] == unit[other] for unit in by_pair.values() for other in unit if name in unit and other != name]
    seconds = [a.seconds for a in mine]
    return AnnotatorQuality(
        name=name,
        kind=store.annotators()[name],
        num_answers=len(mine),
        num_ties=sum(preferred(a) == 0.5 for a in mine),
        num_cannot_tell=sum(a.value is None for a in mine),
        consistency=share_of([a == b for a, b in pairs if a is not None and b is not None]),
        chose_left=share_of(left),
        agreement=share_of(same),
        median_seconds=float(np.median(seconds)),
        total_seconds=float(sum(seconds)),
        too_fast=share_of([one < 0.5 for one in seconds]) if name in NAMES[:3] else None,
        gold=None,
        regular=(),
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_quality_is_that_of_looking_at_every_answer_for_every_figure(seed: int, tmp_path: Path) -> None:
    with PreferenceStore(tmp_path / "r.sqlite", rng=np.random.default_rng(0)) as store:
        fill(store, np.random.default_rng(seed))
        standing = store.answers(standing=True)
        answers = [a for _, a in standing if isinstance(a, Answer)]
        found = measure_quality(store)
        assert found == measure_quality(store, standing)
        assert [one.name for one in found.annotators] == sorted(NAMES)
        for one in found.annotators:
            assert one == plain(store, one.name, answers)
            assert found.seconds[one.name] == tuple(a.seconds for a in answers if a.annotator == one.name)
        units: dict[object, Unit] = {}
        again = store.asked_again()
        for answer in answers:
            for i, j, what in answer.pairs(len(answer.shown or ())):
                if again.get(answer.query_id) is None:
                    units.setdefault((answer.query_id, i, j), {})[answer.annotator] = what
        assert found.alpha_comparisons == krippendorff_alpha(units.values(), "nominal")
        store.check()


@pytest.mark.slow
def test_what_was_asked_is_known_again_whichever_came_first(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = [bytes(rng.integers(0, 256, 16, np.uint8)).hex() for _ in range(200)]
    asked, plainly = AskedPairs(), set()
    for first, second in rng.integers(0, 200, (1000, 2)):
        asked.add((names[first], names[second]))
        plainly.add(frozenset((names[first], names[second])))
    assert len(asked) == len(plainly)
    every = [frozenset((a, b)) for a in names for b in names]
    assert [pair in asked for pair in every] == [pair in plainly for pair in every]

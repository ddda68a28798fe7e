"""Quality of answers: by hand, against scikit-learn, and for annotators whose faults are known."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from prefrl.feedback import Comparison, Query, Ranking, Rating
from prefrl.quality import Unit, krippendorff_alpha, measure_quality
from prefrl.segments import Segment
from prefrl.shares import share_of
from prefrl.store import PreferenceStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PreferenceStore]:
    with PreferenceStore(tmp_path / "r.sqlite", rng=np.random.default_rng(0)) as opened:
        yield opened


def query(number: int, num: int = 2, **given: object) -> Query:
    rng = np.random.default_rng([number, num])

    def one() -> Segment:
        return Segment(observations=rng.normal(size=(2, 1)), actions=rng.normal(size=(1, 1)), true_rewards=np.ones(1))

    return Query(segments=tuple(one() for _ in range(num)), **given)  # type: ignore[arg-type]


def test_shares_come_with_wilsons_interval() -> None:
    share = share_of([True] * 8 + [False] * 2)
    assert share is not None
    z, n, p = 1.959964, 10, 0.8
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    expected = [(centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)]
    np.testing.assert_allclose([share.low, share.high], expected, atol=1e-6)
    assert (share.num, share.share) == (10, 0.8)
    assert share_of([]) is None


def test_alpha_of_two_is_nearly_cohens_kappa() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 2, 4000)
    second = np.where(rng.random(4000) < 0.3, 1 - first, first)
    alpha = krippendorff_alpha([{"a": float(x), "b": float(y)} for x, y in zip(first, second, strict=True)], "nominal")
    assert alpha == pytest.approx(cohen_kappa_score(first, second), abs=1e-3)


def test_alpha_by_hand() -> None:
    # two units, one agreed and one not: observed disagreement 1/2, expected 2 * 3 / (4 * 3 / 2) = 1/2 ... alpha 0
    units: list[Unit] = [{"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 0.0}]
    assert krippendorff_alpha(units, "nominal") == pytest.approx(0.0)
    assert krippendorff_alpha([{"a": 1.0}, {"b": 0.0}], "nominal") is None
    assert krippendorff_alpha([{"a": 1.0, "b": 1.0}], "nominal") is None


@pytest.mark.slow
def test_consistency_position_bias_agreement_and_time_are_those_of_the_annotators(store: PreferenceStore) -> None:
    rng = np.random.default_rng(0)
    store.add_queries([query(n, overlap=3) for n in range(150)])
    truth = {query(n, overlap=3).id: float(n % 2) for n in range(150)}
    for name in ("sure", "lefty", "coin"):
        store.add_annotator(name, "person")
        while claims := store.claim(name, repeat_share=0.3):
            (claim,) = claims
            right = truth[claim.query.repeat_of or claim.query.id]
            left = 1.0 if claim.shown[0] == 0 else 0.0
            preference = {"sure": right, "lefty": left, "coin": float(rng.random() < 0.5)}[name]
            seconds = {"sure": 4.0, "lefty": 1.0, "coin": 2.0}[name] + rng.random()
            answer = Comparison(
                query_id=claim.query.id, preference=preference, annotator=name, shown=claim.shown, claim=claim.token,
                seconds=seconds,
            )  # fmt: skip
            store.add_answers([answer])
    quality = measure_quality(store)
    by_name = {one.name: one for one in quality.annotators}
    sure, lefty, coin = by_name["sure"], by_name["lefty"], by_name["coin"]
    assert all(one.consistency is not None and one.consistency.num > 20 for one in by_name.values())
    assert sure.consistency is not None and sure.consistency.share == 1
    assert lefty.consistency is not None and lefty.consistency.share == 0  # sides are swapped
    assert coin.consistency is not None and 0.25 < coin.consistency.share < 0.75
    assert lefty.chose_left is not None and lefty.chose_left.share == 1 and lefty.prefers_a_side
    assert not sure.prefers_a_side and not coin.prefers_a_side
    assert sure.median_seconds is not None and 4 < sure.median_seconds < 5
    assert [(pair.first, pair.second) for pair in quality.pairs] == [
        ("coin", "lefty"), ("coin", "sure"), ("lefty", "sure"),
    ]  # fmt: skip
    assert all(pair.agreement.num == 150 for pair in quality.pairs)
    assert quality.alpha_comparisons is not None and abs(quality.alpha_comparisons) < 0.2
    assert "seconds" not in quality.to_json()


def test_rankings_are_compared_pair_by_pair_and_ratings_in_order(store: PreferenceStore) -> None:
    rankings = [query(n, 3, kind="ranking", overlap=2) for n in range(4)]
    ratings = [query(n, 1, kind="rating", scale=5, overlap=2) for n in range(4)]
    store.add_queries(rankings + ratings)
    for number, (ranking, rating) in enumerate(zip(rankings, ratings, strict=True)):
        for name, ranks, grade in (("anna", (1, 2, 3), 1 + number), ("ben", (1, 3, 2), 2 + number)):
            store.add_answers(
                [
                    Ranking(query_id=ranking.id, ranks=ranks, annotator=name),
                    Rating(query_id=rating.id, rating=grade, annotator=name),
                ]
            )
    quality = measure_quality(store)
    (pair,) = quality.pairs
    assert (pair.agreement.num, pair.agreement.share) == (12, pytest.approx(2 / 3))
    assert quality.alpha_ratings is not None and 0.5 < quality.alpha_ratings < 1


def test_what_was_taken_back_and_cannot_tell_do_not_count_as_judgements(store: PreferenceStore) -> None:
    store.add_queries([query(0), query(1)])
    (row,) = store.add_answers([Comparison(query_id=query(0).id, preference=1.0, annotator="anna")])
    store.undo(row, "anna")
    store.add_answers([Comparison(query_id=query(1).id, preference=None, annotator="anna")])
    (anna,) = measure_quality(store).annotators
    assert (anna.num_answers, anna.num_cannot_tell, anna.chose_left, anna.agreement) == (1, 1, None, None)

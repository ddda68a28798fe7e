"""Whose answers are to be looked at before they are relied on: the careless, the fast, the regular, the contrary."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from prefrl.feedback import Comparison, Query, Response
from prefrl.quality import AnnotatorQuality, measure_quality, regularities
from prefrl.shares import share_of
from prefrl.store import PreferenceStore
from prefrl.studies.run_quality import RunQuality, Surprise
from prefrl.studies.tables import show_quality
from prefrl.studies.wishes import Wishes


def test_people_who_look_are_hardly_ever_called_regular() -> None:
    rng = np.random.default_rng(0)
    called = [
        regularities(list(rng.random(200) < rng.uniform(0.35, 0.65)), list(rng.lognormal(1.0, 0.3, 200)))
        for _ in range(300)
    ]
    assert sum(map(bool, called)) <= 3


@pytest.mark.parametrize(
    ("sides", "told"),
    [
        ("L", "the same side again and again"),
        ("LR", "sides in turn"),
        ("LLR", "sides with a period of 3"),
        ("LLRR", "sides with a period of 4"),
    ],
)
def test_patterns_of_sides_are_named(sides: str, told: str) -> None:
    left = [side == "L" for side in sides * 60][:60]
    found = regularities(left, [])
    assert found == (told,) or (sides == "LLRR" and found[0].startswith("sides"))
    assert regularities(left[:19], []) == (), "too few to judge"


def test_a_pattern_broken_now_and_then_is_still_one() -> None:
    rng = np.random.default_rng(1)
    left = [bool(i % 2) ^ (rng.random() < 0.1) for i in range(80)]
    assert regularities(left, []) == ("sides in turn",)


def test_answers_like_clockwork_are_named() -> None:
    rng = np.random.default_rng(2)
    assert regularities([], list(2.0 + 0.05 * rng.normal(size=40))) == ("every 2.0 s",)
    assert regularities([], list(rng.lognormal(0.5, 0.4, 40))) == ()


@pytest.mark.slow
def test_the_careless_the_fast_and_the_contrary_are_named_and_the_honest_are_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    names = ("anna", "ben", "careless", "contrary", "fast")
    with PreferenceStore(tmp_path / "record.sqlite") as store:
        for name in ("owner", *names):
            store.add_annotator(name, "person")
        store.set_facts({"known_by": "owner"})
        for number in range(60):
            texts = tuple(Response(prompt=f"{number}", text=side) for side in "ab")
            asked, right = Query(responses=texts, overlap=9, session=number), float(rng.integers(2))
            store.add_queries([asked])
            took = float(rng.lognormal(1.0, 0.4))
            store.add_answers([Comparison(query_id=asked.id, annotator="owner", preference=right, seconds=took)])
            for name in names:
                again = Query(responses=texts, session=number, repeat_of=asked.id, reserved_for=name)
                store.add_queries([again])
                said = {"contrary": 1 - right, "careless": float(rng.integers(2))}.get(name, right)
                said = 1 - said if name in ("anna", "ben") and rng.random() < 0.1 else said
                shown = tuple(int(place) for place in rng.permutation(2))
                seconds = float(rng.lognormal(1.0, 0.4)) if name != "fast" else float(rng.uniform(0.05, 0.3))
                answer = Comparison(query_id=again.id, annotator=name, preference=said, seconds=seconds, shown=shown)
                store.add_answers([answer])
        quality = measure_quality(store)
        warned = {one.name: one.warnings for one in quality.annotators}
        assert {one["name"]: tuple(one["warnings"]) for one in quality.to_json()["annotators"]} == warned
    assert warned["anna"] == warned["ben"] == warned["owner"] == ()
    assert any(told.startswith("contradicts what is known") for told in warned["contrary"])
    assert any(told.startswith("no better than chance") for told in warned["careless"])
    assert any(told.startswith("too fast") for told in warned["fast"])


def test_the_tables_of_quality_fit_eighty_columns_and_name_questions_that_can_be_shown() -> None:
    share = share_of([True] * 80 + [False] * 20)
    assert share is not None
    people = tuple(
        AnnotatorQuality(
            name=name, kind="person", num_answers=1234, num_ties=100, num_cannot_tell=100, consistency=share,
            chose_left=share, agreement=share, median_seconds=12.3, too_fast=share, gold=None,
        )
        for name in ("anna", "prolific-60ab")
    )  # fmt: skip
    from prefrl.quality import PairQuality, Quality

    pair = PairQuality(first="anna", second="ben", agreement=share, alpha=0.7)
    quality = Quality(annotators=people, pairs=(pair,), alpha_comparisons=0.7, alpha_ratings=None, seconds={})
    surprise = Surprise(row=1234, query_id="0123456789abcdef" * 2, annotator="anna", kind="comparison", value=1.0,
                        probability=0.01)  # fmt: skip
    wishes = Wishes(p_value=0.03, groups=(("anna", "prolific-60ab"), ("ben",)), num_answers=90)
    found = RunQuality(
        quality=quality,
        reliability={"anna": 0.9, "prolific-60ab": 0.01},
        surprises=(surprise,),
        held_out_agreement=share,
        wishes=wishes,
    )
    out = io.StringIO()
    show_quality(found, Console(file=out, width=80))
    told = out.getvalue()
    assert max(map(len, told.splitlines())) <= 80 and "…" not in told
    assert told.count("80% (71-87%, 100)") == 7, told
    assert "0123456789ab " in told and "prefrl show RUN QUERY" in told
    assert "prolific-60ab" in told
    assert "seem to want different things" in told
    assert "looks random to the reward: reliability 0.01, where another has 0.90" in " ".join(told.split())
    assert ["looks random" in str(one["warnings"]) for one in found.to_json()["annotators"]] == [False, True]

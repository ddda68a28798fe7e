"""Answers looked at again and answered again, and what they have come to: in a real browser, and by the host alone."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsers import Site, answered, next_question, open_page, question, serving, until
from screens import clip_of, fill, text_query

from prefrl.feedback import Comparison, Query, Undo
from prefrl.feedback.queries import JUDGING_SESSION
from prefrl.human_ui.gallery import Wanted, find_entries
from prefrl.human_ui.outcome import advise, films_of, learned_returns, look, mark, seconds_each
from prefrl.human_ui.page.gallery import Gallery
from prefrl.human_ui.page.host import Host, Person
from prefrl.human_ui.page.reading import Refused
from prefrl.human_ui.questions import Standing
from prefrl.human_ui.sitting import Sitting
from prefrl.quality import EXPECTED, duels
from prefrl.shares import Share
from prefrl.store import PreferenceStore

ANNA, OWNER = Person(name="anna", role="annotator"), Person(name="root", role="owner")


def say(store: PreferenceStore, query_id: str, name: str, preference: float | None, **more: Any) -> int:
    given = {"seconds": 2.0, "shown": (1, 0), "answered_at": time.time(), **more}
    (row,) = store.add_answers([Comparison(query_id=query_id, annotator=name, preference=preference, **given)])
    return row


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PreferenceStore]:
    with PreferenceStore(tmp_path / "record.sqlite") as opened:
        yield opened


@pytest.fixture
def filled(store: PreferenceStore) -> tuple[PreferenceStore, list[str]]:
    """Return a record in which anna and ben have answered, and the names of its questions."""
    names = fill(store, [(0, 1), (2, 3), (4, 5), (6, 0)])
    say(store, names[0], "anna", 1.0)
    say(store, names[1], "anna", 0.5, comment="both flicker")
    say(store, names[2], "anna", 0.0, seconds=0.2)
    say(store, names[2], "ben", 1.0)
    taken = say(store, names[3], "anna", 1.0)
    store.undo(taken, "anna")
    return store, names


def rows(store: PreferenceStore, **wanted: Any) -> list[int]:
    expected = {1: 0.9, 3: 0.05, 4: 0.95}
    return [entry.row for entry in find_entries(store, Wanted(**wanted), expected)]


def test_answers_are_found_by_person_surprise_disagreement_and_what_is_odd_about_them(
    filled: tuple[PreferenceStore, list[str]],
) -> None:
    store, names = filled
    assert rows(store) == [4, 3, 2, 1], "newest first, without what was taken back"
    assert rows(store, annotator="anna") == [3, 2, 1]
    assert rows(store, order="surprise") == [3, 1, 4, 2], "a tie, which nothing expects, comes last"
    assert rows(store, order="disagreement") == [4, 3, 2, 1]
    assert rows(store, only="differs") == [4, 3]
    assert rows(store, only="tie") == [2]
    assert rows(store, only="too_fast") == [3]
    assert rows(store, only="comment") == [2]
    assert rows(store, find="2") == [2]
    assert rows(store, find=names[2][:10]) == [4, 3]
    entries = {entry.row: entry for entry in find_entries(store, Wanted(), {})}
    assert [entries[row].said for row in (1, 2, 3)] == [
        "the right one is better",  # the first, which was shown at the right
        "equally good",
        "the left one is better",
    ]
    assert (entries[3].others, entries[3].differ) == (1, 1)
    mine = find_entries(store, Wanted(annotator="anna"), {}, alone=True)
    assert [entry.others for entry in mine] == [0, 0, 0], "what others said is not hers to know"


def test_an_answer_is_given_again_in_another_session_as_an_undo_and_a_new_row(
    filled: tuple[PreferenceStore, list[str]],
) -> None:
    store, names = filled
    host = Host(store, run="a run")
    gallery = Gallery(host)
    found = gallery.find(ANNA, {})
    assert found["total"] == 3 and found["people"] == ["anna"] and found["entries"][0]["others"] is None
    with pytest.raises(Refused, match="only they can give another"):
        gallery.again(ANNA, 4)
    with pytest.raises(Refused, match="holds no answer 5 that stands"):
        gallery.again(ANNA, 5)
    again = gallery.again(ANNA, 1)["question"]
    host.answer(ANNA, again["ticket"], {"order": [[0]], "seconds": 3, "ago": 0, "seen": 1})
    undo, new = (entry for _, entry in store.answers(after=6))
    assert isinstance(undo, Undo) and undo.undoes == 1
    assert isinstance(new, Comparison) and (new.query_id, new.shown, new.preference) == (names[0], (1, 0), 0.0)
    assert gallery.find(OWNER, {"order": "disagreement", "only": "differs"})["total"] == 2
    with pytest.raises(Refused, match="Only the owner"):
        gallery.reopen(ANNA, 4)
    assert store.num_open("carl") == 0, "the last one is anna's, to be answered again"
    assert gallery.reopen(OWNER, 3) == {"annotator": "anna"}
    assert store.num_open("carl") == 0, "ben has answered it as well, and one answer was wanted"
    gallery.reopen(OWNER, 4)
    assert store.num_open("carl") == 1
    with pytest.raises(Refused, match="order must be one of newest, surprise, disagreement"):
        gallery.find(OWNER, {"order": "odd"})


def test_the_outcome_leads_with_held_out_agreement_and_tells_what_changed_since_one_left(
    store: PreferenceStore, tmp_path: Path
) -> None:
    names = fill(store, [(0, 1), (2, 3), (4, 5), (6, 0)])
    for number, name in enumerate(names):
        say(store, name, "anna", 1.0, answered_at=1000.0 + 10 * number)
    metrics = [{"num_env_steps": 100 * i, "learned_return": float(i)} for i in range(500)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, metrics)) + '\n{"num_')
    curve = learned_returns(tmp_path / "metrics.jsonl")
    assert len(curve) <= 251 and curve[-1] == (49900, 499.0)
    assert learned_returns(tmp_path / "metrics.jsonl", 200)[-1] == (49900, 499.0)
    agreement = {"num": 50, "share": 0.8, "low": 0.67, "high": 0.89}
    facts = {"held_out_agreement": agreement, "labels_wanted": 100, "num_env_steps": 49900}
    store.set_facts({**facts, "steadiness": {"same_order": 0.97, "from": 40, "to": 60}})
    sitting = Sitting("anna", run="a run", environment="", folder=tmp_path)
    sitting.begin(store)
    lines = sitting.outcome(store).lines
    assert lines[0].startswith("The learned reward agrees with 80% of the 50 answers held out of its fit")
    assert "96 answers are left: at your pace 16 minutes" in " ".join(lines)
    assert "Since you left" not in " ".join(lines)
    again = Sitting("anna", run="a run", environment="", folder=tmp_path)
    store.set_facts({"left anna": {**store.facts()["left anna"], "at": time.time() - 7200}})
    again.begin(store)
    store.set_facts({"num_env_steps": 60000, "held_out_agreement": {**agreement, "share": 0.9}})
    told = again.outcome(store)
    assert told.lines[-1] == "Since you left, 2 hours ago: 10,100 more steps of training, agreement 80% to 90%."
    assert "From 40 to 60 answers the learned reward changed the order of 3%" in told.advice
    assert told.advice.endswith("prefrl resume RUN --labels 4")
    assert store.forget("anna") and "left anna" not in store.facts()


def test_no_advice_is_given_while_answers_still_change_the_reward() -> None:
    standing = Standing(run="", environment="", answered=60, wanted=100)
    assert advise({"same_order": 0.94, "from": 40, "to": 60}, standing) == ""
    assert advise(None, standing) == ""
    assert (
        advise({"same_order": 0.99, "from": 40, "to": 60}, Standing(run="", environment="", answered=1, wanted=1)) == ""
    )
    assert seconds_each([]) is None


def test_duels_of_before_against_after_judge_and_are_no_answers_that_teach(store: PreferenceStore) -> None:
    assert duels(store) is None
    fill(store, [(0, 1)])
    old = fill(store, [(2, 3)], session=JUDGING_SESSION)
    names = fill(store, [(0, 1), (2, 3), (4, 5)], session=JUDGING_SESSION + 1)
    say(store, old[0], "anna", 1.0)
    for name, preference in zip(names, (0.0, 0.5, None), strict=True):
        say(store, name, "anna", preference)
    found = duels(store)
    assert found is not None and (found.num, found.share) == (2, 0.75), "those of the newest round"
    assert store.num_answers() == 4 and store.num_answers(teaching=True) == 0


def test_films_of_a_training_are_in_the_order_of_its_steps(tmp_path: Path) -> None:
    (tmp_path / "videos" / "steps").mkdir(parents=True)
    for name in ("000000020000", "000000005000", "notes"):
        (tmp_path / "videos" / "steps" / f"{name}.mp4").write_bytes(b"")
    assert [film.num_env_steps for film in films_of(tmp_path)] == [5000, 20000]


def test_the_same_outcome_is_told_without_a_folder(store: PreferenceStore) -> None:
    fill(store, [(0, 1)])
    share = Share(num=4, share=0.5, low=0.15, high=0.85)
    standing = Standing(run="", environment="", agreement=share, wanted=5)
    outcome = look(store, standing, "anna", None, mark(standing, ()))
    assert (outcome.curve, outcome.films, outcome.film) == ((), (), None)
    assert outcome.lines[-1] == "Since you left, a minute ago: nothing has changed."


# ------------------------------------------------------------------------------------------------ in a browser


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with PreferenceStore(tmp_path / "record.sqlite") as store:
        fill(store, [(0, 1), (2, 3), (4, 5), (6, 0)])
        store.add_queries([text_query(2, session=1)])
    (tmp_path / EXPECTED).write_text(json.dumps({"newest_row": 99, "probabilities": {"1": 0.6, "2": 0.04}}))
    (tmp_path / "videos" / "steps").mkdir(parents=True)
    for number in (1, 2):
        (tmp_path / "videos" / "steps" / f"{number:012d}.mp4").write_bytes(clip_of(number).data)
    with serving(tmp_path / "record.sqlite", folder=tmp_path) as opened:
        yield opened


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_the_gallery_shows_clips_and_an_answer_is_given_again_from_it(site: Site, browser: Any, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 780})
    page = open_page(context, site.link("anna"))
    for key in ("ArrowLeft", "ArrowRight"):
        asked = question(page)
        page.keyboard.press(key)
        next_question(page, asked)
    first = answered(site.host.store, 2)
    question(page)
    page.keyboard.press("g")
    until(page, "document.body.dataset.shown === '2'")
    page.select_option("select[name=order]", "surprise")
    until(page, "document.querySelector('.entry')?.dataset.row === '2'")
    assert "4 %" in page.inner_text(".entry")
    until(page, "[...document.querySelectorAll('.entry video')].every((video) => video.readyState >= 2)")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing lies beside the page"
    page.click(".entry button")
    until(page, "window.prefrl?.session.question")
    asked = question(page)
    page.keyboard.press("ArrowLeft")
    next_question(page, asked)
    undo, new = answered(site.host.store, 4)[2:]
    assert isinstance(undo, Undo) and undo.undoes == 2
    assert (new.query_id, new.preference) == (first[1].query_id, 1 - first[1].preference)
    question(page)
    page.keyboard.press("p")
    until(page, "document.querySelector('#outcome').open")
    until(page, "document.querySelectorAll('#outcome .strip video').length === 2")
    until(page, "[...document.querySelectorAll('#outcome video')].every((video) => video.readyState >= 2)")
    assert "You have given 2 answers" in page.inner_text("#outcome")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.keyboard.press("p")
    until(page, "!document.querySelector('#outcome').open")
    assert page.wrong == []
    context.close()


@pytest.mark.slow
def test_what_the_end_shows_is_in_the_window_of_the_same_figures_too(tmp_path: Path, browser: Any) -> None:
    with PreferenceStore(tmp_path / "record.sqlite") as store:
        fill(store, [(0, 1)])
    context = browser.new_context(viewport={"width": 390, "height": 780})
    with serving(tmp_path / "record.sqlite", folder=tmp_path) as site:
        page = open_page(context, site.link("anna"))
        page.keyboard.press("ArrowLeft")
        until(page, "document.body.dataset.screen === 'end'")
        until(page, "document.querySelector('#progress').textContent.includes('You have given 1 answer')")
        page.keyboard.press("p")
        until(page, "document.querySelector('#outcome').textContent.includes('You have given 1 answer')")
        assert page.wrong == []
        context.close()


@pytest.mark.slow
def test_the_owner_sees_everybody_and_hands_an_answer_back(site: Site, browser: Any) -> None:
    host = site.host
    name = Query(segments=host.store.open_queries()[0].segments).id
    say(host.store, name, "anna", 1.0)
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.goto(f"{site.url}gallery#{host.store.links.make('root', 'owner')}")
    until(page, "document.body.dataset.shown === '1'")
    assert "anna" in page.inner_text(".entry")
    page.click(".entry button")
    page.click(".entry button")
    until(page, "document.querySelector('.entry').textContent.startsWith('Taken back')")
    assert [type(entry) for _, entry in host.store.answers()] == [Comparison, Undo]
    context.close()

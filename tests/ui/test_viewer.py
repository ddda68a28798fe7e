"""The viewer in a real window on a virtual screen, with real key presses."""

from __future__ import annotations

import signal
import sqlite3
import time
from pathlib import Path

import numpy as np
from postgres import PostgresServer
from screens import (
    COLOURS,
    Display,
    Viewer,
    answers,
    clip_of,
    fill,
    needs_screen,
    open_display,
    press,
    segment,
    text_query,
    wait_for,
)

from prefrl.feedback import Comparison, Query, Ranking, Rating, Undo
from prefrl.human_ui.theme import PLAIN
from prefrl.store import PreferenceStore

pytestmark = needs_screen


def colour_at(display: Display, x: float, y: float) -> int:
    """Return which clip is seen at a point of the screen, by its colour."""
    picture = display.picture()
    pixel = picture[int(y * picture.shape[0]), int(x * picture.shape[1])].astype(int)
    return int(np.argmin([np.abs(pixel - colour).sum() for colour in COLOURS]))


def test_arrows_choose_what_is_seen_there_and_undo_takes_it_back(tmp_path: Path, display: Display) -> None:
    record = tmp_path / "record.sqlite"
    with PreferenceStore(record) as store:
        names = fill(store, [(0, 1), (2, 3), (4, 5), (6, 0), (1, 2)])
    viewer = Viewer(record, display, ("--name", "anna", "--size", "1000x700"))
    display.key("space")
    time.sleep(0.5)
    seen = []
    for key in ("Left", "Right"):
        seen.append((colour_at(display, 0.2, 0.35), colour_at(display, 0.75, 0.35)))
        press(display, record, key)
    press(display, record, "Up", "Down")
    given = [answer for answer in answers(record) if isinstance(answer, Comparison)]
    pairs = [(0, 1), (2, 3)]
    for (left, right), pair, answer in zip(seen, pairs, given, strict=False):
        assert {left, right} == set(pair)
        assert answer.shown == tuple(pair.index(number) for number in (left, right))
    assert [answer.preference for answer in given] == [float(seen[0][0] == 0), float(seen[1][1] == 2), 0.5, None]
    assert [answer.query_id for answer in given] == names[:4]
    assert all(answer.annotator == "anna" and answer.seconds > 0 and answer.answered_at for answer in given)
    press(display, record, "z", "BackSpace")
    assert [type(answer) for answer in answers(record)[4:]] == [Undo, Undo]
    time.sleep(0.5)
    press(display, record, "Left", "Left", "Left")
    assert sorted(answer.query_id for answer in answers(record, standing=True)) == sorted(names)
    display.key("q")
    assert "5 answers given as 'anna'" in viewer.process.communicate(timeout=20)[0]


def test_ranking_rating_and_text_by_digits(tmp_path: Path, display: Display) -> None:
    record = tmp_path / "record.sqlite"
    with PreferenceStore(record) as store:
        store.add_queries(
            [
                Query(segments=tuple(segment(number) for number in range(4)), kind="ranking"),
                Query(segments=(segment(5),), kind="rating", scale=5, session=1),
                text_query(2, session=2),
                text_query(3, session=3),
            ]
        )
        for number in (0, 1, 2, 3, 5):
            store.add_clip(segment(number).id, clip_of(number))
    viewer = Viewer(record, display, ("--name", "b"))
    display.key("space")
    time.sleep(0.4)
    for keys in (("2", "4", "Up", "1", "3"), ("4",), ("Page_Down", "Right"), ("3", "1", "2")):
        display.key(*keys[:-1])
        press(display, record, keys[-1])
    ranking, rating, text, ranked_text = answers(record)
    assert isinstance(ranking, Ranking)
    assert ranking.shown is not None
    assert ranking.ranks is not None
    assert [ranking.ranks[item] for item in ranking.shown] == [2, 1, 3, 2]
    assert isinstance(rating, Rating)
    assert rating.rating == 4
    assert isinstance(text, Comparison)
    assert text.shown is not None
    assert text.preference == float(text.shown[1] == 0)
    assert isinstance(ranked_text, Ranking)
    viewer.end()


def test_the_mouse_chooses_too(tmp_path: Path, display: Display) -> None:
    record = tmp_path / "record.sqlite"
    with PreferenceStore(record) as store:
        fill(store, [(0, 1)])
    viewer = Viewer(record, display, ("--size", "1000x700"))
    for x in (640, 840):  # past the instruction, then the right clip; the window is in the middle of the screen
        display.do("mousemove", str(x), "400", "click", "1")
        time.sleep(0.4)
    wait_for(lambda: len(answers(record)) == 1)
    (answer,) = answers(record)
    assert isinstance(answer, Comparison)
    assert answer.shown is not None
    assert answer.preference == float(answer.shown[1] == 0)
    viewer.end()


def test_two_viewers_never_answer_the_same_query(tmp_path: Path, display: Display) -> None:
    record = tmp_path / "record.sqlite"
    with PreferenceStore(record) as store:
        names = fill(store, [(i, j) for i in range(6) for j in range(i)])
    other, server = open_display(tmp_path / "second")
    try:
        viewers = [Viewer(record, display, ("--name", "a")), Viewer(record, other, ("--name", "b"))]
        for screen in (display, other):
            screen.key("space")

        def go_on() -> bool:
            for screen in (display, other):
                screen.key("Left")
            return len(answers(record)) >= len(names)

        wait_for(go_on)
        assert sorted(answer.query_id for answer in answers(record)) == sorted(names)
        assert {answer.annotator for answer in answers(record)} == {"a", "b"}
        for viewer in viewers:
            viewer.end()
    finally:
        server.terminate()


def test_a_killed_viewer_loses_nothing_and_the_next_goes_on(tmp_path: Path, display: Display) -> None:
    record = tmp_path / "record.sqlite"
    with PreferenceStore(record) as store:
        names = fill(store, [(i, j) for i in range(5) for j in range(i)])
    viewer = Viewer(record, display, ("--name", "a"))
    display.key("space")
    press(display, record, "Left", "Right")
    display.key("Left")
    viewer.end(signal.SIGKILL)
    had = len(answers(record))
    assert had in (2, 3)
    again = Viewer(record, display, ("--name", "a"))
    with PreferenceStore(record) as store:
        assert store.num_open("b") >= len(names) - had - 4, "what the killed viewer had claimed came back"
    display.key("space")
    time.sleep(0.5)
    press(display, record, "Left")
    given = [answer.query_id for answer in answers(record)]
    assert len(given) == len(set(given)) == had + 1
    assert set(given) <= set(names)
    again.end()


def test_a_clip_that_cannot_be_drawn_says_why_and_can_be_passed_over(tmp_path: Path, display: Display) -> None:
    record = tmp_path / "record.sqlite"
    with PreferenceStore(record) as store:
        fill(store, [(0, 1)], clips=False)
        store.add_clip(segment(0).id, clip_of(0))
        store.note_render_failure(segment(1).id, "its simulator is not installed here")
        store.set_facts({"render_failure": "its simulator is not installed here"})
    viewer = Viewer(record, display)
    display.key("space")
    time.sleep(3.0)
    display.key("Left")
    time.sleep(0.5)
    assert answers(record) == []
    press(display, record, "Down")
    (answer,) = answers(record)
    assert isinstance(answer, Comparison)
    assert answer.preference is None
    viewer.end()


def test_answers_to_a_record_that_is_locked_are_kept_until_it_is_free(tmp_path: Path, display: Display) -> None:
    record = tmp_path / "record.sqlite"
    with PreferenceStore(record) as store:
        fill(store, [(0, 1), (2, 3), (4, 5)])
    viewer = Viewer(record, display)
    display.key("space")
    time.sleep(1.0)
    blocking = sqlite3.connect(record, isolation_level=None)
    blocking.execute("BEGIN IMMEDIATE")  # nobody can write
    display.key("Left", "Right")
    time.sleep(0.5)
    assert answers(record) == []
    blocking.execute("ROLLBACK")
    blocking.close()
    wait_for(lambda: len(answers(record)) == 2)
    viewer.end()


def test_a_server_that_goes_away_is_told_in_the_window_which_goes_on_when_it_is_back(
    tmp_path: Path, display: Display
) -> None:
    def warned() -> bool:
        picture = display.picture()
        shown = np.abs(picture[int(0.75 * len(picture)) :].astype(int) - PLAIN.warning).sum(axis=2) < 30
        return int(shown.sum()) > 300

    with PostgresServer() as server:
        record = server.new_database("viewer")
        with PreferenceStore(record) as store:
            fill(store, [(0, 1), (2, 3), (4, 5), (6, 0)])
        viewer = Viewer(record, display)
        display.key("space")
        time.sleep(0.5)
        press(display, record, "Left")
        server.stop()
        display.key("Right", "Up")
        wait_for(warned)
        display.key("q")
        time.sleep(1.0)
        assert viewer.process.poll() is None, "it left without its answers"
        server.start()
        assert "3 answers given" in viewer.process.communicate(timeout=30)[0]
        given = answers(record)
    assert len(given) == len({answer.query_id for answer in given}) == 3


def test_closing_the_window_amid_an_answer_keeps_what_was_given(tmp_path: Path, display: Display) -> None:
    record = tmp_path / "record.sqlite"
    with PreferenceStore(record) as store:
        fill(store, [(0, 1), (2, 3), (4, 5)])
    viewer = Viewer(record, display)
    display.key("space")
    time.sleep(0.5)
    display.key("Left")
    assert "1 answers given" in viewer.end(signal.SIGTERM)
    assert len(answers(record)) == 1
    with PreferenceStore(record) as store:
        assert store.num_open("somebody else") == 2, "what was claimed was given back"

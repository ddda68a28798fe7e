"""The window's session: reasons, flags, notes, strengths, rests, closing; keys by place; letters of any script."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefrl.clips.codec import Pictures
from prefrl.control.viewer import LostViewers
from prefrl.errors import UserError
from prefrl.feedback import Query, Response
from prefrl.human_ui.actions import Action, Leave, Save, Screen
from prefrl.human_ui.examples import pin_example, read_examples
from prefrl.human_ui.keys import ANSWER_KEYS, HINTS, KEYS, name_of
from prefrl.human_ui.questions import Example, Item, Question, Standing
from prefrl.human_ui.session import Session
from prefrl.store import PreferenceStore


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def clip() -> Item:
    return Item(clip=Pictures(frames=np.zeros((10, 4, 4, 3), np.uint8), frames_per_second=10.0))


def ask(name: str, **options: Any) -> Question:
    base: dict[str, Any] = {"query_id": name, "kind": "comparison", "annotator": "anna", "items": (clip(), clip())}
    return Question(**{**base, "order": (0, 1), **options})


def begun(*questions: Question, clock: Clock | None = None, **options: Any) -> Session:
    session = Session(Standing(run="r", environment="e"), "Look.", now=clock or Clock(), **options)
    session.press(Action.CONFIRM)
    for question in questions:
        session.offer(question)
    return session


def saved(session: Session) -> list[Any]:
    return [command.answer for command in session.take_commands() if isinstance(command, Save)]


@pytest.mark.parametrize(("key", "reason"), [("a", "alike"), ("b", "broken"), ("u", "unclear")])
def test_a_reason_is_one_key_and_says_cannot_tell(key: str, reason: str) -> None:
    session = begun(ask("a"), ask("b"), must_see=1.0)
    session.press(KEYS[key])
    (answer,) = saved(session)
    assert (answer.value, answer.reason) == (None, reason)


def test_a_flag_and_a_note_go_with_the_answer_and_not_with_the_next() -> None:
    session = begun(ask("a"), ask("b"))
    session.press(Action.FLAG)
    session.press(Action.COMMENT)
    assert session.paused
    for letter in "limpsx":
        session.write(letter)
    session.write("\b")
    session.press(Action.LEFT)
    session.digit(1)
    assert session.take_commands() == [], "keys are letters while a note is written"
    session.press(Action.CONFIRM)
    session.press(Action.LEFT)
    session.press(Action.RIGHT)
    first, second = saved(session)
    assert (first.flagged, first.comment) == (True, "limps")
    assert (second.flagged, second.comment) == (False, "")


def test_escape_closes_what_lies_over_the_question_and_never_the_window() -> None:
    session = begun(ask("a"))
    for opens in (Action.HELP, Action.INSTRUCTION, Action.COMMENT):
        session.press(opens)
        session.press(KEYS["escape"])
        assert not (session.show_help or session.show_instruction or session.draft is not None)
    session.press(KEYS["escape"])
    session.tick(0.1)
    assert not any(isinstance(command, Leave) for command in session.take_commands())
    assert session.notice.startswith("Q leaves")
    session.press(KEYS["q"])
    assert session.take_commands() == [Leave()]


@pytest.mark.parametrize(
    ("order", "digit", "degree"), [((0, 1), 1, 3), ((1, 0), 1, -3), ((1, 0), 5, 1), ((0, 1), 4, 0)]
)
def test_a_digit_says_how_much_better_what_is_shown_there_is(order: Any, digit: int, degree: int) -> None:
    session = begun(ask("a", kind="strength", order=order, scale=7))
    session.digit(digit)
    assert saved(session)[0].degree == degree


def test_arrows_say_better_where_strengths_are_asked_for() -> None:
    session = begun(ask("a", kind="strength", order=(1, 0), scale=7), ask("b", kind="strength", scale=7))
    session.press(Action.LEFT)
    session.press(Action.TIE)
    assert [answer.degree for answer in saved(session)] == [-2, 0]


def test_a_rest_is_proposed_after_a_while_and_its_time_is_nobodys() -> None:
    clock = Clock()
    session = begun(ask("a"), ask("b"), ask("c"), clock=clock, break_after=60.0)
    clock.now += 61
    session.press(Action.LEFT)
    assert session.screen is Screen.BREAK
    clock.now += 300
    session.press(Action.RIGHT)
    assert session.screen is Screen.QUESTION
    clock.now += 2
    session.press(Action.RIGHT)
    assert [answer.seconds for answer in saved(session)] == [61, 2]


def test_letters_count_by_where_they_lie_on_layouts_without_latin_letters() -> None:
    cyrillic = {"р": 11, "я": 29, "ф": 4}  # noqa: RUF001  (of H, Z and A)
    assert [name_of(key, key, place) for key, place in cyrillic.items()] == ["h", "z", "a"]
    assert name_of("z", "z", 28) == "z", "a German Z is a Z wherever it lies"
    assert name_of("left", "", 80) == "left" and name_of("é", "2", 31) == "2" and name_of("é", "é", 31) == "é"


def test_every_hint_does_something_where_it_is_clicked() -> None:
    assert {action for _, action in HINTS} >= {Action.UNDO, Action.PAUSE, Action.HELP, Action.QUIT, Action.FLAG}
    assert {action for _, action in ANSWER_KEYS} == {Action.LEFT, Action.RIGHT, Action.TIE, Action.CANNOT_TELL}


# ---------------------------------------------------------------------------------------------------- drawn


@pytest.fixture(scope="module")
def pygame() -> Iterator[Any]:
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    module = pytest.importorskip("pygame")
    module.display.init()
    module.font.init()
    module.display.set_mode((1280, 800))
    return module


def test_what_is_clicked_on_below_is_done(pygame: Any) -> None:
    from prefrl.human_ui.drawing import Painter

    session, painter = begun(ask("a")), Painter()
    painter.paint(pygame.display.get_surface(), session)
    actions = [action for _, action in painter.hints]
    assert actions[:4] == [Action.LEFT, Action.RIGHT, Action.TIE, Action.CANNOT_TELL]
    boxes = [box for box, _ in painter.hints]
    assert all(box.width > 20 and box.left >= 0 and box.right <= 1280 and box.bottom <= 800 for box in boxes)
    assert not any(box.collidelistall(boxes[:n] + boxes[n + 1 :]) for n, box in enumerate(boxes))


def test_a_window_opens_large_on_a_large_screen() -> None:
    pytest.importorskip("pygame")
    from prefrl.human_ui.window import usual_size

    assert usual_size(1920, 1080) == (1280, 800)
    assert usual_size(1280, 800) == (1152, 680)
    assert usual_size(3840, 2160) == (2496, 1555)


def test_spaces_at_the_beginning_of_a_line_are_kept_and_long_words_are_broken(pygame: Any) -> None:
    from prefrl.human_ui.lettering import Lettering

    letters = Lettering()
    rows = letters.wrap("def f():\n    return 1\n" + "x" * 300, 19, 300)
    assert rows[:2] == ["def f():", "    return 1"] and "".join(rows[2:]) == "x" * 300
    assert all(letters.width(row, 19) <= 300 for row in rows)


def test_markdown_is_set_as_such(pygame: Any) -> None:
    from prefrl.human_ui.lettering import Lettering

    rows = Lettering().typeset("# Head\n\nUse **this**\n\n```\n  code\n```\n- a", None, 19, 600)
    styles = [(span, style) for row in rows for span, style in row.spans]
    assert ("this", "strong") in styles and ("  ", "code") in styles and ("code", "code") in styles
    assert rows[0].scale > 1 and any(text.startswith("•") for text, _ in styles)


def test_letters_that_no_font_has_are_noted(pygame: Any) -> None:
    from prefrl.human_ui.lettering import NO_LETTER, Lettering

    letters = Lettering()
    letters.render("Γειά σου, мир", 19, (255, 255, 255))  # noqa: RUF001
    assert letters.missing == set()
    letters.render(f"a{chr(ord(NO_LETTER) - 1)}b", 19, (255, 255, 255))
    assert len(letters.missing) == 1


def test_examples_stand_beside_the_instruction(pygame: Any, tmp_path: Path) -> None:
    from prefrl.human_ui.drawing import BAD, GOOD, Painter

    examples = [Example(item=clip(), good=True, note="runs"), Example(item=Item(text="No."), good=False)]
    session = Session(Standing(run="r", environment="e"), "Look. " * 200, examples=examples)
    surface = pygame.Surface((1280, 800))
    Painter().paint(surface, session)
    shown = {tuple(colour) for colour in pygame.surfarray.array3d(surface).reshape(-1, 3)[::7].tolist()}
    assert {GOOD, BAD} <= shown
    with PreferenceStore(tmp_path / "record.sqlite") as store:
        asked = Query(responses=tuple(Response(prompt="p", text=text) for text in ("good one", "bad one")))
        store.add_queries([asked])
        pin_example(store, asked.id, 1, False, "short")
        pin_example(store, asked.id, 0, True)
        pin_example(store, asked.id, 0, None)
        (found,) = read_examples(store)
        assert (found.item.text, found.good, found.note) == ("bad one", False, "short")
        with pytest.raises(UserError, match=r"shows no item 3"):
            pin_example(store, asked.id, 2, True)


def test_a_window_that_is_gone_is_noticed_once_and_one_that_was_left_is_not() -> None:
    watch = LostViewers()

    def facts(**seen: float | None) -> dict[str, Any]:
        return {f"viewer {name}": None if at is None else {"at": at, "window": True} for name, at in seen.items()}

    assert watch.find(facts(anna=100.0, ben=100.0), 101.0) == []
    assert watch.find(facts(anna=100.0, ben=None), 115.0) == []
    assert watch.find(facts(anna=100.0, ben=None), 125.0) == ["anna"]
    assert watch.find(facts(anna=100.0, ben=None), 130.0) == []
    assert watch.find({"viewer cleo": {"at": 100.0}}, 100.0) == watch.find({"viewer cleo": {"at": 100.0}}, 200.0) == []

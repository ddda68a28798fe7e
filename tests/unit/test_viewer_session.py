"""The session of the viewer, driven by events, without a window, a record or a clock."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from prefrl.clips.codec import Pictures
from prefrl.human_ui.actions import Action, Leave, Save, Screen, TakeBack
from prefrl.human_ui.keys import KEYS, digit_of, name_of
from prefrl.human_ui.layout import lay_out
from prefrl.human_ui.questions import Item, Question, Standing
from prefrl.human_ui.session import REST, Session


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def clip(num_frames: int = 10) -> Item:
    return Item(clip=Pictures(frames=np.zeros((num_frames, 4, 4, 3), np.uint8), frames_per_second=10.0))


def ask(name: str, **options: Any) -> Question:
    return Question(
        **{
            "query_id": name,
            "kind": "comparison",
            "annotator": "anna",
            "items": (clip(), clip()),
            "order": (0, 1),
            **options,
        }
    )


def begun(*questions: Question, clock: Clock | None = None) -> Session:
    session = Session(Standing(run="r", environment="e", wanted=10), "Look.", now=clock or Clock())
    session.press(Action.CONFIRM)
    for question in questions:
        session.offer(question)
    return session


def saved(session: Session) -> list[Any]:
    return [command.answer for command in session.take_commands() if isinstance(command, Save)]


def test_the_instruction_comes_first_and_no_key_counts_as_an_answer_there() -> None:
    session = Session(Standing(run="r", environment="e"), "Look.")
    session.offer(ask("a"))
    assert session.screen is Screen.INSTRUCTION
    session.press(Action.LEFT)
    assert session.screen is Screen.QUESTION
    assert session.take_commands() == []


@pytest.mark.parametrize(
    ("order", "action", "preference"),
    [
        ((0, 1), Action.LEFT, 1.0),
        ((0, 1), Action.RIGHT, 0.0),
        ((1, 0), Action.LEFT, 0.0),
        ((1, 0), Action.RIGHT, 1.0),
        ((1, 0), Action.TIE, 0.5),
        ((1, 0), Action.CANNOT_TELL, None),
    ],
)
def test_an_arrow_prefers_what_is_shown_on_its_side(
    order: tuple[int, int], action: Action, preference: float | None
) -> None:
    session = begun(ask("a", order=order), ask("b"))
    session.press(action)
    (answer,) = saved(session)
    assert (answer.kind, answer.query_id, answer.annotator) == ("comparison", "a", "anna")
    assert answer.preference == preference
    assert answer.shown == order
    assert session.question is not None
    assert session.question.query_id == "b"


def test_an_answer_says_when_its_question_was_shown_and_answered() -> None:
    clock = Clock()
    session = begun(ask("a"), clock=clock)
    clock.now = 1007.5
    session.press(Action.LEFT)
    (answer,) = saved(session)
    assert (answer.shown_at, answer.answered_at, answer.seconds) == (1000.0, 1007.5, 7.5)


def test_clips_loop_in_step_at_real_speed_and_rest_on_their_last_frame() -> None:
    session = begun(ask("a", items=(clip(10), clip(6))))
    frames = []
    for _ in range(28):
        frames.append(session.frame)
        session.tick(0.05)
    assert frames[:20] == [i // 2 for i in range(20)]
    assert frames[20:27] == [9] * 7
    session.tick(REST)
    assert session.frame < 9


def test_pause_single_steps_speed_and_replay() -> None:
    session = begun(ask("a"))
    session.tick(0.35)
    session.press(Action.PAUSE)
    session.tick(5.0)
    assert session.frame == 3
    session.press(Action.STEP_ON)
    assert session.frame == 4
    for _ in range(5):
        session.press(Action.STEP_BACK)
    assert session.frame == 9, "stepping goes round"
    session.press(Action.PAUSE)
    session.press(Action.REPLAY)
    assert session.frame == 0
    session.press(Action.SLOWER)
    session.tick(0.45)
    assert session.frame == 2
    for _ in range(20):
        session.press(Action.FASTER)
    assert session.speed == 4.0


def test_undo_goes_back_as_far_as_the_session_goes_and_then_says_so() -> None:
    questions = [ask(name) for name in "abcde"]
    session = begun(*questions)
    for _ in range(3):
        session.press(Action.LEFT)
    saved(session)
    for name in "cba":
        session.press(Action.UNDO)
        (command,) = session.take_commands()
        assert isinstance(command, TakeBack)
        assert command.answer.query_id == name
        assert session.question is None, "nothing can be answered before the question is back"
        session.offer(next(question for question in questions if question.query_id == name))
        assert session.question is not None
        assert session.question.query_id == name
    assert session.given == []
    session.press(Action.UNDO)
    assert session.take_commands() == []
    assert "nothing to take back" in session.notice
    order = []
    for _ in range(5):
        assert session.question is not None
        order.append(session.question.query_id)
        session.press(Action.RIGHT)
    assert order == list("abcde")


def test_answers_given_while_a_question_is_on_its_way_back_are_not_counted() -> None:
    session = begun(ask("a"), ask("b"))
    session.press(Action.LEFT)
    session.press(Action.UNDO)
    session.take_commands()
    session.press(Action.LEFT)
    assert session.take_commands() == []
    session.offer(ask("c"))
    assert session.question is None
    session.offer(ask("a"))
    assert session.question is not None
    assert session.question.query_id == "a"


def test_undo_pressed_quickly_goes_back_one_by_one() -> None:
    session = begun(ask("a"), ask("b"), ask("c"), ask("d"))
    for _ in range(3):
        session.press(Action.LEFT)
    saved(session)
    for _ in range(5):
        session.press(Action.UNDO)
    taken = []
    for _ in range(3):
        (command,) = session.take_commands()
        assert isinstance(command, TakeBack)
        taken.append(command.answer.query_id)
        session.offer(ask(taken[-1]))
    assert taken == ["c", "b", "a"]
    assert session.take_commands() == []
    assert session.question is not None
    assert session.question.query_id == "a"


def test_keys_pressed_faster_than_clips_load_are_not_counted_and_it_is_said() -> None:
    session = begun(ask("a"))
    for _ in range(5):
        session.press(Action.LEFT)
    assert len(saved(session)) == 1
    assert session.screen is Screen.WAITING
    assert "not counted" in session.notice


def test_digits_rank_from_best_to_worst_with_ties_by_place() -> None:
    session = begun(ask("a", kind="ranking", items=tuple(clip() for _ in range(4)), order=(2, 0, 3, 1)))
    session.digit(3)
    session.press(Action.TIE)
    session.digit(1)
    session.digit(1)
    assert "ranked already" in session.notice
    session.digit(9)
    assert "There are 4" in session.notice
    session.digit(4)
    session.press(Action.UNDO)
    session.digit(2)
    assert session.take_commands() == []
    session.digit(4)
    (answer,) = saved(session)
    assert answer.ranks == (2, 3, 1, 1)  # places 3 and 1 hold items 3 and 2, place 2 item 0, place 4 item 1


@given(st.permutations(range(5)), st.permutations(range(5)))
def test_ranks_are_those_of_the_items_wherever_they_are_shown(order: list[int], best_first: list[int]) -> None:
    session = begun(ask("a", kind="ranking", items=tuple(clip(1) for _ in range(5)), order=tuple(order)))
    for item in best_first:
        session.digit(order.index(item) + 1)
    (answer,) = saved(session)
    assert [answer.ranks[item] for item in best_first] == [1, 2, 3, 4, 5]


def test_digits_rate_on_the_scale() -> None:
    session = begun(ask("a", kind="rating", items=(clip(),), order=(0,), scale=5), ask("b"))
    session.digit(7)
    assert "1 to 5" in session.notice
    session.press(Action.LEFT)
    assert session.take_commands() == []
    assert session.notice == "Press a number: 1 is worst, 5 is best     DOWN can't tell"
    session.digit(4)
    (answer,) = saved(session)
    assert answer.rating == 4


def test_clicks_do_what_keys_do() -> None:
    session = begun(ask("a", order=(1, 0)), ask("b", kind="rating", items=(clip(),), order=(0,)), ask("c"))
    session.click(0)
    session.click(2)
    first, second = saved(session)
    assert first.preference == 0.0
    assert second.rating == 3


def test_what_cannot_be_shown_can_only_be_passed_over() -> None:
    session = begun(ask("a", items=(clip(), Item(problem="no renderer"))), ask("b"))
    session.press(Action.LEFT)
    assert session.take_commands() == []
    assert "cannot be shown" in session.notice
    session.press(Action.CANNOT_TELL)
    (answer,) = saved(session)
    assert answer.value is None


def test_help_and_instruction_lie_over_a_question_that_stands_still() -> None:
    session = begun(ask("a"))
    for action in (Action.HELP, Action.INSTRUCTION):
        session.press(action)
        session.tick(0.5)
        assert session.frame == 0
        session.press(Action.LEFT)
        assert session.take_commands() == []
    session.press(Action.LEFT)
    assert len(saved(session)) == 1


def test_the_end_is_told_and_can_be_undone() -> None:
    session = begun(ask("a"))
    session.press(Action.LEFT)
    session.report(finished=True)
    assert session.screen is Screen.END
    session.press(Action.UNDO)
    assert session.screen is Screen.WAITING
    session.take_commands()
    session.press(Action.QUIT)
    assert isinstance(session.take_commands()[-1], Leave)


def test_leaving_waits_for_answers_that_are_not_in_the_record_yet() -> None:
    session = begun(ask("a"), ask("b"))
    session.press(Action.LEFT)
    session.press(Action.QUIT)
    assert [type(command) for command in session.take_commands()] == [Save]
    session.unsaved = 1
    session.tick(0.1)
    assert session.take_commands() == []
    session.unsaved = 0
    session.tick(0.1)
    assert session.take_commands() == [Leave()]


def test_leaving_can_be_thought_over_or_insisted_on() -> None:
    session = begun(ask("a"))
    session.unsaved = 1
    session.press(Action.QUIT)
    session.press(Action.PAUSE)
    session.unsaved = 0
    session.tick(0.1)
    assert session.take_commands() == []
    session.unsaved = 1
    session.press(Action.QUIT)
    session.press(Action.QUIT)
    assert session.take_commands() == [Leave()]


def test_answers_per_hour() -> None:
    clock = Clock()
    session = begun(*(ask(str(i)) for i in range(5)), clock=clock)
    assert session.per_hour is None
    for _ in range(3):
        clock.now += 6.0
        session.press(Action.LEFT)
    assert session.per_hour == pytest.approx(600)


@given(st.lists(st.sampled_from([*Action, *range(1, 10)]), max_size=60), st.integers(0, 2))
def test_whatever_is_pressed_every_answer_belongs_to_a_question_that_was_shown(events: list[Any], kind: int) -> None:
    kinds = ("comparison", "ranking", "rating")
    items = tuple(clip(3) for _ in range((2, 3, 1)[kind]))
    order = tuple(range(len(items)))
    questions = {n: ask(n, kind=kinds[kind], items=items, order=order) for n in "abc"}
    session = begun(*questions.values())
    standing: list[str] = []
    for event in events:
        session.digit(event) if isinstance(event, int) else session.press(event)
        session.tick(0.1)
        for command in session.take_commands():
            if isinstance(command, Save):
                standing.append(command.answer.query_id)
            elif isinstance(command, TakeBack):
                standing.remove(command.answer.query_id)
                session.offer(questions[command.answer.query_id])
    assert len(standing) == len(set(standing)) == len(session.given)


def test_every_key_has_an_action_and_digits_are_known_on_both_pads() -> None:
    assert set(KEYS.values()) == set(Action)
    assert [digit_of(name) for name in ("1", "[7]", "0", "q", "f1")] == [1, 7, None, None, None]


def test_digits_and_signs_are_those_that_a_keyboard_writes() -> None:
    french = [name_of(*pressed) for pressed in (("&", "1"), (";", "."), ("=", "+"), (",", ","), ("left", ""))]
    assert french == ["1", ".", "+", ",", "left"]
    assert name_of("&", "&") == "&" and name_of("[5]", "5") == "5" and name_of("z", "Z") == "z"


@given(
    st.integers(640, 3840),
    st.integers(480, 2160),
    st.integers(1, 9),
    st.sampled_from([None, 0.75, 1.0, 1.5]),
    st.booleans(),
    st.booleans(),
)
def test_everything_lies_inside_the_window_and_nothing_overlaps(
    width: int, height: int, count: int, aspect: float | None, prompt: bool, instruction: bool
) -> None:
    layout = lay_out(
        width,
        height,
        count,
        aspect=aspect,
        has_prompt=prompt,
        has_instruction=instruction,
        points=5 if count == 1 else 0,
    )
    boxes = [layout.header, layout.footer, layout.progress, *layout.items, *layout.scale]
    boxes += [layout.prompt] if layout.prompt else []
    for left, top, wide, high in boxes:
        assert left >= 0
        assert top >= 0
        assert wide > 0
        assert high > 0
        assert left + wide <= width
        assert top + high <= height
    for i, (left, top, wide, high) in enumerate(boxes):
        for x, y, w, h in boxes[i + 1 :]:
            assert left + wide <= x or x + w <= left or top + high <= y or y + h <= top
    for place, (left, top, wide, high) in enumerate(layout.scale or layout.items):
        assert layout.item_at(left + wide // 2, top + high // 2) == place
    assert layout.item_at(-5, -5) is None

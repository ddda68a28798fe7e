"""The window's gallery and outcome: events given to the session, a desk on a record, and a picture of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pygame
import pytest

from prefrl.clips.codec import FILMS, Pictures, encode_clip
from prefrl.feedback import Comparison, Query, Undo
from prefrl.human_ui.actions import Action, Again, Browse, Look, Save, Screen
from prefrl.human_ui.desk import Desk
from prefrl.human_ui.drawing import Painter
from prefrl.human_ui.questions import Item, Past, Question, Result, Standing
from prefrl.human_ui.session import Session
from prefrl.segments import Segment
from prefrl.store import Clip, PreferenceStore

STANDING = Standing(run="a run", environment="Pendulum-v1", answered=3, wanted=10)


def pictures(value: int = 90) -> Pictures:
    return Pictures(frames=np.full((10, 40, 60, 3), value, np.uint8), frames_per_second=10.0)


def asked(name: str) -> Question:
    items = (Item(clip=pictures()), Item(clip=pictures(200)))
    return Question(query_id=name, kind="comparison", annotator="anna", items=items, order=(1, 0))


def past(name: str, *, index: int = 0, total: int = 3, mine: bool = True) -> Past:
    told = "anna: the left one is better  -  the learned reward gave it 4%"
    return Past(question=asked(name), row=7, told=told, index=index, total=total, mine=mine)


@pytest.fixture
def session() -> Session:
    made = Session(STANDING, "It should stand.")
    made.press(Action.CONFIRM)
    made.offer(asked("now"))
    return made


def test_answers_are_looked_through_and_one_is_given_again(session: Session) -> None:
    session.press(Action.GALLERY)
    assert session.take_commands() == [Browse(0, "newest")] and session.screen is Screen.GALLERY
    session.show_past(past("old"))
    session.tick(0.35)
    assert session.frame == 3 and session.visible is session.past.question  # type: ignore[union-attr]
    session.press(Action.RIGHT)
    session.press(Action.LEFT)
    session.press(Action.CANNOT_TELL)
    assert session.take_commands() == [Browse(1, "newest"), Browse(2, "newest"), Browse(0, "surprise")]
    assert session.given == [], "no key of these is an answer"
    session.press(Action.CONFIRM)
    assert session.take_commands() == [Again(7)]
    assert session.screen is Screen.WAITING
    session.offer(asked("old"))
    assert session.question is not None and session.question.query_id == "old"
    session.press(Action.LEFT)
    (save,) = session.take_commands()
    assert isinstance(save, Save) and save.answer.query_id == "old"
    assert session.question.query_id == "now", "what was asked before comes next"


def test_the_answers_of_others_are_theirs_and_what_is_gone_is_said(session: Session) -> None:
    session.press(Action.GALLERY)
    session.show_past(past("old", mine=False))
    session.press(Action.CONFIRM)
    assert "whoever gave an answer" in session.notice and session.screen is Screen.GALLERY
    session.press(Action.GALLERY)
    assert session.screen is Screen.QUESTION
    session.press(Action.GALLERY)
    session.show_past(past("old"))
    session.press(Action.CONFIRM)
    session.show_past(None)
    assert session.question is not None and session.question.query_id == "now"
    session.press(Action.GALLERY)
    session.show_past(None)
    assert session.screen is Screen.QUESTION and session.notice == "There is no such answer."


def test_what_the_answers_have_come_to_is_shown_on_a_key_and_at_the_end(session: Session) -> None:
    session.press(Action.OUTCOME)
    assert session.take_commands() == [Look()] and session.screen is Screen.OUTCOME
    session.report(result=Result(lines=("It agrees.",), film=pictures()))
    session.tick(0.25)
    assert session.film_frame == 2
    session.press(Action.LEFT)
    assert session.screen is Screen.QUESTION and session.given == []
    session.press(Action.LEFT)
    session.report(finished=True)
    assert session.screen is Screen.END


@pytest.fixture
def surface(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    pygame.display.init()
    pygame.font.init()
    yield pygame.display.set_mode((1000, 700))
    pygame.display.quit()


def test_gallery_and_outcome_are_drawn_in_large_and_small_windows(session: Session, surface: Any) -> None:
    strip = tuple((f"{steps:,}", pictures(steps % 250).frames[0]) for steps in range(0, 40_000, 5_000))
    lines = ("The learned reward agrees with 90% of the 50 answers held out of its fit.", "9 answers are left.")
    result = Result(lines=lines, film=pictures(130), film_title="The newest behaviour", strip=strip)
    painter = Painter()
    for size in ((1000, 700), (640, 480), (480, 900)):
        canvas = pygame.Surface(size)
        session.press(Action.OUTCOME)
        session.report(result=result)
        painter.paint(canvas, session)
        colours = pygame.surfarray.array3d(canvas).reshape(-1, 3)
        assert (colours == 130).all(1).sum() > 1000, f"no film at {size}"
        session.press(Action.OUTCOME)
        session.press(Action.GALLERY)
        painter.paint(canvas, session)
        session.show_past(past("old"))
        painter.paint(canvas, session)
        colours = pygame.surfarray.array3d(canvas).reshape(-1, 3)
        assert (colours == 90).all(1).sum() > 1000 and (colours == 200).all(1).sum() > 1000
        assert painter.paint_frame(canvas, session)
        session.press(Action.GALLERY)


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_the_desk_brings_past_answers_takes_one_back_and_tells_what_came_of_them(tmp_path: Path) -> None:
    record = tmp_path / "record.sqlite"
    made = encode_clip(list(pictures().frames), 10)
    size = {"width": made.width, "height": made.height, "num_frames": made.num_frames}
    (tmp_path / FILMS).mkdir(parents=True)
    (tmp_path / FILMS / "000000001000.mp4").write_bytes(made.data)
    with PreferenceStore(record) as store:
        segments = [
            Segment(observations=np.full((3, 1), n), actions=np.zeros((2, 1)), true_rewards=np.zeros(2))
            for n in range(3)
        ]
        queries = [Query(segments=(segments[0], segments[1])), Query(segments=(segments[1], segments[2]))]
        store.add_queries(queries)
        for one in segments:
            store.add_clip(one.id, Clip(data=made.data, format="mp4", frames_per_second=10, **size))
        store.add_answers([Comparison(query_id=queries[0].id, annotator="anna", preference=1.0, shown=(1, 0))])
        store.add_answers([Comparison(query_id=queries[1].id, annotator="ben", preference=0.5, shown=(0, 1))])
        desk = Desk(lambda: PreferenceStore(record), "anna", run="a run", environment="", folder=tmp_path)
        desk.start()
        seen: list[Any] = []

        def heard(kind: type) -> Any:
            while not desk.news.empty():
                seen.append(desk.news.get())
            return next((one for one in seen if isinstance(one, kind)), None)

        try:
            desk.browse(1, "newest")
            wait(lambda: heard(Past) is not None)
            old = heard(Past)
            assert (old.row, old.index, old.total, old.mine) == (1, 1, 2, True)
            assert old.told.startswith("anna: the right one is better") and old.question.items[0].clip is not None
            desk.take_back_row(1)
            wait(lambda: any(isinstance(one, Question) for one in seen) or heard(Question) is not None)
            assert heard(Question).query_id == queries[0].id and heard(Question).order == (1, 0)
            assert isinstance(store.answers()[-1][1], Undo)
            desk.look()
            wait(lambda: heard(Result) is not None)
            result = heard(Result)
            assert result.film_title == "The newest behaviour, after 1,000 steps" and len(result.strip) == 1
        finally:
            desk.close(0.5)

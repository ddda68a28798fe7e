"""What the viewer draws, on surfaces without a screen: long texts can be read to their end."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

pygame = pytest.importorskip("pygame")

from prefrl.human_ui.actions import Action  # noqa: E402
from prefrl.human_ui.drawing import Painter  # noqa: E402
from prefrl.human_ui.layout import Box  # noqa: E402
from prefrl.human_ui.questions import Item, Question, Standing  # noqa: E402
from prefrl.human_ui.session import Session  # noqa: E402

LONG = "\n".join(f"Line {number} of what there is to read." for number in range(80))
SIZES = [(800, 600), (3840, 2160)]


@pytest.fixture(autouse=True)
def fonts() -> Iterator[None]:
    pygame.font.init()
    yield
    pygame.font.quit()


def session(instruction: str, *, prompt: str = "Why?", told: str = "") -> Session:
    made = Session(Standing(run="r", environment="e"), instruction)
    items = (Item(text="Because."), Item(text="Why not?"))
    made.offer(
        Question(
            query_id="a",
            kind="comparison",
            annotator="anna",
            items=items,
            order=(0, 1),
            prompt=prompt,
            instruction=told,
        )
    )
    return made


def picture(painter: Painter, shown: Session, size: tuple[int, int], box: Box | None = None) -> NDArray[np.uint8]:
    surface = pygame.Surface(size)
    painter.paint(surface, shown)
    left, top, width, height = box or (0, 0, *size)
    return pygame.surfarray.array3d(surface)[left : left + width, top : top + height]


@pytest.mark.parametrize("size", SIZES)
def test_a_long_prompt_can_be_scrolled_to_its_end(size: tuple[int, int]) -> None:
    painter, shown = Painter(), session("", prompt=LONG)
    shown.press(Action.CONFIRM)
    picture(painter, shown, size)
    assert painter.layout is not None and painter.layout.prompt is not None
    assert 60 < painter.most_scroll < 80
    box = painter.layout.prompt
    begin = picture(painter, shown, size, box)
    shown.press(Action.SCROLL_DOWN)
    later = picture(painter, shown, size, box)
    shown.scroll = painter.most_scroll
    end = picture(painter, shown, size, box)
    assert (begin != later).any() and (later != end).any()
    shown.scroll += 3
    assert (picture(painter, shown, size, box) == end).all()


@pytest.mark.parametrize("size", SIZES)
def test_a_long_instruction_stays_within_the_window_and_can_be_scrolled(size: tuple[int, int]) -> None:
    painter, shown = Painter(), session(LONG)
    begin = picture(painter, shown, size)
    assert painter.most_scroll > 40
    shown.press(Action.SCROLL_DOWN)
    assert shown.introducing, "reading on is not beginning"
    later = picture(painter, shown, size)
    assert (begin != later).any()
    edge = size[1] // 10
    assert (begin[:, :edge] == later[:, :edge]).all() and (begin[:, -edge:] == later[:, -edge:]).all()
    shown.press(Action.CONFIRM)
    shown.press(Action.INSTRUCTION)
    shown.press(Action.SCROLL_DOWN)
    assert shown.show_instruction and shown.scroll == 3
    shown.press(Action.CONFIRM)
    assert not shown.show_instruction and shown.scroll == 0


@pytest.mark.parametrize("size", SIZES)
def test_what_to_look_for_is_always_in_view_whoever_said_it(size: tuple[int, int]) -> None:
    seen = []
    for shown in (session(""), session("Stand still."), session("", told="Stand still."), session("Jump.", told="no")):
        shown.press(Action.CONFIRM)
        painter = Painter()
        picture(painter, shown, size)
        assert painter.layout is not None
        seen.append((shown.look_for, painter.layout.items[0][1], picture(painter, shown, size, painter.layout.header)))
    assert [told for told, _, _ in seen] == ["", "Stand still.", "Stand still.", "Jump."]
    assert seen[0][1] < seen[1][1], "it takes nothing where there is none"
    assert (seen[1][2] == seen[2][2]).all() and (seen[1][2] != seen[3][2]).any()

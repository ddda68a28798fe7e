"""Where everything goes in a window of any size: pure arithmetic with rectangles (x, y, width, height)."""

from __future__ import annotations

import math
from dataclasses import dataclass

Box = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The places of a question's window."""

    unit: float
    """Size of everything, 1 at a height of 720 pixels."""
    header: Box
    prompt: Box | None
    items: tuple[Box, ...]
    """The frames around the items, left to right, then down."""
    scale: tuple[Box, ...]
    """The points of a rating's scale."""
    progress: Box
    footer: Box

    def item_at(self, x: int, y: int) -> int | None:
        """Return the place that a click at (x, y) means: of an item, or a point of the scale where there is one."""
        for place, (left, top, width, height) in enumerate(self.scale or self.items):
            if left <= x < left + width and top <= y < top + height:
                return place
        return None


def unit_of(width: int, height: int) -> float:
    """Return the size of everything in a window: 1 at 1280 x 720, never too small to read."""
    return max(0.8, min(width / 1280, height / 720))


def lay_out(
    width: int,
    height: int,
    num_items: int,
    *,
    aspect: float | None,
    has_prompt: bool = False,
    has_instruction: bool = False,
    points: int = 0,
) -> Layout:
    """Place a question's items as large as they can be.

    Args:
        width: of the window.
        height: of the window.
        num_items: how many are shown.
        aspect: width by height of a clip; None for texts, which take all the room there is.
        has_prompt: there is a prompt above the items.
        has_instruction: the header has a line for it.
        points: points of a rating's scale; 0 for none.
    """
    unit = unit_of(width, height)
    gap = round(14 * unit)
    header = (gap, gap // 2, width - 2 * gap, round((84 if has_instruction else 62) * unit))
    footer_height = round(58 * unit)
    footer = (gap, height - footer_height - gap // 2, width - 2 * gap, footer_height)
    top = header[1] + header[3] + gap // 2
    prompt = None
    if has_prompt:
        prompt_height = round(0.22 * height)
        prompt = (gap, top, width - 2 * gap, prompt_height)
        top += prompt_height + gap
    bottom = footer[1] - gap
    progress = (gap, bottom - round(5 * unit), width - 2 * gap, max(3, round(5 * unit)))
    bottom = progress[1] - gap
    scale: tuple[Box, ...] = ()
    if points:
        side = round(52 * unit)
        step = side + gap
        left = (width - points * step + gap) // 2
        scale = tuple((left + index * step, bottom - side, side, side) for index in range(points))
        bottom -= side + gap
    items = _grid(gap, top, width - 2 * gap, bottom - top, num_items, gap, aspect)
    return Layout(unit=unit, header=header, prompt=prompt, items=items, scale=scale, progress=progress, footer=footer)


def _grid(left: int, top: int, width: int, height: int, count: int, gap: int, aspect: float | None) -> tuple[Box, ...]:
    """Place `count` boxes in the number of columns that makes them largest."""

    def size(columns: int) -> tuple[float, float]:
        rows = math.ceil(count / columns)
        wide, high = (width - gap * (columns - 1)) / columns, (height - gap * (rows - 1)) / rows
        if aspect is None:
            return wide, high
        return min(wide, high * aspect), min(high, wide / aspect)

    if count == 2 and aspect is not None:
        columns = 2  # left and right, as the keys
    elif aspect is None:
        columns = 2 if count == 4 else min(count, 3)
    else:
        columns = max(range(1, count + 1), key=lambda number: size(number)[0])
    rows = math.ceil(count / columns)
    wide, high = (int(side) for side in size(columns))
    block = rows * high + gap * (rows - 1)
    boxes = []
    for place in range(count):
        row, column = divmod(place, columns)
        in_row = min(columns, count - row * columns)
        row_width = in_row * wide + gap * (in_row - 1)
        x = left + (width - row_width) // 2 + column * (wide + gap)
        boxes.append((x, top + (height - block) // 2 + row * (high + gap), wide, high))
    return tuple(boxes)

"""Colours and sizes. What matters is never told by colour alone; the colours are Okabe and Ito's (2008)."""

from __future__ import annotations

from dataclasses import dataclass

Colour = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Theme:
    """The colours of the window."""

    paper: Colour
    panel: Colour
    ink: Colour
    pale_ink: Colour
    places: tuple[Colour, ...]
    """Frames of the items by their place."""
    chosen: Colour
    warning: Colour
    border: int
    """Width of the frames at a height of 720 pixels."""


_PLACES: tuple[Colour, ...] = (
    *((86, 180, 233), (230, 159, 0), (0, 158, 115), (240, 228, 66), (204, 121, 167)),
    *((0, 114, 178), (213, 94, 0), (180, 180, 180), (120, 120, 120)),
)
PLAIN = Theme(
    paper=(27, 29, 34),
    panel=(41, 44, 52),
    ink=(238, 238, 238),
    pale_ink=(172, 177, 187),
    places=_PLACES,
    chosen=(240, 228, 66),
    warning=(240, 228, 66),
    border=3,
)
HIGH_CONTRAST = Theme(
    paper=(0, 0, 0),
    panel=(0, 0, 0),
    ink=(255, 255, 255),
    pale_ink=(255, 255, 255),
    places=tuple((255, 255, 255) for _ in range(9)),
    chosen=(255, 255, 0),
    warning=(255, 255, 0),
    border=6,
)

"""Which key does what, and how the help page says it. Names of keys are pygame's, so that tests need no window."""

from __future__ import annotations

from prefrl.human_ui.session import Action

KEYS: dict[str, Action] = {
    "left": Action.LEFT,
    "right": Action.RIGHT,
    "up": Action.TIE,
    "down": Action.CANNOT_TELL,
    "space": Action.PAUSE,
    "r": Action.REPLAY,
    ",": Action.STEP_BACK,
    ".": Action.STEP_ON,
    "+": Action.FASTER,
    "=": Action.FASTER,  # plus without shift
    "[+]": Action.FASTER,
    "-": Action.SLOWER,
    "[-]": Action.SLOWER,
    "z": Action.UNDO,
    "backspace": Action.UNDO,
    "h": Action.HELP,
    "f1": Action.HELP,
    "i": Action.INSTRUCTION,
    "c": Action.CONTRAST,
    "page up": Action.SCROLL_UP,
    "page down": Action.SCROLL_DOWN,
    "return": Action.CONFIRM,
    "enter": Action.CONFIRM,
    "q": Action.QUIT,
    "escape": Action.QUIT,
}

HELP: tuple[tuple[str, str], ...] = (
    ("left / right arrow", "the left / right one is better (a click does it too)"),
    ("up arrow", "both are equally good"),
    ("down arrow", "cannot tell"),
    ("1 ... 9", "ranking: the next best; rating: so many points"),
    ("up, then a number", "ranking: equal to the one before"),
    ("Z or backspace", "take the last answer back, again and again"),
    ("space", "pause"),
    ("R", "play from the start"),
    (",  and  .", "one frame back / on"),
    ("-  and  +", "slower / faster"),
    ("page up / down, wheel", "scroll long texts"),
    ("I", "what to look for"),
    ("C", "high contrast on / off"),
    ("H", "this page"),
    ("Q", "leave; everything answered is kept"),
)


def name_of(key: str, written: str) -> str:
    """Return what a key press is called here: the digit or sign that it writes, on any keyboard, or else the key.

    On a French keyboard, say, digits are written with shift by keys of other names.
    """
    return written if written and written in "123456789,.+-=" else key


def digit_of(name: str) -> int | None:
    """Return the digit from 1 to 9 that a key stands for, also on the number pad; None for other keys."""
    bare = name.strip("[]")
    return int(bare) if len(bare) == 1 and bare in "123456789" else None

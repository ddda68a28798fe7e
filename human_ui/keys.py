"""Which key does what, and how the help page says it. Names of keys are pygame's, so that tests need no window."""

from __future__ import annotations

from prefrl.human_ui.actions import Action

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
    "p": Action.OUTCOME,
    "g": Action.GALLERY,
    "page up": Action.SCROLL_UP,
    "page down": Action.SCROLL_DOWN,
    "return": Action.CONFIRM,
    "enter": Action.CONFIRM,
    "a": Action.ALIKE,
    "b": Action.BROKEN,
    "u": Action.UNCLEAR,
    "m": Action.FLAG,
    "n": Action.COMMENT,
    "d": Action.DIFFERENCES,
    "q": Action.QUIT,
    "escape": Action.CLOSE,
}

HELP: tuple[tuple[str, str], ...] = (
    ("left / right arrow", "the left / right one is better (a click does it too)"),
    ("up arrow", "both are equally good"),
    ("down arrow", "cannot tell"),
    ("1 ... 9", "ranking: the next best; rating: so many points"),
    ("up, then a number", "ranking: equal to the one before"),
    ("A   B   U", "cannot tell: too alike / cannot be seen / unclear what for"),
    ("M   N", "mark it for whoever asked / write a note on it"),
    ("Z or backspace", "take the last answer back, again and again"),
    ("space", "pause"),
    ("R", "play from the start"),
    (",  and  .", "one frame back / on"),
    ("-  and  +", "slower / faster"),
    ("page up / down, wheel", "scroll long texts"),
    ("D", "mark where two texts differ"),
    ("I", "what to look for"),
    ("P", "what the answers have come to"),
    ("G", "all answers given, to look at and to answer again"),
    ("C", "high contrast on / off"),
    ("H", "this page"),
    ("Q", "leave; everything answered is kept"),
)
ANSWER_KEYS: tuple[tuple[str, Action], ...] = (
    ("LEFT", Action.LEFT),
    ("RIGHT", Action.RIGHT),
    ("UP", Action.TIE),
    ("DOWN", Action.CANNOT_TELL),
)
"""How the parts of what a question says to press begin, and what each does where it is clicked."""
HINTS: tuple[tuple[str, Action], ...] = (
    ("Z undo", Action.UNDO),
    ("SPACE pause", Action.PAUSE),
    ("R replay", Action.REPLAY),
    ("A B U why not", Action.HELP),
    ("M mark", Action.FLAG),
    ("N note", Action.COMMENT),
    ("I what to look for", Action.INSTRUCTION),
    ("P progress", Action.OUTCOME),
    ("G answers", Action.GALLERY),
    ("H all keys", Action.HELP),
    ("Q leave", Action.QUIT),
)
"""What the line at the bottom says, and does where it is clicked."""
_LETTERS_BY_PLACE = dict(zip(range(4, 30), "abcdefghijklmnopqrstuvwxyz", strict=True))  # SDL's numbers of keys by place


def name_of(key: str, written: str, place: int = 0) -> str:
    """Return what a key press is called here: the digit or sign that it writes, on any keyboard, or else the key.

    On a French keyboard, say, digits are written with shift by keys of other names. Where a key writes no Latin letter,
    on a Cyrillic or Greek layout, say, it counts by where it lies.

    Args:
        key: its name as pygame gives it.
        written: what it writes.
        place: SDL's number of the place where it lies ("scancode").
    """
    if written and written in "123456789,.+-=":
        return written
    foreign = not key.isascii() or (not key and bool(written))
    return _LETTERS_BY_PLACE.get(place, key) if foreign else key


def digit_of(name: str) -> int | None:
    """Return the digit from 1 to 9 that a key stands for, also on the number pad; None for other keys."""
    bare = name.strip("[]")
    return int(bare) if len(bare) == 1 and bare in "123456789" else None

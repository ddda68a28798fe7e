"""What a person's keys ask for, what fills the window, and what a session wants done: the words between them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from prefrl.feedback import Answer


class Action(Enum):
    """What a key or a click asks for."""

    LEFT = auto()
    RIGHT = auto()
    TIE = auto()
    CANNOT_TELL = auto()
    PAUSE = auto()
    REPLAY = auto()
    STEP_BACK = auto()
    STEP_ON = auto()
    FASTER = auto()
    SLOWER = auto()
    UNDO = auto()
    HELP = auto()
    INSTRUCTION = auto()
    CONTRAST = auto()
    OUTCOME = auto()
    GALLERY = auto()
    SCROLL_UP = auto()
    SCROLL_DOWN = auto()
    CONFIRM = auto()
    ALIKE = auto()
    BROKEN = auto()
    UNCLEAR = auto()
    FLAG = auto()
    COMMENT = auto()
    DIFFERENCES = auto()
    CLOSE = auto()
    QUIT = auto()


REASON_OF = {Action.ALIKE: "alike", Action.BROKEN: "broken", Action.UNCLEAR: "unclear"}


class Screen(Enum):
    """What fills the window."""

    INSTRUCTION = auto()
    QUESTION = auto()
    BREAK = auto()
    WAITING = auto()
    END = auto()
    OUTCOME = auto()
    GALLERY = auto()


@dataclass(frozen=True)
class Save:
    """Put an answer into the record."""

    answer: Answer


@dataclass(frozen=True)
class TakeBack:
    """Take an answer back in the record and bring its question again."""

    answer: Answer


@dataclass(frozen=True)
class Leave:
    """Close the window."""


@dataclass(frozen=True)
class Look:
    """Bring what the answers have come to."""


@dataclass(frozen=True)
class Browse:
    """Bring an answer that was given."""

    index: int
    order: str


@dataclass(frozen=True)
class Again:
    """Take an answer of any session back in the record and bring its question again."""

    row: int


Command = Save | TakeBack | Leave | Look | Browse | Again

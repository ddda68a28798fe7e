"""What a person is asked, and how the run stands: plain values, without a window, a record or a simulator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prefrl.clips.codec import Pictures
from prefrl.feedback import KINDS, Answer
from prefrl.shares import Share


@dataclass(frozen=True, kw_only=True)
class Item:
    """One of the things that a question is about: a clip, a text, or neither where it cannot be shown."""

    clip: Pictures | None = None
    text: str | None = None
    problem: str | None = None
    """Why it cannot be shown."""

    @property
    def num_frames(self) -> int:
        """Frames of its clip; 1 for a text."""
        return 1 if self.clip is None else len(self.clip.frames)


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """What the owner pinned beside the instruction."""

    item: Item
    good: bool
    note: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """A query as it is put to a person."""

    query_id: str
    kind: str
    """Name of the kind of answer that is asked for."""
    annotator: str
    """Name of the person."""
    claim: str | None = None
    """Name of the claim by which the person has it; goes into the answer."""
    items: tuple[Item, ...]
    """In the order of the query."""
    order: tuple[int, ...]
    """`order[place]` is the item shown there, from left to right; drawn at random and recorded."""
    prompt: str | None = None
    """What the texts respond to."""
    scale: int = 5
    """Points of the scale of a rating, 1 (worst) to this."""
    instruction: str = ""
    """What to judge by, as whoever asked put it."""

    @property
    def answer_kind(self) -> type[Answer]:
        """The class of its answer."""
        return KINDS.find(self.kind)

    @property
    def hint(self) -> str:
        """What to press to answer it."""
        return self.answer_kind.keys.format(scale=self.scale)

    @property
    def shown(self) -> tuple[Item, ...]:
        """The items from left to right."""
        return tuple(self.items[index] for index in self.order)

    @property
    def frames_per_second(self) -> float:
        """Real speed of its clips."""
        return next((item.clip.frames_per_second for item in self.items if item.clip is not None), 30.0)

    @property
    def num_bytes(self) -> int:
        """Memory that its decoded clips take."""
        return sum(item.clip.frames.nbytes for item in self.items if item.clip is not None)

    @property
    def num_frames(self) -> int:
        """Frames of the longest clip."""
        return max(item.num_frames for item in self.items)


@dataclass(frozen=True, kw_only=True, eq=False)
class Past:
    """An answer that was given, to look at again."""

    question: Question
    row: int
    told: str
    """Who said what of it, and what is to be said of that."""
    index: int
    """Its number among those that are looked through, from 0."""
    total: int
    mine: bool
    """The person may answer it again."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """What the answers have come to."""

    lines: tuple[str, ...]
    film: Pictures | None = None
    """The newest behaviour, or that of before, during and after."""
    film_title: str = ""
    strip: tuple[tuple[str, NDArray[np.uint8]], ...] = ()
    """A picture `(H, W, 3)` of the agent at each of some times of its training, with the time."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How the run and its record stand."""

    run: str
    environment: str
    answered: int = 0
    """Answers that the record holds, by anybody; not those that teach nothing ("can't tell", and what was asked again),
    nor those of an earlier run."""
    wanted: int = 0
    """Answers that the run asks for in all; 0: as many as there are queries."""
    open: int = 0
    """Queries to which answers are missing."""
    agreement: Share | None = None
    """How far the current reward agrees with answers that it did not learn from."""
    num_env_steps: int = 0
    """Steps that the agent has made."""
    training: str = ""
    """What the training beside is doing, in a few words."""
    running: bool = False
    """Whether the training has told of itself within the last seconds."""

    @property
    def left(self) -> int:
        """Answers that are still to be given."""
        return max(self.wanted - self.answered, 0) if self.wanted else self.open

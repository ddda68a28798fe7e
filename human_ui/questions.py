"""What a person is asked, and what they say: plain values, without a window, a record or a simulator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prefrl.clips.codec import Pictures

Kind = Literal["comparison", "ranking", "rating"]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One of the things that a question is about: a clip, a text, or neither where it cannot be shown."""

    clip: Pictures | None = None
    text: str | None = None
    problem: str | None = None
    """Why it cannot be shown."""

    @property
    def num_frames(self) -> int:
        return 1 if self.clip is None else len(self.clip.frames)


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """A query as it is put to a person."""

    query_id: str
    kind: Kind
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
    def shown(self) -> tuple[Item, ...]:
        """The items from left to right."""
        return tuple(self.items[index] for index in self.order)

    @property
    def frames_per_second(self) -> float:
        return next((item.clip.frames_per_second for item in self.items if item.clip is not None), 30.0)

    @property
    def num_bytes(self) -> int:
        """Memory of its clips."""
        return sum(item.clip.frames.nbytes for item in self.items if item.clip is not None)

    @property
    def num_frames(self) -> int:
        """Frames of the longest clip."""
        return max(item.num_frames for item in self.items)


@dataclass(frozen=True, kw_only=True, eq=False)
class Reply:
    """What a person said to a question; the items are numbered as in the query, wherever they were shown."""

    question: Question
    preference: float | None = None
    """Of a comparison: 1 (the first is better), 0, or 1/2 for a tie."""
    ranks: tuple[int, ...] | None = None
    """Of a ranking: the rank of each item, 1 for the best; equal ranks are ties."""
    rating: int | None = None
    """Of a rating: 1 to the question's scale."""
    shown_at: float
    """Seconds since 1970."""
    answered_at: float

    @property
    def cannot_tell(self) -> bool:
        return self.preference is None and self.ranks is None and self.rating is None


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
    """Queries that wait."""
    agreement: float | None = None
    """Share of the comparisons on which the current reward model agrees with the answers."""
    training: str = ""
    """What the training beside is doing, in a few words."""
    running: bool = False
    """It was heard of lately."""

    @property
    def left(self) -> int:
        return max(self.wanted - self.answered, 0) if self.wanted else self.open

"""Questions put to annotators and the answers they give.

A `Query` shows segments of control or written responses to one prompt, and asks for one of three kinds of feedback: a
comparison of two, a ranking of K = 3 to 9, or a rating of one on a scale. A `Comparison`, `Ranking` or `Rating` answers
it. An `Edit` of a response may come beside an answer, and an `Undo` takes an answer back; both are rows of their own in
the record, where nothing is ever changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from prefrl.errors import UserError
from prefrl.segments import Segment

KINDS = ("comparison", "ranking", "rating")
"""Kinds of queries."""
FEWEST_RANKED, MOST_RANKED = 3, 9
SMALLEST_SCALE, LARGEST_SCALE = 2, 9


@dataclass(frozen=True, kw_only=True)
class Response:
    """A written response to a prompt: a segment of an episode that lasts one step."""

    prompt: str
    text: str

    @cached_property
    def id(self) -> str:
        """Hash of prompt and text: equal content, equal name."""
        content = f"response {len(self.prompt)} {self.prompt}{self.text}"
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Query:
    """Segments, or responses to one prompt, put to annotators."""

    segments: tuple[Segment, ...] = ()
    responses: tuple[Response, ...] = ()
    """In place of segments: responses to one prompt."""
    kind: str = "comparison"
    """"comparison" of two, "ranking" of 3 to 9, "rating" of one."""
    scale: int | None = None
    """Of a rating: best grade of 1 to `scale`, 2 to 9."""
    instruction: str = ""
    """What the annotator is told to judge by."""
    overlap: int = 1
    """Number of annotators whose answers are wanted."""
    session: int = 0
    """Number of the session of queries it belongs to, from 0."""
    num_env_steps: int = 0
    """Environment steps the agent had made when it was asked."""
    repeat_of: str | None = None
    """Name of the query that this one asks again, of the same annotator, with the sides swapped; its answers measure
    consistency and teach nothing."""
    reserved_for: str | None = None
    """The annotator it is for; None: anybody."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"The kind of a query must be one of {', '.join(KINDS)}. Received {self.kind!r}")
        if self.segments and self.responses:
            raise UserError("A query shows segments or responses; got both.")
        self._check_number(len(self.items))
        if self.kind == "rating" and (self.scale is None or not SMALLEST_SCALE <= self.scale <= LARGEST_SCALE):
            raise UserError(
                f"A rating needs a scale of {SMALLEST_SCALE} to {LARGEST_SCALE} grades. Received {self.scale}"
            )
        if self.kind != "rating" and self.scale is not None:
            raise UserError(f"Only a rating has a scale. Received {self.scale} with a {self.kind}")
        if self.overlap < 1:
            raise UserError(f"overlap must be at least 1 annotator. Received {self.overlap}")
        lengths = [len(segment) for segment in self.segments]
        if len(set(lengths)) > 1:
            raise UserError(
                f"The segments of a query must be of equal length; got {', '.join(map(str, lengths[:-1]))} "
                f"and {lengths[-1]} steps."
            )
        if len({response.prompt for response in self.responses}) > 1:
            raise UserError("The responses of a query must answer the same prompt; got several prompts.")

    def _check_number(self, number: int) -> None:
        what = "responses" if self.responses else "segments"
        if self.kind == "comparison" and number != 2:
            raise UserError(f"A query needs two {what}; got {number}.")
        if self.kind == "ranking" and not FEWEST_RANKED <= number <= MOST_RANKED:
            raise UserError(f"A ranking needs {FEWEST_RANKED} to {MOST_RANKED} {what}; got {number}.")
        if self.kind == "rating" and number != 1:
            raise UserError(f"A rating needs one of {what}; got {number}.")

    @property
    def items(self) -> Sequence[Segment | Response]:
        """What is shown: the segments or the responses."""
        return self.segments or self.responses

    @cached_property
    def id(self) -> str:
        """Hash of what is shown and its session; the same question in the same place of a run has the same name."""
        text = " ".join([str(self.session), *(item.id for item in self.items)])
        if self.kind != "comparison":
            text += f" {self.kind} {self.scale or ''}"
        if self.repeat_of is not None:
            text += f" repeats {self.repeat_of}"
        if self.reserved_for is not None:
            text += f" for {self.reserved_for}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @property
    def pair(self) -> frozenset[str]:
        """The names of what is shown, whichever comes first."""
        return frozenset(item.id for item in self.items)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What answers of all kinds carry."""

    kind: ClassVar[str]

    query_id: str
    annotator: str
    """Name of who answered."""
    seconds: float = 0.0
    """How long the answer took."""
    shown: tuple[int, ...] | None = None
    """`shown[place]` is the number of the item that was shown there, left to right; None: in the query's order. The
    value of an answer always speaks of the query's order."""
    shown_at: float | None = None
    """When the query was shown, in seconds since 1970 (UTC)."""
    answered_at: float | None = None
    """When it was answered."""
    comment: str = ""
    """A written critique, or what the annotator had to say."""
    claim: str | None = field(default=None, compare=False)
    """Name of the claim that it answers: a claim is answered once, however often its answer is recorded."""

    @property
    def value(self) -> float | int | tuple[int, ...] | None:
        """What a comparison, ranking or rating says; None: can't tell, or the answer is none of these."""
        return None

    def __post_init__(self) -> None:
        if not self.annotator:
            raise UserError(f"A {self.kind} must carry the name of its annotator; got an empty one.")
        if self.shown is not None and sorted(self.shown) != list(range(len(self.shown))):
            raise UserError(f"shown must hold every item once, by its number from 0. Received {self.shown}")


@dataclass(frozen=True, kw_only=True)
class Comparison(Answer):
    """The answer to a query of two."""

    kind: ClassVar[str] = "comparison"
    preference: float | None
    """Probability that the first is better: 1, 0, or 1/2 for a tie. None: can't tell, or the annotator
    declined; it stays in the record, outside the loss and the budget of labels (Christiano et al. 2017, s. 2.2.2)."""

    @property
    def value(self) -> float | None:
        """What was said; None: can't tell."""
        return self.preference

    def __post_init__(self) -> None:
        if self.preference not in (0.0, 0.5, 1.0, None):
            raise UserError(
                f"A preference must be 1 (first is better), 0 (second), 0.5 (tie) or None (can't tell). "
                f"Received {self.preference!r}"
            )
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class Ranking(Answer):
    """The answer to a query of K."""

    kind: ClassVar[str] = "ranking"
    ranks: tuple[int, ...] | None
    """Rank of each item, 1 the best; items that share one are tied: (2, 1, 2) says that the second is best and the
    others equal. None: can't tell."""

    @property
    def value(self) -> tuple[int, ...] | None:
        """What was said; None: can't tell."""
        return self.ranks

    def __post_init__(self) -> None:
        if self.ranks is not None and set(self.ranks) != set(range(1, len(set(self.ranks)) + 1)):
            raise UserError(
                f"The ranks of a ranking must be 1, 2, ... without a gap, the same number for a tie. "
                f"Received {self.ranks}"
            )
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class Rating(Answer):
    """The answer to a query of one."""

    kind: ClassVar[str] = "rating"
    rating: int | None
    """Grade, 1 the worst, up to the query's scale. None: can't tell."""

    @property
    def value(self) -> int | None:
        """What was said; None: can't tell."""
        return self.rating

    def __post_init__(self) -> None:
        if self.rating is not None and self.rating < 1:
            raise UserError(f"A rating must be 1 or more. Received {self.rating}")
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class Edit(Answer):
    """A response rewritten by an annotator, beside or in place of an answer: the edited text is better than before."""

    kind: ClassVar[str] = "edit"
    item: int
    """Number of the response in the query, from 0."""
    text: str
    """The whole response as it should read."""


@dataclass(frozen=True, kw_only=True)
class Undo(Answer):
    """An answer taken back; the record keeps both."""

    kind: ClassVar[str] = "undo"
    undoes: int
    """Row of the answer in the record."""


def best_first(ranks: tuple[int, ...]) -> list[list[int]]:
    """Return the items of a ranking in groups of equals, best first: `(2, 1, 2)` gives `[[1], [0, 2]]`."""
    return [[item for item, rank in enumerate(ranks) if rank == place] for place in range(1, max(ranks) + 1)]

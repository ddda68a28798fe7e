"""What the record holds about a query: answers, edits of a response, and answers taken back.

An `Answer` is the same object from the key that a person presses, or the judgement of a teacher, to the data that a
reward is fitted to. Its class is the kind of feedback, and everything that sets one kind apart from another is in that
class: its name, what it asks for, which values it takes, how these are written as JSON, what they say of the items, and
how likely they are under the items' summed rewards.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from numpy.typing import NDArray

from prefrl.errors import UserError
from prefrl.seams import place_of

if TYPE_CHECKING:
    from torch import Tensor  # what is never fitted to, as in the viewer, needs no torch

Array = NDArray[Any]
LONGEST_SECONDS = 366 * 24 * 3600
LATEST = 1e11  # in the year 5138; what is larger is in milliseconds
REASONS = {
    "alike": "they are too alike",
    "broken": "something cannot be seen or read",
    "unclear": "what to look for is unclear",
}
"""Why somebody cannot tell, by the name that the record keeps."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What entries of all kinds carry."""

    kind: ClassVar[str]

    query_id: str
    annotator: str
    """Name of the person, teacher or model it comes from."""
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
    reason: str = ""
    """Why they cannot tell, one of `REASONS`; "": none was given."""
    flagged: bool = False
    """The annotator wants whoever asked to look at it."""
    adjudicates: bool = False
    """It settles what others disagree about: it counts in place of theirs."""
    claim: str | None = field(default=None, compare=False)
    """Name of the claim that it answers: a claim is answered once, however often its answer is recorded."""

    def __post_init__(self) -> None:
        if not self.annotator:
            raise UserError(f"A {self.kind} must carry the name of its annotator; got an empty one.")
        if self.shown is not None and sorted(self.shown) != list(range(len(self.shown))):
            raise UserError(f"shown must hold every item once, by its number from 0. Received {self.shown}")
        if not 0 <= self.seconds <= LONGEST_SECONDS:
            raise UserError(f"seconds must be from 0 to {LONGEST_SECONDS:,}, a year. Received {self.seconds}")
        if self.reason and self.reason not in REASONS:
            raise UserError(f"A reason is one of {', '.join(REASONS)}, or empty. Received {self.reason!r}")
        for name in ("shown_at", "answered_at"):
            when = getattr(self, name)
            if when is not None and not 0 <= when <= LATEST:
                raise UserError(f"{name} must be in seconds since 1970, not milliseconds. Received {when}")


class _KindOfOnesOwn:
    """The name of a kind that gives itself none: where its class is found."""

    def __get__(self, answer: object, kind: type[Answer]) -> str:
        return place_of(kind, "kind of answer")


@dataclass(frozen=True, kw_only=True)
class Answer(Entry):
    """An answer to a query. A subclass is a kind of feedback.

    It is a frozen dataclass that adds one field, which holds what is said, or None for "can't tell". It says what it
    asks for (`fewest`, `most`, `graded`), and has `encode`, `log_likelihood` and, unless it is graded, `from_order`.
    """

    if TYPE_CHECKING:
        kind: ClassVar[str]
    else:
        kind = _KindOfOnesOwn()
    fewest: ClassVar[int]
    """Items that a query of this kind shows, at least."""
    most: ClassVar[int]
    """And at most; 9 can be told apart by a key."""
    graded: ClassVar[bool] = False
    """It gives a grade, from 1, on the scale of its query: then a fit has cut points for each annotator and scale."""
    fixed_scale: ClassVar[int | None] = None
    """Number of grades of every query of a graded kind, where it is not each query's own."""
    keys: ClassVar[str] = "Press the number of your choice     DOWN can't tell"
    """What a person presses in the viewer; `{scale}` stands for the number of grades."""

    # ------------------------------------------------------------------------------------------------ what is said

    @property
    def value(self) -> Any:
        """What was said; None: can't tell."""
        return getattr(self, _field_of(type(self)))

    @classmethod
    def saying(cls, value: Any, **common: Any) -> Self:
        """Return an answer of this kind that says `value`; the other arguments are those of `Entry`."""
        return cls(**{_field_of(cls): value}, **common)

    def to_json(self) -> Any:
        """Return what was said as a JSON value; `from_json` is the inverse."""
        return list(self.value) if isinstance(self.value, tuple) else self.value

    @classmethod
    def from_json(cls, value: Any, **common: Any) -> Self:
        """Return an answer of this kind from its JSON value and the arguments of `Entry`."""
        return cls.saying(tuple(value) if isinstance(value, list) else value, **common)

    def check(self, num_items: int, scale: int | None) -> None:
        """Check that what was said fits a query of this kind that shows so many items.

        Raises:
            UserError: it does not.
        """

    # ------------------------------------------------------------------------------------------------ what it means

    @property
    def order(self) -> tuple[int, ...] | None:
        """The rank of each item, 1 the best, equal for ties; None if the answer does not tell it of all of them."""
        return None

    def pairs(self, num_items: int) -> list[tuple[int, int, float]]:
        """Return what is said of pairs of items i < j: (i, j, probability that i is better: 1, 0, or 1/2 for a tie)."""
        order = self.order
        if order is None:
            return []
        both = combinations(range(num_items), 2)
        return [(i, j, 0.5 * (1 + (order[i] < order[j]) - (order[i] > order[j]))) for i, j in both]

    @property
    def grade(self) -> Any:
        """What a graded answer says as a number from 1; None: can't tell."""
        return self.value

    def share_of_scale(self, scale: int) -> float | None:
        """Return where on the scale, 0 to 1, a graded answer puts its item; None for other kinds."""
        return None

    def opposite(self, scale: int | None) -> Self:
        """Return the answer of somebody who prefers what this annotator does not.

        Raises:
            UserError: it does not follow from this answer.
        """
        if self.value is None:
            return self
        if self.order is None:
            raise UserError(f"What is the opposite of an answer of the kind {self.kind} cannot be told from it.")
        return self.with_value(self.from_order(groups_of(self.order)[::-1], len(self.order)))

    def with_value(self, value: Any) -> Self:
        """Return this answer with something else said."""
        return replace(self, **{_field_of(type(self)): value})

    @classmethod
    def from_order(cls, groups: Sequence[Sequence[int]], num_items: int) -> Any:
        """Return what is said by choosing items one after another, with a person's keys, or all of them by a teacher.

        Args:
            groups: numbers of items, best first; those in one group are equally good.
            num_items: of the query.

        Returns:
            What is said; None while more must be chosen.
        """
        raise NotImplementedError

    @classmethod
    def from_grade(cls, grade: int, shown: Sequence[int]) -> Any:
        """Return what is said by choosing a number from 1 on the scale of a graded kind.

        Args:
            grade: the number.
            shown: `shown[place]` is the number of the item there, from left to right.
        """
        return grade

    # ------------------------------------------------------------------------------------------------ what it teaches

    @classmethod
    def encode(cls, answers: Sequence[Self]) -> tuple[Array, ...]:
        """Return what answers say as arrays with a row for each, for `log_likelihood`.

        Args:
            answers: N answers of this kind, none of them "can't tell".
        """
        raise NotImplementedError

    @classmethod
    def log_likelihood(cls, scores: Tensor, encoded: Sequence[Tensor], error_rate: float | Tensor) -> Tensor:
        """Return the log-likelihood of answers given the summed rewards of what they are about.

        Args:
            scores: `(M, B, K)` float: sums of M members for the items of B queries; -infinity fills up where there are
                fewer than K items.
            encoded: rows `(B, ...)` of what `encode` gave, floating-point numbers in the type of the scores. Of graded
                kinds the cut points `(M, B, C - 1)` of each answer's annotator and scale come last, ascending;
                +infinity fills up.
            error_rate: share of uniformly random answers, in [0, 1), one number or `(B,)`.

        Returns:
            `(M, B)` float, at most 0, in nats.
        """
        raise NotImplementedError

    @classmethod
    def graded_score(cls, scores: Tensor) -> Tensor:
        """Return what a grade is of, `(...)`, from the scores `(..., K)` of the items."""
        return scores[..., 0]

    @classmethod
    def num_outcomes(cls, num_items: int, scale: int | None) -> int:
        """Return how many answers could be given to a query, ties aside."""
        return num_items

    @classmethod
    def right(cls, scores: Tensor, encoded: Sequence[Tensor]) -> Tensor | None:
        """Return how far scores agree with answers, `(M, B)` float in [0, 1]; the arguments are as of `log_likelihood`.

        None: by the share of the pairs said to be unequal whose order is that of the scores.
        """
        return None


_COMMON = tuple(one.name for one in fields(Entry))


def field_names(kind: type[Answer]) -> list[str]:
    """Return the names of the fields that a kind adds to those of all entries."""
    return [one.name for one in fields(kind) if one.name not in _COMMON]


def _field_of(kind: type[Answer]) -> str:
    """Return the name of the field that holds what is said."""
    name: str = _the_field_of(cast(Any, kind))
    return name


@cache
def _the_field_of(kind: Any) -> str:
    (name,) = field_names(kind)
    return name


def ranks_of(scores: Iterable[float]) -> tuple[int, ...]:
    """Return the rank of each item by its score: 1 for the highest, equal ones tied, none left out in between."""
    scores = list(scores)
    order = {score: rank for rank, score in enumerate(sorted(set(scores), reverse=True), start=1)}
    return tuple(order[score] for score in scores)


def groups_of(ranks: Sequence[int]) -> list[list[int]]:
    """Return items in groups of equals, best first: the ranks `(2, 1, 2)` give `[[1], [0, 2]]`."""
    return [[item for item, rank in enumerate(ranks) if rank == place] for place in sorted(set(ranks))]


@dataclass(frozen=True, kw_only=True)
class Edit(Entry):
    """A response rewritten by an annotator, beside or in place of an answer: the edited text is better than before."""

    kind: ClassVar[str] = "edit"
    item: int
    """Number of the response in the query, from 0."""
    text: str
    """The whole response as it should read."""


@dataclass(frozen=True, kw_only=True)
class Undo(Entry):
    """An answer taken back; the record keeps both."""

    kind: ClassVar[str] = "undo"
    undoes: int
    """Row of the answer in the record."""


BESIDE = (Edit.kind, Undo.kind)
"""Kinds of entries that are no answers."""


def settled(entries: Sequence[Entry]) -> list[Entry]:
    """Leave out the answers that an adjudication took the place of: of a query that has one, its last counts alone.

    Args:
        entries: those that stand, in the order in which they were recorded.
    """
    last = {entry.query_id: entry for entry in entries if isinstance(entry, Answer) and entry.adjudicates}
    return [e for e in entries if not isinstance(e, Answer) or last.get(e.query_id, e) is e]

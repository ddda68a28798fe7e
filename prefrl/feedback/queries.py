"""Queries: what is put to annotators."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from prefrl.errors import UserError
from prefrl.feedback.answers import Answer
from prefrl.feedback.kinds import KINDS
from prefrl.feedback.rating import LARGEST_SCALE, SMALLEST_SCALE
from prefrl.seams import Named
from prefrl.segments import Segment

JUDGING_SESSION = 1_000_000
"""Queries of this session, and of those after it, judge what was learned: nothing is learned from their answers."""


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
    kind: Named = "comparison"
    """What is asked for: "comparison" or "strength" of two, "ranking" of 3 to 9, "rating" of one, or `module:Name` for
    a kind of a user's own; from Python also the class itself."""
    scale: int | None = None
    """Of a graded kind: best grade of 1 to `scale`, 2 to 9."""
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
        object.__setattr__(self, "kind", KINDS.name(self.kind))
        kind, number = self.answer_kind, len(self.items)
        if self.segments and self.responses:
            raise UserError("A query shows segments or responses; got both.")
        if not kind.fewest <= number <= kind.most:
            wanted = str(kind.most) if kind.fewest == kind.most else f"{kind.fewest} to {kind.most}"
            what = "responses" if self.responses else "segments"
            raise UserError(f"A query for a {self.kind} shows {wanted} {what}; got {number}.")
        if kind.graded and (self.scale is None or not SMALLEST_SCALE <= self.scale <= LARGEST_SCALE):
            raise UserError(
                f"A {self.kind} needs a scale of {SMALLEST_SCALE} to {LARGEST_SCALE} grades. Received {self.scale}"
            )
        if kind.fixed_scale is not None and self.scale != kind.fixed_scale:
            raise UserError(f"A {self.kind} has a scale of {kind.fixed_scale}. Received {self.scale}")
        if not kind.graded and self.scale is not None:
            raise UserError(f"A {self.kind} has no scale. Received {self.scale}")
        if self.overlap < 1:
            raise UserError(f"overlap must be at least 1 annotator. Received {self.overlap}")
        if self.session < 0 or self.num_env_steps < 0:
            raise UserError(
                f"session and num_env_steps must be 0 or more. Received {self.session} and {self.num_env_steps}"
            )
        lengths = [len(segment) for segment in self.segments]
        if len(set(lengths)) > 1:
            raise UserError(
                f"The segments of a query must be of equal length; got {', '.join(map(str, lengths[:-1]))} "
                f"and {lengths[-1]} steps."
            )
        if len({response.prompt for response in self.responses}) > 1:
            raise UserError("The responses of a query must answer the same prompt; got several prompts.")

    @property
    def answer_kind(self) -> type[Answer]:
        """The class of its answers."""
        return KINDS.find(self.kind)

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


class AskedPairs:
    """Sets of names of what was shown together, of which no more is kept than is needed to know them again.

    That is a number of 60 bits for each: among a million, two are taken for one with a probability of one in two
    million.
    """

    def __init__(self) -> None:
        self._keys: set[int] = set()

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, names: Any) -> bool:
        return _key(names) in self._keys

    def add(self, names: Iterable[str]) -> None:
        """Add what was shown together: names of segments or responses."""
        self._keys.add(_key(names))


def _key(names: Iterable[str]) -> int:
    """Return the first 60 bits of the names, which are hashes, joined so that their order makes no difference."""
    key = 0
    for name in set(names):
        key ^= int(name[:15], 16)
    return key

"""Questions put to annotators and the answers they give."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from prefrl.errors import UserError
from prefrl.segments import Segment


@dataclass(frozen=True, kw_only=True, eq=False)
class Query:
    """Two segments put to an annotator, who says which is better."""

    segments: tuple[Segment, Segment]
    session: int = 0
    """Number of the session of queries it belongs to, from 0."""
    num_env_steps: int = 0
    """Environment steps the agent had made when it was asked."""

    def __post_init__(self) -> None:
        if len(self.segments) != 2:
            raise UserError(f"A query needs two segments; got {len(self.segments)}.")
        first, second = self.segments
        if len(first) != len(second):
            raise UserError(
                f"The segments of a query must be of equal length; got {len(first)} and {len(second)} steps."
            )

    @cached_property
    def id(self) -> str:
        """Hash of the pair and its session; the same question in the same place of a run has the same name."""
        text = f"{self.session} {self.segments[0].id} {self.segments[1].id}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @property
    def pair(self) -> frozenset[str]:
        """The names of the two segments, whichever comes first."""
        return frozenset(segment.id for segment in self.segments)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The answer to a query of two."""

    query_id: str
    preference: float | None
    """Probability that the first segment is better: 1, 0, or 1/2 for a tie. None: can't tell, or the annotator
    declined; it stays in the record, outside the loss and the budget of labels (Christiano et al. 2017, s. 2.2.2)."""
    annotator: str
    """Name of who answered."""
    seconds: float = 0.0
    """How long the answer took."""

    def __post_init__(self) -> None:
        if self.preference not in (0.0, 0.5, 1.0, None):
            raise UserError(
                f"A preference must be 1 (first is better), 0 (second), 0.5 (tie) or None (can't tell). "
                f"Received {self.preference!r}"
            )
        if not self.annotator:
            raise UserError("A comparison must carry the name of its annotator; got an empty one.")

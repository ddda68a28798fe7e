"""Comparisons, rankings and ratings made of the pairs that were proposed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from prefrl.feedback import KINDS, Answer, Comparison, Query, Ranking, Rating
from prefrl.segments import Segment

MIXED = "mixed"
"""Not a kind, but comparisons, rankings and ratings in turn."""
MIXED_KINDS = (Comparison.kind, Ranking.kind, Rating.kind)


@dataclass(frozen=True, kw_only=True)
class QueryMaker:
    """Cuts a row of segments into queries.

    A comparison shows a proposed pair; a ranking shows the segments of pairs in a row, a rating one of them. So every
    method of choosing pairs serves all kinds.
    """

    feedback: str = "comparison"
    """comparison, ranking, rating, mixed (these in turn), strength, or module:Name of a kind of one's own."""
    num_ranked: int = 4
    """Segments of a query, as far as its kind leaves a choice."""
    scale: int = 5
    """Grades of a scale."""

    def check(self) -> None:
        """Check that what is asked for can be.

        Raises:
            UserError: there is no such kind of answer, or it cannot be used.
        """
        for kind in self._kinds(1):
            KINDS.find(kind)

    def num_pairs(self, num_queries: int) -> int:
        """Return how many pairs hold the segments of so many queries."""
        return -(-sum(self._num_shown(kind) for kind in self._kinds(num_queries)) // 2)

    def make(
        self, pairs: Sequence[tuple[Segment, Segment]], num_queries: int, *, session: int, num_env_steps: int
    ) -> list[Query]:
        """Return queries of a session, fewer than wanted where there are too few pairs."""
        left = iter([segment for pair in pairs for segment in pair])
        queries: list[Query] = []
        for kind in self._kinds(num_queries):
            segments = tuple(islice(left, self._num_shown(kind)))
            if len(segments) < self._num_shown(kind):
                break
            asked = KINDS.find(kind)
            scale = asked.fixed_scale or self.scale if asked.graded else None
            query = Query(segments=segments, kind=kind, scale=scale, session=session, num_env_steps=num_env_steps)
            queries.append(query)
        return queries

    def _kinds(self, num_queries: int) -> list[str]:
        return list(islice(cycle(MIXED_KINDS if self.feedback == MIXED else (self.feedback,)), num_queries))

    def _num_shown(self, kind: str) -> int:
        asked: type[Answer] = KINDS.find(kind)
        return min(max(asked.fewest, self.num_ranked), asked.most)

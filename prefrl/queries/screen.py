"""Pairs that a person could hardly tell apart are not asked about: they are dropped before a method chooses.

Of the candidates a share is dropped whose two segments look most alike, and then, once a reward is fitted, a share of
the others whose two segments it holds to be worth most nearly the same, since they are likely to tie. Shares need no
scale: what counts as alike is told by what else could be asked. So many more candidates are drawn that a method has as
many to choose from as without. Where the history has too few different pairs for that, fewer are dropped, never one
that a question needs.

What is dropped are pairs, as they are drawn. A comparison and a strength show one; of a ranking, whose segments are
those of pairs in a row, each of these pairs differs, not every two of its segments; of ratings, the two that follow
each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from prefrl.errors import UserError
from prefrl.queries.methods import Pair, SegmentScorer, returns_of_both
from prefrl.segments import Segment

LookDifference = Callable[[Segment, Segment], float]
"""How different two segments look, at least 0; in any unit."""


class Screen:
    """Drops candidates that could hardly be told apart, and counts them.

    Args:
        alike: share of the candidates that are dropped since their two segments look most alike, in [0, 1).
        even: share of the others that are dropped since the mean over members of the difference of their summed
            rewards is nearest to 0, in [0, 1); of none where nothing is fitted yet.
        differ: how different two segments look.

    Raises:
        UserError: no such share.
    """

    def __init__(self, *, alike: float, even: float, differ: LookDifference) -> None:
        for name, share in (("alike", alike), ("even", even)):
            if not 0 <= share < 1:
                raise UserError(f"The share {name} must be in [0, 1). Received {share}")
        self.alike, self.even, self._differ = alike, even, differ
        self.num_drawn = 0
        """Candidates so far."""
        self.num_dropped = 0
        """Those of them that were dropped."""
        self.fell_short = False
        """Once there were too few different pairs to drop the whole share."""

    def num_to_draw(self, wanted: int, *, fitted: bool) -> int:
        """Return of how many candidates `wanted` are left, at least."""
        left = (1 - self.alike) * (1 - self.even if fitted else 1.0)
        return math.ceil(wanted / left - 1e-9)

    def keep(self, pairs: Sequence[Pair], num: int, ensemble: SegmentScorer | None) -> list[Pair]:
        """Return the candidates that are left, in the order in which they were drawn: `num` at least.

        Args:
            pairs: C candidates.
            num: that are going to be asked; with fewer candidates, none is dropped.
            ensemble: the reward; None: nothing is fitted yet.
        """
        left = list(pairs)
        if self.alike and left:
            left = self._without_least(left, [self._differ(*pair) for pair in left], self.alike, num)
        if self.even and left and ensemble is not None:
            first, second = returns_of_both(ensemble, left)
            left = self._without_least(left, np.abs((first - second).mean(0)), self.even, num)
        self.num_drawn += len(pairs)
        self.num_dropped += len(pairs) - len(left)
        return left

    def _without_least(
        self, pairs: list[Pair], values: Sequence[float] | NDArray[np.floating], share: float, num: int
    ) -> list[Pair]:
        wanted = int(share * len(pairs) + 1e-9)
        dropped = max(0, min(wanted, len(pairs) - num))
        self.fell_short |= dropped < wanted
        kept = np.ones(len(pairs), bool)
        kept[np.argsort(np.asarray(values, np.float64), kind="stable")[:dropped]] = False
        return [pair for pair, is_kept in zip(pairs, kept, strict=True) if is_kept]

    def metrics(self) -> dict[str, float | None]:
        """Return the counts, for a row of metrics."""
        return {"candidates_drawn": self.num_drawn, "candidates_dropped": self.num_dropped}

    def state(self) -> list[int]:
        """Return the counts, for a checkpoint."""
        return [self.num_drawn, self.num_dropped]

    def restore(self, state: Sequence[int]) -> None:
        """Go on from what `state` gave."""
        self.num_drawn, self.num_dropped = state

"""Rankings: the order of several, ties allowed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from prefrl.errors import UserError
from prefrl.feedback.answers import Answer, Array

if TYPE_CHECKING:
    from torch import Tensor

FEWEST_RANKED = 3
MOST_RANKED = 9


@dataclass(frozen=True, kw_only=True)
class Ranking(Answer):
    """The answer to a query of K."""

    kind: ClassVar[str] = "ranking"
    fewest: ClassVar[int] = FEWEST_RANKED
    most: ClassVar[int] = MOST_RANKED
    keys: ClassVar[str] = (
        "Press the numbers from best to worst     UP, then a number: equal to the last     DOWN can't tell"
    )

    ranks: tuple[int, ...] | None
    """Rank of each item, 1 the best; items that share one are tied: (2, 1, 2) says that the second is best and the
    others equal. None: can't tell."""

    def __post_init__(self) -> None:
        if self.ranks is not None and set(self.ranks) != set(range(1, len(set(self.ranks)) + 1)):
            raise UserError(
                f"The ranks of a ranking must be 1, 2, ... without a gap, the same number for a tie. "
                f"Received {self.ranks}"
            )
        super().__post_init__()

    def check(self, num_items: int, scale: int | None) -> None:
        """Check that there is a rank for each item."""
        if self.ranks is not None and len(self.ranks) != num_items:
            raise UserError(f"The query {self.query_id} asks to rank {num_items}; got {len(self.ranks)} ranks.")

    @property
    def order(self) -> tuple[int, ...] | None:
        """The ranks."""
        return self.ranks

    @classmethod
    def from_order(cls, groups: Sequence[Sequence[int]], num_items: int) -> Any:
        """Return the ranks, once every item has been chosen."""
        rank_of = {item: rank for rank, group in enumerate(groups, 1) for item in group}
        return tuple(rank_of[item] for item in range(num_items)) if len(rank_of) == num_items else None

    @classmethod
    def encode(cls, answers: Sequence[Self]) -> tuple[Array, ...]:
        """Return the choices `(N, P, K)` that each ranking is made of, filled up, as of `prefrl.likelihood.choices`."""
        from prefrl.likelihood import choices

        parts = [tuple(part.numpy() for part in choices(answer.ranks or ())) for answer in answers]
        most_choices, most_items = (max(left.shape[axis] for left, _ in parts) for axis in (0, 1))
        left = np.zeros((len(parts), most_choices, most_items), bool)
        chosen = np.zeros(left.shape, np.float64)
        for row, (sets, weights) in enumerate(parts):
            left[row, : sets.shape[0], : sets.shape[1]] = sets
            chosen[row, : sets.shape[0], : sets.shape[1]] = weights
        return left, chosen

    @classmethod
    def log_likelihood(cls, scores: Tensor, encoded: Sequence[Tensor], error_rate: float | Tensor) -> Tensor:
        """Return that of Plackett-Luce, the mean over all orders that ties allow."""
        from prefrl.likelihood import ranking_log_likelihood

        left, chosen = encoded
        return ranking_log_likelihood(scores, left, chosen, error_rate)

    @classmethod
    def num_outcomes(cls, num_items: int, scale: int | None) -> int:
        """Return the number of orders."""
        return math.factorial(num_items)

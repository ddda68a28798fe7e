"""Comparisons: which of two is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from prefrl.errors import UserError
from prefrl.feedback.answers import Answer, Array

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Comparison(Answer):
    """The answer to a query of two."""

    kind: ClassVar[str] = "comparison"
    fewest: ClassVar[int] = 2
    most: ClassVar[int] = 2
    keys: ClassVar[str] = "LEFT ARROW left is better     RIGHT ARROW right is better     UP equal     DOWN can't tell"

    preference: float | None
    """Probability that the first is better: 1, 0, or 1/2 for a tie. None: can't tell, or the annotator
    declined; it stays in the record, outside the loss and the budget of labels (Christiano et al. 2017, s. 2.2.2)."""

    def __post_init__(self) -> None:
        if self.preference not in (0.0, 0.5, 1.0, None):
            raise UserError(
                f"A preference must be 1 (first is better), 0 (second), 0.5 (tie) or None (can't tell). "
                f"Received {self.preference!r}"
            )
        super().__post_init__()

    @property
    def order(self) -> tuple[int, ...] | None:
        """The ranks of the two; None: can't tell."""
        return None if self.preference is None else {1.0: (1, 2), 0.0: (2, 1), 0.5: (1, 1)}[self.preference]

    def pairs(self, num_items: int) -> list[tuple[int, int, float]]:
        """Return what is said of the only pair; nothing: can't tell."""
        return [] if self.preference is None else [(0, 1, float(self.preference))]

    @classmethod
    def from_order(cls, groups: Sequence[Sequence[int]], num_items: int) -> Any:
        """Return the preference for what was chosen first."""
        return 0.5 if len(groups[0]) == 2 else float(groups[0][0] == 0)

    @classmethod
    def encode(cls, answers: Sequence[Self]) -> tuple[Array, ...]:
        """Return the preferences `(N,)`."""
        return (np.array([answer.preference for answer in answers], np.float64),)

    @classmethod
    def log_likelihood(cls, scores: Tensor, encoded: Sequence[Tensor], error_rate: float | Tensor) -> Tensor:
        """Return that of Bradley-Terry (Christiano et al. 2017, Eq. 1)."""
        from prefrl.likelihood import bradley_terry_log_likelihood

        (preferences,) = encoded
        return bradley_terry_log_likelihood(scores[..., 0] - scores[..., 1], preferences, error_rate)

    @classmethod
    def right(cls, scores: Tensor, encoded: Sequence[Tensor]) -> Tensor | None:
        """Return 1 where the better one has the larger sum."""
        (preferences,) = encoded
        return ((scores[..., 0] - scores[..., 1] > 0) == (preferences > 0.5)).float()

"""Strengths of preference: which of two is better, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from prefrl.errors import UserError
from prefrl.feedback.answers import Answer, Array

if TYPE_CHECKING:
    from torch import Tensor

MOST_DEGREES = 3
"""Slightly better, better, much better."""


@dataclass(frozen=True, kw_only=True)
class Strength(Answer):
    """The answer to a query of two that asks how far apart they are.

    Its likelihood is the cumulative logit of the difference of the two sums (Agresti 1992, "Analysis of ordinal paired
    comparison data"): Bradley-Terry with a cut point between each two degrees, fitted for each annotator, so that one
    may say "much better" more readily than another. Departure: the cut points are not held to be symmetric; which of
    the two a query names first is drawn at random.
    """

    kind: ClassVar[str] = "strength"
    fewest: ClassVar[int] = 2
    most: ClassVar[int] = 2
    graded: ClassVar[bool] = True
    fixed_scale: ClassVar[int | None] = 2 * MOST_DEGREES + 1
    keys: ClassVar[str] = (
        "1 2 3 left is much better, better, slightly     4 equal     5 6 7 right is slightly, better, much better     "
        "DOWN can't tell"
    )

    degree: int | None
    """3: the first is much better, 2: better, 1: slightly better, 0: equal, -1 to -3: the second is. None: can't
    tell."""

    def __post_init__(self) -> None:
        if self.degree is not None and not -MOST_DEGREES <= self.degree <= MOST_DEGREES:
            raise UserError(
                f"A strength is from -{MOST_DEGREES} (the second is much better) to {MOST_DEGREES} (the first is), or "
                f"None (can't tell). Received {self.degree!r}"
            )
        super().__post_init__()

    @property
    def order(self) -> tuple[int, ...] | None:
        """The ranks of the two; None: can't tell."""
        if self.degree is None:
            return None
        return (1, 1) if self.degree == 0 else (1, 2) if self.degree > 0 else (2, 1)

    @property
    def grade(self) -> int | None:
        """From 1, the second is much better, to 7; None: can't tell."""
        return None if self.degree is None else self.degree + MOST_DEGREES + 1

    def opposite(self, scale: int | None) -> Self:
        """Return as strong a preference for the other."""
        return self if self.degree is None else self.with_value(-self.degree)

    @classmethod
    def from_order(cls, groups: Sequence[Sequence[int]], num_items: int) -> Any:
        """Return the middle degree for what was chosen first."""
        return 0 if len(groups[0]) == 2 else 2 if groups[0][0] == 0 else -2

    @classmethod
    def from_grade(cls, grade: int, shown: Sequence[int]) -> Any:
        """Return the degree for a number from 1, what is shown first is much better, to 7, what is shown second is."""
        degree = MOST_DEGREES + 1 - grade
        return degree if shown[0] == 0 else -degree

    @classmethod
    def encode(cls, answers: Sequence[Self]) -> tuple[Array, ...]:
        """Return the degrees as grades from 1, the second is much better, to 7 `(N,)`."""
        return (np.array([answer.grade for answer in answers], np.int64),)

    @classmethod
    def graded_score(cls, scores: Tensor) -> Tensor:
        """Return how much better the first is."""
        return scores[..., 0] - scores[..., 1]

    @classmethod
    def log_likelihood(cls, scores: Tensor, encoded: Sequence[Tensor], error_rate: float | Tensor) -> Tensor:
        """Return that of the cumulative logit of the difference."""
        from prefrl.likelihood import rating_log_likelihood

        grades, cut_points = encoded
        return rating_log_likelihood(cls.graded_score(scores), grades.expand(len(scores), -1), cut_points, error_rate)

    @classmethod
    def num_outcomes(cls, num_items: int, scale: int | None) -> int:
        """Return the number of degrees."""
        return 2 * MOST_DEGREES + 1

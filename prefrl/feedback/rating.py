"""Ratings: how good one is, on a scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from prefrl.errors import UserError
from prefrl.feedback.answers import Answer, Array

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST_SCALE = 2
LARGEST_SCALE = 9


@dataclass(frozen=True, kw_only=True)
class Rating(Answer):
    """The answer to a query of one."""

    kind: ClassVar[str] = "rating"
    fewest: ClassVar[int] = 1
    most: ClassVar[int] = 1
    graded: ClassVar[bool] = True
    keys: ClassVar[str] = "Press a number: 1 is worst, {scale} is best     DOWN can't tell"

    rating: int | None
    """Grade, 1 the worst, up to the query's scale. None: can't tell."""

    def __post_init__(self) -> None:
        if self.rating is not None and self.rating < 1:
            raise UserError(f"A rating must be 1 or more. Received {self.rating}")
        super().__post_init__()

    def check(self, num_items: int, scale: int | None) -> None:
        """Check that the grade is on the scale."""
        if self.rating is not None and scale is not None and self.rating > scale:
            raise UserError(f"The query {self.query_id} asks for a grade of 1 to {scale}. Received {self.rating}")

    def share_of_scale(self, scale: int) -> float | None:
        """Return 0 for the worst grade, 1 for the best; None: can't tell."""
        return None if self.rating is None else (self.rating - 1) / (scale - 1)

    def opposite(self, scale: int | None) -> Self:
        """Return the grade as far from the other end of the scale."""
        return self if self.rating is None or scale is None else self.with_value(scale + 1 - self.rating)

    @classmethod
    def encode(cls, answers: Sequence[Self]) -> tuple[Array, ...]:
        """Return the grades `(N,)`."""
        return (np.array([answer.rating for answer in answers], np.int64),)

    @classmethod
    def log_likelihood(cls, scores: Tensor, encoded: Sequence[Tensor], error_rate: float | Tensor) -> Tensor:
        """Return that of the cumulative logit (McCullagh 1980)."""
        from prefrl.likelihood import rating_log_likelihood

        grades, cut_points = encoded
        return rating_log_likelihood(scores[..., 0], grades.expand(len(scores), -1), cut_points, error_rate)

    @classmethod
    def num_outcomes(cls, num_items: int, scale: int | None) -> int:
        """Return the number of grades."""
        assert scale is not None
        return scale

    @classmethod
    def right(cls, scores: Tensor, encoded: Sequence[Tensor]) -> Tensor | None:
        """Return 1 where the grade is the likeliest."""
        import torch

        from prefrl.likelihood import rating_log_likelihood

        (grades, cut_points), sums = encoded, scores[..., 0]
        every = torch.arange(1, LARGEST_SCALE + 1, device=sums.device).view(-1, 1, 1).expand(-1, *sums.shape)
        exists = every <= (cut_points < torch.inf).sum(-1) + 1
        each = rating_log_likelihood(sums, every, cut_points)
        return (each.masked_fill(~exists, -torch.inf).argmax(0) + 1 == grades).float()

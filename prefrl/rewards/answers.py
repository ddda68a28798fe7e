"""What answers say of the sums of learned rewards: the log-likelihood of a minibatch of comparisons, rankings, ratings.

All segments of a minibatch pass through the network at once, whatever kind of answer shows them, and every kind
teaches the same ensemble. Grades need cut points, which are fitted along: one set for each member, annotator and scale,
since people use scales differently.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prefrl.feedback import LARGEST_SCALE
from prefrl.likelihood import bradley_terry_log_likelihood, ranking_log_likelihood, rating_log_likelihood
from prefrl.rewards.data import COMPARISON, RANKING, RATING, ComparisonData
from prefrl.rewards.ensemble import CHUNK, IMAGE_CHUNK, RewardEnsemble

LEAST_GAP = 1e-3  # between cut points


class CutPoints:
    """Cut points of the scales in use: ascending, fitted by gradient.

    Args:
        num_members: M.
        device: where they live.
    """

    LEARNING_RATE = 0.05

    def __init__(self, num_members: int, device: torch.device) -> None:
        self._num_members, self._device = num_members, device
        self.names: list[tuple[str, int]] = []
        self._parameters: list[Tensor] = []  # (M, C - 1) for each scale: the first, then logarithms of the gaps

    def follow(self, data: ComparisonData, ensemble: RewardEnsemble) -> None:
        """Begin the scales that are new in `data`: at the log-odds of the grades so far, around the sums so far."""
        for number in range(len(self.names), len(data.scales)):
            name, num_grades = data.scales[number]
            rows = np.flatnonzero(data.scale_of == number)
            grades = torch.from_numpy(data.grades[rows])
            with torch.no_grad():
                means = returns_of(ensemble, data, torch.from_numpy(data.rated[rows]).to(self._device)).mean(1)
            above = torch.stack([(grades > grade).sum() for grade in range(1, num_grades)]) + 0.5
            cuts = -torch.logit(above / (len(grades) + 1.0))
            gaps = cuts.diff().clamp(min=0.1).log()
            begin = means.unsqueeze(1) + cuts[0].to(self._device)
            start = torch.cat([begin, gaps.to(self._device).expand(self._num_members, -1)], dim=1)
            self.names.append((name, num_grades))
            self._parameters.append(start.requires_grad_())

    def parameters(self) -> list[Tensor]:
        """Return what the optimiser moves."""
        return self._parameters

    def table(self) -> Tensor:
        """Return the cut points of all scales `(M, scales, 8)`, +infinity where a scale has fewer."""
        rows = []
        for parameter in self._parameters:
            steps = torch.cat([parameter[:, :1], parameter[:, 1:].exp() + LEAST_GAP], dim=1)
            rest = LARGEST_SCALE - 1 - steps.shape[1]
            rows.append(torch.nn.functional.pad(steps.cumsum(1), (0, rest), value=torch.inf))
        return torch.stack(rows, dim=1)

    def state(self) -> dict[str, Any]:
        """Return names and tensors; `restore` is the inverse."""
        return {"names": [list(name) for name in self.names], "values": [p.detach().clone() for p in self._parameters]}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        self.names = [(name, num_grades) for name, num_grades in state["names"]]
        self._parameters = [value.to(self._device).requires_grad_() for value in state["values"]]


@dataclass(frozen=True)
class Batch:
    """What a minibatch of B answers came to."""

    order: Tensor
    """`(B,)` int64: number of each answer in the data; comparisons first, then rankings, then ratings."""
    log_likelihood: Tensor
    """`(M, B)`, in nats."""
    right: Tensor
    """`(M, B)` float: 1 where the answer is the likelier one (of a ranking: share of its pairs in the right order)."""
    decided: Tensor
    """`(B,)` float: 1 where an answer can be right or wrong (a tie cannot)."""


class Examples:
    """The answers of a fit as tensors on the device.

    Args:
        ensemble: the ensemble that is fitted.
        data: at least one answer.
        cut_points: of the scales in `data`.
    """

    def __init__(self, ensemble: RewardEnsemble, data: ComparisonData, cut_points: CutPoints) -> None:
        self.ensemble, self.data, self.cut_points = ensemble, data, cut_points
        device = ensemble.device
        self.counts = torch.from_numpy(data.counts).to(device).T.contiguous()  # (M, N)
        self.annotator_of = torch.from_numpy(data.annotator_of).to(device)
        self._kinds = torch.from_numpy(data.kinds).to(device)
        self._places = torch.from_numpy(data.places).to(device)
        self._pairs = torch.from_numpy(data.pairs).to(device)
        self._preferences = torch.from_numpy(data.preferences).to(device)
        self._left, self._chosen = (part.to(device) for part in _stacked_choices(data))
        self._width = self._left.shape[-1]  # K of the longest ranking
        self._ranked = torch.from_numpy(data.ranked[:, : self._width]).to(device)
        self._rated = torch.from_numpy(data.rated).to(device)
        self._grades = torch.from_numpy(data.grades).to(device)
        self._scale_of = torch.from_numpy(data.scale_of).to(device)
        self._mixed = bool((data.kinds != COMPARISON).any())

    def __len__(self) -> int:
        return len(self._kinds)

    @cached_property
    def log_num_outcomes(self) -> Tensor:
        """`(N,)`: logarithm of the number of answers that could have been given, ties aside."""
        data = self.data
        grades = torch.tensor([num_grades for _, num_grades in data.scales]).log()
        return self._by_kind(
            torch.full((len(data.pairs),), math.log(2)),
            torch.lgamma(self._left.any(1).sum(1) + 1.0).cpu(),
            grades[torch.from_numpy(data.scale_of)] if len(data.scales) else torch.zeros(0),
        )

    @cached_property
    def tied(self) -> Tensor:
        """`(N,)` bool: answers that hold a tie."""
        one_each = (self._chosen > 0).sum(-1).amax(-1) == 1 if len(self._chosen) else torch.ones(0, dtype=torch.bool)
        no_rating = torch.zeros(len(self._rated), dtype=torch.bool)
        return self._by_kind((self._preferences == 0.5).cpu(), ~one_each.cpu(), no_rating)

    def _by_kind(self, comparisons: Tensor, rankings: Tensor, ratings: Tensor) -> Tensor:
        """Return values of the answers of each kind in the order of all answers."""
        values = torch.empty(len(self), dtype=comparisons.dtype)
        for kind, of_kind in ((COMPARISON, comparisons), (RANKING, rankings), (RATING, ratings)):
            rows = self.data.kinds == kind
            values[torch.from_numpy(rows)] = of_kind[torch.from_numpy(self.data.places[rows])]
        return values.to(self.ensemble.device)

    def batch(self, chosen: Tensor, error_rates: float | Tensor) -> Batch:
        """Return what the answers numbered `chosen` `(B,)` come to.

        Args:
            chosen: numbers of answers.
            error_rates: share of random answers, one number or `(A,)` by annotator.
        """
        if not self._mixed:
            pairs = self._places[chosen]
            compared = returns_of(self.ensemble, self.data, self._pairs[pairs].flatten())
            return self._compared(chosen, pairs, compared, error_rates)
        kinds = self._kinds[chosen]
        orders = [chosen[kinds == kind] for kind in (COMPARISON, RANKING, RATING)]
        places = [self._places[order] for order in orders]
        shown = [self._pairs[places[0]].flatten(), self._ranked[places[1]].flatten(), self._rated[places[2]]]
        sums = returns_of(self.ensemble, self.data, torch.cat(shown)).split([len(part) for part in shown], dim=1)
        judges = (self._compared, self._ranking, self._rating)
        parts = [
            judge(order, place, of_kind, error_rates)
            for judge, order, place, of_kind in zip(judges, orders, places, sums, strict=True)
            if len(order)
        ]
        return Batch(
            torch.cat([part.order for part in parts]),
            torch.cat([part.log_likelihood for part in parts], dim=1),
            torch.cat([part.right for part in parts], dim=1),
            torch.cat([part.decided for part in parts]),
        )

    @torch.no_grad()
    def everything(self, error_rates: float | Tensor) -> Iterator[Batch]:
        """Return what all answers come to, part by part."""
        per_answer = self.data.length * max(2, self._width)
        size = max(1, (IMAGE_CHUNK if self.ensemble.images else CHUNK) // per_answer)
        for chosen in torch.arange(len(self), device=self.ensemble.device).split(size):
            yield self.batch(chosen, error_rates)

    def _rates(self, error_rates: float | Tensor, order: Tensor) -> float | Tensor:
        return error_rates[self.annotator_of[order]] if isinstance(error_rates, Tensor) else error_rates

    def _compared(self, order: Tensor, places: Tensor, sums: Tensor, error_rates: float | Tensor) -> Batch:
        both = sums.unflatten(1, (-1, 2))
        logits, preferences = both[..., 0] - both[..., 1], self._preferences[places]
        likelihood = bradley_terry_log_likelihood(logits, preferences, self._rates(error_rates, order))
        right = ((logits > 0) == (preferences > 0.5)).float()
        return Batch(order, likelihood, right.detach(), (preferences != 0.5).float())

    def _ranking(self, order: Tensor, places: Tensor, sums: Tensor, error_rates: float | Tensor) -> Batch:
        scores = sums.unflatten(1, (-1, self._width))
        left, chosen = self._left[places], self._chosen[places]
        likelihood = ranking_log_likelihood(scores, left, chosen, self._rates(error_rates, order))
        with torch.no_grad():
            # i was placed before j: chosen while j was left and never chosen there
            before = (chosen.unsqueeze(-1) > 0) & (left & (chosen == 0)).unsqueeze(-2)  # (B, P, K, K)
            pairs = before.any(1).float()
            agree = (scores.unsqueeze(-1) > scores.unsqueeze(-2)).float()
            num = pairs.sum((-2, -1))
            right = (agree * pairs).sum((-2, -1)) / num.clamp(min=1)
        return Batch(order, likelihood, right, (num > 0).float())

    def _rating(self, order: Tensor, places: Tensor, sums: Tensor, error_rates: float | Tensor) -> Batch:
        cuts = self.cut_points.table()[:, self._scale_of[places]]  # (M, B, 8)
        grades = self._grades[places].expand(len(sums), -1)
        likelihood = rating_log_likelihood(sums, grades, cuts, self._rates(error_rates, order))
        with torch.no_grad():
            all_grades = torch.arange(1, LARGEST_SCALE + 1, device=sums.device).view(-1, 1, 1).expand(-1, *sums.shape)
            exists = all_grades <= (cuts < torch.inf).sum(-1) + 1
            each = rating_log_likelihood(sums, all_grades.clamp(max=LARGEST_SCALE), cuts)
            right = (each.masked_fill(~exists, -torch.inf).argmax(0) + 1 == grades).float()
        return Batch(order, likelihood, right, torch.ones(len(order), device=sums.device))


def returns_of(ensemble: RewardEnsemble, data: ComparisonData, segments: Tensor) -> Tensor:
    """Return the sum of each member's raw rewards over segments by their numbers `(n,)`: `(M, n)`."""
    rewards = ensemble.network(data.features(segments))
    return rewards.reshape(ensemble.num_members, len(segments), data.length).sum(-1)


def _stacked_choices(data: ComparisonData) -> tuple[Tensor, Tensor]:
    """Return the choices of all rankings `(N, P, K)`, filled up."""
    longest = max((len(left) for left, _ in data.choices), default=0)
    shape = (len(data.choices), longest, max((left.shape[1] for left, _ in data.choices), default=0))
    left, chosen = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape)
    for row, (sets, weights) in enumerate(data.choices):
        left[row, : len(sets), : sets.shape[1]] = sets
        chosen[row, : len(sets), : sets.shape[1]] = weights.float()
    return left, chosen

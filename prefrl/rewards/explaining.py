"""How well learned rewards explain answers: the log-likelihood of a minibatch, whatever kinds of answers are in it.

All segments of a minibatch pass through the network at once, and every kind of answer teaches the same ensemble by its
own likelihood (`prefrl.feedback.Answer`). Grades need cut points, which are fitted along: one set for each member,
annotator and scale, since people use scales differently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prefrl.feedback import KINDS, LARGEST_SCALE, Answer, Rating
from prefrl.rewards.data import ComparisonData
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
        self.names: list[tuple[str, int, str]] = []  # annotator, number of grades, kind
        self._parameters: list[Tensor] = []  # (M, C - 1) for each scale: the first, then logarithms of the gaps

    def follow(self, data: ComparisonData, ensemble: RewardEnsemble) -> None:
        """Begin the scales that are new in `data`: at the log-odds of the grades so far, around the sums so far."""
        rows_of: dict[tuple[str, int, str], list[int]] = {}
        for row, (answer, num_grades) in enumerate(zip(data.answers, data.scales, strict=True)):
            if num_grades is not None:
                rows_of.setdefault((answer.annotator, num_grades, answer.kind), []).append(row)
        for name, rows in rows_of.items():
            if name in self.names:
                continue
            num_grades, kind = name[1], type(data.answers[rows[0]])
            grades = torch.tensor([data.answers[row].grade for row in rows])
            with torch.no_grad():
                items = torch.tensor([data.items[row] for row in rows], device=self._device)
                sums = returns_of(ensemble, data, items.flatten()).unflatten(1, items.shape)
                means = kind.graded_score(sums).mean(1)
            above = torch.stack([(grades > grade).sum() for grade in range(1, num_grades)]) + 0.5
            cuts = -torch.logit(above / (len(grades) + 1.0))
            gaps = cuts.diff().clamp(min=0.1).log()
            begin = means.unsqueeze(1) + cuts[0].to(self._device)
            start = torch.cat([begin, gaps.to(self._device).expand(self._num_members, -1)], dim=1)
            self.names.append(name)
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
        self.names = [
            (name, num_grades, kind[0] if kind else Rating.kind)  # of earlier runs, which had no other
            for name, num_grades, *kind in state["names"]
        ]
        self._parameters = [value.to(self._device).requires_grad_() for value in state["values"]]


@dataclass(frozen=True)
class Explained:
    """How well B answers of a minibatch are explained."""

    order: Tensor
    """`(B,)` int64: number of each answer in the data; kind after kind."""
    log_likelihood: Tensor
    """`(M, B)`, in nats."""
    right: Tensor
    """`(M, B)` float in [0, 1]: 1 where the answer is the likeliest; of several pairs the share in the right order."""
    decided: Tensor
    """`(B,)` float: 1 where an answer can be right or wrong (a tie cannot)."""


class _OfOneKind:
    """The answers of one kind as tensors on the device.

    Args:
        kind: of the answers.
        data: what holds them.
        rows: their numbers in it.
        cut_points: of the scales in `data`.
        device: where to.
    """

    def __init__(
        self, kind: type[Answer], data: ComparisonData, rows: Sequence[int], cut_points: CutPoints, device: torch.device
    ) -> None:
        self.kind, self._cut_points = kind, cut_points
        answers, items = [data.answers[row] for row in rows], [data.items[row] for row in rows]
        scales = [data.scales[row] for row in rows]
        self.width = max(map(len, items))
        self.items = torch.tensor([[*shown, *[0] * (self.width - len(shown))] for shown in items], device=device)
        missing = torch.tensor([[place >= len(shown) for place in range(self.width)] for shown in items], device=device)
        self._missing = missing if missing.any() else None
        self._encoded = [
            torch.from_numpy(part.astype(np.float32) if part.dtype.kind == "f" else part).to(device)
            for part in kind.encode(answers)
        ]
        if kind.graded:
            names = [(a.annotator, c, a.kind) for a, c in zip(answers, scales, strict=True) if c]
            numbers = [cut_points.names.index(name) for name in names]
            self._scale_of = torch.tensor(numbers, device=device)
        pairs = [answer.pairs(len(shown)) for answer, shown in zip(answers, items, strict=True)]
        outcomes = [kind.num_outcomes(len(shown), scale) for shown, scale in zip(items, scales, strict=True)]
        self.log_num_outcomes = torch.tensor(outcomes).log()  # on the CPU, as the next one
        self.tied = torch.tensor([any(p == 0.5 for _, _, p in said) for said in pairs])
        better = torch.zeros(len(rows), self.width, self.width)  # i was said to be better than j
        for row, said in enumerate(pairs):
            for i, j, preference in said:
                if preference != 0.5:
                    better[(row, i, j) if preference == 1 else (row, j, i)] = 1.0
        self._better = better.to(device)

    def explain(self, order: Tensor, places: Tensor, sums: Tensor, error_rate: float | Tensor) -> Explained:
        """Return how well summed rewards explain answers.

        Args:
            order: `(B,)`: their numbers in the data.
            places: `(B,)`: among those of the kind.
            sums: `(M, B * K)`, of their items.
            error_rate: one number or `(B,)`.
        """
        scores = sums.unflatten(1, (-1, self.width))
        if self._missing is not None:
            scores = scores.masked_fill(self._missing[places], -torch.inf)
        encoded = [part[places] for part in self._encoded]
        if self.kind.graded:
            encoded.append(self._cut_points.table()[:, self._scale_of[places]])  # (M, B, 8)
        log_likelihood = self.kind.log_likelihood(scores, encoded, error_rate)
        with torch.no_grad():
            right, better = self.kind.right(scores, encoded), self._better[places]
            num = better.sum((-2, -1))
            if right is None:
                agree = (scores.unsqueeze(-1) > scores.unsqueeze(-2)).float()
                right = (agree * better).sum((-2, -1)) / num.clamp(min=1)
        decided = torch.ones_like(num) if self.kind.graded and self.width == 1 else (num > 0).float()
        return Explained(order, log_likelihood, right, decided)


class Examples:
    """The answers of a fit as tensors on the device.

    Args:
        ensemble: the ensemble that is fitted.
        data: at least one answer.
        cut_points: of the scales in `data`.
    """

    def __init__(self, ensemble: RewardEnsemble, data: ComparisonData, cut_points: CutPoints) -> None:
        self.ensemble, self.data = ensemble, data
        device = ensemble.device
        self.counts = torch.from_numpy(data.counts).to(device).T.contiguous()  # (M, N)
        number_of = {name: number for number, name in enumerate(data.annotators)}
        self.annotator_of = torch.tensor([number_of[answer.annotator] for answer in data.answers], device=device)
        kinds = _in_order({type(answer) for answer in data.answers})
        rows = [[row for row, answer in enumerate(data.answers) if type(answer) is kind] for kind in kinds]
        self._kinds = [_OfOneKind(kind, data, mine, cut_points, device) for kind, mine in zip(kinds, rows, strict=True)]
        kind_of, places = torch.empty(len(data), dtype=torch.int64), torch.empty(len(data), dtype=torch.int64)
        for number, mine in enumerate(rows):
            kind_of[mine], places[mine] = number, torch.arange(len(mine))
        self._kind_of, self._places = kind_of.to(device), places.to(device)

    def __len__(self) -> int:
        return len(self.data)

    @cached_property
    def log_num_outcomes(self) -> Tensor:
        """`(N,)`: logarithm of the number of answers that could have been given, ties aside."""
        return self._of_all([kind.log_num_outcomes for kind in self._kinds])

    @cached_property
    def tied(self) -> Tensor:
        """`(N,)` bool: answers that hold a tie."""
        return self._of_all([kind.tied for kind in self._kinds])

    def _of_all(self, parts: Sequence[Tensor]) -> Tensor:
        """Return values of the answers of each kind in the order of all answers."""
        values = torch.empty(len(self), dtype=parts[0].dtype)
        for number, part in enumerate(parts):
            values[(self._kind_of == number).cpu()] = part
        return values.to(self.ensemble.device)

    def batch(
        self, chosen: Tensor, error_rates: float | Tensor, windows: Callable[[int], Tensor] | None = None
    ) -> Explained:
        """Return how well the answers numbered `chosen` `(B,)` are explained.

        Args:
            chosen: numbers of answers.
            error_rates: share of random answers, one number or `(A,)` by annotator.
            windows: returns which steps of n segments count `(n, k)`, 1 or 0; None: all.
        """
        orders = [chosen]
        if len(self._kinds) > 1:
            kind_of = self._kind_of[chosen]
            orders = [chosen[kind_of == number] for number in range(len(self._kinds))]
        places = [self._places[order] for order in orders]
        shown = [kind.items[place].flatten() for kind, place in zip(self._kinds, places, strict=True)]
        segments = torch.cat(shown)
        window = None if windows is None else windows(len(segments))
        sums = returns_of(self.ensemble, self.data, segments, window).split([len(part) for part in shown], dim=1)
        parts = [
            kind.explain(order, place, of_kind, self._rates(error_rates, order))
            for kind, order, place, of_kind in zip(self._kinds, orders, places, sums, strict=True)
            if len(order)
        ]
        if len(parts) == 1:
            return parts[0]
        return Explained(
            torch.cat([part.order for part in parts]),
            torch.cat([part.log_likelihood for part in parts], dim=1),
            torch.cat([part.right for part in parts], dim=1),
            torch.cat([part.decided for part in parts]),
        )

    @torch.no_grad()
    def everything(self, error_rates: float | Tensor) -> Iterator[Explained]:
        """Return how well all answers are explained, part by part."""
        per_answer = self.data.length * max(2, *(kind.width for kind in self._kinds))
        size = max(1, (IMAGE_CHUNK if self.ensemble.images else CHUNK) // per_answer)
        for chosen in torch.arange(len(self), device=self.ensemble.device).split(size):
            yield self.batch(chosen, error_rates)

    def _rates(self, error_rates: float | Tensor, order: Tensor) -> float | Tensor:
        return error_rates[self.annotator_of[order]] if isinstance(error_rates, Tensor) else error_rates


def _in_order(kinds: set[type[Answer]]) -> list[type[Answer]]:
    """Return kinds in an order that is the same in every process: those of this package, then those of users."""
    known = [kind for kind in KINDS.values() if kind in kinds]
    return known + sorted(kinds - set(known), key=lambda kind: kind.__qualname__)


def returns_of(
    ensemble: RewardEnsemble, data: ComparisonData, segments: Tensor, window: Tensor | None = None
) -> Tensor:
    """Return the sum of each member's raw rewards over segments by their numbers `(n,)`: `(M, n)`.

    Args:
        ensemble: whose.
        data: that holds the segments.
        segments: their numbers.
        window: which of their steps count `(n, k)`, 1 or 0; None: all.
    """
    rewards = ensemble.network(data.features(segments))
    rewards = rewards.reshape(ensemble.num_members, len(segments), data.length)
    return (rewards if window is None else rewards * window).sum(-1)

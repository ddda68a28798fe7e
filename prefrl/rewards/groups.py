"""Annotators who want different things: which group each belongs to, estimated along with the groups' rewards.

A mixture over annotators (Chakraborty et al. 2024, MaxMin-RLHF; Dempster, Laird and Rubin 1977): each group has members
of the ensemble of its own, each annotator belongs to each group with a probability, and an answer counts for a group's
members as much as its annotator belongs to the group. After every fit the probabilities are set to what the groups'
rewards say of each annotator's answers.

Two choices of ours. Networks that have not learned anything cannot tell groups apart, and which group is which must be
decided before anything can be learned: the first probabilities are those of a mixture of linear rewards of simple
features of the segments (`prefrl.theory.groups`). And a network can learn answers by heart: members judge only answers
that were held out of them, the same ones in each group.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prefrl.rewards.data import ComparisonData
from prefrl.rewards.explaining import Examples
from prefrl.theory.groups import fit_mixture, main_directions

LEAST = 0.02  # probability of belonging to any group: nobody is given up
DIRECTIONS = 8  # of the features that groups are first told apart by
POOLED = 6  # rows and columns of an image there


class Groups:
    """How far each annotator belongs to each group, by name.

    Args:
        num_groups: G.
    """

    def __init__(self, num_groups: int) -> None:
        self.num_groups = num_groups
        self.belongs: dict[str, list[float]] = {}

    def shares(self) -> Tensor:
        """Return the share of annotators in each group `(G,)` float32; equal ones before anything is known."""
        if not self.belongs:
            return torch.full((self.num_groups,), 1 / self.num_groups)
        return torch.tensor(list(self.belongs.values())).mean(0)

    def of(self, name: str) -> Tensor:
        """Return how far an annotator belongs to each group `(G,)` float32; one unknown as the others do."""
        return torch.tensor(self.belongs[name]) if name in self.belongs else self.shares()

    def served(self, serve: str) -> Tensor:
        """Return the weights of the groups `(G,)`: those of the group of an annotator, or by shares."""
        return self.shares() if serve in ("shares", "worst") else self.of(serve)

    def begin(self, data: ComparisonData, seed: int) -> None:
        """Tell annotators apart for the first time, once there are as many as groups who said which is better."""
        if self.belongs:
            return
        pairs, owners = _pairs(data)
        known = [name for number, name in enumerate(data.annotators) if number in owners]
        if len(known) < self.num_groups:
            return
        answers = [pairs[owners == number] for number in np.unique(owners)]
        found = fit_mixture(answers, self.num_groups, np.random.default_rng(seed))
        self.belongs = {name: _held(row) for name, row in zip(known, found.belongs, strict=True)}

    def weights(self, examples: Examples) -> Tensor:
        """Return how much each answer counts for each member `(M, N)`, beside its count."""
        by_name = torch.stack([self.of(name) for name in examples.data.annotators]).to(examples.counts.device)
        of_each = examples.ensemble.num_members // self.num_groups
        return by_name[examples.annotator_of].T.repeat_interleave(of_each, dim=0)

    @torch.no_grad()
    def update(self, examples: Examples, error_rates: float | Tensor) -> None:
        """Set how far each annotator belongs where, by the ensemble as it is now; nothing before `begin` did."""
        if not self.belongs:
            return
        network, counts = examples.ensemble.network, examples.counts
        training = network.training
        network.eval()
        likely = torch.empty_like(counts)
        for batch in examples.everything(error_rates):
            likely[:, batch.order] = batch.log_likelihood
        network.train(training)
        judges = (counts == 0).float() if examples.data.holds_out else torch.ones_like(counts)
        likely, judges = (part.unflatten(0, (self.num_groups, -1)) for part in (likely, judges))
        by_group = (likely * judges).sum(1) / judges.sum(1).clamp(min=1.0)  # (G, N), 0 where nobody judges
        prior = self.shares().clamp(min=LEAST).log().to(by_group.device)
        for number, name in enumerate(examples.data.annotators):
            mine = examples.annotator_of == number
            self.belongs[name] = _held(torch.softmax(prior + by_group[:, mine].sum(1), dim=0).tolist())

    def rounded(self) -> dict[str, list[float]]:
        """Return how far each belongs where, for reports."""
        return {name: [round(value, 4) for value in row] for name, row in sorted(self.belongs.items())}

    def state(self) -> dict[str, Any]:
        """Return everything; `restore` is the inverse."""
        return {name: list(row) for name, row in self.belongs.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        self.belongs = {name: list(row) for name, row in state.items()}


def _held(row: Any) -> list[float]:
    """Return probabilities of at least `LEAST` that sum to 1."""
    held = np.maximum(np.asarray(row, np.float64), LEAST)
    total = math.fsum(held)
    return [float(value) / total for value in held]


def _pairs(data: ComparisonData) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return features of pairs that were answered, `(n, 2, d)`, the better first, and the number of who answered."""
    number_of = {name: number for number, name in enumerate(data.annotators)}
    better, worse, owners = [], [], []
    for answer, items in zip(data.answers, data.items, strict=True):
        for i, j, preference in answer.pairs(len(items)):
            if preference != 0.5:
                first, second = (items[i], items[j]) if preference == 1 else (items[j], items[i])
                better.append(first)
                worse.append(second)
                owners.append(number_of[answer.annotator])
    if not owners:
        return np.zeros((0, 2, 1)), np.zeros(0, np.int64)
    shown = sorted({*better, *worse})
    place = {segment: number for number, segment in enumerate(shown)}
    table = np.stack([_summary(data, segment) for segment in shown])
    pairs = np.stack([table[[place[one] for one in better]], table[[place[one] for one in worse]]], axis=1)
    return main_directions(pairs, DIRECTIONS), np.array(owners)


def _summary(data: ComparisonData, segment: int) -> np.ndarray[Any, Any]:
    """Return means and mean squares of what a segment shows, of images in small."""
    features = data.features(torch.tensor([segment], device=data.ensemble.device))
    parts = []
    if features.vector is not None:
        parts += [features.vector.mean(0), features.vector.square().mean(0)]
    if features.images is not None:
        small = torch.nn.functional.adaptive_avg_pool2d(features.images.float() / 255, POOLED).flatten(1)
        parts += [small.mean(0), small.square().mean(0)]
    return torch.cat(parts).double().cpu().numpy()

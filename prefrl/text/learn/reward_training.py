"""Fitting a reward model to rankings, and judging it on rankings it has not seen."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prefrl.errors import UserError
from prefrl.runs.optimisation import Optimiser, OptimiserSettings
from prefrl.runs.streams import stream
from prefrl.runs.trainer import Epochs, Metrics, ModelTrainer, micro_batches
from prefrl.text.data.examples import Encoder, RankedResponses
from prefrl.text.learn.losses import grouped_reward_loss
from prefrl.text.learn.reward_model import RewardModel
from prefrl.text.learn.runtime import Runtime
from prefrl.text.model.options import NoOption
from prefrl.text.model.sequences import make_sequences
from prefrl.text.model.tokens import end_ids_of

CALIBRATION_BINS = 10


@dataclass(frozen=True, kw_only=True)
class RewardTrainingSettings:
    """Fitting one reward model; one epoch, more overfits (InstructGPT, app. C.2).

    Raises:
        UserError: a value out of its range.
    """

    epochs: int = 1
    batch_size: int = 16
    """Prompts; all responses to one are in the same forward pass."""
    micro_batch_size: int = 0
    """So many of them go through the model at once, the gradients adding up to those of the batch; 0: all. Smaller, it
    takes less memory."""
    plackett_luce: bool = False
    """The likelihood of whole orders instead of that of all pairs."""
    bootstrap: bool = False
    """Fit to prompts drawn with replacement, as members of an ensemble are."""
    optimiser: OptimiserSettings = field(
        default_factory=lambda: OptimiserSettings(learning_rate=9e-6, warmup_share=0.03, decay="cosine", adam_eps=1e-8)
    )
    seed: NoOption[int] = 0
    """In a run 0 means that of --seed."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or self.micro_batch_size < 0:
            raise UserError("epochs and batch_size must be at least 1, micro_batch_size at least 0.")


@dataclass(frozen=True, kw_only=True)
class EncodedRanking:
    """A ranking as token ids."""

    prompt: list[int]
    responses: list[list[int]]
    ranks: list[int]
    text: str
    """The prompt as it was written."""


def encode_rankings(encoder: Encoder, rankings: Sequence[RankedResponses]) -> list[EncodedRanking]:
    """Return the ids of rankings that fit; how many are left out is said.

    A reward is read at the end token, where every response that a policy draws ends: what a chat template puts
    behind it is left out here.

    Raises:
        UserError: there are none, or a text is too long and such ones are refused.
    """
    if not rankings:
        raise UserError("There are no rankings to learn from; the data set is empty.")
    ends = end_ids_of(encoder.tokens)
    rows = encoder.rows([(ranking.prompt, ranking.responses) for ranking in rankings])
    return [
        EncodedRanking(
            prompt=row.prompt,
            responses=[until_end(response, ends) for response in row.responses],
            ranks=list(ranking.ranks),
            text=ranking.prompt,
        )
        for ranking, row in zip(rankings, rows, strict=True)
        if row is not None
    ]


def until_end(response: list[int], ends: Collection[int]) -> list[int]:
    """Return the ids of a response up to its last end token; all where it has none."""
    last = next((place for place in range(len(response), 0, -1) if response[place - 1] in ends), len(response))
    return response[:last]


class RewardTrainer(ModelTrainer):
    """Fits a reward model (InstructGPT, Eq. 1).

    All responses to a prompt are in one forward pass and all their pairs in one batch; each prompt weighs the same,
    whatever its number of responses.

    Args:
        model: trained in place, without dropout.
        data: rankings.
        settings: of the run.
        pad_id: fills up the arrays.
        runtime: device and processes.
    """

    def __init__(
        self,
        model: RewardModel,
        data: Sequence[EncodedRanking],
        settings: RewardTrainingSettings,
        *,
        pad_id: int,
        runtime: Runtime,
    ) -> None:
        super().__init__()
        if not data:
            raise UserError("There are no rankings to learn from; the data set is empty.")
        self.name = "reward model"
        if settings.bootstrap:
            drawn = stream(settings.seed, "bootstrap").integers(len(data), size=len(data))
            data = [data[int(i)] for i in drawn]
        self.model, self.data, self.settings, self.pad_id, self.runtime = model, data, settings, pad_id, runtime
        runtime.shard(model)
        self._epochs = Epochs(len(data), settings.batch_size, settings.seed, "reward")
        self.total_steps = settings.epochs * self._epochs.steps_per_epoch
        self.optimiser = Optimiser(model.parameters(), settings.optimiser, self.total_steps, runtime)

    def step(self) -> Metrics:
        """Make one update on one batch of prompts."""
        index = self._epochs.batch(self.num_steps)
        loss, scores = (torch.zeros((), device=self.runtime.device) for _ in range(2))
        parts = micro_batches(self.runtime.share(index), self.settings.micro_batch_size)
        idle = self.runtime.idle_parts(len(parts))
        for part in parts:
            of_part, of_scores = self._add_gradient([self.data[i] for i in part], len(index))
            loss, scores = loss + of_part, scores + of_scores
        for _ in range(idle):
            self._add_gradient([self.data[index[0]]], len(index), weight=0.0)
        norm = self.optimiser.step()
        self.num_steps += 1
        self.num_examples += len(index)
        num_responses = sum(len(self.data[i].responses) for i in index)
        figures = self.runtime.total(torch.stack([loss, scores / num_responses])).tolist()
        return {"loss": figures[0], "score": figures[1], "grad_norm": norm}

    def _add_gradient(
        self, rows: Sequence[EncodedRanking], num_prompts: int, weight: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of some prompts of a batch of `num_prompts`, and the sum of their scores, `()` each."""
        prompts = [row.prompt for row in rows for _ in row.responses]
        responses = [response for row in rows for response in row.responses]
        device = self.runtime.device
        ranks = torch.tensor([rank for row in rows for rank in row.ranks], device=device)
        groups = torch.tensor([g for g, row in enumerate(rows) for _ in row.responses], device=device)
        batch = make_sequences(prompts, responses, self.pad_id).to(device)
        with self.runtime.autocast():
            scores = self.model(batch)
            losses = grouped_reward_loss(scores, ranks, groups, plackett_luce=self.settings.plackett_luce)
            loss = losses.sum() / num_prompts
        (weight * loss).backward()
        return loss.detach(), scores.detach().sum()


@dataclass(frozen=True, kw_only=True)
class RewardReport:
    """How well a reward predicts rankings it was not fitted to."""

    accuracy: float
    """Share of pairs that it orders as the annotator did; equal scores count half."""
    loss: float
    """Cross-entropy of pairs, in nats; ln 2 = 0.693 is that of a coin."""
    calibration_error: float
    """Mean distance of the predicted probability from the share of answers, over bins of equal width, each pair both
    ways round."""
    bins: tuple[tuple[float, float, int], ...]
    """Mean predicted probability that the first is better, share of answers that said so, number of pairs
    (each twice, both ways round)."""
    num_pairs: int

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        names = ("accuracy", "loss", "calibration_error", "num_pairs")
        return {name: getattr(self, name) for name in names} | {"bins": [list(row) for row in self.bins]}


def judge_reward(scores: Sequence[NDArray[np.float64]], ranks: Sequence[Sequence[int]]) -> RewardReport:
    """Compare scores with held-out rankings, pair by pair; ties of the annotator are left out.

    Args:
        scores: for each prompt `(K,)` scores of its responses.
        ranks: for each prompt the annotator's ranks, 0 is best.

    Raises:
        UserError: there is no pair without a tie.
    """
    margins, answers = [], []
    for own, order in zip(scores, ranks, strict=True):
        for i in range(len(own)):
            for j in range(i + 1, len(own)):
                if order[i] != order[j]:
                    margins.append(own[i] - own[j])
                    answers.append(float(order[i] < order[j]))
    if not margins:
        raise UserError("No two held-out responses are ranked apart; a reward cannot be judged on ties alone.")
    margin, answer = np.array(margins), np.array(answers)
    probability = 1 / (1 + np.exp(-np.clip(margin, -60, 60)))
    right = np.where(margin == 0, 0.5, (margin > 0) == (answer > 0.5))
    loss = np.logaddexp(0, np.where(answer > 0.5, -margin, margin)).mean()
    # Each pair both ways round: files put the better one first, and no model should have to predict that.
    probability, answer = np.concatenate([probability, 1 - probability]), np.concatenate([answer, 1 - answer])
    place = np.minimum((probability * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    bins, error = [], 0.0
    for b in range(CALIBRATION_BINS):
        inside = place == b
        if inside.any():
            bins.append((float(probability[inside].mean()), float(answer[inside].mean()), int(inside.sum())))
            error += abs(bins[-1][0] - bins[-1][1]) * inside.mean()
    return RewardReport(
        accuracy=float(right.mean()),
        loss=float(loss),
        calibration_error=float(error),
        bins=tuple(bins),
        num_pairs=len(margin),
    )


def score_rankings(model: RewardModel, data: Sequence[EncodedRanking], pad_id: int) -> list[NDArray[np.float64]]:
    """Return for each ranking the scores of its responses."""
    flat = model.score(
        [row.prompt for row in data for _ in row.responses], [r for row in data for r in row.responses], pad_id
    )
    ends = np.cumsum([len(row.responses) for row in data])[:-1]
    return list(np.split(flat.numpy().astype(np.float64), ends))

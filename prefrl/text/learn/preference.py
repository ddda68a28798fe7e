"""Learning a policy from preferences without a reward model: DPO, DPO for rankings, IPO, SimPO, KTO.

The log-probabilities of the reference are computed once, before training (SimPO learns without it, but tells of it).
With DPO the log-probabilities of chosen and rejected responses may both fall: the loss sees their difference alone, and
raising one response of a language model is easiest by moving probability to texts that neither is. `docs/text.md` says
more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from prefrl.errors import UserError
from prefrl.runs.optimisation import Optimiser, OptimiserSettings
from prefrl.runs.streams import stream
from prefrl.runs.trainer import Epochs, Metrics, ModelTrainer, micro_batches
from prefrl.text.data.examples import Encoder, Liked, RankedResponses, check_no_ties, texts_of
from prefrl.text.learn.losses import (
    dpo_loss,
    dpo_ranking_loss,
    ipo_loss,
    kto_loss,
    kto_reference_point,
    kto_weights,
    simpo_loss,
)
from prefrl.text.learn.runtime import Runtime
from prefrl.text.model.options import NoOption
from prefrl.text.model.sequences import make_sequences, response_log_probs, sequence_log_probs

Method = Literal["dpo", "ipo", "simpo", "kto"]
REFERENCE_BATCH = 64
"""Responses of which the reference gives log-probabilities at once, at most."""
ROUNDING_NATS = 1e-4
"""Two implicit rewards that differ by less are a tie: at the first step all are, up to rounding."""


@dataclass(frozen=True, kw_only=True)
class PreferenceSettings:
    """A policy from preferences.

    Raises:
        UserError: a value out of its range.
    """

    method: NoOption[Method] = "dpo"
    beta: float = 0.1
    """Strength of the tie to the reference; tau of IPO; of SimPO the scale of the mean log-probabilities."""
    gamma: float = 0.0
    """Margin by which the better mean log-probability, times beta, should lead (SimPO)."""
    rankings: bool = False
    """DPO on whole rankings under Plackett-Luce instead of their pairs."""
    mean_log_probs: bool = False
    """IPO on means per token instead of sums."""
    label_smoothing: float = 0.0
    """Share of answers taken to be wrong (DPO, where it is called conservative, and SimPO)."""
    epochs: int = 1
    batch_size: int = 32
    """Pairs, rankings or likes."""
    micro_batch_size: int = 0
    """So many of them go through the model at once, the gradients adding up to those of the batch; 0: all. Smaller, it
    takes less memory."""
    optimiser: OptimiserSettings = field(
        default_factory=lambda: OptimiserSettings(learning_rate=1e-6, warmup_share=0.1, decay="linear", adam_eps=1e-8)
    )
    seed: NoOption[int] = 0
    """In a run 0 means that of --seed."""

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise UserError(f"method must be one of {', '.join(get_args(Method))}. Received {self.method!r}")
        if not 0 < self.beta < math.inf:
            raise UserError(f"beta must be above 0. Received {self.beta}")
        if self.epochs < 1 or self.batch_size < 1 or self.micro_batch_size < 0:
            raise UserError("epochs and batch_size must be at least 1, micro_batch_size at least 0.")
        if self.rankings and self.method != "dpo":
            raise UserError(f"Whole rankings are for dpo; {self.method} learns from pairs or likes.")
        if self.mean_log_probs and self.method != "ipo":
            raise UserError(f"mean_log_probs is for ipo; {self.method} is defined on sums.")
        if not 0 <= self.label_smoothing < 0.5:
            raise UserError(f"label_smoothing must be in [0, 0.5). Received {self.label_smoothing}")
        if self.label_smoothing and (self.method not in ("dpo", "simpo") or self.rankings):
            raise UserError("label_smoothing is for dpo on pairs, and for simpo.")
        if not 0 <= self.gamma < math.inf or (self.gamma and self.method != "simpo"):
            raise UserError(f"gamma is for simpo, and at least 0. Received {self.gamma}")


def simpo_settings() -> PreferenceSettings:
    """Return the settings of SimPO (Meng et al. 2024, s. 3: beta 2, gamma 1; learning rates are those of DPO)."""
    return PreferenceSettings(method="simpo", beta=2.0, gamma=1.0)


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Responses that stand in one loss together: a pair, a ranking, or one liked or disliked response."""

    prompt: list[int]
    members: tuple[int, ...]
    """Numbers of responses, best first."""
    liked: bool = True


class PreferenceTrainer(ModelTrainer):
    """Trains a policy on rankings (DPO, IPO, SimPO) or on likes (KTO).

    Args:
        model: the policy, trained in place without dropout; as it is now, it is the reference.
        encoder: turns strings into ids.
        data: rankings, or likes for KTO.
        settings: of the run.
        runtime: device and processes.

    Raises:
        UserError: no data, or of the wrong kind.
    """

    def __init__(
        self,
        model: Any,
        encoder: Encoder,
        data: Sequence[RankedResponses] | Sequence[Liked],
        settings: PreferenceSettings,
        *,
        runtime: Runtime,
    ) -> None:
        super().__init__()
        self.name = settings.method
        self.model, self.settings, self.runtime, self.pad_id = model, settings, runtime, encoder.tokens.pad_id
        self._prompts: list[list[int]] = []  # of each response
        self._responses: list[list[int]] = []
        self._groups = self._read(encoder, data)
        runtime.shard(model)
        self._reference = self._reference_log_probs(self._prompts, self._responses)
        self._mismatched: list[tuple[list[int], float]] = []
        if settings.method == "kto":
            self._prepare_likes()
        self._epochs = Epochs(len(self._groups), settings.batch_size, settings.seed, "preferences")
        self.total_steps = settings.epochs * self._epochs.steps_per_epoch
        self.optimiser = Optimiser(model.parameters(), settings.optimiser, self.total_steps, runtime)

    def _read(self, encoder: Encoder, data: Sequence[RankedResponses] | Sequence[Liked]) -> list[_Group]:
        groups: list[_Group] = []
        wanted = Liked if self.settings.method == "kto" else RankedResponses
        for item in data:
            if not isinstance(item, wanted):
                raise UserError(
                    f"{self.settings.method} learns from {wanted.__name__} items. Received {type(item).__name__}"
                )
        if self.settings.rankings:
            check_no_ties([item for item in data if isinstance(item, RankedResponses)])
        rows = encoder.rows([(item.prompt, texts_of(item)) for item in data])
        for item, row in zip(list[Any](data), rows, strict=True):
            if row is None:
                continue
            start = len(self._responses)
            self._prompts += [row.prompt] * len(row.responses)
            self._responses += row.responses
            if isinstance(item, Liked):
                groups.append(_Group(prompt=row.prompt, members=(start,), liked=item.liked))
            elif self.settings.rankings:
                groups.append(_Group(prompt=row.prompt, members=tuple(start + i for i in item.order())))
            else:
                groups += [_Group(prompt=row.prompt, members=(start + i, start + j)) for i, j in item.pairs()]
        if not groups:
            raise UserError("There are no preferences to learn from; the data set is empty, or holds ties only.")
        return groups

    def _reference_log_probs(self, prompts: Sequence[list[int]], responses: Sequence[list[int]]) -> Tensor:
        with self.runtime.autocast():
            size = self.settings.micro_batch_size or min(REFERENCE_BATCH, self.settings.batch_size)
            return sequence_log_probs(self.model, prompts, responses, pad_id=self.pad_id, batch_size=size)

    def _prepare_likes(self) -> None:
        num_liked = sum(group.liked for group in self._groups)
        self._weights = kto_weights(num_liked, len(self._groups) - num_liked)
        # Each prompt with the response to another, fixed for the run: what the reference point is measured on.
        count = len(self._groups)
        shift = int(stream(self.settings.seed, "mismatch").integers(1, count)) if count > 1 else 0
        others = [self._responses[(i + shift) % count] for i in range(count)]
        reference = self._reference_log_probs(self._prompts, others)
        self._mismatched = list(zip(others, reference.tolist(), strict=True))

    def step(self) -> Metrics:
        """Make one update on one batch."""
        index = self._epochs.batch(self.num_steps)
        kto = self.settings.method == "kto"
        parts = micro_batches(self.runtime.share(index), self.settings.micro_batch_size)
        idle = [index[:1]] * self.runtime.idle_parts(len(parts))
        z0 = self._reference_point(parts, len(index), idle) if kto else None
        sums = _Sums()
        for part in parts:
            with self.runtime.autocast():
                losses = self._ranked(part, sums) if z0 is None else self._kto(part, z0, sums)
            (losses.sum() / len(index)).backward()
            sums.add("loss", losses)
        for part in idle:
            with self.runtime.autocast():
                losses = self._ranked(part, _Sums()) if z0 is None else self._kto(part, z0, _Sums())
            (0.0 * losses.sum()).backward()
        norm = self.optimiser.step()
        self.num_steps += 1
        self.num_examples += len(index)
        names = ("loss", *FIGURES) if kto else ("loss", *FIGURES, "accuracy")
        figures = self.runtime.means({name: sums.of(name) for name in names})
        more = {} if z0 is None else {"kl_reference_nats": z0.item()}
        return figures | more | {"grad_norm": norm}

    def _log_probs(self, members: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the policy's and the reference's log-probabilities of responses, and their lengths, `(N,)` each."""
        prompts, responses = [self._prompts[i] for i in members], [self._responses[i] for i in members]
        batch = make_sequences(prompts, responses, self.pad_id).to(self.runtime.device)
        policy = response_log_probs(self.model, batch).sum(1)
        return policy, self._reference[torch.tensor(members)].to(policy.device), batch.lengths

    def _ranked(self, index: Sequence[int], sums: _Sums) -> Tensor:
        """Return the losses of some groups."""
        members = [self._groups[i].members for i in index]
        flat = sorted({m for group in members for m in group})  # a response in several pairs is read once
        place = {m: i for i, m in enumerate(flat)}
        policy, reference, lengths = self._log_probs(flat)
        rho = policy - reference
        # SimPO compares log-probabilities as they are, per token; the others what has become of the reference's.
        compared = policy / lengths if self.settings.method == "simpo" else rho
        sizes = {len(group) for group in members}
        losses = []
        for size in sizes:
            rows = torch.tensor(
                [[place[m] for m in group] for group in members if len(group) == size], device=rho.device
            )
            losses.append(self._loss(compared[rows], lengths[rows]))
        best = torch.tensor([place[group[0]] for group in members], device=rho.device)
        worst = torch.tensor([place[group[-1]] for group in members], device=rho.device)
        sums.add_both(policy, self.settings.beta * rho, best, worst)
        apart = (compared[best] - compared[worst]).detach()
        sums.add("accuracy", torch.where(apart.abs() > ROUNDING_NATS, (apart > 0).float(), 0.5))
        return torch.cat(losses)

    def _loss(self, rho: Tensor, lengths: Tensor) -> Tensor:
        settings = self.settings
        if settings.method == "simpo":  # rho is a mean log-probability there
            smoothing = settings.label_smoothing
            return simpo_loss(rho[:, 0], rho[:, 1], settings.beta, settings.gamma, label_smoothing=smoothing)
        if settings.rankings:
            return dpo_ranking_loss(rho, settings.beta)
        if settings.method == "dpo":
            return dpo_loss(rho[:, 0], rho[:, 1], settings.beta, label_smoothing=settings.label_smoothing)
        if settings.mean_log_probs:
            rho = rho / lengths
        return ipo_loss(rho[:, 0], rho[:, 1], settings.beta)

    @torch.no_grad()
    def _reference_point(self, parts: Sequence[Sequence[int]], num_likes: int, idle: Sequence[Sequence[int]]) -> Tensor:
        """Return z0, `()`: over the whole batch, of which these are this process's parts; idle ones count nothing."""
        total = torch.zeros((), device=self.runtime.device)
        for number, index in enumerate([*parts, *idle]):
            others = make_sequences(
                [self._prompts[i] for i in index], [self._mismatched[i][0] for i in index], self.pad_id
            ).to(self.runtime.device)
            theirs = torch.tensor([self._mismatched[i][1] for i in index], device=self.runtime.device)
            with self.runtime.autocast():
                found = (response_log_probs(self.model, others).sum(1) - theirs).sum()
            total += found if number < len(parts) else 0.0
        return kto_reference_point(self.runtime.total(total)[None] / num_likes)

    def _kto(self, index: Sequence[int], z0: Tensor, sums: _Sums) -> Tensor:
        """Return the losses of some likes and dislikes."""
        policy, reference, _ = self._log_probs(index)
        rho = policy - reference
        liked = torch.tensor([self._groups[i].liked for i in index], device=rho.device)
        desirable, undesirable = self._weights
        sums.add_both(policy, self.settings.beta * rho, liked, ~liked)
        return kto_loss(rho, liked, z0, self.settings.beta, desirable_weight=desirable, undesirable_weight=undesirable)


FIGURES = ("chosen_log_prob", "rejected_log_prob", "chosen_reward", "rejected_reward")


class _Sums:
    """Sums of figures and how many they are of, over the parts of a batch."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor | float, int]] = {}

    def add(self, name: str, values: Tensor) -> None:
        """Add `(N,)` values."""
        total, count = self.of(name)
        self._sums[name] = total + values.detach().sum(), count + len(values)

    def add_both(self, log_probs: Tensor, rewards: Tensor, chosen: Tensor, rejected: Tensor) -> None:
        """Add log-probabilities and implicit rewards `(N,)` of the chosen and the rejected, by their places."""
        for name, rows in (("chosen", chosen), ("rejected", rejected)):
            self.add(f"{name}_log_prob", log_probs[rows])
            self.add(f"{name}_reward", rewards[rows])

    def of(self, name: str) -> tuple[Tensor | float, int]:
        """Return a sum, `()`, and its count."""
        return self._sums.get(name, (0.0, 0))

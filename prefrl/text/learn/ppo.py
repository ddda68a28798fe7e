"""PPO for language models, with a per-token KL penalty, and PPO-ptx.

A prompt is the state, the whole response the action; the tokens of a response share one episode of gamma 1. The score
lands on the last token, the penalty -beta (log pi - log pi_ref) on each (Ziegler et al. 2019; Stiennon et al. 2020; the
details are those of Huang et al. 2024). PPO-ptx adds the gradient of gamma_ptx E_pretrain[log pi] (InstructGPT, Eq. 2);
here E is the mean per *token* of a batch of pretraining blocks, while the policy's loss is a mean per response token.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from prefrl.envs.text_rewards import TextReward, score_responses
from prefrl.errors import UserError
from prefrl.runs import State
from prefrl.runs.streams import stream_seed
from prefrl.text.data.examples import Encoder
from prefrl.text.learn import ppo_terms as terms
from prefrl.text.learn.end_watch import EndWatch
from prefrl.text.learn.optimisation import Optimiser, OptimiserSettings
from prefrl.text.learn.reward_model import ModelReward, RewardModel
from prefrl.text.learn.runtime import Runtime
from prefrl.text.learn.sft import TokenPair, add_language_gradient
from prefrl.text.learn.trainer import Epochs, Metrics, TextTrainer, micro_batches
from prefrl.text.model.generation import SamplingSettings, decode_response, sample
from prefrl.text.model.lanes import Lanes
from prefrl.text.model.lora import has_adapters, reference_of
from prefrl.text.model.options import NoOption
from prefrl.text.model.sequences import Sequences, response_log_probs
from prefrl.text.model.tokens import end_ids_of

PARTS = 4  # parts of similar length in a minibatch
_Parts = dict[str, tuple[Tensor, Tensor | int]]
"""Figures as sums over the episodes of this process, each with what it is of."""


@dataclass(frozen=True, kw_only=True)
class TextPPOSettings:
    """PPO; the defaults are those of Huang et al. 2024 for summaries, in episodes instead of their 1,000,000.

    Raises:
        UserError: a value out of its range, or sampling that changes the distribution.
    """

    episodes: int = 10_000
    batch_size: int = 64
    """Episodes between updates of the sampling policy."""
    minibatch_size: int = 64
    """Episodes of an update. Smaller than the batch, it takes less memory, and one forward pass more."""
    micro_batch_size: int = 0
    """At most so many episodes go through a model at once, the gradients adding up to those of the update; 0: a quarter
    of the minibatch."""
    epochs: int = 4
    beta: float = 0.05
    """Weight of the KL penalty; the first one if it adapts."""
    adaptive_kl_nats: float | None = None
    """Adapt beta so that the KL of a response stays near this (Ziegler et al. 2019: 6); None: beta is fixed."""
    adaptive_kl_horizon: int = 10_000
    """Episodes."""
    gae_lambda: float = 0.95
    clip: float = 0.2
    """Of the ratio."""
    value_clip: float = 0.2
    value_coefficient: float = 0.1
    whiten_rewards: bool = True
    whiten_advantages: bool = True
    missing_end: Literal["relative", "subtract", "replace", "ignore"] = "relative"
    """What becomes of the score of a response that did not end: missing_end_penalty times the standard deviation of the
    batch's scores is subtracted (relative: right for any scale of the reward), or missing_end_penalty itself; or the
    score is replaced by -missing_end_penalty (Huang et al. 2024), which pays for not ending where scores lie below
    that; or nothing."""
    missing_end_penalty: float = 1.0
    ptx_coefficient: float = 0.0
    """gamma_ptx: weight of the log-likelihood per token of pretraining text (PPO-ptx)."""
    ptx_batch_size: int = 32
    """Pretraining blocks to each update."""
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    seed: NoOption[int] = 0
    """In a run 0 means that of --seed."""

    def __post_init__(self) -> None:
        if min(self.episodes, self.batch_size, self.minibatch_size, self.epochs, self.ptx_batch_size) < 1:
            raise UserError("episodes, batch_size, minibatch_size, epochs and ptx_batch_size must be at least 1.")
        if self.batch_size % self.minibatch_size:
            raise UserError(
                f"batch_size must be a multiple of minibatch_size. Received {self.batch_size} and {self.minibatch_size}"
            )
        if self.micro_batch_size < 0:
            raise UserError(f"micro_batch_size must be at least 0. Received {self.micro_batch_size}")
        for name in ("beta", "ptx_coefficient", "missing_end_penalty", "value_coefficient"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name} must be at least 0. Received {getattr(self, name)}")
        for name in ("adaptive_kl_nats", "adaptive_kl_horizon", "value_clip"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"{name} must be above 0. Received {value}")
        if not 0 <= self.gae_lambda <= 1 or not 0 < self.clip < 1:
            raise UserError("gae_lambda must be in [0, 1] and clip in (0, 1).")
        self.sampling.refuse_truncation("PPO")


class _Part(NamedTuple):
    """Some of the episodes, of similar length: little is padding."""

    rows: Tensor
    """`(P,)`: which ones."""
    sequences: Sequences


class _Forward(NamedTuple):
    """What policy and value model give for each part, `(P, W)`: W is its longest response."""

    parts: list[_Part]
    log_probs: list[Tensor]
    values: list[Tensor]


class _Rollout(NamedTuple):
    """A batch of episodes, `(B, R)` where not said otherwise, all on the device of the model."""

    sequences: Sequences
    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor


class PPOTrainer(TextTrainer):
    """Trains a policy on a reward of responses, tied to the policy that it started from.

    Args:
        model: the policy, trained in place; as it is now (or without its adapters, if it has some) it is the reference.
        encoder: turns strings into ids.
        prompts: drawn from, every one once an epoch.
        reward: any callable of (prompts, responses). A `ModelReward` is given token ids, so it sees a missing end.
        settings: of the run.
        runtime: device and processes.
        value_model: starts from this; None: from the reward, if it is a `ModelReward`, else from the policy.
        pretraining: blocks of text for PPO-ptx.

    Raises:
        UserError: no prompts, a prompt that is too long, or PPO-ptx without text.
    """

    def __init__(
        self,
        model: Any,
        encoder: Encoder,
        prompts: Sequence[str],
        reward: TextReward | ModelReward,
        settings: TextPPOSettings,
        *,
        runtime: Runtime,
        value_model: RewardModel | None = None,
        pretraining: Sequence[TokenPair] = (),
    ) -> None:
        super().__init__()
        if not prompts:
            raise UserError("PPO needs prompts; the data set is empty.")
        if settings.ptx_coefficient > 0 and not pretraining:
            raise UserError("PPO-ptx (ptx_coefficient above 0) needs pretraining text; got none.")
        if runtime.num_processes > settings.batch_size:
            raise UserError(
                f"{runtime.num_processes} processes cannot share a batch of {settings.batch_size} episodes. Raise "
                "--training.batch-size or start fewer."
            )
        self.name = "ppo"
        self.model, self.encoder, self.reward, self.settings, self.runtime = model, encoder, reward, settings, runtime
        self.tokens, self.pad_id = encoder.tokens, encoder.tokens.pad_id
        self.prompts = list(prompts)
        self._prompt_ids = [encoder.prompt(prompt) for prompt in self.prompts]
        self._pretraining = list(pretraining)
        self._reference = None if has_adapters(model) else copy.deepcopy(model).requires_grad_(False).eval()
        self.value_model = self._start_value_model(value_model)
        self.kl: terms.KLController = (
            terms.FixedKL(beta=settings.beta)
            if settings.adaptive_kl_nats is None
            else terms.AdaptiveKL(
                beta=settings.beta, target_nats=settings.adaptive_kl_nats, horizon=settings.adaptive_kl_horizon
            )
        )
        self.total_steps = max(1, settings.episodes // settings.batch_size)
        self._epochs = Epochs(len(prompts), min(settings.batch_size, len(prompts)), settings.seed, "prompts")
        self._blocks = Epochs(max(1, len(self._pretraining)), settings.ptx_batch_size, settings.seed, "ptx")
        updates = self.total_steps * settings.epochs * (settings.batch_size // settings.minibatch_size)
        self._lanes = Lanes(runtime.device)
        self._ends = EndWatch()
        trained = [*model.parameters(), *self.value_model.parameters()]
        self.optimiser = Optimiser(trained, settings.optimiser, updates, runtime)

    def _start_value_model(self, value_model: RewardModel | None) -> RewardModel:
        if value_model is not None:
            return copy.deepcopy(value_model).requires_grad_(True)
        if isinstance(self.reward, ModelReward):  # Stiennon et al. 2020, s. 3.4
            return copy.deepcopy(self.reward.members[0]).requires_grad_(True)
        return RewardModel.from_policy(self.model, stream_seed(self.settings.seed, "value"))

    # ---------------------------------------------------------------------------------------------- one step

    def step(self) -> Metrics:
        """Sample a batch of responses, score them, and make all epochs of updates on them."""
        for module in (self.model, self.value_model):
            module.eval()  # no dropout anywhere
        index = self._batch_of_prompts()
        sequences = self._sample(index)
        parts = self._parts(sequences, torch.arange(len(sequences), device=sequences.lengths.device))
        # Where the batch is one minibatch, what the old log-probabilities come from is also the first update's forward.
        whole = self.settings.minibatch_size >= self.settings.batch_size and not self._most
        with torch.set_grad_enabled(whole):
            (log_probs, reference), (values, scored) = self._lanes.run(
                lambda: (self._log_probs(parts), self._reference_log_probs(parts)),
                lambda: (self._values(parts), self._scores(index, sequences)),
            )
        scores, figures = scored
        forward = _Forward(parts, log_probs, values)
        rollout, more = self._judge(sequences, scores, forward, reference)
        means = self.runtime.means(figures | more)
        means |= {"beta": self.kl.beta} | self._update(rollout, forward if whole else None)
        self.num_steps += 1
        self.num_examples += self.settings.batch_size
        self.kl.update(means["kl_nats"], self.settings.batch_size)
        self._ends.see(means["objective"], means["end_rate"])
        return means

    def _batch_of_prompts(self) -> list[int]:
        size, index = self.settings.batch_size, list[int]()
        step = self.num_steps * -(-size // self._epochs.batch_size)
        while len(index) < size:
            index += self._epochs.batch(step)
            step += 1
        return self.runtime.share(index[:size])

    def _sample(self, index: Sequence[int]) -> Sequences:
        # The numbers of all episodes of the batch: each follows from its own, in however many processes they are drawn.
        generator = torch.Generator().manual_seed(stream_seed(self.settings.seed, "sampling", self.num_steps))
        shape = (self.settings.batch_size, self.settings.sampling.max_tokens)
        uniforms = torch.rand(*shape, generator=generator)[self.runtime.index :: self.runtime.num_processes]
        with self.runtime.autocast():
            return sample(
                self.model,
                [self._prompt_ids[i] for i in index],
                self.settings.sampling,
                end_id=end_ids_of(self.tokens),
                pad_id=self.tokens.pad_id,
                uniforms=uniforms.to(self.runtime.device),
            ).sequences

    def _scores(self, index: Sequence[int], sequences: Sequences) -> tuple[Tensor, _Parts]:
        """Return `(B,)` scores before any penalty, and figures."""
        responses = sequences.token_lists()
        ended = sequences.ended(end_ids_of(self.tokens))
        if isinstance(self.reward, ModelReward):
            with self.runtime.autocast():
                scores = self.reward.score_tokens([self._prompt_ids[i] for i in index], responses)
            if not torch.isfinite(scores).all():
                raise UserError("The reward model returned a score that is not finite; train it again at a lower rate.")
            scores = scores.to(ended.device)
        else:
            texts = [decode_response(self.tokens, ids) for ids in responses]
            given = score_responses(self.reward, [self.prompts[i] for i in index], texts)
            scores = torch.tensor(given, dtype=torch.float32, device=ended.device)
        figures: _Parts = {
            "score": (scores.sum(), len(scores)),
            "length": (sequences.lengths.float().sum(), len(scores)),
            "end_rate": (ended.float().sum(), len(scores)),
        }
        return scores, figures

    def _penalised(self, scores: Tensor, sequences: Sequences) -> Tensor:
        """Return `(B,)` scores after the penalty for a missing end."""
        ended, penalty = sequences.ended(end_ids_of(self.tokens)), self.settings.missing_end_penalty
        if self.settings.missing_end == "replace":
            return torch.where(ended, scores, -penalty)
        if self.settings.missing_end == "subtract":
            return torch.where(ended, scores, scores - penalty)
        if self.settings.missing_end == "relative":
            everywhere = torch.ones_like(scores, dtype=torch.bool)[:, None]
            spread = terms.spread(scores[:, None], everywhere, total=self.runtime.total)
            return torch.where(ended, scores, scores - penalty * torch.where(spread > 0, spread, 1.0))
        return scores

    def _parts(self, sequences: Sequences, rows: Tensor) -> list[_Part]:
        """Return some episodes in parts of similar length; none where there are no rows."""
        if not len(rows):
            return []
        order = rows[torch.argsort(sequences.lengths[rows])]
        size = max(1, -(-len(order) // PARTS))
        return [_Part(part, sequences.rows(part)) for part in order.split(min(size, self._most or size))]

    @property
    def _most(self) -> int:
        return self.settings.micro_batch_size

    def _log_probs(self, parts: Iterable[_Part]) -> list[Tensor]:
        with self.runtime.autocast():
            return [self._log_probs_of(self.model, part) for part in parts]

    @torch.no_grad()
    def _reference_log_probs(self, parts: Iterable[_Part]) -> list[Tensor]:
        with self.runtime.autocast(), reference_of(self.model, self._reference) as model:
            return [self._log_probs_of(model, part) for part in parts]

    def _log_probs_of(self, model: Any, part: _Part) -> Tensor:
        return response_log_probs(model, part.sequences, self.settings.sampling.temperature)

    def _values(self, parts: Iterable[_Part]) -> list[Tensor]:
        with self.runtime.autocast():
            return [self.value_model.values(part.sequences) for part in parts]

    @torch.no_grad()
    def _judge(
        self, sequences: Sequences, scores: Tensor, forward: _Forward, reference_parts: list[Tensor]
    ) -> tuple[_Rollout, _Parts]:
        """Return the trainer's own log-probabilities, and from them rewards and advantages."""
        settings, mask, total = self.settings, sequences.response_mask, self.runtime.total
        log_probs, reference, values = (torch.zeros(mask.shape, device=mask.device) for _ in range(3))
        for part, *given in zip(forward.parts, forward.log_probs, reference_parts, forward.values, strict=True):
            for whole, of_part in zip((log_probs, reference, values), given, strict=True):
                whole[part.rows, : of_part.shape[1]] = of_part
        log_ratios = (log_probs - reference) * mask
        rewards = terms.token_rewards(self._penalised(scores, sequences), log_ratios, mask, self.kl.beta)
        objective = rewards.sum(1)
        if settings.whiten_rewards:
            rewards = terms.whiten(rewards, mask, shift_mean=False, total=total)
        advantage, returns = terms.advantages(rewards, values, mask, settings.gae_lambda)
        if settings.whiten_advantages:
            advantage = terms.whiten(advantage, mask, total=total)
        figures: _Parts = {
            "objective": (objective.sum(), len(scores)),
            "kl_nats": (log_ratios.sum(), len(scores)),
            "entropy_nats": (-(log_probs * mask).sum(), mask.sum()),
        }
        return _Rollout(sequences, log_probs, values * mask, advantage, returns), figures

    def _update(self, rollout: _Rollout, first: _Forward | None) -> Metrics:
        """Make all epochs of updates; `first` is the forward pass of the first one, where it was made before."""
        settings = self.settings
        names = ["policy_loss", "clip_share", "value_loss", *(["ptx_loss"] if settings.ptx_coefficient else [])]
        sums, norms, count = dict.fromkeys(names, 0.0), 0.0, 0
        processes, index = self.runtime.num_processes, self.runtime.index
        for epoch in range(settings.epochs):
            seed = stream_seed(settings.seed, "minibatches", self.num_steps, epoch, 0)
            order = torch.from_numpy(np.random.default_rng(seed).permutation(settings.batch_size))
            for episodes in order.split(settings.minibatch_size):
                rows = episodes[episodes % processes == index] // processes  # those that this process drew
                figures, norm = self._minibatch(rollout, rows.to(rollout.log_probs.device), first)
                for name, value in figures.items():
                    sums[name] += value
                norms += norm
                first = None
                count += 1
        both = torch.tensor([*sums.values()], dtype=torch.float64, device=self.runtime.device)
        means = dict(zip(names, (self.runtime.total(both) / count).tolist(), strict=True))
        return means | {"grad_norm": norms / count}

    def _minibatch(self, rollout: _Rollout, rows: Tensor, forward: _Forward | None) -> tuple[Metrics, float]:
        """Make one update; the parts of similar length add up to the loss of the whole minibatch."""
        parts = self._parts(rollout.sequences, rows) if forward is None else forward.parts
        num_tokens = self.runtime.total(rollout.sequences.response_mask[rows].sum())
        of_policy, of_values = self._lanes.run(
            lambda: self._add_policy_gradient(rollout, parts, num_tokens, forward),
            lambda: self._add_value_gradient(rollout, parts, num_tokens, forward),
        )
        return of_policy | of_values, self.optimiser.step()

    def _add_policy_gradient(
        self, rollout: _Rollout, parts: list[_Part], num_tokens: Tensor, forward: _Forward | None
    ) -> Metrics:
        settings, figures = self.settings, dict.fromkeys(("policy_loss", "clip_share"), 0.0)
        for number, part in enumerate(parts):
            log_probs = self._log_probs([part])[0] if forward is None else forward.log_probs[number]
            mask, width = part.sequences.response_mask, log_probs.shape[1]
            old, advantage = (array[part.rows, :width] for array in (rollout.log_probs, rollout.advantages))
            share = mask.sum() / num_tokens
            loss = terms.policy_loss(log_probs, old, advantage, mask, settings.clip) * share
            loss.backward()
            clipped = ((log_probs - old).exp() - 1).abs() > settings.clip
            figures["policy_loss"] += loss.item()
            figures["clip_share"] += (terms.masked_mean(clipped.float(), mask) * share).item()
        if settings.ptx_coefficient:
            figures["ptx_loss"] = self._add_pretraining_gradient()
        return figures

    def _add_value_gradient(
        self, rollout: _Rollout, parts: list[_Part], num_tokens: Tensor, forward: _Forward | None
    ) -> Metrics:
        total = 0.0
        for number, part in enumerate(parts):
            values = self._values([part])[0] if forward is None else forward.values[number]
            mask, width = part.sequences.response_mask, values.shape[1]
            old, returns = (array[part.rows, :width] for array in (rollout.values, rollout.returns))
            loss = terms.value_loss(values * mask, old, returns, mask, self.settings.value_clip)
            loss = loss * (mask.sum() / num_tokens)
            (self.settings.value_coefficient * loss).backward()
            total += loss.item()
        return {"value_loss": total}

    def _add_pretraining_gradient(self) -> float:
        index = self._blocks.batch(self.optimiser.num_steps)
        num_tokens = sum(len(self._pretraining[i][1]) for i in index)
        total = 0.0
        for part in micro_batches(self.runtime.share(index), self._most):
            rows = [self._pretraining[i] for i in part]
            total += add_language_gradient(self.model, rows, self, num_tokens, self.settings.ptx_coefficient).item()
        return total

    def state(self) -> State:
        """Return what a checkpoint must hold."""
        own = {
            "value_model": self.value_model.state_dict(),
            "reference": None if self._reference is None else self._reference.state_dict(),
            "beta": self.kl.beta,
            "ends": self._ends.state(),
        }
        return State(tensors=super().state().tensors | own)

    def restore(self, state: State) -> None:
        """Take over what `state` gave."""
        super().restore(state)
        held = state.tensors
        self.value_model.load_state_dict(held["value_model"])
        if self._reference is not None:
            self._reference.load_state_dict(held["reference"])
        self.kl.beta = float(held["beta"])
        self._ends.restore(held.get("ends", []))

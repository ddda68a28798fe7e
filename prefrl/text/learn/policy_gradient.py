"""What learning from a reward by policy gradients shares: sampling, scoring, the KL to the start, minibatches, PPO-ptx.

A prompt is the state, the whole response the action; its tokens share one episode of gamma 1. One step samples a batch,
scores it, compares it with the reference, turns that into advantages, and makes some epochs of updates. How advantages
and the loss come about is for subclasses to say: PPO with a value model (`ppo.py`), an estimator from the samples of
each prompt (`estimating.py`), or which of these is better (`online.py`). PPO-ptx adds the gradient of gamma_ptx
E_pretrain[log pi] (InstructGPT, Eq. 2); here E is the mean per *token* of a batch of pretraining blocks.
"""

from __future__ import annotations

import abc
import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from prefrl.envs.text_rewards import TextReward, score_responses
from prefrl.errors import UserError
from prefrl.runs import State
from prefrl.runs.optimisation import Optimiser, OptimiserSettings
from prefrl.runs.sharding import gathered, load_whole
from prefrl.runs.streams import stream_seed
from prefrl.runs.trainer import Epochs, Metrics, ModelTrainer, micro_batches
from prefrl.text.data.examples import Encoder
from prefrl.text.learn import ppo_terms as terms
from prefrl.text.learn.end_watch import EndWatch
from prefrl.text.learn.reward_model import ModelReward
from prefrl.text.learn.runtime import Runtime
from prefrl.text.learn.sft import TokenPair, add_language_gradient
from prefrl.text.model import lean_llama
from prefrl.text.model.generation import SamplingSettings, decode_response, sample
from prefrl.text.model.lanes import Lanes
from prefrl.text.model.lora import has_adapters, reference_of
from prefrl.text.model.options import NoOption
from prefrl.text.model.sequences import Sequences, joined, response_log_probs
from prefrl.text.model.tokens import end_ids_of

PARTS = 4  # parts of similar length in a minibatch
Parts = dict[str, tuple[Tensor, Tensor | int]]
"""Figures as sums over the episodes of this process, each with what it is of."""


@dataclass(frozen=True, kw_only=True)
class PolicyGradientSettings:
    """What every policy gradient is set by.

    Raises:
        UserError: a value out of its range, or sampling that changes the distribution.
    """

    method: ClassVar[str] = "A policy gradient"

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
    clip: float = 0.2
    """Of the ratio."""
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
        for name in ("beta", "ptx_coefficient", "missing_end_penalty"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name} must be at least 0. Received {getattr(self, name)}")
        for name in ("adaptive_kl_nats", "adaptive_kl_horizon"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"{name} must be above 0. Received {value}")
        self.sampling.refuse_truncation(self.method)


class Part(NamedTuple):
    """Some of the episodes, of similar length: little is padding."""

    rows: Tensor
    """`(P,)`: which ones."""
    sequences: Sequences


class Forward(NamedTuple):
    """What the policy, and a value model if there is one, give for each part, `(P, W)`: W is its longest response."""

    parts: list[Part]
    log_probs: list[Tensor]
    values: list[Tensor]


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """A batch of episodes, `(B, R)` where not said otherwise, all on the device of the model."""

    sequences: Sequences
    log_probs: Tensor


_Settings = TypeVar("_Settings", bound=PolicyGradientSettings)
_Rollout = TypeVar("_Rollout", bound=Rollout)


class PolicyGradientTrainer(ModelTrainer, Generic[_Settings, _Rollout]):
    """Trains a policy on a reward of responses, tied to the policy that it started from.

    Args:
        name: of the method.
        model: the policy, trained in place; as it is now (or without its adapters, if it has some) it is the reference.
        encoder: turns strings into ids.
        prompts: drawn from, every one once an epoch.
        reward: any callable of (prompts, responses). A `ModelReward` is given token ids, so it sees a missing end.
        settings: of the run.
        runtime: device and processes.
        pretraining: blocks of text for PPO-ptx.
        samples_per_prompt: responses drawn to each prompt, a divisor of the batch.

    Raises:
        UserError: no prompts, a prompt that is too long, or PPO-ptx without text.
    """

    FIGURES: ClassVar[tuple[str, ...]]
    """Of an update."""

    def __init__(
        self,
        name: str,
        model: Any,
        encoder: Encoder,
        prompts: Sequence[str],
        reward: TextReward | ModelReward,
        settings: _Settings,
        *,
        runtime: Runtime,
        pretraining: Sequence[TokenPair] = (),
        samples_per_prompt: int = 1,
    ) -> None:
        super().__init__()
        if not prompts:
            raise UserError(f"{settings.method} needs prompts; the data set is empty.")
        if settings.ptx_coefficient > 0 and not pretraining:
            raise UserError("PPO-ptx (ptx_coefficient above 0) needs pretraining text; got none.")
        self._num_prompts = settings.batch_size // samples_per_prompt  # of a batch
        if runtime.num_processes > self._num_prompts:
            of = f" to {self._num_prompts} prompts" if samples_per_prompt > 1 else ""
            raise UserError(
                f"{runtime.num_processes} processes cannot share a batch of {settings.batch_size} episodes{of}. Raise "
                "--training.batch-size or start fewer."
            )
        self.name, self.samples_per_prompt = name, samples_per_prompt
        self.model, self.encoder, self.reward, self.settings, self.runtime = model, encoder, reward, settings, runtime
        self.tokens, self.pad_id = encoder.tokens, encoder.tokens.pad_id
        self.prompts = list(prompts)
        self._prompt_ids = [encoder.prompt(prompt) for prompt in self.prompts]
        self._pretraining = list(pretraining)
        self._reference = None if has_adapters(model) else copy.deepcopy(model).requires_grad_(False).eval()
        runtime.shard(*self._modules(), *([] if self._reference is None else [self._reference]))
        self.kl: terms.KLController = (
            terms.FixedKL(beta=settings.beta)
            if settings.adaptive_kl_nats is None
            else terms.AdaptiveKL(
                beta=settings.beta, target_nats=settings.adaptive_kl_nats, horizon=settings.adaptive_kl_horizon
            )
        )
        self.total_steps = max(1, settings.episodes // settings.batch_size)
        self._epochs = Epochs(len(prompts), min(self._num_prompts, len(prompts)), settings.seed, "prompts")
        self._blocks = Epochs(max(1, len(self._pretraining)), settings.ptx_batch_size, settings.seed, "ptx")
        updates = self.total_steps * settings.epochs * (settings.batch_size // settings.minibatch_size)
        self._lanes = Lanes(runtime.device, one_by_one=runtime.shares)
        self._ends = EndWatch()
        trained = [parameter for module in self._modules() for parameter in module.parameters()]
        self.optimiser = Optimiser(trained, settings.optimiser, updates, runtime)

    # ---------------------------------------------------------------------------------- what a method has to say

    def _modules(self) -> list[Any]:
        """Return what is trained."""
        return [self.model]

    @abc.abstractmethod
    def _judge(
        self, sequences: Sequences, scores: Tensor, forward: Forward, reference: list[Tensor]
    ) -> tuple[_Rollout, Parts]:
        """Return the trainer's own log-probabilities, advantages and whatever else an update needs; and figures."""

    @abc.abstractmethod
    def _add_gradients(
        self, rollout: _Rollout, parts: list[Part], num_episodes: int, num_tokens: Tensor, forward: Forward | None
    ) -> Metrics:
        """Add the gradients of parts of a minibatch, which has so many episodes and tokens in all; return figures."""

    # ---------------------------------------------------------------------------------------------- one step

    def step(self) -> Metrics:
        """Sample a batch of responses, score them, and make all epochs of updates on them."""
        for module in self._modules():
            module.eval()  # no dropout anywhere
        index = self._batch_of_prompts()
        sequences = self._sample(index)
        index = [prompt for prompt in index for _ in range(self.samples_per_prompt)]
        parts = self._parts(sequences, torch.arange(len(sequences), device=sequences.lengths.device))
        # Where the batch is one minibatch, what the old log-probabilities come from is also the first update's forward.
        whole = self.settings.minibatch_size >= self.settings.batch_size and not self._most
        with torch.set_grad_enabled(whole):
            forward, reference, (scores, figures) = self._look(index, sequences, parts)
        with torch.no_grad():
            rollout, more = self._judge(sequences, scores, forward, reference)
        means = self.runtime.means(figures | more)
        means |= {"beta": self.kl.beta} | self._update(rollout, forward if whole else None)
        self.num_steps += 1
        self.num_examples += self.settings.batch_size
        self.kl.update(means["kl_nats"], self.settings.batch_size)
        if "objective" in means:
            self._ends.see(means["objective"], means["end_rate"])
        return means

    def _batch_of_prompts(self) -> list[int]:
        size, index = self._num_prompts, list[int]()
        step = self.num_steps * -(-size // self._epochs.batch_size)
        while len(index) < size:
            index += self._epochs.batch(step)
            step += 1
        return self.runtime.share(index[:size])

    def _sample(self, index: Sequence[int]) -> Sequences:
        # The numbers of all episodes of the batch: each follows from its own, in however many processes they are drawn.
        generator = torch.Generator().manual_seed(stream_seed(self.settings.seed, "sampling", self.num_steps))
        length = self.settings.sampling.max_tokens
        uniforms = torch.rand(self.settings.batch_size, length, generator=generator)
        of_prompts = uniforms.view(self._num_prompts, self.samples_per_prompt, length)
        ours = of_prompts[self.runtime.index :: self.runtime.num_processes].to(self.runtime.device)
        one_engine = self.settings.sampling.engine != "own"
        if one_engine or not (self._side_by_side and self._lanes.side_by_side and len(index) > 1):
            return self._draw(index, ours)
        half = len(index) // 2
        halves = self._lanes.run(
            lambda: self._draw(index[:half], ours[:half]), lambda: self._draw(index[half:], ours[half:])
        )
        return joined(halves, self.pad_id)

    def _draw(self, index: Sequence[int], uniforms: Tensor) -> Sequences:
        """Return the samples of some prompts, by their numbers `(prompts, samples, tokens)` in [0, 1)."""
        with self.runtime.whole(self.model), self.runtime.autocast():
            return sample(
                self.model,
                [self._prompt_ids[i] for i in index],
                self.settings.sampling,
                end_id=end_ids_of(self.tokens),
                pad_id=self.pad_id,
                samples_per_prompt=self.samples_per_prompt,
                uniforms=uniforms.flatten(0, 1),
            ).sequences

    def _look(
        self, index: Sequence[int], sequences: Sequences, parts: list[Part]
    ) -> tuple[Forward, list[Tensor], tuple[Tensor, Parts]]:
        """Return what the models say of a batch, the reference's log-probabilities, the scores `(B,)` and figures."""
        if self._reference is None:  # the policy without its adapters cannot be read beside itself
            log_probs, reference = self._log_probs(parts), self._reference_log_probs(parts)
            scored = self._scores(index, sequences)
        else:  # three models, and two lanes: each does half of the second one's work
            half = len(parts) // 2
            (log_probs, first), (second, scored) = self._lanes.run(
                lambda: (self._log_probs(parts), self._reference_log_probs(parts[:half])),
                lambda: (self._reference_log_probs(parts[half:]), self._scores(index, sequences)),
            )
            reference = first + second
        return Forward(parts, log_probs, []), reference, scored

    def _scores(self, index: Sequence[int], sequences: Sequences) -> tuple[Tensor, Parts]:
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
        figures: Parts = {
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

    def _parts(self, sequences: Sequences, rows: Tensor) -> list[Part]:
        """Return some episodes in parts; none where there are no rows.

        They are of similar length, or, where a prompt is read once for all its samples in a part, of the same prompts.

        Where the processes share the weights, each has as many parts as the one that has most: the last ones may be of
        no rows, with a sequence that goes through the model and whose figures, of no rows, come to nothing.
        """
        parts = list[Part]()
        if len(rows):
            alike = self.samples_per_prompt > 1 and lean_llama.backbone_of(self.model) is not None
            order = rows.sort().values if alike else rows[torch.argsort(sequences.lengths[rows])]
            size = max(1, -(-len(order) // PARTS))
            parts = [Part(part, sequences.rows(part)) for part in order.split(min(size, self._most or size))]
        for _ in range(self.runtime.idle_parts(len(parts))):
            parts.append(Part(rows[:0], sequences.rows(torch.zeros_like(sequences.lengths[:1]))))
        return parts

    @property
    def _side_by_side(self) -> bool:
        """Whether two lanes may go through the policy at once: its forward pass is our own, memory is not bounded."""
        return not self._most and lean_llama.backbone_of(self.model) is not None

    @property
    def _most(self) -> int:
        return self.settings.micro_batch_size

    def _log_probs(self, parts: Iterable[Part]) -> list[Tensor]:
        with self.runtime.autocast():
            return [self._log_probs_of(self.model, part) for part in parts]

    @torch.no_grad()
    def _reference_log_probs(self, parts: Iterable[Part]) -> list[Tensor]:
        with self.runtime.autocast(), reference_of(self.model, self._reference) as model:
            return [self._log_probs_of(model, part) for part in parts]

    def _log_probs_of(self, model: Any, part: Part) -> Tensor:
        return response_log_probs(model, part.sequences, self.settings.sampling.temperature)

    def _whole(self, forward: Forward, given: list[Tensor], mask: Tensor) -> Tensor:
        """Return what there is of each part as `(B, R)`."""
        whole = torch.zeros(mask.shape, device=mask.device)
        for part, of_part in zip(forward.parts, given, strict=True):
            whole[part.rows, : of_part.shape[1]] = of_part
        return whole

    @staticmethod
    def _figures(objective: Tensor, log_ratios: Tensor, log_probs: Tensor, mask: Tensor) -> Parts:
        return {
            "objective": (objective.sum(), len(mask)),
            "kl_nats": (log_ratios.sum(), len(mask)),
            "entropy_nats": (-(log_probs * mask).sum(), mask.sum()),
        }

    def _update(self, rollout: _Rollout, first: Forward | None) -> Metrics:
        """Make all epochs of updates; `first` is the forward pass of the first one, where it was made before."""
        settings = self.settings
        names = [*self.FIGURES, *(["ptx_loss"] if settings.ptx_coefficient else [])]
        sums, norms, count = dict.fromkeys(names, 0.0), 0.0, 0
        for epoch in range(settings.epochs):
            for rows, num_episodes in self._minibatches(rollout, epoch):
                here = rows.to(rollout.log_probs.device)
                figures, norm = self._minibatch(rollout, here, num_episodes, first)
                for name, value in figures.items():
                    sums[name] += value
                norms += norm
                first = None
                count += 1
        both = torch.tensor([*sums.values()], dtype=torch.float64, device=self.runtime.device)
        means = dict(zip(names, (self.runtime.total(both) / count).tolist(), strict=True))
        return means | {"grad_norm": norms / count}

    def _shuffled(self, count: int, epoch: int) -> Tensor:
        """Return `count` numbers from 0 in the order of an epoch of this step."""
        seed = stream_seed(self.settings.seed, "minibatches", self.num_steps, epoch, 0)
        return torch.from_numpy(np.random.default_rng(seed).permutation(count))

    def _minibatches(self, rollout: _Rollout, epoch: int) -> Iterator[tuple[Tensor, int]]:
        """Give the rows of this process in each minibatch of an epoch, and how many episodes it has in all."""
        for episodes in self._shuffled(self.settings.batch_size, epoch).split(self.settings.minibatch_size):
            yield self._rows_here(episodes), len(episodes)

    def _rows_here(self, episodes: Tensor) -> Tensor:
        """Return which rows of this process some episodes of the whole batch are: those that it drew."""
        processes, samples = self.runtime.num_processes, self.samples_per_prompt
        prompt, sample_number = episodes // samples, episodes % samples
        here = prompt % processes == self.runtime.index
        return prompt[here] // processes * samples + sample_number[here]

    def _minibatch(
        self, rollout: _Rollout, rows: Tensor, num_episodes: int, forward: Forward | None
    ) -> tuple[Metrics, float]:
        """Make one update; the parts of similar length add up to the loss of the whole minibatch."""
        parts = self._parts(rollout.sequences, rows) if forward is None else forward.parts
        num_tokens = self.runtime.total(rollout.sequences.response_mask[rows].sum())
        figures = self._add_gradients(rollout, parts, num_episodes, num_tokens, forward)
        return figures, self._lanes.alone(self.optimiser.step)

    def _add_up(self, loss_of: Callable[[int], tuple[Tensor, Metrics]], count: int) -> Metrics:
        """Add the gradients of `count` losses; return the sums of the figures that come with each."""
        found = [dict.fromkeys(self.FIGURES, 0.0)]

        def gradients(numbers: Iterable[int]) -> list[Tensor]:
            total = list[Tensor]()
            for number in numbers:
                loss, figures = loss_of(number)
                given = torch.autograd.grad(loss, self.optimiser.parameters)
                total = [before + more for before, more in zip(total, given, strict=True)] if total else list(given)
                found.append(figures)
            return total

        if self._side_by_side:  # each lane adds up its own: in what order they come must not change a sum
            for lane in self._lanes.run(lambda: gradients(range(0, count, 2)), lambda: gradients(range(1, count, 2))):
                for weight, gradient in zip(self.optimiser.parameters, lane, strict=bool(lane)):
                    weight.grad = gradient if weight.grad is None else weight.grad + gradient
        else:
            for number in range(count):
                loss, figures = loss_of(number)
                loss.backward()
                found.append(figures)
        return {name: sum(figures[name] for figures in found) for name in self.FIGURES}

    def _add_pretraining_gradient(self) -> Metrics:
        """Add the gradient of PPO-ptx, if there is any; return its loss."""
        if not self.settings.ptx_coefficient:
            return {}
        index = self._blocks.batch(self.optimiser.num_steps)
        num_tokens = sum(len(self._pretraining[i][1]) for i in index)
        total, parts = 0.0, micro_batches(self.runtime.share(index), self._most)
        idle = self.runtime.idle_parts(len(parts))
        for part in parts:
            rows = [self._pretraining[i] for i in part]
            total += add_language_gradient(self.model, rows, self, num_tokens, self.settings.ptx_coefficient).item()
        for _ in range(idle):
            add_language_gradient(self.model, [self._pretraining[index[0]]], self, num_tokens, 0.0)
        return {"ptx_loss": total}

    def state(self) -> State:
        """Return what a checkpoint must hold."""
        own = {
            "reference": None if self._reference is None else gathered(self._reference.state_dict()),
            "beta": self.kl.beta,
            "ends": self._ends.state(),
        }
        return State(tensors=super().state().tensors | own)

    def restore(self, state: State) -> None:
        """Take over what `state` gave."""
        super().restore(state)
        held = state.tensors
        if self._reference is not None:
            load_whole(self._reference, held["reference"])
        self.kl.beta = float(held["beta"])
        self._ends.restore(held.get("ends", []))

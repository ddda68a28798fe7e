"""Online direct preference optimisation: the policy's own samples are compared while it learns (Guo et al. 2024).

One step draws K responses to each prompt from the policy as it is, has them compared, and makes an update of DPO (of
two samples Bradley-Terry, of more Plackett-Luce) or IPO on what was said. Sampling, scoring and the reference are those
of every policy gradient (`policy_gradient.py`). Who compares is a reward, a judge, or people, whose answers come when
they come: then a step is made of answers, and new questions are drawn before the old ones run out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from prefrl.envs.text_rewards import TextReward
from prefrl.errors import UserError
from prefrl.likelihood import choices, ranking_log_likelihood
from prefrl.runs import State
from prefrl.runs.optimisation import OptimiserSettings
from prefrl.runs.streams import stream, stream_seed
from prefrl.runs.trainer import Epochs, Metrics
from prefrl.text.data.annotating import MAX_K, draw_responses
from prefrl.text.data.asking import Compared, PeopleComparing, Said
from prefrl.text.data.examples import Encoder
from prefrl.text.data.judge import Judge, ask_both_ways
from prefrl.text.learn.losses import dpo_loss, ipo_loss
from prefrl.text.learn.policy_gradient import (
    Forward,
    Part,
    Parts,
    PolicyGradientSettings,
    PolicyGradientTrainer,
    Rollout,
)
from prefrl.text.learn.preference import ROUNDING_NATS
from prefrl.text.learn.reward_model import ModelReward
from prefrl.text.learn.runtime import Runtime
from prefrl.text.learn.sft import TokenPair
from prefrl.text.model.generation import decode_response
from prefrl.text.model.options import NoOption
from prefrl.text.model.sequences import Sequences, make_sequences
from prefrl.text.model.tokens import end_ids_of, response_ids

Loss = Literal["dpo", "ipo"]
MOST_IN_VAIN = 256
"""Prompts one after the other whose responses leave people nothing to compare."""


@dataclass(frozen=True, kw_only=True)
class OnlineSettings(PolicyGradientSettings):
    """Online DPO or IPO.

    Raises:
        UserError: a value out of its range, or one that this loss has no use for.
    """

    loss: NoOption[Loss] = "dpo"
    epochs: int = 1
    beta: float = 0.1
    """Strength of the tie to the reference; tau of IPO."""
    clip: NoOption[float] = 0.2
    samples_per_prompt: int = 2
    """K: responses drawn to each prompt and compared, 2 to 9 (of more than two DPO takes the whole ranking); they are
    among batch_size."""
    temperature: float = 1.0
    """Of a reward that compares. 1: it is taken for what Bradley-Terry or Plackett-Luce call strength, and of two the
    probability is learned from, of more an order that is drawn; then the optimum is that of E[r] - beta KL. 0: the
    higher reward is better, however little (Guo et al. 2024)."""
    ahead: int = 16
    """Of people: questions that wait for them or are answered and not learned from yet, at least those of a step: so
    nobody waits for the next one, unless they answer faster than is learned. More of them are of an older policy."""
    optimiser: OptimiserSettings = field(
        default_factory=lambda: OptimiserSettings(learning_rate=1e-6, warmup_share=0.1, adam_eps=1e-8)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.beta > 0:
            raise UserError(f"beta must be above 0. Received {self.beta}")
        if not 2 <= self.samples_per_prompt <= MAX_K:
            raise UserError(f"samples_per_prompt must be 2 to {MAX_K}. Received {self.samples_per_prompt}")
        for name in ("batch_size", "minibatch_size"):
            if getattr(self, name) % self.samples_per_prompt:
                raise UserError(
                    f"{name} must be a multiple of samples_per_prompt. Received {getattr(self, name)} and "
                    f"{self.samples_per_prompt}"
                )
        if self.loss == "ipo" and self.samples_per_prompt != 2:
            raise UserError(f"IPO compares two: leave samples_per_prompt at 2. Received {self.samples_per_prompt}")
        if not 0 <= self.temperature < math.inf:
            raise UserError(f"temperature must be at least 0. Received {self.temperature}")
        if self.ahead < 1:
            raise UserError(f"ahead must be at least 1. Received {self.ahead}")

    @property
    def method(self) -> str:  # type: ignore[override]
        """What messages call it."""
        return f"Online {self.loss.upper()}"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was said of some rows of a batch."""

    rows: tuple[int, ...]
    said: Said


@dataclass(frozen=True, kw_only=True)
class ComparedRollout(Rollout):
    """A batch of episodes with what was said of them."""

    reference: Tensor
    """`(B,)` log-probabilities of the responses under the reference."""
    verdicts: list[Verdict | None]
    """Of each prompt of this process; None where nothing was said."""
    num_prompts: int
    """Of all processes."""


class OnlineTrainer(PolicyGradientTrainer[OnlineSettings, ComparedRollout]):
    """Trains a policy on comparisons of its own samples.

    Args:
        model: the policy, trained in place; as it is now (or without its adapters, if it has some) it is the reference.
        encoder: turns strings into ids.
        prompts: drawn from, every one once an epoch.
        annotator: who compares. A reward gives each response a number, and a response that did not end loses what
            `missing_end` says; a judge is asked about two; people answer when they want. Judge and people are shown no
            response that did not end, and none beside another that reads the same.
        settings: of the run.
        runtime: device and processes.
        pretraining: blocks of text for PPO-ptx.

    Raises:
        UserError: no prompts, a prompt that is too long, PPO-ptx without text, a judge for more than two, or people for
            several processes.
    """

    FIGURES = ("loss", "chosen_log_prob", "rejected_log_prob", "chosen_reward", "rejected_reward", "accuracy")

    def __init__(
        self,
        model: Any,
        encoder: Encoder,
        prompts: Sequence[str],
        annotator: TextReward | ModelReward | Judge | PeopleComparing,
        settings: OnlineSettings,
        *,
        runtime: Runtime,
        pretraining: Sequence[TokenPair] = (),
    ) -> None:
        self.people = annotator if isinstance(annotator, PeopleComparing) else None
        self.judge: Any = annotator if hasattr(annotator, "prefer_first") else None
        if self.judge is not None and settings.samples_per_prompt != 2:
            raise UserError(
                f"A judge compares two responses: leave --training.samples-per-prompt at 2. Received "
                f"{settings.samples_per_prompt}"
            )
        if self.people is not None and runtime.num_processes > 1:
            raise UserError("People's answers are learned from by one process. Start prefrl text without accelerate.")
        if self.people is not None and settings.adaptive_kl_nats is not None:
            raise UserError("beta adapts to samples of the policy as it is; what people compared is older. Fix beta.")
        reward: Any = _silent if self.judge is not None or self.people is not None else annotator
        super().__init__(
            f"online {settings.loss}", model, encoder, prompts, reward, settings,
            runtime=runtime, pretraining=pretraining, samples_per_prompt=settings.samples_per_prompt,
        )  # fmt: skip
        self._verdicts = list[Verdict | None]()
        self._num_drawn = self._num_in_vain = 0  # prompts for people; those of the last ones without a question
        self._num_too_long = 0  # of what people compared

    # ------------------------------------------------------------------------------------------------ comparing

    def _look(
        self, index: Sequence[int], sequences: Sequences, parts: list[Part]
    ) -> tuple[Forward, list[Tensor], tuple[Tensor, Parts]]:
        forward, reference, (scores, figures) = super()._look(index, sequences, parts)
        if self.judge is not None:
            del figures["score"]
            self._verdicts = self._asked(index, sequences)
        else:
            self._verdicts = self._by_reward(self._penalised(scores, sequences))
        return forward, reference, (scores, figures)

    def _by_reward(self, scores: Tensor) -> list[Verdict | None]:
        """Return what a reward says of the samples of each prompt of this process, by their scores `(B,)`."""
        of_prompts = scores.double().cpu().view(-1, self.samples_per_prompt)
        temperature, first = self.settings.temperature, self.samples_per_prompt
        if self.samples_per_prompt == 2:
            apart = of_prompts[:, 0] - of_prompts[:, 1]
            sure = torch.sigmoid(apart / temperature) if temperature else (torch.sign(apart) + 1) / 2
            return [Verdict(rows=(2 * i, 2 * i + 1), said=float(p)) for i, p in enumerate(sure)]
        if temperature:  # the order of r / T + Gumbel noise is drawn from Plackett-Luce
            noise = stream(self.settings.seed, "verdicts", self.num_steps).gumbel(size=(self._num_prompts, first))
            ours = torch.from_numpy(noise)[self.runtime.index :: self.runtime.num_processes]
            of_prompts = of_prompts / temperature + ours
        ranks = (of_prompts[:, :, None] < of_prompts[:, None]).sum(2)  # how many are better
        verdicts = list[Verdict | None]()
        for i, row in enumerate(ranks.tolist()):
            places = {rank: place for place, rank in enumerate(sorted(set(row)), 1)}
            said = tuple(places[rank] for rank in row)
            verdicts.append(Verdict(rows=tuple(range(i * first, (i + 1) * first)), said=said))
        return verdicts

    def _asked(self, index: Sequence[int], sequences: Sequences) -> list[Verdict | None]:
        """Return what a judge says, in both orders, of two responses that ended and read differently."""
        texts = [decode_response(self.tokens, ids) for ids in sequences.token_lists()]
        ended = sequences.ended(end_ids_of(self.tokens)).tolist()
        verdicts = list[Verdict | None]()
        for i in range(0, len(texts), 2):
            both = None
            if texts[i] != texts[i + 1] and ended[i] and ended[i + 1]:
                both = ask_both_ways(self.judge, self.prompts[index[i]], texts[i], texts[i + 1])
            said = None if both is None else Verdict(rows=(i, i + 1), said=(both[0] + 1 - both[1]) / 2)
            verdicts.append(said)
        return verdicts

    def _judge(
        self, sequences: Sequences, scores: Tensor, forward: Forward, reference: list[Tensor]
    ) -> tuple[ComparedRollout, Parts]:
        mask = sequences.response_mask
        log_probs, of_reference = (self._whole(forward, given, mask) for given in (forward.log_probs, reference))
        log_ratios = (log_probs - of_reference) * mask
        objective = self._penalised(scores, sequences) - self.kl.beta * log_ratios.sum(1)
        figures = self._figures(objective, log_ratios, log_probs, mask)
        if self.judge is not None:
            del figures["objective"]
        told = sum(verdict is not None and verdict.said != 0.5 for verdict in self._verdicts)
        figures["compared_share"] = torch.tensor(float(told)), len(self._verdicts)
        rollout = ComparedRollout(
            sequences=sequences, log_probs=log_probs, reference=of_reference.sum(1), verdicts=self._verdicts,
            num_prompts=self._num_prompts,
        )  # fmt: skip
        return rollout, figures

    # ------------------------------------------------------------------------------------------------ people

    def ready(self) -> bool:
        """Tell whether there are answers enough for a step; keep questions open for people."""
        if self.people is None:
            return True
        waiting, asked = self.people.counts()
        self._num_drawn = max(self._num_drawn, asked)
        answered = self.people.num_new()
        missing = max(self.settings.ahead, self._num_prompts) - waiting - answered
        if missing > 0:
            self._ask(missing)
        return answered >= self._num_prompts

    def _ask(self, count: int) -> None:
        """Draw responses of the policy as it is to `count` prompts, and ask about those that differ.

        Raises:
            UserError: of many prompts one after the other none got two that can be compared.
        """
        assert self.people is not None
        order, first = Epochs(len(self.prompts), 1, self.settings.seed, "prompts"), self._num_drawn
        prompts = [self.prompts[order.batch(first + i)[0]] for i in range(count)]
        with self.runtime.autocast():
            drawn = draw_responses(
                self.model, self.encoder, prompts, self.samples_per_prompt, self.settings.sampling,
                seed=stream_seed(self.settings.seed, "questions", first),
            )  # fmt: skip
        self._num_drawn += count
        ended = [
            [text for text, end in zip(texts, ends, strict=True) if end and self.encoder.fits(prompt, text)]
            for prompt, texts, ends in zip(prompts, drawn.texts, drawn.ended, strict=True)
        ]
        shown = [(prompt, texts) for prompt, texts in zip(prompts, ended, strict=True) if len(set(texts)) > 1]
        if shown:
            self._num_in_vain = 0
            self.people.ask([prompt for prompt, _ in shown], [texts for _, texts in shown], self.num_steps)
            return
        self._num_in_vain += count
        if self._num_in_vain >= MOST_IN_VAIN:
            raise UserError(
                f"Of {self._num_in_vain} prompts one after the other none got two different responses that end within "
                f"{self.settings.sampling.max_tokens} tokens, so there is nothing to compare. Raise --max-tokens or "
                "--training.samples-per-prompt."
            )

    def waits_for(self) -> str:
        """Return what a step waits for."""
        assert self.people is not None
        return f"{self._num_prompts - self.people.num_new()} more answers to make a step"

    def step(self) -> Metrics:
        """Draw a batch, have it compared, and make all epochs of updates; or learn from what people have said."""
        if self.people is None:
            return super().step()
        self.model.eval()
        given = self.people.take(self._num_prompts)
        sequences, verdicts = self._read(given)
        self._num_too_long += verdicts.count(None)
        parts = self._parts(sequences, torch.arange(len(sequences), device=sequences.lengths.device))
        whole = self.settings.minibatch_size >= self.settings.batch_size and not self._most
        with torch.set_grad_enabled(whole):
            forward = Forward(parts, self._log_probs(parts), [])
        mask = sequences.response_mask
        with torch.no_grad():
            rollout = ComparedRollout(
                sequences=sequences, log_probs=self._whole(forward, forward.log_probs, mask),
                reference=self._whole(forward, self._reference_log_probs(parts), mask).sum(1), verdicts=verdicts,
                num_prompts=len(given),
            )  # fmt: skip
        ages = [self.num_steps - one.asked_at for one in given]
        means = {
            "length": float(sequences.lengths.float().mean()), "age_steps": sum(ages) / len(ages),
            "beta": self.kl.beta, "untold": float(self.people.num_untold),
            "taken_back_too_late": float(self.people.num_late), "too_long": float(self._num_too_long),
        } | self._update(rollout, forward if whole else None)  # fmt: skip
        self.num_steps += 1
        self.num_examples += len(sequences)
        return means

    def _read(self, given: Sequence[Compared]) -> tuple[Sequences, list[Verdict | None]]:
        """Return what people compared as ids, and what they said of the rows; None where a text is too long to read."""
        prompts, responses, verdicts = list[list[int]](), list[list[int]](), list[Verdict | None]()
        for one in given:
            start, prompt = len(responses), self.encoder.prompt(one.prompt)
            ids = [response_ids(self.tokens, one.prompt, text) for text in one.responses]
            responses += [row[: self.encoder.context - len(prompt)] for row in ids]
            prompts += [prompt] * len(ids)
            fits = max(map(len, ids)) <= self.encoder.context - len(prompt)
            verdicts.append(Verdict(rows=tuple(range(start, len(responses))), said=one.said) if fits else None)
        return make_sequences(prompts, responses, self.pad_id).to(self.runtime.device), verdicts

    # ------------------------------------------------------------------------------------------------ updates

    def _minibatches(self, rollout: ComparedRollout, epoch: int) -> Iterator[tuple[Tensor, int]]:
        """Give the rows of minibatches; what was compared stays together."""
        most, processes = self.settings.minibatch_size // self.samples_per_prompt, self.runtime.num_processes
        for prompts in self._shuffled(rollout.num_prompts, epoch).split(most):
            ours = (prompts[prompts % processes == self.runtime.index] // processes).tolist()
            told = [verdict for i in ours if (verdict := rollout.verdicts[i]) is not None]
            yield torch.tensor([row for verdict in told for row in verdict.rows], dtype=torch.long), len(prompts)

    def _add_gradients(
        self, rollout: ComparedRollout, parts: list[Part], num_episodes: int, num_tokens: Tensor,
        forward: Forward | None,
    ) -> Metrics:  # fmt: skip
        """Add the gradients of a minibatch: first of the losses by the log-probabilities of responses, then of these.

        So responses that are compared may go through the model in different parts.
        """
        with torch.set_grad_enabled(not self._most):
            given = forward.log_probs if forward is not None else self._log_probs(parts)
            sums = [log_probs.sum(1) for log_probs in given]
        policy = rollout.reference.clone()
        for part, of_part in zip(parts, sums, strict=True):
            policy[part.rows] = of_part.detach()
        here = {row for part in parts for row in part.rows.tolist()}
        told = [verdict for verdict in rollout.verdicts if verdict is not None and here.issuperset(verdict.rows)]
        count = max(1.0, float(self.runtime.total(torch.tensor(float(len(told)), device=policy.device))))
        rho = (policy - rollout.reference).requires_grad_()
        figures = dict.fromkeys(self.FIGURES, 0.0)
        if told or self.runtime.shares:  # who shares the weights goes back through them with the others
            loss = self._losses(rho, told).sum() / count if told else 0.0 * rho.sum()
            loss.backward()
            assert rho.grad is not None
            for part, of_part in zip(parts, sums, strict=True):
                again = self._log_probs([part])[0].sum(1) if self._most else of_part
                (again * rho.grad[part.rows]).sum().backward()
            figures |= {"loss": loss.item()} | (self._told(policy, rho.detach(), told, count) if told else {})
        return figures | self._add_pretraining_gradient()

    def _losses(self, rho: Tensor, told: Sequence[Verdict]) -> Tensor:
        """Return the loss of each verdict, `(G,)`."""
        beta, pairs = self.kl.beta, [verdict for verdict in told if isinstance(verdict.said, float)]
        losses = []
        if pairs:
            first, second = rho[torch.tensor([verdict.rows for verdict in pairs], device=rho.device)].unbind(1)
            said = torch.tensor([verdict.said for verdict in pairs], device=rho.device)
            of_pairs = dpo_loss if self.settings.loss == "dpo" else ipo_loss
            losses.append(of_pairs(first, second, beta, preferences=said))
        for verdict in told:
            if not isinstance(verdict.said, float):
                left, chosen = (part.to(rho.device) for part in choices(verdict.said))
                scores = beta * rho[torch.tensor(verdict.rows, device=rho.device)]
                losses.append(-ranking_log_likelihood(scores, left, chosen.to(rho.dtype))[None])
        return torch.cat(losses)

    def _told(self, policy: Tensor, rho: Tensor, told: Sequence[Verdict], count: float) -> Metrics:
        """Return figures of the best and the worst of each verdict, as sums over `count`."""
        ends = [_ends(verdict) for verdict in told]
        best, worst = (torch.tensor(rows, device=rho.device) for rows in zip(*ends, strict=True))
        apart = rho[best] - rho[worst]
        right = torch.where(apart.abs() > ROUNDING_NATS, (apart > 0).float(), 0.5)
        sums = (
            policy[best], policy[worst], self.kl.beta * rho[best], self.kl.beta * rho[worst], right,
        )  # fmt: skip
        return {name: (values.sum() / count).item() for name, values in zip(self.FIGURES[1:], sums, strict=True)}

    def state(self) -> State:
        """Return what a checkpoint must hold."""
        if self.people is None:
            return super().state()
        read = [self.people.last_row, self.people.num_untold, self.people.num_late, self._num_too_long]
        return State(tensors=super().state().tensors | {"people": read})

    def restore(self, state: State) -> None:
        """Take over what `state` gave."""
        super().restore(state)
        if self.people is not None:
            held = [int(number) for number in state.tensors["people"]]
            self.people.last_row, self.people.num_untold, self.people.num_late, self._num_too_long = held


def _ends(verdict: Verdict) -> tuple[int, int]:
    """Return the rows of the best and the worst."""
    if isinstance(verdict.said, float):
        return verdict.rows if verdict.said >= 0.5 else verdict.rows[::-1]  # type: ignore[return-value]
    ranks = list(verdict.said)
    return verdict.rows[ranks.index(min(ranks))], verdict.rows[ranks.index(max(ranks))]


def _silent(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """The reward where somebody else compares."""
    return [0.0] * len(responses)

"""Learning from a reward without a value model: RLOO, GRPO, REINFORCE, or an estimator of one's own.

Several responses are drawn to each prompt with one prefill; an estimator (`estimators.py`) turns their rewards into
advantages; sampling, scoring, the KL and the updates are those of every policy gradient (`policy_gradient.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from prefrl.envs.text_rewards import TextReward
from prefrl.errors import UserError
from prefrl.runs import State
from prefrl.runs.trainer import Metrics
from prefrl.seams import Named
from prefrl.text.data.examples import Encoder
from prefrl.text.learn import estimators
from prefrl.text.learn import ppo_terms as terms
from prefrl.text.learn.estimators import ESTIMATORS, OF_GROUPS, Episodes, Lengths, Ratio, checked_advantages
from prefrl.text.learn.policy_gradient import (
    Forward,
    Part,
    Parts,
    PolicyGradientSettings,
    PolicyGradientTrainer,
    Rollout,
)
from prefrl.text.learn.reward_model import ModelReward
from prefrl.text.learn.runtime import Runtime
from prefrl.text.learn.sft import TokenPair
from prefrl.text.model.options import NoOption
from prefrl.text.model.sequences import Sequences

MOVING_SHARE = 0.1
"""What a batch counts in the moving mean of rewards."""


@dataclass(frozen=True, kw_only=True)
class EstimatorSettings(PolicyGradientSettings):
    """A policy gradient without a value model; the defaults are those of RLOO.

    Raises:
        UserError: a value out of its range, or one that this estimator has no use for.
    """

    estimator: NoOption[Named] = "rloo"
    epochs: int = 1
    samples_per_prompt: int = 4
    """K: responses drawn to each prompt; they are among batch_size."""
    ratio: Ratio = "response"
    """Of what probabilities are compared and clipped: of each token, or of the whole response."""
    clip_high: float | None = None
    """How far the ratio may rise above 1, where clip is how far it may fall (Yu et al. 2025: 0.28); None: clip."""
    lengths: Lengths | None = None
    """With ratios of tokens, the mean is taken over each response and then over these (response), over all tokens
    (token), or over responses of the longest length there may be (constant); None: token."""
    kl: Literal["reward", "loss"] = "reward"
    """Where the KL penalty is: in the reward, or (as in GRPO) its k3 estimate in the loss."""
    scale: Literal["group", "batch", "none"] = "none"
    """What GRPO divides rewards by: the standard deviation of the prompt's samples, that of the batch, or nothing."""
    baseline: Literal["batch", "moving"] = "batch"
    """What REINFORCE takes off rewards: the mean of the batch, or a moving mean of the batches before."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "estimator", ESTIMATORS.name(self.estimator))
        super().__post_init__()
        least = 2 if self.estimator in OF_GROUPS else 1
        if self.samples_per_prompt < least:
            raise UserError(
                f"samples_per_prompt must be at least {least} for {self.estimator}. Received {self.samples_per_prompt}"
            )
        if self.batch_size % self.samples_per_prompt:
            raise UserError(
                f"batch_size must be a multiple of samples_per_prompt. Received {self.batch_size} and "
                f"{self.samples_per_prompt}"
            )
        if not 0 < self.clip < 1:
            raise UserError(f"clip must be in (0, 1). Received {self.clip}")
        if self.clip_high is not None and not 0 < self.clip_high < math.inf:
            raise UserError(f"clip_high must be above 0. Received {self.clip_high}")
        if self.lengths is not None and self.ratio == "response":
            raise UserError("lengths is for ratios of tokens; with ratio response each response counts the same.")
        if self.estimator == "reinforce" and self.baseline == "batch" and self.batch_size < 2:
            raise UserError(
                "The mean of a batch of one episode is its reward, and nothing is learned: raise batch_size."
            )
        for option, neutral, of in (("scale", "none", "grpo"), ("baseline", "batch", "reinforce")):
            if self.estimator in ESTIMATORS and self.estimator != of and getattr(self, option) != neutral:
                raise UserError(f"{option} is for {of}; {self.estimator} has no use for it. Leave it out.")

    @property
    def method(self) -> str:  # type: ignore[override]
        """What messages call it."""
        return str(self.estimator).upper() if self.estimator in ESTIMATORS else f"The estimator {self.estimator}"


def grpo_settings() -> EstimatorSettings:
    """Return the settings of GRPO (Shao et al. 2024, s. 4.2: beta 0.04; 8 samples to a prompt instead of 64)."""
    return EstimatorSettings(
        estimator="grpo", samples_per_prompt=8, beta=0.04, ratio="token", lengths="response", kl="loss", scale="group"
    )


def reinforce_settings() -> EstimatorSettings:
    """Return the settings of REINFORCE with the mean of the batch as baseline."""
    return EstimatorSettings(estimator="reinforce", samples_per_prompt=1)


@dataclass(frozen=True, kw_only=True)
class EstimatedRollout(Rollout):
    """A batch of episodes with their advantages and the log-probabilities of the reference, `(B, R)`."""

    advantages: Tensor
    reference: Tensor


class EstimatorTrainer(PolicyGradientTrainer[EstimatorSettings, EstimatedRollout]):
    """Trains a policy on a reward of responses by the estimator that the settings name; see `PolicyGradientTrainer`.

    Raises:
        UserError: no prompts, a prompt that is too long, PPO-ptx without text, or no such estimator.
    """

    FIGURES = ("policy_loss", "clip_share")

    def __init__(
        self,
        model: Any,
        encoder: Encoder,
        prompts: Sequence[str],
        reward: TextReward | ModelReward,
        settings: EstimatorSettings,
        *,
        runtime: Runtime,
        pretraining: Sequence[TokenPair] = (),
    ) -> None:
        self.estimator = ESTIMATORS.find(settings.estimator)
        super().__init__(
            str(settings.estimator), model, encoder, prompts, reward, settings,
            runtime=runtime, pretraining=pretraining, samples_per_prompt=settings.samples_per_prompt,
        )  # fmt: skip
        self._moving_mean: float | None = None

    def _judge(
        self, sequences: Sequences, scores: Tensor, forward: Forward, reference: list[Tensor]
    ) -> tuple[EstimatedRollout, Parts]:
        mask = sequences.response_mask
        log_probs, of_reference = (self._whole(forward, given, mask) for given in (forward.log_probs, reference))
        log_ratios, penalised = (log_probs - of_reference) * mask, self._penalised(scores, sequences)
        objective = penalised - self.kl.beta * log_ratios.sum(1)
        in_reward = self.kl.beta if self.settings.kl == "reward" else 0.0
        rewards = terms.token_rewards(penalised, log_ratios, mask, in_reward)
        episodes = self._everyones(rewards, log_probs, mask)
        given = checked_advantages(self.estimator(episodes, self.settings), episodes, self.settings)
        advantages = self._own(given)[:, : mask.shape[1]]
        mean = float(episodes.totals.mean())
        before = self._moving_mean
        self._moving_mean = mean if before is None else before + MOVING_SHARE * (mean - before)
        rollout = EstimatedRollout(
            sequences=sequences, log_probs=log_probs, advantages=advantages, reference=of_reference
        )
        figures = self._figures(objective, log_ratios, log_probs, mask)
        if self.samples_per_prompt > 1:  # from samples that all came to the same nothing is learned
            totals = rewards.sum(1).view(-1, self.samples_per_prompt)
            figures["tied_share"] = ((totals == totals[:, :1]).all(1).float().sum(), len(totals))
        return rollout, figures

    def _everyones(self, rewards: Tensor, log_probs: Tensor, mask: Tensor) -> Episodes:
        """Return the episodes of all processes, in the order of the batch."""
        arrays, samples, processes = (rewards, log_probs, mask), self.samples_per_prompt, self.runtime.num_processes
        if processes > 1:
            longest = self.settings.sampling.max_tokens
            batch = torch.zeros(3, self._num_prompts, samples, longest, device=mask.device)
            for whole, own in zip(batch, arrays, strict=True):
                filled = pad(own.float(), (0, longest - own.shape[1]))
                whole[self.runtime.index :: processes] = filled.view(-1, samples, longest)
            whole_rewards, whole_log_probs, held = self.runtime.total(batch).flatten(1, 2)
            arrays = whole_rewards, whole_log_probs, held > 0
        return Episodes(
            rewards=arrays[0], log_probs=arrays[1] * arrays[2], mask=arrays[2],
            num_samples=samples, moving_mean=self._moving_mean,
        )  # fmt: skip

    def _own(self, whole: Tensor) -> Tensor:
        """Return the rows of this process."""
        of_prompts = whole.view(self._num_prompts, self.samples_per_prompt, -1)
        return of_prompts[self.runtime.index :: self.runtime.num_processes].flatten(0, 1)

    def _add_gradients(
        self, rollout: EstimatedRollout, parts: list[Part], num_episodes: int, num_tokens: Tensor,
        forward: Forward | None,
    ) -> Metrics:  # fmt: skip
        settings = self.settings

        def loss_of(number: int) -> tuple[Tensor, Metrics]:
            part = parts[number]
            log_probs = self._log_probs([part])[0] if forward is None else forward.log_probs[number]
            mask, width = part.sequences.response_mask, log_probs.shape[1]
            old, advantages, reference = (
                array[part.rows, :width] for array in (rollout.log_probs, rollout.advantages, rollout.reference)
            )
            weights = estimators.token_weights(
                mask, settings.lengths or "token",
                num_episodes=num_episodes, num_tokens=num_tokens, max_tokens=settings.sampling.max_tokens,
            )  # fmt: skip
            gain, held = estimators.surrogate(
                log_probs, old, advantages, mask,
                clip=settings.clip, clip_high=settings.clip_high, ratio=settings.ratio,
            )  # fmt: skip
            counted = weights if settings.ratio == "token" else mask[:, :1] / num_episodes
            loss = -(counted * gain).sum()
            if settings.kl == "loss":
                loss = loss + self.kl.beta * (weights * estimators.kl_terms(log_probs, reference, mask)).sum()
            of = num_tokens if settings.ratio == "token" else num_episodes
            return loss, {"policy_loss": loss.item(), "clip_share": (held.sum() / of).item()}

        return self._add_up(loss_of, len(parts)) | self._add_pretraining_gradient()

    def state(self) -> State:
        """Return what a checkpoint must hold."""
        return State(tensors=super().state().tensors | {"moving_mean": self._moving_mean})

    def restore(self, state: State) -> None:
        """Take over what `state` gave."""
        super().restore(state)
        held = state.tensors["moving_mean"]
        self._moving_mean = None if held is None else float(held)

"""PPO for language models, with a value model and a per-token KL penalty.

The score lands on the last token, the penalty -beta (log pi - log pi_ref) on each (Ziegler et al. 2019; Stiennon et al.
2020; the details are those of Huang et al. 2024). A value model beside the policy says what each token may still bring.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from prefrl.envs.text_rewards import TextReward
from prefrl.errors import UserError
from prefrl.runs import State
from prefrl.runs.sharding import gathered, load_whole
from prefrl.runs.streams import stream_seed
from prefrl.runs.trainer import Metrics
from prefrl.text.data.examples import Encoder
from prefrl.text.learn import ppo_terms as terms
from prefrl.text.learn.policy_gradient import (
    Forward,
    Part,
    Parts,
    PolicyGradientSettings,
    PolicyGradientTrainer,
    Rollout,
)
from prefrl.text.learn.reward_model import ModelReward, RewardModel
from prefrl.text.learn.runtime import Runtime
from prefrl.text.learn.sft import TokenPair
from prefrl.text.model.sequences import Sequences


@dataclass(frozen=True, kw_only=True)
class TextPPOSettings(PolicyGradientSettings):
    """PPO; the defaults are those of Huang et al. 2024 for summaries, in episodes instead of their 1,000,000.

    Raises:
        UserError: a value out of its range, or sampling that changes the distribution.
    """

    method: ClassVar[str] = "PPO"

    gae_lambda: float = 0.95
    value_clip: float = 0.2
    value_coefficient: float = 0.1
    whiten_rewards: bool = True
    whiten_advantages: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.value_coefficient < float("inf"):
            raise UserError(f"value_coefficient must be at least 0. Received {self.value_coefficient}")
        if not self.value_clip > 0:
            raise UserError(f"value_clip must be above 0. Received {self.value_clip}")
        if not 0 <= self.gae_lambda <= 1 or not 0 < self.clip < 1:
            raise UserError("gae_lambda must be in [0, 1] and clip in (0, 1).")


@dataclass(frozen=True, kw_only=True)
class ValuedRollout(Rollout):
    """A batch of episodes with what the value model said of it, `(B, R)`."""

    advantages: Tensor
    values: Tensor
    returns: Tensor


class PPOTrainer(PolicyGradientTrainer[TextPPOSettings, ValuedRollout]):
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

    FIGURES = ("policy_loss", "clip_share", "value_loss")

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
        self.value_model = _start_value_model(model, reward, value_model, settings.seed)
        super().__init__("ppo", model, encoder, prompts, reward, settings, runtime=runtime, pretraining=pretraining)

    def _modules(self) -> list[Any]:
        return [self.model, self.value_model]

    def _look(
        self, index: Sequence[int], sequences: Sequences, parts: list[Part]
    ) -> tuple[Forward, list[Tensor], tuple[Tensor, Parts]]:
        (log_probs, reference), (values, scored) = self._lanes.run(
            lambda: (self._log_probs(parts), self._reference_log_probs(parts)),
            lambda: (self._values(parts), self._scores(index, sequences)),
        )
        return Forward(parts, log_probs, values), reference, scored

    def _values(self, parts: Iterable[Part]) -> list[Tensor]:
        with self.runtime.autocast():
            return [self.value_model.values(part.sequences) for part in parts]

    def _judge(
        self, sequences: Sequences, scores: Tensor, forward: Forward, reference: list[Tensor]
    ) -> tuple[ValuedRollout, Parts]:
        settings, mask, total = self.settings, sequences.response_mask, self.runtime.total
        log_probs = self._whole(forward, forward.log_probs, mask)
        values = self._whole(forward, forward.values, mask)
        log_ratios = (log_probs - self._whole(forward, reference, mask)) * mask
        rewards = terms.token_rewards(self._penalised(scores, sequences), log_ratios, mask, self.kl.beta)
        objective = rewards.sum(1)
        if settings.whiten_rewards:
            rewards = terms.whiten(rewards, mask, shift_mean=False, total=total)
        advantages, returns = terms.advantages(rewards, values, mask, settings.gae_lambda)
        if settings.whiten_advantages:
            advantages = terms.whiten(advantages, mask, total=total)
        rollout = ValuedRollout(
            sequences=sequences, log_probs=log_probs, advantages=advantages, values=values * mask, returns=returns
        )
        return rollout, self._figures(objective, log_ratios, log_probs, mask)

    def _add_gradients(
        self, rollout: ValuedRollout, parts: list[Part], num_episodes: int, num_tokens: Tensor, forward: Forward | None
    ) -> Metrics:
        of_policy, of_values = self._lanes.run(
            lambda: self._add_policy_gradient(rollout, parts, num_tokens, forward),
            lambda: self._add_value_gradient(rollout, parts, num_tokens, forward),
        )
        return of_policy | of_values

    def _add_policy_gradient(
        self, rollout: ValuedRollout, parts: list[Part], num_tokens: Tensor, forward: Forward | None
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
        return figures | self._add_pretraining_gradient()

    def _add_value_gradient(
        self, rollout: ValuedRollout, parts: list[Part], num_tokens: Tensor, forward: Forward | None
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

    def state(self) -> State:
        """Return what a checkpoint must hold."""
        return State(tensors=super().state().tensors | {"value_model": gathered(self.value_model.state_dict())})

    def restore(self, state: State) -> None:
        """Take over what `state` gave."""
        super().restore(state)
        load_whole(self.value_model, state.tensors["value_model"])


def _start_value_model(
    model: Any, reward: TextReward | ModelReward, value_model: RewardModel | None, seed: int
) -> RewardModel:
    if value_model is not None:
        return copy.deepcopy(value_model).requires_grad_(True)
    if isinstance(reward, ModelReward):  # Stiennon et al. 2020, s. 3.4
        return copy.deepcopy(reward.members[0]).requires_grad_(True)
    return RewardModel.from_policy(model, stream_seed(seed, "value"))

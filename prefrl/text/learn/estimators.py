"""Advantages without a value model, from what the samples of a batch came to: RLOO, GRPO, REINFORCE; and their loss.

An estimator is one pure function of the episodes of a batch and the settings; `ESTIMATORS` has ours by name, a user's
own is `module:name`. All share one loss, the clipped surrogate, whose ratio is of tokens or of whole responses and
whose mean is taken in one of three ways. Which of them are unbiased for E[r] - beta KL, `docs/text.md` says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from prefrl.errors import UserError
from prefrl.seams import Registry, check_call

Ratio = Literal["token", "response"]
Lengths = Literal["response", "token", "constant"]
STD_EPS = 1e-4
"""Added to a standard deviation that rewards are divided by, as trl has it."""


class Options(Protocol):
    """What an estimator reads of the settings of a run, `prefrl.text.learn.estimating.EstimatorSettings`."""

    @property
    def estimator(self) -> str:
        """Its name."""

    @property
    def ratio(self) -> Ratio:
        """Of what probabilities are compared."""

    @property
    def scale(self) -> Literal["group", "batch", "none"]:
        """What GRPO divides rewards by."""

    @property
    def baseline(self) -> Literal["batch", "moving"]:
        """What REINFORCE takes off rewards."""


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """The B responses of a whole batch, K samples of each prompt side by side.

    Of several processes each sees all of them.
    """

    rewards: Tensor
    """`(B, R)` float32: the score on the last token of each response, after the penalty for a missing end; where the KL
    is part of the reward, also -beta (log pi - log pi_ref) on every token. 0 outside the mask."""
    log_probs: Tensor
    """`(B, R)` float32, nats: of the tokens, under the policy that drew them. 0 outside the mask."""
    mask: Tensor
    """`(B, R)` bool: which places hold a token of the response."""
    num_samples: int
    """K."""
    moving_mean: float | None = None
    """Moving mean of the rewards of earlier batches; None at the first."""

    @property
    def totals(self) -> Tensor:
        """`(B,)` float32: reward of each response."""
        return self.rewards.sum(1)

    @property
    def grouped_totals(self) -> Tensor:
        """`(B / K, K)` float32: rewards of the samples of each prompt."""
        return self.totals.view(-1, self.num_samples)


Estimator = Callable[[Episodes, Options], Tensor]
"""Returns advantages, `(B,)` of whole responses or `(B, R)` of their tokens."""


def rloo(episodes: Episodes, settings: Options) -> Tensor:
    """Reward less the mean reward of the prompt's other samples (Ahmadian et al. 2024, s. 3.3), `(B,)`."""
    rewards = episodes.grouped_totals
    others = (rewards.sum(1, keepdim=True) - rewards) / (episodes.num_samples - 1)
    return (rewards - others).flatten()


def grpo(episodes: Episodes, settings: Options) -> Tensor:
    """Reward less the mean of the prompt's samples, over their standard deviation (Shao et al. 2024, s. 4.1.2), `(B,)`.

    `settings.scale` says over which deviation: of the prompt's samples, of the batch, or none (Liu et al. 2025).
    """
    rewards = episodes.grouped_totals
    centred = rewards - rewards.mean(1, keepdim=True)
    if settings.scale == "group":
        centred = centred / (rewards.std(1, keepdim=True) + STD_EPS)
    elif settings.scale == "batch":
        centred = centred / (rewards.std() + STD_EPS)
    return centred.flatten()


def reinforce(episodes: Episodes, settings: Options) -> Tensor:
    """Reward less a baseline (Williams 1992): the mean of the batch, or a moving mean of the batches before, `(B,)`."""
    rewards = episodes.totals
    if settings.baseline == "moving" and episodes.moving_mean is not None:
        return rewards - episodes.moving_mean
    return rewards - rewards.mean()


def _adopt(given: Any, where: str) -> Estimator:
    check_call(given, where, ("episodes", "settings"))
    return given


ESTIMATORS: Registry[Estimator] = Registry("estimator", {"rloo": rloo, "grpo": grpo, "reinforce": reinforce}, _adopt)
OF_GROUPS = ("rloo", "grpo")
"""Those that compare the samples of a prompt: one sample has nothing to be compared with."""


def checked_advantages(advantages: Any, episodes: Episodes, settings: Options) -> Tensor:
    """Return what an estimator gave as `(B, R)` float32, 0 outside the mask.

    Raises:
        UserError: it is no array of numbers, one for each response or token, or ratios are not those of tokens.
    """
    batch, width = episodes.mask.shape
    name = settings.estimator
    if not isinstance(advantages, Tensor) or advantages.shape not in ((batch,), (batch, width)):
        got = tuple(advantages.shape) if isinstance(advantages, Tensor) else type(advantages).__name__
        raise UserError(
            f"The estimator {name} must return a tensor of shape ({batch},) or ({batch}, {width}): an advantage of "
            f"each response or token. Received {got}"
        )
    if advantages.dim() == 2 and settings.ratio == "response":
        raise UserError(f"The estimator {name} gives an advantage to each token; that needs ratio token.")
    wide = advantages.detach().float() if advantages.dim() == 2 else advantages.detach().float()[:, None]
    wide = torch.where(episodes.mask, wide, 0.0)
    if not torch.isfinite(wide).all():
        raise UserError(f"The estimator {name} returned an advantage that is not finite.")
    return wide


def surrogate(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, mask: Tensor, *,
    clip: float, clip_high: float | None = None, ratio: Ratio = "token",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The clipped surrogate min(w A, clip(w, 1 - clip, 1 + clip_high) A) (Schulman et al. 2017, Eq. 7).

    Args:
        log_probs: `(B, R)` float, of the policy as it is.
        old_log_probs: `(B, R)` float, of the policy that drew the responses.
        advantages: `(B, R)` float; with a ratio of responses that of the first token is that of the response.
        mask: `(B, R)` bool; each row holds one run of true values, from its start.
        clip: below 1 by so much.
        clip_high: above 1 by so much (Yu et al. 2025: more than below); None: as below.
        ratio: w is that of each token (Shao et al. 2024), or of the whole response (Ahmadian et al. 2024).

    Returns:
        The surrogate, to be maximised, and whether clipping holds it, both `(B, R)`, or `(B, 1)` for responses.
    """
    log_ratios = (log_probs - old_log_probs) * mask
    if ratio == "response":
        log_ratios, advantages, mask = log_ratios.sum(1, keepdim=True), advantages[:, :1], mask[:, :1]
    ratios = torch.exp(log_ratios)
    bounded = ratios.clamp(1 - clip, 1 + (clip if clip_high is None else clip_high))
    held = (bounded * advantages < ratios * advantages) & mask
    return torch.minimum(ratios * advantages, bounded * advantages) * mask, held


def kl_terms(log_probs: Tensor, reference_log_probs: Tensor, mask: Tensor) -> Tensor:
    """Return pi_ref / pi - log(pi_ref / pi) - 1 at each token (Schulman's k3; Shao et al. 2024, Eq. 4), `(B, R)`.

    Its mean over tokens that pi draws is KL(pi || pi_ref), at least 0 in every term. As a loss it is another thing:
    there its gradient is, in the mean, that of KL(pi_ref || pi).
    """
    log_ratios = (reference_log_probs - log_probs) * mask
    return torch.exp(log_ratios) - log_ratios - 1


def token_weights(
    mask: Tensor, lengths: Lengths, *, num_episodes: int, num_tokens: Tensor | int, max_tokens: int
) -> Tensor:
    """Return what each token counts in the loss of a batch, `(B, R)` float32, 0 outside the mask.

    Args:
        mask: `(B, R)` bool; at least one token in each row.
        lengths: `response`: the mean of each response, then of the responses (Shao et al. 2024); `token`: the mean of
            all tokens (Yu et al. 2025); `constant`: the sum over the longest response there may be, then the mean of
            the responses, by which no length is favoured (Liu et al. 2025).
        num_episodes: of the batch, of which these may be a part.
        num_tokens: likewise.
        max_tokens: of the longest response there may be.
    """
    if lengths == "response":
        return mask / mask.sum(1, keepdim=True) / num_episodes
    if lengths == "token":
        return mask / num_tokens
    return mask / float(num_episodes * max_tokens)

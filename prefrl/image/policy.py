"""Policy gradients on denoising: DDPO and DPOK over one trainer.

An episode is T Gaussian steps from noise to an image, the reward comes at its end, and the action is x_{t-1}. Of each
batch of episodes, the update is that of PPO for every step by itself (DDPO, Black et al. 2023, Eq. 5), plus beta times
the KL divergence of the step from that of the model at the start (DPOK, Fan et al. 2023, Eq. 8):

    L = - min(ratio A, clip(ratio) A) + beta KL(p(x_{t-1} | x_t) || p_start(x_{t-1} | x_t))

- DDPO: A is the reward less the mean of its prompt, over the deviation of its prompt; beta is 0 unless given.
- DPOK: A is the reward less a value learned of the prompt and the noisy image; beta is 0.01 unless given.

Departures: a step's policy gradient is weighted by its deviation over the mean of all (He et al. 2025, TempFlow-GRPO,
for flows): the gradient of a density rises as 1 / sigma, so that unweighted the last steps, which decide little, make
up most of it and of its noise. In 5 and 20 batches on our world the reward came to 0.26 and 0.57 with it, 0.11 and 0.44
without. The KL divergence is not weighted, so that late steps are held nearer to the start than at the exact optimum;
`by_noise=False` has that. Densities are summed over the numbers of an image, not averaged as in DDPO's code, so a clip
range is that of the ratio of whole images. DPOK weights the reward by 10 and the KL by 0.01; here the reward is taken
as it is given (a reward model's has a deviation of 1 on pictures of the model at the start), and `beta` is the weight
of the KL beside it; in DDPO it stands beside rewards that are normalised for each prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from prefrl.errors import UserError
from prefrl.image.diffusion import Episode, sample
from prefrl.image.model import Condition, ImageModel
from prefrl.image.scoring import score
from prefrl.runs.checkpoint import State
from prefrl.runs.optimisation import Optimiser, OptimiserSettings
from prefrl.runs.streams import stream, torch_stream
from prefrl.runs.trainer import Metrics, ModelTrainer


@dataclass(frozen=True, kw_only=True)
class PolicySettings:
    """How a model is trained on a reward."""

    steps: int = 100
    """Batches of episodes."""
    prompts: int = 16
    """In a batch."""
    images: int = 4
    """For each prompt."""
    beta: float = 0.0
    """Weight of the KL divergence from the model at the start, in nats of a whole episode."""
    clip_range: float = 0.2
    epochs: int = 1
    """Passes over each batch."""
    minibatch_size: int = 256
    """Steps of episodes in one update."""
    baseline: Literal["prompt", "value"] = "prompt"
    """What a reward is compared with: the mean of its prompt (DDPO), or a learned value (DPOK)."""
    by_noise: bool = True
    """Weight the gradient of each step by its noise: late ones decide little, but theirs grows as 1 / noise."""
    optimiser: OptimiserSettings = field(default_factory=lambda: OptimiserSettings(learning_rate=3e-5))
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.prompts, self.images, self.epochs, self.minibatch_size) < 1:
            raise UserError("steps, prompts, images, epochs and minibatch_size must be at least 1.")
        if self.baseline == "prompt" and self.images < 2:
            raise UserError("A baseline of the prompt needs at least 2 images for each. Received 1.")
        if self.beta < 0 or not 0 < self.clip_range < 1:
            raise UserError("beta must be at least 0, and clip_range between 0 and 1.")


def policy_loss(ratio: Tensor, gains: Tensor, divergence: Tensor, clip_range: float, beta: float) -> Tensor:
    """Return the loss of a batch of steps: PPO's clipped objective and the KL divergence, each a mean.

    Args:
        ratio: of each step's density to that under the model that drew it, `(N,)`.
        gains: advantages, `(N,)`.
        divergence: of each step from that of the model at the start, `(N,)` nats.
        clip_range: how far a ratio may go from 1 and still be followed.
        beta: weight of the divergence.
    """
    limited = ratio.clamp(1 - clip_range, 1 + clip_range)
    return -torch.minimum(ratio * gains, limited * gains).mean() + beta * divergence.mean()


class Value(nn.Module):
    """What an episode will come to, told by its prompt, its noisy image and how far it has come (DPOK, section 4.2)."""

    def __init__(self, text_width: int, shape: tuple[int, int, int], width: int = 128) -> None:
        super().__init__()
        channels, rows, _ = shape
        side = min(8, rows)
        self.shrink = nn.AdaptiveAvgPool2d(side)
        self.layers = nn.Sequential(
            nn.Linear(text_width + channels * side * side + 1, width), nn.GELU(), nn.Linear(width, width), nn.GELU(),
            nn.Linear(width, 1),
        )  # fmt: skip

    def forward(self, x: Tensor, told: Tensor, share: Tensor) -> Tensor:
        """Return values `(B,)` of `x` `(B, C, H, W)`, prompts `(B, D)` and the share of steps made `(B,)`."""
        seen = torch.cat([told, self.shrink(x).flatten(1), share[:, None]], 1)
        value: Tensor = self.layers(seen).squeeze(-1)
        return value


class PolicyTrainer(ModelTrainer):
    """Trains a text-to-image model on a reward.

    Args:
        model: what is trained.
        prompts: drawn from uniformly.
        reward: prompts and pictures -> scores.
        settings: how.
        num_sampling_steps: T.
        reference: what the KL is taken from; None: a copy of the model as it is now.
    """

    def __init__(
        self, model: ImageModel, prompts: Sequence[str], reward: Any, settings: PolicySettings, num_sampling_steps: int,
        *, reference: ImageModel | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.name = "dpok" if settings.baseline == "value" else "ddpo"
        self.model, self.prompts, self.reward, self.settings = model, list(prompts), reward, settings
        self.reference = model.copy() if reference is None else reference
        self.schedule = model.schedule(num_sampling_steps)
        self.total_steps = settings.steps
        parameters = model.trained()
        self.value: Value | None = None
        if settings.baseline == "value":
            with torch.random.fork_rng():
                torch.manual_seed(settings.seed)
                self.value = Value(model.encode(self.prompts[:1]).states.shape[-1], model.shape).to(model.device)
            self._value_adam = torch.optim.Adam(self.value.parameters(), lr=1e-3)
        per_batch = settings.prompts * settings.images * num_sampling_steps
        updates = settings.epochs * -(-per_batch // settings.minibatch_size)
        self.optimiser = Optimiser(parameters, settings.optimiser, settings.steps * updates)

    def step(self) -> Metrics:
        """Draw a batch of episodes, score the images, and update on all their steps."""
        settings, number = self.settings, self.num_steps
        chosen = stream(settings.seed, "prompts", number).integers(len(self.prompts), size=settings.prompts)
        prompts = [self.prompts[i] for i in chosen for _ in range(settings.images)]
        self.model.eval()
        with torch.no_grad():
            condition = self.model.encode(prompts)
        episode = sample(
            lambda x, times: self.model.predict(x, times, condition), self.schedule,
            (len(prompts), *self.model.shape), torch_stream(settings.seed, "episodes", number), self.model.device,
        )  # fmt: skip
        rewards = score(self.reward, prompts, self.model, episode.images).to(self.model.device)
        advantages, figures = self._advantages(rewards, episode, condition)
        figures |= self._update(episode, condition, advantages, number)
        self.num_steps += 1
        self.num_examples += len(prompts)
        return {"score": float(rewards.mean()), "score_std": float(rewards.std()), **figures}

    def _advantages(self, rewards: Tensor, episode: Episode, condition: Condition) -> tuple[Tensor, Metrics]:
        """Return the advantage of each step `(T, B)`, and figures."""
        count = len(self.schedule)
        if self.value is None:
            by_prompt = rewards.view(-1, self.settings.images)
            spread = by_prompt.std(1, keepdim=True, unbiased=False)
            normal = (by_prompt - by_prompt.mean(1, keepdim=True)) / (spread + 1e-4)
            return normal.flatten().expand(count, -1), {}
        told = (condition.states * condition.mask[..., None]).sum(1) / condition.mask.sum(1, keepdim=True)
        states = episode.states[:-1].flatten(0, 1)
        share = torch.arange(count, device=states.device).repeat_interleave(len(rewards)) / count
        told, wanted = told.repeat(count, 1), rewards.repeat(count)
        with torch.no_grad():
            values = self.value(states, told, share)
        order = stream(self.settings.seed, "values", self.num_steps).permutation(len(wanted))
        for part in np.array_split(order, max(1, len(order) // 256)):
            rows = torch.from_numpy(part)
            error = (self.value(states[rows], told[rows], share[rows]) - wanted[rows]).square().mean()
            self._value_adam.zero_grad()
            error.backward()
            self._value_adam.step()
        explained = 1 - float((wanted - values).var() / wanted.var().clamp(min=1e-8))
        return (wanted - values).view(count, -1), {"explained_variance": explained}

    def _update(self, episode: Episode, condition: Condition, advantages: Tensor, number: int) -> Metrics:
        """Make the updates of one batch; return its losses and how far it went."""
        settings = self.settings
        count, batch = episode.log_probs.shape
        sigmas = self.schedule.sigmas
        weights = sigmas / sigmas.mean() if settings.by_noise else torch.ones(count)
        losses, divergences, ratios, clipped, norms = [], [], [], [], []
        for epoch in range(settings.epochs):
            order = stream(settings.seed, "minibatches", number, epoch).permutation(count * batch)
            parts = np.array_split(order, -(-len(order) // settings.minibatch_size))
            for part in parts:
                steps, rows = torch.from_numpy(part // batch), torch.from_numpy(part % batch)
                x, then = episode.states[steps, rows], episode.states[steps + 1, rows]
                told, times = condition.rows(rows), self.schedule.times[steps]
                mean = self.schedule.mean(x, self.model.predict(x, times, told), steps)
                with torch.no_grad():
                    start = self.schedule.mean(x, self.reference.predict(x, times, told), steps)
                log_ratio = self.schedule.log_density(then, mean, steps) - episode.log_probs[steps, rows]
                ratio = log_ratio.clamp(max=20).exp()
                gains = advantages[steps, rows] * weights[steps].to(advantages.device)
                divergence = self.schedule.divergence(mean, start, steps)
                loss = policy_loss(ratio, gains, divergence, settings.clip_range, settings.beta)
                loss.backward()
                norms.append(self.optimiser.step())
                losses.append(float(loss.detach()))
                divergences.append(float(divergence.detach().mean()))
                ratios.append(float((-log_ratio.detach()).mean()))
                clipped.append(float(((ratio - 1).abs() > settings.clip_range).float().mean()))
        return {
            "loss": float(np.mean(losses)), "kl_nats": count * float(np.mean(divergences)),
            "approx_kl": float(np.mean(ratios)), "clip_fraction": float(np.mean(clipped)),
            "gradient_norm": float(np.mean(norms)),
        }  # fmt: skip

    def state(self) -> State:
        """Return what a checkpoint must hold."""
        state = super().state()
        if self.value is None:
            return state
        value = {"value": self.value.state_dict(), "value_adam": self._value_adam.state_dict()}
        return State(tensors={**state.tensors, **value})

    def restore(self, state: State) -> None:
        """Take over what `state` gave."""
        super().restore(state)
        if self.value is not None:
            self.value.load_state_dict(state.tensors["value"])
            self._value_adam.load_state_dict(state.tensors["value_adam"])

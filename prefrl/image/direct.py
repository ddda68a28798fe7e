"""Alignment without episodes: gradients through the reward (ReFL), and from comparisons alone (Diffusion-DPO)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from prefrl.errors import UserError
from prefrl.image.denoising import Pictures, denoising_errors
from prefrl.image.model import ImageModel
from prefrl.image.reward_model import Ranked, RewardModel
from prefrl.runs.optimisation import Optimiser, OptimiserSettings
from prefrl.runs.streams import stream, torch_stream
from prefrl.runs.trainer import Epochs, Metrics, ModelTrainer


@dataclass(frozen=True, kw_only=True)
class ReFLSettings:
    """How a model is trained by the gradient of a reward model (Xu et al. 2023, Algorithm 1)."""

    steps: int = 200
    batch_size: int = 32
    late: float = 0.3
    """Share of the steps of sampling, the last ones, of which one is drawn for the gradient."""
    weight: float = 1e-3
    """Of the reward beside the pretraining loss (lambda)."""
    pretraining_weight: float = 1.0
    """Of the loss on pretraining pictures; 0: none."""
    beta: float = 0.0
    """Weight of the KL divergence of that one step from the model at the start: no part of ReFL."""
    optimiser: OptimiserSettings = field(default_factory=lambda: OptimiserSettings(learning_rate=1e-4))
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size) < 1 or not 0 < self.late <= 1:
            raise UserError("steps and batch_size must be at least 1, late above 0 and at most 1.")
        if self.weight <= 0 or min(self.pretraining_weight, self.beta) < 0:
            raise UserError("weight must be above 0, pretraining_weight and beta at least 0.")


class ReFLTrainer(ModelTrainer):
    """Follows the gradient of a reward model through one late step.

    Args:
        model: what is trained.
        prompts: drawn from uniformly.
        reward: a reward model: a gradient must pass.
        settings: how.
        num_sampling_steps: T.
        pretraining: pictures whose loss is added.
        reference: what the KL is taken from; None: a copy of the model as it is now.
    """

    def __init__(
        self, model: ImageModel, prompts: Sequence[str], reward: RewardModel, settings: ReFLSettings,
        num_sampling_steps: int, pretraining: Pictures | None, *, reference: ImageModel | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.name, self.model, self.prompts, self.reward, self.settings = "refl", model, list(prompts), reward, settings
        if settings.pretraining_weight and pretraining is None:
            raise UserError("ReFL adds the loss on pretraining pictures: name them, or set pretraining_weight to 0.")
        self.pretraining = pretraining if settings.pretraining_weight else None
        self.reference = model.copy() if reference is None else reference
        self.schedule = model.schedule(num_sampling_steps)
        self.total_steps = settings.steps
        self.optimiser = Optimiser(model.trained(), settings.optimiser, settings.steps)

    def step(self) -> Metrics:
        """Sample down to one late step, predict the image there, and climb its reward."""
        settings, number = self.settings, self.num_steps
        random = stream(settings.seed, "prompts", number)
        prompts = [self.prompts[i] for i in random.integers(len(self.prompts), size=settings.batch_size)]
        generator = torch_stream(settings.seed, "episodes", number)
        count = len(self.schedule)
        last = int(random.integers(count - max(1, round(settings.late * count)), count))
        with torch.no_grad():
            condition = self.model.encode(prompts)
            x = torch.randn((len(prompts), *self.model.shape), generator=generator).to(self.model.device)
            for step in range(last):
                steps = torch.full((len(prompts),), step)
                mean = self.schedule.mean(x, self.model.predict(x, self.schedule.times[steps], condition), steps)
                x = mean + self.schedule.sigma(step) * torch.randn(x.shape, generator=generator).to(x.device)
        steps = torch.full((len(prompts),), last)
        times = self.schedule.times[steps]
        said = self.model.predict(x, times, condition)
        clean, _ = self.schedule.clean_and_noise(x, said, self.schedule.signal[steps].view(-1, 1, 1, 1).to(x.device))
        scores = self.reward(self.model.decode(clean).clamp(-1, 1), prompts)
        loss = -settings.weight * nn.functional.relu(scores + 2).mean()  # phi: what scores below -2 is given up
        metrics = {"score": float(scores.detach().mean())}
        if settings.beta:
            with torch.no_grad():
                start = self.schedule.mean(x, self.reference.predict(x, times, condition), steps)
            divergence = self.schedule.divergence(self.schedule.mean(x, said, steps), start, steps).mean()
            metrics["kl_step"] = float(divergence.detach())
            loss = loss + settings.beta * divergence
        if self.pretraining is not None:
            rows = torch.randint(len(self.pretraining), (settings.batch_size,), generator=generator).tolist()
            with torch.no_grad():
                told = self.model.encode([self.pretraining.captions[i] for i in rows])
            pictures = self.model.from_pixels(self.pretraining.pixels[rows])
            kept = denoising_errors(self.model, self.schedule, pictures, told, generator).mean()
            metrics["pretraining_loss"] = float(kept.detach())
            loss = loss + settings.pretraining_weight * kept
        loss.backward()
        metrics |= {"loss": float(loss.detach()), "gradient_norm": self.optimiser.step()}
        self.num_steps += 1
        self.num_examples += len(prompts)
        return metrics


@dataclass(frozen=True, kw_only=True)
class DiffusionDPOSettings:
    """How a model is trained from comparisons alone (Wallace et al. 2023, Eq. 14)."""

    epochs: int = 4
    batch_size: int = 32
    """Pairs."""
    beta: float = 2000.0
    """beta T of the paper: how sharply the change of errors is read; 2,000 to 5,000 there."""
    optimiser: OptimiserSettings = field(default_factory=lambda: OptimiserSettings(learning_rate=1e-4))
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size) < 1 or self.beta <= 0:
            raise UserError("epochs and batch_size must be at least 1, beta above 0.")


class DiffusionDPOTrainer(ModelTrainer):
    """Trains a model from pairs of pictures.

    Args:
        model: what is trained.
        data: rankings, of which every pair ranked apart is taken.
        settings: how.
        reference: None: a copy of the model as it is now.
    """

    def __init__(
        self, model: ImageModel, data: Sequence[Ranked], settings: DiffusionDPOSettings, *,
        reference: ImageModel | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.pairs = [
            (row.prompt, row.pictures[i], row.pictures[j])
            for row in data
            for i in range(len(row.ranks))
            for j in range(len(row.ranks))
            if row.ranks[i] < row.ranks[j]
        ]
        if not self.pairs:
            raise UserError("There is nothing to learn from: no two pictures are ranked apart.")
        self.name, self.model, self.settings = "diffusion-dpo", model, settings
        self.reference = model.copy() if reference is None else reference
        self.schedule = model.schedule(1)
        self._epochs = Epochs(len(self.pairs), settings.batch_size, settings.seed, "pairs")
        self.total_steps = settings.epochs * self._epochs.steps_per_epoch
        self.optimiser = Optimiser(model.trained(), settings.optimiser, self.total_steps)

    def step(self) -> Metrics:
        """Make one update."""
        rows = self._epochs.batch(self.num_steps)
        prompts, better, worse = zip(*(self.pairs[i] for i in rows), strict=True)
        generator = torch_stream(self.settings.seed, "noise", self.num_steps)
        with torch.no_grad():
            condition = self.model.encode(prompts)
        clean = torch.stack([self.model.from_pixels(np.stack(better)), self.model.from_pixels(np.stack(worse))])
        times = torch.randint(len(self.schedule.trained), (len(rows),), generator=generator)
        noise = torch.randn(clean[0].shape, generator=generator).to(
            clean.device
        )  # one for both pictures of a pair, as in the paper
        errors, starts = [], []
        for pictures in clean:
            noisy, wanted = self.schedule.target(pictures, noise, times)
            errors.append((self.model.predict(noisy, times, condition) - wanted).square().flatten(1).mean(1))
            with torch.no_grad():
                starts.append((self.reference.predict(noisy, times, condition) - wanted).square().flatten(1).mean(1))
        loss, margin = diffusion_dpo_loss(errors[0], starts[0], errors[1], starts[1], self.settings.beta)
        loss.backward()
        norm = self.optimiser.step()
        self.num_steps += 1
        self.num_examples += len(rows)
        right = float((margin > 0).float().mean())
        return {"loss": float(loss.detach()), "accuracy": right, "gradient_norm": norm}


def diffusion_dpo_loss(
    better: Tensor, better_start: Tensor, worse: Tensor, worse_start: Tensor, beta: float
) -> tuple[Tensor, Tensor]:
    """Return the loss and the margin of each pair `(B,)`.

    -log sigma(-beta ((e_w - e_w_start) - (e_l - e_l_start))), with e the squared error of the prediction, here the mean
    over the numbers of a picture as in the paper's code.

    Args:
        better: errors of the model on the better pictures, `(B,)`.
        better_start: of the reference.
        worse: of the model on the worse pictures.
        worse_start: of the reference.
        beta: beta T of the paper.
    """
    margin = -beta * ((better - better_start) - (worse - worse_start))
    return -nn.functional.logsigmoid(margin).mean(), margin.detach()

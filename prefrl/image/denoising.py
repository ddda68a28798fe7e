"""Training by denoising: pretraining on captioned pictures, and what supervised alignment makes of it.

The loss is that of diffusion: the squared error of the prediction at a random time step. Pretraining minimises it on
captioned pictures. Reward-weighted fine-tuning (Lee et al. 2023, section 3.3; the supervised rival in DPOK) minimises
it on the model's own pictures, each weighted by exp(reward / temperature), plus the loss on pretraining pictures. Best
of n with fine-tuning on what was kept is the same with weights of 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prefrl.errors import UserError
from prefrl.image.diffusion import Schedule
from prefrl.image.model import Condition, ImageModel
from prefrl.runs.checkpoint import State
from prefrl.runs.optimisation import Optimiser, OptimiserSettings
from prefrl.runs.streams import torch_stream
from prefrl.runs.trainer import Epochs, Metrics, ModelTrainer

NO_PROMPT = 0.1
"""Share of captions that are left out where a model is to know guidance (Ho and Salimans 2022)."""


@dataclass(frozen=True, kw_only=True)
class DenoisingSettings:
    """How a model is trained on pictures."""

    epochs: float = 1.0
    batch_size: int = 64
    ema: float = 0.0
    """Decay of a moving average of the weights, which is what is saved; 0: none."""
    optimiser: OptimiserSettings = field(
        default_factory=lambda: OptimiserSettings(learning_rate=1e-4, warmup_share=0.05, adam_eps=1e-8)
    )
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs <= 0 or self.batch_size < 1 or not 0 <= self.ema < 1:
            raise UserError("epochs must be above 0, batch_size at least 1 and ema in [0, 1).")


@dataclass(frozen=True)
class Pictures:
    """Pictures with their captions and how much each counts."""

    captions: Sequence[str]
    pixels: NDArray[np.uint8]
    """(N, H, W, 3)."""
    weights: NDArray[np.float32] | None = None
    """(N,), None: all count alike."""

    def __len__(self) -> int:
        return len(self.captions)


class DenoisingTrainer(ModelTrainer):
    """Trains a model to draw pictures.

    Args:
        model: what is trained.
        data: pictures to learn from.
        settings: how.
        text_too: train the text encoder as well, as pretraining from nothing does.
        kept: pictures whose loss is added, so that what pretraining taught is kept.
        kept_weight: of that loss.
        name: what it is, in messages.
    """

    def __init__(
        self, model: ImageModel, data: Pictures, settings: DenoisingSettings, *, text_too: bool = False,
        kept: Pictures | None = None, kept_weight: float = 1.0, name: str = "pretraining",
    ) -> None:  # fmt: skip
        super().__init__()
        if not len(data):
            raise UserError("There are no pictures to learn from.")
        self.name, self.model, self.data, self.settings = name, model, data, settings
        self.kept, self.kept_weight = kept, kept_weight
        self.schedule = model.schedule(1)
        self._epochs = Epochs(len(data), settings.batch_size, settings.seed, "pictures")
        self.total_steps = max(1, round(settings.epochs * self._epochs.steps_per_epoch))
        weights = [*model.trained(), *(model.text.parameters() if text_too else ())]
        self.optimiser = Optimiser(weights, settings.optimiser, self.total_steps)
        self._text_too = text_too
        self.average = {key: value.clone() for key, value in model.state_dict().items()} if settings.ema else None

    def step(self) -> Metrics:
        """Make one update."""
        self.model.train()
        rows, number = self._epochs.batch(self.num_steps), self.num_steps
        generator = torch_stream(self.settings.seed, "noise", number)
        loss = self._loss(self.data, rows, generator)
        metrics = {"loss": float(loss.detach())}
        if self.kept is not None:
            drawn = torch.randint(len(self.kept), (len(rows),), generator=generator).tolist()
            other = self._loss(self.kept, drawn, generator)
            metrics["pretraining_loss"] = float(other.detach())
            loss = loss + self.kept_weight * other
        loss.backward()
        metrics["gradient_norm"] = self.optimiser.step()
        if self.average is not None:
            decay = min(self.settings.ema, (1 + number) / (10 + number))
            for key, value in self.model.state_dict().items():
                self.average[key].lerp_(value, 1 - decay) if value.is_floating_point() else self.average[key].copy_(
                    value
                )
        self.num_steps += 1
        self.num_examples += len(rows)
        return metrics

    def _loss(self, data: Pictures, rows: Sequence[int], generator: torch.Generator) -> Tensor:
        errors = denoising_errors(
            self.model, self.schedule, self.model.from_pixels(data.pixels[list(rows)]),
            self._condition([data.captions[i] for i in rows]), generator,
        )  # fmt: skip
        if data.weights is None:
            return errors.mean()
        weights = torch.from_numpy(data.weights[list(rows)]).to(errors.device)
        return (errors * weights).sum() / len(rows)

    def _condition(self, captions: Sequence[str]) -> Condition:
        with torch.set_grad_enabled(self._text_too):
            return self.model.encode(captions)

    def finish(self) -> None:
        """Put the average of the weights in their place, where one was kept."""
        if self.average is not None:
            self.model.load_state_dict(self.average)
        self.model.eval()

    def state(self) -> State:
        """Return what a checkpoint must hold."""
        state = super().state()
        return state if self.average is None else State(tensors={**state.tensors, "average": self.average})

    def restore(self, state: State) -> None:
        """Take over what `state` gave."""
        super().restore(state)
        if self.average is not None:
            self.average = dict(state.tensors["average"])


def denoising_errors(
    model: ImageModel, schedule: Schedule, clean: Tensor, condition: Condition, generator: torch.Generator
) -> Tensor:
    """Return the mean squared error of the prediction for each picture `(B,)`, at a time step drawn for each.

    Args:
        model: what predicts.
        schedule: how noise rises in training.
        clean: `(B, C, H, W)`, what the network sees of pictures.
        condition: of their captions.
        generator: of time steps and noise.
    """
    times = torch.randint(len(schedule.trained), (len(clean),), generator=generator)
    noise = torch.randn(clean.shape, generator=generator).to(clean.device)
    noisy, wanted = schedule.target(clean, noise, times)
    return (model.predict(noisy, times, condition) - wanted).square().flatten(1).mean(1)


def reward_weights(rewards: NDArray[Any], temperature: float) -> NDArray[np.float32]:
    """Return weights exp(reward / temperature), whose mean is 1 (Lee et al. 2023 weight by the reward itself).

    Raises:
        UserError: the temperature is not above 0.
    """
    if temperature <= 0:
        raise UserError(f"temperature must be above 0. Received {temperature}")
    raised = np.exp((rewards - rewards.max()) / temperature)
    return (raised / raised.mean()).astype(np.float32)

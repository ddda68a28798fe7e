"""Sampling as a Markov decision process: T Gaussian steps from noise to an image, with their densities and divergences.

The step is DDIM's with eta 1 (Song et al. 2021, Eq. 12 and 16): from x_t, a network's prediction gives the mean of
x_{t-1}, whose standard deviation the schedule fixes. So each step has a density in closed form (DDPO, Black et al.
2023, section 4.1), and two models differ at a step by |mu - mu'|^2 / (2 sigma^2) nats (DPOK, Fan et al. 2023, Eq. 6 to
8).

DDIM's last step has no noise at all. Here every step has a standard deviation of at least `MIN_SIGMA` (in units where
pixels run from -1 to 1, or of the latents), so that each has a density: a departure of our own, of six levels
out of 255 on pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from prefrl.errors import UserError

MIN_SIGMA = 0.05
PREDICTIONS = ("epsilon", "v_prediction", "sample")
Predict = Callable[[Tensor, Tensor], Tensor]
"""x `(B, C, H, W)` and time steps `(B,)` -> what the network says, `(B, C, H, W)`."""


@dataclass(frozen=True)
class Schedule:
    """How noisy each step of sampling is.

    Attributes:
        prediction: what the network predicts: epsilon, v_prediction or sample.
        times: `(T,)` time steps of training at which it is asked, falling.
        signal: `(T + 1,)` alpha-bar of each step's input and, last, of the image.
        trained: `(N,)` alpha-bar of every time step of training.
    """

    prediction: str
    times: Tensor
    signal: Tensor
    trained: Tensor

    @classmethod
    def of(cls, config: Any, num_steps: int) -> Schedule:
        """Return the schedule of a `diffusers` scheduler's configuration.

        Args:
            config: as `scheduler.config` has it: betas, prediction_type and the number of time steps.
            num_steps: of sampling, at most as many as of training.

        Raises:
            UserError: the scheduler's steps are not those of a diffusion with alpha-bar (a flow, say), or too many.
        """
        from diffusers import DDIMScheduler

        prediction = config.get("prediction_type", "epsilon")
        name = config.get("_class_name", "the scheduler")
        if "beta_schedule" not in config or prediction not in PREDICTIONS:
            raise UserError(
                f"The steps of {name} have no Gaussian density that is known here: expected a diffusion with a "
                f"beta_schedule that predicts one of {', '.join(PREDICTIONS)}. Received {prediction!r}."
            )
        known = {
            key: config[key]
            for key in ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "rescale_betas_zero_snr")
            if key in config
        }
        betas = config.get("trained_betas")
        scheduler: Any = DDIMScheduler(**known, trained_betas=betas, prediction_type=prediction)
        trained = scheduler.alphas_cumprod.float()
        if not 1 <= num_steps <= len(trained):
            raise UserError(f"Sampling needs from 1 to {len(trained)} steps. Received {num_steps}")
        count = len(trained)  # spaced as diffusers has it under the name "trailing": the first step is of pure noise
        times = (count - torch.arange(num_steps, dtype=torch.float64) * count / num_steps).round().long() - 1
        return cls(prediction, times, torch.cat([trained[times], torch.ones(1)]), trained)

    def __len__(self) -> int:
        return len(self.times)

    def sigma(self, step: int) -> float:
        """Return the standard deviation of a step, from 0."""
        now, then = float(self.signal[step]), float(self.signal[step + 1])
        return max(MIN_SIGMA, math.sqrt(max(0.0, (1 - then) / (1 - now) * (1 - now / then))))

    @cached_property
    def sigmas(self) -> Tensor:
        """Standard deviations of all steps `(T,)`."""
        return torch.tensor([self.sigma(step) for step in range(len(self))])

    def mean(self, x: Tensor, said: Tensor, steps: Tensor) -> Tensor:
        """Return the mean of x_{t-1}.

        Args:
            x: `(B, C, H, W)` at their steps.
            said: what the network predicts there.
            steps: `(B,)` from 0.
        """
        now, then = self._spread(self.signal[steps], x), self._spread(self.signal[steps + 1], x)
        sigma = self._spread(self.sigmas[steps], x)
        clean, noise = self.clean_and_noise(x, said, now)
        rest = (1 - then - sigma**2).clamp(min=0.0)
        return then.sqrt() * clean + rest.sqrt() * noise

    def clean_and_noise(self, x: Tensor, said: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
        """Return the image and the noise that a prediction means, given alpha-bar, which fits `(B, 1, 1, 1)`."""
        root, other = signal.sqrt(), (1 - signal).sqrt()
        if self.prediction == "epsilon":
            return (x - other * said) / root, said
        if self.prediction == "sample":
            return said, (x - root * said) / other.clamp(min=1e-6)
        return root * x - other * said, root * said + other * x

    def target(self, clean: Tensor, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noisy images at time steps of training `(B,)`, and what the network should say of them."""
        signal = self._spread(self.trained[times], clean)
        root, other = signal.sqrt(), (1 - signal).sqrt()
        noisy = root * clean + other * noise
        wanted = {"epsilon": noise, "sample": clean, "v_prediction": root * noise - other * clean}[self.prediction]
        return noisy, wanted

    def log_density(self, then: Tensor, mean: Tensor, steps: Tensor) -> Tensor:
        """Return log p(x_{t-1} | x_t) `(B,)` in nats, summed over all numbers of an image."""
        sigma = self._spread(self.sigmas[steps], mean)
        each = -0.5 * ((then - mean) / sigma) ** 2 - sigma.log() - 0.5 * math.log(2 * math.pi)
        return each.flatten(1).sum(1)

    def divergence(self, mean: Tensor, other: Tensor, steps: Tensor) -> Tensor:
        """Return the KL divergence of two steps of equal noise `(B,)`, in nats."""
        sigma = self._spread(self.sigmas[steps], mean)
        return (((mean - other) / sigma) ** 2).flatten(1).sum(1) / 2

    @staticmethod
    def _spread(values: Tensor, like: Tensor) -> Tensor:
        return values.view(-1, 1, 1, 1).to(like.device)


@dataclass(frozen=True)
class Episode:
    """Sampled images with all that lies between them and noise.

    Attributes:
        states: `(T + 1, B, C, H, W)`: noise first, the image last.
        log_probs: `(T, B)` of each step under the model that drew it.
    """

    states: Tensor
    log_probs: Tensor

    @property
    def images(self) -> Tensor:
        """The end, `(B, C, H, W)`."""
        return self.states[-1]


@torch.no_grad()
def sample(
    predict: Predict, schedule: Schedule, shape: tuple[int, ...], generator: torch.Generator, device: Any = "cpu"
) -> Episode:
    """Draw images.

    Args:
        predict: of the model, its prompts already given.
        schedule: of the steps.
        shape: `(B, C, H, W)`.
        generator: of all noise, on the CPU: the same draws on every device.
        device: where the images are drawn.
    """
    x = torch.randn(shape, generator=generator).to(device)
    states, log_probs = [x], []
    for step in range(len(schedule)):
        steps = torch.full((shape[0],), step)
        mean = schedule.mean(x, predict(x, schedule.times[steps]), steps)
        x = mean + schedule.sigma(step) * torch.randn(shape, generator=generator).to(device)
        states.append(x)
        log_probs.append(schedule.log_density(x, mean, steps))
    return Episode(torch.stack(states), torch.stack(log_probs))

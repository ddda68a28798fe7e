"""Action distributions of batches, with the gradients of what PPO needs of them, in closed form.

Each turns the policy network's outputs `(B, num_outputs)` into actions, log-probabilities and entropies. `gradients` is
the chain rule written out: building an autograd graph takes longer than all the arithmetic of networks this small.
Checked against `torch.distributions` and autograd.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from prefrl.agents.action_scale import ActionScale
from prefrl.spaces import Array

LOG_2PI = math.log(2 * math.pi)


class ActionDistribution(Protocol):
    """What a policy's outputs mean."""

    num_outputs: int
    """Outputs that the policy network must have."""

    def parameters(self) -> list[nn.Parameter]:
        """Return parameters that belong to no network."""

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw what `sample` needs for a batch of this shape: `(*shape, ...)`."""

    def sample(self, outputs: Tensor, noise: Tensor) -> Tensor:
        """Return actions `(B, ...)`."""

    def mode(self, outputs: Tensor) -> Tensor:
        """Return the likeliest actions `(B, ...)`."""

    def log_prob(self, outputs: Tensor, actions: Tensor) -> Tensor:
        """Return the log-probability of each action `(B,)`; what `gradients` needs is kept."""

    def entropy(self, outputs: Tensor) -> Tensor:
        """Return the entropies `(B,)`."""

    def gradients(self, d_log_prob: Tensor, d_entropy: float) -> Tensor:
        """Return the gradient of a loss by the outputs of the last `log_prob`, `(B, num_outputs)`.

        That by own parameters goes to their `.grad`.

        Args:
            d_log_prob: `(B,)`: the gradient of the loss by each log-probability.
            d_entropy: that by each entropy.
        """

    def to_env(self, actions: Tensor) -> Array:
        """Return the actions as the environments take them."""

    def from_env(self, actions: Array) -> Tensor:
        """Return actions of the environments `(B, ...)` as `log_prob` takes them: the inverse of `to_env`."""


class DiagonalGaussian:
    """Independent normal distributions whose standard deviations do not depend on the state.

    Actions outside the bounds of the space are clipped for the environment only, as in stable-baselines3.

    Args:
        space: of the actions.
        log_std_init: logarithm of the standard deviations at the start.
        device: where the parameters live.
        scale: actions are in units of half the range of the space and 0 is its middle, where it is bounded.
    """

    def __init__(self, space: spaces.Box, log_std_init: float, device: torch.device, scale: bool = False) -> None:
        self.space, self._scale = space, ActionScale(space, scale)
        self.num_outputs = int(np.prod(space.shape))
        log_std = torch.full((self.num_outputs,), float(log_std_init), device=device)
        self.log_std = nn.Parameter(log_std, requires_grad=False)
        self._constant = torch.tensor(0.5 * self.num_outputs * LOG_2PI, device=device)
        self._minus_half = torch.tensor(-0.5, device=device)

    def parameters(self) -> list[nn.Parameter]:
        return [self.log_std]

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.randn(*shape, self.num_outputs, generator=generator, device=generator.device)

    def sample(self, outputs: Tensor, noise: Tensor) -> Tensor:
        return torch.addcmul(outputs, self.log_std.exp(), noise)

    def mode(self, outputs: Tensor) -> Tensor:
        return outputs

    def log_prob(self, outputs: Tensor, actions: Tensor) -> Tensor:
        self._inverse_std = (-self.log_std).exp()
        self._scaled = (actions - outputs).mul_(self._inverse_std)
        constant = self.log_std.sum() + self._constant
        return torch.linalg.vecdot(self._scaled, self._scaled).mul_(self._minus_half).sub_(constant)

    def entropy(self, outputs: Tensor) -> Tensor:
        return (self.log_std.sum() + 0.5 * self.num_outputs * (1 + LOG_2PI)).expand(len(outputs))

    def gradients(self, d_log_prob: Tensor, d_entropy: float) -> Tensor:
        weighted = self._scaled * d_log_prob.unsqueeze(1)
        assert self.log_std.grad is not None
        torch.sum(weighted * self._scaled, 0, out=self.log_std.grad)
        self.log_std.grad.sub_(d_log_prob.sum())
        if d_entropy != 0.0:
            self.log_std.grad.add_(d_entropy * len(d_log_prob))
        return weighted.mul_(self._inverse_std)

    def to_env(self, actions: Tensor) -> Array:
        return self._scale.to_env(actions.reshape(-1, *self.space.shape).cpu().numpy())

    def from_env(self, actions: Array) -> Tensor:
        scaled = self._scale.from_env(actions).reshape(len(actions), -1)
        return torch.from_numpy(scaled.astype(np.float32)).to(self.log_std.device)


class Categoricals:
    """Independent choices among n_1, n_2, ... actions; one for `Discrete` spaces, among two each for `MultiBinary`.

    Args:
        space: of the actions.
    """

    def __init__(self, space: spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary) -> None:
        self.space = space
        self.sizes: list[int]
        if isinstance(space, spaces.Discrete):
            self.sizes = [int(space.n)]
        elif isinstance(space, spaces.MultiDiscrete):
            self.sizes = np.ravel(space.nvec).tolist()
        else:
            self.sizes = [2] * int(np.prod(space.shape))
        self.num_outputs = sum(self.sizes)

    def parameters(self) -> list[nn.Parameter]:
        return []

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        uniform = torch.rand(*shape, self.num_outputs, generator=generator, device=generator.device)
        return -torch.log(-torch.log(uniform.clamp_(1e-20, 1 - 1e-7)))  # Gumbel

    def sample(self, outputs: Tensor, noise: Tensor) -> Tensor:
        return self.mode(outputs + noise)

    def mode(self, outputs: Tensor) -> Tensor:
        return torch.stack([part.argmax(1) for part in outputs.split(self.sizes, 1)], 1)

    def _log_softmax(self, outputs: Tensor) -> list[Tensor]:
        return [part.log_softmax(1) for part in outputs.split(self.sizes, 1)]

    def log_prob(self, outputs: Tensor, actions: Tensor) -> Tensor:
        self._kept = [(part, actions[:, i : i + 1]) for i, part in enumerate(self._log_softmax(outputs))]
        chosen = [log_p.gather(1, choice).squeeze(1) for log_p, choice in self._kept]
        return chosen[0] if len(chosen) == 1 else torch.stack(chosen).sum(0)

    def entropy(self, outputs: Tensor) -> Tensor:
        return torch.stack([-(log_p.exp() * log_p).sum(1) for log_p in self._log_softmax(outputs)]).sum(0)

    def gradients(self, d_log_prob: Tensor, d_entropy: float) -> Tensor:
        parts, d_chosen = [], d_log_prob.unsqueeze(1)
        for log_p, choice in self._kept:
            p = log_p.exp()
            gradient = p * -d_chosen
            gradient.scatter_add_(1, choice, d_chosen)
            if d_entropy != 0.0:
                expected = torch.linalg.vecdot(p, log_p).unsqueeze(1)
                gradient.sub_(p.mul_(log_p - expected), alpha=d_entropy)
            parts.append(gradient)
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def to_env(self, actions: Tensor) -> Array:
        values = actions.cpu().numpy()
        if isinstance(self.space, spaces.Discrete):
            return (values[:, 0] + int(self.space.start)).astype(self.space.dtype)
        start = self.space.start if isinstance(self.space, spaces.MultiDiscrete) else 0
        return (values.reshape(-1, *self.space.shape) + start).astype(self.space.dtype)

    def from_env(self, actions: Array) -> Tensor:
        start = 0 if isinstance(self.space, spaces.MultiBinary) else self.space.start
        return torch.from_numpy((np.asarray(actions, np.int64) - start).reshape(len(actions), -1))


def make_distribution(
    space: gymnasium.Space[Any], device: torch.device, log_std_init: float = 0.0, scale: bool = False
) -> DiagonalGaussian | Categoricals:
    """Return the distribution for an action space: Box, Discrete, MultiDiscrete or MultiBinary."""
    if isinstance(space, spaces.Box):
        return DiagonalGaussian(space, log_std_init, device, scale)
    assert isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary)
    return Categoricals(space)

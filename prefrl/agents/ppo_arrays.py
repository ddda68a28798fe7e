"""PPO's perceptrons on the CPU, in NumPy: what they do in PyTorch, on the same memory, in less than half the time.

Networks of two layers of 64 units are so small that PyTorch takes longer to find out what to do than to do it. The
formulas are those of `networks.Tower`, `distributions`, `ppo_losses.surrogate_gradients` and `adam.FlatAdam`, to which
tests hold them; weights, gradients and moments are the arrays under their tensors, so that whatever reads or writes the
ones has the others.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from prefrl.agents.adam import BETAS, FlatAdam
from prefrl.agents.distributions import LOG_2PI, Categoricals, DiagonalGaussian
from prefrl.agents.networks import MlpActorCritic, Tower
from prefrl.agents.ppo_losses import Minibatch
from prefrl.agents.ppo_settings import PpoSettings

Floats = NDArray[np.float32]


class ArrayMinibatch(NamedTuple):
    """B steps to learn from: a `Minibatch` in arrays."""

    inputs: Floats
    actions: NDArray[np.generic]
    log_probs: Floats
    values: Floats
    advantages: Floats
    returns: Floats

    @classmethod
    def of(cls, batch: Minibatch) -> ArrayMinibatch:
        """Return the arrays under the tensors of a batch."""
        return cls._make(tensor.numpy() for tensor in batch)

    def at(self, chosen: slice | NDArray[np.int64]) -> ArrayMinibatch:
        """Return some of the steps."""
        return ArrayMinibatch._make(values[chosen] for values in self)


class ArrayTower:
    """A `Tower`.

    Args:
        tower: whose weights and gradients are used.
    """

    def __init__(self, tower: Tower) -> None:
        pairs = list(zip(tower.weights, tower.biases, strict=True))
        self._layers: list[tuple[Floats, Floats]] = [(weight.numpy(), bias.numpy()) for weight, bias in pairs]
        self._gradients = [(_gradient_of(weight), _gradient_of(bias)) for weight, bias in pairs]
        self._is_tanh = tower.activation == "tanh"
        self._inputs: list[Floats] = []
        self._ones = np.ones(0, np.float32)

    def forward(self, x: Floats) -> Floats:
        """Return outputs `(B, out)` of inputs `(B, in)`; what `backward` needs is kept."""
        self._inputs = [x]
        *hidden, (weight, bias) = self._layers
        for w, b in hidden:
            x = np.dot(x, w)
            x += b
            if self._is_tanh:
                np.tanh(x, out=x)
            else:
                np.maximum(x, 0.0, out=x)
            self._inputs.append(x)
        outputs: Floats = np.dot(x, weight)
        outputs += bias
        return outputs

    def backward(self, gradient: Floats) -> None:
        """Write the gradient of a loss by every parameter into the array of its `.grad`.

        Args:
            gradient: `(B, out)`: that by the outputs of the last `forward`.
        """
        if len(self._ones) != len(gradient):
            self._ones = np.ones(len(gradient), np.float32)
        for layer in range(len(self._layers) - 1, -1, -1):
            x, (d_weight, d_bias) = self._inputs[layer], self._gradients[layer]
            np.dot(x.T, gradient, out=d_weight)
            np.dot(self._ones, gradient, out=d_bias)  # their sum, in a third of the time
            if layer > 0:
                gradient = np.dot(gradient, self._layers[layer][0].T)
                if self._is_tanh:
                    slope = x * x
                    np.subtract(1.0, slope, out=slope)
                    gradient *= slope
                else:
                    gradient *= x > 0


class ArrayDistribution(Protocol):
    """What of an `ActionDistribution` an update needs."""

    def log_prob(self, outputs: Floats, actions: NDArray[np.generic]) -> Floats:
        """Return the log-probability of each action `(B,)`; what `gradients` needs is kept."""

    def gradients(self, d_log_prob: Floats, d_entropy: float) -> Floats:
        """Return the gradient of a loss by the outputs of the last `log_prob`; see `ActionDistribution`."""


class ArrayGaussian:
    """A `DiagonalGaussian`.

    Args:
        actions: whose deviations are used.
    """

    def __init__(self, actions: DiagonalGaussian) -> None:
        self._log_std: Floats = actions.log_std.numpy()
        self._d_log_std = _gradient_of(actions.log_std)
        self._constant = 0.5 * actions.num_outputs * LOG_2PI
        self._minus_half = np.full(actions.num_outputs, -0.5, np.float32)

    def log_prob(self, outputs: Floats, actions: NDArray[np.generic]) -> Floats:
        self._inverse_std = np.exp(-self._log_std)
        scaled = np.subtract(actions, outputs)
        scaled *= self._inverse_std
        self._scaled, self._squares = scaled, scaled * scaled
        log_probs: Floats = np.dot(self._squares, self._minus_half)
        log_probs -= float(self._log_std.sum()) + self._constant
        return log_probs

    def gradients(self, d_log_prob: Floats, d_entropy: float) -> Floats:
        np.dot(d_log_prob, self._squares, out=self._d_log_std)
        self._d_log_std -= float(d_log_prob.sum()) - d_entropy * len(d_log_prob)
        weighted = self._scaled * d_log_prob[:, None]
        weighted *= self._inverse_std
        return weighted


class ArrayCategoricals:
    """A `Categoricals`.

    Args:
        actions: whose choices are meant.
    """

    def __init__(self, actions: Categoricals) -> None:
        ends = np.cumsum(actions.sizes)
        self._parts = [slice(end - size, end) for size, end in zip(actions.sizes, ends, strict=True)]

    def log_prob(self, outputs: Floats, actions: NDArray[np.generic]) -> Floats:
        self._rows = rows = np.arange(len(outputs))
        self._log_p: Floats = np.empty_like(outputs)
        self._chosen = actions
        log_probs = np.zeros(len(outputs), np.float32)
        for number, part in enumerate(self._parts):
            shifted = outputs[:, part] - outputs[:, part].max(1, keepdims=True)
            shifted -= np.log(np.exp(shifted).sum(1, keepdims=True))
            log_probs += shifted[rows, actions[:, number]]
            self._log_p[:, part] = shifted
        return log_probs

    def gradients(self, d_log_prob: Floats, d_entropy: float) -> Floats:
        p = np.exp(self._log_p)
        gradient = p * -d_log_prob[:, None]
        for number, part in enumerate(self._parts):
            gradient[self._rows, part.start + self._chosen[:, number]] += d_log_prob
            if d_entropy != 0.0:
                log_p, own = self._log_p[:, part], p[:, part]
                expected = (own * log_p).sum(1, keepdims=True)
                gradient[:, part] -= d_entropy * own * (log_p - expected)
        return gradient


class ArrayUpdate:
    """Steps of PPO on minibatches.

    Args:
        network: trained in place.
        actions: trained in place, where it has parameters.
        adam: its vectors are those of both.
        settings: of the losses.
    """

    def __init__(
        self, network: MlpActorCritic, actions: DiagonalGaussian | Categoricals, adam: FlatAdam, settings: PpoSettings
    ) -> None:
        self._actor, self._critic = ArrayTower(network.actor), ArrayTower(network.critic)
        self._actions: ArrayDistribution
        if isinstance(actions, DiagonalGaussian):
            self._actions = ArrayGaussian(actions)
        else:
            self._actions = ArrayCategoricals(actions)
        self._adam, self._settings = adam, settings
        self._parameters, self._gradient = adam.parameters.numpy(), adam.gradient.numpy()
        self._first, self._second = adam.first.numpy(), adam.second.numpy()
        self._scratch = np.empty_like(self._parameters)

    def policy(self, inputs: Floats) -> Floats:
        """Return policy outputs `(B, num_outputs)` of inputs `(B, num_inputs)`."""
        return self._actor.forward(inputs)

    def log_prob(self, part: ArrayMinibatch) -> Floats:
        """Return the log-probability of each action now `(B,)`."""
        return self._actions.log_prob(self._actor.forward(part.inputs), part.actions)

    def step(self, part: ArrayMinibatch, learning_rate: float, clip: float, clip_values: float | None) -> None:
        """Make one step of Adam on a minibatch."""
        log_probs, values = self.log_prob(part), self._critic.forward(part.inputs)[:, 0]
        d_log_probs, d_values = _surrogate_gradients(log_probs, values, part, self._settings, clip, clip_values)
        self._actor.backward(self._actions.gradients(d_log_probs, -self._settings.ent_coef / len(values)))
        self._critic.backward(d_values[:, None])
        self._descend(learning_rate)

    def _descend(self, learning_rate: float) -> None:
        """Make a step of Adam along the gradient."""
        size, epsilon = self._adam.count(learning_rate)
        gradient, scratch, (first, second) = self._gradient, self._scratch, BETAS
        if self._adam.max_norm is not None:
            scale = self._adam.max_norm / (math.sqrt(float(np.dot(gradient, gradient))) + 1e-6)
            if not scale >= 1.0:
                gradient *= scale
        np.subtract(gradient, self._first, out=scratch)
        scratch *= 1 - first
        self._first += scratch
        self._second *= second
        np.multiply(gradient, gradient, out=scratch)
        scratch *= 1 - second
        self._second += scratch
        np.sqrt(self._second, out=scratch)
        scratch += epsilon
        np.divide(self._first, scratch, out=scratch)
        scratch *= size
        self._parameters -= scratch


def _surrogate_gradients(
    log_probs: Floats, values: Floats, batch: ArrayMinibatch, settings: PpoSettings, clip: float,
    clip_values: float | None,
) -> tuple[Floats, Floats]:  # fmt: skip
    """Return what `ppo_losses.surrogate_gradients` does."""
    size, advantages = len(values), batch.advantages
    if settings.normalize_advantage and size > 1:
        advantages = advantages - float(advantages.sum()) / size
        advantages /= math.sqrt(float(np.dot(advantages, advantages)) / (size - 1)) + 1e-8
    ratio = log_probs - batch.log_probs
    np.exp(ratio, out=ratio)
    gain = advantages * ratio
    np.minimum(np.maximum(ratio, 1 - clip, out=ratio), 1 + clip, out=ratio)
    ratio *= advantages
    unclipped = gain <= ratio
    gain *= unclipped
    gain /= -size
    error = values - batch.returns
    if clip_values is not None:
        change = values - batch.values
        error = np.clip(change, -clip_values, clip_values) + batch.values - batch.returns
        error *= np.abs(change) <= clip_values
    error *= 2 * settings.vf_coef / size
    return gain, error


def _gradient_of(parameter: object) -> Floats:
    gradient = getattr(parameter, "grad", None)
    assert gradient is not None, "parameters are flattened first"
    found: Floats = gradient.numpy()
    return found

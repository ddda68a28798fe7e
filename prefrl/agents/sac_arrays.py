"""SAC's update on the CPU, in NumPy: what `SacAgent` does in PyTorch, on the same memory, in less time.

The formulas are those of `sac_networks.SquashedGaussian` and `SacAgent`, to which tests hold them. What is saved: each
step's gradient by its action is that of one critic alone, the least; two critics are at work at once where there are
two processors; Adam goes over the weights once.
"""

from __future__ import annotations

import numpy as np

from prefrl.agents.adam import AdamPart, FlatAdam
from prefrl.agents.critic_arrays import ArrayCritics
from prefrl.agents.distributions import LOG_2PI
from prefrl.agents.replay import Minibatch
from prefrl.agents.sac_networks import LEAST_LOG_STD, MOST_LOG_STD, SQUASH_EPSILON
from prefrl.agents.tower_arrays import ArrayTower, Floats
from prefrl.agents.towers import Towers
from prefrl.threads import SideBySide


class ArraySquashedGaussian:
    """A `SquashedGaussian`.

    Args:
        outputs: `(B, 2 A)`.
        noise: `(B, A)`.
    """

    def __init__(self, outputs: Floats, noise: Floats) -> None:
        num = noise.shape[1]
        given = outputs[:, num:]
        self._log_stds = log_stds = np.minimum(np.maximum(given, LEAST_LOG_STD), MOST_LOG_STD)
        self._inside = given == log_stds
        self._noise, self._spread = noise, np.exp(log_stds)
        self._spread *= noise
        self.actions: Floats = np.add(outputs[:, :num], self._spread)
        np.tanh(self.actions, out=self.actions)
        self._slope = self.actions * self.actions
        np.subtract(1.0, self._slope, out=self._slope)
        self._floored = self._slope + np.float32(SQUASH_EPSILON)

    def log_probs(self) -> Floats:
        """Return the log-density of each action, `(B,)`."""
        terms = self._noise * self._noise
        terms += np.float32(LOG_2PI)
        terms *= np.float32(-0.5)
        terms -= self._log_stds
        terms -= np.log(self._floored)
        found: Floats = terms.sum(1)
        return found

    def by_outputs(self, by_log_probs: float, by_actions: Floats) -> Floats:
        """Return the gradient of a loss by the outputs, `(B, 2 A)`; see `SquashedGaussian.by_outputs`."""
        size, num = self._noise.shape
        found = np.empty((size, 2 * num), np.float32)
        by_means, by_log_stds = found[:, :num], found[:, num:]
        np.multiply(self.actions, self._slope, out=by_means)
        by_means /= self._floored
        by_means *= np.float32(2 * by_log_probs)
        by_means += by_actions * self._slope
        np.multiply(by_means, self._spread, out=by_log_stds)
        by_log_stds -= np.float32(by_log_probs)
        by_log_stds *= self._inside
        return found


class ArraySac:
    """Updates of SAC.

    Args:
        actor: trained in place.
        critics: the same.
        adam: of the actor.
        weight: of the logarithm of the entropy's weight.
        learns_weight: the weight is trained too.
        target_entropy: that it aims at.
        gamma: discount.
        side_by_side: does two things at once.
    """

    def __init__(
        self,
        actor: Towers,
        critics: ArrayCritics,
        adam: FlatAdam,
        weight: FlatAdam,
        *,
        learns_weight: bool,
        target_entropy: float,
        gamma: float,
        side_by_side: SideBySide,
    ) -> None:
        self._acting, self._now, self._later = (ArrayTower(actor) for _ in range(3))
        self._critics, self._side_by_side = critics, side_by_side
        self._part = AdamPart(adam, actor.parameters_of(0))
        self._weight_part = AdamPart(weight, [weight.parameters]) if learns_weight else None
        self._log_weight, self._by_log_weight = weight.parameters.numpy(), weight.gradient.numpy()
        self._target_entropy, self._gamma = target_entropy, gamma

    def actions(self, inputs: Floats, noise: Floats) -> Floats:
        """Return actions `(B, A)` of inputs `(B, n)` and standard normal noise `(B, A)`."""
        with np.errstate(all="ignore"):
            return ArraySquashedGaussian(self._acting.forward(inputs), noise).actions

    def step(self, batch: Minibatch, learning_rate: float) -> None:
        """Make the steps of Adam that were counted, in the order of `SacAgent`."""
        inputs, next_inputs, actions, rewards, going_on, noise = (tensor.numpy() for tensor in batch)
        size, found = len(rewards), {}

        def respond(tower: ArrayTower, seen: Floats, with_noise: Floats) -> None:
            with np.errstate(all="ignore"):  # what overflows is found where weights are asked to be finite
                policy = ArraySquashedGaussian(tower.forward(seen), with_noise)
                found[tower] = policy, policy.log_probs()

        self._side_by_side(
            lambda: respond(self._later, next_inputs, noise[size:]), lambda: respond(self._now, inputs, noise[:size])
        )
        (later, later_log_probs), (policy, log_probs) = found[self._later], found[self._now]
        with np.errstate(all="ignore"):
            weight = float(np.exp(self._log_weight[0]))
            if self._weight_part is not None:
                self._by_log_weight[0] = -(float(log_probs.mean()) + self._target_entropy)
                self._weight_part.step(learning_rate)
            wanted = self._critics.look_ahead(inputs, actions, next_inputs, later.actions)
            later_log_probs *= np.float32(weight)
            wanted -= later_log_probs
            wanted *= going_on
            wanted *= np.float32(self._gamma)
            wanted += rewards
            self._critics.learn(wanted, 1.0, learning_rate, then=policy.actions)
            by_outputs = policy.by_outputs(weight / size, self._critics.by_actions())
            self._now.backward(by_outputs, self._side_by_side)
        self._part.step(learning_rate)

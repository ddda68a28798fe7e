"""Soft actor-critic (Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications"), short and fast.

Hyper-parameters, their names and their defaults are stable-baselines3's; so are the losses, term by term. What differs
is said in `off_policy`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from prefrl.agents.adam import FlatAdam
from prefrl.agents.off_policy import EPSILON, OffPolicyAgent
from prefrl.agents.replay import Minibatch
from prefrl.agents.sac_arrays import ArraySac
from prefrl.agents.sac_networks import SquashedGaussian
from prefrl.agents.sac_settings import SacSettings
from prefrl.agents.tower_arrays import Floats
from prefrl.spaces import Array


class SacAgent(OffPolicyAgent[SacSettings]):
    """SAC on a vector environment, behind the `Agent` protocol; see `OffPolicyAgent` and `SacSettings`."""

    NAME = "SAC"
    SETTINGS = SacSettings
    NOISES = 2  # in the observations, then in the next ones
    OUTPUTS = 2  # a mean, and the logarithm of a standard deviation

    def _make_updates(self) -> None:
        first, self._learns_weight = self.settings.first_entropy_weight()
        log_weight = torch.tensor([max(first, 1e-30)], dtype=torch.float32, device=self._device).log_()
        self._weight = FlatAdam(log_weight, torch.zeros_like(log_weight), None, EPSILON)  # its logarithm
        given = self.settings.target_entropy
        self._target_entropy = -float(self._num_actions) if given == "auto" else float(given)
        self._arrays: ArraySac | None = None
        if self._device.type == "cpu":
            self._arrays = ArraySac(
                self._actor,
                self._array_critics(self._critics.num),
                self._actor_adam,
                self._weight,
                learns_weight=self._learns_weight,
                target_entropy=self._target_entropy,
                gamma=self.settings.gamma,
                side_by_side=self._side_by_side,
            )

    @property
    def _adams(self) -> list[FlatAdam]:
        return [self._weight, *super()._adams]

    def _steps(self) -> list[Callable[[Minibatch], None]]:
        return [self._descend]

    def _actions(self, inputs: Floats, noise: Tensor) -> Array:
        if self._arrays is not None:
            return self._arrays.actions(inputs, noise.numpy())
        outputs = self._actor.forward(torch.from_numpy(inputs).to(self._device))[0]
        return SquashedGaussian(outputs, noise).actions.cpu().numpy()

    def _learn_from(self, batch: Minibatch) -> None:
        rate = self.settings.learning_rate
        for adam in self._adams:
            adam.prepare(rate)
        if self._arrays is not None:
            self._arrays.step(batch, rate)
        else:
            self._perform(self._descend, batch)
        self.num_updates += 1
        if self.num_updates % self.settings.target_update_interval == 0:
            self._target.lerp_(self._critic_adam.parameters, self.settings.tau)

    def _descend(self, batch: Minibatch) -> None:
        """Make one step of Adam for the entropy's weight, the critics and the actor, in this order."""
        size = len(batch.rewards)
        policy, log_probs, later = self._act_in(batch)
        weight = self._weight.parameters.exp()
        if self._learns_weight:  # loss: -log(weight) (log pi + target entropy)
            torch.mean(log_probs[:size] + self._target_entropy, 0, keepdim=True, out=self._weight.gradient).neg_()
            self._weight.apply()
        # Critics: half the mean squared error, summed over them.
        wanted = self._wanted(batch, later, log_probs[size:], weight)
        values = self._critics.forward(torch.cat([batch.inputs, batch.actions], 1))
        self._critics.backward(values.sub_(wanted.unsqueeze(1)).div_(size))
        self._critic_adam.apply()
        # Actor: weight log pi - the least of the critics, as they are now.
        values = self._critics.forward(torch.cat([batch.inputs, policy.actions], 1))
        least = torch.zeros_like(values).scatter_(0, values.argmin(0, keepdim=True), -1 / size)
        by_actions = self._critics.by_inputs(least)[:, batch.inputs.shape[1] :]
        self._actor.backward(policy.by_outputs(weight / size, by_actions).unsqueeze(0))
        self._actor_adam.apply()

    def _act_in(self, batch: Minibatch) -> tuple[SquashedGaussian, Tensor, Tensor]:
        """Let the policy act in a minibatch.

        Returns:
            What it does in the observations, which the actor's next `backward` is about; log-probabilities `(2 B,)` of
            that and of what it does in the next observations; and those actions `(B, A)`.
        """
        size = len(batch.rewards)
        later = SquashedGaussian(self._actor.forward(batch.next_inputs)[0], batch.noise[size:])
        policy = SquashedGaussian(self._actor.forward(batch.inputs)[0], batch.noise[:size])
        return policy, torch.cat([policy.log_probs(), later.log_probs()]), later.actions

    def _wanted(self, batch: Minibatch, later: Tensor, log_probs: Tensor, weight: Tensor) -> Tensor:
        """Return what the critics should say, `(B,)`: reward and the discounted soft value of what follows."""
        values = self._targets.forward(torch.cat([batch.next_inputs, later], 1)).amin(0)[:, 0]
        soft = values.sub_(log_probs.mul(weight))
        return soft.mul_(batch.going_on).mul_(self.settings.gamma).add_(batch.rewards)

    def _figures(self, batch: Minibatch) -> dict[str, float]:
        """Judge the networks as they are now by a minibatch; nothing is drawn or changed."""
        size = len(batch.rewards)
        policy, log_probs, later = self._act_in(batch)
        weight = self._weight.parameters.exp()
        wanted = self._wanted(batch, later, log_probs[size:], weight)
        errors = self._critics.forward(torch.cat([batch.inputs, batch.actions], 1))[:, :, 0] - wanted
        least = self._critics.forward(torch.cat([batch.inputs, policy.actions], 1)).amin(0)[:, 0]
        return {
            "critic_loss": float(0.5 * errors.square().mean(1).sum()),
            "actor_loss": float((weight * log_probs[:size] - least).mean()),
            "alpha": float(weight),
            "entropy": -float(log_probs[:size].mean()),
        }

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return everything that learning needs, the replay buffer as arrays."""
        state, arrays = super().state()
        return {**state, "log_weight": self._weight.parameters.cpu().clone()}, arrays

    def restore(self, state: dict[str, Any], arrays: dict[str, Array]) -> None:
        """Go on from what `state` gave."""
        super().restore(state, arrays)
        self._weight.parameters.copy_(state["log_weight"])

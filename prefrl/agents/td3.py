"""TD3 (Fujimoto et al. 2018, "Addressing Function Approximation Error in Actor-Critic Methods"), short and fast.

Hyper-parameters, their names and their defaults are stable-baselines3's; so are the losses, term by term. What differs
is said in `off_policy`, and `action_noise_std` is the standard deviation of the noise with which it explores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from prefrl.agents.networks import flatten_parameters
from prefrl.agents.off_policy import OffPolicyAgent, weights_of
from prefrl.agents.replay import Minibatch
from prefrl.agents.td3_arrays import ArrayTd3
from prefrl.agents.td3_settings import Td3Settings
from prefrl.agents.tower_arrays import Floats
from prefrl.agents.towers import Towers
from prefrl.spaces import Array


class Td3Agent(OffPolicyAgent[Td3Settings]):
    """TD3 on a vector environment, behind the `Agent` protocol; see `OffPolicyAgent` and `Td3Settings`."""

    NAME = "TD3"
    SETTINGS = Td3Settings
    NOISES = 1  # in the next observations
    OUTPUTS = 1

    def _make_networks(self, generator: torch.Generator) -> None:
        super()._make_networks(generator)
        of_actor, _, activation, _ = self.settings.hidden()
        sizes = [*self._inputs.shape, *of_actor, self._num_actions]
        self._actor_target = Towers(1, sizes, activation, generator)
        self._actor_follower, _ = flatten_parameters(self._actor_target.to(self._device).parameters())
        self._actor_follower.copy_(self._actor_adam.parameters)

    def _make_updates(self) -> None:
        self._arrays: ArrayTd3 | None = None
        if self._device.type == "cpu":
            critics, side_by_side = self._array_critics(1), self._side_by_side
            networks = self._actor, self._actor_target, critics
            self._arrays = ArrayTd3(*networks, self._actor_adam, self.settings, side_by_side)

    def _steps(self) -> list[Callable[[Minibatch], None]]:
        return [self._descend_critics, self._descend_actor]

    def _actions(self, inputs: Floats, noise: Tensor) -> Array:
        moved = noise.mul(self.settings.action_noise_std)
        if self._arrays is not None:
            return self._arrays.actions(inputs, moved.numpy())
        best = self._actor.forward(torch.from_numpy(inputs).to(self._device))[0].tanh_()
        return best.add_(moved).clamp_(-1.0, 1.0).cpu().numpy()

    def _learn_from(self, batch: Minibatch) -> None:
        settings = self.settings
        rate, with_actor = settings.learning_rate, (self.num_updates + 1) % settings.policy_delay == 0
        for adam in self._adams if with_actor else [self._critic_adam]:
            adam.prepare(rate)
        if self._arrays is not None:
            self._arrays.step(batch, rate, with_actor)
        else:
            self._perform(self._descend_critics, batch)
            if with_actor:
                self._perform(self._descend_actor, batch)
        self.num_updates += 1
        if with_actor:
            self._target.lerp_(self._critic_adam.parameters, settings.tau)
            self._actor_follower.lerp_(self._actor_adam.parameters, settings.tau)

    def _descend_critics(self, batch: Minibatch) -> None:
        """Make a step of Adam for the critics; loss: the mean squared error, summed over them."""
        wanted = self._wanted(batch)
        values = self._critics.forward(torch.cat([batch.inputs, batch.actions], 1))
        self._critics.backward(values.sub_(wanted.unsqueeze(1)).mul_(2 / len(wanted)))
        self._critic_adam.apply()

    def _descend_actor(self, batch: Minibatch) -> None:
        """Make a step of Adam for the actor; loss: minus the mean of what the first critic says of its actions."""
        actions = self._actor.forward(batch.inputs)[0].tanh_()
        values = self._critics.forward(torch.cat([batch.inputs, actions], 1))
        by_values = torch.zeros_like(values)
        by_values[0] = -1 / len(actions)
        by_actions = self._critics.by_inputs(by_values)[:, batch.inputs.shape[1] :]
        self._actor.backward(torch.ops.aten.tanh_backward(by_actions, actions).unsqueeze(0))
        self._actor_adam.apply()

    def _wanted(self, batch: Minibatch) -> Tensor:
        """Return what the critics should say, `(B,)`: reward and the discounted value of what follows."""
        settings = self.settings
        moved = batch.noise.mul(settings.target_policy_noise)
        moved.clamp_(-settings.target_noise_clip, settings.target_noise_clip)
        later = self._actor_target.forward(batch.next_inputs)[0].tanh_().add_(moved).clamp_(-1.0, 1.0)
        values = self._targets.forward(torch.cat([batch.next_inputs, later], 1)).amin(0)[:, 0]
        return values.mul_(batch.going_on).mul_(settings.gamma).add_(batch.rewards)

    def _figures(self, batch: Minibatch) -> dict[str, float]:
        errors = self._critics.forward(torch.cat([batch.inputs, batch.actions], 1))[:, :, 0] - self._wanted(batch)
        actions = self._actor.forward(batch.inputs)[0].tanh_()
        first = self._critics.forward(torch.cat([batch.inputs, actions], 1))[0]
        return {"critic_loss": float(errors.square().mean(1).sum()), "actor_loss": -float(first.mean())}

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return everything that learning needs, the replay buffer as arrays."""
        state, arrays = super().state()
        return {**state, "actor_target": weights_of(self._actor_target)}, arrays

    def restore(self, state: dict[str, Any], arrays: dict[str, Array]) -> None:
        """Go on from what `state` gave."""
        super().restore(state, arrays)
        self._actor_target.load_state_dict(state["actor_target"])

"""TD3's update on the CPU, in NumPy: what `Td3Agent` does in PyTorch, on the same memory, in less time.

The formulas are those of `Td3Agent`, to which tests hold them.
"""

from __future__ import annotations

import numpy as np

from prefrl.agents.adam import AdamPart, FlatAdam
from prefrl.agents.critic_arrays import ArrayCritics
from prefrl.agents.replay import Minibatch
from prefrl.agents.td3_settings import Td3Settings
from prefrl.agents.tower_arrays import ArrayTower, Floats
from prefrl.agents.towers import Towers
from prefrl.threads import SideBySide


class ArrayTd3:
    """Updates of TD3.

    Args:
        actor: trained in place.
        target: of the actor, read.
        critics: trained in place.
        adam: of the actor.
        settings: of noise and discount.
        side_by_side: does two things at once.
    """

    def __init__(
        self,
        actor: Towers,
        target: Towers,
        critics: ArrayCritics,
        adam: FlatAdam,
        settings: Td3Settings,
        side_by_side: SideBySide,
    ) -> None:
        self._acting, self._now, self._later = ArrayTower(actor), ArrayTower(actor), ArrayTower(target)
        self._critics, self._settings, self._side_by_side = critics, settings, side_by_side
        self._part = AdamPart(adam, actor.parameters_of(0))

    def actions(self, inputs: Floats, noise: Floats) -> Floats:
        """Return actions `(B, A)` of inputs `(B, n)` and noise `(B, A)`, whose standard deviation it has."""
        with np.errstate(all="ignore"):
            found = np.tanh(self._acting.forward(inputs))
            found += noise
            return np.clip(found, -1.0, 1.0, out=found)

    def step(self, batch: Minibatch, learning_rate: float, with_actor: bool) -> None:
        """Make the steps of Adam that were counted: of the critics, and of the actor if its turn has come."""
        inputs, next_inputs, actions, rewards, going_on, noise = (tensor.numpy() for tensor in batch)
        settings, found = self._settings, {}

        def look_ahead() -> None:
            with np.errstate(all="ignore"):  # what overflows is found where weights are asked to be finite
                moved = np.float32(settings.target_policy_noise) * noise
                np.clip(moved, -settings.target_noise_clip, settings.target_noise_clip, out=moved)
                moved += np.tanh(self._later.forward(next_inputs))
                found["later"] = np.clip(moved, -1.0, 1.0, out=moved)

        def respond() -> None:
            with np.errstate(all="ignore"):
                found["now"] = np.tanh(self._now.forward(inputs))

        if with_actor:
            self._side_by_side(look_ahead, respond)
        else:
            look_ahead()
        own = found.get("now")
        with np.errstate(all="ignore"):
            wanted = self._critics.look_ahead(inputs, actions, next_inputs, found["later"])
            wanted *= going_on
            wanted *= np.float32(settings.gamma)
            wanted += rewards
            self._critics.learn(wanted, 2.0, learning_rate, then=own)
            if own is not None:
                by_outputs = self._critics.by_actions()
                by_outputs *= 1.0 - own * own
                self._now.backward(by_outputs, self._side_by_side)
                self._part.step(learning_rate)

"""The policy that offline learners train: that of our PPO, so that it can be kept, filmed, and trained on online.

The gradient of a loss by the log-probabilities of actions is all that a learner has to give; the chain rule from there
is that of `prefrl.agents`.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import torch
from torch import Tensor

from prefrl.agents.adam import FlatAdam
from prefrl.agents.distributions import DiagonalGaussian, make_distribution
from prefrl.agents.inputs import PolicyInputs
from prefrl.agents.networks import MlpActorCritic, flatten_parameters
from prefrl.agents.ppo_arrays import ArrayTower
from prefrl.errors import UserError
from prefrl.spaces import Array, Batch, is_image

LOG_STD = -1.0  # of the noise at the start, in units of half the range of an action
CRITIC = [64, 64]  # of an online training that goes on from here; nothing is learned for it offline
LEAST_LOG_STD, MOST_LOG_STD = -5.0, 2.0  # of the noise that is learned (Kostrikov et al. 2022, public code)


def policy_hyperparameters(hidden: tuple[int, ...]) -> dict[str, Any]:
    """Return the hyper-parameters of a PPO agent whose policy this is."""
    network = {"net_arch": {"pi": list(hidden), "vf": CRITIC}, "activation_fn": "relu", "log_std_init": LOG_STD}
    return {"scale_actions": True, "policy_kwargs": network}


class OfflinePolicy:
    """A stochastic policy with its optimiser.

    Args:
        observation_space: vectors, choices, or a Dict of these.
        action_space: Box, Discrete, MultiDiscrete or MultiBinary.
        hidden: units of the hidden layers.
        learning_rate: of Adam.
        seed: of the starting weights.

    Raises:
        UserError: observations are images.
    """

    def __init__(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        hidden: tuple[int, ...],
        *,
        learning_rate: float,
        seed: int,
    ) -> None:
        if is_image(observation_space):
            raise UserError(
                f"Offline learners read vectors, and these observations are images: {observation_space}. Give data "
                "whose observations are vectors, e.g. features of the images."
            )
        device = torch.device("cpu")  # networks this small are slower elsewhere
        self.inputs = PolicyInputs(observation_space, None, device)
        self.actions = make_distribution(action_space, device, LOG_STD, True)
        self._network = MlpActorCritic(
            self.inputs.shape[0],
            self.actions.num_outputs,
            torch.Generator().manual_seed(seed),
            (hidden, CRITIC),
            "relu",
        )
        trained = [*self._network.actor.parameters(), *self.actions.parameters()]
        self._adam = FlatAdam(*flatten_parameters(trained), None)
        self._acting = ArrayTower(self._network.actor)  # as the PPO agent acts that takes the policy over
        self._learning_rate = learning_rate

    def see(self, observations: Batch) -> None:
        """Take the statistics of the inputs from the observations of the data `(B, ...)`."""
        self.inputs.learn(observations)

    @torch.no_grad()
    def log_prob(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Return the log-probability of each action `(B,)`; what `step` needs is kept.

        Args:
            observations: `(B, D)`: encoded by `inputs`.
            actions: `(B, ...)`: of `actions.from_env`.
        """
        return self.actions.log_prob(self._network.actor.forward(observations), actions)

    @torch.no_grad()
    def step(self, gradient: Tensor, remaining: float, *, learns_noise: bool = True) -> None:
        """Make one step of Adam.

        Args:
            gradient: `(B,)`: of the loss by each log-probability of the last `log_prob`.
            remaining: share of the training that is left: the step size falls to 0 with a cosine (Kostrikov et al.
                2022, app. B).
            learns_noise: the noise of continuous actions is learned too.
        """
        self._network.actor.backward(self.actions.gradients(gradient, 0.0))
        noise = [parameter.clone() for parameter in self.actions.parameters()]
        self._adam.step(self._learning_rate * 0.5 * (1 - math.cos(math.pi * remaining)))
        for parameter, before in zip(self.actions.parameters(), noise, strict=True):
            if learns_noise:
                parameter.data.clamp_(LEAST_LOG_STD, MOST_LOG_STD)
            else:
                parameter.data.copy_(before)

    @torch.no_grad()
    def act(self, observations: Batch, generator: torch.Generator) -> Array:
        """Return actions for observations `(B, ...)`: without noise where continuous, drawn where discrete."""
        outputs = torch.from_numpy(self._acting.forward(self.inputs.encode_vectors(observations)))
        if isinstance(self.actions, DiagonalGaussian):
            return self.actions.to_env(self.actions.mode(outputs))
        return self.actions.to_env(self.actions.sample(outputs, self.actions.noise((len(outputs),), generator)))

    def policy_state(self) -> dict[str, Any]:
        """Return what acting needs, as `PpoAgent.load_policy_state` takes it."""
        weights = {name: tensor.detach().clone() for name, tensor in self._network.state_dict().items()}
        own = [parameter.detach().clone() for parameter in self.actions.parameters()]
        return {"network": weights, "actions": own, "inputs": self.inputs.state()}

    def check_weights(self) -> None:
        """Refuse to go on with weights that are no numbers.

        Raises:
            UserError: they are not finite.
        """
        self._adam.check_finite("Use a smaller --learner.learning-rate or --learner.temperature.")

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        return {"policy": self.policy_state(), "adam": self._adam.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        kept = state["policy"]
        self._network.load_state_dict(kept["network"])
        for parameter, values in zip(self.actions.parameters(), kept["actions"], strict=True):
            parameter.data.copy_(values)
        self.inputs.restore(kept["inputs"])
        self._adam.restore(state["adam"])

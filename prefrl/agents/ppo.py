"""Proximal policy optimisation (Schulman et al. 2017), short and fast.

Hyper-parameters, their names and their defaults are stable-baselines3's; so are the losses, term by term. What differs:

- One rollout of all environments is scored by the reward function at once; values and log-probabilities are computed
  for the whole rollout after it, not step by step.
- Statistics of the observations stand still during a rollout and are brought up to date after it.
- A step that is cut off (truncated) bootstraps from the value of the last observation itself; one that terminates does
  not, also where both happen.
- Gradients of the loss by the networks' outputs are written out (`surrogate_gradients`), perceptrons carry their own
  gradients, and all parameters are one vector, because networks this small spend most of their time on bookkeeping.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from torch import Tensor

from prefrl.agents.distributions import make_distribution
from prefrl.agents.inputs import PolicyInputs
from prefrl.agents.networks import CnnActorCritic, MlpActorCritic, flatten_parameters
from prefrl.agents.protocol import Improvement
from prefrl.agents.scaling import ReturnScaler
from prefrl.agents.schedules import schedule
from prefrl.agents.stepping import Stepper
from prefrl.errors import UserError, near_names
from prefrl.rewards.function import RewardFunction, checked_rewards
from prefrl.segments import Rollout
from prefrl.spaces import Array, Batch, check_action_space, check_observation_space, map_batch

EVALUATED_AT_ONCE = 8_192  # vector observations
IMAGES_AT_ONCE = 1_024
ADAM_BETAS, ADAM_EPSILON = (0.9, 0.999), 1e-5  # epsilon as in stable-baselines3's actor-critics


@dataclass(frozen=True, kw_only=True)
class PpoSettings:
    """Hyper-parameters; a number or `"linear:X"`, which falls from X to 0, where it says so."""

    learning_rate: float | str = 3e-4
    """Of Adam; or linear."""
    n_steps: int = 2048
    """Steps of each environment between updates."""
    batch_size: int = 64
    """Steps in a minibatch."""
    n_epochs: int = 10
    """Passes over each rollout."""
    gamma: float = 0.99
    """Discount."""
    gae_lambda: float = 0.95
    """Of the generalised advantage estimate (Schulman et al. 2016)."""
    clip_range: float | str = 0.2
    """Of the probability ratio; or linear."""
    clip_range_vf: float | str | None = None
    """Of the change of values; or linear; None: not clipped."""
    normalize_advantage: bool = True
    """To mean 0 and standard deviation 1 in each minibatch."""
    ent_coef: float = 0.0
    """Weight of the entropy."""
    vf_coef: float = 0.5
    """Weight of the value loss."""
    max_grad_norm: float = 0.5
    """Gradients longer than this are shortened."""
    target_kl: float | None = None
    """The update ends early beyond 1.5 times this divergence."""
    policy_kwargs: dict[str, Any] = field(default_factory=dict)
    """net_arch (a list of units, or {"pi": [...], "vf": [...]}), activation_fn ("tanh" or "relu"), log_std_init."""
    normalize_observations: bool | None = None
    """Normalise by running statistics; None: where all observations are floats."""
    normalize_until: float = 1.0
    """Share of the training after which these statistics are frozen."""
    normalize_returns: bool = False
    """Centre rewards and divide them by the running standard deviation of the discounted return."""

    @classmethod
    def of(cls, given: dict[str, Any]) -> PpoSettings:
        """Check hyper-parameters given by name.

        Raises:
            UserError: an unknown name, or a value out of range.
        """
        known = [f.name for f in fields(cls)]
        for name in given:
            if name not in known:
                near = near_names(name, known)
                raise UserError(f"PPO has no hyper-parameter {name!r} here.{near} It knows: {', '.join(known)}.")
        settings = cls(**{**given, "policy_kwargs": given.get("policy_kwargs") or {}})
        for name in ("n_steps", "batch_size", "n_epochs"):
            value = getattr(settings, name)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"{name} must be a whole number of at least 1. Received {value!r}")
        for name in ("gamma", "gae_lambda", "normalize_until"):
            if not 0 <= getattr(settings, name) <= 1:
                raise UserError(f"{name} must be in [0, 1]. Received {getattr(settings, name)}")
        if settings.max_grad_norm <= 0:
            raise UserError(f"max_grad_norm must be positive. Received {settings.max_grad_norm}")
        for name in settings.policy_kwargs:
            names = ("net_arch", "activation_fn", "log_std_init")
            if name not in names:
                near = near_names(name, names)
                raise UserError(f"policy_kwargs has no {name!r} here.{near} It knows: {', '.join(names)}.")
        return settings


class Minibatch(NamedTuple):
    """B steps to learn from."""

    inputs: Tensor
    """`(B, ...)`"""
    actions: Tensor
    """`(B, ...)`"""
    log_probs: Tensor
    """`(B,)`: before the update."""
    values: Tensor
    """`(B,)`: before the update."""
    advantages: Tensor
    """`(B,)`"""
    returns: Tensor
    """`(B,)`"""


def advantages_of(
    rewards: NDArray[np.floating],
    values: NDArray[np.floating],
    next_values: NDArray[np.floating],
    terminated: NDArray[np.bool_],
    truncated: NDArray[np.bool_],
    gamma: float,
    gae_lambda: float,
) -> NDArray[np.float32]:
    """Return generalised advantage estimates `(T, E)` (Schulman et al. 2016, eq. 16).

    Args:
        rewards: `(T, E)`.
        values: `(T, E)`: of what was seen before each step.
        next_values: `(T, E)`: of what each step led to, the last observation where an episode was cut off.
        terminated: `(T, E)`: nothing follows.
        truncated: `(T, E)`: the episode was cut off.
        gamma: discount.
        gae_lambda: 0 takes one step's difference, 1 the whole return.
    """
    differences = rewards + gamma * next_values * ~terminated - values
    carried = gamma * gae_lambda * ~(terminated | truncated)
    advantages = np.empty(rewards.shape, np.float32)
    following = np.zeros(rewards.shape[1])
    for step in range(len(rewards) - 1, -1, -1):
        following = differences[step] + carried[step] * following
        advantages[step] = following
    return advantages


def surrogate_gradients(
    log_probs: Tensor, values: Tensor, batch: Minibatch, settings: PpoSettings, clip: float, clip_values: float | None
) -> tuple[Tensor, Tensor]:
    """Return the gradients `(B,)` each of policy and value loss by the log-probabilities and values now.

    The losses are -mean(min(ratio * A, clip(ratio) * A)) (Schulman et al. 2017, eq. 7) and vf_coef times the mean
    squared error of the values.
    """
    size = len(values)
    advantages = batch.advantages
    if settings.normalize_advantage and size > 1:
        std, mean = torch.std_mean(advantages)
        advantages = (advantages - mean).div_(std + 1e-8)
    ratio = (log_probs - batch.log_probs).exp_()
    gain = advantages * ratio
    unclipped = torch.le(gain, ratio.clamp_(1 - clip, 1 + clip).mul_(advantages))
    error = values - batch.returns
    if clip_values is not None:
        change = values - batch.values
        error = change.clamp(-clip_values, clip_values).add_(batch.values).sub_(batch.returns)
        error.mul_(change.abs() <= clip_values)
    return gain.mul_(unclipped).div_(-size), error.mul_(2 * settings.vf_coef / size)


class FlatAdam:
    """Adam (Kingma and Ba 2015) on one vector, its gradient shortened to a norm first.

    Args:
        parameters: the vector.
        gradient: its gradient.
        max_norm: longer gradients are shortened to this.
    """

    def __init__(self, parameters: Tensor, gradient: Tensor, max_norm: float) -> None:
        self.parameters, self.gradient, self.max_norm = parameters, gradient, max_norm
        self.first, self.second = torch.zeros_like(parameters), torch.zeros_like(parameters)
        self._scratch = torch.empty_like(parameters)
        self.num_steps = 0

    def step(self, learning_rate: float) -> None:
        """Move the parameters."""
        self.num_steps += 1
        first, second = ADAM_BETAS
        gradient = self.gradient
        gradient.mul_((self.max_norm / (torch.linalg.vector_norm(gradient) + 1e-6)).clamp_(max=1.0))
        self.first.lerp_(gradient, 1 - first)
        self.second.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        correction = (1 - second**self.num_steps) ** 0.5
        torch.sqrt(self.second, out=self._scratch).add_(ADAM_EPSILON * correction)
        size = learning_rate * correction / (1 - first**self.num_steps)
        self.parameters.addcdiv_(self.first, self._scratch, value=-size)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        return {"first": self.first.clone(), "second": self.second.clone(), "num_steps": self.num_steps}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.first.copy_(state["first"])
        self.second.copy_(state["second"])
        self.num_steps = state["num_steps"]


class PpoAgent:
    """PPO on a vector environment, behind the `Agent` protocol.

    Args:
        envs: E environments that restart in the step in which they end (`AutoresetMode.SAME_STEP`).
        total_env_steps: length of the whole training, for schedules.
        hyperparameters: see `PpoSettings`.
        seed: of the starting weights and everything drawn; the environments are seeded by `reset_environments`.
        device: where the networks live.
        pass_true_reward: train on the environments' own reward (a baseline).

    Raises:
        UserError: unknown hyper-parameters, or spaces that it cannot handle.
    """

    def __init__(
        self,
        envs: VectorEnv,
        *,
        total_env_steps: int,
        hyperparameters: dict[str, Any] | None = None,
        seed: int = 0,
        device: str = "cpu",
        pass_true_reward: bool = False,
    ) -> None:
        self.settings = settings = PpoSettings.of(hyperparameters or {})
        self.observation_space, self.action_space = envs.single_observation_space, envs.single_action_space
        check_observation_space(self.observation_space)
        check_action_space(self.action_space)
        self._stepper = Stepper(envs)
        self._device = torch.device(device)
        self._on_true_reward = pass_true_reward
        self._total_env_steps = total_env_steps
        self._random = torch.Generator(self._device).manual_seed(seed)
        self._inputs = PolicyInputs(self.observation_space, settings.normalize_observations, self._device)
        log_std = settings.policy_kwargs.get("log_std_init", 0.0)
        self._actions = make_distribution(self.action_space, self._device, log_std)
        self._network = self._make_network(torch.Generator().manual_seed(seed))
        parameters = [*self._network.parameters(), *self._actions.parameters()]
        self._adam = FlatAdam(*flatten_parameters(parameters), settings.max_grad_norm)
        self._learning_rate = schedule("learning_rate", settings.learning_rate)
        self._clip = schedule("clip_range", settings.clip_range)
        given = settings.clip_range_vf
        self._clip_values: Callable[[float], float | None] = (
            (lambda _: None) if given is None else schedule("clip_range_vf", given)
        )
        self._scaler = ReturnScaler(envs.num_envs, settings.gamma) if settings.normalize_returns else None
        self._num_env_steps = 0
        self.steps_per_iteration = envs.num_envs * settings.n_steps

    def _make_network(self, generator: torch.Generator) -> MlpActorCritic | CnnActorCritic:
        options, num_outputs = self.settings.policy_kwargs, self._actions.num_outputs
        if self._inputs.images:
            channels, height, width = self._inputs.shape
            on_gpu = self._device.type == "cuda"
            network = CnnActorCritic((channels, height, width), num_outputs, generator, bf16=on_gpu)
            return network.to(self._device).eval()
        units = options.get("net_arch", [64, 64])
        hidden = (units["pi"], units["vf"]) if isinstance(units, dict) else (units, units)
        activation = options.get("activation_fn", "tanh")
        return MlpActorCritic(self._inputs.shape[0], num_outputs, generator, hidden, activation).to(self._device)

    @property
    def num_env_steps(self) -> int:
        """Steps made so far in all environments together."""
        return self._num_env_steps

    @property
    def num_envs(self) -> int:
        """E."""
        return int(self._stepper.envs.num_envs)

    def reset_environments(self, seed: int) -> None:
        """Start new episodes everywhere, the environments seeded from `seed`."""
        if self._scaler is not None:
            self._scaler.restart()
        self._stepper.reset(seed)

    def explore(self, num_env_steps: int, rng: np.random.Generator) -> Rollout:
        """Act uniformly at random for at least `num_env_steps` steps; they count as environment steps."""
        space = self._stepper.envs.action_space
        space.seed(int(rng.integers(2**31)))
        for _ in range(-(-num_env_steps // self.num_envs)):
            self._stepper.step(space.sample())
        rollout = self._stepper.take()
        self._count(rollout)
        return rollout

    def _count(self, rollout: Rollout) -> None:
        """Count the steps made and bring the statistics of the observations up to date."""
        if self._num_env_steps < self.settings.normalize_until * self._total_env_steps:
            self._inputs.learn(map_batch(lambda x: x[1:].reshape(-1, *x.shape[2:]), rollout.observations))
        self._num_env_steps += rollout.num_steps

    # ------------------------------------------------------------------------------------------------ one iteration

    def improve(self, reward: RewardFunction | None) -> Improvement:
        """Act for `steps_per_iteration` steps and learn from them.

        Args:
            reward: scores the steps. None: the environments' own reward if the agent was made with `pass_true_reward`,
                else zeros.
        """
        with self._network.no_graph():
            begin = time.perf_counter()
            inputs, actions, rollout = self._collect()
            collected = time.perf_counter()
            learned = self._score(rollout, reward)
            scored = time.perf_counter()
            batch = self._batch(inputs, actions, rollout, learned)
            self._count(rollout)
            self._update(batch)
            updated = time.perf_counter()
        seconds = {"collect": collected - begin, "reward": scored - collected, "update": updated - scored}
        return Improvement(rollout=rollout, learned_rewards=np.asarray(learned, np.float32), seconds=seconds)

    def _collect(self) -> tuple[Tensor, Tensor, Rollout]:
        """Act for `n_steps` steps; return the network's inputs `(T + 1, E, ...)`, the actions `(T, E, ...)`."""
        stepper, steps = self._stepper, self.settings.n_steps
        shape = (steps + 1, self.num_envs, *self._inputs.shape)
        inputs = torch.empty(shape, dtype=self._inputs.dtype, device=self._device)
        noise = self._actions.noise((steps, self.num_envs), self._random)
        actions = []
        for step in range(steps):
            inputs[step] = self._inputs.encode(stepper.observations)
            actions.append(self._actions.sample(self._network.policy(inputs[step]), noise[step]))
            stepper.step(self._actions.to_env(actions[-1]))
        inputs[steps] = self._inputs.encode(stepper.observations)
        return inputs, torch.stack(actions), stepper.take()

    def _score(self, rollout: Rollout, reward: RewardFunction | None) -> NDArray[np.floating]:
        """Return the rewards `(T, E)` to learn from, neither centred nor scaled yet."""
        if self._on_true_reward:
            return rollout.true_rewards
        if reward is None:
            return np.zeros(rollout.terminated.shape, np.float32)
        return checked_rewards(reward, *rollout.flat_transitions()).reshape(rollout.terminated.shape)

    def _evaluate(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return policy outputs `(B, ...)` and values `(B,)`, part by part."""
        size = IMAGES_AT_ONCE if self._inputs.images else EVALUATED_AT_ONCE
        parts = [self._network.forward(part) for part in inputs.split(size)]
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])

    def _batch(self, inputs: Tensor, actions: Tensor, rollout: Rollout, learned: NDArray[np.floating]) -> Minibatch:
        """Return the whole rollout as one batch to learn from."""
        settings, shape = self.settings, learned.shape
        outputs, values = self._evaluate(inputs.flatten(0, 1))
        actions, inputs = actions.flatten(0, 1), inputs[:-1].flatten(0, 1)
        values_now = values.view(shape[0] + 1, shape[1]).cpu().numpy()
        next_values = values_now[1:].copy()
        if rollout.truncated.any():
            next_values[rollout.ended] = self._evaluate(self._inputs.encode(rollout.last_observations))[1].cpu().numpy()
        if self._scaler is not None:
            learned = self._scaler.scale(learned, rollout.terminated, rollout.truncated)
        ends = rollout.terminated, rollout.truncated
        gains = advantages_of(learned, values_now[:-1], next_values, *ends, settings.gamma, settings.gae_lambda)
        advantages = torch.from_numpy(gains.ravel()).to(self._device)
        values = values[: advantages.numel()]
        return Minibatch(
            inputs=inputs,
            actions=actions,
            log_probs=self._actions.log_prob(outputs[: advantages.numel()], actions),
            values=values,
            advantages=advantages,
            returns=advantages + values,
        )

    def _update(self, batch: Minibatch) -> None:
        settings, remaining = self.settings, max(1 - self._num_env_steps / self._total_env_steps, 0.0)
        learning_rate, clip, clip_values = (f(remaining) for f in (self._learning_rate, self._clip, self._clip_values))
        assert learning_rate is not None and clip is not None
        self._network.train()
        for part in self._minibatches(batch):
            outputs, values = self._network.forward(part.inputs)
            log_probs = self._actions.log_prob(outputs, part.actions)
            if settings.target_kl is not None and _divergence(log_probs, part.log_probs) > 1.5 * settings.target_kl:
                break
            d_log_probs, d_values = surrogate_gradients(log_probs, values, part, settings, clip, clip_values)
            d_outputs = self._actions.gradients(d_log_probs, -settings.ent_coef / len(values))
            self._network.backward(d_outputs, d_values)
            self._adam.step(learning_rate)
        self._network.eval()

    def _minibatches(self, batch: Minibatch) -> Iterator[Minibatch]:
        """Go through the batch `n_epochs` times, each time in another order."""
        for _ in range(self.settings.n_epochs):
            order = torch.randperm(len(batch.returns), generator=self._random, device=self._device)
            for chosen in order.split(self.settings.batch_size):
                yield Minibatch(*(values.index_select(0, chosen) for values in batch))

    # ------------------------------------------------------------------------------------------------ keeping

    def relabel(self, reward: RewardFunction) -> None:
        """Nothing to do: no experience is kept."""

    @torch.no_grad()
    def act(self, observations: Batch, *, deterministic: bool = True) -> Array:
        """Return an action for each of B observations `(B, ...)`."""
        outputs = self._network.policy(self._inputs.encode(observations))
        if deterministic:
            return self._actions.to_env(self._actions.mode(outputs))
        noise = self._actions.noise((len(outputs),), self._random)
        return self._actions.to_env(self._actions.sample(outputs, noise))

    def policy_state(self) -> dict[str, Any]:
        """Return weights of the network and the statistics of its observations."""
        weights = {name: tensor.detach().cpu().clone() for name, tensor in self._network.state_dict().items()}
        own = [parameter.detach().cpu().clone() for parameter in self._actions.parameters()]
        return {"network": weights, "actions": own, "inputs": self._inputs.state()}

    def load_policy_state(self, state: dict[str, Any]) -> None:
        """Act from now on as `policy_state` described."""
        self._network.load_state_dict(state["network"])
        for parameter, values in zip(self._actions.parameters(), state["actions"], strict=True):
            parameter.data.copy_(values)
        self._inputs.restore(state["inputs"])

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return everything that learning needs."""
        state = {
            "policy": self.policy_state(),
            "adam": self._adam.state(),
            "random": self._random.get_state(),
            "num_env_steps": self._num_env_steps,
            "scaler": None if self._scaler is None else self._scaler.state(),
        }
        return state, {}

    def restore(self, state: dict[str, Any], arrays: dict[str, Array]) -> None:
        """Go on from what `state` gave."""
        self.load_policy_state(state["policy"])
        self._adam.restore(state["adam"])
        self._random.set_state(state["random"])
        self._num_env_steps = state["num_env_steps"]
        if self._scaler is not None:
            self._scaler.restore(state["scaler"])

    def close(self) -> None:
        """Close the environments."""
        self._stepper.envs.close()


def _divergence(log_probs: Tensor, before: Tensor) -> float:
    """Return an estimate of the Kullback-Leibler divergence (Schulman 2020, "Approximating KL divergence": k3)."""
    log_ratio = log_probs - before
    return float((log_ratio.exp() - 1 - log_ratio).mean())

"""Proximal policy optimisation (Schulman et al. 2017), short and fast.

Hyper-parameters, their names and their defaults are stable-baselines3's; so are the losses, term by term. What differs:

- One rollout of all environments is scored by the reward function at once; values and log-probabilities are computed
  for the whole rollout after it, not step by step.
- Statistics of the observations stand still during a rollout and are brought up to date after it.
- A step that is cut off (truncated) bootstraps from the value of the last observation itself; one that terminates does
  not, also where both happen.
- Gradients of the loss by the networks' outputs are written out (`surrogate_gradients`), perceptrons carry their own
  gradients, and all parameters are one vector, because networks this small spend most of their time on bookkeeping.
  For the same reason perceptrons are updated in NumPy where they are on the CPU (`ppo_arrays`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from torch import Tensor

from prefrl.agents.adam import FlatAdam
from prefrl.agents.distributions import make_distribution
from prefrl.agents.figures import explained_variance
from prefrl.agents.inputs import PolicyInputs
from prefrl.agents.networks import CnnActorCritic, MlpActorCritic, flatten_parameters
from prefrl.agents.ppo_arrays import ArrayMinibatch, ArrayUpdate
from prefrl.agents.ppo_losses import (
    Minibatch,
    advantages_of,
    approximate_kl,
    surrogate_gradients,
    update_figures,
)
from prefrl.agents.ppo_settings import PpoSettings
from prefrl.agents.protocol import Improvement
from prefrl.agents.scaling import ReturnScaler
from prefrl.agents.schedules import schedule
from prefrl.agents.stepping import Stepper
from prefrl.errors import UserError
from prefrl.gpu import Record, ReplayedStep, enough_gpu_memory, record_cuda_graph, restore_generator
from prefrl.rewards.function import RewardFunction, checked_rewards
from prefrl.segments import Rollout
from prefrl.spaces import Array, Batch, check_action_space, check_observation_space, join_axes, take

EVALUATED_AT_ONCE = 8_192  # vector observations
IMAGES_AT_ONCE = 1_024
JUDGED, IMAGES_JUDGED = 256, 64  # steps of a rollout by which an update is judged, at a hundredth of what it takes
DIVERGED = "Use a smaller learning rate, e.g. --hyper learning_rate=3e-4, and the default max_grad_norm of 0.5."
LESS_MEMORY = "Use fewer --num-envs, or a smaller --hyper n_steps or batch_size."


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
        self._actions = make_distribution(self.action_space, self._device, log_std, settings.scale_actions)
        self._network = self._make_network(torch.Generator().manual_seed(seed))
        parameters = [*self._network.parameters(), *self._actions.parameters()]
        self._adam = FlatAdam(*flatten_parameters(parameters), settings.max_grad_norm)
        self._clips: tuple[Any, Any] = (0.0, None)  # numbers, or tensors that hold one, of ratios and values
        self._replayed: ReplayedStep | None = None
        self._arrays: ArrayUpdate | None = None
        if self._device.type == "cpu" and isinstance(self._network, MlpActorCritic):
            self._arrays = ArrayUpdate(self._network, self._actions, self._adam, settings)
        if self._device.type == "cuda":
            self._replay_updates(record_cuda_graph)
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
            without = sorted({"net_arch", "activation_fn"} & options.keys())
            if without:
                raise UserError(
                    f"{' and '.join(without)} of policy_kwargs shape networks for vectors; for images there is the one "
                    "network of Mnih et al. 2015. Leave them out, or use --agent sb3-ppo."
                )
            channels, height, width = self._inputs.shape
            on_gpu = self._device.type == "cuda"
            network = CnnActorCritic((channels, height, width), num_outputs, generator, bf16=on_gpu)
            return network.to(self._device).eval()
        units = options.get("net_arch", [64, 64])
        hidden = (units["pi"], units["vf"]) if isinstance(units, dict) else (units, units)
        activation = options.get("activation_fn", "tanh")
        return MlpActorCritic(self._inputs.shape[0], num_outputs, generator, hidden, activation).to(self._device)

    def _replay_updates(self, record: Record) -> None:
        """Record the update of a minibatch once and replay it from then on."""
        self._arrays = None
        adam, failure = self._adam, "The update could not be recorded as a CUDA graph"
        self._replayed = ReplayedStep(record, failure, [adam.parameters, adam.first, adam.second])

    @property
    def num_env_steps(self) -> int:
        """Steps made so far in all environments together."""
        return self._num_env_steps

    @property
    def num_envs(self) -> int:
        """How many copies of the environment run side by side, E."""
        return int(self._stepper.envs.num_envs)

    def reset_environments(self, seed: int) -> None:
        """Start new episodes everywhere, the environments seeded from `seed`."""
        if self._scaler is not None:
            self._scaler.restart()
        self._stepper.reset(seed)

    def explore(self, num_env_steps: int, rng: np.random.Generator, *, uniform: bool = True) -> Rollout:
        """Act for at least `num_env_steps` steps, which count as environment steps.

        Args:
            num_env_steps: how many.
            rng: seeds uniform actions.
            uniform: uniformly random actions instead of the policy's, with its noise.
        """
        space = self._stepper.envs.action_space
        space.seed(int(rng.integers(2**31)))
        steps = -(-num_env_steps // self.num_envs)
        self._stepper.begin(steps)
        for _ in range(steps):
            seen = self._stepper.observations
            self._stepper.step(space.sample() if uniform else self.act(seen, deterministic=False))
        rollout = self._stepper.take()
        self._count(rollout)
        return rollout

    def _count(self, rollout: Rollout) -> None:
        """Count the steps made and bring the statistics of the observations up to date."""
        if self._num_env_steps < self.settings.normalize_until * self._total_env_steps:
            self._inputs.learn(join_axes(take(rollout.observations, slice(1, None))))
        self._num_env_steps += rollout.num_steps

    # ------------------------------------------------------------------------------------------------ one iteration

    def improve(self, reward: RewardFunction | None) -> Improvement:
        """Act for `steps_per_iteration` steps and learn from them.

        Args:
            reward: scores the steps. None: the environments' own reward if the agent was made with `pass_true_reward`,
                else zeros.
        """
        with self._network.no_graph(), enough_gpu_memory(LESS_MEMORY):
            begin = time.perf_counter()
            inputs, actions, rollout = self._collect()
            collected = time.perf_counter()
            learned = self._score(rollout, reward)
            scored = time.perf_counter()
            batch = self._batch(inputs, actions, rollout, learned)
            self._count(rollout)
            self._update(batch)
            self._adam.check_finite(DIVERGED)
            figures = self._figures(batch)
            updated = time.perf_counter()
        seconds = {"collect": collected - begin, "reward": scored - collected, "update": updated - scored}
        learned = np.asarray(learned, np.float32)
        return Improvement(rollout=rollout, learned_rewards=learned, seconds=seconds, figures=figures)

    def _collect(self) -> tuple[Tensor, Tensor, Rollout]:
        """Act for `n_steps` steps; return the network's inputs `(T + 1, E, ...)`, the actions `(T, E, ...)`."""
        stepper, steps = self._stepper, self.settings.n_steps
        stepper.begin(steps)
        noise = self._actions.noise((steps, self.num_envs), self._random)
        actions = []
        for step in range(steps):
            actions.append(self._actions.sample(self._policy(stepper.observations), noise[step]))
            stepper.step(self._actions.to_env(actions[-1]))
        rollout = stepper.take()
        inputs = self._inputs.encode(join_axes(rollout.observations))
        return inputs.unflatten(0, (steps + 1, self.num_envs)), torch.stack(actions), rollout

    def _policy(self, observations: Batch) -> Tensor:
        """Return the policy's outputs `(B, num_outputs)` for observations `(B, ...)`."""
        if self._arrays is None:
            return self._network.policy(self._inputs.encode(observations))
        return torch.from_numpy(self._arrays.policy(self._inputs.encode_vectors(observations)))

    def _score(self, rollout: Rollout, reward: RewardFunction | None) -> NDArray[np.floating]:
        """Return the rewards `(T, E)` to learn from, neither centred nor scaled yet."""
        if self._on_true_reward:
            return rollout.true_rewards
        if reward is None:
            return np.zeros(rollout.terminated.shape, np.float32)
        steps = len(rollout.terminated)
        size = max(1, IMAGES_AT_ONCE // self.num_envs) if self._inputs.images else steps  # images are held only once
        parts = [rollout.part(begin, min(begin + size, steps)) for begin in range(0, steps, size)]
        scores = [checked_rewards(reward, *part.flat_transitions()) for part in parts]
        return np.concatenate(scores).reshape(rollout.terminated.shape)

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
        remaining = max(1 - self._num_env_steps / self._total_env_steps, 0.0)
        learning_rate = self._learning_rate(remaining)
        self._set_clips(self._clip(remaining), self._clip_values(remaining))
        if self._arrays is not None:
            self._update_arrays(self._arrays, batch, learning_rate)
            return
        size = min(self.settings.batch_size, len(batch.returns))
        self._network.train()
        for part in self._minibatches(batch):
            if self._is_far(self._log_prob, part):
                break
            self._adam.prepare(learning_rate)
            if self._replayed is not None and len(part.returns) == size:
                self._replayed(self._step, part)
            else:
                self._step(part)
        self._network.eval()

    def _update_arrays(self, arrays: ArrayUpdate, batch: Minibatch, learning_rate: float) -> None:
        """Do the same by arrays; each epoch's steps are put in order once, so that minibatches are pieces of them."""
        whole, size = ArrayMinibatch.of(batch), self.settings.batch_size
        for order in self._orders(batch):
            shuffled = whole.at(order.numpy())
            for begin in range(0, len(order), size):
                part = shuffled.at(slice(begin, begin + size))
                if self._is_far(arrays.log_prob, part):
                    return
                arrays.step(part, learning_rate, *self._clips)

    def _figures(self, batch: Minibatch) -> dict[str, float]:
        """Judge the policy as it is now by steps spread evenly over a rollout; nothing is drawn or changed."""
        every = max(1, len(batch.returns) // (IMAGES_JUDGED if self._inputs.images else JUDGED))
        outputs, new_values = self._network.forward(batch.inputs[::every])
        new_log_probs = self._actions.log_prob(outputs, batch.actions[::every])
        now = torch.stack([new_log_probs, new_values, self._actions.entropy(outputs)]).cpu().numpy()
        log_probs, values, advantages, returns = torch.stack(batch[2:]).cpu().numpy()
        gains = advantages[::every]
        if self.settings.normalize_advantage and len(gains) > 1:  # as those of a minibatch
            gains = (gains - gains.mean()) / (gains.std(ddof=1) + 1e-8)
        log_ratios, errors = now[0] - log_probs[::every], now[1] - returns[::every]
        return {
            **update_figures(log_ratios, gains, errors, float(self._clips[0])),
            "entropy": float(now[2].mean()),
            "explained_variance": explained_variance(values, returns),
        }

    def _set_clips(self, clip: float, clip_values: float | None) -> None:
        """Set the ranges: numbers, or where updates are replayed tensors, whose values a recording follows."""
        if self._replayed is None:
            self._clips = clip, clip_values
            return
        new = torch.zeros(2, dtype=torch.float64, device=self._device)  # rounded as numbers are
        kept = [old if isinstance(old, Tensor) else new[i] for i, old in enumerate(self._clips)]
        kept[0].fill_(clip)
        if clip_values is not None:
            kept[1].fill_(clip_values)
        self._clips = kept[0], None if clip_values is None else kept[1]

    def _step(self, part: Minibatch) -> None:
        """Make one step of Adam on a minibatch."""
        outputs, values = self._network.forward(part.inputs)
        log_probs = self._actions.log_prob(outputs, part.actions)
        d_log_probs, d_values = surrogate_gradients(log_probs, values, part, self.settings, *self._clips)
        self._network.backward(self._actions.gradients(d_log_probs, -self.settings.ent_coef / len(values)), d_values)
        self._adam.apply()

    def _log_prob(self, part: Minibatch) -> Tensor:
        """Return the log-probability of each action now `(B,)`."""
        return self._actions.log_prob(self._network.forward(part.inputs)[0], part.actions)

    def _is_far(self, log_prob: Callable[[Any], Any], part: Minibatch | ArrayMinibatch) -> bool:
        """Tell whether the policy has moved as far as it may in one update."""
        if self.settings.target_kl is None:
            return False
        moved = log_prob(part) - part.log_probs
        log_ratios = moved if isinstance(moved, np.ndarray) else moved.cpu().numpy()
        return approximate_kl(log_ratios) > 1.5 * self.settings.target_kl

    def _orders(self, batch: Minibatch) -> Iterator[Tensor]:
        """Give the order in which each epoch goes through a batch."""
        for _ in range(self.settings.n_epochs):
            yield torch.randperm(len(batch.returns), generator=self._random, device=self._device)

    def _minibatches(self, batch: Minibatch) -> Iterator[Minibatch]:
        """Go through the batch `n_epochs` times, each time in another order."""
        for order in self._orders(batch):
            for chosen in order.split(self.settings.batch_size):
                yield Minibatch(*(values.index_select(0, chosen) for values in batch))

    # ------------------------------------------------------------------------------------------------ keeping

    def relabel(self, reward: RewardFunction) -> None:
        """Nothing to do: no experience is kept."""

    @torch.no_grad()
    def act(self, observations: Batch, *, deterministic: bool = True) -> Array:
        """Return an action for each of B observations `(B, ...)`."""
        outputs = self._policy(observations)
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
        restore_generator(self._random, state["random"])
        self._num_env_steps = state["num_env_steps"]
        if self._scaler is not None:
            self._scaler.restore(state["scaler"])

    def close(self) -> None:
        """Close the environments."""
        self._stepper.envs.close()

"""What agents that learn from a replay buffer have in common: how they act, what they keep, when they learn.

- Environments are stepped all at once; the minibatches of several updates are drawn together.
- Rewards are those of the newest reward function: when it changes, everything kept is scored again (Lee et al. 2021,
  PEBBLE).
- Gradients are written out, and the parameters of each network are one vector. On the CPU updates are made in NumPy, on
  the same memory and critic by critic; on a GPU all critics are one batched network, and an update is recorded once.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from torch import Tensor

from prefrl.agents.action_scale import UNBOUNDED, ActionScale
from prefrl.agents.adam import FlatAdam
from prefrl.agents.critic_arrays import ArrayCritics
from prefrl.agents.inputs import PolicyInputs
from prefrl.agents.networks import flatten_parameters
from prefrl.agents.off_policy_settings import OffPolicySettings
from prefrl.agents.protocol import Improvement
from prefrl.agents.replay import Minibatch, Replay
from prefrl.agents.stepping import Step, Stepper
from prefrl.agents.tower_arrays import Floats
from prefrl.agents.towers import Towers
from prefrl.errors import UserError
from prefrl.gpu import Record, ReplayedStep, enough_gpu_memory, record_cuda_graph, restore_generator
from prefrl.rewards.function import RewardFunction, checked_rewards
from prefrl.segments import Rollout
from prefrl.spaces import Array, Batch, check_observation_space, join_axes, map_batch, take, zip_batches
from prefrl.threads import SideBySide

ITERATION = 1_000  # environment steps of one `improve`
EPSILON = 1e-8  # of Adam
DIVERGED = "Use a smaller learning rate, e.g. --hyper learning_rate=1e-4."
LESS_MEMORY = "Use a smaller --hyper batch_size."

Settings = TypeVar("Settings", bound=OffPolicySettings)


class OffPolicyAgent(ABC, Generic[Settings]):
    """An agent that learns from a replay buffer on a vector environment, behind the `Agent` protocol.

    Args:
        envs: E environments that restart in the step in which they end (`AutoresetMode.SAME_STEP`).
        total_env_steps: length of the whole training; no more than these are kept.
        hyperparameters: see the settings of the kind.
        seed: of the starting weights and everything drawn; the environments are seeded by `reset_environments`.
        device: where the networks live.
        pass_true_reward: train on the environments' own reward (a baseline).

    Raises:
        UserError: unknown hyper-parameters, or spaces that it cannot handle.
    """

    NAME: ClassVar[str]
    """As its paper has it."""
    SETTINGS: ClassVar[type[OffPolicySettings]]
    NOISES: ClassVar[int]
    """Actions with noise that are judged for each step of a minibatch."""
    OUTPUTS: ClassVar[int]
    """Of the actor, for each number of an action."""
    _arrays: Any
    """Updates in NumPy; None: they are made in PyTorch."""

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
        self.settings: Settings = self.SETTINGS.of(hyperparameters or {})  # type: ignore[assignment]
        settings = self.settings
        self.observation_space, self.action_space = envs.single_observation_space, envs.single_action_space
        check_observation_space(self.observation_space)
        self._scale = ActionScale(_bounded(self.action_space, self.NAME))
        self._num_actions = int(np.prod(self._scale.space.shape))
        self._stepper = Stepper(envs)
        self._device = torch.device(device)
        self._on_true_reward = pass_true_reward
        self._random = torch.Generator(self._device).manual_seed(seed)
        self._rows = torch.Generator().manual_seed(seed)
        self._inputs = PolicyInputs(self.observation_space, settings.normalize_observations, self._device)
        if self._inputs.images:
            other = f"--agent sb3-{self.NAME.lower()}"
            raise UserError(f"This {self.NAME} reads no images. Use {other}, or --agent ppo.")
        self._make_networks(torch.Generator().manual_seed(seed))
        self._replay: Replay | None = None
        self._replay_size = min(settings.buffer_size, total_env_steps)
        self._side_by_side = SideBySide()
        self._replayed: dict[str, ReplayedStep] = {}
        self._make_updates()
        if self._device.type == "cuda":
            self._replay_updates(record_cuda_graph)
        self.num_env_steps = 0
        self.num_updates = 0
        self._num_resets = 0
        self.steps_per_iteration = -(-ITERATION // self.num_envs) * self.num_envs

    def _make_networks(self, generator: torch.Generator) -> None:
        of_actor, of_critics, activation, num = self.settings.hidden()
        (num_inputs,) = self._inputs.shape
        seen = num_inputs + self._num_actions
        self._actor = Towers(1, [num_inputs, *of_actor, self.OUTPUTS * self._num_actions], activation, generator)
        self._critics = Towers(num, [seen, *of_critics, 1], activation, generator)
        self._targets = Towers(num, [seen, *of_critics, 1], activation, generator)
        self._actor_adam, self._critic_adam = (
            FlatAdam(*flatten_parameters(network.to(self._device).parameters()), None, EPSILON)
            for network in (self._actor, self._critics)
        )
        self._target, _ = flatten_parameters(self._targets.to(self._device).parameters())
        self._target.copy_(self._critic_adam.parameters)

    @abstractmethod
    def _make_updates(self) -> None:
        """Make what updates need besides, and `_arrays`, by which they are made on the CPU; None elsewhere."""

    def _array_critics(self, num_judges: int) -> ArrayCritics:
        """Return the critics in NumPy, of which so many judge the policy's actions."""
        return ArrayCritics(self._critics, self._targets, self._critic_adam, num_judges, self._side_by_side)

    @property
    def _adams(self) -> list[FlatAdam]:
        """In the order in which a checkpoint has them."""
        return [self._critic_adam, self._actor_adam]

    @abstractmethod
    def _steps(self) -> list[Callable[[Minibatch], None]]:
        """Return the steps in PyTorch that a minibatch is used for."""

    def _replay_updates(self, record: Record) -> None:
        """Record each step in PyTorch once and replay it from then on."""
        self._arrays = None
        kept = [tensor for adam in self._adams for tensor in (adam.parameters, adam.first, adam.second)]
        failure = "The update could not be recorded as a CUDA graph"
        self._replayed = {step.__name__: ReplayedStep(record, failure, kept) for step in self._steps()}

    def _perform(self, step: Callable[[Minibatch], None], batch: Minibatch) -> None:
        """Make a step in PyTorch, replayed where steps are."""
        replayed = self._replayed.get(step.__name__)
        if replayed is None:
            step(batch)
        else:
            replayed(step, batch)

    @property
    def num_envs(self) -> int:
        """How many copies of the environment run side by side, E."""
        return int(self._stepper.envs.num_envs)

    def reset_environments(self, seed: int) -> None:
        """Start new episodes everywhere, the environments seeded from `seed`."""
        self._stepper.reset(seed)

    def explore(self, num_env_steps: int, rng: np.random.Generator, *, uniform: bool = True) -> Rollout:
        """Act for at least `num_env_steps` steps without learning; they are kept, and count as environment steps.

        Args:
            num_env_steps: how many.
            rng: source of uniform actions.
            uniform: uniformly random actions instead of the policy's, with its noise.
        """
        steps = -(-num_env_steps // self.num_envs)
        self._stepper.begin(steps)
        shape = (self.num_envs, self._num_actions)
        with torch.inference_mode():
            for _ in range(steps):
                self._step_with(rng.uniform(-1, 1, shape).astype(np.float32) if uniform else self._own_actions())
        rollout = self._stepper.take()
        self._learn_inputs(rollout)
        return rollout

    def improve(self, reward: RewardFunction | None) -> Improvement:
        """Act for `steps_per_iteration` steps, and learn in between.

        Args:
            reward: scores the steps. None: the environments' own reward if the agent was made with `pass_true_reward`,
                else zeros.
        """
        settings, updating = self.settings, 0.0
        begin = time.perf_counter()
        steps = self.steps_per_iteration // self.num_envs
        self._stepper.begin(steps)
        batch: Minibatch | None = None
        with torch.inference_mode(), enough_gpu_memory(LESS_MEMORY):
            for step in range(1, steps + 1):
                self._step_with(self._own_actions())
                if step % settings.train_freq == 0 or (step == steps and steps < settings.train_freq):
                    began = time.perf_counter()
                    num = settings.gradient_steps
                    num = num if num >= 0 else settings.train_freq * self.num_envs
                    batch = self._update(num, None if self._on_true_reward else reward) or batch
                    updating += time.perf_counter() - began
            figures = {} if batch is None else self._figures(batch)
        for adam in (self._actor_adam, self._critic_adam):
            adam.check_finite(DIVERGED)
        rollout = self._stepper.take()
        self._learn_inputs(rollout)
        scoring = time.perf_counter()
        learned = self._scored(rollout, reward)
        scored = time.perf_counter()
        seconds = {"collect": scoring - begin - updating, "reward": scored - scoring, "update": updating}
        return Improvement(rollout=rollout, learned_rewards=learned, seconds=seconds, figures=figures)

    # ------------------------------------------------------------------------------------------------ acting

    def _own_actions(self) -> Array:
        """Return the policy's actions `(E, A)` in what is seen now, with its noise, in [-1, 1]."""
        noise = torch.randn(self.num_envs, self._num_actions, generator=self._random, device=self._device)
        return self._actions(self._inputs.encode_vectors(self._stepper.observations), noise)

    @abstractmethod
    def _actions(self, inputs: Floats, noise: Tensor) -> Array:
        """Return the policy's actions `(B, A)`, in [-1, 1].

        Args:
            inputs: `(B, n)`.
            noise: `(B, A)`, standard normal, or zeros for what it thinks best.
        """

    def _to_env(self, own: Array) -> Array:
        return self._scale.to_env(own.reshape(-1, *self._scale.space.shape))

    def _step_with(self, own: Array) -> None:
        """Make one step everywhere and keep it."""
        before, actions = self._stepper.observations, self._to_env(own)
        step = self._stepper.step(actions)
        if self._replay is None:
            self._replay = Replay(self._replay_size, before, actions, own)
        rewards = step.rewards if self._on_true_reward else np.zeros(self.num_envs)
        self._replay.add(before, actions, own, _next_observations(step), rewards, step.terminated)
        self.num_env_steps += self.num_envs

    def _scored(self, rollout: Rollout, reward: RewardFunction | None) -> Array:
        if self._on_true_reward:
            return rollout.true_rewards.astype(np.float32)
        if reward is None:
            return np.zeros(rollout.terminated.shape, np.float32)
        scores = checked_rewards(reward, *rollout.flat_transitions())
        return np.asarray(scores, np.float32).reshape(rollout.terminated.shape)

    def _learn_inputs(self, rollout: Rollout) -> None:
        self._inputs.learn(join_axes(take(rollout.observations, slice(1, None))))

    # ------------------------------------------------------------------------------------------------ learning

    def _update(self, num: int, reward: RewardFunction | None) -> Minibatch | None:
        """Make `num` updates; return the last one's minibatch."""
        assert self._replay is not None
        self._replay.score(reward)
        if num == 0:
            return None
        settings = self.settings
        rows = self._replay.draw(num, settings.batch_size, self._rows, settings.recent_share, settings.recent_steps)
        whole = self._minibatch(rows, num)
        for part in zip(*(values.unflatten(0, (num, -1)) for values in whole), strict=True):
            self._learn_from(batch := Minibatch(*part))
        return batch

    def _minibatch(self, rows: Array, num: int) -> Minibatch:
        replay = self._replay
        assert replay is not None
        size = self.NOISES * len(rows)
        return Minibatch(
            inputs=self._inputs.encode(take(replay.observations, rows)),
            next_inputs=self._inputs.encode(take(replay.next_observations, rows)),
            actions=torch.from_numpy(replay.own_actions[rows]).to(self._device),
            rewards=torch.from_numpy(replay.rewards[rows]).to(self._device),
            going_on=torch.from_numpy(~replay.terminated[rows]).to(self._device, torch.float32),
            noise=torch.randn(size, self._num_actions, generator=self._random, device=self._device),
        )

    @abstractmethod
    def _learn_from(self, batch: Minibatch) -> None:
        """Make one update of everything."""

    @abstractmethod
    def _figures(self, batch: Minibatch) -> dict[str, float]:
        """Judge the networks as they are now by a minibatch; nothing is drawn or changed."""

    def relabel(self, reward: RewardFunction) -> None:
        """Score everything that is kept again; the critics begin anew where the settings say so."""
        if self._replay is not None and not self._on_true_reward:
            self._replay.score(reward, everything=True)
        wanted = self.settings.reset_critics
        if self.num_updates and (wanted == "always" or (wanted == "first" and self._num_resets == 0)):
            self._reset_critics()
        self._num_resets += 1

    def _reset_critics(self) -> None:
        _, of_critics, activation, num = self.settings.hidden()
        seen = self._inputs.shape[0] + self._num_actions
        fresh = Towers(num, [seen, *of_critics, 1], activation, self._rows)
        with torch.no_grad():
            for old, new in zip(self._critics.parameters(), fresh.parameters(), strict=True):
                old.copy_(new)
            self._target.copy_(self._critic_adam.parameters)
            self._critic_adam.first.zero_()
            self._critic_adam.second.zero_()
        self._critic_adam.num_steps = 0

    # ------------------------------------------------------------------------------------------------ keeping

    @torch.inference_mode()
    def act(self, observations: Batch, *, deterministic: bool = True) -> Array:
        """Return an action for each of B observations `(B, ...)`."""
        inputs = self._inputs.encode_vectors(observations)
        noise = torch.zeros(len(inputs), self._num_actions, device=self._device)
        if not deterministic:
            noise.normal_(generator=self._random)
        return self._to_env(self._actions(inputs, noise))

    def policy_state(self) -> dict[str, Any]:
        """Return weights of the actor and the statistics of its observations."""
        return {"actor": weights_of(self._actor), "inputs": self._inputs.state()}

    def load_policy_state(self, state: dict[str, Any]) -> None:
        """Act from now on as `policy_state` described."""
        self._actor.load_state_dict(state["actor"])
        self._inputs.restore(state["inputs"])

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return everything that learning needs, the replay buffer as arrays."""
        counters, arrays = (None, {}) if self._replay is None else self._replay.state()
        state = {
            "policy": self.policy_state(),
            "critics": weights_of(self._critics),
            "targets": weights_of(self._targets),
            "adams": [adam.state() for adam in self._adams],
            "random": self._random.get_state(),
            "rows": self._rows.get_state(),
            "num_env_steps": self.num_env_steps,
            "num_updates": self.num_updates,
            "num_resets": self._num_resets,
            "replay": counters,
        }
        return state, arrays

    def restore(self, state: dict[str, Any], arrays: dict[str, Array]) -> None:
        """Go on from what `state` gave."""
        self.load_policy_state(state["policy"])
        self._critics.load_state_dict(state["critics"])
        self._targets.load_state_dict(state["targets"])
        for adam, kept in zip(self._adams, state["adams"], strict=True):
            adam.restore(kept)
        restore_generator(self._random, state["random"])
        restore_generator(self._rows, state["rows"])
        self.num_env_steps, self.num_updates = state["num_env_steps"], state["num_updates"]
        self._num_resets = state["num_resets"]
        if state["replay"] is not None:
            own = np.zeros((self.num_envs, self._num_actions), np.float32)
            seen = map_batch(lambda x: np.zeros((self.num_envs, *x.shape), x.dtype), _sample(self.observation_space))
            self._replay = Replay(self._replay_size, seen, self._to_env(own), own)
            self._replay.restore(state["replay"], arrays)

    def close(self) -> None:
        """Close the environments."""
        self._side_by_side.close()
        self._stepper.envs.close()


def _bounded(space: spaces.Space[Any], name: str) -> spaces.Box:
    """Return the space of actions.

    Raises:
        UserError: they are not numbers between bounds that say what actions are like.
    """
    if isinstance(space, spaces.Box) and space.is_bounded():
        ranges = space.high.astype(np.float64) - space.low.astype(np.float64)  # integers and bools have none
        if (ranges < UNBOUNDED).all():
            return space
    other = "--agent ppo, or --agent dqn" if isinstance(space, spaces.Discrete) else "--agent ppo"
    raise UserError(f"{name}'s actions are numbers between bounds; these are {space}. Use {other}.")


def _next_observations(step: Step) -> Batch:
    """Return what each step led to `(E, ...)`: where an episode ended, its last observation."""
    if step.ends is None:
        return step.observations
    ended = step.terminated | step.truncated

    def put(pair: list[Array]) -> Array:
        whole = pair[0].copy()
        whole[ended] = pair[1]
        return whole

    return zip_batches(put, [step.observations, step.ends])


def weights_of(network: torch.nn.Module) -> dict[str, Tensor]:
    """Return copies of a network's weights on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def _sample(space: spaces.Space[Any]) -> Batch:
    """Return arrays like one observation's."""
    if isinstance(space, spaces.Dict):
        return {key: np.asarray(part.sample()) for key, part in space.spaces.items()}
    return np.asarray(space.sample())

"""Off-policy algorithms of stable-baselines3 (SAC, TD3, DQN): their replay buffer is scored in batches."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv

from prefrl.agents.protocol import Improvement
from prefrl.agents.sb3 import LESS_MEMORY, Sb3Agent
from prefrl.agents.sb3_buffers import LearnedDictReplayBuffer, LearnedReplayBuffer
from prefrl.errors import UserError, require
from prefrl.gpu import enough_gpu_memory
from prefrl.rewards.function import RewardFunction
from prefrl.segments import Rollout
from prefrl.spaces import Array

noise = require("stable_baselines3.common.noise", "train")
type_aliases = require("stable_baselines3.common.type_aliases", "train")

ITERATION = 1_000  # environment steps of one `improve`
STORED = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


class OffPolicyAgent(Sb3Agent):
    """An off-policy algorithm of stable-baselines3; see `Sb3Agent`.

    A further hyper-parameter: `action_noise_std` is the standard deviation of normal exploration noise on actions
    scaled to [-1, 1] (TD3, SAC).
    """

    OWN_OPTIONS = (*Sb3Agent.OWN_OPTIONS, "action_noise_std")
    WITHOUT = ("n_steps",)  # the replay buffer's rewards are of single steps
    REWARDS_PASS_ENVS = True

    def __init__(self, algorithm: type[Any], envs: VectorEnv, **options: Any) -> None:
        super().__init__(algorithm, envs, **options)
        buffer = self._model.replay_buffer
        buffer.env_observations, buffer.env_actions = self._envs.seen.back, self._env_actions

    def _env_actions(self, stored: Array) -> Array:
        """Return actions `(B, ...)` as the environment was given them; the buffer holds continuous ones in [-1, 1]."""
        unscaled = self._model.policy.unscale_action(stored) if isinstance(self.action_space, spaces.Box) else stored
        return self._envs.taken.to_env(unscaled)

    def _arguments(self, algorithm: type[Any], hyper: dict[str, Any]) -> dict[str, Any]:
        noise_std = hyper.pop("action_noise_std", None)
        if noise_std is not None:
            shape = self.action_space.shape or (1,)
            hyper["action_noise"] = noise.NormalActionNoise(np.zeros(shape), np.full(shape, float(noise_std)))
        size = hyper.get("buffer_size", 1_000_000)
        if not isinstance(size, int) or size < 1:
            raise UserError(f"buffer_size must be a whole number of at least 1. Received {size!r}")
        return {
            **hyper,
            "replay_buffer_class": LearnedDictReplayBuffer if self._is_dict else LearnedReplayBuffer,
            "buffer_size": min(size, self._total_env_steps),
            "learning_starts": 0,  # the loop has explored before
        }

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps of one call of `improve`."""
        return ITERATION

    def explore(self, num_env_steps: int, rng: np.random.Generator, *, uniform: bool = True) -> Rollout:
        """Act without learning; see `Sb3Agent.explore`."""
        num_steps = -(-num_env_steps // self.num_envs)
        self._model.action_space.seed(int(rng.integers(2**31)))
        self._stepper.begin(num_steps)
        frequency = type_aliases.TrainFreq(num_steps, type_aliases.TrainFrequencyUnit.STEP)
        self._collect(frequency, learning_starts=2**62 if uniform else 0)
        return self._stepper.take()

    def improve(self, reward: RewardFunction | None) -> Improvement:
        """Act and learn; see `Sb3Agent.improve`."""
        self._begin_iteration(reward)
        model = self._model
        if not self._on_true_reward:
            model.replay_buffer.reward_function = reward
        target = self.num_env_steps + self.steps_per_iteration
        begin, update_seconds = time.perf_counter(), 0.0
        with enough_gpu_memory(LESS_MEMORY):
            self._stepper.begin(-(-self.steps_per_iteration // self.num_envs))
            while self.num_env_steps < target:
                before = self.num_env_steps
                self._collect(model.train_freq, learning_starts=0)
                collected = time.perf_counter()
                steps = model.gradient_steps if model.gradient_steps >= 0 else self.num_env_steps - before
                if steps > 0:
                    model.train(batch_size=model.batch_size, gradient_steps=steps)
                update_seconds += time.perf_counter() - collected
            scoring = time.perf_counter()
            rollout = self._stepper.take()
            learned = self._score(rollout)
            scored = time.perf_counter()
        seconds = {
            "collect": scoring - begin - update_seconds,
            "reward": scored - scoring,
            "update": update_seconds,
        }
        return Improvement(
            rollout=rollout,
            learned_rewards=np.asarray(learned, np.float32),
            seconds=seconds,
            figures=self._logger.take(),
        )

    def _collect(self, train_freq: Any, learning_starts: int) -> None:
        model = self._model
        model.collect_rollouts(
            self._env,
            train_freq=train_freq,
            action_noise=model.action_noise,
            callback=self._callback,
            learning_starts=learning_starts,
            replay_buffer=model.replay_buffer,
            log_interval=None,
        )

    def relabel(self, reward: RewardFunction) -> None:
        """Score the whole replay buffer again."""
        self._model.replay_buffer.relabel(reward)

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return everything that learning needs, the replay buffer as arrays; see `Sb3Agent.state`."""
        state, _ = super().state()
        buffer = self._model.replay_buffer
        rows = buffer.buffer_size if buffer.full else buffer.pos
        state["replay"] = {"pos": buffer.pos, "full": buffer.full, "num_unscored": buffer.num_unscored}
        arrays: dict[str, Array] = {}
        for name in STORED:
            stored = getattr(buffer, name)
            for key, values in stored.items() if isinstance(stored, dict) else [("", stored)]:
                arrays[f"replay/{name}/{key}"] = values[:rows]
        return state, arrays

    def restore(self, state: dict[str, Any], arrays: dict[str, Array]) -> None:
        """Go on from what `state` gave."""
        super().restore(state, arrays)
        buffer, num_rows = self._model.replay_buffer, 0
        for name in ("pos", "full", "num_unscored"):
            setattr(buffer, name, state["replay"][name])
        for name, values in arrays.items():
            _, field, key = name.split("/", 2)
            stored = getattr(buffer, field)
            (stored[key] if key else stored)[: len(values)] = values
            num_rows = len(values)
        if buffer.full and num_rows < buffer.buffer_size:  # the run was extended since then, and the buffer with it
            buffer.pos, buffer.full = num_rows, False

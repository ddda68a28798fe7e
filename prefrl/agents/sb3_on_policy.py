"""On-policy algorithms of stable-baselines3 (PPO, A2C): a rollout is scored at once, before advantages are computed."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from prefrl.agents.protocol import Improvement
from prefrl.agents.sb3 import LESS_MEMORY, Sb3Agent
from prefrl.agents.sb3_buffers import LearnedDictRolloutBuffer, LearnedRolloutBuffer
from prefrl.agents.scaling import ReturnScaler
from prefrl.gpu import enough_gpu_memory
from prefrl.rewards.function import RewardFunction
from prefrl.segments import Rollout
from prefrl.spaces import Array


class OnPolicyAgent(Sb3Agent):
    """An on-policy algorithm of stable-baselines3; see `Sb3Agent`.

    Further hyper-parameters: `normalize_returns` centres rewards and divides them by the running standard deviation of
    the discounted return; `scale_actions` lets the policy act in units of half the range of bounded actions.
    """

    OWN_OPTIONS = (*Sb3Agent.OWN_OPTIONS, "normalize_returns", "scale_actions")

    def __init__(self, algorithm: type[Any], envs: VectorEnv, **options: Any) -> None:
        self._normalize_returns = False
        super().__init__(algorithm, envs, **options)
        self._scaler = ReturnScaler(self.num_envs, self._model.gamma) if self._normalize_returns else None
        self._model.rollout_buffer.rewards_of_rollout = self._take_and_score
        self._scored: tuple[Rollout, NDArray[np.floating]] | None = None
        self._reward_seconds = 0.0

    def _scales_actions(self, hyper: dict[str, Any]) -> bool:
        return bool(hyper.pop("scale_actions", False))

    def _arguments(self, algorithm: type[Any], hyper: dict[str, Any]) -> dict[str, Any]:
        self._normalize_returns = hyper.pop("normalize_returns", False)
        return {**hyper, "rollout_buffer_class": LearnedDictRolloutBuffer if self._is_dict else LearnedRolloutBuffer}

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps of one call of `improve`."""
        return self.num_envs * int(self._model.n_steps)

    def reset_environments(self, seed: int) -> None:
        """Start new episodes everywhere, the environments seeded from `seed`."""
        if self._scaler is not None:
            self._scaler.restart()
        super().reset_environments(seed)

    def explore(self, num_env_steps: int, rng: np.random.Generator, *, uniform: bool = True) -> Rollout:
        """Act without learning; see `Sb3Agent.explore`."""
        num_steps = -(-num_env_steps // self.num_envs)
        model, space = self._model, self._env.action_space
        space.seed(int(rng.integers(2**31)))
        self._stepper.begin(num_steps)
        for _ in range(num_steps):  # private: the last observations, with which `collect_rollouts` begins
            if uniform:
                actions = np.stack([space.sample() for _ in range(self.num_envs)])
            else:
                actions, _ = model.predict(model._last_obs, deterministic=False)
            model._last_obs, _, model._last_episode_starts, _ = self._env.step(actions)
            model.num_timesteps += self.num_envs
        return self._stepper.take()

    def improve(self, reward: RewardFunction | None) -> Improvement:
        """Act and learn; see `Sb3Agent.improve`."""
        self._begin_iteration(reward)
        model = self._model
        begin = time.perf_counter()
        with enough_gpu_memory(LESS_MEMORY):
            self._stepper.begin(model.n_steps)
            model.collect_rollouts(self._env, self._callback, model.rollout_buffer, n_rollout_steps=model.n_steps)
            model._update_current_progress_remaining(self.num_env_steps, self._total_env_steps)  # private
            collected = time.perf_counter()
            model.train()
            updated = time.perf_counter()
        assert self._scored is not None
        rollout, learned = self._scored
        seconds = {
            "collect": collected - begin - self._reward_seconds,
            "reward": self._reward_seconds,
            "update": updated - collected,
        }
        return Improvement(
            rollout=rollout,
            learned_rewards=np.asarray(learned, np.float32),
            seconds=seconds,
            figures=self._logger.take(),
        )

    def _take_and_score(self) -> NDArray[np.floating]:
        """Score the rollout that was collected; return the rewards that the algorithm learns from, `(T, E)`."""
        begin = time.perf_counter()
        rollout = self._stepper.take()
        learned = self._score(rollout)
        self._scored = rollout, learned
        used = learned
        if self._scaler is not None:
            used = self._scaler.scale(learned, rollout.terminated, rollout.truncated)
        self._reward_seconds = time.perf_counter() - begin
        return used

    def relabel(self, reward: RewardFunction) -> None:
        """Nothing to do: no experience is kept."""

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return everything that learning needs; see `Sb3Agent.state`."""
        state, arrays = super().state()
        return {**state, "scaler": None if self._scaler is None else self._scaler.state()}, arrays

    def restore(self, state: dict[str, Any], arrays: dict[str, Array]) -> None:
        """Go on from what `state` gave."""
        super().restore(state, arrays)
        if self._scaler is not None:
            self._scaler.restore(state["scaler"])

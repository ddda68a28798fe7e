"""stable-baselines3 algorithms behind the `Agent` protocol.

On-policy algorithms (PPO, A2C) are given the rewards of a whole rollout at once, before advantages are computed;
off-policy ones (SAC, TD3, DQN) have their replay buffer scored in batches. The environments' own rewards stop at the
`Recorder`. Checkpoints hold state dictionaries and arrays, nothing pickled.
"""

from __future__ import annotations

import copy
import inspect
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from prefrl.agents.action_scale import ActionScale
from prefrl.agents.buffers import (
    LearnedDictReplayBuffer,
    LearnedDictRolloutBuffer,
    LearnedReplayBuffer,
    LearnedRolloutBuffer,
)
from prefrl.agents.protocol import Improvement
from prefrl.agents.recorder import Recorder
from prefrl.agents.scaling import ReturnScaler
from prefrl.agents.schedules import schedule
from prefrl.errors import UserError, near_names, require
from prefrl.gpu import enough_gpu_memory
from prefrl.rewards.function import RewardFunction, checked_rewards
from prefrl.segments import Rollout
from prefrl.spaces import Array, Batch, check_action_space, check_observation_space, is_image

stable_baselines3 = require("stable_baselines3", "train")
vec_env = require("stable_baselines3.common.vec_env", "train")
noise = require("stable_baselines3.common.noise", "train")
type_aliases = require("stable_baselines3.common.type_aliases", "train")

ALGORITHMS = {"ppo": "PPO", "a2c": "A2C", "sac": "SAC", "td3": "TD3", "dqn": "DQN"}
ON_POLICY = ("ppo", "a2c")
OFF_POLICY_ITERATION = 1_000  # environment steps of one `improve` of an off-policy agent
RESERVED = {  # set here, or of no effect here
    *("self", "policy", "env", "device", "seed", "_init_setup_model", "rollout_buffer_class", "replay_buffer_class"),
    *("learning_starts", "optimize_memory_usage", "stats_window_size", "tensorboard_log"),
}
LESS_MEMORY = "Use fewer --num-envs, or a smaller --hyper n_steps, batch_size or buffer_size."
COUNTERS = ("num_timesteps", "_n_updates", "_episode_num", "_n_calls", "exploration_rate")


class Sb3Agent:
    """One stable-baselines3 algorithm on E copies of an environment.

    Args:
        algorithm: "ppo", "a2c", "sac", "td3" or "dqn".
        make_env: makes one environment.
        num_envs: E.
        total_env_steps: length of the whole training, for schedules.
        hyperparameters: keyword arguments of the algorithm; `"linear:X"` as `learning_rate` or `clip_range` falls from
            X to 0. `normalize_observations` (default True for float observations) keeps running statistics of them,
            `normalize_until` freezes these after that share of the training; `action_noise_std` is the standard
            deviation of normal exploration noise on actions scaled to [-1, 1] (TD3, SAC); `normalize_returns` (PPO,
            A2C) centres rewards and divides them by the running standard deviation of the discounted return;
            `scale_actions` (PPO, A2C) lets the policy act in units of half the range of bounded actions.
        seed: seed of the starting weights; the environments are seeded by `reset_environments`.
        device: where the networks live.
        pass_true_reward: train on the environment's own reward (a baseline).

    Raises:
        UserError: unknown algorithm or hyper-parameter, or an algorithm that cannot act in this action space.
    """

    def __init__(
        self,
        algorithm: str,
        make_env: Callable[[], gymnasium.Env[Any, Any]],
        *,
        num_envs: int,
        total_env_steps: int,
        hyperparameters: dict[str, Any] | None = None,
        seed: int = 0,
        device: str = "cpu",
        pass_true_reward: bool = False,
    ) -> None:
        if algorithm not in ALGORITHMS:
            near = near_names(algorithm, ALGORITHMS)
            raise UserError(f"Unknown agent {algorithm!r}; expected one of {', '.join(ALGORITHMS)}.{near}")
        self.algorithm = algorithm
        self.on_policy = algorithm in ON_POLICY
        hyper = copy.deepcopy(hyperparameters or {})  # stable-baselines3 writes into what it is given
        base = vec_env.DummyVecEnv([make_env] * num_envs)
        self.observation_space, self.action_space = base.observation_space, base.action_space
        check_observation_space(self.observation_space)
        check_action_space(self.action_space)
        self._on_true_reward = pass_true_reward
        scale = hyper.pop("scale_actions", False) if self.on_policy else False
        box = self.action_space
        self._scale = ActionScale(box) if scale and isinstance(box, spaces.Box) else None
        self._recorder = Recorder(base, pass_true_reward=pass_true_reward and not self.on_policy, scale=self._scale)
        can_normalize = _is_float(self.observation_space)
        normalize = hyper.pop("normalize_observations", can_normalize)
        if normalize and not can_normalize:
            raise UserError(
                f"normalize_observations needs observations that are all boxes of floats; these are "
                f"{self.observation_space}. Leave it out."
            )
        normalize_returns = hyper.pop("normalize_returns", False) if self.on_policy else False
        self._normalize_until = hyper.pop("normalize_until", 1.0)
        self._env: Any = self._recorder
        if normalize:
            self._env = vec_env.VecNormalize(self._recorder, norm_obs=True, norm_reward=False)
        self._total_env_steps = total_env_steps
        self._model = self._build(hyper, seed, device)
        self._scaler = ReturnScaler(num_envs, self._model.gamma) if normalize_returns else None
        self._env = self._model.env  # wrapped once more if the channels of images come last
        self._callback = self._model._init_callback(None)
        self._model.num_timesteps = 0
        self._learned: NDArray[np.floating] | None = None
        self._rollout: Rollout | None = None
        self._reward: RewardFunction | None = None
        self._reward_seconds = 0.0
        self.steps_per_iteration = num_envs * self._model.n_steps if self.on_policy else OFF_POLICY_ITERATION

    @property
    def num_env_steps(self) -> int:
        """Steps made so far in all environments together."""
        return int(self._model.num_timesteps)

    @property
    def num_envs(self) -> int:
        """E."""
        return int(self._env.num_envs)

    def _build(self, hyper: dict[str, Any], seed: int, device: str) -> Any:
        algorithm = getattr(stable_baselines3, ALGORITHMS[self.algorithm])
        known = set(inspect.signature(algorithm.__init__).parameters) - RESERVED
        if not self.on_policy:
            known -= {"n_steps"}  # the replay buffer's rewards are of single steps
        known |= {"normalize_observations", "normalize_until"}
        known |= {"normalize_returns", "scale_actions"} if self.on_policy else set()
        if "action_noise" in known:
            known |= {"action_noise_std"}
        for name in hyper:
            if name not in known:
                raise UserError(
                    f"{ALGORITHMS[self.algorithm]} has no hyper-parameter {name!r} here.{near_names(name, known)} "
                    f"It knows: {', '.join(sorted(known))}."
                )
        noise_std = hyper.pop("action_noise_std", None)
        for name, value in hyper.items():
            if isinstance(value, str) and value.startswith("linear:"):
                hyper[name] = schedule(name, value)
        if noise_std is not None:
            size = self.action_space.shape or (1,)
            hyper["action_noise"] = noise.NormalActionNoise(np.zeros(size), np.full(size, float(noise_std)))
        is_dict = isinstance(self.observation_space, spaces.Dict)
        if self.on_policy:
            hyper["rollout_buffer_class"] = LearnedDictRolloutBuffer if is_dict else LearnedRolloutBuffer
        else:
            hyper["replay_buffer_class"] = LearnedDictReplayBuffer if is_dict else LearnedReplayBuffer
            size = hyper.get("buffer_size", 1_000_000)
            if not isinstance(size, int) or size < 1:
                raise UserError(f"buffer_size must be a whole number of at least 1. Received {size!r}")
            hyper["buffer_size"] = min(size, self._total_env_steps)
            hyper["learning_starts"] = 0  # the loop has explored before
        policy = "MultiInputPolicy" if is_dict else "CnnPolicy" if is_image(self.observation_space) else "MlpPolicy"
        try:
            model = algorithm(policy, self._env, seed=seed, device=device, **hyper)
        except (AssertionError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{ALGORITHMS[self.algorithm]} cannot be set up with these hyper-parameters for observations "
                f"{self.observation_space} and actions {self.action_space}: {error}"
            ) from error
        if self.on_policy:
            model.rollout_buffer.rewards_of_rollout = self._score_rollout
        else:
            model.replay_buffer.env_observation_space = self.observation_space
            if isinstance(self.action_space, spaces.Box):
                model.replay_buffer.unscale_action = model.policy.unscale_action
        return model

    def reset_environments(self, seed: int) -> None:
        """Start new episodes everywhere, the environments seeded from `seed`."""
        model = self._model
        if self._scaler is not None:
            self._scaler.restart()
        self._env.seed(seed)
        self._env.action_space.seed(seed)
        model._last_obs = None
        normalizer = model._vec_normalize_env
        training = normalizer is not None and normalizer.training
        if normalizer is not None:
            normalizer.training = False  # a run that resumes resets once more; its statistics must not move by that
        model._setup_learn(self._total_env_steps, self._callback, reset_num_timesteps=False)
        if normalizer is not None:
            normalizer.training = training
        model._total_timesteps = self._total_env_steps

    def explore(self, num_env_steps: int, rng: np.random.Generator, *, uniform: bool = True) -> Rollout:
        """Act for at least `num_env_steps` steps, which count as environment steps.

        Args:
            num_env_steps: how many.
            rng: seeds uniform actions.
            uniform: uniformly random actions instead of the policy's, with its noise.
        """
        num_steps = -(-num_env_steps // self.num_envs)
        model = self._model
        if self.on_policy:
            self._env.action_space.seed(int(rng.integers(2**31)))
            for _ in range(num_steps):
                if uniform:
                    actions = np.stack([self._env.action_space.sample() for _ in range(self.num_envs)])
                else:
                    actions, _ = model.predict(model._last_obs, deterministic=False)
                model._last_obs, _, model._last_episode_starts, _ = self._env.step(actions)
                model.num_timesteps += self.num_envs
        else:
            model.action_space.seed(int(rng.integers(2**31)))
            frequency = type_aliases.TrainFreq(num_steps, type_aliases.TrainFrequencyUnit.STEP)
            self._collect_off_policy(frequency, learning_starts=2**62 if uniform else 0)
        return self._recorder.take()

    def improve(self, reward: RewardFunction | None) -> Improvement:
        """Act for `steps_per_iteration` steps and learn from them.

        Args:
            reward: scores the steps. None: the environment's own reward if the agent was made with `pass_true_reward`,
                else zeros.
        """
        self._reward, self._reward_seconds = reward, 0.0
        model = self._model
        if isinstance(self._env, vec_env.VecNormalize):
            self._env.training = self.num_env_steps < self._normalize_until * self._total_env_steps
        begin = time.perf_counter()
        with enough_gpu_memory(LESS_MEMORY):
            if self.on_policy:
                model.collect_rollouts(self._env, self._callback, model.rollout_buffer, n_rollout_steps=model.n_steps)
                model._update_current_progress_remaining(self.num_env_steps, self._total_env_steps)
                collected = time.perf_counter()
                model.train()
                update_seconds = time.perf_counter() - collected
            else:
                update_seconds = self._improve_off_policy()
        spent = time.perf_counter() - begin
        rollout, learned = self._rollout, self._learned
        assert rollout is not None and learned is not None
        seconds = {
            "collect": spent - update_seconds - self._reward_seconds,
            "reward": self._reward_seconds,
            "update": update_seconds,
        }
        return Improvement(rollout=rollout, learned_rewards=np.asarray(learned, np.float32), seconds=seconds)

    def _score_rollout(self) -> NDArray[np.floating]:
        """Take the rollout from the recorder, score it and return the rewards that the agent learns from, `(T, E)`."""
        begin = time.perf_counter()
        self._rollout = rollout = self._recorder.take()
        shape = rollout.terminated.shape
        if self._on_true_reward:
            self._learned = rollout.true_rewards
        elif self._reward is None:
            self._learned = np.zeros(shape, np.float32)
        else:
            self._learned = checked_rewards(self._reward, *rollout.flat_transitions()).reshape(shape)
        used = self._scaled(rollout)
        self._reward_seconds += time.perf_counter() - begin
        return used

    def _scaled(self, rollout: Rollout) -> NDArray[np.floating]:
        assert self._learned is not None
        if self._scaler is None:
            return self._learned
        return self._scaler.scale(self._learned, rollout.terminated, rollout.truncated)

    def _improve_off_policy(self) -> float:
        model = self._model
        if not self._recorder.pass_true_reward:
            model.replay_buffer.reward_function = self._reward
        target = self.num_env_steps + self.steps_per_iteration
        update_seconds = 0.0
        model._convert_train_freq()
        while self.num_env_steps < target:
            before = self.num_env_steps
            self._collect_off_policy(model.train_freq, learning_starts=0)
            begin = time.perf_counter()
            steps = model.gradient_steps if model.gradient_steps >= 0 else self.num_env_steps - before
            if steps > 0:
                model.train(batch_size=model.batch_size, gradient_steps=steps)
            update_seconds += time.perf_counter() - begin
        self._score_rollout()
        return update_seconds

    def _collect_off_policy(self, train_freq: Any, learning_starts: int) -> None:
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
        """Score the whole replay buffer again (off-policy); on-policy agents keep no experience."""
        if not self.on_policy:
            self._model.replay_buffer.relabel(reward)

    def act(self, observations: Batch, *, deterministic: bool = True) -> Array:
        """Return an action for each of B observations `(B, ...)`."""
        if isinstance(self._env, vec_env.VecNormalize):
            observations = self._env.normalize_obs(observations)
        actions, _ = self._model.predict(observations, deterministic=deterministic)
        return np.asarray(actions) if self._scale is None else self._scale.to_env(np.asarray(actions))

    def policy_state(self) -> dict[str, Any]:
        """Return weights of the policy and the statistics of its observations."""
        weights = {name: tensor.detach().cpu().clone() for name, tensor in self._model.policy.state_dict().items()}
        return {"policy": weights, "observations": self._statistics()}

    def load_policy_state(self, state: dict[str, Any]) -> None:
        """Act from now on as `policy_state` described."""
        self._model.policy.load_state_dict(state["policy"])
        self._load_statistics(state["observations"])

    def _statistics(self) -> dict[str, Any]:
        if not isinstance(self._env, vec_env.VecNormalize):
            return {}
        rms = self._env.obs_rms
        by_key = rms if isinstance(rms, dict) else {"": rms}
        return {
            key: {"mean": torch.tensor(r.mean), "var": torch.tensor(r.var), "count": float(r.count)}
            for key, r in by_key.items()
        }

    def _load_statistics(self, statistics: dict[str, Any]) -> None:
        for key, values in statistics.items():
            rms = self._env.obs_rms[key] if key else self._env.obs_rms
            rms.mean, rms.var, rms.count = values["mean"].numpy().copy(), values["var"].numpy().copy(), values["count"]

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return everything that learning needs but the global random streams, which stable-baselines3 draws from.

        Tensors and arrays are those in use: write or copy them before learning goes on.
        """
        model = self._model
        _, variables = model._get_torch_save_params()
        state = {
            "parameters": model.get_parameters(),
            "variables": {name: getattr(model, name).detach().clone() for name in variables},
            "counters": {name: getattr(model, name) for name in COUNTERS if hasattr(model, name)},
            "observations": self._statistics(),
            "scaler": None if self._scaler is None else self._scaler.state(),
        }
        arrays: dict[str, Array] = {}
        if not self.on_policy:
            buffer = model.replay_buffer
            rows = buffer.buffer_size if buffer.full else buffer.pos
            state["replay"] = {"pos": buffer.pos, "full": buffer.full, "num_unscored": buffer.num_unscored}
            for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts"):
                stored = getattr(buffer, name)
                for key, values in stored.items() if isinstance(stored, dict) else [("", stored)]:
                    arrays[f"replay/{name}/{key}"] = values[:rows]
        return state, arrays

    def restore(self, state: dict[str, Any], arrays: dict[str, Array]) -> None:
        """Go on from what `state` gave."""
        model = self._model
        model.set_parameters(state["parameters"], exact_match=True, device=model.device)
        for name, value in state["variables"].items():
            getattr(model, name).data.copy_(value)
        for name, value in state["counters"].items():
            setattr(model, name, value)
        self._load_statistics(state["observations"])
        if self._scaler is not None:
            self._scaler.restore(state["scaler"])
        if not self.on_policy:
            buffer = model.replay_buffer
            buffer.pos, buffer.full = state["replay"]["pos"], state["replay"]["full"]
            buffer.num_unscored = state["replay"]["num_unscored"]
            for name, values in arrays.items():
                _, field, key = name.split("/", 2)
                stored = getattr(buffer, field)
                (stored[key] if key else stored)[: len(values)] = values

    def close(self) -> None:
        """Close the environments."""
        self._env.close()


def _is_float(space: gymnasium.Space[Any]) -> bool:
    leaves = space.spaces.values() if isinstance(space, spaces.Dict) else [space]
    return all(isinstance(leaf, spaces.Box) and np.dtype(leaf.dtype).kind == "f" for leaf in leaves)

"""What stable-baselines3's algorithms share behind the `Agent` protocol.

`prefrl.agents.sb3_on_policy` and `prefrl.agents.sb3_off_policy` say how each kind collects and learns. Checkpoints hold
state dictionaries and arrays, nothing pickled.

Of stable-baselines3's interface this takes `collect_rollouts` and `train`, the two halves of `learn`, because the loop
decides when an iteration ends. What `learn` keeps for them in private attributes is touched in a few marked places:
the last observations, how far the training is, and the counters that a checkpoint must hold.
"""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from prefrl.agents.protocol import Improvement
from prefrl.agents.sb3_envs import Normalized, Sb3Envs
from prefrl.agents.sb3_logger import UpdateLogger
from prefrl.agents.sb3_networks import extractor_for
from prefrl.agents.schedules import schedule
from prefrl.errors import UserError, near_names, require
from prefrl.rewards.function import RewardFunction, checked_rewards
from prefrl.segments import Rollout
from prefrl.spaces import Array, Batch, check_action_space, check_observation_space, is_image

vec_env = require("stable_baselines3.common.vec_env", "train")
callbacks = require("stable_baselines3.common.callbacks", "train")

RESERVED = {  # set here, or of no effect here
    *("self", "policy", "env", "device", "seed", "_init_setup_model", "rollout_buffer_class", "replay_buffer_class"),
    *("learning_starts", "optimize_memory_usage", "stats_window_size", "tensorboard_log"),
}
LESS_MEMORY = "Use fewer --num-envs, or a smaller --hyper n_steps, batch_size or buffer_size."
COUNTERS = ("num_timesteps", "_n_updates", "_episode_num", "_n_calls", "exploration_rate")


class Sb3Agent(ABC):
    """One algorithm of stable-baselines3 on a vector environment.

    Args:
        algorithm: the class of the algorithm, e.g. `stable_baselines3.PPO`.
        envs: E environments that restart in the step in which they end (`AutoresetMode.SAME_STEP`).
        total_env_steps: length of the whole training, for schedules.
        hyperparameters: keyword arguments of the algorithm; `"linear:X"` as `learning_rate` or `clip_range` falls from
            X to 0. `normalize_observations` (default True for float observations) keeps running statistics of them,
            `normalize_until` freezes these after that share of the training.
        seed: seed of the starting weights; the environments are seeded by `reset_environments`.
        device: where the networks live.
        pass_true_reward: train on the environments' own reward (a baseline).

    Raises:
        UserError: unknown hyper-parameters, or an algorithm that cannot act in this action space.
    """

    OWN_OPTIONS: tuple[str, ...] = ("normalize_observations", "normalize_until")
    """Hyper-parameters beside those of the algorithm."""
    WITHOUT: tuple[str, ...] = ()
    """Hyper-parameters of the algorithm that mean nothing here."""
    REWARDS_PASS_ENVS = False
    """A baseline's true rewards reach the algorithm through its environments."""

    def __init__(
        self,
        algorithm: type[Any],
        envs: VectorEnv,
        *,
        total_env_steps: int,
        hyperparameters: dict[str, Any] | None = None,
        seed: int = 0,
        device: str = "cpu",
        pass_true_reward: bool = False,
    ) -> None:
        hyper = copy.deepcopy(hyperparameters or {})  # stable-baselines3 writes into what it is given
        self.observation_space, self.action_space = envs.single_observation_space, envs.single_action_space
        check_observation_space(self.observation_space)
        check_action_space(self.action_space)
        self._check_names(algorithm, hyper)
        self._on_true_reward, self._total_env_steps = pass_true_reward, total_env_steps
        scale, pass_rewards = self._scales_actions(hyper), pass_true_reward and self.REWARDS_PASS_ENVS
        self._envs = Sb3Envs(envs, pass_true_reward=pass_rewards, scale_actions=scale)
        self._stepper = self._envs.stepper
        can_normalize = _is_float(self.observation_space)
        normalize = hyper.pop("normalize_observations", can_normalize)
        if normalize and not can_normalize:
            raise UserError(
                f"normalize_observations needs observations that are all boxes of floats; these are "
                f"{self.observation_space}. Leave it out."
            )
        self._normalize_until = hyper.pop("normalize_until", 1.0)
        self._env: Any = Normalized(self._envs, norm_reward=False) if normalize else self._envs
        self._model = self._build(algorithm, self._arguments(algorithm, hyper), seed, device)
        self._env = self._model.get_env()
        self._callback = callbacks.CallbackList([])
        self._logger = UpdateLogger()
        self._model.set_logger(self._logger)
        self._reward: RewardFunction | None = None

    # ------------------------------------------------------------------------------------------------ setting it up

    def _check_names(self, algorithm: type[Any], hyper: dict[str, Any]) -> None:
        known = set(inspect.signature(algorithm.__init__).parameters) - RESERVED - set(self.WITHOUT)
        known |= set(self.OWN_OPTIONS) - ({"action_noise_std"} if "action_noise" not in known else set())
        for name in hyper:
            if name not in known:
                raise UserError(
                    f"{algorithm.__name__} has no hyper-parameter {name!r} here.{near_names(name, known)} "
                    f"It knows: {', '.join(sorted(known))}."
                )

    def _scales_actions(self, hyper: dict[str, Any]) -> bool:
        """Return whether bounded actions are scaled, taking that option out of `hyper`."""
        return False

    @abstractmethod
    def _arguments(self, algorithm: type[Any], hyper: dict[str, Any]) -> dict[str, Any]:
        """Return the algorithm's arguments, this kind's own options taken out of `hyper` and its buffers put in."""

    def _build(self, algorithm: type[Any], arguments: dict[str, Any], seed: int, device: str) -> Any:
        for name, value in arguments.items():
            if isinstance(value, str) and value.startswith("linear:"):
                arguments[name] = schedule(name, value)
        policy = "CnnPolicy" if is_image(self.observation_space) else "MlpPolicy"
        if self._is_dict:
            policy = "MultiInputPolicy"
        small = extractor_for(self._envs.seen.space)
        if small:
            arguments["policy_kwargs"] = {**small, **(arguments.get("policy_kwargs") or {})}
        try:
            return algorithm(policy, self._env, seed=seed, device=device, **arguments)
        except (AssertionError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{algorithm.__name__} cannot be set up with these hyper-parameters for observations "
                f"{self.observation_space} and actions {self.action_space}: {error}. Use another --agent, such as ppo, "
                "or mend what --hyper says."
            ) from error

    @property
    def _is_dict(self) -> bool:
        return isinstance(self.observation_space, spaces.Dict)

    # ------------------------------------------------------------------------------------------------ the protocol

    @property
    @abstractmethod
    def steps_per_iteration(self) -> int:
        """Environment steps of one call of `improve`."""

    @property
    def num_env_steps(self) -> int:
        """Steps made so far in all environments together."""
        return int(self._model.num_timesteps)

    @property
    def num_envs(self) -> int:
        """How many copies of the environment run side by side, E."""
        return int(self._env.num_envs)

    def reset_environments(self, seed: int) -> None:
        """Start new episodes everywhere, the environments seeded from `seed`."""
        model, normalizer = self._model, self._model.get_vec_normalize_env()
        self._env.seed(seed)
        self._env.action_space.seed(seed)
        training = normalizer is not None and normalizer.training
        if normalizer is not None:
            normalizer.training = False  # a run that resumes resets once more; its statistics must not move by that
        model.set_env(self._env, force_reset=True)
        model.learn(0, self._callback, reset_num_timesteps=False)  # resets, and trains for no step
        if normalizer is not None:
            normalizer.training = training
        model._total_timesteps = self._total_env_steps  # private: `learn` was told less

    @abstractmethod
    def explore(self, num_env_steps: int, rng: np.random.Generator, *, uniform: bool = True) -> Rollout:
        """Act for at least `num_env_steps` steps, which count as environment steps.

        Args:
            num_env_steps: how many.
            rng: seeds uniform actions.
            uniform: uniformly random actions instead of the policy's, with its noise.
        """

    @abstractmethod
    def improve(self, reward: RewardFunction | None) -> Improvement:
        """Act for `steps_per_iteration` steps and learn from them.

        Args:
            reward: scores the steps. None: the environments' own reward if the agent was made with `pass_true_reward`,
                else zeros.
        """

    def _begin_iteration(self, reward: RewardFunction | None) -> None:
        self._reward = reward
        normalizer = self._model.get_vec_normalize_env()
        if normalizer is not None:
            normalizer.training = self.num_env_steps < self._normalize_until * self._total_env_steps

    def _score(self, rollout: Rollout) -> NDArray[np.floating]:
        """Return the rewards `(T, E)` of a rollout, neither centred nor scaled."""
        if self._on_true_reward:
            return rollout.true_rewards
        shape = rollout.terminated.shape
        if self._reward is None:
            return np.zeros(shape, np.float32)
        return checked_rewards(self._reward, *rollout.flat_transitions()).reshape(shape)

    @abstractmethod
    def relabel(self, reward: RewardFunction) -> None:
        """The reward has changed: score again whatever experience is kept."""

    def act(self, observations: Batch, *, deterministic: bool = True) -> Array:
        """Return an action for each of B observations `(B, ...)`."""
        observations = self._envs.seen.forth(observations)
        if isinstance(self._env, vec_env.VecNormalize):
            observations = self._env.normalize_obs(observations)
        actions, _ = self._model.predict(observations, deterministic=deterministic)
        return self._envs.taken.to_env(actions)

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
        _, variables = model._get_torch_save_params()  # private: of tensors that `get_parameters` leaves out
        state = {
            "parameters": model.get_parameters(),
            "variables": {name: getattr(model, name).detach().clone() for name in variables},
            "counters": {name: getattr(model, name) for name in COUNTERS if hasattr(model, name)},
            "observations": self._statistics(),
            "scaler": None,
        }
        return state, {}

    def restore(self, state: dict[str, Any], arrays: dict[str, Array]) -> None:
        """Go on from what `state` gave."""
        model = self._model
        model.set_parameters(state["parameters"], exact_match=True, device=model.device)
        for name, value in state["variables"].items():
            getattr(model, name).data.copy_(value)
        for name, value in state["counters"].items():
            setattr(model, name, value)
        self._load_statistics(state["observations"])

    def close(self) -> None:
        """Close the environments."""
        self._env.close()


def _is_float(space: gymnasium.Space[Any]) -> bool:
    leaves = space.spaces.values() if isinstance(space, spaces.Dict) else [space]
    return all(isinstance(leaf, spaces.Box) and np.dtype(leaf.dtype).kind == "f" for leaf in leaves)

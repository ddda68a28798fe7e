"""The fixed-horizon form of a vector environment."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from numpy.typing import NDArray

from prefrl.envs.fixed_horizon import HOLD
from prefrl.envs.vector_tools import expanded
from prefrl.errors import UserError


class VectorFixedHorizon(VectorWrapper):
    """`FixedHorizon` for E environments at once: hides every end and truncates after exactly `horizon` steps.

    An end is held and paid for as `FixedHorizon` says, and the same keys are in the info, as masks `(E,)`. The inner
    environments go on being stepped while an end is held, unseen, so after a restart they draw other starting states
    than one environment of its own would. Episodes restart in the step in which they end.

    Args:
        env: observations `(E, ...)` in one array, autoreset mode `AutoresetMode.DISABLED`, `reset` with a mask.
        horizon: steps per episode, at least 1.
        terminal_reward: true reward of each step in which an end is held.
        hold: steps for which an end is held, at least 1.

    Raises:
        UserError: `horizon` or `hold` is less than 1, or another autoreset mode.
    """

    def __init__(self, env: VectorEnv, horizon: int, terminal_reward: float, hold: int = HOLD) -> None:
        super().__init__(env)
        for name, value in (("horizon", horizon), ("hold", hold)):
            if value < 1:
                raise UserError(f"{name} must be at least 1 step. Received {value}")
        if env.metadata.get("autoreset_mode") != AutoresetMode.DISABLED or isinstance(
            env.single_observation_space, gymnasium.spaces.Dict
        ):
            raise UserError(
                "VectorFixedHorizon needs environments with array observations and "
                f"autoreset_mode=AutoresetMode.DISABLED. Received {env.metadata.get('autoreset_mode')}, "
                f"{env.single_observation_space}"
            )
        self.metadata = {**env.metadata, "autoreset_mode": AutoresetMode.SAME_STEP}
        self.horizon, self.hold, self.terminal_reward = horizon, hold, float(terminal_reward)
        self._num_steps = 0  # all episodes begin and end together
        self._held = np.zeros(self.num_envs, np.int64)  # steps until the restart that is due, 0 if none is
        self._held_rewards = np.zeros(self.num_envs)
        self._held_observations: NDArray[Any] = np.zeros(0)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin new episodes everywhere."""
        self._num_steps = 0
        self._held[:] = 0
        observations, info = self.env.reset(seed=seed, options=options)
        self._held_observations = np.array(observations)
        return observations, info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take one step everywhere, or spend it on an end that is held; `terminated` is never True."""
        self._num_steps += 1
        held = self._held > 0
        observations, rewards, terminated, truncated, _ = self.env.step(actions)
        rewards = np.where(held, self._held_rewards, rewards)
        self._held[held] -= 1
        hidden, timed_out = terminated & ~held, truncated & ~terminated & ~held
        self._held_observations[hidden] = observations[hidden]
        self._held[hidden], self._held_rewards[hidden] = self.hold, self.terminal_reward
        self._held[timed_out], self._held_rewards[timed_out] = 1, 0.0
        restarted = held & (self._held == 0)
        again = restarted | terminated | truncated
        if again.any():
            fresh, _ = self.env.reset(options={"reset_mask": again})
            observations = np.where(expanded(again & ~timed_out, observations), fresh, observations)
        holding = held & (self._held > 0)
        self._mark(holding, restarted)
        showing = holding | hidden
        observations = np.where(expanded(showing, observations), self._held_observations, observations)
        infos: dict[str, Any] = {"hidden_terminated": hidden, "restarted": restarted}
        ended = np.full(self.num_envs, self._num_steps >= self.horizon)
        if ended[0]:
            infos |= {"final_obs": observations, "_final_obs": ended}
            observations, _ = self.reset()
        return observations, rewards, np.zeros_like(ended), ended, infos

    def _mark(self, holding: NDArray[np.bool_], restarted: NDArray[np.bool_]) -> None:
        """Correct what was saved of this step for clips where something else was shown than the inner step."""
        marks = getattr(self.unwrapped, "marks", None)
        if marks is not None and (holding.any() or restarted.any()):
            marks.hold(holding)
            marks.show(restarted)

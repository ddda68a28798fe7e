"""One environment out of a vector environment of one, for code that knows only `gymnasium.Env`."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv


class SingleEnv(gymnasium.Env[Any, Any]):
    """A vector environment with one environment in it, without its leading axis.

    Made in the disabled autoreset mode, it behaves as any `gymnasium.Env`. Keys of the info are there on the steps on
    which the vector environment's mask says so.

    Args:
        vector: with `num_envs=1` and the autoreset mode `DISABLED`.
    """

    def __init__(self, vector: VectorEnv[Any, Any, Any]) -> None:
        assert vector.num_envs == 1
        self.vector = vector
        self.observation_space, self.action_space = vector.single_observation_space, vector.single_action_space
        self.metadata, self.render_mode = vector.metadata, vector.render_mode

    def __getattr__(self, name: str) -> Any:
        """Hand out the rest (`model`, `mujoco_renderer`, `clip`, ...) as the vector environment has it."""
        if name.startswith("_") or name == "vector":
            raise AttributeError(name)
        return getattr(self.vector, name)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin a new episode."""
        super().reset(seed=seed)
        observations, info = self.vector.reset(seed=seed, options=options)
        return observations[0], _first(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one step."""
        observations, rewards, terminated, truncated, info = self.vector.step(np.asarray(action)[None])
        return observations[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), _first(info)

    def render(self) -> Any:
        """Return a picture."""
        pictures = self.vector.render()
        return None if pictures is None else pictures[0]

    def close(self) -> None:
        """Give back what the vector environment holds."""
        self.vector.close()


def _first(info: dict[str, Any]) -> dict[str, Any]:
    return {key: values[0] for key, values in info.items() if not key.startswith("_") and info[f"_{key}"][0]}

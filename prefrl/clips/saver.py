"""The wrapper that marks each step of an environment, so that a person can look at it later."""

from __future__ import annotations

from typing import Any, TypeVar

import gymnasium

from prefrl.clips.trail import MARK
from prefrl.clips.worlds import find_world

ObsType = TypeVar("ObsType")
ActType = TypeVar("ActType")


class SavesClips(gymnasium.Wrapper[ObsType, ActType, ObsType, ActType]):
    """Puts a mark of each step into `info`: (kind, row, blob), from which its picture can be made.

    Args:
        env: the outermost environment. One that is neither of MuJoCo, classic control nor the Arcade Learning
            Environment must have `render_mode="rgb_array"`.
        segment_length: steps per segment.
    """

    def __init__(self, env: gymnasium.Env[ObsType, ActType], segment_length: int) -> None:
        super().__init__(env)
        self.world = find_world(env, segment_length=segment_length)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsType, dict[str, Any]]:
        """Begin a new episode."""
        outcome = self.env.reset(seed=seed, options=options)
        self.world.begin()
        return outcome

    def step(self, action: ActType) -> tuple[ObsType, Any, bool, bool, dict[str, Any]]:
        """Take one step and mark it."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        info[MARK] = (self.world.kind, *self.world.mark(action))
        return observation, reward, terminated, truncated, info

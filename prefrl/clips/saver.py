"""The wrapper that saves what each step of an environment can be drawn from, so that a person can look at it later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import gymnasium
import numpy as np

from prefrl.clips.trail import Marks
from prefrl.clips.worlds import find_world

ObsType = TypeVar("ObsType")
ActType = TypeVar("ActType")


class SavesClips(gymnasium.Wrapper[ObsType, ActType, ObsType, ActType]):
    """Keeps a mark of each step until `collect_marks` takes it. Saving must cost next to nothing: it is a line or two.

    A loop over many copies steps what is within and calls `world.mark` itself, on all of them after a round of steps: a
    mark between two steps of a simulator meets cold caches. Before a reset the last step must be marked.

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
        outcome = self.env.step(action)
        self.world.mark(action)
        return outcome


def collect_marks(envs: Sequence[gymnasium.Env[Any, Any]]) -> Marks | None:
    """Take the marks of E environments since the last call; None unless all are `SavesClips` and have made steps."""
    if not envs or not all(isinstance(env, SavesClips) for env in envs):
        return None
    worlds = [env.world for env in envs if isinstance(env, SavesClips)]
    taken = [world.take() for world in worlds]
    if len(taken[0][0]) == 0:
        return None
    blobs = {(step, env): blob for env, (_, of_env) in enumerate(taken) for step, blob in of_env.items()}
    return Marks(kind=worlds[0].kind, rows=np.stack([rows for rows, _ in taken], axis=1), blobs=blobs)

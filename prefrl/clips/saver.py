"""The wrapper that saves what each step of an environment can be drawn from, so that a person can look at it later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import gymnasium
import numpy as np

from prefrl.clips.trail import Marks
from prefrl.clips.worlds import ClassicControl, ClassicStates, World, find_world

ObsType = TypeVar("ObsType")
ActType = TypeVar("ActType")


class SavesClips(gymnasium.Wrapper[ObsType, ActType, ObsType, ActType]):
    """Keeps a mark of each step until `collect_marks` takes it. Saving must cost next to nothing: it is a line or two.

    A loop over many copies steps what is within and marks all of them after a round of steps (`join_worlds`). Before a
    reset the last step must be marked.

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


class ManyWorlds:
    """The worlds of E copies of an environment that are stepped in a loop."""

    def __init__(self, worlds: Sequence[World]) -> None:
        self._worlds = worlds

    def mark(self, actions: Sequence[Any]) -> None:
        """Save the step that each copy just made."""
        for world, action in zip(self._worlds, actions, strict=True):
            world.mark(action)

    def take(self) -> Marks | None:
        """Return the marks since the last call; None if no step was made."""
        taken = [world.take() for world in self._worlds]
        if len(taken[0][0]) == 0:
            return None
        blobs = {(step, env): blob for env, (_, of_env) in enumerate(taken) for step, blob in of_env.items()}
        return Marks(kind=self._worlds[0].kind, rows=np.stack([rows for rows, _ in taken], axis=1), blobs=blobs)


class ManyClassicControls:
    """`ManyWorlds` for classic control, whose steps are so quick that marks one by one are felt."""

    def __init__(self, worlds: Sequence[ClassicControl]) -> None:
        self._states = ClassicStates([world.base for world in worlds])

    def mark(self, actions: Sequence[Any]) -> None:
        """Save the step that each copy just made."""
        self._states.mark()

    def take(self) -> Marks | None:
        """Return the marks since the last call; None if no step was made."""
        rows = self._states.take()
        return Marks(kind=ClassicControl.kind, rows=rows, blobs={}) if len(rows) else None


def join_worlds(envs: Sequence[gymnasium.Env[Any, Any]]) -> ManyWorlds | ManyClassicControls | None:
    """Return the worlds of E environments in one; None unless all are `SavesClips`."""
    worlds = [env.world for env in envs if isinstance(env, SavesClips)]
    if not worlds or len(worlds) < len(envs):
        return None
    classic = [world for world in worlds if isinstance(world, ClassicControl)]
    return ManyClassicControls(classic) if len(classic) == len(worlds) else ManyWorlds(worlds)


def collect_marks(envs: Sequence[gymnasium.Env[Any, Any]]) -> Marks | None:
    """Take the marks of E environments, each of which marks its own steps; None unless all do and have made steps."""
    worlds = [env.world for env in envs if isinstance(env, SavesClips)]
    return ManyWorlds(worlds).take() if worlds and len(worlds) == len(envs) else None

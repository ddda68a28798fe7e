"""What was done in each game, one byte a step: enough to see any of it again."""

from __future__ import annotations

import zlib
from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

from prefrl.errors import UserError

RESTARTED = 255
"""In place of the action of a step that was spent on restarting the game."""


class PlayLog:
    """Actions of E environments, and where their games start.

    Args:
        num_envs: E.
    """

    def __init__(self, num_envs: int) -> None:
        self.num_steps = 0
        self._actions = np.zeros((1024, num_envs), np.uint8)
        self._begins = np.zeros((1024, num_envs), np.int32)  # frames, plus one, of the game that starts at a step
        self._starts: list[list[int]] = [[] for _ in range(num_envs)]  # steps before which a game starts
        self._frames: list[list[int]] = [[] for _ in range(num_envs)]  # frames that each of them begins with
        self._loaded: list[list[bool]] = [[] for _ in range(num_envs)]

    def add(self, actions: NDArray[np.int64]) -> None:
        """Note the actions of one step, `(E,)`."""
        self._actions[self.num_steps] = actions
        self.num_steps += 1
        if self.num_steps == len(self._actions):  # a start before the next step needs room too
            self._actions = np.concatenate([self._actions, np.zeros_like(self._actions)])
            self._begins = np.concatenate([self._begins, np.zeros_like(self._begins)])

    def start(self, envs: NDArray[np.int64], num_frames: NDArray[np.int64], *, loaded: bool) -> None:
        """Note that games start before the next step.

        Args:
            envs: the environments.
            num_frames: `(E,)`: frames that their games begin with.
            loaded: the ROM was loaded for them, so that nothing is left of earlier games.
        """
        self._begins[self.num_steps, envs] = num_frames[envs] + 1
        self._note(envs, num_frames, loaded=loaded)

    def _note(self, envs: NDArray[np.int64], num_frames: NDArray[np.int64], *, loaded: bool) -> None:
        for env in envs.tolist():
            self._starts[env].append(self.num_steps)
            self._frames[env].append(int(num_frames[env]))
            self._loaded[env].append(loaded)

    def restart(self, envs: NDArray[np.int64], num_frames: NDArray[np.int64]) -> None:
        """Note that the newest step was spent on starting games; arguments as of `start`."""
        self._actions[self.num_steps - 1, envs] = RESTARTED
        self._begins[self.num_steps - 1, envs] = num_frames[envs] + 1
        self._note(envs, num_frames, loaded=False)

    def rows(self, begin: int) -> NDArray[np.int32]:
        """Return the steps since step `begin` as marks `(T, E, 2)`.

        The first number is the action, or `RESTARTED`; the second the frames, plus one, with which a game begins that
        starts on this step or before it, 0 where none does.
        """
        stretch = slice(begin, self.num_steps)
        return np.stack([self._actions[stretch].astype(np.int32), self._begins[stretch]], axis=2)

    def way_to(self, env: int, step: int) -> bytes | None:
        """Return how an environment came to a step in the midst of a game; None where a game starts there.

        Compressed: the frames that the game began with (int32), and its actions until then.
        """
        game = bisect_right(self._starts[env], step) - 1
        if self._begins[step, env] or game < 0:
            return None
        frames, actions = self._frames[env][game], self._actions[self._starts[env][game] : step, env]
        return zlib.compress(np.int32(frames).tobytes() + actions.tobytes(), level=1)

    def stretch(
        self, env: int, first_step: int, num_steps: int, *, independent: bool
    ) -> tuple[bytes, tuple[tuple[int, int], ...], int]:
        """Return what led to some steps of one environment, and these.

        Args:
            env: number of the environment.
            first_step: the first of the steps.
            num_steps: how many.
            independent: games do not depend on those before them; otherwise they are needed too, back to the last
                load of the ROM.

        Returns:
            actions, starts of games as (step, frames), and the place of `first_step`; all counted from the first start.

        Raises:
            UserError: there are no such steps.
        """
        stop = first_step + num_steps
        if not 0 <= env < len(self._starts) or first_step < 0 or num_steps < 1 or stop > self.num_steps:
            raise UserError(
                f"There are no steps {first_step} to {stop - 1} of environment {env}: {self.num_steps} steps of "
                f"{len(self._starts)} environments were made."
            )
        starts = self._starts[env]
        game = bisect_right(starts, first_step) - 1
        while not (independent or self._loaded[env][game]):
            game -= 1
        begin = starts[game]
        within = [i for i in range(game, len(starts)) if starts[i] <= stop]
        return (
            self._actions[begin:stop, env].tobytes(),
            tuple((starts[i] - begin, self._frames[env][i]) for i in within),
            first_step - begin,
        )

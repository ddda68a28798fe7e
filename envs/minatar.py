"""MinAtar's five games (Young & Tian 2019) as small pictures, which a CPU learns from: arXiv:1903.03176.

The games are those of the package `minatar`; here they are Gymnasium environments whose observations are images to
everything else: `(10, 10, C)` uint8, 255 where MinAtar's are true, a channel for each kind of thing. The package's own
`MinAtar/Breakout-v1` gives bools, which networks read as 400 numbers in no order, and draws through seaborn.

Two things differ from its `Environment`. The action before the first of an episode is "do nothing", where there it is
the last one of the episode before (sticky actions repeat it). And `reset(seed=...)` fixes everything that follows.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from prefrl.envs.registration import MINATAR_GAMES
from prefrl.errors import UserError, near_names, require

PIXELS = 20  # of the picture that people see, for each of the ten by ten
_GROUND = (16, 18, 28)
_GRID = (30, 33, 46)
# what is drawn over what: later ones lie above; of each game in the order of its channels
_COLOURS: dict[str, dict[str, tuple[int, int, int]]] = {
    "asterix": {"trail": (70, 70, 90), "enemy": (225, 70, 60), "gold": (245, 200, 60), "player": (80, 220, 120)},
    "breakout": {"brick": (205, 95, 65), "trail": (80, 90, 120), "paddle": (80, 220, 120), "ball": (250, 250, 250)},
    "freeway": {
        **{f"speed{n}": (130 - 18 * n, 60, 40 + 22 * n) for n in range(1, 6)},
        "car": (225, 70, 60),
        "chicken": (245, 220, 90),
    },
    "seaquest": {
        "oxygen_guage": (90, 170, 240),
        "diver_guage": (60, 200, 190),
        "trail": (70, 70, 90),
        "diver": (60, 200, 190),
        "enemy_fish": (225, 70, 60),
        "enemy_sub": (230, 130, 50),
        "enemy_bullet": (250, 170, 170),
        "friendly_bullet": (250, 250, 250),
        "sub_back": (50, 140, 80),
        "sub_front": (80, 220, 120),
    },
    "space_invaders": {
        "alien": (225, 70, 60),
        "alien_left": (225, 70, 60),
        "alien_right": (225, 70, 60),
        "enemy_bullet": (250, 170, 90),
        "friendly_bullet": (250, 250, 250),
        "cannon": (80, 220, 120),
    },
}


class MinAtar(gymnasium.Env[NDArray[np.uint8], np.int64]):
    """One game of MinAtar.

    Args:
        game: one of `prefrl.envs.registration.MINATAR_GAMES`.
        minimal_actions: only the actions that have an effect in the game; otherwise all six.
        sticky_action_prob: how likely the action before is repeated in place of the one that is given.
        difficulty_ramping: the game becomes faster the longer it is played, where it knows how.
        render_mode: "rgb_array" or none.

    Raises:
        MissingExtraError: the package minatar is not installed.
        UserError: there is no such game, or an option has no meaning.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - Gymnasium reads it of the class

    def __init__(
        self,
        game: str,
        *,
        minimal_actions: bool = True,
        sticky_action_prob: float = 0.1,
        difficulty_ramping: bool = True,
        render_mode: str | None = None,
    ) -> None:
        if game not in MINATAR_GAMES:
            near = near_names(game, MINATAR_GAMES)
            raise UserError(f"MinAtar has no game {game!r}.{near} It has: {', '.join(MINATAR_GAMES)}.")
        if render_mode not in (None, "rgb_array"):
            raise UserError(f'render_mode must be "rgb_array" or none. Received {render_mode!r}')
        for name, flag in (("minimal_actions", minimal_actions), ("difficulty_ramping", difficulty_ramping)):
            if not isinstance(flag, bool):
                raise UserError(f"{name} must be true or false. Received {flag!r}")
        if isinstance(sticky_action_prob, bool) or not 0 <= sticky_action_prob < 1:
            raise UserError(f"sticky_action_prob must be in [0, 1). Received {sticky_action_prob!r}")
        self._game = require(f"minatar.environments.{game}", "minatar").Env(ramping=difficulty_ramping)
        self._actions = self._game.minimal_action_set() if minimal_actions else list(range(len(self._game.action_map)))
        self._sticky, self._before = sticky_action_prob, 0
        shape = tuple(self._game.state_shape())
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)
        self.action_space = spaces.Discrete(len(self._actions))
        self.render_mode = render_mode
        channels = self._game.channels
        self._colours = [(channels[name], np.array(colour, np.uint8)) for name, colour in _COLOURS[game].items()]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Begin a new game."""
        super().reset(seed=seed)
        if seed is not None or not hasattr(self, "_random"):
            self._random = np.random.RandomState(self.np_random.integers(2**32))
            self._game.random = self._random
        self._game.reset()
        self._before = 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Take one step; the reward is the points won."""
        number = int(action)
        if not 0 <= number < len(self._actions):
            raise UserError(f"An action must be 0 to {len(self._actions) - 1}. Received {action!r}")
        if self._random.rand() >= self._sticky:
            self._before = self._actions[number]
        reward, over = self._game.act(self._before)
        return self._observation(), float(reward), bool(over), False, {}

    def _observation(self) -> NDArray[np.uint8]:
        return np.asarray(self._game.state(), np.uint8) * np.uint8(255)

    def render(self) -> NDArray[np.uint8] | None:
        """Return a picture of 200 x 200 pixels, each kind of thing in a colour of its own."""
        return None if self.render_mode is None else self.picture(self._observation())

    def picture(self, observation: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the picture `(H, W, 3)` of an observation `(10, 10, C)`."""
        small = np.empty((*observation.shape[:2], 3), np.uint8)
        small[:] = _GROUND
        for channel, colour in self._colours:
            small[observation[..., channel] > 0] = colour
        large = small.repeat(PIXELS, 0).repeat(PIXELS, 1)
        empty = ~(observation > 0).any(-1).repeat(PIXELS, 0).repeat(PIXELS, 1)
        lines = np.zeros_like(empty)
        lines[::PIXELS] = lines[:, ::PIXELS] = True
        large[lines & empty] = _GRID
        return large

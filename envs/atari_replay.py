"""Colour pictures of a game that was played in bulk, made when someone asks for them.

The emulator is deterministic and no action is repeated by chance, so a game is the frames with which it began and the
actions since: `AtariReplay`. Playing it again on an emulator of its own gives every picture that
`ale_py.vector_env.AtariVectorEnv` would have given in colour and full size (the brighter of the last two frames, pixel
by pixel), bit for bit.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefrl.envs.atari_log import RESTARTED
from prefrl.envs.atari_masks import black_out
from prefrl.errors import UserError, require

INDEPENDENT = (
    *("breakout", "enduro", "pong", "qbert", "seaquest", "space_invaders"),
    *("asteroids", "montezuma_revenge", "ms_pacman"),
)
"""Games known to begin alike whatever was played before. In others, BeamRider among them, some memory of the cartridge
outlasts a restart, so that a game can only be played again from the last load of the ROM."""


@dataclass(frozen=True, kw_only=True)
class AtariReplay:
    """A stretch of play and what led to it: plain values, to be kept anywhere."""

    game: str
    """ALE's name."""
    actions: bytes
    """Number of the action of each step, since the first game's start; `RESTARTED` where there was none."""
    starts: tuple[tuple[int, int], ...]
    """Steps before which games start, and the frames they begin with; the first is at step 0."""
    first_step: int
    """Step whose picture is the first."""
    frame_skip: int = 4
    """Frames per step."""
    full_action_space: bool = False
    """Actions are numbers of all 18 actions, not of those that the game has a use for."""
    masked: bool = True
    """The score is blacked out, where `MASKS` knows it."""

    @classmethod
    def of_marks(cls, rows: NDArray[np.int32], way: bytes | None, lead: int, **settings: Any) -> AtariReplay:
        """Return the stretch of play that marks tell of (`PlayLog.rows`, and `PlayLog.way_to` the first of them).

        Args:
            rows: `(lead + n, 2)`.
            way: None where a game starts at the first of them.
            lead: steps before the first that is to be seen.
            settings: the other attributes.

        Raises:
            UserError: nothing tells how the game began.
        """
        before, starts = b"", []
        if way is not None:
            whole = zlib.decompress(way)
            before, starts = whole[4:], [(0, int(np.frombuffer(whole[:4], np.int32)[0]))]
        elif len(rows) == 0 or rows[0, 1] == 0:
            raise UserError("What was saved for a clip does not tell how its game began: it cannot be drawn.")
        for row in np.flatnonzero(rows[:, 1]).tolist():
            starts.append((len(before) + row + int(rows[row, 0] == RESTARTED), int(rows[row, 1]) - 1))
        actions = before + rows[:, 0].astype(np.uint8).tobytes()
        return cls(actions=actions, starts=tuple(starts), first_step=len(before) + lead, **settings)

    def player(self) -> AtariPlayer:
        """Return an emulator that can play it, and any other of the same game and settings."""
        return AtariPlayer(self.game, frame_skip=self.frame_skip, full_action_space=self.full_action_space)

    def frames(self, player: AtariPlayer | None = None) -> NDArray[np.uint8]:
        """Return the picture after each step, `(n, H, W, 3)`.

        Args:
            player: of `player`, to use again; None: a new one.
        """
        player = player or self.player()
        pictures = np.stack(list(self._pictures(player)))
        if self.masked:
            black_out(pictures, self.game)
        return pictures

    def _pictures(self, player: AtariPlayer) -> Iterator[NDArray[np.uint8]]:
        due = list(self.starts)
        player.load()
        for step, action in enumerate(self.actions):
            wanted = step >= self.first_step
            while due and due[0][0] == step:  # the first, and those that someone asked for
                player.start(due.pop(0)[1])
            if action == RESTARTED:
                picture = player.start(due.pop(0)[1])
            else:
                picture = player.act(action, look=wanted)
            if wanted:
                yield picture


class AtariPlayer:
    """One emulator, stepped as `AtariVectorEnv` steps its own.

    Args:
        game: ALE's name.
        frame_skip: frames per step.
        full_action_space: actions are numbers of all 18 actions.
    """

    def __init__(self, game: str, *, frame_skip: int = 4, full_action_space: bool = False) -> None:
        ale = require("ale_py", "atari")
        self.game, self.frame_skip = game, frame_skip
        self._rom = rom_path(game)
        ale.ALEInterface.setLoggerMode(ale.LoggerMode.Error)
        self._ale = ale.ALEInterface()
        self._ale.setFloat("repeat_action_probability", 0.0)
        self._ale.setInt("random_seed", 0)  # decides nothing here
        self._ale.loadROM(self._rom)
        self._fresh = True
        legal, minimal = self._ale.getLegalActionSet(), self._ale.getMinimalActionSet()
        self.actions = legal if full_action_space else minimal
        self._noop, self._fire = ale.Action.NOOP, ale.Action.FIRE
        self._fires = self._fire in self.actions
        self._last: list[NDArray[np.uint8]] = []
        """The two newest frames of a step, kept as the vector environment keeps them."""

    def load(self) -> None:
        """Forget all games before, where that makes a difference."""
        if self.game not in INDEPENDENT and not self._fresh:
            self._ale.loadROM(self._rom)
            self._fresh = True

    def start(self, num_frames: int) -> NDArray[np.uint8]:
        """Start a game that begins with this many frames of doing nothing (the first of them fires, if it can)."""
        self._fresh = False
        self._ale.reset_game()
        for frame in range(num_frames - self._ale.getEpisodeFrameNumber()):  # some games count a few already
            self._ale.act(self._fire if frame == 0 and self._fires else self._noop)
        screen = self._ale.getScreenRGB()
        self._last = [screen, np.zeros_like(screen)]
        return screen.copy()

    def act(self, action: int, *, look: bool = True) -> NDArray[np.uint8]:
        """Take one step; return its picture, `(H, W, 3)`, or any other array if no one will `look`."""
        for left in range(self.frame_skip, 0, -1):
            self._ale.act(self.actions[action])
            if self._ale.game_over():
                break
            if left <= 2:  # two steps back the arrays may matter at a game's end, so they are kept up always
                self._last[left - 1] = self._ale.getScreenRGB()
        self._last[0] = np.maximum(self._last[0], self._last[1])
        return self._last[0].copy() if look else self._last[0]


def rom_path(game: str) -> Any:
    """Return where a game's ROM lies.

    Raises:
        MissingExtraError: ale-py is not installed.
        UserError: its ROM is not there or damaged.
    """
    roms = require("ale_py.roms", "atari")
    try:
        path = roms.get_rom_path(game)
    except OSError as error:
        raise UserError(
            f"The ROM of {game!r} cannot be used: {error}. Install ale-py anew (it brings all ROMs), or fix the "
            "folder that ALE_ROMS_DIR names."
        ) from error
    return path

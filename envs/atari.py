"""Atari as in Christiano et al. 2017, many games at once, on `ale_py.vector_env.AtariVectorEnv`.

What agent and reward model see is 84 x 84 grey, four frames deep, the score blacked out (`prefrl.envs.atari_masks`).
Neither is told when a life or the game is lost: the game restarts within one endless stream of play, and the oracle's
reward has a penalty there that has to be learned, except in Pong (app. A of the paper). Each part can be switched off.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from numbers import Real
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from prefrl.clips.trail import Marks
from prefrl.envs.atari_log import PlayLog
from prefrl.envs.atari_masks import MASKS, black_out
from prefrl.envs.atari_replay import INDEPENDENT, AtariPlayer, AtariReplay, rom_path
from prefrl.envs.memory import check_memory
from prefrl.envs.registration import games
from prefrl.envs.single import SingleEnv
from prefrl.envs.vector_tools import (
    check_whole,
    checked_actions,
    checked_autoreset_mode,
    expanded,
    masked_info,
    reset_mask,
    seeds,
)
from prefrl.errors import UserError, near_names, require

Flags = NDArray[np.bool_]
Pixels = NDArray[np.uint8]
SIDE, DEPTH = 84, 4
END_PENALTY = 1.0
_MAX_GAME_FRAMES = 108_000  # half an hour, ALE's own limit
_BYTES_PER_ENV = 6_000_000  # an emulator, its buffers, observations


class AtariVectorEnv(VectorEnv[Pixels, Any, NDArray[Any]]):
    """E copies of a game.

    The stream of each copy is cut (`truncated`) every `max_episode_steps` steps, so that whoever keeps episodes can let
    go of old ones; the game itself goes on across the cut.

    The info holds, for every step: `true_score`, points won on this step; `score`, points of this game so far; `lives`.
    On the steps concerned: `hidden_terminated` on which a hidden end happened (a lost life counts if it has a penalty),
    `restarted` on which the game started anew and the action had no effect.

    Args:
        game: ALE's name, e.g. "space_invaders".
        num_envs: E.
        max_episode_steps: steps after which the stream is cut; None: never.
        autoreset_mode: next-step or same-step.
        num_threads: threads of ALE; 0: one for each CPU.
        mask_score: black the score out; None: where it is known how, in the seven games of `MASKS`.
        show_score: leave it in what `render` draws for people; the observations stay masked.
        hide_life_loss: a lost life is not reported as `terminated`.
        hide_game_over: nor is the end of the game.
        end_penalty: taken off the reward when the game is lost; None: 1, and 0 in Pong.
        life_loss_penalty: taken off the reward when a life is lost but not the game. The paper contradicts itself on
            lives; the default is 0.
        clip_rewards: the reward of a step is the sign of the points won, as usual in learning these games.
        frame_skip: frames per step.
        noop_max: a game begins with up to this many frames, less one, of doing nothing.
        full_action_space: all 18 actions, not only those that have an effect in this game.
        render_mode: "rgb_array" keeps a second emulator in colour for each game, for `render`.

    Raises:
        MissingExtraError: ale-py is not installed.
        UserError: there is no such game or its ROM is missing, an option has no meaning here, or more environments than
            memory allows.
    """

    def __init__(
        self,
        game: str,
        num_envs: int = 1,
        *,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        num_threads: int = 0,
        mask_score: bool | None = None,
        show_score: bool = False,
        hide_life_loss: bool = True,
        hide_game_over: bool = True,
        end_penalty: float | None = None,
        life_loss_penalty: float = 0.0,
        clip_rewards: bool = True,
        frame_skip: int = 4,
        noop_max: int = 30,
        full_action_space: bool = False,
        render_mode: str | None = None,
    ) -> None:
        require("ale_py", "atari")
        _check_game(game)
        if mask_score and game not in MASKS:
            raise UserError(
                f"Where {game!r} shows its score is not known; it is for {', '.join(MASKS)}. Leave mask_score out."
            )
        for name, flag in (
            ("mask_score", False if mask_score is None else mask_score),
            ("show_score", show_score),
            ("hide_life_loss", hide_life_loss),
            ("hide_game_over", hide_game_over),
            ("clip_rewards", clip_rewards),
            ("full_action_space", full_action_space),
        ):
            if not isinstance(flag, bool):
                raise UserError(f"{name} must be true or false. Received {flag!r}")
        for name, value, least in (
            ("frame_skip", frame_skip, 1),
            ("noop_max", noop_max, 0),
            ("num_threads", num_threads, 0),
            ("max_episode_steps", 1 if max_episode_steps is None else max_episode_steps, 1),
        ):
            check_whole(name, value, least)
        for name, penalty in (("end_penalty", end_penalty or 0.0), ("life_loss_penalty", life_loss_penalty)):
            if not isinstance(penalty, Real) or not 0 <= float(penalty) < math.inf:
                raise UserError(f"{name} must be a finite number, at least 0. Received {penalty!r}")
        if render_mode not in (None, "rgb_array"):
            raise UserError(f'render_mode must be "rgb_array" or left out. Received {render_mode!r}')
        check_memory(num_envs, _BYTES_PER_ENV, game, "atari")
        self.game, self.num_envs, self.render_mode = game, num_envs, render_mode
        self.autoreset_mode = checked_autoreset_mode(autoreset_mode)
        self.metadata = {
            "autoreset_mode": self.autoreset_mode,
            "render_modes": ["rgb_array"],
            "render_fps": 60 // frame_skip,
        }
        self.max_episode_steps = max_episode_steps
        self.mask_score = game in MASKS if mask_score is None else mask_score
        self.show_score = show_score
        self.hide_life_loss, self.hide_game_over = hide_life_loss, hide_game_over
        self.end_penalty = (0.0 if game == "pong" else END_PENALTY) if end_penalty is None else float(end_penalty)
        self.life_loss_penalty, self.clip_rewards = float(life_loss_penalty), clip_rewards
        self.frame_skip, self.full_action_space = frame_skip, full_action_space
        rom_path(game)
        self._ale = require("ale_py.vector_env", "atari").AtariVectorEnv(
            game,
            num_envs,
            num_threads=num_threads,
            max_num_frames_per_episode=_MAX_GAME_FRAMES,
            full_action_space=full_action_space,
            autoreset_mode=AutoresetMode.NEXT_STEP,
            img_height=SIDE,
            img_width=SIDE,
            stack_num=1,  # stacks are made here, across restarts that are hidden
            frameskip=frame_skip,
            noop_max=noop_max,
            reward_clipping=False,
        )
        self.single_observation_space = spaces.Box(0, 255, (DEPTH, SIDE, SIDE), np.uint8)
        self.single_action_space = self._ale.single_action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._stacks = np.zeros((num_envs, DEPTH, SIDE, SIDE), np.uint8)
        self._lives, self._scores, self._elapsed = (np.zeros(num_envs, np.int64) for _ in range(3))
        self._ended, self._over = np.zeros(num_envs, np.bool_), np.zeros(num_envs, np.bool_)
        self._is_reset = False
        self._log = PlayLog(num_envs)
        self._players: list[AtariPlayer] = []
        self._clip_player: AtariPlayer | None = None
        self._pictures: list[Pixels] = []
        self._taken: int | None = None  # steps whose marks were taken; None: nobody wants marks
        self._midway: list[tuple[int, int]] = []  # steps and environments in which a stream begins, perhaps in a game
        if render_mode is not None:
            options: dict[str, Any] = {"frame_skip": frame_skip, "full_action_space": full_action_space}
            self._players = [AtariPlayer(game, **options) for _ in range(num_envs)]
            self._pictures = [np.zeros(0, np.uint8)] * num_envs

    # ------------------------------------------------------------------------------------------- Gymnasium's methods

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Pixels, dict[str, Any]]:
        """Begin new streams, each with a new game.

        Args:
            seed: environment i is seeded with `seed + i`, or with entry i of a sequence; it decides how many frames
                each game begins with. None: go on with the random streams there are.
            options: `{"reset_mask": (E,) bool}` resets only some.
        """
        which = reset_mask(options, self.num_envs, first=not self._is_reset)
        drawn = seeds(seed, self.num_envs)
        self._start_games(which, [drawn[env] for env in np.flatnonzero(which)])
        self._is_reset = True
        self._elapsed[which], self._ended[which] = 0, False
        info = {"lives": self._lives.copy(), "_lives": which}
        return self._stacks.copy(), info

    def step(self, actions: NDArray[Any]) -> tuple[Pixels, NDArray[np.float64], Flags, Flags, dict[str, Any]]:
        """Take one step in every game.

        Args:
            actions: `(E,)` int.

        Raises:
            UserError: actions that are not there, no reset before, or (disabled mode) an ended stream was not reset.
        """
        if not self._is_reset:
            raise UserError("The environments have to be reset before the first step.")
        actions = checked_actions(actions, self.single_action_space, self.num_envs).astype(np.int64)
        due, restarting = self._ended, self._over
        if self.autoreset_mode == AutoresetMode.DISABLED and due.any():
            raise UserError(f"The streams of environments {np.flatnonzero(due)[:5].tolist()} have ended. Reset them.")
        actions[due | restarting] = 0  # doing nothing; ALE restarts a game that is over whatever the action
        frames, points, over, timeout, ale_info = self._ale.step(actions)
        self._log.add(actions)
        self._draw(actions, ~restarting)
        if restarting.any():
            self._log.restart(np.flatnonzero(restarting), ale_info["episode_frame_number"])
            self._show_start(np.flatnonzero(restarting), ale_info["episode_frame_number"], loaded=False)
        self._scores = np.where(restarting, 0, self._scores) + points
        lives = ale_info["lives"].astype(np.int64)
        lost = (lives < self._lives) & ~over & ~restarting
        self._lives, self._over = lives, over | timeout
        self._push(frames[:, 0], restarting & (not self.hide_game_over))

        rewards = (np.sign(points) if self.clip_rewards else points).astype(np.float64)
        rewards -= self.end_penalty * over + self.life_loss_penalty * lost
        terminated = (over & (not self.hide_game_over)) | (lost & (not self.hide_life_loss))
        self._elapsed += 1
        truncated = timeout & (not self.hide_game_over)
        if self.max_episode_steps is not None:
            truncated |= self._elapsed >= self.max_episode_steps
        rewards[due], self._elapsed[due], terminated[due], truncated[due] = 0.0, 0, False, False
        info = self._info(points, over, lost, restarting)
        again = due & self._over & (not self.hide_game_over)  # lost while a new stream began: begin once more
        self._ended = terminated | truncated
        if again.any():
            self._start_games(again, [None] * int(again.sum()))
        observations = self._stacks.copy()
        if self.autoreset_mode == AutoresetMode.SAME_STEP and self._ended.any():
            info |= self._begin_streams(observations, info)
            observations = self._stacks.copy()
        return observations, rewards, terminated, truncated, info

    def render(self) -> tuple[Pixels, ...] | None:
        """Return the newest picture of every game in colour, `(H, W, 3)`, masked unless `show_score`."""
        if self.render_mode is None:
            raise UserError('render needs a render_mode: give render_mode="rgb_array" when making the environment.')
        pictures = tuple(picture.copy() for picture in self._pictures)
        if self._masked_for_people:
            for picture in pictures:
                black_out(picture, self.game)
        return pictures

    @property
    def _masked_for_people(self) -> bool:
        return self.mask_score and not self.show_score

    # --------------------------------------------------------------------------------------------------------- clips

    @property
    def num_steps(self) -> int:
        """Calls of `step` so far, whatever was reset between: the clock of `clip` and `replay`."""
        return self._log.num_steps

    def replay(self, env: int, first_step: int, num_steps: int, *, masked: bool | None = None) -> AtariReplay:
        """Return what it takes to see steps of one environment in colour, now or in another process.

        Args:
            env: number of the environment.
            first_step: its step, counted as `num_steps` counts.
            num_steps: how many.
            masked: black the score out, where it is known how; None: as `render` does.

        Raises:
            UserError: there are no such steps.
        """
        actions, starts, first = self._log.stretch(env, first_step, num_steps, independent=self.game in INDEPENDENT)
        return AtariReplay(actions=actions, starts=starts, first_step=first, **self._replay_settings(masked))

    def _replay_settings(self, masked: bool | None) -> dict[str, Any]:
        return {
            "game": self.game,
            "frame_skip": self.frame_skip,
            "full_action_space": self.full_action_space,
            "masked": self._masked_for_people if masked is None else masked and self.game in MASKS,
        }

    def clip(self, env: int, first_step: int, num_steps: int, *, masked: bool | None = None) -> Pixels:
        """Return the colour picture after each of some steps of one environment, `(num_steps, H, W, 3)`.

        The game is played again from its start, at some 2,000 steps a second; of games that are not `INDEPENDENT`, all
        since the last reset with a seed.
        """
        replay = self.replay(env, first_step, num_steps, masked=masked)
        self._clip_player = self._clip_player or replay.player()
        return replay.frames(self._clip_player)

    @property
    def can_save_clips(self) -> bool:
        """Clips of this game can be drawn from a few bytes a step, since its games do not depend on earlier ones."""
        return self.game in INDEPENDENT and (self.num_envs == 1 or self.autoreset_mode == AutoresetMode.SAME_STEP)

    def save_clips(self) -> None:
        """From now on keep what each step can be drawn from (`prefrl.clips.worlds`), until `take_marks` takes it."""
        if self._taken is None:
            self._taken = self._log.num_steps
            self._midway = [(self._taken, env) for env in range(self.num_envs)]

    def get_action_meanings(self) -> list[str]:
        """Return the names of the actions, as ALE has them."""
        player = AtariPlayer(self.game, full_action_space=self.full_action_space)
        return [action.name for action in player.actions]

    def take_marks(self) -> Marks | None:
        """Return what was kept since the last call; None without `save_clips` and where no step was made."""
        begin, now = self._taken, self._log.num_steps
        if begin is None or begin == now:
            return None
        ways = {(step - begin, env): self._log.way_to(env, step) for step, env in self._midway if step < now}
        self._midway = [midway for midway in self._midway if midway[0] >= now]
        self._taken = now
        blobs = {place: way for place, way in ways.items() if way is not None}
        return Marks(kind="atari", rows=self._log.rows(begin), blobs=blobs)

    def draw_again(self, rows: NDArray[np.int32], way: bytes | None, lead: int) -> Iterator[Pixels]:
        """Give the colour picture after each step of a clip, from its marks; see `AtariReplay.of_marks`."""
        replay = AtariReplay.of_marks(rows, way, lead, **self._replay_settings(None))
        self._clip_player = self._clip_player or replay.player()
        yield from replay.frames(self._clip_player)

    # ---------------------------------------------------------------------------------------------------- the inside

    def _start_games(self, which: Flags, drawn: list[int | None]) -> None:
        """Start new games, and their stacks."""
        values = np.array([-1 if seed is None else seed % 2**31 for seed in drawn])
        options = None if which.all() else {"reset_mask": which}
        frames, info = self._ale.reset(seed=values, options=options)
        for env, seed in zip(np.flatnonzero(which), drawn, strict=True):
            loaded = seed is not None or not self._is_reset
            self._log.start(np.array([env]), info["episode_frame_number"], loaded=loaded)
            self._show_start(np.array([env]), info["episode_frame_number"], loaded=loaded)
        self._lives[which] = info["lives"][which]
        self._scores[which], self._over[which] = 0, False
        self._stacks[which] = 0
        self._stacks[which, -1] = self._masked(frames[:, 0])[which]

    def _begin_streams(self, last: Pixels, info: dict[str, Any]) -> dict[str, Any]:
        """Begin new streams where the old ones have just ended (same-step mode); return what that adds to the info."""
        ended = self._ended
        final = np.full(self.num_envs, None, dtype=object)
        for env in np.flatnonzero(ended):
            final[env] = last[env]
        lost = ended & self._over & (not self.hide_game_over)
        if lost.any():
            self._start_games(lost, [None] * int(lost.sum()))
        if self._taken is not None:
            self._midway += [(self._log.num_steps, env) for env in np.flatnonzero(ended).tolist()]
        self._elapsed[ended] = 0
        self._ended = np.zeros(self.num_envs, np.bool_)
        final_info = masked_info({key: info[key] for key in ("true_score", "score", "lives")}, ended)
        added = {"final_obs": final, "_final_obs": ended, "final_info": final_info, "_final_info": ended}
        return {"lives": self._lives.copy()} | added

    def _push(self, frames: Pixels, anew: Flags) -> None:
        newest = self._masked(frames)[:, None]
        older = self._stacks[:, 1:]
        if anew.any():
            older = np.where(expanded(anew, older), np.uint8(0), older)
        self._stacks = np.concatenate([older, newest], axis=1)

    def _masked(self, frames: Pixels) -> Pixels:
        if self.mask_score:
            black_out(frames, self.game)
        return frames

    def _info(self, points: NDArray[Any], over: Flags, lost: Flags, restarting: Flags) -> dict[str, Any]:
        everywhere = np.ones(self.num_envs, np.bool_)
        info: dict[str, Any] = {"true_score": points.astype(np.int64), "score": self._scores.copy()}
        info["lives"] = self._lives.copy()
        info |= {f"_{key}": everywhere for key in info}
        hidden = over & self.hide_game_over
        if self.life_loss_penalty:
            hidden = hidden | (lost & self.hide_life_loss)
        for key, flags in (("hidden_terminated", hidden), ("restarted", restarting & self.hide_game_over)):
            if flags.any():
                info |= {key: flags, f"_{key}": flags}
        return info

    def _draw(self, actions: NDArray[np.int64], going: Flags) -> None:
        for env, player in enumerate(self._players):
            if going[env]:
                self._pictures[env] = player.act(int(actions[env]))

    def _show_start(self, envs: NDArray[np.int64], num_frames: NDArray[Any], *, loaded: bool) -> None:
        for env in envs if self._players else ():
            if loaded:
                self._players[env].load()
            self._pictures[env] = self._players[env].start(int(num_frames[env]))


def atari_single(game: str, **options: Any) -> SingleEnv:
    """Make one game as a `gymnasium.Env`; `options` are those of `AtariVectorEnv`."""
    return SingleEnv(AtariVectorEnv(game, 1, autoreset_mode=AutoresetMode.DISABLED, num_threads=1, **options))


def _check_game(game: str) -> None:
    known = games()
    if game not in known:
        near = near_names(game, known)
        raise UserError(
            f"There is no Atari game {game!r}.{near} Names are ALE's, in lower case with underscores: "
            f"{', '.join(known[:4])}, ... (all: ale_py.roms.get_all_rom_ids())."
        )

"""Demonstrations recorded: episodes as files, each written whole the moment it ends, as `read_data` reads them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import gymnasium
import numpy as np
import torch

from prefrl.control.folder import ControlFolder
from prefrl.control.policies import KeptPolicy, make_run_env
from prefrl.control.rendering import check_drawn, picture_of, prepare_pictures
from prefrl.control.run import Bounds
from prefrl.errors import UserError
from prefrl.files import npz_bytes, write_atomically
from prefrl.runs.streams import stream_seed
from prefrl.spaces import Array, Batch, map_batch, to_arrays, zip_batches


class EpisodeRecorder:
    """One episode as it is made.

    Args:
        observation: the first, as the environment returned it.
        seed: of the reset.
    """

    def __init__(self, observation: Batch, seed: int) -> None:
        self.seed = seed
        self._observations: list[Batch] = [map_batch(np.array, observation)]
        self._actions: list[Array] = []
        self._rewards: list[float] = []
        self._frames: list[Array] = []

    @property
    def num_steps(self) -> int:
        """Steps so far."""
        return len(self._actions)

    @property
    def true_return(self) -> float:
        """Sum of the environment's own rewards so far; NaN where one is not known."""
        return float(sum(self._rewards))

    def add(self, action: Any, observation: Batch, reward: Any, frame: Array | None = None) -> None:
        """Add a step: the action, what came of it, and what is seen then, `(H, W, 3)` uint8, if that is kept."""
        self._actions.append(np.array(action))
        self._observations.append(map_batch(np.array, observation))
        self._rewards.append(math.nan if reward is None else float(reward))
        if frame is not None:
            self._frames.append(np.array(frame))

    def save(self, folder: Path, number: int, *, terminated: bool, frames_per_second: float | None = None) -> Path:
        """Write the episode; return where it is, on the disk for good.

        Raises:
            UserError: it cannot be written.
        """
        observations = zip_batches(np.stack, self._observations)
        arrays: dict[str, Array] = {
            **to_arrays("observations", observations),
            "actions": np.stack(self._actions),
            "rewards": np.array(self._rewards),
            "terminated": np.array(terminated),
            "seed": np.array(self.seed),
        }
        if self._frames:
            arrays |= {"frames": np.stack(self._frames), "frames_per_second": np.array(frames_per_second or 30.0)}
        path = folder / f"episode-{number:06d}.npz"
        write_atomically(path, npz_bytes(arrays, compressed=bool(self._frames)))
        return path


def next_number(folder: Path) -> int:
    """Return the number of the next episode in a folder, from 1, above all that are there.

    Raises:
        UserError: there is something that is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file. Give --out a folder, in which each episode becomes a file.")
    taken = [re.fullmatch(r"episode-(\d+)\.npz", path.name) for path in folder.glob("episode-*.npz")]
    return 1 + max((int(match[1]) for match in taken if match), default=0)


class Player(Protocol):
    """Where a person acts: `prefrl.human_ui.playing.PlayWindow`, say."""

    def begin(self, picture: Array, told: str) -> bool:
        """Wait until the person begins an episode; False: they have had enough."""

    def act(self, picture: Array, told: str) -> Any:
        """Return the next action; None: the person ends the episode here."""

    def keep(self, picture: Array, told: str) -> bool:
        """Ask whether an episode is kept."""


def record_person(
    env: gymnasium.Env[Any, Any],
    player: Player,
    out: Path,
    num_episodes: int,
    *,
    most_steps: int,
    seed: int = 0,
    frames: bool = False,
    shows_return: bool = True,
    on_episode: Callable[[int, float], None] | None = None,
) -> list[Path]:
    """Record episodes of a person, beside those that are in the folder already; each is kept only if they say so.

    Args:
        env: draws pictures (`render_mode="rgb_array"`); closed by the caller.
        player: where they act.
        out: where the episodes go.
        num_episodes: to keep; fewer where the person has had enough.
        most_steps: of an episode.
        seed: of the environment; no two episodes begin alike.
        frames: keep what is seen as well.
        shows_return: whether the person may see the true return.
        on_episode: called with the number and the true return of each that is kept.

    Returns:
        their files.

    Raises:
        UserError: nothing can be drawn, or written.
    """
    number, tried, paths = next_number(out), 0, list[Path]()
    rate = float(env.metadata.get("render_fps") or 30)
    while len(paths) < num_episodes:
        own_seed = stream_seed(seed, "by hand", number, tried)
        tried += 1
        observation, _ = env.reset(seed=own_seed)
        recorder, over, terminated = EpisodeRecorder(observation, own_seed), False, False
        picture = picture_of(env)
        check_drawn(env, [picture])

        def told(kept: int = len(paths), recorder: EpisodeRecorder = recorder) -> str:
            known = shows_return and recorder.num_steps and recorder.true_return == recorder.true_return
            so_far = f"   return {recorder.true_return:.4g}" if known else ""
            return f"{kept} of {num_episodes} kept   step {recorder.num_steps}{so_far}"

        if not player.begin(picture, told()):
            break
        while not over:
            action = player.act(picture, told())
            if action is None:
                break
            observation, reward, terminated, truncated, _ = env.step(action)
            picture = picture_of(env)
            recorder.add(action, observation, reward, picture if frames else None)
            over = bool(terminated or truncated or recorder.num_steps >= most_steps)
        if recorder.num_steps and player.keep(picture, told()):
            paths.append(recorder.save(out, number, terminated=bool(terminated), frames_per_second=rate))
            if on_episode is not None:
                on_episode(number, recorder.true_return)
            number, tried = number + 1, 0
    return paths


def record_policy(
    run: ControlFolder,
    policy: str,
    out: Path,
    num_episodes: int,
    *,
    seed: int = 0,
    frames: bool = False,
    on_episode: Callable[[int, float], None] | None = None,
) -> list[Path]:
    """Record episodes of a run's policy in the run's environment, beside those that are in the folder already.

    Continuous actions are taken without noise; discrete ones are drawn as in training.

    Args:
        run: the run.
        policy: of it: last, best, during or before.
        out: where they go.
        num_episodes: how many.
        seed: of the environments and of drawn actions; no two numbers of episodes have the same.
        frames: keep what is seen as well.
        on_episode: called with the number and the true return of each.

    Returns:
        their files.

    Raises:
        UserError: there is no such policy, nothing can be drawn where that is wanted, or nothing can be written.
    """
    settings = run.settings
    most = Bounds.of(settings).max_steps
    first, paths = next_number(out), []
    with (
        closing(KeptPolicy(run, policy)) as kept,
        closing(make_run_env(settings, render_mode="rgb_array" if frames else None)) as env,
        torch.random.fork_rng(devices=[]),
    ):
        if frames:
            prepare_pictures(env)
        rate = float(env.metadata.get("render_fps") or 30)
        for number in range(first, first + num_episodes):
            own_seed = stream_seed(seed, "demonstration", number)
            kept.seed(own_seed)
            observation, _ = env.reset(seed=own_seed)
            recorder, over, terminated = EpisodeRecorder(observation, own_seed), False, False
            while not over:
                action = kept.act(map_batch(lambda x: np.asarray(x)[None], observation))[0]
                observation, reward, terminated, truncated, _ = env.step(action)
                frame = picture_of(env) if frames else None
                if frame is not None:
                    check_drawn(env, [frame])
                recorder.add(action, observation, reward, frame)
                over = bool(terminated or truncated or recorder.num_steps >= most)
            paths.append(recorder.save(out, number, terminated=bool(terminated), frames_per_second=rate))
            if on_episode is not None:
                on_episode(number, recorder.true_return)
    return paths

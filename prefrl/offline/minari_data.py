"""Minari's data sets, read and written by the library itself: https://minari.farama.org."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec

from prefrl.errors import UserError, first_line, require
from prefrl.offline.data import GivenEpisode, Spaces, World
from prefrl.spaces import Batch

EXTRA = "offline"


def is_minari(path: Path) -> bool:
    """Tell whether a folder is one of Minari's data sets, or the folder `data` in it."""
    return (path / "metadata.json").is_file() or (path / "data" / "metadata.json").is_file()


def read_minari(place: str) -> tuple[Spaces, World, list[GivenEpisode]]:
    """Read a data set.

    Args:
        place: its id, of those on this machine (`minari list local`), its folder, or the folder `data` in it.

    Raises:
        UserError: there is none, it cannot be read, or its observations are of a kind that is not known here.
        MissingExtraError: minari or h5py is not installed.
    """
    minari = require("minari", EXTRA)
    require("h5py", EXTRA)
    path = Path(place)
    try:
        if path.is_dir():
            data = minari.MinariDataset(path if (path / "metadata.json").is_file() else path / "data")
        else:
            data = minari.load_dataset(place)
    except FileNotFoundError:
        raise UserError(
            f"There are no data {place!r}: neither a file or folder nor a Minari data set on this machine. "
            f"List those with: minari list local; fetch one with: minari download {place}"
        ) from None
    except Exception as error:  # whatever a damaged file makes it raise
        raise UserError(f"The Minari data set {place!r} cannot be read: {first_line(error)}") from error
    spaces = data.observation_space, data.action_space
    try:
        seeds = [about.get("seed") for about in data.storage.get_episode_metadata(data.episode_indices)]
        episodes = [_episode(place, e, seed) for e, seed in zip(data.iterate_episodes(), seeds, strict=True)]
    except UserError:
        raise
    except Exception as error:  # likewise
        raise UserError(f"The Minari data set {place!r} cannot be read: {first_line(error)}") from error
    return spaces, _world(data.env_spec), episodes


def _episode(place: str, episode: Any, seed: int | None) -> GivenEpisode:
    ends = np.asarray(episode.terminations, np.bool_)
    if ends[:-1].any():
        raise UserError(
            f"Episode {episode.id} of {place} terminates at step {int(np.argmax(ends))} and goes on to {len(ends)}: "
            "expected episodes that end where they terminate. Split it with minari."
        )
    return GivenEpisode(
        observations=_batch(place, episode.observations),
        actions=np.asarray(episode.actions),
        true_rewards=np.asarray(episode.rewards, np.float64),
        terminated=bool(ends[-1:].any()),
        seed=seed,
    )


def _batch(place: str, values: Any) -> Batch:
    if isinstance(values, dict):
        if not all(isinstance(one, np.ndarray) for one in values.values()):
            raise UserError(f"The observations of {place} are nested: expected one array, or a Dict of arrays.")
        return dict(values)
    if not isinstance(values, np.ndarray):
        raise UserError(f"The observations of {place} are a {type(values).__name__}: expected an array, or a Dict.")
    return values


def _world(spec: EnvSpec | None) -> World:
    if spec is None:
        return World()
    options = {name: value for name, value in spec.kwargs.items() if name != "render_mode"}
    return World(env_id=spec.id, options=options, max_episode_steps=spec.max_episode_steps)


def write_minari(name: str, env: gymnasium.Env[Any, Any], episodes: Sequence[GivenEpisode]) -> Path:
    """Write a data set, as one of those on this machine; return its folder.

    Args:
        name: its id, e.g. `"cheetah/mixed-v0"`.
        env: the environment that it is of.
        episodes: of it.

    Raises:
        UserError: there is one of that name, or it cannot be written.
        MissingExtraError: minari or h5py is not installed.
    """
    minari = require("minari", EXTRA)
    require("h5py", EXTRA)
    buffers = [
        minari.data_collector.EpisodeBuffer(
            id=number,
            seed=episode.seed,
            observations=episode.observations,
            actions=episode.actions,
            rewards=np.asarray(episode.true_rewards).tolist(),
            terminations=_last(len(episode.actions), episode.terminated),
            truncations=_last(len(episode.actions), not episode.terminated),
            infos={},
        )
        for number, episode in enumerate(episodes)
    ]
    try:
        data = minari.create_dataset_from_buffers(
            name, buffers, env=env.spec, observation_space=env.observation_space, action_space=env.action_space
        )
    except Exception as error:  # of whatever kind the library raises
        raise UserError(f"The Minari data set {name!r} cannot be written: {first_line(error)}") from error
    return Path(data.spec.data_path).parent


def _last(num_steps: int, value: bool) -> list[bool]:
    return [*([False] * (num_steps - 1)), value]

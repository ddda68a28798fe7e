"""Where data are read from: a Minari data set, the history of a run, or episodes saved as `.npz` files."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from prefrl.control.folder import ControlFolder
from prefrl.errors import UserError, first_line
from prefrl.files import npz_arrays, read_plain
from prefrl.history import Episode, History
from prefrl.offline.data import NO_ENVIRONMENT, OTHER_ENVIRONMENT, GivenEpisode, OfflineData, Spaces, World, make_data
from prefrl.offline.minari_data import is_minari, read_minari
from prefrl.runs.checkpoint import newest_checkpoint
from prefrl.runs.folder import format_of
from prefrl.spaces import Array, Batch, from_arrays


def read_data(place: str, world: World | None = None, *, mend: str = OTHER_ENVIRONMENT) -> OfflineData:
    """Read data from wherever they lie.

    Args:
        place: a run of `prefrl train`, an episode `.npz` or a folder of them, or a Minari data set: its id, its folder,
            or the folder `data` in it.
        world: the environment that they are of, instead of what they say.
        mend: what to do where they are of another, for the message.

    Raises:
        UserError: there is nothing of these kinds, it cannot be read, or it does not fit the environment.
        MissingExtraError: it is a Minari data set, and minari is not installed.
    """
    path = Path(place)
    if path.suffix == ".npz" or (path.is_dir() and not is_minari(path) and any(path.glob("*.npz"))):
        spaces, said, episodes = read_npz(path, world or World())
    elif path.is_dir() and not is_minari(path):
        spaces, said, episodes = _read_run(path)
    else:
        spaces, said, episodes = read_minari(place)
    return make_data(place, spaces, world or said, episodes, mend=mend)


def read_npz(path: Path, world: World) -> tuple[Spaces, World, list[GivenEpisode]]:
    """Read episodes saved as `.npz`, in the order of their names.

    Args:
        path: a file or a folder of them, each an episode of T steps: `observations` `(T + 1, ...)`, or one array
            `observations/NAME` for each entry of a Dict; `actions` `(T, ...)`; if they are known, `rewards` `(T,)`;
            `terminated`, True where the last step ended the task; `frames` `(T, H, W, 3)` uint8 with
            `frames_per_second`, and `seed` of the reset.
        world: the environment that they are of, whose spaces are theirs.

    Raises:
        UserError: they cannot be read, or it is not known what they are of.
    """
    paths = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    episodes = [_npz_episode(one) for one in paths]
    if world.env_id == NO_ENVIRONMENT:
        return _spaces_of(episodes), world, episodes
    env = world.make()
    spaces = env.observation_space, env.action_space
    env.close()
    return spaces, world, [_cast(episode, spaces) for episode in episodes]


def _npz_episode(path: Path) -> GivenEpisode:
    try:
        arrays = npz_arrays(read_plain(path))
        observations, actions = from_arrays("observations", arrays), arrays["actions"]
    except KeyError as error:
        name = str(error.args[0]).removeprefix("no array named ")
        raise UserError(f"{path} holds no {name}: expected the observations and actions of an episode.") from None
    except (OSError, ValueError, UserError) as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}") from None
    if actions.ndim == 0:
        raise UserError(f"{path}: actions must be (T, ...), one for each step. Received a single number.")
    ends = np.asarray(arrays.get("terminated", False), np.bool_).ravel()
    if ends[:-1].any():
        raise UserError(f"{path}: only the last step of an episode may terminate it. Save each to its own file.")
    return GivenEpisode(
        observations=observations,
        actions=actions,
        true_rewards=arrays.get("rewards", np.full(len(actions), np.nan)),
        terminated=bool(ends[-1:].any()),
        frames=arrays.get("frames"),
        frames_per_second=float(_number(path, "frames_per_second", arrays) or 30.0),
        seed=None if (seed := _number(path, "seed", arrays)) is None else int(seed),
    )


def _number(path: Path, name: str, arrays: Mapping[str, Array]) -> float | None:
    """Return a single number of an episode, None where it has none of that name."""
    value = arrays.get(name)
    if value is not None and (value.size != 1 or value.dtype.kind not in "iuf" or not 0 <= value.item() < 2**63):
        got = f"{value}"[:60] if value.size == 1 else f"an array of shape {value.shape}"
        raise UserError(f"{path}: {name} must be one number from 0. Received {got}")
    return None if value is None else value.item()


def _cast(episode: GivenEpisode, spaces: Spaces) -> GivenEpisode:
    """Return an episode with numbers of its space's precision, where they are of its kind."""

    def like(space: gymnasium.Space[Any], values: Array) -> Array:
        dtype = np.dtype(space.dtype)
        return values.astype(dtype) if dtype.kind == values.dtype.kind == "f" else values

    observations: Batch = episode.observations
    if isinstance(observations, Mapping) and isinstance(spaces[0], gymnasium.spaces.Dict):
        known = spaces[0].spaces
        observations = {key: like(known[key], v) if key in known else v for key, v in observations.items()}
    elif not isinstance(observations, Mapping):
        observations = like(spaces[0], observations)
    return replace(episode, observations=observations, actions=like(spaces[1], episode.actions))


def _spaces_of(episodes: Sequence[GivenEpisode]) -> Spaces:
    """Return spaces guessed from the values, of data that do not say what they are of; it is said."""
    first = episodes[0]

    def of(values: Array) -> gymnasium.Space[Any]:
        return gymnasium.spaces.Box(-np.inf, np.inf, values.shape[1:], values.dtype.type)

    if isinstance(first.observations, Mapping):
        seen: gymnasium.Space[Any] = gymnasium.spaces.Dict({key: of(v) for key, v in first.observations.items()})
    else:
        seen = of(first.observations)
    actions = first.actions
    done: gymnasium.Space[Any]
    if actions.dtype.kind == "f":
        both = np.concatenate([episode.actions for episode in episodes])
        done = gymnasium.spaces.Box(both.min(0), both.max(0), dtype=actions.dtype.type)
    elif actions.ndim == 1:
        done = gymnasium.spaces.Discrete(1 + max(int(episode.actions.max(initial=0)) for episode in episodes))
    else:
        raise UserError("Whole numbers as actions of several parts can be of many spaces: say which by --env ENV.")
    warnings.warn(f"No environment is named: actions are taken to be {done}, which is what there is.", stacklevel=2)
    return seen, done


def _read_run(path: Path) -> tuple[Spaces, World, list[GivenEpisode]]:
    """Read what the agent of a run did, as far as its newest checkpoint keeps it."""
    if format_of(path) != ControlFolder.FORMAT:
        raise UserError(
            f"There are no data in {path}: expected a run of prefrl train, a Minari data set, or a folder of episodes "
            "as .npz files (docs/offline.md)."
        )
    folder = ControlFolder.open(path)
    checkpoint, refused = newest_checkpoint(folder)
    if checkpoint is None:
        raise UserError(" ".join([f"The run in {path} has no readable checkpoint yet.", *refused]))
    part = checkpoint.state.part("history")
    world = World.of(folder.settings)
    env = world.make()
    spaces = env.observation_space, env.action_space
    env.close()
    return spaces, world, [_of_history(one) for one in History.restore(part.arrays, part.values).episodes]


def _of_history(episode: Episode) -> GivenEpisode:
    whole = episode.segment(0, episode.num_steps)
    return GivenEpisode(
        observations=whole.observations,
        actions=whole.actions,
        true_rewards=whole.true_rewards,
        terminated=episode.terminated,
    )

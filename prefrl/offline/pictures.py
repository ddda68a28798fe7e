"""What people are shown of data: frames that were saved with them, or their episodes played again in the environment.

An episode can be played again where its seed is known: reset with it, the environment is led by the actions through the
same observations. Where it is not, because it is another version or has another wrapper, nobody is asked about it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import gymnasium
import numpy as np

from prefrl.control.rendering import picture_of, prepare_pictures
from prefrl.errors import UserError
from prefrl.history import History
from prefrl.offline.data import EVERYTHING, NO_ENVIRONMENT, GivenEpisode, OfflineData
from prefrl.segments import Segment
from prefrl.spaces import Array, Batch, to_arrays
from prefrl.store import PreferenceStore
from prefrl.store.clips import clip_of

MEND = (
    "Give episodes with frames as .npz files, or data that say their environment and the seeds of their episodes, as "
    "Minari's do; or ask a teacher: --annotator teacher."
)
NEAR = 1e-4  # relative; MuJoCo's last digits are those of a processor


def shown_history(data: OfflineData) -> History:
    """Return the episodes of data that people can be shown.

    Raises:
        UserError: there are none.
    """
    drawn = [episode.frames is not None for episode in data.episodes]
    if not all(drawn) and data.world.env_id != NO_ENVIRONMENT:
        with closing(data.world.make()) as env:
            drawn = [seen or _is_played_again(env, one) for seen, one in zip(drawn, data.episodes, strict=True)]
    if not any(drawn):
        raise UserError(
            f"People cannot be shown these data: there are no frames, and no episode can be played again. {MEND}"
        )
    if not all(drawn):
        warnings.warn(
            f"{len(drawn) - sum(drawn)} of {len(drawn)} episodes hold no frames and cannot be played again from their "
            "seeds; they are not asked about.",
            stacklevel=2,
        )
    history = History(EVERYTHING)
    history.closed = [data.history.closed[number] for number in np.flatnonzero(drawn)]
    return history


def _is_played_again(env: gymnasium.Env[Any, Any], episode: GivenEpisode) -> bool:
    if episode.seed is None:
        return False
    seen = to_arrays("", episode.observations)
    for step, observation in enumerate(_play(env, episode)):
        there = to_arrays("", observation)
        if not all(np.allclose(there[name], seen[name][step], NEAR, NEAR) for name in seen):
            return False
    return True


def _play(env: gymnasium.Env[Any, Any], episode: GivenEpisode) -> Iterator[Batch]:
    """Yield the observations of an episode as the environment gives them again."""
    observation, _ = env.reset(seed=episode.seed)
    yield observation
    for action in episode.actions:
        observation, *_ = env.step(action)
        yield observation


def add_clips(store: PreferenceStore, data: OfflineData) -> int:
    """Draw what open queries show and has no clip yet; return how many segments these are.

    Raises:
        UserError: the environment cannot be drawn here.
    """
    shown = {segment.id: segment for query in store.open_queries() for segment in query.segments}
    there = store.clips(list(shown))
    missing: dict[int, list[Segment]] = {}
    for name, segment in shown.items():
        if name not in there:
            missing.setdefault(segment.episode, []).append(segment)
    env: gymnasium.Env[Any, Any] | None = None
    try:
        for number, segments in missing.items():
            episode = data.episodes[number]
            frames, rate = episode.frames, episode.frames_per_second
            if frames is None:
                if env is None:
                    env = data.world.make("rgb_array")
                    prepare_pictures(env)
                frames, rate = _draw(env, episode, segments), float(env.metadata.get("render_fps") or 30)
            for one in segments:
                store.add_clip(one.id, clip_of(frames[one.start : one.start + len(one)], rate))
    finally:
        if env is not None:
            env.close()
    return sum(map(len, missing.values()))


def _draw(env: gymnasium.Env[Any, Any], episode: GivenEpisode, segments: list[Segment]) -> Any:
    """Return the pictures after each step of an episode, as far as these segments show them."""
    wanted = {step for one in segments for step in range(one.start, one.start + len(one))}
    pictures: dict[int, Array] = {}
    for step, _ in enumerate(_play(env, episode), start=-1):
        if step in wanted:
            pictures[step] = picture_of(env)
        if len(pictures) == len(wanted):
            break
    blank = np.zeros_like(next(iter(pictures.values())))
    return [pictures.get(step, blank) for step in range(max(wanted) + 1)]

"""Segments of what a kept policy does, played anew, with their clips: of any run, whatever it saved of its steps."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch

from prefrl.control.folder import ControlFolder
from prefrl.control.policies import KeptPolicy, make_run_env
from prefrl.control.rendering import check_drawn, picture_of, prepare_pictures
from prefrl.errors import UserError
from prefrl.segments import Segment
from prefrl.spaces import Array, Batch, map_batch, zip_batches
from prefrl.store import Clip
from prefrl.store.clips import clip_of

LATEST_START = 200  # step of an episode at which a window begins at the latest
ATTEMPTS = 20


@dataclass(frozen=True, kw_only=True)
class Window:
    """Where to look at an episode."""

    seed: int
    """Of the environment's reset."""
    start: int
    """Step that the window begins with, where the episode lasts so long; else it begins as late as it can."""


def draw_windows(num: int, rng: np.random.Generator) -> list[Window]:
    """Return windows at random places of random episodes."""
    return [Window(seed=int(rng.integers(2**31)), start=int(rng.integers(LATEST_START))) for _ in range(num)]


def play(folder: ControlFolder, policy: str, windows: list[Window]) -> list[tuple[Segment, Clip]]:
    """Play a policy of a run and return what it did in each window, with its clip.

    Args:
        folder: the run.
        policy: by its name in the folder.
        windows: where to look; each is of an episode of its own.

    Raises:
        UserError: there is no such policy, nothing can be drawn here, or its episodes are shorter than a segment.
    """
    settings = folder.settings
    length = settings.segment_length
    with closing(make_run_env(settings, render_mode="rgb_array")) as env, closing(KeptPolicy(folder, policy)) as kept:
        prepare_pictures(env)
        rate = float(env.metadata.get("render_fps") or 30)
        found = []
        for window in windows:
            segment, frames = _one(env, kept, window, length, drawn=True)
            check_drawn(env, frames)
            found.append((segment, clip_of(frames, rate)))
    return found


def play_unseen(folder: ControlFolder, policy: str, windows: list[Window]) -> list[Segment]:
    """Play a policy as `play` does, and draw nothing: for those who judge by numbers."""
    length = folder.settings.segment_length
    with closing(make_run_env(folder.settings)) as env, closing(KeptPolicy(folder, policy)) as kept:
        return [_one(env, kept, window, length, drawn=False)[0] for window in windows]


def _one(
    env: gymnasium.Env[Any, Any], kept: KeptPolicy, window: Window, length: int, *, drawn: bool
) -> tuple[Segment, list[Array]]:
    """Play one window; the same seed gives the same actions, also where they are sampled."""
    with torch.random.fork_rng(devices=[]):
        kept.seed(window.seed)
        return _played(env, kept, window, length, drawn=drawn)


def _played(
    env: gymnasium.Env[Any, Any], kept: KeptPolicy, window: Window, length: int, *, drawn: bool
) -> tuple[Segment, list[Array]]:
    start = window.start
    for attempt in range(ATTEMPTS):
        observation, _ = env.reset(seed=window.seed + attempt)
        observations: list[Batch] = [map_batch(np.array, observation)]
        actions: list[Any] = []
        rewards: list[float] = []
        frames: list[Array] = []
        while True:
            action = kept.act(map_batch(lambda x: np.asarray(x)[None], observation))[0]
            observation, reward, terminated, truncated, _ = env.step(action)
            observations.append(map_batch(np.array, observation))
            actions.append(np.array(action))
            rewards.append(math.nan if reward is None else float(reward))
            if drawn and len(actions) > start:
                frames.append(picture_of(env))
            if terminated or truncated or len(actions) == start + length:
                break
        if len(actions) == start + length:
            part = slice(start, start + length)
            segment = Segment(
                observations=zip_batches(np.stack, observations[start : start + length + 1]),
                actions=np.stack(actions[part]),
                true_rewards=np.array(rewards[part], np.float64),
                terminated=bool(terminated),
                truncated=bool(truncated),
                start=start,
            )
            return segment, frames
        start = max(0, min(start, len(actions) - length))  # the episode was too short for it
    raise UserError(
        f"Nothing can be asked: {ATTEMPTS} episodes in a row were shorter than a segment of {length} steps."
    )

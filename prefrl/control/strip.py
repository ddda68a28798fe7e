"""The agent along its training: policies kept now and then, and a short film of each, for those who teach it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from prefrl.clips.codec import FILMS, encode_clip
from prefrl.control.folder import ControlFolder
from prefrl.control.policies import KeptPolicy, make_run_env
from prefrl.control.rendering import prepare_pictures, record_episode
from prefrl.files import write_atomically
from prefrl.runs.streams import stream_seed
from prefrl.spaces import map_batch

NUM_KEPT = 12  # policies over the steps that a run was planned for
FILM_STEPS = 100
_START = "at-"


def is_due(before: int, now: int, total: int) -> bool:
    """Tell whether a policy is to be kept when `now` of `total` steps are made, and `before` were made last time."""
    every = max(1, total // NUM_KEPT)
    return now // every > before // every


def policy_name(num_env_steps: int) -> str:
    """Return under which name the policy after so many steps is kept."""
    return f"{_START}{num_env_steps:012d}"


def kept(folder: ControlFolder) -> dict[int, str]:
    """Return the names of the policies kept along a training by their steps; that before it began is of step 0."""
    found = {int(path.stem.removeprefix(_START)): path.stem for path in folder.policies.glob(f"{_START}*.pt")}
    return ({0: "before"} if (folder.policies / "before.pt").is_file() else {}) | dict(sorted(found.items()))


def film_path(folder: ControlFolder, num_env_steps: int) -> Path:
    """Return where the film of the policy after so many steps lies."""
    return folder.path / FILMS / f"{num_env_steps:012d}.mp4"


def not_filmed(folder: ControlFolder) -> list[int]:
    """Return the steps of policies that have no film yet, the newest first."""
    return [steps for steps in reversed(kept(folder)) if not film_path(folder, steps).is_file()]


def film(folder: ControlFolder, num_env_steps: int) -> None:
    """Film the policy after so many steps, always from the same start.

    Raises:
        UserError: there is no such policy, or the environment cannot be drawn here.
    """
    settings = folder.settings
    with (
        closing(make_run_env(settings, render_mode="rgb_array")) as env,
        closing(KeptPolicy(folder, kept(folder)[num_env_steps])) as policy,
    ):
        prepare_pictures(env)

        def act(observation: Any) -> Any:
            return policy.act(map_batch(lambda x: np.asarray(x)[None], observation))[0]

        seed = stream_seed(settings.seed, "video")
        clip = record_episode(env, act, None, num_steps=FILM_STEPS, seed=seed)
        encoded = encode_clip(clip.frames, float(env.metadata.get("render_fps") or 30))
    path = film_path(folder, num_env_steps)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, encoded.data)

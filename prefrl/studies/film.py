"""The agent of a control run before, during and after training, filmed side by side."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from prefrl.control.folder import ControlFolder
from prefrl.control.policies import KeptPolicy, make_run_env
from prefrl.control.rendering import choose_gl_backend, fast_rendering, follow_agent, quiet_sdl, record_episode
from prefrl.errors import UserError
from prefrl.runs.streams import stream_seed
from prefrl.spaces import map_batch
from prefrl.studies.video import write_gif, write_video


def record_video(
    folder: ControlFolder, out: Path | None = None, *, num_steps: int = 200, seed: int | None = None
) -> Path:
    """Film the agent before, during and after training, side by side; return the file's path.

    Args:
        folder: a finished run.
        out: a file ending in `.mp4` or `.gif`; None: `videos/training.mp4` in the run folder.
        num_steps: steps of each clip.
        seed: seed of the environment.

    Raises:
        UserError: the run is not finished, or nothing can be drawn on this machine.
    """
    path = out or folder.videos / "training.mp4"
    if path.suffix not in (".mp4", ".gif"):
        raise UserError(f"A video must end in .mp4 or .gif. Received {path}")
    choose_gl_backend()
    settings = folder.settings
    seed = stream_seed(settings.seed, "video") if seed is None else seed
    reward = folder.load_reward()
    env = make_run_env(settings, render_mode="rgb_array")
    try:
        quiet_sdl(env)
        fast_rendering(env)
        follow_agent(env)
        clips = []
        for name, title in (("before", "before training"), ("during", "halfway"), ("last", "after training")):
            with closing(KeptPolicy(folder, name)) as kept:

                def act(observation: Any, kept: KeptPolicy = kept) -> Any:
                    return kept.act(map_batch(lambda x: np.asarray(x)[None], observation))[0]

                clip = record_episode(env, act, reward, num_steps=num_steps, seed=seed)
                if not settings.shows_true_reward:
                    clip = replace(clip, true_rewards=np.full(len(clip.frames), np.nan))  # which is not drawn
                clips.append((title, clip))
        fps = float(env.metadata.get("render_fps") or 30)
    finally:
        env.close()
    path.parent.mkdir(parents=True, exist_ok=True)
    name_of_true = "environment's" if settings.by_own_measure else "true"
    if path.suffix == ".gif":
        write_gif(path, clips, fps, side_by_side=True, max_width=720, num_colours=128, true_name=name_of_true)
    else:
        write_video(path, clips, fps, side_by_side=True, max_width=1200, true_name=name_of_true)
    return path

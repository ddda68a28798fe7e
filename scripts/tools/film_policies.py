"""Films policies that a run kept, side by side, as a small GIF.

python scripts/tools/film_policies.py RUN OUT.gif "before:before training" "during:halfway"
"""

from pathlib import Path

import numpy as np
import tyro

from prefrl.control.folder import ControlFolder
from prefrl.control.policies import KeptPolicy, make_run_env
from prefrl.control.rendering import choose_gl_backend, prepare_pictures, record_episode
from prefrl.rewards import RewardEnsemble
from prefrl.studies.video import write_gif


def main(
    run: tyro.conf.Positional[Path], out: tyro.conf.Positional[Path], policies: tyro.conf.Positional[tuple[str, ...]]
) -> None:
    """Write the film.

    Args:
        run: the run folder.
        out: the GIF.
        policies: `NAME:TITLE` of each.
    """
    folder = ControlFolder.open(run)
    choose_gl_backend()
    env = make_run_env(folder.settings, render_mode="rgb_array")
    prepare_pictures(env)
    reward, clips = RewardEnsemble.load(folder.reward_path), []
    for given in policies:
        name, _, title = given.partition(":")
        kept = KeptPolicy(folder, name)
        act = lambda observation, kept=kept: kept.act(np.asarray(observation)[None])[0]  # noqa: E731
        clips.append((title, record_episode(env, act, reward, num_steps=120, seed=1)))
    write_gif(out, clips, 20, side_by_side=True, max_width=560, num_colours=96)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

"""The verb that records demonstrations: `demo record`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import tyro

from prefrl.envs import TASKS
from prefrl.errors import UserError
from prefrl.offline.recording import record_policy
from prefrl.verbs.common import open_run


def record(
    env: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="ENV")]],
    *,
    policy: Path,
    out: Path,
    name: str = "last",
    episodes: int = 10,
    seed: int = 0,
    frames: bool = False,
    true_reward: bool = True,
    trust: bool = False,
) -> None:
    """Record episodes of a run's policy as demonstrations, a file each, beside those that are there already.

    Args:
        env: the environment, which must be that of the run.
        policy: folder of the run, e.g. RUN/baseline for the policy that was trained on the true reward.
        out: folder in which each episode becomes a file.
        name: the run's policy: last, best, during or before.
        episodes: how many to record.
        seed: of the environments and of drawn actions.
        frames: keep pictures too, which people can be shown.
        true_reward: show the true return of each episode.
        trust: this run was made by another user or on another machine: use what its config.json names.
    """
    if episodes < 1:
        raise UserError(f"--episodes must be at least 1. Received {episodes}")
    run = open_run(policy, trust=trust)
    there = run.settings.env_id
    if TASKS.name(env) != there:
        raise UserError(f"The run in {policy} is of {there}, not of {env}. Give a run of {env}, or record {there}.")

    def tell(number: int, true_return: float) -> None:
        told = f": true return {true_return:.5g}" if true_reward and true_return == true_return else ""
        print(f"Episode {number}{told}", file=sys.stderr)

    paths = record_policy(run, name, out, episodes, seed=seed, frames=frames, on_episode=tell)
    print(f"{len(paths)} episodes recorded. Train with: prefrl train {env} --demonstrations {out}")

"""The verb that records demonstrations: `demo record`."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import tyro

from prefrl.control import TrainSettings
from prefrl.control.pairs import pairs
from prefrl.control.policies import make_run_env
from prefrl.control.rendering import fast_rendering, follow_agent
from prefrl.control.run import Bounds, settle
from prefrl.envs import TASKS
from prefrl.errors import UserError, require
from prefrl.offline.recording import record_person, record_policy
from prefrl.verbs.common import open_run


def record(
    task: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="ENV")]],
    *,
    out: Path,
    policy: Path | None = None,
    name: str = "last",
    episodes: int = 10,
    keys: tuple[str, ...] = (),
    speed: float | None = None,
    seed: int = 0,
    frames: bool = False,
    true_reward: bool = True,
    env: tuple[str, ...] = (),
    wrapper: str | None = None,
    max_episode_steps: int | None = None,
    fixed_horizon: int | None = None,
    trust: bool = False,
) -> None:
    """Record episodes as demonstrations, a file each, beside those that are there: yours by keys, or a policy's.

    Args:
        task: the environment.
        out: folder in which each episode becomes a file.
        policy: folder of a run whose policy acts, e.g. RUN/baseline; default: you do, in a window.
        name: the run's policy: last, best, during or before.
        episodes: how many to record.
        keys: what your keys do: KEY=ACTION ... of discrete actions (rest=ACTION while none is held), KEY=NUMBER:VALUE
            ... of numbers; default: arrows, or digits. A gamepad's sticks and buttons work too.
        speed: steps a second at the start; default: the environment's own speed.
        seed: of the environments and of drawn actions.
        frames: keep pictures too, which people can be shown.
        true_reward: show the true return of each episode.
        env: options of the environment's constructor, as for prefrl train.
        wrapper: MODULE:FUNCTION around the environment, as for prefrl train.
        max_episode_steps: as for prefrl train.
        fixed_horizon: as for prefrl train.
        trust: this run was made by another user or on another machine: use what its config.json names.
    """
    if episodes < 1:
        raise UserError(f"--episodes must be at least 1. Received {episodes}")
    if speed is not None and not 0 < speed <= 1000:
        raise UserError(f"--speed must be above 0 and at most 1000 steps a second. Received {speed}")

    def tell(number: int, true_return: float) -> None:
        told = f": true return {true_return:.5g}" if true_reward and true_return == true_return else ""
        print(f"Episode {number}{told}", file=sys.stderr)

    options: dict[str, Any] = {"seed": seed, "frames": frames, "on_episode": tell}
    if policy is not None:
        _refuse_by_hand(
            keys=keys, speed=speed, env=env, wrapper=wrapper, max_episode_steps=max_episode_steps,
            fixed_horizon=fixed_horizon,
        )  # fmt: skip
        run = open_run(policy, trust=trust)
        there = run.settings.env_id
        if TASKS.name(task) != there:
            raise UserError(
                f"The run in {policy} is of {there}, not of {task}. Give a run of {task}, or record {there}."
            )
        paths = record_policy(run, name, out, episodes, **options)
    else:
        settings = TrainSettings(
            env_id=task, wrapper=wrapper, max_episode_steps=max_episode_steps, fixed_horizon=fixed_horizon,
            env_options=pairs(env, "options of the environment", "hide_life_loss=false"),
        )  # fmt: skip
        paths = _by_hand(settings, out, episodes, keys, speed, true_reward, options)
    if paths:
        print(f"{len(paths)} episodes recorded. Train with: prefrl train {task} --demonstrations {out}")
    else:
        print("No episode was kept.")


def _refuse_by_hand(**given: Any) -> None:
    """Refuse options that only a person's recording has."""
    for option, value in given.items():
        if value not in (None, ()):
            raise UserError(
                f"--{option.replace('_', '-')} is for recording by hand: leave it out, or leave out --policy."
            )


def _by_hand(
    given: TrainSettings, out: Path, episodes: int, keys: tuple[str, ...], speed: float | None, shows_return: bool,
    options: dict[str, Any],
) -> list[Path]:  # fmt: skip
    require("pygame", "ui")
    from prefrl.human_ui.playing import PlayWindow
    from prefrl.human_ui.steering import make_steering

    settings = settle(given)
    with closing(make_run_env(settings, render_mode="rgb_array")) as env:
        if env.render_mode != "rgb_array":
            raise UserError(f'{given.env_id} cannot be played: it has no render_mode="rgb_array".')
        if fast_rendering(env):
            follow_agent(env)
        meanings = getattr(env.unwrapped, "get_action_meanings", None)
        steering = make_steering(
            env.action_space, given=keys, task=settings.env_id, meanings=meanings() if meanings is not None else None
        )
        rate = float(env.metadata.get("render_fps") or 30)
        with closing(PlayWindow(steering, f"Show how: {given.env_id}", speed or rate)) as window:
            paths = record_person(
                env, window, out, episodes, most_steps=Bounds.of(settings).max_steps, shows_return=shows_return,
                **options,
            )  # fmt: skip
            if window.closed:
                print("The window was closed; the episode that was not over is not kept.", file=sys.stderr)
            return paths

"""Segments that last a moment only, by the environment's clock, are said."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from prefrl.control import TrainSettings, train
from prefrl.control.policies import make_run_env, warn_of_short_segments
from prefrl.envs import TASKS

TINY: dict[str, Any] = {
    "labels": 4, "steps": 400, "num_envs": 2, "warmup_steps": 100, "eval_episodes": 1,
    "hyperparameters": {"n_steps": 50, "batch_size": 50, "n_epochs": 1},
}  # fmt: skip


def said(**given: Any) -> str:
    """Return what is said of a run with these settings, whose environment keeps to its own clock or to `rate`."""
    rate = given.pop("rate", None)
    settings = TrainSettings(**given).resolve()
    env = make_run_env(settings)
    if rate is not None:
        env = gymnasium.Wrapper(env)
        env.metadata = {**env.metadata, "render_fps": rate}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_short_segments(settings, env)
    return " ".join(str(one.message) for one in caught)


def test_a_length_that_lasts_a_moment_is_said_with_one_that_lasts_a_second() -> None:
    assert "50 steps lasts 0.1 seconds" in said(env_id="CliffWalking-v1", rate=500)
    assert "--segment-length 500." in said(env_id="CliffWalking-v1", rate=500)
    assert "--segment-length 200." in said(env_id="Pendulum-v1", rate=500, segment_length=40), "its episodes have 200"
    assert "10 steps lasts 0.33 seconds" in said(env_id="Pendulum-v1", segment_length=10)  # 30 steps a second


def test_nothing_is_said_of_longer_ones_or_where_there_is_no_clock() -> None:
    assert said(env_id="Pendulum-v1") == ""
    assert said(env_id="Pendulum-v1", segment_length=12) == ""
    assert said(env_id="MountainCar-v0", fixed_horizon=0, segment_length=200, rate=1000) == "", "no longer ones"
    for rate in (float("nan"), float("inf"), "fast", 0):
        assert said(env_id="Pendulum-v1", segment_length=1, rate=rate) == ""


@pytest.mark.parametrize("env_id", [name for name in TASKS if not name.startswith(("prefrl/Atari", "prefrl/MinAtar"))])
def test_nothing_is_said_of_the_lengths_that_tasks_have(env_id: str) -> None:
    assert said(env_id=env_id) == ""


def test_it_is_said_once_where_a_run_begins(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="lasts 0.33 seconds") as caught:
        train(
            TrainSettings(env_id="Pendulum-v1", segment_length=10, **TINY), tmp_path / "run", quiet=True, baseline=True
        )
    assert sum("lasts" in str(one.message) for one in caught) == 1

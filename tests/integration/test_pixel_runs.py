"""Runs whose only observations are pictures: they go on after a crash as if there had been none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prefrl.control import TrainSettings, resume, train
from prefrl.rewards import FitSettings
from tests.outcomes import assert_same, break_off, outcome


@pytest.mark.parametrize(
    ("env_id", "options"),
    [("prefrl/Pixels-CartPole-v1", {"size": 12, "depth": 2}), ("prefrl/MinAtar-Breakout-v1", {})],
)
def test_a_run_on_pictures_ends_bit_identical_after_a_crash(
    env_id: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "MinAtar" in env_id:
        pytest.importorskip("minatar.environment")
    settings = TrainSettings(
        env_id=env_id, env_options=options, labels=8, steps=480, num_envs=2, segment_length=5, warmup_steps=80,
        num_checkpoints=4, fixed_horizon=40, hyperparameters={"n_steps": 40, "batch_size": 40, "n_epochs": 1},
        fit=FitSettings(num_steps=3, first_steps=4, batch_size=8),
    )  # fmt: skip
    whole = train(settings, tmp_path / "whole", quiet=True)
    break_off(settings, tmp_path / "run", monkeypatch)
    assert_same(outcome(whole), outcome(resume(tmp_path / "run", quiet=True)))

"""A whole run on an Atari game, at a size for the CPU."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from prefrl.control import TrainSettings, evaluate_run, train
from prefrl.control.run import resume
from prefrl.control.settings import QuerySettings
from prefrl.rewards import FitSettings, RewardEnsemble

pytest.importorskip("ale_py")

SETTINGS = TrainSettings(
    env_id="prefrl/Atari-Pong-v0",
    env_options={"hide_life_loss": False, "frame_skip": 2},
    fixed_horizon=20,
    segment_length=5,
    labels=6,
    steps=512,
    num_envs=4,
    warmup_steps=128,
    hyperparameters={"n_steps": 32, "batch_size": 64, "n_epochs": 1},
    queries=QuerySettings(num_sessions=2),
    fit=FitSettings(num_steps=1, first_steps=2),
    num_checkpoints=2,
)


def test_a_run_on_images_comes_to_its_end_and_goes_on_the_same_from_a_checkpoint(tmp_path: Path) -> None:
    folder = train(SETTINGS, tmp_path / "run", quiet=True)
    summary = folder.read_summary()
    assert summary["labels"] == 6 and summary["steps"] >= 512
    assert np.isfinite(evaluate_run(folder, "last", 2).mean)
    assert RewardEnsemble.load(folder.path).images
    shutil.copytree(folder.path, tmp_path / "again")
    (tmp_path / "again" / "summary.json").unlink()
    newest = max((tmp_path / "again" / "checkpoints").iterdir(), key=lambda path: path.name)
    newest.unlink() if newest.is_file() else shutil.rmtree(newest)
    again = resume(tmp_path / "again", quiet=True)
    assert (again.path / "reward.safetensors").read_bytes() == (folder.path / "reward.safetensors").read_bytes()
    assert again.read_summary()["true_return_mean"] == summary["true_return_mean"]

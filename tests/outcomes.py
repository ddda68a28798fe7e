"""What a control run came to, to hold another one against it bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from prefrl.control import ControlFolder, TrainSettings, train
from prefrl.control.loop import Trainer
from prefrl.runs.checkpoint import newest_checkpoint
from prefrl.store import PreferenceStore


def figures(folder: ControlFolder) -> list[dict[str, Any]]:
    """Return the metrics, without what depends on the clock."""
    return [{k: v for k, v in row.items() if k not in ("seconds", "steps_per_second")} for row in folder.read_metrics()]


def outcome(folder: ControlFolder) -> dict[str, Any]:
    """Return weights and metrics, without what depends on the clock."""
    checkpoint, refused = newest_checkpoint(folder)
    assert checkpoint is not None and not refused
    with PreferenceStore(folder.record_path) as store:
        answers = [(answer.query_id, answer.value) for _, answer in store.answers()]
    state = checkpoint.state
    return {"tensors": state.tensors, "arrays": state.arrays, "metrics": figures(folder), "answers": answers}


class Crash(Exception):
    """What a run breaks off with."""


def break_off(settings: TrainSettings, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train until the iteration after the first checkpoint is over, and break off there."""
    iterate, save = Trainer._iterate, Trainer._save_checkpoint
    saved: list[int] = []

    def noted(self: Trainer) -> None:
        save(self)
        saved.append(self.agent.num_env_steps)

    def breaks_off(self: Trainer) -> None:
        iterate(self)
        if saved:
            raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_save_checkpoint", noted)
        patched.setattr(Trainer, "_iterate", breaks_off)
        with pytest.raises(Crash):
            train(settings, out, quiet=True)


def assert_same(first: Any, second: Any, where: str = "") -> None:
    if isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_same(first[key], second[key], f"{where}/{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for index, pair in enumerate(zip(first, second, strict=True)):
            assert_same(*pair, f"{where}/{index}")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    elif hasattr(first, "tobytes"):
        assert first.tobytes() == second.tobytes(), where
    else:
        assert first == second, where

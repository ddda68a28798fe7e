"""What a control run came to, to hold another one against it bit for bit."""

from __future__ import annotations

from typing import Any

import torch

from prefrl.control import ControlFolder
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

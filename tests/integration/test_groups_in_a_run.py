"""A run taught by people who want opposite things: what it tells of each group, and what becomes of its record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prefrl.cli import main
from prefrl.control import ControlFolder

JUDGES = """
def left(segment):
    return segment.observations[1:, 2]


def right(segment):
    return -segment.observations[1:, 2]
"""
TINY = ["Pendulum-v1", "--steps", "2400", "--num-envs", "2", "--labels", "40", "--segment-length", "20", "--quiet",
        "--no-video", "--warmup-steps", "800", "--queries.initial-share", "0.8"]  # fmt: skip


@pytest.fixture
def judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with two who judge, and go there."""
    (tmp_path / "judges.py").write_text(JUDGES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_tells_of_each_group_who_is_in_it_and_what_it_got(
    judges: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    panel = ["--panel", *["judges.py:left"] * 2, "judges.py:right", "--reward.groups", "2", "--reward.serve", "right"]
    assert main(["train", *TINY, *panel, "--out", "run"]) == 0
    assert "By their own learned rewards" in capsys.readouterr().out
    summary = json.loads((judges / "run" / "summary.json").read_text())
    groups = summary["groups"]
    assert sorted(sorted(group["annotators"]) for group in groups) == [["left", "left-2"], ["right"]]
    served = next(group for group in groups if group["annotators"] == ["right"])
    assert served["weight"] > 0.9
    assert sum(group["share"] for group in groups) == pytest.approx(1.0, abs=1e-3)
    mixed = sum(group["weight"] * group["learned_return"] for group in groups)
    assert summary["learned_return_mean"] == pytest.approx(mixed, abs=0.05)
    row = ControlFolder.open(judges / "run").read_metrics()[-1]
    assert row["group_1_weight"] + row["group_2_weight"] == pytest.approx(1.0)
    assert main(["fit", "run"]) == 0
    assert "Groups of annotators" in capsys.readouterr().out
    assert main(["fit", "run", "--without", "left", "left-2", "--out", "again"]) == 2
    assert "2 groups of annotators, and only right gave answers" in capsys.readouterr().err
    assert main(["quality", "run"]) == 0


def test_one_annotator_has_no_groups(judges: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *TINY, "--reward.groups", "2", "--out", "run"]) == 2
    assert "only the teacher oracle would answer" in capsys.readouterr().err
    assert not (judges / "run").exists()
    assert main(["train", *TINY, "--panel", "oracle", "nobody.py:f", "--out", "run"]) == 2
    assert "There is no file nobody.py" in capsys.readouterr().err
    assert not (judges / "run").exists()

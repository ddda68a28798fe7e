"""Commands for one process, started several times by a launcher."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefrl.cli import main
from prefrl.errors import USER_ERROR


@pytest.mark.parametrize(
    "command", [["train", "CartPole-v1"], ["offline"], ["text", "compare"], ["text", "sample"], ["image", "pretrain"]]
)
def test_a_verb_that_shares_no_work_is_refused_under_a_launcher_and_writes_nothing(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--out", "run"]) == USER_ERROR
    said = capsys.readouterr().err
    assert "is for one process, and 2 were started" in said and "Start it without torchrun" in said
    assert not list(tmp_path.iterdir())


def test_sharing_weights_with_nobody_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["text", "sft", "--model", "m", "--data", "d.jsonl", "--out", "run", "--device", "cpu", "--shard", "True"]
    assert main(given) == USER_ERROR
    assert "and there is one" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()

"""Any single text run is drawn and told, each sentence from its own figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prefrl.cli import main
from prefrl.text.jobs.folder import TextFolder
from prefrl.text.jobs.run_report import describe_run


def run_of(
    path: Path, verb: str, metrics: list[dict[str, Any]], evaluations: Any = (), summary: Any = None
) -> TextFolder:
    folder = TextFolder.create(path, verb, {"model": "m", "data": "d.jsonl", "place": {"seed": 0}})
    rows = [{"step": i, "examples": 4 * i, "seconds": i / 2, **row} for i, row in enumerate(metrics, 1)]
    folder.metrics_path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for row in evaluations:
        folder.add_evaluation(row)
    if summary is not None:
        folder.summary_path.write_text(json.dumps(summary))
    return folder


def test_a_run_is_drawn_and_told_whether_it_is_finished_or_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = [{"loss": 1 / i, "accuracy": None if i == 3 else 0.5} for i in range(1, 41)]
    watched = [
        {"step": 0, "kl_nats": 0.0, "end_rate": 1.0, "gold": 0.0, "sample": ["prompt", "answer"]},
        {"step": 40, "kl_nats": 2.5, "end_rate": 0.5, "gold": 1},
    ]
    folder = run_of(tmp_path / "run", "dpo", metrics, watched)
    assert main(["text", "report", str(folder.path)]) == 0
    said = capsys.readouterr().out
    assert "40 steps, 160 examples, 20 seconds. The run is not finished." in said
    assert "The loss fell: 0.5208 over the first tenth of the steps, 0.026 over the last" in said
    assert "It ended 2.5 nats" in said and "Fewer responses come to their end: 100% before, 50% now" in said
    assert (folder.path / "report.png").read_bytes().startswith(b"\x89PNG") and (folder.path / "report.md").is_file()
    assert main(["text", "report", str(folder.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"]["loss"]["first"] == 1.0


@pytest.mark.parametrize(("share", "pairs", "words"), [
    (0.9, 100, "90% are in order (83% to 94% if they are independent): better than a coin"),
    (0.6, 20, "60% are in order (39% to 78% if they are independent): not told from a coin"),
    (0.1, 100, "worse than a coin"),
])  # fmt: skip
def test_what_is_held_out_has_an_interval(share: float, pairs: int, words: str, tmp_path: Path) -> None:
    bins = [[0.3, 0.4, 3], [0.7, 0.6, 3]]
    summary = {"accuracy": share, "num_pairs": pairs, "bins": bins, "loss": 0.6}
    assert words in describe_run(run_of(tmp_path / "reward", "reward", [{"loss": 1.0}], summary=summary))
    preferred = {"held_out_accuracy": share, "held_out_pairs": pairs, "held_out_margin": 0.25}
    told = describe_run(run_of(tmp_path / "dpo", "dpo", [{"loss": 1.0}], summary=preferred))
    assert words in told and "margin of the implied reward is 0.25" in told
    assert main(["text", "report", str(tmp_path / "reward")]) == 0


def test_a_loss_within_its_noise_did_not_move_and_both_log_probabilities_falling_is_said(tmp_path: Path) -> None:
    noise = [{"loss": 1 + (-1) ** i * 0.1, "chosen_reward": -i, "rejected_reward": -2.0 * i} for i in range(40)]
    told = describe_run(run_of(tmp_path / "run", "dpo", noise))
    assert "did not move by more than twice its noise" in told
    assert (
        "Both log-probabilities fell below the reference's (beta times the difference in nats is -37.5 for the" in told
    )
    rising = [{"chosen_reward": float(i), "rejected_reward": -float(i)} for i in range(40)]
    assert "Both" not in describe_run(run_of(tmp_path / "other", "dpo", rising))


def test_what_cannot_be_drawn_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_of(tmp_path / "run", "sft", [])
    for arguments, message in (([folder.path], "has no figures yet"), ([folder.path, tmp_path], "One run at a time")):
        assert main(["text", "report", *map(str, arguments)]) == 2
        assert message in capsys.readouterr().err

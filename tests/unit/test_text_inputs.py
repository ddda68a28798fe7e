"""A run goes on with the files and models that it began with, from whatever directory, or is told that they changed."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import text_models
from safetensors.torch import load_file, save_file

from prefrl.cli import main
from prefrl.text.jobs.folder import TextFolder
from prefrl.text.jobs.inputs import digests_of, settings_of
from prefrl.text.learn.sft import SFTTrainer

FAST = ["--device", "cpu", "--quiet"]


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fine-tuning that was stopped after its second step; everything that it names is named relatively."""
    place = tmp_path / "place"
    text_models.save(place / "model")
    rows = [{"prompt": f"p{i}", "response": "yes" * (1 + i % 3)} for i in range(12)]
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = SFTTrainer.step

    def step(self: SFTTrainer) -> Any:
        figures = made(self)
        if self.num_steps == 2:
            monkeypatch.setattr(SFTTrainer, "step", made)
            os.kill(os.getpid(), signal.SIGTERM)
        return figures

    monkeypatch.chdir(place)
    named = ["--model", "model", "--data", "rows.jsonl", "--training.batch-size", "2"]
    assert main(["text", "sft", *named, "--out", "whole", *FAST]) == 0
    monkeypatch.setattr(SFTTrainer, "step", step)
    assert main(["text", "sft", *named, "--out", "run", *FAST]) == 130
    return place


def test_relative_names_survive_another_working_directory(
    stopped: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["resume", str(stopped / "run"), "--quiet"]) == 0
    ends = [TextFolder.open(stopped / name).read_metrics()[-1] for name in ("run", "whole")]
    assert ends[0]["loss"] == ends[1]["loss"] and ends[0]["step"] == ends[1]["step"]
    assert main(["text", "sample", str(stopped / "run"), "--device", "cpu", "--max-tokens", "2"]) == 0, (
        "its data are found"
    )


def test_changed_data_and_models_are_refused_or_taken_knowingly(
    stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = (stopped / "rows.jsonl").read_text()
    (stopped / "rows.jsonl").write_text(rows.replace("yes", "no"))
    assert main(["resume", "run", "--quiet"]) == 2
    assert "data rows.jsonl changed" in (said := capsys.readouterr().err) and "--accept-changed" in said
    (stopped / "rows.jsonl").write_text(rows)
    weights = load_file(stopped / "model" / "model.safetensors")
    weights["lm_head.weight"][0, 0] += 1
    save_file(weights, stopped / "model" / "model.safetensors", {"format": "pt"})
    assert main(["resume", "run", "--quiet"]) == 2
    assert "model model changed" in capsys.readouterr().err
    shutil.move(stopped / "rows.jsonl", stopped / "elsewhere.jsonl")
    assert main(["resume", "run", "--quiet", "--accept-changed"]) == 2
    assert "data rows.jsonl cannot be found any more" in capsys.readouterr().err
    shutil.move(stopped / "elsewhere.jsonl", stopped / "rows.jsonl")
    assert main(["resume", "run", "--quiet", "--accept-changed"]) == 0


def test_what_is_not_a_file_has_no_digest_and_names_of_every_kind_are_found_again(tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text("def f(p, r): return [0.0] * len(p)\n")
    text_models.save(tmp_path / "m")
    (tmp_path / "m" / "adapter_config.json").write_text("{}")
    settings = {"data": "servicedesk", "model": "a/hub-id", "reward": ["reward.py:f"], "proxy": [], "references": None}
    assert set(digests_of(settings).values()) == {None}
    folder = TextFolder.create(tmp_path / "run", "ppo", settings | {"model": "m@m", "data": "sqlite:m"})
    config = folder.config | {"begun_in": str(tmp_path)}
    folder.config_path.write_text(json.dumps(config))
    assert settings_of(folder) == {
        "data": f"sqlite:{tmp_path}/m", "model": f"{tmp_path}/m@{tmp_path}/m", "reward": [f"{tmp_path}/reward.py:f"],
        "proxy": [], "references": None,
    }  # fmt: skip


def test_answers_that_came_since_are_a_change_and_what_does_not_teach_is_none(tmp_path: Path) -> None:
    from prefrl.text.data.recorded import Remark, ask_people, record_remarks

    record = str(tmp_path / "people.sqlite")
    record_remarks(record, [Remark(prompt="p", response="r", edited="s")], "ann")
    before = digests_of({"data": record})
    ask_people(record, ["q"], [["a", "b"]])
    assert digests_of({"data": record}) == before, "an open question teaches nothing"
    record_remarks(record, [Remark(prompt="p", response="r", edited="t")], "bob")
    assert digests_of({"data": record}) != before


@pytest.mark.parametrize("content", ['{"model model": NaN}', "[]", "{", '{"model model": 3}', "[" * 100_000])
def test_damaged_digests_of_inputs_are_refused_in_a_sentence(
    stopped: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (stopped / "run" / "inputs.json").write_text(content)
    assert main(["resume", str(stopped / "run"), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert "inputs.json" in said and "Restore it from a copy" in said and "Traceback" not in said

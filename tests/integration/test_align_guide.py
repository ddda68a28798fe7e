"""docs/align_a_model.md: every command of the page, in its order, with a tiny chat model in place of the hub's."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest
import transformers

from prefrl.cli import main
from prefrl.text.jobs.folder import TextFolder
from prefrl.text.learn.ppo import PPOTrainer
from tests.documents import blocks
from tests.unit import text_models
from tests.unit.test_hub import Hub, called, hub

__all__ = ["hub"]  # a fixture

PAGE = Path(__file__).resolve().parents[2] / "docs" / "align_a_model.md"
QUICK = {
    "--max-tokens": "48", "--training.episodes": "16", "--training.batch-size": "8", "--training.minibatch-size": "8",
    "--watch.prompts": "2", "--prompts": "4", "--games": "4",
}  # fmt: skip
"""Numbers that are smaller here; all other words of a command are the page's."""
ON_A_DEVICE = ("sft", "reward", "dpo", "online-dpo", "ppo", "evaluate", "sample")
TRAINING = ("sft", "reward", "dpo", "online-dpo", "ppo")


def commands() -> list[list[str]]:
    """Return the words of each command of the page, without `prefrl`."""
    found = re.findall(r"^    (prefrl (?:.*\\\n)*.*)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [shlex.split(line.replace("\\\n", " "))[1:] for line in found]


def row_of_the_page() -> dict[str, Any]:
    (source,) = [source for _, info, source in blocks(PAGE) if info == "json"]
    return json.loads(source)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the stand-in and two files of the page's form."""
    tokenizer = text_models.chat_tokenizer("chatml")
    model = text_models.build("qwen2", vocab_size=272, max_position_embeddings=1024)
    model.save_pretrained(tmp_path / "stand-in")
    tokenizer.save_pretrained(tmp_path / "stand-in")
    for name, count in (("train_prefs.jsonl", 24), ("test_prefs.jsonl", 6)):
        rows = []
        for i in range(count):
            row = row_of_the_page()
            row["prompt"] = f"Name planet {name[:2]} {i}."
            for side in ("chosen", "rejected"):
                row[side][0]["content"] = row["prompt"]
                row[side][1]["content"] += f" {i}."
            rows.append(row)
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def as_here(words: list[str]) -> list[str]:
    """Return a command with the stand-in in place of ids of the hub, and smaller numbers."""
    taken = ["stand-in" if word.startswith("Qwen/") else word for word in words]
    for option, number in QUICK.items():
        if option in taken:
            taken[taken.index(option) + 1] = number
    verb = words[1]
    more = ["--device", "cpu"] if words[0] == "text" and verb in ON_A_DEVICE else []
    return [*taken, *more, *(["--quiet"] if words[0] == "text" and verb in (*TRAINING, "resume") else [])]


def test_every_command_of_the_page_works(
    place: Path, hub: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step, said, made = PPOTrainer.step, {}, []

    def stopped(trainer: PPOTrainer) -> Any:
        figures = step(trainer)
        if trainer.num_steps == 1:
            monkeypatch.setattr(PPOTrainer, "step", step)
            os.kill(os.getpid(), signal.SIGTERM)
        return figures

    monkeypatch.setattr(PPOTrainer, "step", stopped)
    for words in commands():
        if words[0] == "push":
            done = called(words, hub, place, Path(os.environ["XDG_CONFIG_HOME"]))
            assert done.returncode == 0, done.stderr
            continue
        code = main(as_here(words))
        out = capsys.readouterr()
        assert code == (130 if words[1] == "ppo" else 0), (words, out.err)  # what resume then goes on with
        said.setdefault(" ".join(words[:2]), []).append(out.out)
        made += [words[words.index("--out") + 1]] if "--out" in words else []

    assert [words[1] for words in commands() if words[0] == "text"] == [
        "check", "sft", "reward", "report", "dpo", "online-dpo", "ppo", "resume", "report", "sample", "evaluate",
        "evaluate",
    ]  # fmt: skip
    assert "<|im_end|>" in said["text check"][0] and "chosen" in said["text check"][0]
    assert "held-out pairs" in said["text report"][0] and "are in order (" in said["text report"][0]
    assert all("proxy" in shown and "kl_nats" in shown for shown in said["text evaluate"])
    assert "Name planet tr" in said["text sample"][0]
    assert made == ["runs/sft", "runs/reward", "runs/dpo", "runs/online", "runs/ppo", "runs/cup"]
    for run in ("sft", "dpo", "online", "ppo"):
        folder = TextFolder.open(Path("runs") / run)
        assert folder.finished and folder.config["settings"]["lora"]["rank"] == 16
        assert transformers.AutoTokenizer.from_pretrained(folder.path / "model").chat_template
        assert transformers.AutoModelForCausalLM.from_pretrained(folder.path / "model").config.model_type == "qwen2"
    card = Hub.repos["anna/qwen-ultrafeedback"]["README.md"].decode()
    assert "license: apache-2.0" in card


def test_the_page_names_models_that_the_test_replaces() -> None:
    named = {word for words in commands() for word in words if "/" in word and not word.startswith(("runs/", "anna/"))}
    assert named == {"Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-7B-Instruct"}

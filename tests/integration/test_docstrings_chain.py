"""The world of docstrings wherever servicedesk is taken: the chain by its commands, and a resume on another corpus."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from prefrl.cli import main
from prefrl.envs import docstring_world
from prefrl.envs.docstring_corpus import Corpus, read_corpus
from prefrl.envs.docstring_world import Book, source_of
from prefrl.text.jobs.folder import TextFolder
from prefrl.text.learn.sft import SFTTrainer

FAST = ["--device", "cpu", "--quiet"]
PPO = ["--training.episodes", "16", "--training.batch-size", "8", "--training.minibatch-size", "8", "--training.epochs",
       "1", "--max-tokens", "24", "--watch.times", "1", "--watch.prompts", "4"]  # fmt: skip


def run(*arguments: str) -> int:
    return main(["text", *arguments])


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """Two packages, which are read in some seconds."""
    found = {name: importlib.util.find_spec(name) for name in ("gymnasium", "numpy")}
    return read_corpus([(name, Path(str(spec.origin)).parent) for name, spec in found.items() if spec])


@pytest.fixture(autouse=True)
def small(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = Book(corpus)
    monkeypatch.setattr(docstring_world, "installed_book", lambda: book)
    monkeypatch.chdir(tmp_path)


def test_the_chain_from_pretraining_to_a_policy(capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--data", "docstrings", "--size", "tiny", "--paragraphs", "200"]
    assert run("pretrain", *size, "--out", "base", *FAST) == 0
    assert "copying" in TextFolder.open(Path("base")).read_summary()
    sft = ["--data", "docstrings", "--examples", "64", "--pretraining", "docstrings"]
    assert run("sft", "--model", "base", *sft, "--training.optimiser.learning-rate", "1e-3", "--out", "sft", *FAST) == 0
    asked = ["--data", "docstrings", "--prompts", "12", "--max-tokens", "24", "--device", "cpu"]
    assert run("compare", "--model", "sft", *asked, "--out", "pairs.jsonl") == 0
    assert all(source_of(json.loads(line)["prompt"]) for line in Path("pairs.jsonl").read_text().splitlines())
    assert run("judge", "--model", "sft", *asked, "--out", "judged.jsonl") == 0
    learned = ["--model", "sft", "--data", "pairs.jsonl"]
    assert run("reward", *learned, "--references", "docstrings", "--out", "reward", *FAST) == 0
    asked = ["--model", "sft", "--data", "docstrings", "--reward", "reward"]
    assert run("ppo", *asked, *PPO, "--out", "ppo", *FAST) == 0
    assert run("dpo", *learned, *PPO[-6:], "--out", "dpo", *FAST) == 0
    for name in ("ppo", "dpo"):  # the file's prompts are known by their form
        rows = TextFolder.open(Path(name)).read_evaluations()
        assert {"gold", "copying", "language_loss"} <= set(rows[-1]) and 0 <= rows[-1]["gold"] <= 4
    capsys.readouterr()
    assert run("evaluate", "ppo", "--prompts", "4", "--max-tokens", "16", "--device", "cpu", "--json") == 0
    assert 0 <= json.loads(capsys.readouterr().out)["gold"] <= 4
    assert run("sample", "ppo", "--max-tokens", "8", "--device", "cpu", "--json") == 0
    held_out = {entry.to_prompt() for entry in docstring_world.installed_book().held_out}
    assert {json.loads(line)["prompt"] for line in capsys.readouterr().out.splitlines()} <= held_out


def test_a_run_goes_on_with_the_corpus_that_it_began_with_alone(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = SFTTrainer.step

    def step(trainer: SFTTrainer) -> Any:
        figures = made(trainer)
        if trainer.num_steps == 2:
            monkeypatch.setattr(SFTTrainer, "step", made)
            os.kill(os.getpid(), signal.SIGTERM)
        return figures

    monkeypatch.setattr(SFTTrainer, "step", step)
    size = ["--data", "docstrings", "--size", "tiny", "--paragraphs", "200"]
    assert run("pretrain", *size, "--out", "base", *FAST) == 130
    assert json.loads(Path("base/inputs.json").read_text())["data docstrings"] == corpus.digest
    other = Book(Corpus(corpus.docstrings[1:], ()))
    with monkeypatch.context() as changed:
        changed.setattr(docstring_world, "installed_book", lambda: other)
        assert run("resume", "base", "--quiet") == 2
        said = " ".join(capsys.readouterr().err.split())
        assert "data docstrings changed" in said and "--accept-changed" in said
    assert run("resume", "base", "--quiet") == 0

"""A world of text of a user's own, as docs/extending.md has it: named, and asked by what follows."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefrl.cli import main
from prefrl.envs.text_worlds import WORLDS
from prefrl.errors import UserError
from prefrl.text.data import sources
from prefrl.text.jobs.folder import TextFolder
from prefrl.text.jobs.worlds import world_of
from tests.documents import write_files

PAGE = Path(__file__).resolve().parents[2] / "docs" / "extending.md"
FAST = ["--device", "cpu", "--quiet"]


@pytest.fixture(autouse=True)
def folder_with_garden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "garden", raising=False)
    assert tmp_path / "garden.py" in write_files(PAGE, tmp_path)
    yield
    for name in ("garden", "ranks"):
        sys.modules.pop(name, None)


def test_the_commands_of_the_page_train_on_a_world_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    commands = re.findall(r"^    prefrl (text .*)$", PAGE.read_text(), re.MULTILINE)
    quick = {"400": "120", "200": "40", "128": "16"}
    more = ["--training.batch-size", "8", "--training.minibatch-size", "8", "--max-tokens", "8"]
    assert [line.split()[1] for line in commands] == ["pretrain", "sft", "ppo", "evaluate", "rl"]
    for line in (*commands[:3], commands[4]):
        arguments = [quick.get(word, word) for word in line.split()]
        options = [*more, "--watch.times", "1", "--watch.prompts", "4"] if arguments[1] in ("ppo", "rl") else []
        assert main([*arguments, *options, *FAST]) == 0
    ranked = TextFolder.open(Path("ranked"))
    assert ranked.config["settings"]["estimator"] == "ranks:by_rank"
    assert "tied_share" in ranked.read_metrics()[-1]
    assert "plants" in TextFolder.open(Path("base")).read_summary()
    rows = TextFolder.open(Path("ppo")).read_evaluations()
    assert {"gold", "plants", "language_loss"} <= set(rows[0]) and "geography" not in rows[0]
    capsys.readouterr()
    for run in ("base", "sft", "ppo"):
        assert main(["text", "sample", run, "--device", "cpu", "--max-tokens", "4", "--json"]) == 0
        asked = [json.loads(line)["prompt"] for line in capsys.readouterr().out.splitlines()]
        assert asked and all(prompt.startswith("Where does the ") for prompt in asked)
    evaluate = ["text", *commands[3].split()[1:], "--prompts", "4", "--max-tokens", "4", "--device", "cpu", "--json"]
    assert main(evaluate) == 0
    assert 0 <= json.loads(capsys.readouterr().out)["gold"] <= 1


def test_comparisons_are_of_the_world_that_is_named_beside_them(capsys: pytest.CaptureFixture[str]) -> None:
    pair = {
        "prompt": "Where does the fern number 3 stand? Answer:",
        "chosen": "In the shade.",
        "rejected": "In the sun.",
    }
    Path("pairs.jsonl").write_text("\n".join([json.dumps(pair)] * 4))
    assert (
        main(
            [
                "text",
                "pretrain",
                "--data",
                "garden:Garden",
                "--size",
                "tiny",
                "--paragraphs",
                "60",
                "--out",
                "base",
                *FAST,
            ]
        )
        == 0
    )
    dpo = [
        "text",
        "dpo",
        "--model",
        "base",
        "--data",
        "pairs.jsonl",
        "--max-tokens",
        "24",
        "--watch.times",
        "1",
        "--watch.prompts",
        "2",
    ]
    assert main([*dpo, "--watch.world", "garden:Garden", "--out", "dpo", *FAST]) == 0
    assert "gold" in TextFolder.open(Path("dpo")).read_evaluations()[0]
    capsys.readouterr()
    assert main(["text", "evaluate", "dpo", "--max-tokens", "4", "--prompts", "4", "--device", "cpu", "--json"]) == 0
    assert "gold" in json.loads(capsys.readouterr().out)
    assert main([*dpo, "--watch.world", "servicedesk", "--out", "other", *FAST]) == 2
    assert "servicedesk does not know the prompts of pairs.jsonl" in " ".join(capsys.readouterr().err.split())


def test_a_pretrained_model_of_a_file_is_asked_how_its_texts_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    text = "The fern stands in the shade and the rose stands in the sun all day long."
    Path("texts.jsonl").write_text("\n".join([json.dumps({"text": text})] * 40))
    pretrain = ["text", "pretrain", "--data", "texts.jsonl", "--size", "tiny", "--block-tokens", "24", "--out", "base"]
    assert main([*pretrain, *FAST]) == 0
    capsys.readouterr()
    assert main(["text", "sample", "base", "--device", "cpu", "--max-tokens", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["prompt"] == "The fern stands in the shade and the"


def test_what_is_no_world_is_refused() -> None:
    Path("bare.py").write_text("class Bare:\n    def __init__(self, *, seed):\n        self.seed = seed\n")
    with pytest.raises(UserError, match=r"without .*prompts.*expected what .*TextWorld lists"):
        sources.read_prompts("bare.py:Bare", seed=0, count=1)
    with pytest.raises(UserError, match=r"There is no object 'Gardn' in garden\..*Garden"):
        sources.read_prompts("garden:Gardn", seed=0, count=1)


def test_a_world_that_lacks_something_says_what() -> None:
    source = Path("garden.py").read_text()
    Path("garden.py").write_text(source.replace("return [(prompt, f", "return [] and [(prompt, f"))
    with pytest.raises(UserError, match="garden:Garden has no examples to imitate"):
        sources.read_examples("garden:Garden", seed=0, count=3)


def test_data_of_a_known_world_are_judged_by_it_and_others_by_none() -> None:
    Path("asked.jsonl").write_text(json.dumps({"prompt": WORLDS["servicedesk"](0).prompts(1)[0]}))
    Path("other.jsonl").write_text(json.dumps({"prompt": "Name a town."}))
    assert world_of("asked.jsonl", 0) is not None
    assert world_of("other.jsonl", 0) is None

"""What `prefrl text check` and `convert` say of data is what is learned from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import text_models

from prefrl.cli import main
from prefrl.text.data.chat import TemplateChat
from prefrl.text.data.forms import Reading
from prefrl.text.data.sources import read_examples, read_likes, read_prompts, read_rankings
from prefrl.text.jobs.parts import prompt_key
from prefrl.text.model.tokens import Tokens


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


HELLO = [turn("user", "Hi"), turn("assistant", "Hello")]
RUDE = [turn("user", "Hi"), turn("assistant", "What?")]
TALK = [turn("system", "Be kind."), *HELLO, turn("user", "More?"), turn("assistant", "Yes.")]
ROWS: dict[str, list[dict[str, Any]]] = {
    "comparisons": [
        {"prompt": "p", "chosen": " a", "rejected": " b"},
        {"prompt": "Hi", "chosen": HELLO, "rejected": RUDE},
        {"prompt": "Hi", "chosen": HELLO, "rejected": RUDE, "score_chosen": 3, "score_rejected": 3},
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello", "rejected": "\n\nHuman: Hi\n\nAssistant: What?"},
        {"prompt": "q", "responses": ["x", "y", "z"], "scores": [1, 3, 1]},
        {"question": "q", "response_0": "x", "response_1": "y", "better_response_id": 1},
        {"system": "Be kind.", "prompt": "q", "chosen": "x", "rejected": "y"},
    ],
    "likes": [
        {"prompt": "q", "completion": " c", "label": 0},
        {"prompt": [turn("user", "q")], "completion": [turn("assistant", "c")], "label": True},
        {"messages": TALK, "liked": False},
    ],
    "examples": [
        {"messages": TALK}, {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
        {"instruction": "Add.", "input": "1 2", "output": "3"}, {"prompt": "p", "response": " r"},
    ],
    "prompts": [{"prompt": "p"}, {"prompt": TALK[:2]}, {"query": "q"}, {"messages": TALK[:2]}],
}  # fmt: skip
READ = {
    "comparisons": read_rankings, "likes": read_likes,
    "examples": lambda data, reading: read_examples(data, seed=0, count=9, reading=reading),
    "prompts": lambda data, reading: read_prompts(data, seed=0, count=None, reading=reading),
}  # fmt: skip


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 64 tokens with a chat template."""
    folder = tmp_path_factory.mktemp("models") / "chat"
    text_models.save(folder, vocab_size=261)
    text_models.chat_tokenizer("chatml").save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("templated", [False, True])
def test_what_was_converted_teaches_what_the_original_does(kind: str, templated: bool, tmp_path: Path) -> None:
    data, out = write(tmp_path / "rows.jsonl", ROWS[kind]), tmp_path / "ours.jsonl"
    assert main(["text", "convert", "--data", data, "--out", str(out)]) == 0
    readings = [
        Reading(chat=TemplateChat(text_models.chat_tokenizer("chatml"))) if templated else Reading() for _ in "ab"
    ]
    before, after = (READ[kind](path, reading) for path, reading in zip((data, str(out)), readings, strict=True))
    if kind != "comparisons":
        assert after == before
        return
    for ours, theirs in zip(after, before, strict=True):
        assert ours.prompt == theirs.prompt and set(ours.responses) == set(theirs.responses)
        assert [tuple(item.responses[i] for i in pair) for item in (ours,) for pair in item.pairs()] == [
            tuple(item.responses[i] for i in pair) for item in (theirs,) for pair in item.pairs()
        ]


def test_the_converted_file_has_our_columns_and_the_original_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "rows.jsonl", [{"q": "p", "good": " a", "bad": " b"}, {"q": "p", "good": "a", "bad": "a"}])
    asked = ["text", "convert", "--data", data, "--columns", "prompt=q,chosen=good", "rejected=bad", "--out"]
    assert main([*asked, str(tmp_path / "ours.jsonl")]) == 0
    assert "1 of 2 rows left out: both responses are the same" in capsys.readouterr().err
    assert (tmp_path / "ours.jsonl").read_text() == '{"prompt": "p", "chosen": " a", "rejected": " b"}\n'
    for out, message in ((data, "is the file that is read"), (str(tmp_path / "ours.json"), "must end in .jsonl")):
        assert main([*asked, out]) != 0
        assert message in capsys.readouterr().err
    assert json.loads(Path(data).read_text().splitlines()[0]) == {"q": "p", "good": " a", "bad": " b"}


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["text", "check", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_rows_lengths_drops_and_the_tokens_of_one_are_told(
    chat_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = {"chosen": HELLO, "rejected": RUDE}
    rows = [{**pair, "chosen": RUDE}, pair, {**pair, "score_chosen": 1, "score_rejected": 1}]
    long = [turn("user", "Hi"), turn("assistant", "x" * 60)]
    data = write(
        tmp_path / "rows.jsonl",
        [*rows, {"chosen": long, "rejected": RUDE}, {"prompt": "p", "chosen": "a", "rejected": "b"}],
    )
    found = shown(capsys, "--data", data, "--model", str(chat_model))
    assert found["verb"] == "dpo" and found["rows"] == 5 and found["comparisons"] == 4 and found["of_prompts"] == 2
    assert found["left_out"] == {"both responses are the same": 1} and found["labels"]["tied"] == 2
    assert found["too_long"] == 1 and found["learned_from"] + found["held_out"] == 3
    assert found["through_chat_template"] == 3 and found["responses_with_an_end"] == 6
    tokens = Tokens(text_models.chat_tokenizer("chatml"))
    prompt = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert found["prompt_tokens"][2] == len(tokens.encode_text(prompt)) == found["example"]["prompt"].__len__()
    chosen, rejected = found["example"]["responses"]
    assert chosen == {"is": "chosen", "ids": tokens.encode_text("Hello<|im_end|>\n"), "loses": 0}
    assert rejected["is"] == "rejected"
    assert main(["text", "check", "--data", data, "--model", str(chat_model), "--verb", "reward"]) == 0
    said = capsys.readouterr().out
    assert (
        "H e l l o <|im_end|>" in said and "applied to 3; 1 are texts" in said and "1 comparisons: longer than" in said
    )


def test_what_is_cut_is_shown(chat_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(
        tmp_path / "rows.jsonl",
        [{"prompt": "p" * 60, "chosen": "abcdef", "rejected": "b"}, {"prompt": "p", "response": "r"}][:1],
    )
    found = shown(capsys, "--data", data, "--model", str(chat_model), "--too-long", "cut", "--max-tokens", "4")
    assert found["too_long_are"] == "cut" and found["responses_with_an_end"] == 1
    assert [found["example"]["prompt_loses"], *(r["loses"] for r in found["example"]["responses"])] == [3, 3, 0]


@pytest.mark.parametrize(("rows", "arguments", "message"), [
    (ROWS["likes"], ["--verb", "dpo"], "row 1 has the form 'prompt, completion, label'"),
    (ROWS["comparisons"], ["--verb", "rlhf"], "--verb must be one of reward"),
    ([{"prompt": "p" * 99, "chosen": "a", "rejected": "b"}], [], "No row is left to learn from.*--too-long cut"),
    ([{"prompt": "p" * 99, "chosen": "a", "rejected": "b"}], ["--too-long", "refuse"], "1 of 1 rows: longer"),
    ([{"text": "a"}], [], "prefrl text pretrain"), ([{"promt": "a"}], [], "--columns prompt=NAME"),
    ([{"prompt": "p", "responses": ["a", "b"], "scores": [1, 1]}], [], "are ties"),
    ([{"response_a": "x", "response_b": "y", "winner": "tie"}], [], "row 1: there is no prompt beside"),
])  # fmt: skip
def test_what_cannot_be_learned_from_is_refused_as_the_verb_would(
    rows: list[dict[str, Any]], arguments: list[str], message: str, chat_model: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    import re

    data = write(tmp_path / "rows.jsonl", rows)
    assert main(["text", "check", "--data", data, "--model", str(chat_model), *arguments]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and "Traceback" not in error


def test_prompts_are_checked_for_room_behind_them(
    chat_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "rows.jsonl", [{"prompt": "p" * n} for n in (5, 50, 60)])
    found = shown(capsys, "--data", data, "--model", str(chat_model), "--max-tokens", "10")
    assert (found["verb"], found["prompts"], found["learned_from"], found["too_long"]) == ("ppo", 3, 2, 1)


def test_prompts_that_differ_in_case_spaces_and_marks_are_one_prompt() -> None:
    assert prompt_key(" Say  this, please!") == prompt_key("say this please") != prompt_key("say that please")
    assert prompt_key("?!") != prompt_key("?")


def test_one_prompt_alone_judges_nothing_and_says_so(
    chat_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": said, "chosen": " a", "rejected": " b"} for said in ("One?", "one", " ONE ?")]
    data, out = write(tmp_path / "rows.jsonl", rows), tmp_path / "reward"
    asked = ["--model", str(chat_model), "--data", data, "--out", str(out), "--device", "cpu", "--quiet"]
    assert main(["text", "reward", *asked]) == 0
    assert "none is held out and nothing is judged" in capsys.readouterr().err
    assert "accuracy" not in (found := json.loads((out / "summary.json").read_text())) and found["rankings"] == 3

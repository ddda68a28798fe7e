"""Chat templates of the kinds that models have, from the file to the ids; the ids are those of trl."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import text_models

from prefrl.cli import main
from prefrl.errors import UserError
from prefrl.text.data.chat import TemplateChat
from prefrl.text.data.examples import Encoder, texts_of
from prefrl.text.data.forms import Reading
from prefrl.text.data.sources import read_likes, read_prompts, read_rankings
from prefrl.text.learn.reward_training import encode_rankings
from prefrl.text.model.tokens import Templated, Tokens, response_ids

ENDS = {
    "chatml": "<|im_end|>",
    "qwen": "<|im_end|>",
    "llama": "<|eot_id|>",
    "gemma": "<end_of_turn>",
    "mistral": "</s>",
}
GENERATION = {
    "chatml": "<|im_start|>assistant\n", "qwen": "<|im_start|>assistant\n<think>\n\n</think>\n\n",
    "llama": "<|head|>assistant<|end_head|>\n\n", "gemma": "<start_of_turn>model\n", "mistral": " [/INST]",
}  # fmt: skip
SILENT = "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


ASKED = [turn("user", "How?"), turn("assistant", "So."), turn("user", "And then,  in Zürich?")]
PAIRS: list[dict[str, Any]] = [
    {"prompt": ASKED, "chosen": [turn("assistant", "Well, <b>.")], "rejected": [turn("assistant", "<no>")]},
    {"prompt": ASKED[:1], "chosen": [turn("assistant", "é\u2028é")], "rejected": [turn("assistant", "")]},
]
IMPLICIT = [{key: [*row["prompt"], *row[key]] for key in ("chosen", "rejected")} for row in PAIRS]
ULTRA = [{"prompt": row["chosen"][0]["content"], **row, "score_chosen": 2.0, "score_rejected": 1.0} for row in IMPLICIT]
PLAIN = [
    {"prompt": "Say:", "chosen": " yes", "rejected": " no</s>"},
    {"prompt": "Say:\n", "chosen": "a", "rejected": ""},
]
TRANSCRIPTS = [
    {key: f"\n\nHuman: Hi\n\nAssistant: {said}" for key, said in (("chosen", "I do"), ("rejected", "I am"))},
]
LIKES = [
    {"prompt": row["prompt"], "completion": row[key], "label": key == "chosen"}
    for row in PAIRS for key in ("chosen", "rejected")
]  # fmt: skip
SYSTEM = [{**row, "prompt": [turn("system", "Be brief."), *row["prompt"]]} for row in PAIRS]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def of_trl(tokenizer: Any, rows: list[dict[str, Any]], *, likes: bool = False) -> list[tuple[list[int], ...]]:
    """Return the ids of prompts and responses as trl's own trainers prepare them."""
    from datasets import Dataset
    from trl import DPOTrainer, KTOTrainer
    from trl.data_utils import maybe_extract_prompt

    args = SimpleNamespace(dataset_num_proc=None, max_length=None, truncation_mode="keep_start")
    itself = SimpleNamespace(_tokenizer=tokenizer, calculate_KL=False, undesirable_weight=1.0, desirable_weight=1.0)
    columns = ("prompt", "completion", "label") if likes else ("prompt", "chosen", "rejected")
    given = [{k: v for k, v in maybe_extract_prompt(copy.deepcopy(row)).items() if k in columns} for row in rows]
    prepare = (KTOTrainer if likes else DPOTrainer)._prepare_dataset
    made = prepare(itself, Dataset.from_list(given), tokenizer, args, "check")
    names = ("prompt_ids", "completion_ids") if likes else ("prompt_ids", "chosen_ids", "rejected_ids")
    return [tuple(row[name] for name in names) for row in made]


def of_ours(tokenizer: Any, data: str, *, likes: bool = False) -> list[tuple[list[int], ...]]:
    """Return the ids that DPO or KTO learns from."""
    read: Any = read_likes if likes else read_rankings
    items = read(data, Reading(chat=TemplateChat(tokenizer)))
    rows = Encoder(Tokens(tokenizer), 4096, 1024).rows([(item.prompt, texts_of(item)) for item in items])
    return [(row.prompt, *row.responses) for row in rows if row is not None]


@pytest.mark.filterwarnings("ignore:The chat template ends a prompt")
@pytest.mark.parametrize("kind", text_models.CHATS)
@pytest.mark.parametrize(
    "rows",
    [PAIRS, IMPLICIT, ULTRA, PLAIN, LIKES, SYSTEM],
    ids=["pairs", "implicit", "ultra", "plain", "likes", "system"],
)
def test_what_is_learned_from_is_what_trl_tokenises(kind: str, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    if rows is SYSTEM and kind in ("gemma", "mistral"):
        pytest.skip("refused, see below")
    tokenizer, data = text_models.chat_tokenizer(kind, adds_bos=True), write(tmp_path / "rows.jsonl", rows)
    likes = rows is LIKES
    ours = of_ours(tokenizer, data, likes=likes)
    assert ours == of_trl(tokenizer, rows, likes=likes)
    bos = tokenizer.bos_token_id
    assert all(row[0].count(bos) <= 1 and not any(bos in ids for ids in row[1:]) for row in ours)


def test_of_transcripts_the_texts_are_trls_and_the_response_begins_behind_the_last_turn(tmp_path: Path) -> None:
    tokenizer = text_models.chat_tokenizer("chatml")
    data = write(tmp_path / "rows.jsonl", TRANSCRIPTS)
    ((prompt, *responses),) = of_ours(tokenizer, data)
    ((other, *theirs),) = of_trl(tokenizer, TRANSCRIPTS)
    assert [prompt + ids for ids in responses] == [other + ids for ids in theirs]
    assert tokenizer.decode(prompt).endswith("Assistant:") and tokenizer.decode(other).endswith("Assistant: I")


@pytest.mark.parametrize("kind", text_models.CHATS)
def test_a_prompt_ends_where_the_assistant_begins_and_an_end_of_turn_ends_a_response(kind: str, tmp_path: Path) -> None:
    tokenizer = text_models.chat_tokenizer(kind, adds_bos=True)
    tokens, data = Tokens(tokenizer), write(tmp_path / "rows.jsonl", PAIRS)
    reading = Reading(chat=TemplateChat(tokenizer))
    if kind == "qwen":
        with pytest.warns(UserWarning, match="ends a prompt alone with '<think>"):
            rankings = read_rankings(data, reading)
    else:
        rankings = read_rankings(data, reading)
    asked = read_prompts(data, seed=0, count=None, reading=Reading(chat=reading.chat))
    assert all(prompt.endswith(GENERATION[kind]) for prompt in asked)
    end = tokenizer.convert_tokens_to_ids(ENDS[kind])
    assert end in tokens.end_ids and tokens.turn_end_id == end and tokens.end_id == 1
    encoder = Encoder(tokens, 4096, 1024)
    for row in encode_rankings(encoder, rankings):
        assert all(ids[-1] == end and ids.count(end) == 1 for ids in row.responses), "where a drawn one would end"
    said = response_ids(tokens, asked[0], "Well.")
    assert said == [*tokens.encode("Well."), end], "a response that was drawn ends its turn"
    assert tokens.encode_prompt(asked[0]) == tokens.encode_text(asked[0]), "nothing is put before it"
    assert isinstance(asked[0], Templated)


def test_a_run_of_a_chat_model_is_asked_in_its_template_and_by_its_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text_models.save(tmp_path / "m", vocab_size=261)
    text_models.chat_tokenizer("chatml").save_pretrained(tmp_path / "m")
    rows = [{"q": [turn("user", name)], "a": [turn("assistant", name)]} for name in "ab"]
    named = ["--data", write(tmp_path / "rows.jsonl", rows), "--columns", "prompt=q", "response=a", "--quiet"]
    device = ["--device", "cpu", "--max-tokens", "16"]
    out = str(tmp_path / "run")
    assert main(["text", "sft", "--model", str(tmp_path / "m"), *named, "--out", out, *device]) == 0
    assert main(["text", "sample", out, "--json", "--device", "cpu", "--max-tokens", "2"]) == 0
    asked = [json.loads(line)["prompt"] for line in capsys.readouterr().out.splitlines()]
    assert asked == [f"<|im_start|>user\n{name}<|im_end|>\n<|im_start|>assistant\n" for name in "ab"]
    assert main(["text", "evaluate", out, "--json", "--device", "cpu", "--max-tokens", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["sample"][0] == asked[0]


@pytest.mark.parametrize("kind", ["gemma", "mistral", "silent"])
def test_a_template_without_a_place_for_system_messages_refuses_them(kind: str, tmp_path: Path) -> None:
    tokenizer = text_models.chat_tokenizer("chatml" if kind == "silent" else kind)
    if kind == "silent":
        tokenizer.chat_template = SILENT
    message = "leaves out the system message" if kind == "silent" else "no place for a system message"
    with pytest.raises(UserError, match=rf"row 1: The chat template .*{message}"):
        read_rankings(write(tmp_path / "rows.jsonl", SYSTEM), Reading(chat=TemplateChat(tokenizer)))

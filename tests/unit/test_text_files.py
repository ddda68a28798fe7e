"""Data files as other people write them: recognised row by row, or refused with the row and what was found."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from prefrl.chats import verdict
from prefrl.envs.text_tokens import ByteTokenizer
from prefrl.errors import UserError
from prefrl.text.data.examples import Encoder, Example, Liked, RankedResponses
from prefrl.text.data.files import read_rows
from prefrl.text.data.forms import Reading, columns_of, recognise
from prefrl.text.data.sides import LeftOut
from prefrl.text.data.sources import read_examples, read_likes, read_prompts, read_rankings
from prefrl.text.jobs.parts import split_by

PAIR = {"prompt": "p", "chosen": " a", "rejected": " b"}
RANKED = RankedResponses(prompt="p", responses=(" a", " b"), ranks=(0, 1))


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("content", [
    json.dumps(PAIR).encode(), b"\xef\xbb\xbf" + json.dumps(PAIR).encode() + b"\r\n\r\n", json.dumps([PAIR]).encode(),
    json.dumps([PAIR], indent=1).encode(), json.dumps({"data": [PAIR]}).encode(), json.dumps(PAIR).encode("utf-16"),
    gzip.compress(json.dumps(PAIR).encode(), mtime=0),  # the test is named by it, alike in every process
])  # fmt: skip
def test_encodings_and_arrays_are_read(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / ("rows.jsonl.gz" if content[:2] == b"\x1f\x8b" else "rows.json")
    path.write_bytes(content)
    assert read_rankings(str(path)) == [RANKED]


def test_only_a_line_feed_ends_a_row(tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", {**PAIR, "chosen": "a\u2028b\u0085c"})
    assert read_rankings(data)[0].responses[0] == "a\u2028b\u0085c"


@pytest.mark.parametrize(("content", "message"), [
    (b'{"prompt": "\\ud83d", "chosen": "a", "rejected": "b"}', "line 1: prompt holds half of a surrogate pair"),
    (b'{"prompt": "a", "prompt": "b"}', "line 1 names 'prompt' twice"),
    ('{"prompt": "é"}'.encode("latin-1"), "line 1 is not utf-8.*iconv"), (b'{"prompt": "a"},', "comma behind"),
    (b'{"promt": "a", "chosen": "a", "rejected": "b"}', r"row 1: .*promt, chosen, rejected.*--columns prompt=NAME"),
    (b'{"prompt": 5, "chosen": "a", "rejected": "b"}', "row 1: prompt must be a text. Received 5"),
])  # fmt: skip
def test_what_cannot_be_read_is_refused_with_its_row(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_rankings(str(path))


HELLO = [turn("user", "Hi"), turn("assistant", "Hello")]
RUDE = [turn("user", "Hi"), turn("assistant", "What?")]
CHAT = RankedResponses(prompt="\n\nHuman: Hi\n\nAssistant:", responses=(" Hello", " What?"), ranks=(0, 1))


@pytest.mark.parametrize("row", [
    {"prompt": "Hi", "chosen": HELLO, "rejected": RUDE, "score_chosen": 8, "score_rejected": 3},
    {"chosen": HELLO, "rejected": RUDE}, {"prompt": HELLO[:1], "chosen": HELLO[1:], "rejected": RUDE[1:]},
    {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello", "rejected": "\n\nHuman: Hi\n\nAssistant: What?"},
    {"question": "Hi", "chosen": "Hello", "rejected": "What?"},
    {"prompt": "Hi", "response_0": "What?", "response_1": "Hello", "better_response_id": 1, "prompt_": None},
])  # fmt: skip
def test_comparisons_of_public_data_sets_are_the_same_pair(row: dict[str, Any], tmp_path: Path) -> None:
    (found,) = read_rankings(write(tmp_path / "rows.jsonl", row))
    pairs = [(found.responses[i].strip(), found.responses[j].strip()) for i, j in found.pairs()]
    assert pairs == [("Hello", "What?")]
    if "better_response_id" not in row:
        assert found == CHAT


def test_equal_scores_are_a_tie_and_counted(tmp_path: Path) -> None:
    row = {"prompt": "Hi", "chosen": HELLO, "rejected": RUDE, "score_chosen": 8, "score_rejected": 8}
    reading = Reading()
    assert read_rankings(write(tmp_path / "rows.jsonl", row), reading)[0].ranks == (0, 0)
    assert reading.lines() == ["1 of 1 rows: a tie, for the two scores are equal."]


@pytest.mark.parametrize(("row", "ranks", "said"), [
    ({"responses": ["a", "b", "c"], "scores": ["2", "10", "n/a"]}, (1, 0), "no number are left out"),
    ({"responses": ["a", "b", "c"], "scores": [float("nan"), 1, 2.5]}, (1, 0), "no number are left out"),
    ({"chosen": "a", "rejected": "b", "score_chosen": "8.0", "score_rejected": 8}, (0, 0), "a tie"),
    ({"chosen": "a", "rejected": "b", "chosen-rating": 4, "rejected-rating": float("nan")}, (0, 1), "missing or no"),
    ({"completions": [{"response": "a", "overall_score": "7"}, {"response": "b", "overall_score": 9}]}, (1, 0), None),
])  # fmt: skip
def test_scores_are_numbers_however_they_are_written_and_what_is_none_is_counted(
    row: dict[str, Any], ranks: tuple[int, ...], said: str | None
) -> None:
    reading = Reading()
    assert recognise({"prompt": "p", **row}, reading).ranks == ranks
    assert bool(reading.lines()) == (said is not None) and all(str(said) in line for line in reading.lines())


def test_rows_with_too_few_scores_are_left_out_and_words_are_no_scores() -> None:
    row = {"prompt": "p", "responses": ["a", "b"]}
    with pytest.raises(LeftOut, match="fewer than two responses have a score"):
        recognise({**row, "scores": [1, float("inf")]}, Reading())
    for scores in (["good", "bad"], [True, False]):
        with pytest.raises(UserError, match="scores must be a number"):
            recognise({**row, "scores": scores}, Reading())


def test_each_row_has_its_own_form_and_nulls_are_absent(tmp_path: Path) -> None:
    likes = {"prompt": "q", "completion": " c", "label": 0, "chosen": None, "rejected": None}
    data = write(tmp_path / "rows.jsonl", PAIR, likes)
    assert read_likes(data)[2] == Liked(prompt="q", response=" c", liked=False)
    with pytest.raises(UserError, match=r"row 2 has the form 'prompt, completion, label'.*prefrl text kto"):
        read_rankings(data)


@pytest.mark.parametrize("row", [
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}, {"messages": HELLO},
    {"instruction": "Hi", "input": "", "output": "Hello"}, {"question": "Hi", "answer": "Hello"},
])  # fmt: skip
def test_examples_of_public_data_sets_are_one_conversation(row: dict[str, Any], tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", row)
    assert read_examples(data, seed=0, count=1) == [Example(prompt=CHAT.prompt, response=" Hello")]
    assert read_prompts(data, seed=0, count=None) == [CHAT.prompt]


def test_columns_of_other_names_are_told(tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", {"q": "p", "good": " a", "bad": " b"})
    reading = Reading(columns=columns_of(["prompt=q,chosen=good", "rejected=bad"]))
    assert read_rankings(data, reading) == [RANKED]


def test_rows_that_fit_are_kept_and_others_counted() -> None:
    encoder = Encoder(ByteTokenizer(), 20, 4, max_data_tokens=20, too_long="drop")
    rows = [("p" * 17, ("ab",)), ("p", ("a" * 18,)), ("p" * 18, ("ab",))]
    with pytest.warns(UserWarning, match="1 of 3 rows: longer than the limit"):
        assert [row is not None for row in encoder.rows(rows)] == [True, True, False]
    encoder.too_long = "refuse"
    with pytest.raises(UserError, match="1 of 3 rows"):
        encoder.rows(rows)


def test_items_of_one_prompt_are_held_out_together() -> None:
    keys = [number % 20 for number in range(60)]
    learned, held_out = split_by(keys, keys, 0)
    assert len(held_out) == 6 and not set(learned) & set(held_out)


@pytest.mark.parametrize(("said", "expected"), [
    ("A better answer is B.", "B"), ("Both are good", None), ("**A**", "A"), ("A is better than B.", "A"),
    ("B, because A is rude", "B"), ("Neither A nor B", None), ("", None),
])  # fmt: skip
def test_a_verdict_is_read_from_the_end(said: str, expected: str | None) -> None:
    assert verdict(said) == expected


@pytest.mark.parametrize("said", [1.5, [1], "1.5", float("nan")])
def test_a_verdict_between_two_values_is_not_rounded(said: Any) -> None:
    row = {"prompt": "p", "output_1": "a", "output_2": "b"}
    assert recognise(row | {"preference": 2.0}, Reading()).ranks == (1, 0)
    with pytest.raises(UserError):
        recognise(row | {"preference": said}, Reading())


def test_a_number_of_too_many_digits_is_a_sentence(tmp_path: Path) -> None:
    for name, text in (
        ("rows.jsonl", '{"a": 1}\n{"a": ' + "9" * 10_000 + "}\n"),
        ("rows.json", "[" + "9" * 10_000 + "]"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match="is not JSON"):
            read_rows(tmp_path / name)

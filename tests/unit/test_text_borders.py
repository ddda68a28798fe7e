"""Tokens at the border of prompt and response: no second begin, no space of its own, no second end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import text_models
import torch

from prefrl.errors import UserError
from prefrl.text.data.examples import Encoder
from prefrl.text.learn.policy_measures import answer_prompts
from prefrl.text.model.generation import SamplingSettings, decode_response, sample
from prefrl.text.model.models import load_model, load_reader, save_model
from prefrl.text.model.tokens import Tokens, response_ids


def test_a_prompt_that_begins_with_the_begin_token_gets_no_second_one() -> None:
    tokens = Tokens(text_models.byte_tokenizer(adds_bos=True))
    plain = tokens.encode_prompt("hi")
    assert plain[0] == 0 and plain.count(0) == 1
    assert tokens.encode_prompt("<s>hi") == plain


def test_an_end_that_a_prompt_has_itself_stays_and_one_that_the_tokenizer_adds_does_not() -> None:
    import tokenizers

    tokens = Tokens(text_models.byte_tokenizer())
    assert tokens.encode_prompt("hi</s>") == [*tokens.encode("hi"), 1]
    closing = text_models.byte_tokenizer()
    closing._tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A $B </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    closed = Tokens(closing)
    assert closed.encode_prompt("hi") == [0, *tokens.encode("hi")]
    assert closed.encode_prompt("hi</s>") == [0, *tokens.encode("hi"), 1]


@pytest.mark.parametrize("response", ["Hi", " Hi", "a Hi a", "Hi\na", ""])
@pytest.mark.parametrize("prompt", ["Say:", "Say: ", "Say:\n"])
def test_prompt_and_response_are_what_the_tokenizer_makes_of_both_in_one(prompt: str, response: str) -> None:
    for tokenizer in (text_models.sentence_tokenizer(), text_models.byte_tokenizer()):
        tokens = Tokens(tokenizer)
        asked, said = tokens.encode_prompt(prompt), response_ids(tokens, prompt, response)
        whole = list(tokenizer(prompt + response)["input_ids"])
        if whole[: len(asked)] == asked:
            assert [*asked, *said] == [*whole, tokens.end_id]
        assert tokenizer.decode([*asked, *said], skip_special_tokens=True) == prompt + response
        assert decode_response(tokens, said) == response


def test_a_response_of_a_sentencepiece_kind_has_no_space_of_the_tokenizers_own() -> None:
    tokens = Tokens(text_models.sentence_tokenizer())
    names = tokens.tokenizer.convert_ids_to_tokens
    assert names(response_ids(tokens, "Say:", "Hi")) == ["Hi", "</s>"]
    assert names(response_ids(tokens, "Say:", " Hi")) == ["▁Hi", "</s>"]
    assert names(response_ids(tokens, "Say: ", "Hi"))[0] == "Hi", "the prompt's space stands, as when the model writes"
    assert names(tokens.encode_prompt("Hi")) == ["<s>", "▁Hi"]


def test_an_end_token_that_is_there_is_not_doubled() -> None:
    tokens = Tokens(text_models.byte_tokenizer())
    encoder = Encoder(tokens, context=64, max_response_tokens=8)
    assert encoder.response("a?", "yes</s>") == encoder.response("a?", "yes")
    assert encoder.response("a?", "yes").count(tokens.end_id) == 1
    assert encoder.response("a?", "") == [tokens.end_id]


def test_every_end_that_the_generation_configuration_names_ends_a_response(tmp_path: Path) -> None:
    text_models.save(tmp_path / "m")
    other = 40
    (tmp_path / "m" / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, other]}))
    model, tokens = load_model(tmp_path / "m")
    assert tokens.end_ids == {1, other} and tokens.end_id == 1
    with torch.no_grad():
        model.lm_head.weight[other] = 8 * model.model.norm.weight.abs().sum() * model.lm_head.weight.mean(0)
    encoder = Encoder(tokens, 64, 8)
    drawn = sample(
        model, [encoder.prompt("hi")] * 40, SamplingSettings(max_tokens=8), end_id=tokens.end_ids, pad_id=tokens.pad_id,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    rows = drawn.sequences.token_lists()
    assert any(row[-1] == other for row in rows)
    assert all(other not in row[:-1] and 1 not in row[:-1] for row in rows)
    assert drawn.sequences.ended(tokens.end_ids).tolist() == [row[-1] in (1, other) for row in rows]
    closed = next(row for row in rows if row[-1] == other)
    assert decode_response(tokens, closed) == tokens.decode(closed[:-1])
    assert encoder.response("hi", tokens.tokenizer.decode([70, other])) == [70, other], "ended by any of them"
    save_model(tmp_path / "again", model, tokens)
    assert load_model(tmp_path / "again")[1].end_ids == {1, other}


@pytest.mark.parametrize("end", ["NaN", "1.5", "true", '"</s>"', '{"a": 1}', "[1, null]", "[[1]]", "-Infinity"])
def test_an_end_that_is_no_id_is_refused_in_a_sentence(tmp_path: Path, end: str) -> None:
    text_models.save(tmp_path / "m")
    (tmp_path / "m" / "generation_config.json").write_text(f'{{"eos_token_id": {end}}}')
    for load in (load_model, load_reader):
        with pytest.raises(UserError, match=r"eos_token_id|generation_config\.json"):
            load(tmp_path / "m")


def test_it_is_said_when_nothing_ends(tmp_path: Path) -> None:
    text_models.save(tmp_path / "m")
    model, tokens = load_model(tmp_path / "m")
    with torch.no_grad():
        model.lm_head.weight[1] = -20 * model.lm_head.weight.mean(0).sign()
    tokens.end_ids = frozenset([258])
    encoder = Encoder(tokens, 64, 3)
    with pytest.warns(UserWarning, match="None of 4 responses came to an end within 2 tokens"):
        answer_prompts(model, encoder, ["a", "b", "c", "d"], SamplingSettings(max_tokens=2), seed=0)

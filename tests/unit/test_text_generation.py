"""Sampling against `transformers` itself, and log-probabilities that never shift by one."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import tokenizers
import torch
from transformers import PreTrainedTokenizerFast

from prefrl.envs.service_desk import ServiceDesk
from prefrl.errors import UserError
from prefrl.text.model.generation import SamplingSettings, sample
from prefrl.text.model.models import ARCHITECTURES, PRESETS, build_model
from prefrl.text.model.sequences import (
    batches_by_length,
    make_sequences,
    pad_left,
    response_log_probs,
    sequence_log_probs,
)
from prefrl.text.model.tokens import Tokens, train_tokenizer

pytestmark = pytest.mark.lowest

PROMPTS = ServiceDesk(0).prompts(40)
TEXT = [*PROMPTS, *[f"The {word} lies by the sea." for word in ("town", "river", "shop")]]


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    return Tokens(train_tokenizer(TEXT, 200))


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: Any, tokens: Tokens) -> Any:
    return build_model(PRESETS["tiny"], tokens, architecture=request.param, seed=0)


def draw(model: Any, tokens: Tokens, prompts: list[list[int]], **options: Any) -> Any:
    samples = options.pop("samples_per_prompt", 1)
    generator = torch.Generator().manual_seed(options.pop("seed", 0))
    return sample(
        model, prompts, SamplingSettings(**({"max_tokens": 12} | options)), end_id=tokens.end_id,
        pad_id=tokens.pad_id, samples_per_prompt=samples, generator=generator,
    )  # fmt: skip


def test_greedy_responses_are_those_of_transformers(model: Any, tokens: Tokens) -> None:
    prompts = [tokens.encode_prompt(text) for text in TEXT[36:43]]  # of different lengths
    ours = draw(model, tokens, prompts, greedy=True).sequences
    ids, mask = pad_left(prompts, tokens.pad_id)
    theirs = model.generate(ids, attention_mask=mask.long(), max_new_tokens=12, do_sample=False)[:, ids.shape[1] :]
    assert torch.equal(ours.response_ids, theirs[:, : ours.response_ids.shape[1]])


def test_sampled_log_probabilities_are_those_of_a_full_forward_pass(model: Any, tokens: Tokens) -> None:
    prompts = [tokens.encode_prompt(text) for text in TEXT[30:43]]
    drawn = draw(model, tokens, prompts, samples_per_prompt=3, temperature=0.7)
    full = response_log_probs(model, drawn.sequences, temperature=0.7)
    assert len(drawn.sequences) == 3 * len(prompts)
    assert torch.allclose(drawn.log_probs, full, atol=1e-4)


def test_log_probabilities_by_hand_without_padding(model: Any, tokens: Tokens) -> None:
    prompt, response = tokens.encode_prompt(PROMPTS[0]), [*tokens.encode("The town."), tokens.end_id]
    with torch.no_grad():
        logits = model(torch.tensor([prompt + response])).logits[0].log_softmax(-1)
    by_hand = sum(float(logits[len(prompt) - 1 + i, token]) for i, token in enumerate(response))
    others = [tokens.encode_prompt(PROMPTS[1])[:5], tokens.encode_prompt(PROMPTS[2])]
    padded = sequence_log_probs(
        model, [prompt, *others], [response, [tokens.end_id], response * 2], pad_id=tokens.pad_id
    )
    assert padded[0].item() == pytest.approx(by_hand, abs=1e-4)


def test_finished_rows_are_dropped_without_changing_the_others(tokens: Tokens) -> None:
    model = build_model(PRESETS["tiny"], tokens, seed=1)
    with torch.no_grad():  # the end is likely, so that rows finish at different times
        model.lm_head.weight[tokens.end_id] *= 0
        model.lm_head.weight[tokens.end_id] += model.model.norm.weight * 0.02
    prompts = [tokens.encode_prompt(text) for text in PROMPTS]
    drawn = draw(model, tokens, prompts, max_tokens=30)
    lengths = drawn.sequences.lengths
    assert lengths.min() < lengths.max()
    assert torch.allclose(drawn.log_probs, response_log_probs(model, drawn.sequences), atol=1e-4)
    ends = (drawn.sequences.response_ids == tokens.end_id) & drawn.sequences.response_mask
    assert (ends.sum(1) <= 1).all(), "nothing comes after the end"


def test_tokens_are_drawn_with_their_probabilities(tokens: Tokens) -> None:
    model = build_model(PRESETS["tiny"], tokens, seed=0)
    prompt = tokens.encode_prompt(PROMPTS[0])
    drawn = draw(model, tokens, [prompt], samples_per_prompt=20_000, max_tokens=1, temperature=0.02)
    with torch.no_grad():
        expected = (model(torch.tensor([prompt])).logits[0, -1] / 0.02).softmax(-1)
    seen = torch.bincount(drawn.sequences.response_ids[:, 0], minlength=len(expected)) / 20_000
    assert (seen - expected).abs().max() < 0.02
    top = draw(model, tokens, [prompt], samples_per_prompt=2_000, max_tokens=1, temperature=0.02, top_k=3)
    assert set(top.sequences.response_ids[:, 0].tolist()) <= set(expected.topk(3).indices.tolist())
    nucleus = draw(model, tokens, [prompt], samples_per_prompt=2_000, max_tokens=1, temperature=0.02, top_p=0.5)
    held = expected.sort(descending=True)
    kept = held.indices[: int((held.values.cumsum(0) < 0.5).sum()) + 1]
    assert set(nucleus.sequences.response_ids[:, 0].tolist()) <= set(kept.tolist())


@pytest.mark.parametrize(
    "options", [{"max_tokens": 0}, {"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.5}, {"top_k": -1}]
)
def test_settings_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        SamplingSettings(**options)


def test_rows_and_batches_lose_nothing_but_padding() -> None:
    sequences = make_sequences([[1, 2, 3], [4]], [[5], [6, 7, 8]], pad_id=0)
    assert sequences.prompt_ids.tolist() == [[1, 2, 3], [0, 0, 4]]
    assert sequences.response_ids.tolist() == [[5, 0, 0], [6, 7, 8]]
    only = sequences.rows(torch.tensor([1]))
    assert only.prompt_ids.tolist() == [[4]]
    assert only.token_lists() == [[6, 7, 8]]
    assert sequences.ended(8).tolist() == [False, True]
    assert batches_by_length([3, 9, 1, 5], 2) == [[1, 3], [0, 2]]
    with pytest.raises(UserError, match="at least one token"):
        make_sequences([[1]], [[]], pad_id=0)


# ------------------------------------------------------------------------------------------------ tokenizers


def test_the_trained_tokenizer_round_trips_and_keeps_its_special_tokens(tokens: Tokens) -> None:
    for text in TEXT:
        assert tokens.decode(tokens.encode(text)) == text
    assert len({tokens.pad_id, tokens.end_id, tokens.tokenizer.unk_token_id}) == 3
    assert tokens.decode([*tokens.encode("The town."), tokens.end_id]) == "The town."


def test_a_tokenizer_without_padding_gets_one_that_is_not_the_end_and_says_so(tokens: Tokens) -> None:
    import copy

    for pad in (None, tokens.tokenizer.eos_token):
        poor = copy.deepcopy(tokens.tokenizer)
        poor.pad_token = pad
        with pytest.warns(UserWarning, match="is taken"):
            mended = Tokens(poor)
        assert mended.pad_id != mended.end_id


def test_padding_eats_no_text_where_one_token_is_all_special_ones(tmp_path: Path) -> None:
    bytewise = tokenizers.Tokenizer(tokenizers.models.BPE())
    bytewise.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    bytewise.train_from_iterator(
        TEXT, tokenizers.trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    )
    end = "<|endoftext|>"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytewise, unk_token=end, bos_token=end, eos_token=end)
    text = "You made our day!! Hello!"
    for pad in (None, end):  # as gpt2 has it, and as many set it
        tokenizer.pad_token = pad
        with pytest.warns(UserWarning, match="'!' is taken"):
            tokens = Tokens(tokenizer)
        tokenizer.save_pretrained(tmp_path)
        with pytest.warns(UserWarning, match="'!' is taken"):
            again = Tokens.load(tmp_path)
        assert (tokens.pad_id, again.pad_id) == (0, 0)
        assert again.decode([*again.encode(text), again.end_id]) == text
    model = build_model(PRESETS["tiny"], again)
    assert model.get_input_embeddings().weight[again.pad_id].any(), "its embedding is that of a word"


def test_a_tokenizer_without_end_takes_a_usual_one_or_is_refused(tokens: Tokens) -> None:
    import copy

    poor = copy.deepcopy(tokens.tokenizer)
    poor.eos_token = None
    with pytest.raises(UserError, match="no end token"):
        Tokens(poor)
    poor.add_tokens(["</s>"])
    with pytest.warns(UserWarning, match="</s>"):
        assert Tokens(poor).end_id == poor.convert_tokens_to_ids("</s>")


def test_a_model_that_cannot_be_had_is_said_in_one_line(tmp_path: Any) -> None:
    with pytest.raises(UserError, match="holds no tokenizer"):
        Tokens.load(tmp_path)


def test_a_name_that_is_no_folder_is_refused_without_retries_where_the_hub_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "propagate", True)
    with pytest.raises(UserError, match="There is no folder 'runs/stf', nor could a tokenizer"):
        Tokens.load("runs/stf")
    assert not caplog.text


def test_new_weights_follow_from_the_seed_and_leave_the_global_stream_alone(tokens: Tokens) -> None:
    before = torch.get_rng_state()
    first, second = (build_model(PRESETS["tiny"], tokens, seed=3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert torch.equal(before, torch.get_rng_state())
    assert np.isfinite(sum(float(p.sum()) for p in first.parameters()))

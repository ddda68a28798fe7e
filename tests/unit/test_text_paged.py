"""Sampling by transformers' continuous batching gives what our own sampler gives, as far as its clock allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from prefrl.envs.service_desk import ServiceDesk
from prefrl.errors import UserError
from prefrl.text.model.generation import Sampled, SamplingSettings, sample
from prefrl.text.model.models import PRESETS, build_model
from prefrl.text.model.sequences import response_log_probs
from prefrl.text.model.tokens import Tokens, train_tokenizer

PROMPTS = ServiceDesk(0).prompts(12)


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    return Tokens(train_tokenizer(PROMPTS, 200))


@pytest.fixture(scope="module")
def model(tokens: Tokens) -> Any:
    return build_model(PRESETS["tiny"], tokens, seed=0)


def draw(model: Any, tokens: Tokens, prompts: Sequence[Sequence[int]], *, samples: int = 1, **options: Any) -> Sampled:
    return sample(
        model, prompts, SamplingSettings(**({"max_tokens": 12, "engine": "paged"} | options)), end_id=tokens.end_id,
        pad_id=tokens.pad_id, samples_per_prompt=samples, generator=torch.Generator().manual_seed(3),
    )  # fmt: skip


def test_greedy_responses_are_our_own(model: Any, tokens: Tokens) -> None:
    prompts = [tokens.encode_prompt(text) for text in PROMPTS]  # of different lengths
    ends = set(range(0, model.config.vocab_size, 4))  # so that they end at different steps
    paged, own = (
        sample(
            model, prompts, SamplingSettings(max_tokens=12, greedy=True, engine=engine), end_id=ends,
            pad_id=tokens.pad_id, samples_per_prompt=2,
        ).sequences
        for engine in ("paged", "own")
    )  # fmt: skip
    assert torch.equal(paged.response_ids, own.response_ids) and torch.equal(paged.prompt_ids, own.prompt_ids)
    assert len(set(own.lengths.tolist())) > 2


def test_samples_of_a_prompt_lie_beside_each_other_and_are_drawn_with_their_probabilities(
    model: Any, tokens: Tokens
) -> None:
    prompts = [tokens.encode_prompt(text) for text in PROMPTS[:2]]
    before = torch.random.get_rng_state()
    drawn = draw(model, tokens, prompts, samples=3_000, max_tokens=1, temperature=0.02)
    assert torch.equal(torch.random.get_rng_state(), before), "it left the global stream as it was"
    for number, prompt in enumerate(prompts):
        with torch.no_grad():
            expected = (model(torch.tensor([prompt])).logits[0, -1] / 0.02).softmax(-1)
        rows = drawn.sequences.response_ids[3_000 * number : 3_000 * (number + 1), 0]
        seen = torch.bincount(rows, minlength=len(expected)) / 3_000
        assert (seen - expected).abs().max() < 0.05
    assert torch.allclose(drawn.log_probs, response_log_probs(model, drawn.sequences, 0.02), atol=1e-4)


def test_responses_end_at_any_of_several_ends_and_nothing_comes_after(model: Any, tokens: Tokens) -> None:
    prompts = [tokens.encode_prompt(text) for text in PROMPTS]
    ends = set(range(0, model.config.vocab_size, 3))
    drawn = sample(
        model, prompts, SamplingSettings(max_tokens=30, engine="paged"), end_id=ends, pad_id=tokens.pad_id,
        uniforms=torch.rand(len(prompts), 30, generator=torch.Generator().manual_seed(0)),
    ).sequences  # fmt: skip
    for row in drawn.token_lists():
        assert not ends & set(row[:-1]) and (row[-1] in ends or len(row) == 30)


def test_what_the_engine_does_not_take_is_said(tokens: Tokens) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

    with pytest.raises(UserError, match=r"takes whole models of transformers\. Leave the option sampling\.engine out"):
        draw(Own(), tokens, [[1, 2]])

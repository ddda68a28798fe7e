"""Decoders beside each other: whatever is kept, moved or recorded, the logits are the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from prefrl.envs.service_desk import ServiceDesk
from prefrl.text.model import decoding
from prefrl.text.model.decoding import CacheDecoder, RecordedDecoder, can_be_recorded, make_cache
from prefrl.text.model.generation import Sampled, SamplingSettings, sample
from prefrl.text.model.inputs import position_ids
from prefrl.text.model.models import ARCHITECTURES, PRESETS, build_model
from prefrl.text.model.sequences import pad_left
from prefrl.text.model.tokens import Tokens, train_tokenizer

PROMPTS = ServiceDesk(0).prompts(6)


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    return Tokens(train_tokenizer(ServiceDesk(0).prompts(40), 200))


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: Any, tokens: Tokens) -> Any:
    return build_model(PRESETS["tiny"], tokens, architecture=request.param, seed=0).eval()


def played_again(step: Callable[[], None]) -> Callable[[], None]:
    """Stand for a recording, as it is made on a GPU: steps once ahead, then again on the same arrays."""
    step()
    return step


def refused(step: Callable[[], None]) -> Callable[[], None]:
    step()
    raise RuntimeError("operation not permitted when stream is capturing\nmore of it")


@torch.no_grad()
def logits_of(decoder: CacheDecoder, tokens: Tokens, num_steps: int = 10) -> torch.Tensor:
    """Feed prompts of different lengths, three samples of each, then some tokens."""
    ids, mask = pad_left([tokens.encode_prompt(text) for text in PROMPTS], tokens.pad_id)
    found = [decoder.logits(ids, mask.long(), position_ids(mask)).repeat_interleave(3, 0)]
    decoder.repeat(3)
    mask, random = mask.repeat_interleave(3, 0), torch.Generator().manual_seed(1)
    for _ in range(num_steps):
        place = mask.sum(1, keepdim=True)
        mask = torch.cat([mask, torch.ones(len(mask), 1, dtype=torch.bool)], 1)
        drawn = torch.randint(5, 100, (len(mask), 1), generator=random)
        found.append(decoder.logits(drawn, mask.long(), place).clone())
    return torch.stack(found)


CAPACITY = 120


def test_recorded_steps_give_the_same_logits(model: Any, tokens: Tokens) -> None:
    assert can_be_recorded(model)
    usual = logits_of(CacheDecoder(model, CAPACITY), tokens)
    recorded = RecordedDecoder(model, CAPACITY, played_again)
    assert torch.allclose(logits_of(recorded, tokens), usual, atol=1e-5)
    assert recorded._replayed._replay is not None


def test_places_not_filled_yet_count_nothing_whatever_lies_there(
    model: Any, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = logits_of(CacheDecoder(model, CAPACITY), tokens)
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda like, *shape: like.new_full(shape, torch.nan))
    assert torch.allclose(logits_of(RecordedDecoder(model, CAPACITY, played_again), tokens), usual, atol=1e-5)


def test_what_cannot_be_recorded_warns_and_goes_the_usual_way(model: Any, tokens: Tokens) -> None:
    usual = logits_of(CacheDecoder(model, CAPACITY), tokens)
    with pytest.warns(UserWarning, match="could not be recorded and runs slower: operation not permitted") as said:
        slower = logits_of(RecordedDecoder(model, CAPACITY, refused), tokens)
    assert len(said) == 1
    assert torch.allclose(slower, usual, atol=1e-5)


@pytest.mark.parametrize("num_tokens", [1, 12])
def test_responses_of_recorded_steps_are_the_same(
    num_tokens: int, model: Any, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [tokens.encode_prompt(text) for text in PROMPTS] + [[7]]

    def draw(samples: int) -> Sampled:
        settings = SamplingSettings(max_tokens=num_tokens, greedy=True)
        return sample(
            model, prompts, settings, end_id=tokens.end_id, pad_id=tokens.pad_id, samples_per_prompt=samples
        )  # fmt: skip

    usual = [draw(samples) for samples in (1, 2)]
    monkeypatch.setattr(decoding, "make_decoder", lambda *given: RecordedDecoder(*given, played_again))
    for samples, expected in zip((1, 2), usual, strict=True):
        drawn = draw(samples)
        assert torch.equal(drawn.sequences.response_ids, expected.sequences.response_ids)
        assert torch.allclose(drawn.log_probs, expected.log_probs, atol=1e-4)


def test_models_that_forget_or_attend_otherwise_are_not_recorded(tokens: Tokens) -> None:
    model = build_model(PRESETS["tiny"], tokens, architecture="gpt2")
    model.config._attn_implementation = "eager"
    assert not can_be_recorded(model)


def test_the_cache_has_its_size_from_the_start(tokens: Tokens) -> None:
    model = build_model(PRESETS["tiny"], tokens)
    cache = make_cache(model, 40)
    model(torch.tensor([tokens.encode_prompt(PROMPTS[0])]), past_key_values=cache, use_cache=True)
    store = cache.layers[0]._store[0]
    assert store.shape[2] == 40
    model(torch.tensor([[5]]), past_key_values=cache, use_cache=True)
    assert cache.layers[0]._store[0].data_ptr() == store.data_ptr(), "nothing was copied"

"""Any causal language model means any: what ours says, and how it goes on, against plain `transformers`, row by row."""

from __future__ import annotations

import pytest
import text_models
import torch

from prefrl.errors import UserError
from prefrl.text.learn.reward_model import RewardModel
from prefrl.text.model import decoding
from prefrl.text.model.generation import SamplingSettings, sample
from prefrl.text.model.sequences import make_sequences, response_log_probs
from prefrl.text.model.traits import reads_padding, refuse_not_causal

PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12, 13], [14, 15, 16, 17]]
ENDS, PAD, LIMIT = [1, 20, 33], 2, 10
STATES = ("qwen3_next", "qwen3_5_text", "lfm2", "falcon_h1", "mamba", "mamba2", "bamba")
UNPADDED = ("recurrent_gemma", "rwkv")


def plain_greedy(model: object, prompt: list[int]) -> list[int]:
    """Return the likeliest tokens, each from a whole pass over one row without padding or cache."""
    ids = list(prompt)
    for _ in range(LIMIT):
        ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))  # type: ignore[operator]
        if ids[-1] in ENDS:
            break
    return ids[len(prompt) :]


@torch.no_grad()
@pytest.mark.parametrize("kind", text_models.ARCHITECTURES)
def test_an_architecture_says_and_writes_what_plain_transformers_does(kind: str) -> None:
    model = text_models.build(kind)
    refuse_not_causal(model, kind)
    drawn = sample(
        model, PROMPTS, SamplingSettings(max_tokens=LIMIT, greedy=True), end_id=ENDS, pad_id=PAD, samples_per_prompt=2
    )
    responses = drawn.sequences.token_lists()
    expected = [plain_greedy(model, prompt) for prompt in PROMPTS for _ in range(2)]
    assert responses == expected
    prompts = [prompt for prompt in PROMPTS for _ in range(2)]
    ours = response_log_probs(model, make_sequences(prompts, responses, PAD))
    for row, prompt, response in zip(ours, prompts, responses, strict=True):
        logits = model(input_ids=torch.tensor([prompt + response]), use_cache=False).logits[0].float()
        theirs = torch.log_softmax(logits, -1)[len(prompt) - 1 : -1].gather(1, torch.tensor(response)[:, None])[:, 0]
        assert (row[: len(response)] - theirs).abs().max() < 1e-5
    assert (ours.sum(1) - drawn.log_probs.sum(1)).abs().max() < 1e-4


def test_recurrent_models_go_on_from_their_states_and_those_blind_to_masks_are_never_padded() -> None:
    for kind in STATES:
        assert type(decoding.make_decoder(text_models.build(kind), 8)) is decoding.CacheDecoder, kind
    for kind in UNPADDED:
        model = text_models.build(kind)
        assert not reads_padding(model)
        assert type(decoding.make_decoder(model, 8)) is decoding.RecomputingDecoder


@pytest.mark.parametrize("kind", UNPADDED)
def test_a_reward_model_that_is_blind_to_masks_scores_a_row_as_it_does_alone(kind: str) -> None:
    model = RewardModel.from_policy(text_models.build(kind))
    responses = [[21, 22], [23, 24, 25], [26]]
    together = model.score(PROMPTS, responses, PAD)
    alone = [model.score([p], [r], PAD).item() for p, r in zip(PROMPTS, responses, strict=True)]
    assert together.tolist() == pytest.approx(alone, abs=1e-5)
    batch = make_sequences(PROMPTS, responses, PAD)
    model.values(batch).sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_model_that_looks_ahead_is_refused(kind: str) -> None:
    with pytest.raises(UserError, match="looks ahead: a later token changes what it says of an earlier one"):
        refuse_not_causal(text_models.build(kind, is_decoder=False), kind)


def test_a_model_with_an_encoder_is_refused() -> None:
    sizes = {"d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48}
    model = text_models.build("bart", is_decoder=True, **sizes)
    model.config.is_encoder_decoder = True
    with pytest.raises(UserError, match="with an encoder"):
        refuse_not_causal(model, "bart")


def test_whether_a_model_is_causal_is_asked_once_and_leaves_its_mode_and_the_global_stream_alone() -> None:
    model = text_models.build("gpt2").train()
    model.transformer.h[0].eval()
    before = torch.random.get_rng_state()
    refuse_not_causal(model, "gpt2")
    assert reads_padding(model)
    assert model.training and not model.transformer.h[0].training
    assert torch.equal(before, torch.random.get_rng_state())

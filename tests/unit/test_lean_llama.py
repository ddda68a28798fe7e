"""Llama in few operations against `transformers`, and two lanes on the CPU."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
import transformers

from prefrl.text.model import lean_llama
from prefrl.text.model.inputs import position_ids
from prefrl.text.model.lanes import Lanes
from prefrl.text.model.lora import LoraSettings, add_lora

pytestmark = pytest.mark.lowest


def llama(**changes: Any) -> Any:
    sizes = {"vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**sizes, **heads, **changes})).eval()


def batch(padded: bool) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(0, 50, (5, 14), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(5, 14, dtype=torch.bool)
    if padded:
        mask[0, :4], mask[2, 11:], mask[3, :1], mask[3, 13:] = False, False, False, False
    return ids, mask


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("keep", [14, 6, 1])
@pytest.mark.parametrize("changes", [{}, {"num_key_value_heads": 4}, {"rope_theta": 500.0, "rms_norm_eps": 1e-3}])
def test_hidden_states_and_gradients_are_those_of_transformers(padded: bool, keep: int, changes: Any) -> None:
    model = llama(**changes).double()
    assert lean_llama.backbone_of(model) is model.model
    hold_to_transformers(model, *batch(padded), keep)


def hold_to_transformers(model: Any, ids: torch.Tensor, mask: torch.Tensor, keep: int) -> None:
    backbone = model.model
    weights = torch.randn(len(ids), keep, 24, dtype=torch.float64) * mask[:, -keep:, None]
    results = []
    for lean in (False, True):
        model.zero_grad()
        if lean:
            hidden = lean_llama.hidden_states(backbone, ids, mask, torch.arange(14 - keep, 14).expand(len(ids), -1))
        else:
            inputs = {"attention_mask": mask.long(), "position_ids": position_ids(mask), "use_cache": False}
            hidden = backbone(input_ids=ids, **inputs).last_hidden_state[:, -keep:]
        (hidden * weights).sum().backward()
        results.append((hidden.detach() * mask[:, -keep:, None], [p.grad.clone() for p in backbone.parameters()]))
    (theirs, their_gradients), (ours, our_gradients) = results
    assert torch.allclose(ours, theirs, atol=1e-5)  # theirs are rounded to float32 in the norms
    for mine, other in zip(our_gradients, their_gradients, strict=True):
        assert torch.allclose(mine, other, atol=1e-5 * max(1.0, float(other.abs().max())))


@pytest.mark.parametrize("keep", [14, 6])
def test_what_rows_begin_with_alike_is_read_once_and_counts_in_each(keep: int) -> None:
    prompts, mask = batch(padded=False)
    ids = prompts[[0, 1, 0, 2, 0, 1]]  # in any order
    ids[0, 5:], ids[2, 7:], ids[3, 2:] = ids[3, 5:].clone(), ids[1, 7:].clone(), ids[1, 2:].clone()
    ids[3, :2] = ids[0, :2]  # row 4 begins as rows 0, 2 and 3 do, for 5, 7 and 2 tokens; row 5 is row 1
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[1, :3] = mask[5, :3] = mask[2, 12:] = False
    packed = lean_llama._pack(ids, mask, torch.arange(14 - keep, 14).expand(6, -1))
    assert len(packed.ids) == 14 + (14 - 5) + (12 - 7) + (14 - 2) + 11
    hold_to_transformers(llama().double(), ids, mask, keep)


def test_hidden_states_of_one_column_of_each_row_are_those_of_all() -> None:
    model, (ids, mask) = llama(), batch(padded=True)
    every, columns = torch.arange(14).expand(5, -1), torch.tensor([[13], [2], [10], [12], [0]])
    said = lean_llama.hidden_states(model.model, ids, mask, every)[torch.arange(5)[:, None], columns]
    assert torch.allclose(lean_llama.hidden_states(model.model, ids, mask, columns), said, atol=1e-5)


def test_gradients_are_those_of_finite_differences() -> None:
    numbers = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=numbers, requires_grad=True)

    angle = torch.randn(5, 1, 2, dtype=torch.float64, generator=numbers)
    assert torch.autograd.gradcheck(lambda x, w: lean_llama._rms_norm(x, w, 1e-6), (random(2, 3, 4), random(4)))
    assert torch.autograd.gradcheck(lambda x: lean_llama._split(x, angle.cos(), angle.sin(), 2, 1), random(5, 4, 4))
    assert torch.autograd.gradcheck(lean_llama._swiglu, random(2, 3, 8))


def test_what_is_not_a_plain_llama_goes_the_usual_way() -> None:
    assert (
        lean_llama.backbone_of(transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=1, n_embd=8, n_head=2)))
        is None
    )
    assert lean_llama.backbone_of(llama(attention_bias=True)) is None
    assert lean_llama.backbone_of(llama(hidden_act="gelu")) is None
    model = llama()
    assert lean_llama.backbone_of(model) is model.model
    adapted = add_lora(model, LoraSettings(rank=2), seed=0)
    assert lean_llama.backbone_of(adapted) is None
    assert lean_llama.backbone_of(adapted.get_base_model()) is None


def test_two_lanes_run_at_the_same_time_and_leave_the_threads_as_they_were() -> None:
    lanes, meeting = Lanes(torch.device("cpu")), threading.Barrier(2, timeout=20)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.no_grad():
            outcome = lanes.run(
                lambda: (meeting.wait() >= 0, torch.is_grad_enabled(), torch.get_num_threads()),
                lambda: (meeting.wait() >= 0, torch.is_grad_enabled(), torch.get_num_threads()),
            )
        assert outcome == ((True, False, 1), (True, False, 1))
        assert lanes.alone(torch.get_num_threads) == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("where", ["aside", "here"])
def test_an_error_in_a_lane_is_raised(where: str, threads: int) -> None:
    def fail() -> None:
        raise ValueError("no")

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        both = (fail, lambda: None) if where == "aside" else (lambda: None, fail)
        with pytest.raises(ValueError, match="no"):
            Lanes(torch.device("cpu")).run(*both)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)

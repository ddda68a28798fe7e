"""Weights that are not there, not known, or of another shape: every loader refuses them and names some."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import text_models
import torch
import transformers

from prefrl.cli import main
from prefrl.errors import UserError
from prefrl.text.data.judge import ModelJudge
from prefrl.text.learn.reward_model import RewardModel
from prefrl.text.model.lora import LoraSettings, add_lora
from prefrl.text.model.models import load_model
from prefrl.text.model.tokens import Tokens

Weights = dict[str, torch.Tensor]
FAST = ["--max-tokens", "8", "--device", "cpu", "--quiet"]


def rewrite(folder: Path, change: Callable[[Weights], Weights]) -> None:
    path = folder / "model.safetensors"
    safetensors.torch.save_file(change(safetensors.torch.load_file(path)), path, metadata={"format": "pt"})


def prefixed(weights: Weights) -> Weights:
    return {f"_orig_mod.{name}": value for name, value in weights.items()}


def halved(weights: Weights) -> Weights:
    return {name: value for name, value in weights.items() if ".layers.1." not in name}


def headless(weights: Weights) -> Weights:
    return {name: value for name, value in weights.items() if name != "lm_head.weight"}


def widened(weights: Weights) -> Weights:
    name = "model.layers.0.mlp.up_proj.weight"
    return {**weights, name: weights[name].repeat(2, 1)}


BROKEN = [
    (prefixed, r"saved under '_orig_mod\.': save the model inside of its wrapper"),
    (halved, r"lacks 9 weights \(model\.layers\.1\."),
    (headless, r"lacks lm_head\.weight"),
    (widened, r"has in another shape model\.layers\.0\.mlp\.up_proj\.weight"),
]


@pytest.mark.parametrize(("change", "message"), BROKEN)
def test_a_policy_whose_weights_are_not_all_there_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    text_models.save(tmp_path / "m", tie_word_embeddings=False)
    load_model(tmp_path / "m")
    rewrite(tmp_path / "m", change)
    before = torch.random.get_rng_state()
    with pytest.raises(UserError, match=message):
        load_model(tmp_path / "m")
    with pytest.raises(UserError, match=message):
        ModelJudge(str(tmp_path / "m"), "Be kind.", device="cpu")
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_command_says_so_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text_models.save(tmp_path / "m")
    rewrite(tmp_path / "m", prefixed)
    assert main(["text", "sample", str(tmp_path / "m"), "--prompt", "a", "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert "_orig_mod." in said and "Traceback" not in said


def test_a_tied_head_that_is_not_in_the_file_is_no_fault(tmp_path: Path) -> None:
    model = text_models.save(tmp_path / "m", tie_word_embeddings=True)
    assert "lm_head.weight" not in safetensors.torch.load_file(tmp_path / "m" / "model.safetensors")
    assert torch.equal(load_model(tmp_path / "m")[0].lm_head.weight, model.lm_head.weight)


def test_a_classifier_and_a_reward_model_are_no_policies(tmp_path: Path) -> None:
    config = transformers.LlamaConfig(**{**text_models.COMMON, "vocab_size": 259, "tie_word_embeddings": True})
    transformers.LlamaForSequenceClassification(config).save_pretrained(tmp_path / "c")
    text_models.byte_tokenizer().save_pretrained(tmp_path / "c")
    with pytest.raises(UserError, match=r"the model does not know, score\.weight"):
        load_model(tmp_path / "c")
    policy = text_models.save(tmp_path / "m")
    RewardModel.from_policy(policy).save(tmp_path / "r", Tokens(text_models.byte_tokenizer()))
    with pytest.raises(UserError, match="is a reward model, not a language model"):
        load_model(tmp_path / "r")


def test_a_reward_model_whose_weights_are_not_all_there_is_refused(tmp_path: Path) -> None:
    model = RewardModel.from_policy(text_models.save(tmp_path / "m"))
    for name, change, message in (
        ("compiled", prefixed, BROKEN[0][1]),
        ("half", lambda w: {k: v for k, v in w.items() if "layers.1." not in k}, r"lacks 9 weights \(layers\.1\."),
    ):
        model.save(tmp_path / name, Tokens(text_models.byte_tokenizer()))
        rewrite(tmp_path / name, change)
        with pytest.raises(UserError, match=message):
            RewardModel.load(tmp_path / name)


def test_a_reward_model_that_does_not_read_back_as_it_was_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = RewardModel.from_policy(text_models.save(tmp_path / "m"))
    read = RewardModel.load

    def other(path: Path) -> Any:
        loaded, tokens = read(path)
        with torch.no_grad():
            loaded.backbone.embed_tokens.weight[0, 0] += 1
        return loaded, tokens

    monkeypatch.setattr(RewardModel, "load", other)
    with pytest.raises(UserError, match=r"does not read back as it was trained: backbone\.embed_tokens\.weight"):
        model.save(tmp_path / "r", Tokens(text_models.byte_tokenizer()))


# ------------------------------------------------------------------------------------------------- adapters


def save_adapters(folder: Path, base: Path, rank: int = 2) -> Any:
    model, _ = load_model(base)
    adapted = add_lora(model, LoraSettings(rank=rank), seed=3)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(len(name)))
    adapted.save_pretrained(folder)
    return adapted


def logits_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        given: torch.Tensor = model(input_ids=torch.tensor([[5, 9, 14, 80]])).logits
    return given


def test_a_folder_of_adapters_is_merged_into_its_base(tmp_path: Path) -> None:
    text_models.save(tmp_path / "base")
    adapted = save_adapters(tmp_path / "adapters", tmp_path / "base")
    loaded, tokens = load_model(tmp_path / "adapters")
    assert torch.allclose(logits_of(loaded), logits_of(adapted), atol=1e-5)
    assert not torch.allclose(logits_of(loaded), logits_of(load_model(tmp_path / "base")[0]), atol=1e-2)
    assert type(loaded) is transformers.LlamaForCausalLM and tokens.end_id == 1
    assert not any("lora" in name for name in loaded.state_dict())


def test_a_base_that_is_gone_is_asked_for_and_can_be_named(tmp_path: Path) -> None:
    text_models.save(tmp_path / "base")
    adapted = save_adapters(tmp_path / "adapters", tmp_path / "base")
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"base, which is not there\. Name its folder or hub id behind an @"):
        load_model(tmp_path / "adapters")
    named = f"{tmp_path / 'adapters'}@{tmp_path / 'moved'}"
    assert torch.allclose(logits_of(load_model(named)[0]), logits_of(adapted), atol=1e-5)


def test_adapters_that_do_not_belong_to_the_base_are_refused(tmp_path: Path) -> None:
    text_models.save(tmp_path / "base")
    save_adapters(tmp_path / "adapters", tmp_path / "base")
    text_models.save(tmp_path / "flat", num_hidden_layers=1)
    with pytest.raises(UserError, match=r"the model does not know, 14 weights \(.*layers\.1"):
        load_model(f"{tmp_path / 'adapters'}@{tmp_path / 'flat'}")
    text_models.save(tmp_path / "other", kind="gpt2")
    with pytest.raises(UserError, match="do not fit the model"):
        load_model(f"{tmp_path / 'adapters'}@{tmp_path / 'other'}")


def test_lora_on_top_of_adapters_trains_and_is_saved_plain_or_as_adapters(tmp_path: Path) -> None:
    text_models.save(tmp_path / "base")
    save_adapters(tmp_path / "adapters", tmp_path / "base")
    rows = [{"prompt": "a?", "response": "b"}, {"prompt": "c?", "response": "d"}] * 4
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    sft = ["text", "sft", "--model", str(tmp_path / "adapters"), "--data", str(tmp_path / "rows.jsonl")]
    sft += ["--lora.rank", "2", "--training.optimiser.learning-rate", "0.01", *FAST]
    assert main([*sft, "--out", str(tmp_path / "plain")]) == 0
    assert main([*sft, "--lora.save-adapters", "--out", str(tmp_path / "kept")]) == 0
    assert (tmp_path / "plain" / "model" / "model.safetensors").is_file()
    assert (tmp_path / "kept" / "model" / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "kept" / "model" / "model.safetensors").exists()
    plain, kept = (load_model(tmp_path / name)[0] for name in ("plain", "kept"))
    assert torch.allclose(logits_of(plain), logits_of(kept), atol=1e-5)
    assert not torch.allclose(logits_of(plain), logits_of(load_model(tmp_path / "adapters")[0]), atol=1e-3)
    sample = ["text", "sample", str(tmp_path / "kept"), "--prompt", "a?", "--device", "cpu", "--max-tokens", "4"]
    assert main(sample) == 0


def test_a_reward_model_is_fitted_with_lora_and_saved_whole(tmp_path: Path) -> None:
    text_models.save(tmp_path / "base")
    rows = [{"prompt": f"{i}?", "chosen": "yes", "rejected": "no"} for i in range(12)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    fit = ["text", "reward", "--model", str(tmp_path / "base"), "--data", str(tmp_path / "pairs.jsonl")]
    fit += ["--training.optimiser.learning-rate", "0.01", "--training.epochs", "3", "--lora.rank", "2", *FAST]
    assert main([*fit, "--out", str(tmp_path / "reward")]) == 0
    model, tokens = RewardModel.load(tmp_path / "reward")
    assert not any("lora" in name for name in model.state_dict())
    said = [[*tokens.encode(text), tokens.end_id] for text in ("yes", "no")]
    scores = model.score([tokens.encode_prompt("1?")] * 2, said, tokens.pad_id)
    assert scores[0] > scores[1]


def test_the_adapters_first_weights_follow_from_the_seed_alone(tmp_path: Path) -> None:
    model = text_models.save(tmp_path / "base")
    before = torch.random.get_rng_state()
    made = [add_lora(load_model(tmp_path / "base")[0], LoraSettings(rank=2), seed) for seed in (1, 1, 2)]
    assert torch.equal(before, torch.random.get_rng_state())
    a, b, c = (torch.cat([p.flatten() for n, p in m.named_parameters() if "lora_A" in n]) for m in made)
    assert torch.equal(a, b) and not torch.equal(a, c)
    with pytest.raises(UserError, match=r"needs --lora\.rank"):
        LoraSettings(save_adapters=True)
    assert add_lora(model, LoraSettings(), 0) is model

"""Language models: from a preset, from a folder or from the hub; saved so that `transformers` loads them."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prefrl.errors import UserError, near_names, require
from prefrl.runs.sharding import plain_copy
from prefrl.text.model.loading import base_of, is_adapter, load_weights
from prefrl.text.model.tokens import Tokens, unreachable, without_hub
from prefrl.text.model.traits import refuse_not_causal

transformers = require("transformers", "text")


@dataclass(frozen=True, kw_only=True)
class Preset:
    """The shape of a small language model of its own."""

    hidden: int
    layers: int
    heads: int
    vocab_size: int
    """Of the tokenizer that is trained with it."""
    context: int = 256
    """Tokens."""


PRESETS = {
    "tiny": Preset(hidden=48, layers=2, heads=4, vocab_size=384),
    "demo": Preset(hidden=96, layers=3, heads=2, vocab_size=512),  # 0.4 M parameters
    "words": Preset(hidden=96, layers=3, heads=2, vocab_size=2048),  # 0.5 M; most words of real text are one token
    "small": Preset(hidden=192, layers=6, heads=6, vocab_size=1024, context=512),  # 3 M
    "medium": Preset(hidden=384, layers=10, heads=6, vocab_size=4096, context=1024),  # 20 M
}
ARCHITECTURES = ("llama", "gpt2", "qwen3")


def build_model(preset: Preset, tokens: Tokens, *, architecture: str = "llama", seed: int = 0) -> Any:
    """Return a new causal language model of a preset with random weights.

    Args:
        preset: its shape.
        tokens: its tokenizer.
        architecture: `llama`, `gpt2` or `qwen3`.
        seed: of the weights; the global random state is left as it was.
    """
    pad_id = tokens.pad_id if tokens.pad_id == tokens.tokenizer.pad_token_id else None  # its embedding is not trained
    shared: dict[str, Any] = {
        "pad_token_id": pad_id,
        "eos_token_id": tokens.end_id,
        "bos_token_id": None,
        # 0.02, which is usual, suits widths of some thousands: the attention of a narrow model would be nearly even at
        # the start, and it would hardly learn to copy from its prompt (docs/experiments.md).
        "initializer_range": preset.hidden**-0.5,
    }
    if architecture == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=tokens.vocab_size, n_embd=preset.hidden, n_layer=preset.layers, n_head=preset.heads,
            n_positions=preset.context, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **shared,
        )  # fmt: skip
    elif architecture in ("llama", "qwen3"):
        kind = transformers.LlamaConfig if architecture == "llama" else transformers.Qwen3Config
        config = kind(
            vocab_size=tokens.vocab_size, hidden_size=preset.hidden, intermediate_size=8 * preset.hidden // 3,
            num_hidden_layers=preset.layers, num_attention_heads=preset.heads, num_key_value_heads=preset.heads,
            head_dim=preset.hidden // preset.heads, max_position_embeddings=preset.context, tie_word_embeddings=True,
            **shared,
        )  # fmt: skip
    else:
        raise UserError(f"architecture must be one of {', '.join(ARCHITECTURES)}. Received {architecture!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return transformers.AutoModelForCausalLM.from_config(config).eval()


def preset(name: str) -> Preset:
    """Return a preset by name.

    Raises:
        UserError: there is none of that name.
    """
    if name not in PRESETS:
        raise UserError(f"There is no preset {name!r}; there are {', '.join(PRESETS)}.{near_names(name, PRESETS)}")
    return PRESETS[name]


def load_model(model: str | Path) -> tuple[Any, Tokens]:
    """Load a causal language model and its tokenizer, in evaluation mode.

    The weights become float32 however they are saved: small updates of bfloat16 would be rounded away.

    Args:
        model: a folder that `save_model`, `save_pretrained` or a run of prefrl wrote, an id of the hub, or a folder of
            adapters, with their base behind an @ where it is not the one that they name; adapters are merged.

    Raises:
        UserError: it cannot be had, is not whole, or is no causal language model.
    """
    source = model_place(model)
    if (Path(source) / "reward_model.json").is_file():
        raise UserError(f"{model} is a reward model, not a language model. Give the model that it was trained from.")
    tokens = load_tokens(source)
    loaded = load_weights(transformers.AutoModelForCausalLM, source, "language model")
    refuse_not_causal(loaded, source)
    size = loaded.get_input_embeddings().weight.shape[0]
    if size < tokens.vocab_size:
        raise UserError(
            f"The model {model} knows {size} tokens, its tokenizer {tokens.vocab_size}. They do not belong together."
        )
    tokens.add_ends(getattr(getattr(loaded, "generation_config", None), "eos_token_id", None), size)
    loaded.name_or_path = str(Path(source).resolve()) if Path(source).exists() else source
    return loaded.eval(), tokens


def load_reader(model: str | Path) -> tuple[Tokens, int]:
    """Load how a model reads text, without its weights: its tokenizer, and how many tokens it can look at.

    Raises:
        UserError: it cannot be had.
    """
    source = model_place(model)
    tokens = load_tokens(source)
    base = base_of(source) if is_adapter(source) else source
    try:
        config = transformers.AutoConfig.from_pretrained(
            base, local_files_only=without_hub(base), trust_remote_code=False
        )
    except Exception as error:  # transformers raises many kinds
        raise UserError(unreachable("language model", base, error)) from error
    try:
        generation = transformers.GenerationConfig.from_pretrained(base, local_files_only=without_hub(base))
    except OSError:
        generation = transformers.GenerationConfig.from_model_config(config)
    tokens.add_ends(generation.eos_token_id, config.get_text_config().vocab_size)
    return tokens, context_of(config.get_text_config())


def model_place(model: str | Path) -> str:
    """Return where the files of a model are: the folder itself, or `model/` of a run."""
    inner = Path(model) / "model"
    is_run = any((inner / name).is_file() for name in ("config.json", "adapter_config.json"))
    return str(inner if is_run else model)


def load_tokens(source: str) -> Tokens:
    """Load the tokenizer of a model; of adapters without one, that of their base.

    Raises:
        UserError: it cannot be had.
    """
    if not is_adapter(source):
        return Tokens.load(source)
    place = Path(source.rpartition("@")[0] if not Path(source).exists() else source)
    return Tokens.load(place) if (place / "tokenizer_config.json").is_file() else load_tokens(base_of(source))


def save_model(path: Path, model: Any, tokens: Tokens, *, adapters: bool = False) -> None:
    """Save a model with its tokenizer, whole or not at all.

    Args:
        path: folder; `transformers.AutoModelForCausalLM.from_pretrained(path)` loads what is in it.
        model: with LoRA, its adapters are merged into the weights first.
        tokens: its tokenizer.
        adapters: save the adapters of LoRA alone instead, as `peft` does.
    """
    plain = plain_copy(model)
    save_whole(path, lambda folder: _save_both(folder, plain if adapters else merged(plain), tokens))


def _save_both(folder: Path, model: Any, tokens: Tokens) -> None:
    model.save_pretrained(folder)
    tokens.tokenizer.save_pretrained(folder)


def save_whole(path: Path, write: Any) -> None:
    """Have `write(folder)` fill a folder beside `path`, then put it there.

    Raises:
        UserError: it could not be written; what was at `path` is untouched.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write(partial)
        if path.exists():
            os.replace(path, old)
        os.replace(partial, path)
    except OSError as error:
        if old.exists() and not path.exists():
            os.replace(old, path)
        raise UserError(
            f"Could not write {path}: {error.strerror or error}. What was saved before is untouched; free some space "
            "or choose another folder."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def merged(model: Any) -> Any:
    """Return a plain model: a copy with the adapters merged if it has some, else itself."""
    if not hasattr(model, "merge_and_unload"):
        return model
    import copy

    return copy.deepcopy(model).merge_and_unload()


def context_length(model: Any) -> int:
    """Return the most tokens that a model can look at; a large number if its configuration does not say."""
    return context_of(model.config)


def context_of(config: Any) -> int:
    """Return what `context_length` does, from the configuration of a model."""
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return 1 << 20


def num_parameters(model: Any) -> int:
    """Return the number of weights."""
    return sum(parameter.numel() for parameter in model.parameters())

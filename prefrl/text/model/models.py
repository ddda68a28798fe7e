"""Language models: from a preset, from a folder or from the hub; saved so that `transformers` loads them."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prefrl.errors import UserError, near_names, require
from prefrl.text.model.tokens import Tokens, _unreachable, without_hub

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
    "demo": Preset(hidden=96, layers=3, heads=4, vocab_size=512),  # 0.4 M parameters
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
    ids = {"pad_token_id": pad_id, "eos_token_id": tokens.end_id, "bos_token_id": None}
    if architecture == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=tokens.vocab_size, n_embd=preset.hidden, n_layer=preset.layers, n_head=preset.heads,
            n_positions=preset.context, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **ids,
        )  # fmt: skip
    elif architecture in ("llama", "qwen3"):
        kind = transformers.LlamaConfig if architecture == "llama" else transformers.Qwen3Config
        config = kind(
            vocab_size=tokens.vocab_size, hidden_size=preset.hidden, intermediate_size=8 * preset.hidden // 3,
            num_hidden_layers=preset.layers, num_attention_heads=preset.heads, num_key_value_heads=preset.heads,
            head_dim=preset.hidden // preset.heads, max_position_embeddings=preset.context, tie_word_embeddings=True,
            **ids,
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
        model: a folder that `save_model`, `save_pretrained` or a run of prefrl wrote, or an id of the hub.

    Raises:
        UserError: it cannot be had.
    """
    place = Path(model)
    if (place / "model" / "config.json").is_file():  # a run folder
        place = place / "model"
    source = str(place) if place.exists() else str(model)
    tokens = Tokens.load(source)
    try:
        loaded = transformers.AutoModelForCausalLM.from_pretrained(
            source, dtype=torch.float32, local_files_only=without_hub(source)
        )
    except Exception as error:  # transformers raises many kinds
        raise UserError(_unreachable("language model", model, error)) from error
    size = loaded.get_input_embeddings().weight.shape[0]
    if size < tokens.vocab_size:
        raise UserError(
            f"The model {model} knows {size} tokens, its tokenizer {tokens.vocab_size}. They do not belong together."
        )
    return loaded.eval(), tokens


def save_model(path: Path, model: Any, tokens: Tokens) -> None:
    """Save a model with its tokenizer, whole or not at all; adapters of LoRA are merged into the weights first.

    `transformers.AutoModelForCausalLM.from_pretrained(path)` loads it.
    """
    save_whole(path, lambda folder: _save_both(folder, model, tokens))


def _save_both(folder: Path, model: Any, tokens: Tokens) -> None:
    merged(model).save_pretrained(folder)
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
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx"):
        value = getattr(model.config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return 1 << 20


def num_parameters(model: Any) -> int:
    """Return the number of weights."""
    return sum(parameter.numel() for parameter in model.parameters())

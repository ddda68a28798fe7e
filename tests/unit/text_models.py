"""Tiny language models of many kinds, random, with a byte-level tokenizer: what tests of text load and save."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers

COMMON: dict[str, Any] = {
    "vocab_size": 67, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 1,
    "pad_token_id": 2, "attention_dropout": 0.0,
}  # fmt: skip
EXPERTS: dict[str, Any] = {
    "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24,
}  # fmt: skip
GPT: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
DELTA: dict[str, Any] = {
    "num_hidden_layers": 4, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "full_attention_interval": 2,
}  # fmt: skip
MAMBA: dict[str, Any] = {
    "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 8, "mamba_chunk_size": 8,
}  # fmt: skip
ARCHITECTURES: dict[str, dict[str, Any]] = {
    **{key: {} for key in ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi", "phi3")},
    **{key: {} for key in ("stablelm", "olmo", "olmo2", "cohere", "granite", "glm", "starcoder2", "gpt_neox")},
    **{key: {} for key in ("helium", "smollm3", "nemotron")},
    **dict.fromkeys(("mixtral", "qwen2_moe", "olmoe", "gpt_oss"), EXPERTS),
    "gpt2": GPT,
    "gptj": {**GPT, "rotary_dim": 4},
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 8},
    "openai-gpt": {},
    "bloom": {"n_layer": 2, "n_head": 4},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32, "dropout": 0.0},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64, "expansion_ratio": 2},
    "qwen3_next": {**EXPERTS, **DELTA, "decoder_sparse_step": 1},
    "qwen3_5_text": DELTA,
    "lfm2": {
        "num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"], "block_ff_dim": 48,
        "block_auto_adjust_ff_dim": False, "conv_L_cache": 3,
    },
    "falcon_h1": {
        "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 8,
        "mamba_d_conv": 4, "mamba_chunk_size": 8,
    },
    "mamba": {"state_size": 8, "conv_kernel": 4},
    "mamba2": {"state_size": 8, "conv_kernel": 4, "num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 8},
    "bamba": {"attn_layer_indices": [1], **MAMBA},
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 8, "conv1d_width": 4},
    "rwkv": {"attention_hidden_size": 32, "context_length": 64},
}  # fmt: skip
"""Kinds of causal language models by their name in `transformers`, and what makes them tiny."""


def build(kind: str, seed: int = 0, **changes: Any) -> Any:
    """Return a causal language model of a kind with random weights that are large enough to say something."""
    config = transformers.AutoConfig.for_model(kind, **{**COMMON, **ARCHITECTURES.get(kind, {}), **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.08 * torch.randn_like(parameter))
    return model


ROLES = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('There is no place for a system message') }}{% endif %}"
)
CHATS: dict[str, tuple[tuple[str, ...], str]] = {
    "chatml": (
        ("<|im_start|>", "<|im_end|>"),
        ROLES + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    ),
    "qwen": (  # a system message of its own; the prompt alone has a thought that is over, an answer none
        ("<|im_start|>", "<|im_end|>"),
        "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nBe helpful.<|im_end|>\n' }}{% endif %}" + ROLES
        + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' }}{% endif %}",
    ),
    "llama": (
        ("<|head|>", "<|end_head|>", "<|eot_id|>"),
        "{{ bos_token }}{% for m in messages %}{{ '<|head|>' + m.role + '<|end_head|>\n\n' + m.content | trim + "
        "'<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|head|>assistant<|end_head|>\n\n' }}{% endif %}",
    ),
    "gemma": (
        ("<start_of_turn>", "<end_of_turn>"),
        "{{ bos_token }}" + NO_SYSTEM + "{% for m in messages %}{{ '<start_of_turn>' + "
        "('model' if m.role == 'assistant' else m.role) + '\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
    ),
    "mistral": (
        ("[INST]", "[/INST]"),
        "{{ bos_token }}" + NO_SYSTEM + "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + "
        "m.content + ' [/INST]' }}{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}",
    ),
}  # fmt: skip
"""Chat templates of the kinds that models have: their special tokens, and the template."""


def chat_tokenizer(kind: str, **options: Any) -> Any:
    """Return the byte-level tokenizer with a chat template of a kind and its special tokens."""
    specials, template = CHATS[kind]
    tokenizer = byte_tokenizer(**options)
    tokenizer.add_special_tokens({"additional_special_tokens": list(specials)})
    tokenizer.chat_template = template
    return tokenizer


def byte_tokenizer(**options: Any) -> Any:
    """Return a byte-level tokenizer of 259 tokens without a space of its own: `<s>`, `</s>`, `<pad>` and the bytes."""
    specials = ["<s>", "</s>", "<pad>"]
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*specials, *letters])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(specials)
    if options.pop("adds_bos", False):
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]
        )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        clean_up_tokenization_spaces=False, **options,
    )  # fmt: skip


def sentence_tokenizer() -> Any:
    """Return a tokenizer as SentencePiece's: a space is put before every text, and taken off when it is read."""
    specials = ["<unk>", "<s>", "</s>", "<pad>"]
    letters = ["\n", "▁", *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ:.?!"]
    merges = [("▁", "H"), ("▁H", "i"), ("H", "i"), ("▁", "a")]
    words = [a + b for a, b in merges]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys([*specials, *letters, *words]))}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges, unk_token="<unk>"))
    norms = tokenizers.normalizers
    tokenizer.normalizer = norms.Sequence([norms.Prepend("▁"), norms.Replace(" ", "▁")])
    parts = tokenizers.decoders
    tokenizer.decoder = parts.Sequence([parts.Replace("▁", " "), parts.Fuse(), parts.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens(specials)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def save(folder: Path, kind: str = "llama", **changes: Any) -> Any:
    """Save a tiny model of a kind with the byte-level tokenizer into a folder; return the model."""
    model = build(kind, **{"vocab_size": 259, **changes})
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return model

"""The Llama architecture in as few operations as it takes, for small models on the CPU.

There, most of the time of a forward or backward pass of `transformers` goes into many small operations around few
matrix products. Here the parameters of a `transformers` model are used as they are, by fewer and larger operations with
gradients written by hand, and the last layer is computed only where its output is looked at. Results are those of
`transformers` up to rounding. Any other architecture, device or option goes the usual way: `backbone_of` gives None.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from prefrl.errors import require

_LINEARS = [("self_attn", f"{name}_proj") for name in "qkvo"] + [("mlp", f"{n}_proj") for n in ("gate", "up", "down")]


def backbone_of(model: Any) -> Any | None:
    """Return the transformer of a plain Llama model on the CPU, with or without its language head; else None."""
    llama = require("transformers.models.llama.modeling_llama", "text")  # takes a second: only once there is a model
    inner = model.model if type(model) is llama.LlamaForCausalLM else model
    if type(inner) is not llama.LlamaModel or inner.embed_tokens.weight.device.type != "cpu":
        return None
    if any(type(layer) is not llama.LlamaDecoderLayer for layer in inner.layers):  # shared among processes
        return None
    config = inner.config
    dropped = inner.training and (config.attention_dropout > 0 or inner.gradient_checkpointing)
    if config.attention_bias or config.mlp_bias or config.hidden_act != "silu" or dropped:
        return None
    linears = (getattr(getattr(layer, part), name) for layer in inner.layers for part, name in _LINEARS)
    return inner if all(type(linear) is nn.Linear for linear in linears) else None  # adapters are another type


def hidden_states(backbone: Any, ids: Tensor, mask: Tensor, keep: int) -> Tensor:
    """Return `last_hidden_state` of the last `keep` columns, `(B, keep, H)`.

    Args:
        backbone: of `backbone_of`.
        ids: `(B, S)`.
        mask: `(B, S)` bool; positions count only what it holds.
        keep: at most S.
    """
    positions = (mask.long().cumsum(-1) - 1).clamp(min=0)
    visible = None if bool(mask.all()) else _visible(mask)
    return _forward(backbone, [_weights(layer) for layer in backbone.layers], ids, positions, visible, keep)


class Decoder:
    """Gives the logits of what comes next, token by token, from kept keys and values; without gradients.

    Args:
        model: a causal language model of which `backbone_of` gives the transformer.
        capacity: tokens it has room for.
    """

    keeps_rows = False

    def __init__(self, model: Any, capacity: int) -> None:
        backbone: Any = backbone_of(model)
        self._backbone, self._head, self._capacity = backbone, model.lm_head, capacity
        self._layers = [_weights(layer) for layer in backbone.layers]
        self._joined = [torch.cat([weights.query, weights.key_value]) for weights in self._layers]
        self._past: list[_Past] = []
        embedding = backbone.embed_tokens.weight
        cos, sin = (part[0] for part in backbone.rotary_emb(embedding, torch.arange(capacity)[None]))
        half = cos.shape[1] // 2
        self._turns = cos, torch.cat([-sin[:, :half], sin[:, half:]], 1)  # (C, D) each, as `_step` uses them

    def logits(self, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """Take in new tokens; return the logits after the last one, `(B, V)`.

        Args:
            ids: `(B, S)` new ones.
            mask: `(B, T)`: which of all tokens so far count.
            positions: `(B, S)`.
        """
        if not self._past:
            config = self._backbone.config
            shape = (len(ids), config.num_key_value_heads, self._capacity, config.head_dim)
            like = self._backbone.embed_tokens.weight
            self._past = [_Past(like.new_empty(shape), like.new_empty(shape)) for _ in self._layers]
        used = mask.shape[1] - ids.shape[1]
        if used > 0 and ids.shape[1] == 1:
            hidden = self._step(ids[:, 0], mask, positions[:, 0])
        else:
            visible = _visible(mask)
            hidden = _forward(self._backbone, self._layers, ids, positions, visible, 1, self._past, used)[:, -1]
        return self._head(hidden)

    def _step(self, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """Return the last hidden state `(B, H)` of one more token each: `_forward` in yet fewer operations."""
        config, rows, length = self._backbone.config, len(ids), mask.shape[1]
        kv_heads, size, eps = config.num_key_value_heads, config.head_dim, config.rms_norm_eps
        turned = config.num_attention_heads + kv_heads  # queries and keys; values stay as they are
        x = functional.embedding(ids, self._backbone.embed_tokens.weight)
        cos, sin = (part[positions].unsqueeze(1) for part in self._turns)
        hidden = None
        if not bool(mask.all()):
            hidden = torch.zeros(mask.shape).masked_fill_(mask == 0, -torch.inf).repeat_interleave(kv_heads, 0)[:, None]
        for weights, joined, past in zip(self._layers, self._joined, self._past, strict=True):
            states = functional.linear(_normed(x, eps)[0] * weights.before_attention, joined).view(rows, -1, size)
            turning = states[:, :turned]
            turning = torch.addcmul(turning * cos, turning.roll(size // 2, -1), sin)
            past.keys[:, :, length - 1], past.values[:, :, length - 1] = turning[:, -kv_heads:], states[:, turned:]
            keys, values = (store[:, :, :length].flatten(0, 1) for store in past)
            queries = turning[:, :-kv_heads].reshape(rows * kv_heads, -1, size)
            scores = torch.bmm(queries, keys.mT).mul_(size**-0.5)
            shares = torch.softmax(scores if hidden is None else scores.add_(hidden), -1)
            x = torch.addmm(x, torch.bmm(shares, values).view(rows, -1), weights.output.t())
            both = functional.linear(_normed(x, eps)[0] * weights.before_mlp, weights.gate_up)
            gate, up = both.chunk(2, -1)
            x = torch.addmm(x, functional.silu(gate).mul_(up), weights.down.t())
        return _normed(x, eps)[0] * self._backbone.norm.weight

    def repeat(self, samples: int) -> None:
        """Give each row to `samples` samples."""
        self._past = [_Past(*(store.repeat_interleave(samples, 0) for store in past)) for past in self._past]

    def select(self, rows: Tensor) -> None:
        """Keep some rows."""
        self._past = [_Past(*(store[rows] for store in past)) for past in self._past]


class _Past(NamedTuple):
    """Keys and values of a layer, `(B, KV, C, D)` with room for C tokens."""

    keys: Tensor
    values: Tensor


class _Weights(NamedTuple):
    """Of a layer; what reads the same input is joined."""

    before_attention: Tensor
    query: Tensor
    key_value: Tensor
    output: Tensor
    before_mlp: Tensor
    gate_up: Tensor
    down: Tensor


def _weights(layer: Any) -> _Weights:
    attention, mlp = layer.self_attn, layer.mlp
    return _Weights(
        layer.input_layernorm.weight,
        attention.q_proj.weight,
        torch.cat([attention.k_proj.weight, attention.v_proj.weight]),
        attention.o_proj.weight,
        layer.post_attention_layernorm.weight,
        torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]),
        mlp.down_proj.weight,
    )


def _visible(mask: Tensor) -> Tensor:
    """Return `(B, 1, S, S)`: each token sees itself and those before it that the mask holds."""
    size = mask.shape[1]
    itself = torch.eye(size, dtype=torch.bool, device=mask.device)
    earlier = torch.ones(size, size, dtype=torch.bool, device=mask.device).tril()
    return ((mask.bool()[:, None] & earlier) | itself)[:, None]


def _forward(
    backbone: Any, layers: list[_Weights], ids: Tensor, positions: Tensor, visible: Tensor | None, keep: int,
    past: list[_Past] | None = None, used: int = 0,
) -> Tensor:  # fmt: skip
    config = backbone.config
    heads, kv_heads, size, eps = (
        config.num_attention_heads, config.num_key_value_heads, config.head_dim, config.rms_norm_eps,
    )  # fmt: skip
    x = functional.embedding(ids, backbone.embed_tokens.weight)
    rows, length = ids.shape
    cos, sin = (part[:, :, None, : size // 2] for part in backbone.rotary_emb(x, positions))
    for number, weights in enumerate(layers):
        width = keep if number == len(layers) - 1 else length
        normed = _rms_norm(x, weights.before_attention, eps)
        query = functional.linear(normed[:, length - width :], weights.query).view(rows, width, heads, size)
        key, value = functional.linear(normed, weights.key_value).view(rows, length, 2, kv_heads, size).unbind(2)
        query = _rotate(query, cos[:, length - width :], sin[:, length - width :]).transpose(1, 2)
        key, value = _rotate(key, cos, sin).transpose(1, 2), value.transpose(1, 2)
        if past is not None:
            for store, new in zip(past[number], (key, value), strict=True):
                store[:, :, used : used + length] = new
            key, value = (store[:, :, : used + length] for store in past[number])
        if kv_heads < heads:
            key, value = (states.repeat_interleave(heads // kv_heads, 1) for states in (key, value))
        seen = visible
        if seen is None and width < length:
            seen = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()[None, None]
        seen = seen if seen is None else seen[:, :, -width:]
        causal = seen is None and width > 1
        attended = functional.scaled_dot_product_attention(query, key, value, seen, is_causal=causal)
        attended = attended.transpose(1, 2).reshape(rows, width, heads * size)
        x = x[:, length - width :] + functional.linear(attended, weights.output)
        normed = _rms_norm(x, weights.before_mlp, eps)
        x = x + functional.linear(_swiglu(functional.linear(normed, weights.gate_up)), weights.down)
    return _rms_norm(x, backbone.norm.weight, eps)


def _normed(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return x / sqrt(mean(x^2) + eps), and what x was multiplied by."""
    inverse = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    return x * inverse, inverse


class _RmsNorm(torch.autograd.Function):
    """w x / sqrt(mean(x^2) + eps) (Zhang and Sennrich 2019)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        normed, inverse = _normed(x, eps)
        ctx.save_for_backward(normed, inverse, weight)
        return normed * weight

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        normed, inverse, weight = ctx.saved_tensors
        by_weight = gradient * normed
        along = (by_weight @ weight).unsqueeze(-1).div_(weight.numel())
        by_x = torch.addcmul(gradient * weight, normed, along, value=-1).mul_(inverse)
        return by_x, by_weight.flatten(0, -2).sum(0), None


class _Rotate(torch.autograd.Function):
    """Rotary positions (Su et al. 2021): pairs (i, i + D / 2) of the last axis are turned by an angle."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(gradient, cos, sin, -1), None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    turned = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    for (out, of_cos), of_sin, way in zip(
        zip(turned.chunk(2, -1), x.chunk(2, -1), strict=True), x.chunk(2, -1)[::-1], (-sign, sign), strict=True
    ):
        torch.mul(of_cos, cos, out=out).addcmul_(of_sin, sin, value=way)
    return turned


class _SwiGlu(torch.autograd.Function):
    """silu(gate) * up (Shazeer 2020), of both side by side."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, -1)
        sigmoid = torch.sigmoid(gate)
        ctx.save_for_backward(gate_up, sigmoid)  # its exponentials cost more than all the rest
        return (gate * sigmoid).mul_(up)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gate_up, sigmoid = ctx.saved_tensors
        gate, up = gate_up.chunk(2, -1)
        by_both = torch.empty_like(gate_up)
        by_gate, by_up = by_both.chunk(2, -1)
        silu = gate * sigmoid
        torch.mul(gradient, silu, out=by_up)
        slope = torch.addcmul(sigmoid, silu, 1 - sigmoid)
        torch.mul(slope.mul_(up), gradient, out=by_gate)
        return by_both


_rms_norm: Any = _RmsNorm.apply
_rotate: Any = _Rotate.apply
_swiglu: Any = _SwiGlu.apply

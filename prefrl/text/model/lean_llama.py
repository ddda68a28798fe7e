"""The Llama architecture in as few operations as it takes, for small models on the CPU.

There, most of the time of a forward or backward pass of `transformers` goes into many small operations around few
matrix products. Here the parameters of a `transformers` model are used as they are, by fewer and larger operations with
gradients written by hand, and the last layer is computed only where its output is looked at. Results are those of
`transformers` up to rounding. Any other architecture, device or option goes the usual way: `backbone_of` gives None.
"""

from __future__ import annotations

from collections.abc import Callable
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


def hidden_states(backbone: Any, ids: Tensor, mask: Tensor, columns: Tensor) -> Tensor:
    """Return `last_hidden_state` in some columns of each row, `(B, K, H)`; any numbers where the mask holds nothing.

    Args:
        backbone: of `backbone_of`.
        ids: `(B, S)`.
        mask: `(B, S)` bool; positions count only what it holds.
        columns: `(B, K)` int64.
    """
    return _forward(backbone, [_weights(layer) for layer in backbone.layers], _pack(ids, mask, columns))


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
        self._steps: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        self._past = torch.empty(0)
        """`(N, 2, B KV, C, D)`: keys and values of N layers, with room for C tokens."""
        embedding = backbone.embed_tokens.weight
        cos, sin = (part[0] for part in backbone.rotary_emb(embedding, torch.arange(capacity)[None]))
        half = cos.shape[1] // 2
        self._turns = cos, torch.cat([-sin[:, :half], sin[:, half:]], 1)  # (C, D) each, as `_step` uses them

    def logits(self, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """Take in new tokens, at first all those there are, then one of each row; return the logits after it, `(B, V)`.

        Args:
            ids: `(B, S)` new ones.
            mask: `(B, T)`: which of all tokens so far count.
            positions: `(B, S)`.
        """
        if mask.shape[1] > ids.shape[1]:
            return self._head(self._step(ids.squeeze(1), mask, positions.squeeze(1)))
        config, embedding = self._backbone.config, self._backbone.embed_tokens.weight
        sizes = config.num_key_value_heads, self._capacity, config.head_dim
        past = embedding.new_empty(len(self._layers), 2, len(ids), *sizes)
        last = torch.full((len(ids), 1), ids.shape[1] - 1)
        hidden = _forward(self._backbone, self._layers, _pack(ids, mask.bool(), last), past)[:, 0]
        self._past, self._steps = past.flatten(2, 3), [_for_steps(weights, config) for weights in self._layers]
        return self._head(hidden)

    @torch.inference_mode()
    def _step(self, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """Return the last hidden state `(B, H)` of one more token each: `_forward` in yet fewer operations."""
        config, rows, length = self._backbone.config, len(ids), mask.shape[1]
        heads, kv_heads, size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        of_kv, turned = rows * kv_heads, heads + kv_heads  # queries and keys are turned; values stay as they are
        x = functional.embedding(ids, self._backbone.embed_tokens.weight)
        cos, sin = (part[positions].unsqueeze(1) for part in self._turns)
        hidden = torch.where(mask > 0, 0.0, -torch.inf).to(x.dtype).repeat_interleave(kv_heads, 0).unsqueeze(1)
        for (joined, output, gate_up, down), past in zip(self._steps, self._past, strict=True):
            states = torch.mm(self._normed(x), joined).view(rows, -1, size)
            turning = states[:, :turned]
            states[:, :turned] = torch.addcmul(turning * cos, turning.roll(size // 2, -1), sin)
            past[:, :, length - 1] = states[:, heads:].view(rows, 2, kv_heads, size).transpose(0, 1).flatten(1, 2)
            keys, values = past[:, :, :length]
            scores = torch.baddbmm(hidden, states[:, :heads].reshape(of_kv, -1, size), keys.mT)
            attended = torch.bmm(torch.softmax(scores, -1), values).view(rows, -1)
            x = torch.addmm(x, attended, output)
            gate, up = torch.mm(self._normed(x), gate_up).chunk(2, -1)
            x = torch.addmm(x, functional.silu(gate).mul_(up), down)
        return self._normed(x) * self._backbone.norm.weight

    def _normed(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, x.shape[-1:], eps=self._backbone.config.rms_norm_eps)

    def repeat(self, samples: int) -> None:
        """Give each row to `samples` samples."""
        self._choose(lambda past: past.repeat_interleave(samples, 2))

    def select(self, rows: Tensor) -> None:
        """Keep some rows."""
        self._choose(lambda past: past[:, :, rows])

    def _choose(self, chosen: Callable[[Tensor], Tensor]) -> None:
        of_rows = self._past.unflatten(2, (-1, self._backbone.config.num_key_value_heads))
        self._past = chosen(of_rows).flatten(2, 3)


class _Weights(NamedTuple):
    """Parameters of a layer; those that are applied to the same input are one matrix."""

    before_attention: Tensor
    query_key_value: Tensor
    output: Tensor
    before_mlp: Tensor
    gate_up: Tensor
    down: Tensor


def _weights(layer: Any) -> _Weights:
    attention, mlp = layer.self_attn, layer.mlp
    return _Weights(
        layer.input_layernorm.weight,
        torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]),
        attention.o_proj.weight,
        layer.post_attention_layernorm.weight,
        torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]),
        mlp.down_proj.weight,
    )


def _for_steps(weights: _Weights, config: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the matrices of a layer, transposed; the joined ones take in the weights of norms and scale of queries."""
    weights.query_key_value.mul_(weights.before_attention)
    weights.query_key_value[: config.num_attention_heads * config.head_dim].mul_(config.head_dim**-0.5)
    weights.gate_up.mul_(weights.before_mlp)
    return weights.query_key_value.t(), weights.output.t(), weights.gate_up.t(), weights.down.t()


class _Packed(NamedTuple):
    """The T tokens of B rows: what rows begin with alike is there once, padding not at all."""

    ids: Tensor
    """`(T,)`"""
    positions: Tensor
    """`(T,)`"""
    places: Tensor
    """`(B, S)`: which token is in each column; any where the mask holds none."""
    rows: Tensor
    """`(B, L)`: which tokens each row is made of, one after the other; any behind its end."""
    first: Tensor
    """`(T,)`: the first place of each token in `rows`, flattened."""
    kept: Tensor
    """`(T',)`: the tokens whose hidden states are asked for."""
    found: Tensor
    """`(B, K)`: which of the kept is in each of the columns asked for."""


def _pack(ids: Tensor, mask: Tensor, columns: Tensor) -> _Packed:
    shown = torch.where(mask, ids, -1)
    order = torch.tensor(sorted(range(len(ids)), key=shown.tolist().__getitem__))  # rows that begin alike side by side
    shown, mask = shown[order], mask[order]
    new = torch.ones_like(mask)  # what is not in the row before it, or stands behind such
    new[1:] = (shown[1:] != shown[:-1]).cumsum(1) > 0
    owner = torch.where(new, torch.arange(len(ids))[:, None], 0).cummax(0).values  # the row that each place is read in
    read = mask & new
    number = (read.flatten().cumsum(0) - 1).clamp_(min=0).view(mask.shape)
    places, positions = number.gather(0, owner), mask.cumsum(1) - 1
    longest = int(positions[:, -1].max()) + 1
    rows = places.gather(1, torch.argsort((~mask).byte(), dim=1, stable=True)[:, :longest])
    first = (torch.arange(len(ids))[:, None] * longest + positions)[read]
    places = places[torch.argsort(order)]
    asked = places.gather(1, columns)
    is_kept = torch.zeros(len(first), dtype=torch.bool).index_fill_(0, asked.flatten(), True)
    found = (is_kept.cumsum(0) - 1)[asked]
    return _Packed(shown[read], positions[read], places, rows, first, is_kept.nonzero().squeeze(1), found)


def _forward(backbone: Any, layers: list[_Weights], tokens: _Packed, past: Tensor | None = None) -> Tensor:
    """Return the last hidden states of the kept tokens, `(B, K, H)`; put keys and values of all columns in `past`."""
    config = backbone.config
    heads, kv_heads, size, eps = (
        config.num_attention_heads, config.num_key_value_heads, config.head_dim, config.rms_norm_eps,
    )  # fmt: skip
    rows, shape, taken = tokens.rows, (*tokens.rows.shape, -1, size), functional.embedding
    first = None if rows.numel() == len(tokens.ids) else tokens.first  # None: each token stands in its own place
    x = taken(tokens.ids, backbone.embed_tokens.weight)
    cos, sin = (part[0, :, None, : size // 2] for part in backbone.rotary_emb(x, tokens.positions[None]))
    for number, weights in enumerate(layers):
        states = functional.linear(_rms_norm(x, weights.before_attention, eps), weights.query_key_value)
        parts = [part.flatten(1) for part in _split(states.view(len(x), -1, size), cos, sin, heads, kv_heads)]
        if past is not None:
            for store, part in zip(past[number], parts[1:], strict=True):
                store[:, :, : tokens.places.shape[1]] = part[tokens.places].unflatten(2, (-1, size)).transpose(1, 2)
        placed = parts if first is None else [taken(rows, part) for part in parts]
        query, key, value = (part.view(shape).transpose(1, 2) for part in placed)
        if kv_heads < heads:
            key, value = (states.repeat_interleave(heads // kv_heads, 1) for states in (key, value))
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        attended = attended.transpose(1, 2).reshape(-1, heads * size)
        if number == len(layers) - 1:
            x, first = taken(tokens.kept, x), tokens.first[tokens.kept]
        attended = attended if first is None else taken(first, attended)
        x = x + functional.linear(attended, weights.output)
        x = x + functional.linear(
            _swiglu(functional.linear(_rms_norm(x, weights.before_mlp, eps), weights.gate_up)), weights.down
        )
    return taken(tokens.found, _rms_norm(x, backbone.norm.weight, eps))


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


class _Split(torch.autograd.Function):
    """Queries and keys with rotary positions (Su et al. 2021), and values, from all side by side, `(T, heads, D)`."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, cos: Tensor, sin: Tensor, heads: int, kv_heads: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(cos, sin)
        ctx.turned = turned = heads + kv_heads
        split = torch.empty_like(states)
        _turn(states[:, :turned], cos, sin, 1, split[:, :turned])
        split[:, turned:] = states[:, turned:]
        return split[:, :heads], split[:, heads:turned], split[:, turned:]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        cos, sin = ctx.saved_tensors
        joined = torch.cat(gradients, 1)
        turned = joined[:, : ctx.turned]
        _turn(turned.clone(), cos, sin, -1, turned)
        return joined, None, None, None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor, sign: int, out: Tensor) -> None:
    """Turn pairs (i, i + D / 2) of the last axis by an angle."""
    both = x.chunk(2, -1)
    for into, of_cos, of_sin, way in zip(out.chunk(2, -1), both, both[::-1], (-sign, sign), strict=True):
        torch.mul(of_cos, cos, out=into).addcmul_(of_sin, sin, value=way)


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
_split: Any = _Split.apply
_swiglu: Any = _SwiGlu.apply

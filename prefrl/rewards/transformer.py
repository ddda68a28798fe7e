"""The Preference Transformer (Kim et al. 2023): what a step is worth may depend on the steps before it in its segment.

A causal transformer reads a segment and gives each step a reward; how much a step counts in the sum is told by a second
layer of attention, in which every step looks at all. The logit of a comparison is then a weighted sum of rewards that
are not Markovian. Departures: a step is one token of observation and action together, not two; places are told by
sinusoids, so that segments of any length are read; and weights are in units of 1 / k, so that equal ones leave the
plain sum of the other networks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from prefrl.errors import UserError
from prefrl.rewards.networks import Features, uniform_weights
from prefrl.spaces import Array

HEADS = 4


class EnsembleTransformer(nn.Module):
    """M transformers of one layer, run as one.

    Args:
        num_members: M.
        num_inputs: D, size of the feature vector of a step.
        width: W, of the tokens; a multiple of 4, the number of heads.
        generator: source of the starting weights.

    Raises:
        UserError: the width is no such multiple.
    """

    def __init__(self, num_members: int, num_inputs: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        if width % HEADS:
            raise UserError(
                f"The first of reward.hidden is the width of the transformer, a multiple of {HEADS}. Received {width}"
            )

        def layer(i: int, o: int) -> nn.Parameter:
            return uniform_weights((num_members, i, o), i, generator)

        def bias(o: int, i: int) -> nn.Parameter:
            return uniform_weights((num_members, 1, o), i, generator)

        self.width = width
        self.embed, self.embed_bias = layer(num_inputs, width), bias(width, num_inputs)
        self.mix, self.mix_out = layer(width, 3 * width), layer(width, width)
        self.up, self.up_bias = layer(width, 2 * width), bias(2 * width, width)
        self.down, self.down_bias = layer(2 * width, width), bias(width, 2 * width)
        self.reward, self.reward_bias = layer(width, 1), bias(1, width)
        self.look = layer(width, 2 * width)  # queries and keys by which steps are weighted

    def forward(self, features: Features) -> Tensor:
        """Return what each step adds to the logit of its segment `(M, B)`; of steps alone, their rewards."""
        assert features.vector is not None
        tokens, rewards = self._read(features.vector, features.length)
        if features.length == 1:
            return rewards.flatten(1)
        queries, keys = self._linear(tokens, self.look).chunk(2, -1)
        weights = (queries @ keys.mT / math.sqrt(self.width)).softmax(-1).mean(-2)  # (M, n, k), of which the sum is 1
        return (features.length * weights * rewards).flatten(1)

    def in_context(self, features: Features) -> Tensor:
        """Return the reward of each step after those before it in its segment `(M, B)`, however much it counts."""
        assert features.vector is not None
        return self._read(features.vector, features.length)[1].flatten(1)

    def _read(self, vector: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Return tokens `(M, n, k, W)` and rewards `(M, n, k)` of n segments of k steps."""
        members = self.embed.shape[0]
        steps = vector.expand(members, -1, -1).unflatten(1, (-1, length))
        x = self._linear(steps, self.embed) + self.embed_bias.unsqueeze(1) + self._places(length, vector)
        parts = self._linear(_normalised(x), self.mix).unflatten(-1, (3, HEADS, -1)).movedim(-3, 0).transpose(-3, -2)
        seen = functional.scaled_dot_product_attention(parts[0], parts[1], parts[2], is_causal=True)
        x = x + self._linear(seen.transpose(-3, -2).flatten(-2), self.mix_out)
        inner = functional.gelu(self._linear(_normalised(x), self.up) + self.up_bias.unsqueeze(1))
        x = x + self._linear(inner, self.down) + self.down_bias.unsqueeze(1)
        tokens = _normalised(x)
        return tokens, (self._linear(tokens, self.reward) + self.reward_bias.unsqueeze(1)).squeeze(-1)

    @staticmethod
    def _linear(x: Tensor, weight: Tensor) -> Tensor:
        """Multiply `(M, n, k, i)` by each member's `(M, i, o)`."""
        return (x.flatten(1, 2) @ weight).unflatten(1, x.shape[1:3])

    def _places(self, length: int, like: Tensor) -> Tensor:
        """Return the sinusoids that tell places `(k, W)` (Vaswani et al. 2017)."""
        half = self.width // 2
        rates = torch.exp(-math.log(10_000.0) / half * torch.arange(half, dtype=like.dtype, device=like.device))
        angles = torch.arange(length, dtype=like.dtype, device=like.device)[:, None] * rates
        return torch.cat([angles.sin(), angles.cos()], 1)


def _normalised(x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:])


def windows(lengths: Array, context: int) -> dict[tuple[int, int], list[int]]:
    """Return windows of whole episodes that overlap by half: where those of a kind begin.

    A kind is the steps of a window, and the first of them that is new in it.
    """
    found: dict[tuple[int, int], list[int]] = {}
    begin, overlap = 0, context // 2
    for length in lengths.tolist():
        start, seen = begin, 0
        while True:
            steps = min(context, begin + length - start)
            found.setdefault((steps, seen), []).append(start)
            if start + steps == begin + length:
                break
            start, seen = start + context - overlap, overlap
        begin += length
    return found

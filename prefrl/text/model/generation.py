"""Sampling: one prefill for all samples of a prompt, a cache of full size from the start, finished rows dropped.

On a GPU, where small steps wait for their launch alone, rows stay and a step is recorded instead: `decoding.py`.
Any causal language model of `transformers` will do. The sampler returns the log-probabilities of the tokens it drew;
training never uses them in a ratio, since a cache rounds otherwise than a full forward pass: trainers compute their
own.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from prefrl.envs.text_tokens import TextTokenizer
from prefrl.errors import UserError
from prefrl.text.model.inputs import position_ids
from prefrl.text.model.options import NoOption
from prefrl.text.model.paged import draw_paged
from prefrl.text.model.sequences import Sequences, joined, make_sequences, pad_left, response_log_probs
from prefrl.text.model.tokens import end_ids_of
from prefrl.text.model.traits import reads_padding

DRAWN_TOKENS = 64
"""Of a response, where nothing else is said."""
DROP_SHARE = 0.25  # finished rows leave the cache once they are this share of it: dropping copies what stays


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How responses are drawn.

    Raises:
        UserError: a value out of its range.
    """

    max_tokens: NoOption[int] = DRAWN_TOKENS
    """Of a response, its end included."""
    temperature: float = 1.0
    """Logits are divided by it."""
    top_k: int = 0
    """Draw from the k likeliest tokens only; 0: from all."""
    top_p: float = 1.0
    """Draw from the likeliest tokens that hold this probability together; 1: from all."""
    greedy: bool = False
    """Take the likeliest token."""
    engine: Literal["own", "paged"] = "own"
    """Who draws: prefrl, or for large models on a GPU transformers' continuous batching over a cache in pages. What
    that draws depends on its own clock too, so that a run that is resumed does not end as one that was not."""

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise UserError(f"max_tokens must be at least 1. Received {self.max_tokens}")
        if not 0 < self.temperature < float("inf"):
            raise UserError(
                f"temperature must be above 0 (greedy takes the likeliest token). Received {self.temperature}"
            )
        if self.top_k < 0 or not 0 < self.top_p <= 1:
            raise UserError(f"top_k must be at least 0 and top_p in (0, 1]. Received {self.top_k} and {self.top_p}")

    def refuse_truncation(self, what: str) -> None:
        """Raise if responses are not drawn from the model's own distribution.

        Raises:
            UserError: `greedy`, `top_k` or `top_p` is set: the ratios of policy gradients would then be those of
                another
                distribution than the responses came from.
        """
        if self.greedy or self.top_k or self.top_p < 1:
            raise UserError(
                f"{what} needs responses drawn from the policy itself; greedy, top_k and top_p change what is drawn, "
                "so that its log-probabilities would be wrong. Leave them out; temperature is allowed, it is applied "
                "everywhere."
            )


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """Responses that were drawn, K to each prompt, those of one prompt side by side."""

    sequences: Sequences
    log_probs: Tensor
    """`(B K, R)` float32: of the tokens drawn, at the temperature; 0 outside the mask."""


@torch.no_grad()
def sample(
    model: Any,
    prompts: Sequence[Sequence[int]],
    settings: SamplingSettings,
    *,
    end_id: int | Collection[int],
    pad_id: int,
    samples_per_prompt: int = 1,
    generator: torch.Generator | None = None,
    uniforms: Tensor | None = None,
) -> Sampled:
    """Draw responses to prompts of token ids.

    Args:
        model: a causal language model in evaluation mode.
        prompts: B lists of ids.
        settings: how they are drawn.
        end_id: ends a response; several where any of them does.
        pad_id: fills up the arrays.
        samples_per_prompt: K.
        generator: random stream, on the model's device; only greedy draws need none.
        uniforms: `(B K, max_tokens)` in [0, 1), instead of a generator: each response then follows from its own row,
            whichever others are drawn beside it.

    Returns:
        B K responses.
    """
    if generator is None and uniforms is None and not settings.greedy:
        raise ValueError("sample needs a generator, unless it is greedy: nothing draws from the global stream.")
    if settings.engine == "paged":
        return _sample_paged(model, prompts, settings, end_id, pad_id, samples_per_prompt, generator, uniforms)
    lengths_of_prompts = {len(prompt) for prompt in prompts}
    if len(lengths_of_prompts) > 1 and not reads_padding(model):
        return _sample_by_length(model, prompts, settings, end_id, pad_id, samples_per_prompt, generator, uniforms)
    device = next(model.parameters()).device
    ends = torch.tensor([end_id] if isinstance(end_id, int) else sorted(end_id), device=device)
    prompt_ids, prompt_mask = (array.to(device) for array in pad_left(prompts, pad_id))
    width, rows = prompt_ids.shape[1], len(prompts) * samples_per_prompt
    from prefrl.text.model.decoding import make_decoder  # with the caches of transformers, which take seconds

    decoder = make_decoder(model, width + settings.max_tokens)
    mask = torch.ones(rows, width + settings.max_tokens, dtype=torch.long, device=device)
    mask[:, :width] = prompt_mask.repeat_interleave(samples_per_prompt, 0)
    ids = torch.full((rows, settings.max_tokens), pad_id, device=device)
    drawn_log_probs = torch.zeros(rows, settings.max_tokens, device=device)
    was_running = torch.zeros(rows, settings.max_tokens, dtype=torch.bool, device=device)

    logits = decoder.logits(prompt_ids, prompt_mask.long(), position_ids(prompt_mask))
    if samples_per_prompt > 1:
        decoder.repeat(samples_per_prompt)
        logits = logits.repeat_interleave(samples_per_prompt, 0)
    place = mask[:, :width].sum(1)
    row = torch.arange(rows, device=device)  # the response that each row of the cache belongs to
    running = torch.ones(rows, dtype=torch.bool, device=device)
    for t in range(settings.max_tokens):
        drawn = None if uniforms is None else uniforms[row, t : t + 1]
        token, log_prob = _draw(logits.float() / settings.temperature, settings, generator, drawn)
        ids[row, t], drawn_log_probs[row, t], was_running[row, t] = token, log_prob, running
        running &= (token[:, None] != ends).all(1)
        num_running = int(running.sum())
        if num_running == 0 or t == settings.max_tokens - 1:
            break
        if not decoder.keeps_rows and num_running <= (1 - DROP_SHARE) * len(running):
            keep = running.nonzero().squeeze(1)
            decoder.select(keep)
            row, token, place, mask, running = row[keep], token[keep], place[keep], mask[keep], running[keep]
        logits = decoder.logits(token.unsqueeze(1), mask[:, : width + t + 1], place.unsqueeze(1))
        place = place + 1
    longest = int(was_running.sum(1).max())
    response_mask = was_running[:, :longest]
    sequences = Sequences(
        prompt_ids=prompt_ids.repeat_interleave(samples_per_prompt, 0),
        prompt_mask=prompt_mask.repeat_interleave(samples_per_prompt, 0),
        response_ids=ids[:, :longest].masked_fill_(~response_mask, pad_id),
        response_mask=response_mask,
    )
    return Sampled(sequences=sequences, log_probs=drawn_log_probs[:, :longest].masked_fill_(~response_mask, 0.0))


def _sample_paged(
    model: Any, prompts: Sequence[Sequence[int]], settings: SamplingSettings, end_id: int | Collection[int],
    pad_id: int, samples_per_prompt: int, generator: torch.Generator | None, uniforms: Tensor | None,
) -> Sampled:  # fmt: skip
    """Let the engine of `transformers` draw; log-probabilities are those of a full pass, without truncation."""
    seed = 0
    if uniforms is not None:
        seed = int(uniforms.flatten()[0].double() * 2**31)
    elif generator is not None:
        seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
    repeated = [list(prompt) for prompt in prompts for _ in range(samples_per_prompt)]
    ends = {end_id} if isinstance(end_id, int) else set(end_id)
    responses = draw_paged(
        model, repeated, max_tokens=settings.max_tokens, temperature=None if settings.greedy else settings.temperature,
        top_k=settings.top_k, top_p=settings.top_p, ends=ends, pad_id=pad_id, seed=seed,
    )  # fmt: skip
    sequences = make_sequences(repeated, responses, pad_id).to(next(model.parameters()).device)
    return Sampled(sequences=sequences, log_probs=response_log_probs(model, sequences, settings.temperature))


def _sample_by_length(
    model: Any, prompts: Sequence[Sequence[int]], settings: SamplingSettings, end_id: int | Collection[int],
    pad_id: int, samples_per_prompt: int, generator: torch.Generator | None, uniforms: Tensor | None,
) -> Sampled:  # fmt: skip
    """Draw responses to the prompts of each length apart, so that none is padded."""
    places, parts = list[int](), []
    for length in sorted({len(prompt) for prompt in prompts}):
        own = [i for i, prompt in enumerate(prompts) if len(prompt) == length]
        rows = [i * samples_per_prompt + k for i in own for k in range(samples_per_prompt)]
        places += rows
        parts.append(
            sample(
                model, [prompts[i] for i in own], settings, end_id=end_id, pad_id=pad_id,
                samples_per_prompt=samples_per_prompt, generator=generator,
                uniforms=None if uniforms is None else uniforms[rows],
            )
        )  # fmt: skip
    sequences = joined([part.sequences for part in parts], pad_id)
    order = torch.argsort(torch.tensor(places, device=sequences.prompt_ids.device))
    width = sequences.response_ids.shape[1]
    log_probs = torch.cat([pad(part.log_probs, (0, width - part.log_probs.shape[1])) for part in parts])
    return Sampled(sequences=sequences.rows(order), log_probs=log_probs[order])


def _draw(
    logits: Tensor, settings: SamplingSettings, generator: torch.Generator | None, drawn: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return a token for each row of `(N, V)` logits, and its log-probability before any truncation."""
    log_probs = torch.log_softmax(logits, -1)
    if settings.greedy:
        token = log_probs.argmax(-1)
    else:
        # One uniform number for each row, against the cumulated probabilities.
        cumulated = _truncated(log_probs, settings).exp().cumsum(-1)
        if drawn is None:
            drawn = torch.rand(len(logits), 1, device=logits.device, generator=generator)
        token = (
            torch.searchsorted(cumulated, drawn * cumulated[:, -1:], right=True)
            .clamp(max=logits.shape[1] - 1)
            .squeeze(1)
        )
    return token, log_probs.gather(1, token.unsqueeze(1)).squeeze(1)


def _truncated(log_probs: Tensor, settings: SamplingSettings) -> Tensor:
    if settings.top_k:
        least = log_probs.topk(min(settings.top_k, log_probs.shape[1]), 1).values[:, -1:]
        log_probs = log_probs.masked_fill(log_probs < least, -torch.inf)
    if settings.top_p < 1:
        ordered, order = log_probs.exp().sort(1, descending=True)
        beyond = ordered.cumsum(1) - ordered >= settings.top_p * ordered.sum(1, keepdim=True)
        log_probs = log_probs.masked_fill(beyond.scatter(1, order, beyond), -torch.inf)
    return log_probs


def decode_response(tokens: TextTokenizer, ids: Sequence[int]) -> str:
    """Return the text of a response up to its end token."""
    ids, ends = list(ids), end_ids_of(tokens)
    return tokens.decode(ids[: next((place for place, token in enumerate(ids) if token in ends), len(ids))])


def warn_if_none_ended(ended: Sequence[bool], max_tokens: int) -> None:
    """Warn where not one of several responses came to its end: the limit or the end token is probably wrong."""
    if len(ended) > 1 and not any(ended):
        warnings.warn(
            f"None of {len(ended)} responses came to an end within {max_tokens} tokens. Raise the limit, or see "
            "whether the model's end token is the one it was trained with (eos_token_id in generation_config.json).",
            stacklevel=2,
        )

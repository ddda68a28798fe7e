"""Rankings of responses that a policy gave: drawn, then ranked by a rule, a judge or a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from prefrl.envs.text_rewards import TextReward, score_responses
from prefrl.errors import UserError
from prefrl.runs.streams import check_seed
from prefrl.text.data.examples import Encoder, RankedResponses
from prefrl.text.model.generation import SamplingSettings, decode_response, sample, warn_if_none_ended
from prefrl.text.model.tokens import end_ids_of

MIN_K, MAX_K = 2, 9


class Drawn(NamedTuple):
    """Responses to P prompts, N to each."""

    texts: list[list[str]]
    ended: list[list[bool]]
    """Whether each came to its end within the limit."""


def draw_responses(
    model: Any,
    encoder: Encoder,
    prompts: Sequence[str],
    how_many: int,
    sampling: SamplingSettings,
    *,
    seed: int,
    rows_at_once: int = 256,
) -> Drawn:
    """Draw `how_many` responses to each prompt; those of one prompt share its prefill.

    Raises:
        UserError: the seed can be none.
    """
    check_seed(seed)
    generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)
    texts: list[list[str]] = []
    ended: list[list[bool]] = []
    at_once = max(1, rows_at_once // how_many)
    for start in range(0, len(prompts), at_once):
        part = [encoder.prompt(prompt) for prompt in prompts[start : start + at_once]]
        drawn = sample(
            model,
            part,
            sampling,
            end_id=end_ids_of(encoder.tokens),
            pad_id=encoder.tokens.pad_id,
            samples_per_prompt=how_many,
            generator=generator,
        )
        flat = [decode_response(encoder.tokens, row) for row in drawn.sequences.token_lists()]
        finished = drawn.sequences.ended(end_ids_of(encoder.tokens)).tolist()
        texts += [flat[i : i + how_many] for i in range(0, len(flat), how_many)]
        ended += [finished[i : i + how_many] for i in range(0, len(flat), how_many)]
    warn_if_none_ended([end for row in ended for end in row], sampling.max_tokens)
    return Drawn(texts=texts, ended=ended)


def rank_by(
    reward: TextReward,
    prompts: Sequence[str],
    responses: Sequence[Sequence[str]],
    *,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[RankedResponses]:
    """Rank responses as a simulated annotator would who feels a reward.

    With a temperature T the order is drawn from Plackett-Luce with scores r / T (the order of r / T + Gumbel noise);
    for two it is Bradley-Terry. At T = 0 it is that of the rewards, equal rewards being ties. Responses that read the
    same are shown once.

    Args:
        reward: what the annotator feels.
        prompts: P prompts.
        responses: for each as many responses as there are.
        temperature: at least 0.
        seed: of the noise.

    Returns:
        Rankings of those prompts that have two different responses left.
    """
    if temperature < 0:
        raise UserError(f"temperature must be at least 0. Received {temperature}")
    unique = [list(dict.fromkeys(row))[:MAX_K] for row in responses]
    flat_prompts = [prompt for prompt, row in zip(prompts, unique, strict=True) for _ in row]
    scores = score_responses(reward, flat_prompts, [text for row in unique for text in row])
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(23,)))
    rankings, start = [], 0
    for prompt, row in zip(prompts, unique, strict=True):
        own = scores[start : start + len(row)]
        start += len(row)
        if temperature:
            own = own / temperature + rng.gumbel(size=len(row))
        if len(row) >= MIN_K:
            ranks = tuple(int((own > value).sum()) for value in own)
            rankings.append(RankedResponses(prompt=prompt, responses=tuple(row), ranks=ranks))
    return rankings

"""What a policy has become: gold and proxy reward, divergence from its start, length, repetition, end rate, wins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from prefrl.envs.text_measures import repeated_share, words_of
from prefrl.envs.text_rewards import score_responses
from prefrl.envs.text_tokens import TextTokenizer
from prefrl.errors import UserError
from prefrl.runs.streams import check_seed
from prefrl.text.data.examples import Encoder
from prefrl.text.learn.ppo_terms import full_kl
from prefrl.text.learn.reward_model import ModelReward
from prefrl.text.model.generation import SamplingSettings, decode_response, sample, warn_if_none_ended
from prefrl.text.model.sequences import Sequences, batches_by_length, make_sequences, response_logits
from prefrl.text.model.tokens import end_ids_of

GoldReward = Callable[[Sequence[str], Sequence[str], Sequence[bool]], Any]
"""(prompts, responses, whether each ended) -> floats."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Responses that a policy gave to the prompts of an evaluation, one each."""

    prompts: list[str]
    texts: list[str]
    ended: list[bool]
    sequences: Sequences
    """On the device of the model."""


@torch.no_grad()
def answer_prompts(
    model: Any,
    encoder: Encoder,
    prompts: Sequence[str],
    sampling: SamplingSettings,
    *,
    seed: int,
    batch_size: int = 256,
) -> Answers:
    """Draw one response to each prompt.

    Raises:
        UserError: there are no prompts, one is too long, or the seed can be none.
    """
    check_seed(seed)
    if not prompts:
        raise UserError("There are no prompts to answer; the data set is empty.")
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    ids = [encoder.prompt(prompt) for prompt in prompts]
    ends, pad_id = end_ids_of(encoder.tokens), encoder.tokens.pad_id
    responses: list[list[int]] = []
    for start in range(0, len(ids), batch_size):
        drawn = sample(
            model, ids[start : start + batch_size], sampling, end_id=ends, pad_id=pad_id, generator=generator
        )
        responses += drawn.sequences.token_lists()
    texts = [decode_response(encoder.tokens, row) for row in responses]
    ended = [row[-1] in ends for row in responses]
    warn_if_none_ended(ended, sampling.max_tokens)
    return Answers(
        prompts=list(prompts),
        texts=texts,
        ended=ended,
        sequences=make_sequences(ids, responses, pad_id).to(device),
    )


@torch.no_grad()
def response_kl(
    model: Any, reference: Any, sequences: Sequences, temperature: float, batch_size: int = 64
) -> NDArray[np.float64]:
    """Return `(B,)` KL(pi || pi_ref) over the whole vocabulary, summed over the policy's own tokens, in nats."""
    total = np.zeros(len(sequences))
    for index in batches_by_length(sequences.lengths.tolist(), batch_size):
        part = sequences.rows(torch.tensor(index, device=sequences.response_ids.device))
        ours, theirs = (torch.log_softmax(response_logits(m, part, temperature), -1) for m in (model, reference))
        total[index] = (full_kl(ours, theirs) * part.response_mask).sum(1).cpu().numpy()
    return total


def evaluate_policy(
    model: Any,
    reference: Any,
    encoder: Encoder,
    prompts: Sequence[str],
    sampling: SamplingSettings,
    *,
    gold: GoldReward | None = None,
    proxy: ModelReward | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Return figures of a policy on prompts; the gold reward and the proxy of each response are among them.

    Args:
        model: the policy.
        reference: what it started from.
        encoder: turns strings into ids.
        prompts: best held out of training.
        sampling: how responses are drawn.
        gold: the true reward, which no learner sees.
        proxy: what the policy was trained on.
        seed: of the draws; the same seed for two policies makes their comparison a paired one.
    """
    answers = answer_prompts(model, encoder, prompts, sampling, seed=seed)
    kl = response_kl(model, reference, answers.sequences, sampling.temperature)
    repetition = [repeated_share(words_of(text)) for text in answers.texts]
    row: dict[str, Any] = {
        "kl_nats": float(kl.mean()),
        "kl_standard_error": float(kl.std(ddof=1) / np.sqrt(len(kl))) if len(kl) > 1 else None,
        "length": float(answers.sequences.lengths.float().mean()),
        "repetition": float(np.mean(repetition)),
        "end_rate": float(np.mean(answers.ended)),
        "sample": [answers.prompts[0], answers.texts[0]],
    }
    if gold is not None:
        values = score_responses(lambda p, r: gold(p, r, answers.ended), answers.prompts, answers.texts)
        row |= {"gold": float(values.mean()), "gold_each": [round(float(v), 4) for v in values]}
    if proxy is not None:
        ids = [encoder.prompt(prompt) for prompt in answers.prompts]
        scores = proxy.score_tokens(ids, answers.sequences.token_lists())
        row["proxy"] = float(scores.mean())
    return row


def win_rate(ours: Sequence[float], theirs: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Return the share of prompts on which we are better, ties counting half, and a paired interval of it."""
    won = (np.sign(np.asarray(ours) - np.asarray(theirs)) + 1) / 2
    mean = float(won.mean())
    half = (
        NormalDist().inv_cdf(0.5 + confidence / 2) * float(won.std(ddof=1)) / len(won) ** 0.5 if len(won) > 1 else 0.5
    )
    return mean, max(0.0, mean - half), min(1.0, mean + half)


def completion_accuracy(
    model: Any, tokens: TextTokenizer, questions: Sequence[tuple[str, str]], max_tokens: int = 8
) -> float:
    """Return the share of sentences that the model, taking its likeliest tokens, completes with the right word."""
    drawn = sample(
        model,
        [tokens.encode_prompt(start) for start, _ in questions],
        SamplingSettings(max_tokens=max_tokens, greedy=True),
        end_id=tokens.end_id,
        pad_id=tokens.pad_id,
    )
    texts = [decode_response(tokens, row).strip() for row in drawn.sequences.token_lists()]
    right = [text.startswith(word) for text, (_, word) in zip(texts, questions, strict=True)]
    return float(np.mean(right))

"""Sampling by the engine of `transformers` for large models: continuous batching over a cache in pages.

Responses of any lengths share one cache, in pages that are given back as they end, and prompts are read while others
are drawn. On a GPU with flash attention that is what large models are sampled with; our own sampler is the faster one
for small models and on CPUs.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch

from prefrl.errors import UserError, first_line, require
from prefrl.runs.sharding import is_sharded

PAGE = 32  # tokens
MEND = "Leave the option sampling.engine out: prefrl's own sampler takes any model."


def draw_paged(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    temperature: float | None,
    top_k: int,
    top_p: float,
    ends: Collection[int],
    pad_id: int,
    seed: int,
) -> list[list[int]]:
    """Draw a response to each prompt.

    What is drawn beside what depends on the engine's own clock: one seed does not always give the same responses.

    Args:
        model: a causal language model of `transformers` in evaluation mode.
        prompts: B lists of ids.
        max_tokens: of a response, its end included.
        temperature: logits are divided by it; None: the likeliest token is taken.
        top_k: as `SamplingSettings` has it.
        top_p: as there.
        ends: ids that end a response.
        pad_id: of the model's tokeniser.
        seed: of the engine.

    Returns:
        B lists of ids, the end included where there is one.

    Raises:
        UserError: the engine does not take this model, or gave up.
    """
    transformers = require("transformers", "text")
    if is_sharded(model) or not hasattr(model, "generate_batch"):
        raise UserError(f"The paged engine takes whole models of transformers. {MEND}")
    longest = max(map(len, prompts)) + max_tokens
    drawing: dict[str, Any] = {"do_sample": False}
    if temperature is not None:
        drawing = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": top_k or None}
    config = transformers.GenerationConfig(
        max_new_tokens=max_tokens, eos_token_id=sorted(ends), pad_token_id=pad_id, **drawing
    )
    paging = transformers.ContinuousBatchingConfig(
        page_size=PAGE,
        num_blocks=len(prompts) * (-(-longest // PAGE) + 1),
        max_batch_tokens=max(2 * longest, 512),
        seed=seed,
    )
    try:
        with _quiet(), torch.random.fork_rng():  # it draws from the global stream
            found = model.generate_batch([list(prompt) for prompt in prompts], config, paging, progress_bar=False)
    except torch.OutOfMemoryError:
        raise
    except (ValueError, RuntimeError, NotImplementedError, AttributeError, TypeError) as error:
        reason = first_line(error).rstrip(".")
        raise UserError(f"The paged engine of transformers does not take this model: {reason}. {MEND}") from error
    responses = [list(one.generated_tokens) for one in found.values() if one.error is None]
    if len(responses) != len(prompts) or not all(responses):
        raise UserError(f"The paged engine gave {len(responses)} of {len(prompts)} responses. {MEND}")
    return responses


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what the engine tells of itself, and what it prints out of the output: what it gives tells enough."""
    logger = logging.getLogger("ContinuousBatchingLogger")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        logger.setLevel(before)

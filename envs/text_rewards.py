"""The reward of a written response: any callable of prompts and responses, checked when it is called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefrl.errors import ANYTHING, UserError

TextReward = Callable[[Sequence[str], Sequence[str]], Any]
"""(B prompts, B responses) -> B floats: a written rule, a reward model, an ensemble or a judge elsewhere."""


def score_responses(reward: TextReward, prompts: Sequence[str], responses: Sequence[str]) -> NDArray[np.float64]:
    """Call a reward and check what it gives.

    Returns:
        `(B,)` float64, finite.

    Raises:
        UserError: the reward raised, gave something else than B numbers, or a number that is not finite.
    """
    name = getattr(reward, "__name__", type(reward).__name__)
    try:
        given = reward(prompts, responses)
    except UserError:
        raise
    except ANYTHING as error:
        raise UserError(
            f"The reward {name!r} raised {type(error).__name__}: {error}. It was called with {len(prompts)} prompts "
            f"and as many responses, the first {prompts[0]!r} and {responses[0]!r}."
        ) from error
    try:
        values = np.asarray(given.detach().cpu() if hasattr(given, "detach") else given, np.float64)
    except (TypeError, ValueError):
        raise UserError(f"The reward {name!r} must return one float for each response. Received {given!r}") from None
    if values.shape != (len(prompts),):
        raise UserError(
            f"The reward {name!r} must return one float for each of the {len(prompts)} responses. "
            f"Received an array of shape {values.shape}."
        )
    if not np.isfinite(values).all():
        where = int(np.argmin(np.isfinite(values)))
        raise UserError(
            f"The reward {name!r} returned {values[where]} for the prompt {prompts[where]!r} and the response "
            f"{responses[where]!r}; expected finite numbers. Fix the reward, e.g. by clipping it."
        )
    return values


def judge_each(
    judge: Callable[[str, str, bool], float],
    prompts: Sequence[str],
    responses: Sequence[str],
    ended: Sequence[bool] | None = None,
) -> NDArray[np.float64]:
    """Return what a judge of one prompt, response and whether it was finished gives each, `(B,)` float64.

    Args:
        judge: called B times.
        prompts: B prompts.
        responses: as many responses.
        ended: whether each was finished; None: all were.
    """
    ended = [True] * len(responses) if ended is None else ended
    return np.array([judge(*one) for one in zip(prompts, responses, ended, strict=True)], np.float64)

"""A vision-language model as the judge of pictures drawn for prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from prefrl.image.reward_model import Ranked
from prefrl.vision import VisionJudge

CONSTITUTION = (
    "Prefer the picture that shows what was asked for: the right things, as many as asked for, in the right colours "
    "and places. Of two that do so equally well, prefer the cleaner one."
)


def rank_pictures(
    judge: VisionJudge, prompts: Sequence[str], pictures: Sequence[NDArray[np.uint8]]
) -> tuple[list[Ranked], Counter[str]]:
    """Return a ranking of the pictures `(K, H, W, 3)` of each prompt, by the pairs that each wins.

    Returns:
        rankings: those in which two pictures come apart.
        left_out: numbers of the others, by the reason.
    """
    rows, left_out = [], Counter[str]()
    for prompt, some in zip(prompts, pictures, strict=True):
        found = judge.ranks(f"They were asked for with: {prompt}", list(some))
        if isinstance(found, str):
            left_out[found] += 1
        else:
            rows.append(Ranked(prompt, some, found))
    return rows, left_out

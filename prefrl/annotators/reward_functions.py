"""Python functions of a segment that a teacher judges by: loading them by name, and calling them safely.

A reward function takes a `Segment` of k steps and returns the reward of each step `(k,)`, or one number for the
whole segment: how high it jumped, how long it stood on one leg.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prefrl.errors import ANYTHING, UserError
from prefrl.seams import load_function
from prefrl.segments import Segment
from prefrl.values import unmasked

SegmentReward = Callable[[Segment], ArrayLike]
"""Takes a segment of k steps; returns its rewards `(k,)`, or one number."""


def evaluate(function: SegmentReward, segment: Segment) -> NDArray[np.float64]:
    """Call a user's reward function and check what it returns.

    Returns:
        `(k,)` float64 rewards per step, or `()` where it gave one number for the segment.

    Raises:
        UserError: it raised, or returned something else than finite numbers of one of these shapes.
    """
    called = f"The reward function {name_of(function)}"
    try:
        returned = function(segment)
    except ANYTHING as error:
        raise UserError(f"{called} raised {type(error).__name__}: {error}") from error
    wanted = f"expected {len(segment)} numbers, one for each step of the segment, or one number"
    try:
        values = np.asarray(unmasked(returned, f"What {name_of(function)} returned"), np.float64)
    except (TypeError, ValueError, RuntimeError) as error:  # a tensor that needs a gradient is a RuntimeError
        raise UserError(f"{called} returned {returned!r}; {wanted}.") from error
    if values.shape not in ((), (len(segment),)):
        raise UserError(f"{called} returned an array of shape {values.shape}; {wanted}.")
    if not np.isfinite(values).all():
        raise UserError(f"{called} returned NaN or infinite values; {wanted}, all finite.")
    return values


def name_of(function: Callable[..., object]) -> str:
    """Return the function's name as a message quotes it."""
    return repr(getattr(function, "__qualname__", None) or type(function).__qualname__)


def load_reward_function(where: str) -> SegmentReward:
    """Load a reward function by name.

    Args:
        where: `"path/to/file.py:function"` or `"package.module:function"`.

    Raises:
        UserError: no such file, module or function; importing it fails; it cannot be called.
    """
    return cast(SegmentReward, load_function(where, "reward function", "a segment"))

"""The shape of the DeepMind Control Suite's rewards: 1 within bounds, less the further away (Tassa et al. 2018)."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def tolerance(
    values: Floats,
    low: float,
    high: float = math.inf,
    *,
    margin: float = 0.0,
    at_margin: float = 0.1,
    shape: Literal["gaussian", "linear", "quadratic"] = "gaussian",
) -> Floats:
    """Return 1 where `values` are within bounds, and what is left of it outside: as `dm_control.utils.rewards`.

    Args:
        values: any shape.
        low: lower bound, which is within.
        high: upper bound, which is within.
        margin: distance from the nearer bound at which `at_margin` is left; 0: nothing is left outside.
        at_margin: in [0, 1), for "gaussian" more than 0.
        shape: how it falls; "linear" and "quadratic" fall to 0 and stay there.

    Returns:
        numbers in [0, 1], of the shape of `values`.
    """
    beyond = np.maximum(np.maximum(low - values, values - high), 0.0)
    if margin == 0:
        return np.where(beyond == 0, 1.0, 0.0)
    distance = beyond / margin
    if shape == "gaussian":
        return np.exp(-0.5 * np.square(distance * math.sqrt(-2 * math.log(at_margin))))
    if shape == "linear":
        return np.maximum(1 - distance * (1 - at_margin), 0.0)
    return np.maximum(1 - np.square(distance * math.sqrt(1 - at_margin)), 0.0)

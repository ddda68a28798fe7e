"""Hyper-parameters that fall over the training."""

from __future__ import annotations

import math
from collections.abc import Callable

from prefrl.errors import UserError


def schedule(name: str, value: float | str) -> Callable[[float], float]:
    """Return a function of the share of the training that remains: constant, or for `"linear:X"` from X to 0.

    Args:
        name: of the hyper-parameter, for the message.
        value: a number, or `"linear:X"`.

    Raises:
        UserError: neither.
    """
    if isinstance(value, str) and value.startswith("linear:"):
        start = _number(name, value.removeprefix("linear:"), value)
        return lambda remaining: start * max(remaining, 0.0)  # the last iteration may go past the end
    constant = _number(name, value, value)
    return lambda _: constant


def _number(name: str, text: float | str, given: float | str) -> float:
    try:
        number = float(text)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise UserError(f"{name} must be a number of at least 0 or e.g. linear:0.0003. Received {given!r}")
    return number

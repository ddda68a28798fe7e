"""Options by name, as the command line gives them: `NAME=VALUE ...`, each value JSON or a text."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from prefrl.errors import UserError

_SPELT_AS_IN_PYTHON = {"True": True, "False": False, "None": None}


def pairs(given: Sequence[str], what: str, example: str) -> dict[str, Any]:
    """Return values by name.

    Args:
        given: `NAME=VALUE` each.
        what: they are, for messages.
        example: of one, likewise.

    Raises:
        UserError: one is no pair, or a number that is not finite.
    """
    values = {}
    for pair in given:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise UserError(f"Expected {what} as NAME=VALUE, e.g. {example}. Received {pair!r}")
        try:
            values[name] = json.loads(text, parse_float=_finite, parse_constant=_finite)
        except json.JSONDecodeError:
            values[name] = _SPELT_AS_IN_PYTHON.get(text, text)
    return values


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise UserError(f"Expected a finite number. Received {text}")
    return number

"""Ranges in which a search looks for the best value of a setting."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefrl.errors import UserError
from prefrl.files import parse_json


@dataclass(frozen=True, kw_only=True)
class Range:
    """Values that a setting may have: a few choices, or the numbers between two."""

    values: tuple[Any, ...]
    """The choices; of numbers the least and the greatest."""
    between: bool = False
    """Whatever lies between the two may be tried as well; whole numbers where both are."""
    log: bool = False
    """Their logarithms are drawn evenly."""

    def to_json(self) -> Any:
        """Return the range as a file holds it; `range_of` reads it."""
        if not self.between:
            return list(self.values)
        low, high = self.values
        return {"low": low, "high": high, **({"log": True} if self.log else {})}


def range_of(name: str, given: Any) -> Range:
    """Read a range: a list of choices, or `{"low": A, "high": B}` with `"log": true` where it spans magnitudes.

    Raises:
        UserError: it is none.
    """
    if isinstance(given, list | tuple) and given:
        if any(value in given[:number] for number, value in enumerate(given)):
            raise UserError(f"A value of {name} is given twice: {list(given)}.")
        return Range(values=tuple(given))
    if isinstance(given, Mapping) and {"low", "high"} <= given.keys() <= {"low", "high", "log"}:
        low, high, log = given["low"], given["high"], given.get("log", False)
        numbers = all(type(value) in (int, float) and math.isfinite(value) for value in (low, high))
        if numbers and low < high and isinstance(log, bool):
            if log and low <= 0:
                raise UserError(f"The range of {name} begins at {low}, which has no logarithm. Begin above 0.")
            return Range(values=(low, high), between=True, log=log)
    raise UserError(
        f"The range of {name} should be a list of choices, or {{low, high}} with low below high, and log: true where "
        f"it spans magnitudes. Received {str(given)[:80]}"
    )


_BETWEEN = re.compile(r"([-+.\deE]+?)\.\.([-+.\deE]+)(?::(\w*))?")


def parse_range(name: str, text: str) -> dict[str, Any] | None:
    """Return the range that a word of the command line stands for: `LOW..HIGH` or `LOW..HIGH:log`; None: it is none.

    Raises:
        UserError: its ends are no numbers, or its scale is not known.
    """
    found = _BETWEEN.fullmatch(text)
    if found is None:
        return None
    low, high, scale = found.groups()
    if scale not in (None, "log"):
        raise UserError(f"A range is LOW..HIGH, or LOW..HIGH:log. Received {name}={text}")
    try:
        given = {"low": parse_json(low), "high": parse_json(high)}
    except ValueError:
        raise UserError(f"Expected the range of {name} as LOW..HIGH, both numbers. Received {text!r}") from None
    return {**given, "log": True} if scale else given

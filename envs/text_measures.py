"""What can be counted of any text: its words, and how much of it repeats itself."""

from __future__ import annotations

import re
from collections.abc import Sequence


def words_of(text: str) -> list[str]:
    """Return words and marks."""
    return re.findall(r"\w+|[^\w\s]", text)


def repeated_share(words: Sequence[str], n: int = 3) -> float:
    """Return the share of n-grams that occurred earlier in the same text, in [0, 1)."""
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0

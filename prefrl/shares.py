"""Shares of n cases, each with its 95 % interval.

The interval is Wilson's (1927): unlike mean +- 2 standard errors it stays within [0, 1] and tells something where all
cases, or none, are hits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

Z = 1.959963984540054  # 97.5 % quantile of the normal distribution


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share of n cases, with its 95 % interval (Wilson)."""

    num: int
    share: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.share:.0%} ({self.low:.0%} to {self.high:.0%}, of {self.num})"

    def to_json(self) -> dict[str, Any]:
        """Return the share as JSON values; `Share(**values)` is the inverse."""
        return asdict(self)


def wilson(hits: float, num: int) -> Share | None:
    """Return the share of `hits` in `num` cases; None of nothing.

    Args:
        hits: from 0 to `num`; a case that is half a hit counts one half.
        num: cases.
    """
    if num == 0:
        return None
    share = hits / num
    spread = Z * Z / num
    middle = (share + spread / 2) / (1 + spread)
    half = Z * math.sqrt(share * (1 - share) / num + spread / (4 * num)) / (1 + spread)
    return Share(num=num, share=share, low=max(0.0, middle - half), high=min(1.0, middle + half))


def share_of(hits: Sequence[bool]) -> Share | None:
    """Return the share of True with its interval; None of nothing."""
    return wilson(sum(hits), len(hits))

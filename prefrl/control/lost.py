"""What a record has lost of what a checkpoint knew: copied without its log, restored from an older copy, emptied.

A checkpoint keeps numbers of rows and not their content; what it needs to tell that they are still those is here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefrl.feedback import Answer, Entry

SHORT = 8  # letters of a query's name that are kept: enough to tell one from another
SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Lost:
    """What is missing."""

    answers: tuple[int, ...]
    """Rows of answers that were learned from."""
    num_learned_from: int
    """How many there were of these."""
    entries: int
    """Rows of any kind that were read, these among them."""
    queries: int

    def __bool__(self) -> bool:
        return bool(self.answers or self.entries or self.queries)

    def __str__(self) -> str:
        rows = ", ".join(map(str, self.answers[:SHOWN])) + (", ..." if len(self.answers) > SHOWN else "")
        which = f" (rows {rows})" if self.answers else ""
        return (
            f"{len(self.answers)} of {self.num_learned_from} answers that were learned from{which}, {self.entries} "
            f"rows of answers in all, and {self.queries} queries"
        )


def what_is_known(taken: Sequence[Answer], num_read: int, asked: Sequence[int]) -> dict[str, Any]:
    """Return what a checkpoint keeps, as JSON.

    Args:
        taken: the answers that count, in the order in which they were taken in.
        num_read: rows that were taken in, whether or not they count.
        asked: queries of each session.
    """
    return {"of": [answer.query_id[:SHORT] for answer in taken], "read": num_read, "asked": list(asked)}


def find_lost(values: Mapping[str, Any], rows: Mapping[int, Entry], asked: Sequence[int]) -> Lost:
    """Compare what a checkpoint knew with a record.

    Args:
        values: of the checkpoint; those of earlier versions know less.
        rows: of the record.
        asked: queries of each session that the checkpoint knew, as the record has them.
    """
    taken, known = values["taken"], values.get("known", {})
    of = known.get("of", [""] * len(taken))
    lost = [
        row for row, start in zip(taken, of, strict=True) if row not in rows or not rows[row].query_id.startswith(start)
    ]
    settled = set(values["settled"])
    found = sum(row <= values["answers_read"] or row in settled for row in rows)
    fewer = [max(0, before - now) for before, now in zip(known.get("asked", ()), asked, strict=False)]
    return Lost(
        answers=tuple(lost),
        num_learned_from=len(taken),
        entries=max(len(lost), known.get("read", found) - found),
        queries=sum(fewer),
    )

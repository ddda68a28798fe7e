"""Answers to look at again: which there are, what each said in words, how surprising it is, and who disagrees.

Read from the record, and from the file in which `prefrl.studies.expected` keeps how likely the learned reward finds
each answer. No torch, no window: both skins show what is here.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefrl.errors import UserError
from prefrl.feedback import Answer
from prefrl.files import read_json
from prefrl.quality import EXPECTED, TOO_FAST_SECONDS, same_judgement
from prefrl.store import PreferenceStore, QueryCard

ORDERS = ("newest", "surprise", "disagreement")
KINDS_OF_INTEREST = {
    "all": "all answers",
    "tie": "ties",
    "cannot_tell": "can't tell",
    "too_fast": f"faster than {TOO_FAST_SECONDS} s",
    "comment": "with a comment",
    "flagged": "flagged, or not answered for a reason",
    "differs": "answered otherwise by somebody, or before",
}


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which answers to show, and in what order.

    Raises:
        UserError: there is no such order or choice.
    """

    annotator: str | None = None
    """Of whom; None: of everybody."""
    only: str = "all"
    order: str = "newest"
    find: str = ""
    """Beginning of a question's name, or the number of an answer's row, as `prefrl quality` prints them."""

    def __post_init__(self) -> None:
        for name, value, known in (("order", self.order, ORDERS), ("only", self.only, tuple(KINDS_OF_INTEREST))):
            if value not in known:
                raise UserError(f"{name} must be one of {', '.join(known)}. Received {value!r}")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An answer that stands."""

    row: int
    answer: Answer
    card: QueryCard
    probability: float | None
    """Of this answer under the learned reward; None: not known, or a tie, which nothing expects."""
    others: int
    """Other answers to the same question, of anybody."""
    differ: int
    """How many of these say something else."""

    @property
    def shown(self) -> tuple[int, ...]:
        """The items from left to right."""
        return self.answer.shown or tuple(range(self.card.num_items))

    @property
    def said(self) -> str:
        """What was said, in words, by the places at which things were shown."""
        value = self.answer.value
        if value is None:
            return "can't tell"
        if self.answer.graded and not self.ranks:
            return f"{value} of {self.card.scale} points"
        ranks = self.ranks
        if len(ranks) == 2:
            return {0: "equally good", -1: "the left one is better", 1: "the right one is better"}[ranks[0] - ranks[1]]
        return f"ranks from the left: {', '.join(map(str, ranks))}" if ranks else str(value)

    @property
    def ranks(self) -> tuple[int, ...]:
        """Rank at each place, 1 for the best; none where the answer gives none."""
        order = self.answer.order
        return () if order is None else tuple(order[item] for item in self.shown)

    @property
    def told(self) -> str:
        """Who said what, and what is to be said of it, in a line."""
        parts = [f"{self.answer.annotator}: {self.said}", f"{self.answer.seconds:.1f} s"]
        if self.probability is not None:
            parts.append(f"the learned reward gave it {self.probability:.0%}")
        if self.differ:
            parts.append(f"{self.differ} of {self.others} others say something else")
        if self.answer.flagged:
            parts.append("flagged")
        parts += [self.answer.comment] if self.answer.comment else []
        return "  -  ".join([*parts, f"row {self.row}, query {self.card.id[:12]}"])

    @property
    def is_too_fast(self) -> bool:
        """It took too little time to look and choose."""
        return 0 < self.answer.seconds < TOO_FAST_SECONDS


def find_entries(
    store: PreferenceStore, wanted: Wanted, expected: Mapping[int, float], *, alone: bool = False
) -> list[Entry]:
    """Return the answers that are wanted, in their order; what was taken back is left out.

    Args:
        store: the record.
        wanted: which.
        expected: probability of answers under the learned reward by their rows.
        alone: nothing is to be told of what anybody else said.
    """
    standing = [(row, a) for row, a in store.answers(standing=True) if isinstance(a, Answer)]
    if alone:
        standing = [(row, a) for row, a in standing if a.annotator == wanted.annotator]
    cards = {card.id: card for card in store.cards(list(dict.fromkeys(a.query_id for _, a in standing)))}
    of_question: dict[str, list[Answer]] = {}
    for _, answer in standing:
        card = cards[answer.query_id]
        of_question.setdefault(card.repeat_of or card.id, []).append(answer)
    found = []
    for row, answer in standing:
        card = cards[answer.query_id]
        if wanted.annotator not in (None, answer.annotator):
            continue
        others = [other for other in of_question[card.repeat_of or card.id] if other is not answer]
        entry = Entry(
            row=row,
            answer=answer,
            card=card,
            probability=expected.get(row),
            others=len(others),
            differ=sum(not _same(other, answer) for other in others),
        )
        if _is_wanted(entry, wanted):
            found.append(entry)
    return sorted(found, key=lambda entry: _place(entry, wanted.order))


def _same(first: Answer, second: Answer) -> bool:
    if first.value is None or second.value is None:
        return first.value is None and second.value is None
    return first.value == second.value or (first.value != 0.5 and same_judgement(first, second))


def _is_wanted(entry: Entry, wanted: Wanted) -> bool:
    if wanted.find and not (entry.card.id.startswith(wanted.find) or str(entry.row) == wanted.find):
        return False
    answer = entry.answer
    return {
        "all": True,
        "tie": not answer.graded and answer.value is not None and len(set(entry.ranks)) < len(entry.ranks),
        "cannot_tell": answer.value is None,
        "too_fast": entry.is_too_fast,
        "comment": bool(answer.comment),
        "flagged": answer.flagged or bool(answer.reason),
        "differs": entry.differ > 0,
    }[wanted.only]


def _place(entry: Entry, order: str) -> tuple[float, int]:
    if order == "surprise":
        return (2.0 if entry.probability is None else entry.probability, -entry.row)
    if order == "disagreement":
        return (-entry.differ / max(1, entry.others), -entry.row)
    return (0.0, -entry.row)


class Expected:
    """How likely the learned reward finds each answer: kept in the run's folder, brought up to date in the background.

    Args:
        folder: of the run; None: there is a record only, and nothing is known.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._working: subprocess.Popen[bytes] | None = None
        self._asked = 0  # newest row at the last try: once is enough where it cannot be done
        self._lock = threading.Lock()

    def read(self) -> dict[int, float]:
        """Return the probabilities by row, as far as they are known."""
        if self._folder is None:
            return {}
        try:
            kept: dict[str, Any] = read_json(self._folder / EXPECTED)
            return {int(row): float(value) for row, value in kept["probabilities"].items()}
        except (UserError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
            return {}

    def refresh(self, newest_row: int) -> bool:
        """Let a process compute the probabilities if there are newer answers; tell whether one works."""
        with self._lock:
            if self._working is not None and self._working.poll() is None:
                return True
            folder = self._folder
            if (
                folder is None
                or not (folder / "config.json").is_file()
                or newest_row <= max(self._asked, self._known())
            ):
                return False
            program = "from prefrl.studies.expected import main; main()"
            command = [sys.executable, "-c", program, str(folder)]
            quiet: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            self._working = subprocess.Popen(command, **quiet)  # noqa: S603  (this program again, without a shell)
            self._asked = newest_row
            return True

    def _known(self) -> int:
        try:
            return int(read_json(self._folder / EXPECTED)["newest_row"])  # type: ignore[operator]
        except (UserError, ValueError, KeyError, TypeError, OverflowError):
            return 0


def names_of(entries: Sequence[Entry]) -> list[str]:
    """Return who gave answers, in order."""
    return sorted({entry.answer.annotator for entry in entries})

"""Intake: which answers of the record the reward is fitted to, whatever comes, in whatever order and however often.

The record is never changed: it holds answers and the rows that take them back. Of the answers to a query that stand,
those of the first annotators count, one of each and as many as the query wants; where one was given to settle what
others disagree about, it counts in place of theirs. Of these, "can't tell" and what comes from annotators who are left
out teach nothing. What counts depends on the rows alone, not on how they were read: at once or one by one, before or
after a restart, once or again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from prefrl.feedback import Answer, Entry, Query, Undo

Row = tuple[int, Entry]
"""An answer, or what takes one back, with its number in the record."""
Counting = tuple[int, Answer]
"""An answer that is learned from, with its number in the record."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What rows of the record change about the data that a reward is fitted to."""

    removed: tuple[int, ...] = ()
    """Numbers of rows that count no longer."""
    added: tuple[Counting, ...] = ()
    """Rows that count from now on, ascending."""


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What must be known of a query; its segments would fill the memory."""

    kind: type[Answer]
    overlap: int
    session: int


class Intake:
    """Takes in the rows of a record, of queries that were asked; holds no segments and reads nothing itself.

    Args:
        first_session: first session whose answers are labels; those before are of an earlier run.
        without: annotators whose answers teach nothing.
        skips_cost_labels: "can't tell" is counted as a label.
    """

    def __init__(
        self, *, first_session: int = 0, without: Collection[str] = (), skips_cost_labels: bool = False
    ) -> None:
        self.first_session, self.without, self.skips_cost_labels = first_session, frozenset(without), skips_cost_labels
        self.taken: list[int] = []
        """Numbers of the rows that count, in the order in which they were taken in."""
        self.labels = 0
        """Answers that were paid for."""
        self.read_up_to = 0
        """Number of the row up to which every row has been taken in."""
        self._asked: dict[str, _Asked] = {}
        self._open: dict[str, None] = {}
        self._rows: dict[int, Entry] = {}
        self._rows_of: dict[str, list[int]] = {}
        self._answerers: dict[str, list[str]] = {}
        self._counting: dict[str, dict[int, Answer]] = {}
        self._cost: dict[str, int] = {}

    # ------------------------------------------------------------------------------------------------ what is known

    @property
    def open(self) -> tuple[str, ...]:
        """Names of the queries of this run that want more answers, in the order in which they were opened."""
        return tuple(self._open)

    @property
    def num_read(self) -> int:
        """Rows that were taken in, whether or not they count."""
        return len(self._rows)

    def asked(self, num_sessions: int) -> list[int]:
        """Return how many queries were asked in each of the first sessions."""
        numbers = Counter(query.session for query in self._asked.values())
        return [numbers[session] for session in range(num_sessions)]

    def answers(self) -> list[Answer]:
        """Return the answers that count, in the order of `taken`."""
        found = {number: answer for counting in self._counting.values() for number, answer in counting.items()}
        return [found[number] for number in self.taken]

    def answerers(self, query_id: str) -> Sequence[str]:
        """Return the annotators whose answers to a query stand and are wanted, "can't tell" among them."""
        return self._answerers.get(query_id, ())

    # ------------------------------------------------------------------------------------------------ what comes

    def ask(self, queries: Iterable[Query]) -> None:
        """Note that queries were asked; rows about others are left for later."""
        for query in queries:
            if query.id not in self._asked:
                self._asked[query.id] = _Asked(kind=query.answer_kind, overlap=query.overlap, session=query.session)
                if query.session >= self.first_session:
                    self._open[query.id] = None

    def take_in(self, rows: Sequence[Row]) -> Change:
        """Take in rows of the record.

        Args:
            rows: ascending, all that there are after `read_up_to`; what was taken in before may be among them.
        """
        touched: dict[str, None] = {}
        for number, answer in rows:
            if number not in self._rows and answer.query_id in self._asked:
                self._rows[number] = answer
                self._rows_of.setdefault(answer.query_id, []).append(number)
                touched[answer.query_id] = None
        for number, _ in rows:
            if number not in self._rows:
                break
            self.read_up_to = max(self.read_up_to, number)
        return self._recount(touched)

    def leave_out(self, annotator: str) -> Change:
        """Learn from an annotator's answers no more, also from those that were taken in."""
        self.without |= {annotator}
        return self._recount([name for name, who in self._answerers.items() if annotator in who])

    def _recount(self, touched: Collection[str]) -> Change:
        """Find anew what counts of these queries; return what that changes."""
        before = {number for name in touched for number in self._counting.get(name, ())}
        for name in touched:
            self._count(name)
        after = {number: answer for name in touched for number, answer in self._counting[name].items()}
        removed = tuple(sorted(before - after.keys()))
        added = tuple((number, after[number]) for number in sorted(after.keys() - before))
        self.taken = [number for number in self.taken if number not in removed] + [number for number, _ in added]
        return Change(removed=removed, added=added)

    def _count(self, name: str) -> None:
        """Find which rows of a query count, who gave them and what they cost."""
        query, numbers = self._asked[name], sorted(self._rows_of[name])
        undone = {row.undoes for row in map(self._rows.__getitem__, numbers) if isinstance(row, Undo)}
        answerers: list[str] = []
        counting: dict[int, Answer] = {}
        skips = 0
        for number in numbers:
            answer = self._rows[number]
            if not isinstance(answer, query.kind) or number in undone or answer.annotator in answerers:
                continue
            if len(answerers) >= query.overlap:
                continue
            answerers.append(answer.annotator)
            if answer.annotator in self.without:
                continue
            if answer.value is None:
                skips += 1
            else:
                counting[number] = answer
        for number in reversed(numbers):  # the last that settles it
            answer = self._rows[number]
            if answer.adjudicates and isinstance(answer, query.kind) and number not in undone:
                if answer.annotator not in self.without:
                    counting = {} if answer.value is None else {number: answer}
                    skips = int(answer.value is None)
                break
        self._answerers[name], self._counting[name] = answerers, counting
        if query.session >= self.first_session:
            cost = len(counting) + skips * self.skips_cost_labels
            self.labels += cost - self._cost.get(name, 0)
            self._cost[name] = cost
            if len(answerers) >= query.overlap:
                self._open.pop(name, None)
            else:
                self._open.setdefault(name)

    # ------------------------------------------------------------------------------------------------ going on

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold, as JSON; the rows and queries stay in the record."""
        late = sorted(number for number in self._rows if number > self.read_up_to)
        return {"taken": self.taken, "answers_read": self.read_up_to, "settled": late}

    def restore(self, state: dict[str, Any], rows: Sequence[Row]) -> None:
        """Go on from what `state` gave.

        Args:
            state: of an intake to which the same queries had been put as to this one, by `ask`.
            rows: all rows of the record, ascending; those that had not been taken in are left for later.
        """
        read, late = state["answers_read"], set(state["settled"])
        self.take_in([(number, answer) for number, answer in rows if number <= read or number in late])
        held = set(self.taken)
        self.taken = [number for number in state["taken"] if number in held]
        self.read_up_to = read

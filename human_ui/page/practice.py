"""Practice before the first real question, on questions whose answers are known: pure functions of how it went."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from prefrl.feedback import Answer
from prefrl.quality import same_judgement


class Stage(Enum):
    """What a person is to do next."""

    CONSENT = "consent"
    PRACTISING = "practising"
    PASSED = "passed"
    FAILED = "failed"
    DONE = "done"


MOST_ROUNDS = 3  # times the number of practice questions, after which it is enough


def stage_of(right: Sequence[bool], num: int, pass_mark: float, *, more: bool) -> Stage:
    """Return how far a person has come.

    Args:
        right: of each question with a known answer that they answered, in order, whether they said what is known.
        num: practice questions; passed once a run of so many was right often enough. 0: none.
        pass_mark: the share that must be right, in [0, 1].
        more: there are more such questions to ask.
    """
    if num == 0:
        return Stage.PASSED
    for end in range(num, min(len(right), MOST_ROUNDS * num) + 1):
        if sum(right[end - num : end]) >= pass_mark * num - 1e-9:
            return Stage.PASSED
    if len(right) >= MOST_ROUNDS * num:
        return Stage.FAILED
    if more:
        return Stage.PRACTISING
    if len(right) >= num:
        return Stage.FAILED
    return Stage.PASSED if sum(right) >= pass_mark * len(right) - 1e-9 else Stage.FAILED  # fewer are known than wanted


def rights(both: Sequence[tuple[Answer, Answer]]) -> list[bool]:
    """Return whether each second answer says what the first does."""
    return [same_judgement(known, said) for known, said in both]


def num_practised(right: Sequence[bool], num: int, pass_mark: float) -> int:
    """Return how many of the questions with known answers were practice; the arguments are those of `stage_of`."""
    for end in range(len(right)):
        if stage_of(right[:end], num, pass_mark, more=True) is not Stage.PRACTISING:
            return end
    return len(right)

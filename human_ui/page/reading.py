"""What a page sent, read: checked, or refused with a sentence and the status of HTTP that says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefrl.errors import UserError
from prefrl.feedback import KINDS, Answer
from prefrl.store import QueryCard


class Refused(Exception):
    """Something that is not done, with the status of HTTP that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def answer_of(card: QueryCard, said: Mapping[str, Any], shown: tuple[int, ...], **common: Any) -> Answer:
    """Return what was said as an answer to a query.

    Raises:
        Refused: it does not fit.
    """
    kind = KINDS.find(card.kind)
    order, grade = said.get("order"), said.get("grade")
    value = None
    try:
        if kind.graded and grade is not None:
            value = kind.from_grade(whole(grade, 1, card.scale or 0), shown)
        elif order is not None and card.num_items > 1:
            value = kind.from_order(_groups(order, shown), card.num_items)
            if value is None:
                raise Refused(422, "This does not say enough: choose more.")
        answer = kind.saying(value, query_id=card.id, shown=shown, **common)
        answer.check(card.num_items, card.scale)
    except UserError as error:
        raise Refused(422, str(error)) from None
    return answer


def _groups(order: object, shown: tuple[int, ...]) -> list[list[int]]:
    """Return groups of items, best first, from groups of the places where they were shown."""
    if not isinstance(order, list) or not order or not all(isinstance(group, list) and group for group in order):
        raise Refused(422, "An order is a list of groups of places, best first.")
    places = [whole(place, 0, len(shown) - 1) for group in order for place in group]
    if len(set(places)) < len(places):
        raise Refused(422, "An order holds no place twice.")
    return [[shown[place] for place in group] for group in order]


def whole(value: object, least: int, most: int) -> int:
    """Return a whole number from `least` to `most`."""
    if type(value) is not int or not least <= value <= most:  # True and False are no numbers here
        raise Refused(422, f"Expected a whole number from {least} to {most}. Received {str(value)[:20]}")
    return value


def text(said: Mapping[str, Any], name: str, most: int) -> str:
    """Return what was written under a name, "" where nothing was; `most` is the most characters."""
    value = said.get(name, "")
    if not isinstance(value, str) or len(value) > most:
        raise Refused(422, f"A {name} has at most {most} characters.")
    return value


def number(said: Mapping[str, Any], name: str, least: float, most: float) -> float:
    """Return the number under a name, from `least` to `most`; 0 where there is none."""
    value = said.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise Refused(422, f"{name} is a number from {least:g} to {most:g}.")
    return float(value)

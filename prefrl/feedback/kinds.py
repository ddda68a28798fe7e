"""The kinds of answers by name: those of this package, and a user's own."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import Any

from prefrl.errors import UserError
from prefrl.feedback.answers import Answer, field_names
from prefrl.feedback.comparison import Comparison
from prefrl.feedback.ranking import Ranking
from prefrl.feedback.rating import Rating
from prefrl.feedback.strength import Strength
from prefrl.seams import Registry

MOST_ITEMS = 9  # that keys tell apart


def _adopt(thing: Any, where: str) -> type[Answer]:
    """Take a user's kind of answer."""
    if not isinstance(thing, type) or not issubclass(thing, Answer) or not is_dataclass(thing):
        raise UserError(f"The {where} must be a dataclass that extends prefrl.feedback.Answer. Received {thing!r}")
    added = field_names(thing)
    if len(added) != 1:
        raise UserError(f"The {where} must add one field, which holds what is said. It adds {added}")
    fewest, most = getattr(thing, "fewest", None), getattr(thing, "most", None)
    if not (isinstance(fewest, int) and isinstance(most, int) and 1 <= fewest <= most <= MOST_ITEMS):
        raise UserError(
            f"The {where} must say how many items its query shows: fewest and most, 1 to {MOST_ITEMS}. "
            f"Received {fewest} and {most}"
        )
    if thing.graded and most > 1:
        raise UserError(f"The {where} gives a grade, which is of one item: most must be 1. Received {most}")
    wanted = ("encode", "log_likelihood") if thing.graded else ("encode", "log_likelihood", "from_order")
    missing = [name for name in wanted if getattr(thing, name).__func__ is getattr(Answer, name).__func__]
    if missing:
        raise UserError(f"The {where} has no {' and no '.join(missing)}; see prefrl.feedback.Answer.")
    return thing


KINDS: Registry[type[Answer]] = Registry(
    "kind of answer", {kind.kind: kind for kind in (Comparison, Ranking, Rating, Strength)}, _adopt
)
"""Every kind of answer that settings, records and data sets can name."""

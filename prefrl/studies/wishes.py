"""Does one reward fit all who answered, or are there groups who want different things?

A test of linear rewards (`prefrl.theory.groups`) on simple features of segments: means and mean squares of observations
and actions, their main directions. It sees differences in what people look for that such features show; it cannot tell
a group with a wish of its own from one that answers at random, which consistency and gold questions can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefrl.feedback import Comparison, Entry
from prefrl.segments import Segment
from prefrl.store import PreferenceStore
from prefrl.studies.queries_in_turn import in_turn
from prefrl.theory.groups import find_groups, main_directions

FEWEST = 10
"""Comparisons of an annotator who is looked at."""
MOST = 400
"""Comparisons that are looked at, the newest."""
DIRECTIONS = 6
DRAWS = 39
LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """Whether annotators seem to want different things."""

    p_value: float
    """Of answers like these if one reward fits all."""
    groups: tuple[tuple[str, ...], ...]
    """Annotators of each of two groups, the larger first."""
    num_answers: int

    @property
    def differ(self) -> bool:
        """The answers are hard to explain by one reward."""
        return self.p_value <= LEVEL and all(self.groups)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {**asdict(self), "differ": self.differ}

    def sentence(self) -> str:
        """Return it in words."""
        if not self.differ:
            return f"One reward seems to fit all who answered (p = {self.p_value:.2f}, {self.num_answers} comparisons)."
        names = " and ".join(", ".join(group) for group in self.groups)
        return (
            f"These seem to want different things, or some of them answer at random: {names} (p = {self.p_value:.2f}, "
            f"{self.num_answers} comparisons). One reward follows the larger group; fit each its own with: "
            "prefrl fit RUN --without NAME"
        )


def compare_wishes(store: PreferenceStore, standing: Sequence[tuple[int, Entry]]) -> Wishes | None:
    """Test whether one reward fits all annotators of a record.

    Args:
        store: the record.
        standing: its answers that stand, with their rows.

    Returns:
        None where it cannot be told: fewer than two annotators with ten comparisons of segments each, or observations
        that are no boxes of numbers.
    """
    given: dict[str, list[Comparison]] = {}
    idle = store.asked_again()
    for _, answer in reversed(standing):
        if isinstance(answer, Comparison) and answer.preference in (0.0, 1.0) and answer.query_id not in idle:
            given.setdefault(answer.annotator, []).append(answer)
    given = {name: answers for name, answers in given.items() if len(answers) >= FEWEST}
    if len(given) < 2:
        return None
    each = max(FEWEST, MOST // len(given))
    names = sorted(given)
    answers = [answer for name in names for answer in given[name][:each]]
    pairs = []
    for answer, query in zip(answers, in_turn(store, [answer.query_id for answer in answers]), strict=True):
        found = [_features(segment) for segment in query.segments]
        if len(found) != 2 or found[0] is None or found[1] is None:
            return None
        pairs.append(found if answer.preference == 1.0 else found[::-1])
    ranked = main_directions(np.array(pairs, np.float64), DIRECTIONS)
    ends = np.cumsum([len(given[name][:each]) for name in names])[:-1]
    found_groups = find_groups(np.split(ranked, ends), np.random.default_rng(0), draws=DRAWS)
    first = found_groups.mixture.belongs[:, 0] >= 0.5
    groups = [tuple(name for name, own in zip(names, first, strict=True) if bool(own) is of) for of in (True, False)]
    groups.sort(key=len, reverse=True)
    return Wishes(p_value=found_groups.p_value, groups=tuple(groups), num_answers=len(answers))


def _features(segment: Segment) -> NDArray[np.float64] | None:
    """Return means and mean squares of what happened, None where that is no box of numbers, or a large one."""
    parts = []
    for values in (segment.observations, segment.actions):
        if not isinstance(values, np.ndarray) or values[0].size > 500:
            return None
        flat = values.reshape(len(values), -1).astype(np.float64)
        parts += [flat.mean(axis=0), (flat**2).mean(axis=0)]
    return np.concatenate(parts)

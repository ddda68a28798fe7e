"""Several simulated annotators beside each other: each question goes to one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefrl.annotators.protocol import Annotator
from prefrl.annotators.reward_functions import load_reward_function
from prefrl.annotators.simulated import checked_seed, draws
from prefrl.annotators.teachers import TEACHERS, make_teacher
from prefrl.errors import UserError
from prefrl.feedback import Answer, Query
from prefrl.history import Episode


class Panel:
    """Annotators who take the questions among them: who gets one follows from the seed and the question alone.

    Args:
        members: two or more, of different names.
        seed: of who is asked.

    Raises:
        UserError: fewer, or two of one name.
    """

    name = "panel"

    def __init__(self, members: Sequence[Annotator], *, seed: int) -> None:
        self.members, self.seed = list(members), checked_seed(seed)
        self.names = [one.name for one in self.members]
        if len(set(self.names)) < max(2, len(self.names)):
            raise UserError(f"A panel needs two annotators or more, of different names. Received {self.names}")

    @property
    def skips_cost_labels(self) -> bool:
        """Whether a query that one of them declines uses up a label of the budget."""
        return any(getattr(one, "skips_cost_labels", False) for one in self.members)

    def observe(self, episodes: Sequence[Episode]) -> None:
        """Tell each of the episodes."""
        for one in self.members:
            one.observe(episodes)

    def answer(self, queries: Sequence[Query]) -> list[Answer]:
        """Return the answers of each to the questions that are theirs, in the order of the questions."""
        whose = [int(draws(self.seed, query)[0] * len(self.members)) for query in queries]
        found: list[Answer] = []
        for number, one in enumerate(self.members):
            mine = [query for query, owner in zip(queries, whose, strict=True) if owner == number]
            found += one.answer(mine) if mine else []
        place = {query.id: number for number, query in enumerate(queries)}
        return sorted(found, key=lambda answer: place[answer.query_id])

    def state(self) -> dict[str, Any]:
        """Return the state of each, by name."""
        return {one.name: one.state() for one in self.members}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        for one in self.members:
            one.restore(state[one.name])


def panel_names(entries: Sequence[str]) -> list[str]:
    """Return the name of each of a panel: of its teacher or function, numbered from the second of the same."""
    names: list[str] = []
    for entry in entries:
        base = entry.rpartition(":")[2]
        taken = sum(name == base or name.rpartition("-")[0] == base for name in names)
        names.append(f"{base}-{taken + 1}" if taken else base)
    return names


def make_panel(entries: Sequence[str], *, teacher: str, seed: int) -> Panel:
    """Make simulated annotators who answer beside each other.

    Args:
        entries: of each the name of a teacher, or `"file.py:function"` or `"module:function"` of a segment.
        teacher: the kind of teacher that judges by these functions.
        seed: of who is asked, and of the answers of each.

    Raises:
        UserError: fewer than two, an unknown name, or a function that cannot be loaded.
    """
    members = []
    for number, (entry, name) in enumerate(zip(entries, panel_names(entries), strict=True)):
        function = None if entry in TEACHERS else load_reward_function(entry)
        one = make_teacher(entry if function is None else teacher, seed=seed + 1 + number, reward_function=function)
        one.name = name
        members.append(one)
    return Panel(members, seed=seed)

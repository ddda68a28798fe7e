"""Simulated teachers by name: B-Pref's presets and two controls.

`CoinFlippingTeacher` and `InvertedTeacher` are controls: nothing can be learned from the one, and the other teaches the
opposite of the task. `make_teacher` makes any teacher by name, a user's own too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from prefrl.annotators.judging import grade
from prefrl.annotators.protocol import Annotator
from prefrl.annotators.reward_functions import SegmentReward
from prefrl.annotators.simulated import SimulatedTeacher, TeacherSettings, checked_seed, draws
from prefrl.errors import UserError
from prefrl.feedback import Answer, Query
from prefrl.history import Episode
from prefrl.seams import Registry, check_call, check_members

PRESETS: Mapping[str, TeacherSettings] = MappingProxyType(
    {
        "oracle": TeacherSettings(),
        "noisy": TeacherSettings(beta=1.0),
        "myopic": TeacherSettings(gamma=0.9),
        "mistake": TeacherSettings(epsilon=0.1),
        "skip": TeacherSettings(skip=0.1),
        "equal": TeacherSettings(equal=0.1),
    }
)
"""B-Pref's teachers by name."""
MakePreset = Callable[[int, SegmentReward | None, bool], Annotator]
"""Makes a teacher from a seed, what it judges by, and whether it behaves as B-Pref's public code does."""


class CoinFlippingTeacher:
    """Answers "first" or "second" with probability 1/2 each, whatever is shown: a control that cannot teach."""

    skips_cost_labels = False

    def __init__(self, *, seed: int, name: str = "coin") -> None:
        self.seed = checked_seed(seed)
        self.name = name

    def observe(self, episodes: Sequence[Episode]) -> None:
        """Do nothing: a coin does not look at episodes."""

    def answer(self, queries: Sequence[Query]) -> list[Answer]:
        """Flip a coin for each comparison, and throw dice for all else."""
        return [self._answer(query) for query in queries]

    def _answer(self, query: Query) -> Answer:
        kind, num_items = query.answer_kind, len(query.items)
        drawn = draws(self.seed, query, max(2, num_items))
        if query.scale is not None:
            value: Any = kind.from_grade(grade(drawn[0], 0.0, 1.0, query.scale), range(num_items))
        else:
            shuffled = [int(drawn[0] >= 0.5), int(drawn[0] < 0.5)] if num_items == 2 else np.argsort(drawn).tolist()
            value = kind.from_order([[item] for item in shuffled], num_items)
        return kind.saying(value, query_id=query.id, annotator=self.name)

    def state(self) -> dict[str, Any]:
        """Return nothing: its answers follow from the seed and the query."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Do nothing: there is no state."""


class InvertedTeacher:
    """Answers the opposite of another teacher; ties stay ties. A control that teaches the opposite of the task."""

    def __init__(self, teacher: SimulatedTeacher, *, name: str = "inverted") -> None:
        self.teacher = teacher
        self.name = name

    @property
    def skips_cost_labels(self) -> bool:
        """Whether a query that the teacher declines uses up a label of the budget."""
        return self.teacher.skips_cost_labels

    def observe(self, episodes: Sequence[Episode]) -> None:
        """Tell the teacher of the episodes."""
        self.teacher.observe(episodes)

    def answer(self, queries: Sequence[Query]) -> list[Answer]:
        """Turn the teacher's answers round."""
        answers = zip(self.teacher.answer(queries), queries, strict=True)
        return [dataclasses.replace(answer.opposite(query.scale), annotator=self.name) for answer, query in answers]

    def state(self) -> dict[str, Any]:
        """Return the teacher's state, as JSON."""
        return self.teacher.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        self.teacher.restore(state)


class MakeTeacher(Protocol):
    """A class or function of a user that makes a teacher."""

    def __call__(self, *, seed: int) -> Annotator:
        """Return an annotator whose random answers follow from the seed."""


def _preset(name: str) -> MakePreset:
    def make(seed: int, reward_function: SegmentReward | None, published: bool) -> Annotator:
        settings = PRESETS["oracle" if name == "inverted" else name]
        teacher = SimulatedTeacher(settings, seed=seed, name=name, reward_function=reward_function, published=published)
        return InvertedTeacher(teacher) if name == "inverted" else teacher

    return make


def _coin(seed: int, reward_function: SegmentReward | None, published: bool) -> Annotator:
    if reward_function is not None or published:
        raise UserError(
            "The teacher 'coin' looks at nothing, so it takes neither a reward function nor the published form. "
            "Leave these out, or choose another teacher."
        )
    return CoinFlippingTeacher(seed=seed)


def _adopt(thing: Any, where: str) -> MakePreset:
    check_call(thing, where, (), ("seed",))

    def make(seed: int, reward_function: SegmentReward | None, published: bool) -> Annotator:
        if reward_function is not None or published:
            raise UserError(f"The {where} judges by itself: leave the reward function and the published form out.")
        teacher: Annotator = thing(seed=seed)
        check_members(teacher, where, Annotator)
        if not isinstance(teacher.name, str) or not teacher.name:
            raise UserError(f"The {where} must have a name for the record. Received {teacher.name!r}")
        return teacher

    return make


TEACHERS: Registry[MakePreset] = Registry(
    "teacher", {**{name: _preset(name) for name in PRESETS}, "coin": _coin, "inverted": _preset("inverted")}, _adopt
)
"""Every teacher that settings can name."""


def make_teacher(
    name: str | MakeTeacher, *, seed: int, reward_function: SegmentReward | None = None, published: bool = False
) -> Annotator:
    """Make a simulated teacher.

    Args:
        name: one of `TEACHERS`, `module:Name` for one of your own, or what makes it.
        seed: seed of its random answers, at least 0.
        reward_function: judge by this function of a segment instead of the environment's true reward.
        published: behave as B-Pref's public code does, see `SimulatedTeacher`.

    Raises:
        UserError: an unknown name, a negative seed, or a teacher that does not judge by a reward and is given one.
    """
    return TEACHERS.find(name)(seed, reward_function, published)

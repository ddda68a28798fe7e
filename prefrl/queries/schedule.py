"""When labels are asked for: a budget of labels spread over the environment steps of a run.

A share of the labels is asked before training (session 0), the rest in sessions spaced evenly over the run. How many
labels a session gets follows a rate over environment steps: falling hyperbolically (Christiano et al. 2017, app. A),
constant, or falling linearly to zero; or a function of a user's own.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

from prefrl.errors import UserError
from prefrl.seams import Named, Registry, check_call

ShareBy = Callable[[float, float], float]
"""The share of the labels after session 0 earned in the first `part` of the way to the last session, which is `way`
times as long as the rate's decay: the integral of a rate, divided by that over the whole way."""

_ROUNDING = 1e-9  # what floating point may take from a number that ought to be whole
_PROBES = 100  # parts of the way at which a user's function is tried


def _adopt(thing: Any, where: str) -> ShareBy:
    """Take a user's function of the part of the way alone."""
    check_call(thing, where, ("part",))
    shares = [thing(probe / _PROBES) for probe in range(_PROBES + 1)]
    numbers = all(isinstance(share, int | float) for share in shares)
    if not numbers or shares[0] < 0 or abs(shares[-1] - 1) > _ROUNDING or shares != sorted(shares):
        raise UserError(
            f"The {where} must give numbers that never fall, from 0 or more at part 0 to 1 at part 1. "
            f"Received {shares[0]!r} at 0, {shares[_PROBES // 2]!r} at 0.5 and {shares[-1]!r} at 1"
        )
    return lambda part, way: float(thing(part))


SCHEDULES: Registry[ShareBy] = Registry(
    "label schedule",
    {
        "hyperbolic": lambda part, way: math.log1p(part * way) / math.log1p(way),
        "constant": lambda part, way: part,
        "linear": lambda part, way: part * (2 - part),
    },
    _adopt,
)
"""Every schedule that settings can name."""


@dataclass(frozen=True, kw_only=True)
class LabelSchedule:
    """How `total_labels` labels are spread over `total_steps` environment steps.

    The sessions sum exactly to `total_labels`. Sessions that would get no label are left out, so few labels mean few
    sessions. A label is asked at the first session by which the rate has earned it whole; the last ones fall
    on the last session exactly.

    Raises:
        UserError: a value out of its range.
    """

    total_labels: int
    """Answers that count, over the whole run; at least 1."""
    total_steps: int
    """Environment steps of the run, all environments together; at least 1."""
    initial_share: float = 0.25
    """Share of the labels asked before training, in [0, 1] (Christiano et al. 2017, app. A: 25 %). Any share above 0
    means at least one label."""
    kind: Named = "hyperbolic"
    """How the rate of labels per step goes on. "hyperbolic": falls like decay_steps / (T + decay_steps) after T steps
    (Christiano et al. 2017, app. A.1); "constant"; "linear": falls to 0 at the last session. Or a function of your own,
    by name or itself: of a part of the way to the last session, in [0, 1], the share of the labels earned by then."""
    decay_steps: float = 2_000_000
    """Steps after which the hyperbolic rate has halved (Christiano et al. 2017: 2e6 for MuJoCo, 5e6 for Atari)."""
    num_sessions: int = 20
    """Most sessions after the first one."""
    last_session_at: float = 0.8
    """Share of `total_steps` at which the last labels are asked, in (0, 1]; later ones would hardly be used."""

    def __post_init__(self) -> None:
        if self.total_labels < 1 or self.total_labels != int(self.total_labels):
            raise UserError(
                "A reward is learned from at least one label: total_labels must be a whole number from 1. "
                f"Received {self.total_labels}. Ask for some, e.g. 300."
            )
        if self.total_steps < 1 or self.total_steps != int(self.total_steps):
            raise UserError(f"total_steps must be a whole number of steps from 1. Received {self.total_steps}")
        if not 0 <= self.initial_share <= 1:
            raise UserError(f"initial_share must be in [0, 1]. Received {self.initial_share}")
        SCHEDULES.find(self.kind)
        if not 0 < self.decay_steps < math.inf:
            raise UserError(f"decay_steps must be positive and finite. Received {self.decay_steps}")
        if self.num_sessions < 1:
            raise UserError(f"num_sessions must be at least 1. Received {self.num_sessions}")
        if not 0 < self.last_session_at <= 1:
            raise UserError(f"last_session_at must be in (0, 1]. Received {self.last_session_at}")

    def sessions(self) -> list[tuple[int, int]]:
        """Return (environment step, labels) of each session: steps strictly increase, labels are at least 1 each."""
        return list(self._sessions)

    def labels_due(self, num_env_steps: int) -> int:
        """Return how many labels should have been asked once `num_env_steps` environment steps are made."""
        due = bisect_right(self._sessions, num_env_steps, key=lambda session: session[0])
        return sum(labels for _, labels in self._sessions[:due])

    def steps_until(self, labels: int) -> int:
        """Return the environment steps after which so many labels, or more, have become due; 0 to `total_labels`."""
        due = accumulate(number for _, number in self._sessions)
        return next((step for (step, _), sum_of in zip(self._sessions, due, strict=True) if sum_of >= labels), 0)

    @cached_property
    def _sessions(self) -> tuple[tuple[int, int], ...]:
        initial = int(self.total_labels * self.initial_share + 0.5)
        if self.initial_share > 0:
            initial = max(initial, 1)
        rest, share_by = self.total_labels - initial, SCHEDULES.find(self.kind)
        way = self.last_session_at * self.total_steps / self.decay_steps
        labels_at = {0: initial}
        asked = 0
        for index in range(1, self.num_sessions + 1):
            step = math.ceil(self.last_session_at * self.total_steps * index / self.num_sessions - _ROUNDING)
            due = math.floor(rest * share_by(index / self.num_sessions, way) + _ROUNDING)
            if index == self.num_sessions:
                due = rest
            labels_at[step] = labels_at.get(step, 0) + due - asked
            asked = due
        return tuple((step, labels) for step, labels in labels_at.items() if labels > 0)

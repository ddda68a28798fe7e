"""When labels are asked for: a budget of labels spread over the environment steps of a run.

A share of the labels is asked before training (session 0), the rest in sessions spaced evenly over the run. How many
labels a session gets follows a rate over environment steps: falling hyperbolically (Christiano et al. 2017, app. A),
constant, or falling linearly to zero.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from prefrl.errors import UserError, near_names

ScheduleKind = Literal["hyperbolic", "constant", "linear"]
SCHEDULES: tuple[str, ...] = get_args(ScheduleKind)

_ROUNDING = 1e-9  # what floating point may take from a number that ought to be whole


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
    kind: ScheduleKind = "hyperbolic"
    """How the rate of labels per step goes on. "hyperbolic": falls like decay_steps / (T + decay_steps) after T steps
    (Christiano et al. 2017, app. A.1); "constant"; "linear": falls to 0 at the last session."""
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
        if self.kind not in SCHEDULES:
            raise UserError(
                f"There is no label schedule {self.kind!r}; choose one of {', '.join(SCHEDULES)}."
                + near_names(str(self.kind), SCHEDULES)
            )
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

    @cached_property
    def _sessions(self) -> tuple[tuple[int, int], ...]:
        initial = int(self.total_labels * self.initial_share + 0.5)
        if self.initial_share > 0:
            initial = max(initial, 1)
        rest = self.total_labels - initial
        labels_at = {0: initial}
        asked = 0
        for index in range(1, self.num_sessions + 1):
            step = math.ceil(self.last_session_at * self.total_steps * index / self.num_sessions - _ROUNDING)
            due = math.floor(rest * self._share_by(index / self.num_sessions) + _ROUNDING)
            if index == self.num_sessions:
                due = rest
            labels_at[step] = labels_at.get(step, 0) + due - asked
            asked = due
        return tuple((step, labels) for step, labels in labels_at.items() if labels > 0)

    def _share_by(self, part: float) -> float:
        """Return the share of the labels after session 0 earned in the first `part` of the way to the last session.

        This is the rate's integral, divided by its integral over the whole way.
        """
        if self.kind == "constant":
            return part
        if self.kind == "linear":
            return part * (2 - part)
        way = self.last_session_at * self.total_steps / self.decay_steps
        return math.log1p(part * way) / math.log1p(way)

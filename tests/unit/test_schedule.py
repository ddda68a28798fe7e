"""When labels are asked for."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefrl.errors import UserError
from prefrl.queries import SCHEDULES, LabelSchedule

schedules = st.builds(
    LabelSchedule,
    total_labels=st.integers(1, 5_000),
    total_steps=st.integers(1, 50_000_000),
    initial_share=st.floats(0, 1),
    kind=st.sampled_from(sorted(SCHEDULES)),
    decay_steps=st.floats(1, 1e8),
    num_sessions=st.integers(1, 60),
    last_session_at=st.floats(0.01, 1),
)


@given(schedules)
def test_sessions_sum_exactly_to_the_budget_and_their_steps_strictly_increase(schedule: LabelSchedule) -> None:
    sessions = schedule.sessions()
    steps, labels = [step for step, _ in sessions], [label for _, label in sessions]
    assert sum(labels) == schedule.total_labels
    assert min(labels) >= 1
    assert all(a < b for a, b in itertools.pairwise(steps))
    assert steps[0] >= 0
    assert steps[-1] <= schedule.total_steps
    assert len(sessions) <= min(schedule.total_labels, schedule.num_sessions + 1)


@given(schedules, st.integers(0, 60_000_000))
def test_labels_due_is_the_running_sum_of_sessions(schedule: LabelSchedule, num_env_steps: int) -> None:
    expected = sum(labels for step, labels in schedule.sessions() if step <= num_env_steps)
    assert schedule.labels_due(num_env_steps) == expected
    assert schedule.labels_due(schedule.total_steps) == schedule.total_labels
    assert schedule.labels_due(-1) == 0


def test_labels_become_due_at_the_steps_until_them_and_not_before() -> None:
    schedule = LabelSchedule(total_labels=60, total_steps=1_000, decay_steps=200)
    for labels in range(1, 61):
        steps = schedule.steps_until(labels)
        assert schedule.labels_due(steps) >= labels
        assert steps == 0 or schedule.labels_due(steps - 1) < labels


def test_a_constant_rate_gives_equal_sessions_ending_at_the_last_session() -> None:
    schedule = LabelSchedule(total_labels=100, total_steps=1_000, kind="constant", initial_share=0.2, num_sessions=4)
    assert schedule.sessions() == [(0, 20), (200, 20), (400, 20), (600, 20), (800, 20)]


def test_a_linear_rate_falls_to_nothing_at_the_last_session() -> None:
    # cumulative share u (2 - u) at u = 1/4, 1/2, 3/4, 1: 7/16, 12/16, 15/16, 1
    schedule = LabelSchedule(total_labels=160, total_steps=800, kind="linear", initial_share=0, num_sessions=4)
    assert schedule.sessions() == [(160, 70), (320, 50), (480, 30), (640, 10)]


def test_a_hyperbolic_rate_earns_labels_like_the_integral_of_christiano_s_rate() -> None:
    total_steps, decay = 10_000_000, 2_000_000
    schedule = LabelSchedule(total_labels=100_000, total_steps=total_steps, initial_share=0.25, num_sessions=8)
    last = 0.8 * total_steps
    for step, _ in schedule.sessions()[1:]:
        # midpoint rule, independent of the closed form
        grid = 20_000
        rate = [decay / ((i + 0.5) * last / grid + decay) for i in range(grid)]
        share = sum(rate[: round(step / last * grid)]) / sum(rate)
        assert schedule.labels_due(step) == pytest.approx(25_000 + 75_000 * share, abs=2)


def test_hyperbolic_with_a_very_long_decay_is_constant() -> None:
    common = {"total_labels": 420, "total_steps": 1_000, "num_sessions": 7}
    slow = LabelSchedule(kind="hyperbolic", decay_steps=1e15, **common)  # type: ignore[arg-type]
    assert slow.sessions() == LabelSchedule(kind="constant", **common).sessions()  # type: ignore[arg-type]


def test_the_defaults_are_a_quarter_up_front_and_twenty_sessions_until_four_fifths() -> None:
    sessions = LabelSchedule(total_labels=300, total_steps=400_000).sessions()
    assert sessions[0] == (0, 75)
    assert len(sessions) == 21
    assert sessions[1][0] == 16_000
    assert sessions[-1][0] == 320_000


def test_few_labels_mean_few_sessions_with_one_label_before_training_and_the_last_at_the_last_session() -> None:
    sessions = LabelSchedule(total_labels=3, total_steps=1_000, kind="constant").sessions()
    assert sessions == [(0, 1), (400, 1), (800, 1)]
    assert LabelSchedule(total_labels=1, total_steps=1_000).sessions() == [(0, 1)]


def test_all_labels_before_training_is_one_session() -> None:
    assert LabelSchedule(total_labels=50, total_steps=1_000, initial_share=1).sessions() == [(0, 50)]


def test_no_share_up_front_leaves_out_session_zero() -> None:
    assert LabelSchedule(total_labels=50, total_steps=1_000, initial_share=0).sessions()[0][0] > 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"total_labels": 0}, r"at least one label.*Received 0.*300"),
        ({"total_labels": -5}, r"Received -5"),
        ({"total_labels": 2.5}, r"whole number"),
        ({"total_steps": 0}, r"total_steps.*Received 0"),
        ({"initial_share": 1.5}, r"initial_share must be in \[0, 1\]. Received 1.5"),
        ({"initial_share": math.nan}, r"initial_share"),
        ({"kind": "hyperbolik"}, r"Did you mean 'hyperbolic'"),
        ({"decay_steps": 0}, r"decay_steps"),
        ({"num_sessions": 0}, r"num_sessions"),
        ({"last_session_at": 0}, r"last_session_at"),
        ({"last_session_at": 1.1}, r"last_session_at"),
    ],
)
def test_values_out_of_range_are_refused_with_what_came(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LabelSchedule(**({"total_labels": 10, "total_steps": 100} | wrong))  # type: ignore[arg-type]

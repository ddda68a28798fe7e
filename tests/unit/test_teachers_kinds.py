"""Simulated teachers who rank and rate, against answers known by hand."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from prefrl.annotators import SimulatedTeacher, TeacherSettings, make_teacher
from prefrl.feedback import Query, Ranking, Rating
from prefrl.history import Episode
from prefrl.segments import Segment


def segment(total: float, label: int) -> Segment:
    return Segment(
        observations=np.full((3, 1), label, float), actions=np.zeros((2, 1)), true_rewards=np.array([total, 0.0])
    )


def ranking(*totals: float, label: int = 0) -> Query:
    return Query(kind="ranking", segments=tuple(segment(x, 100 * label + i) for i, x in enumerate(totals)))


def rating(total: float, label: int = 0, scale: int = 5) -> Query:
    return Query(kind="rating", scale=scale, segments=(segment(total, label),))


def teacher(*episodes: list[float], **settings: Any) -> SimulatedTeacher:
    made = SimulatedTeacher(TeacherSettings(**settings), seed=0)
    for rewards in episodes:
        episode = Episode(0, 0, 0)
        episode.append(np.zeros((len(rewards) + 1, 1)), np.zeros((len(rewards), 1)), np.array(rewards))
        episode.close(terminated=False, truncated=True)
        made.observe([episode])
    return made


def ranks(made: Any, *queries: Query) -> list[tuple[int, ...] | None]:
    return [answer.ranks for answer in made.answer(queries) if isinstance(answer, Ranking)]


def grades(made: Any, *queries: Query) -> list[int | None]:
    return [answer.rating for answer in made.answer(queries) if isinstance(answer, Rating)]


def test_the_oracle_ranks_by_sums_and_ties_equals() -> None:
    assert ranks(teacher(), ranking(1, 3, 2), ranking(5, -1, 5, 0)) == [(3, 1, 2), (1, 3, 1, 2)]


def test_neighbours_closer_than_the_threshold_share_a_rank() -> None:
    # a step earns 1 on average, a segment of two 2: the threshold is a fifth of it
    assert ranks(teacher([1.0, 1.0], equal=0.2), ranking(3, 3.3, 5, 3.6)) == [(2, 2, 1, 2)]


def test_mistakes_turn_a_ranking_and_a_grade_round() -> None:
    assert ranks(teacher(epsilon=1.0), ranking(1, 3, 2)) == [(1, 3, 2)]
    assert grades(teacher([0.0, 0.0], [10.0, 10.0], epsilon=1.0), rating(19.0), rating(1.0, 1)) == [1, 5]


def test_a_noisy_teacher_draws_from_plackett_luce() -> None:
    scores = np.array([0.0, 1.0, 0.5])
    asked = [ranking(*scores, label=n) for n in range(3000)]
    found = Counter(np.argmin(r) for r in ranks(teacher(beta=1.0), *asked) if r is not None)
    expected = np.exp(scores) / np.exp(scores).sum()
    np.testing.assert_allclose([found[i] / 3000 for i in range(3)], expected, atol=0.035)  # 4 standard deviations


def test_grades_are_equal_parts_between_the_worst_and_the_best_episode() -> None:
    made = teacher([0.0, 0.0], [4.0, 6.0])  # a segment of two steps: 0 to 10
    assert grades(made, *(rating(x, n) for n, x in enumerate((-3, 0, 1.9, 2.1, 5, 9.9, 40)))) == [1, 1, 1, 2, 3, 5, 5]
    restored = SimulatedTeacher(seed=0)
    restored.restore(made.state())
    assert grades(restored, rating(5.0)) == [3]


def test_before_any_episode_grades_are_parts_of_what_was_asked_together() -> None:
    assert grades(teacher(), rating(0, 0), rating(10, 1), rating(5, 2), rating(1, 3)) == [1, 5, 3, 1]
    assert grades(teacher(), rating(7)) == [3]


def test_a_teacher_that_skips_declines_rankings_and_ratings() -> None:
    made = teacher([10.0, 10.0], skip=0.5)
    assert ranks(made, ranking(1, 2, 3)) == [None]
    assert grades(made, rating(1)) == [None]


@pytest.mark.parametrize("name", ["inverted", "coin"])
def test_controls_rank_and_rate_too(name: str) -> None:
    made = make_teacher(name, seed=0)
    if name == "inverted":
        assert ranks(made, ranking(1, 3, 2)) == [(1, 3, 2)]
        assert grades(made, rating(0, 0), rating(10, 1)) == [5, 1]
        return
    first = Counter(np.argmin(r) for r in ranks(made, *(ranking(1, 2, 3, label=n) for n in range(900))) if r)
    assert all(240 < first[i] < 360 for i in range(3))
    given = Counter(grades(made, *(rating(1.0, n) for n in range(900))))
    assert sorted(str(g) for g in given) == list("12345") and min(given.values()) > 130

"""Simulated teachers against answers known by hand, B-Pref's order of steps, and the traps of its public code."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefrl.annotators import (
    PRESETS,
    TEACHERS,
    Annotator,
    InvertedTeacher,
    SimulatedTeacher,
    TeacherSettings,
    make_teacher,
)
from prefrl.errors import UserError
from prefrl.feedback import Query
from prefrl.history import Episode
from prefrl.segments import Segment


def segment(rewards: list[float], label: int = 0) -> Segment:
    k = len(rewards)
    return Segment(
        observations=np.full((k + 1, 1), label, np.float64),
        actions=np.zeros((k, 1)),
        true_rewards=np.array(rewards, np.float64),
        episode=7,
        start=100,
    )


def query(first: list[float], second: list[float], label: int = 0, session: int = 0) -> Query:
    return Query(segments=(segment(first, 2 * label), segment(second, 2 * label + 1)), session=session)


def episode(rewards: list[float]) -> Episode:
    made = Episode(0, 0, 0)
    made.append(np.zeros((len(rewards) + 1, 1)), np.zeros((len(rewards), 1)), np.array(rewards))
    made.close(terminated=False, truncated=True)
    return made


def ask(teacher: Annotator, *queries: Query) -> list[float | None]:
    return [comparison.preference for comparison in teacher.answer(queries)]


def teacher(*episodes: list[float], published: bool = False, **settings: float) -> SimulatedTeacher:
    made = SimulatedTeacher(TeacherSettings(**settings), seed=0, published=published)  # type: ignore[arg-type]
    made.observe([episode(rewards) for rewards in episodes])
    return made


# --- choosing ---


def test_the_oracle_prefers_the_larger_sum_and_calls_equal_sums_a_tie() -> None:
    oracle = make_teacher("oracle", seed=0)
    assert ask(oracle, query([1, 2], [0, 2]), query([-1, -2], [0, -2]), query([0, 3], [1, 2])) == [1, 0, 0.5]


def test_the_same_rewards_in_another_order_are_a_tie_in_spite_of_rounding() -> None:
    assert 0.1 + 0.2 + 0.3 != 0.3 + 0.2 + 0.1
    assert ask(make_teacher("oracle", seed=0), query([0.1, 0.2, 0.3], [0.3, 0.2, 0.1])) == [0.5]


def test_a_myopic_teacher_weighs_step_t_of_k_by_gamma_to_the_k_minus_1_minus_t() -> None:
    myopic = teacher(gamma=0.5)
    # weights 1/4, 1/2, 1: 8/4 against 1 + 1 is a tie, a little more or less is not
    assert ask(myopic, query([8, 0, 0], [0, 2, 1])) == [0.5]
    assert ask(myopic, query([8.1, 0, 0], [0, 2, 1]), query([8, 0, 0], [0, 2, 1.1])) == [1, 0]
    assert ask(make_teacher("myopic", seed=0), query([1, 0], [0, 0.91]), query([1, 0], [0, 0.89])) == [0, 1]


@pytest.mark.parametrize("difference", [-3.0, -0.5, 0.0, 1.0])
def test_a_noisy_teacher_answers_as_often_as_the_sigmoid_says(difference: float) -> None:
    beta, num = 1.5, 3_000
    answers = ask(teacher(beta=beta), *(query([difference, 1], [0, 1], label) for label in range(num)))
    p = 1 / (1 + math.exp(-beta * difference))
    assert set(answers) <= {0.0, 1.0}
    assert abs(sum(a or 0 for a in answers) - num * p) < 4 * math.sqrt(num * p * (1 - p))


def test_a_noisy_myopic_teacher_draws_from_the_weighted_difference() -> None:
    num = 3_000
    answers = ask(teacher(beta=1, gamma=0.5), *(query([2, 0], [0, 0], label) for label in range(num)))
    p = 1 / (1 + math.exp(-1))
    assert abs(sum(a or 0 for a in answers) - num * p) < 4 * math.sqrt(num * p * (1 - p))


def test_a_noisy_teacher_is_sure_at_any_magnitude() -> None:
    assert ask(teacher(beta=1), query([1e300], [-1e300]), query([-1e300], [1e300])) == [1, 0]


def test_a_mistaken_teacher_is_wrong_as_often_as_epsilon_says_and_leaves_ties_alone() -> None:
    num = 3_000
    answers = ask(make_teacher("mistake", seed=0), *(query([1], [0], label) for label in range(num)))
    assert abs(answers.count(0) - 0.1 * num) < 4 * math.sqrt(num * 0.09)
    assert set(ask(teacher(epsilon=0.5), *(query([1], [1], label) for label in range(50)))) == {0.5}


# --- thresholds ---


def test_skip_needs_the_better_segment_to_earn_more_than_its_share_of_the_mean() -> None:
    # mean return 100 in episodes of 50 steps: a segment of 5 steps earns 10, and skip 0.1 asks for more than 1
    skipper = teacher([2.0] * 50, [1.0] * 50, [3.0] * 50, skip=0.1)
    segments = [1.1, 0, 0, 0, 0], [1.0, 0, 0, 0, 0], [0.0] * 5
    assert ask(skipper, query(segments[0], segments[2]), query(segments[1], segments[2])) == [1, None]


def test_equal_needs_sums_closer_than_its_share_of_the_mean() -> None:
    even = teacher([2.0] * 50, equal=0.1)
    assert ask(even, query([5.9], [6.0]), query([5.7], [6.0]), query([6.0], [5.7])) == [0.5, 0, 1]


def test_only_the_last_ten_returns_count() -> None:
    old, new = [[1000.0]] * 5, [[1.0]] * 10
    assert ask(teacher(*old, *new, skip=0.5), query([0.6], [0.0])) == [1]
    assert ask(teacher(*old, *new[1:], skip=0.5), query([0.6], [0.0])) == [None]


def test_thresholds_are_off_before_any_episode_has_ended() -> None:
    assert ask(teacher(skip=0.9, equal=0.9), query([0.0], [1e-9]), query([-5.0], [-6.0])) == [0, 1]


def test_thresholds_are_off_where_every_reward_so_far_was_the_worst() -> None:
    for reward in (0.0, -1.0):
        unseen = teacher([reward] * 20, skip=0.1, equal=0.1)
        assert ask(unseen, query([reward, reward + 1], [reward, reward])) == [1]


def test_thresholds_work_with_negative_rewards() -> None:
    # worst -3, mean -1: a segment of 2 steps typically earns -2, which is 4 above its worst -6
    negative = teacher([-3.0, -1.0, -1.0, 1.0], skip=0.5, equal=0.25)
    assert ask(negative, query([-2, -2.1], [-3, -3]), query([-2, -1.9], [-3, -3])) == [None, 1]
    assert ask(negative, query([-1, -1], [-1, -1.9]), query([-1, -1], [-1, -2.1])) == [0.5, 1]


def test_steps_come_in_the_order_of_b_pref() -> None:
    # an equal mark overrides the flip of a teacher that is always mistaken, and is set before short sight weighs in
    contrary = teacher([1.0] * 10, epsilon=1.0, equal=0.5)
    assert ask(contrary, query([1.1], [1.0]), query([2.0], [1.0])) == [0.5, 0]
    assert ask(teacher([1.0] * 10, gamma=0.1, equal=0.5), query([1, 0], [0, 1])) == [0.5]
    # skipping comes before everything, and reads plain sums: weighted, 0.9 x 1.1 would not pass
    assert ask(teacher([10.0], skip=0.1, equal=1.0), query([1.0], [1.0])) == [None]
    assert ask(teacher([5.0] * 2, skip=0.1, gamma=0.5), query([1.1, 0], [0, 0])) == [1]
    # short sight comes before the draw, and the flip after it
    assert ask(teacher(gamma=0.5, beta=1e6, epsilon=1.0), query([3, 0], [0, 2])) == [1]


rewards = st.lists(st.integers(-50, 50).map(lambda n: n / 4), min_size=3, max_size=3)
settings_with_thresholds = st.builds(
    TeacherSettings,
    gamma=st.sampled_from([1.0, 0.9]),
    epsilon=st.sampled_from([0.0, 0.3]),
    skip=st.floats(0, 1),
    equal=st.floats(0, 1),
)


@given(
    settings_with_thresholds,
    st.lists(rewards, min_size=1, max_size=4),
    st.lists(st.tuples(rewards, rewards), min_size=1, max_size=5),
    st.integers(-40, 40),
    st.sampled_from([0.0, 20.0]),
)
def test_answers_ignore_the_scale_of_rewards_also_where_all_are_negative(
    settings: TeacherSettings,
    episodes: list[list[float]],
    pairs: list[tuple[list[float], list[float]]],
    exponent: int,
    shift: float,
) -> None:
    def answers(scale: float) -> list[float | None]:
        made = SimulatedTeacher(settings, seed=0)

        def change(values: list[float]) -> list[float]:
            return [scale * (value - shift) for value in values]

        made.observe([episode(change(values)) for values in episodes])
        return ask(made, *(query(change(a), change(b), label) for label, (a, b) in enumerate(pairs)))

    assert answers(2.0**exponent) == answers(1.0)  # powers of two: no rounding


@given(st.floats(0.01, 1), st.lists(rewards, min_size=1, max_size=4), rewards, rewards)
def test_without_negative_rewards_thresholds_are_the_published_formula(
    share: float, episodes: list[list[float]], first: list[float], second: list[float]
) -> None:
    episodes = [[abs(r) for r in values] for values in episodes]
    first, second = [abs(r) for r in first], [abs(r) for r in second]
    for settings in ({"skip": share}, {"equal": share}):
        ours, theirs = (
            ask(teacher(*episodes, published=p, **settings), query(first, second))[0] for p in (False, True)
        )
        assert ours == theirs or (ours == 0.5 and sum(first) == sum(second))


# --- the published code's behaviour ---


def test_published_applies_the_share_twice_after_the_first_session() -> None:
    def answers(session: int, published: bool) -> list[float | None]:
        made = teacher([10.0], published=published, skip=0.1, equal=0.1)
        return ask(made, query([0.5], [0.0], session=session), query([5.0], [4.5], session=session))

    assert answers(0, published=True) == answers(0, published=False) == answers(1, published=False) == [None, 0.5]
    assert answers(1, published=True) == [1, 1]  # 0.1 x 0.1 x 10 = 0.1


def test_published_thresholds_fall_silent_where_returns_are_negative() -> None:
    pair = query([-9.0], [-9.1])
    assert ask(teacher([-10.0] * 2, [0.0] * 2, published=True, skip=0.3, equal=0.3), pair) == [1]
    assert ask(teacher([-10.0] * 2, [0.0] * 2, skip=0.3), pair) == [None]
    assert ask(teacher([-10.0] * 2, [0.0] * 2, equal=0.3), pair) == [0.5]


def test_published_picks_the_first_of_equal_sums_and_lets_skips_cost_labels() -> None:
    published = make_teacher("oracle", seed=0, published=True)
    assert ask(published, query([1], [1])) == [1]
    assert getattr(published, "skips_cost_labels")  # noqa: B009  (teachers have it, the protocol does not ask for it)
    assert not any(getattr(make_teacher(name, seed=0), "skips_cost_labels") for name in TEACHERS)  # noqa: B009


# --- controls and names ---


def test_the_coin_is_fair_and_blind() -> None:
    coin, num = make_teacher("coin", seed=0), 4_000
    answers = ask(coin, *(query([math.nan], [math.nan], label) for label in range(num)))
    assert set(answers) == {0.0, 1.0}
    assert abs(answers.count(1.0) - num / 2) < 4 * math.sqrt(num / 4)


@given(st.lists(st.tuples(rewards, rewards), min_size=1, max_size=5))
def test_inverted_is_the_opposite_of_the_oracle_and_keeps_ties(pairs: list[tuple[list[float], list[float]]]) -> None:
    queries = [query(a, b, label) for label, (a, b) in enumerate([*pairs, ([1.0] * 3, [1.0] * 3)])]
    oracle, inverted = make_teacher("oracle", seed=0), make_teacher("inverted", seed=0)
    assert ask(inverted, *queries) == [1 - (a or 0) for a in ask(oracle, *queries)]
    assert {c.annotator for c in inverted.answer(queries)} == {"inverted"}


def test_an_inverted_teacher_that_declines_still_declines() -> None:
    inverted = InvertedTeacher(SimulatedTeacher(PRESETS["skip"], seed=0))
    inverted.observe([episode([10.0])])
    assert ask(inverted, query([0.5], [0.0])) == [None]


def test_presets_are_b_pref_s() -> None:
    assert {name: (s.beta, s.gamma, s.epsilon, s.skip, s.equal) for name, s in PRESETS.items()} == {
        "oracle": (-1, 1, 0, 0, 0),
        "noisy": (1, 1, 0, 0, 0),
        "myopic": (-1, 0.9, 0, 0, 0),
        "mistake": (-1, 1, 0.1, 0, 0),
        "skip": (-1, 1, 0, 0.1, 0),
        "equal": (-1, 1, 0, 0, 0.1),
    }


def test_an_unknown_teacher_is_refused_with_near_names() -> None:
    with pytest.raises(UserError, match=r"no teacher 'orakle'.*coin, inverted.*Did you mean 'oracle'"):
        make_teacher("orakle", seed=0)


@pytest.mark.parametrize(
    "wrong",
    [{"beta": math.nan}, {"gamma": 1.1}, {"epsilon": -0.1}, {"skip": -1}, {"equal": math.inf}, {"num_returns": 0}],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        TeacherSettings(**wrong)  # type: ignore[arg-type]


def test_a_negative_seed_is_refused() -> None:
    for name in ("oracle", "coin"):
        with pytest.raises(UserError, match=r"A seed must be from 0 to .*Received -1"):
            make_teacher(name, seed=-1)


# --- the record ---


@pytest.mark.parametrize("name", TEACHERS)
def test_answers_do_not_depend_on_the_order_of_asking(name: str) -> None:
    rng = np.random.default_rng(0)
    queries = [query(*rng.normal(size=(2, 4)).tolist(), label) for label in range(40)]  # type: ignore[misc]

    def answers(order: list[int], batch: int) -> dict[str, float | None]:
        made = make_teacher(name, seed=5)
        made.observe([episode(np.arange(20.0).tolist())])
        parts = [order[begin : begin + batch] for begin in range(0, len(order), batch)]
        return {c.query_id: c.preference for part in parts for c in made.answer([queries[i] for i in part])}

    forwards = list(range(40))
    assert answers(forwards, 40) == answers(forwards[::-1], 3) == answers(forwards, 1)


def test_seeds_and_sessions_change_random_answers() -> None:
    def answers(seed: int, session: int) -> list[float | None]:
        return ask(make_teacher("coin", seed=seed), *(query([0], [0], label, session) for label in range(50)))

    assert answers(0, 0) != answers(1, 0)
    assert answers(0, 0) != answers(0, 1)


@pytest.mark.parametrize("name", TEACHERS)
def test_a_restored_teacher_answers_the_same_and_its_state_is_json(name: str) -> None:
    before, after = make_teacher(name, seed=0), make_teacher(name, seed=0)
    before.observe([episode([-0.1, 2.0]), episode([1.0, 1.0, 3.0])])
    after.restore(json.loads(json.dumps(before.state())))
    for one in (before, after):
        one.observe([episode([0.7, 0.7])])
    queries = [query([a / 20], [0.0], a) for a in range(20)]
    assert ask(before, *queries) == ask(after, *queries)
    assert before.state() == after.state()


def test_answers_carry_the_query_the_name_and_no_time() -> None:
    asked = query([1], [0])
    (answer,) = make_teacher("noisy", seed=0).answer([asked])
    assert (answer.query_id, answer.annotator, answer.seconds) == (asked.id, "noisy", 0.0)


def test_no_queries_give_no_answers() -> None:
    for name in TEACHERS:
        assert make_teacher(name, seed=0).answer([]) == []


# --- true rewards that cannot be judged ---


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_true_reward_that_is_never_finite_is_refused(bad: float) -> None:
    with pytest.raises(UserError, match=r"NaN, None or infinite at step 100 of episode 7.*'oracle' judges by it.*Fix"):
        ask(make_teacher("oracle", seed=0), query([bad, bad], [bad, bad]))
    for name in ("equal", "oracle", "myopic"):
        unsure = make_teacher(name, seed=0)
        unsure.observe([episode([bad, bad])])
        with pytest.raises(UserError, match=f"NaN, None or infinite at step 100 of episode 7.*{name!r}"):
            ask(unsure, query([bad, bad], [bad, bad]), query([bad], [bad], 1))


@pytest.mark.parametrize("name", TEACHERS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_teacher_cannot_tell_where_the_true_reward_is_unknown_now_and_then(name: str, bad: float) -> None:
    if name == "coin":
        return
    known = [query([a / 20], [0.5], a) for a in range(5)]
    alone, among = make_teacher(name, seed=0), make_teacher(name, seed=0)
    alone.observe([episode([0.25, 1.0])])
    among.observe([episode([0.0, bad]), episode([0.25, 1.0])])
    with pytest.warns(UserWarning, match="can't tell") as warned:
        answers = ask(among, query([bad], [1], 90), *known, query([bad, -bad], [1, 1], 91))
    assert len(warned) == 1
    assert answers == [None, *ask(alone, *known), None]
    again = make_teacher(name, seed=0)
    again.restore(json.loads(json.dumps(among.state())))
    with pytest.warns(UserWarning, match="can't tell"):
        assert ask(again, query([bad], [bad], 92)) == [None]


# --- judging by a function ---


def first_observation(one: Segment) -> float:
    return float(np.asarray(one.observations)[0, 0])


def per_step(one: Segment) -> np.ndarray:
    return np.asarray(one.observations)[1:, 0] - 3.0


@pytest.mark.parametrize("function", [first_observation, per_step])
@pytest.mark.parametrize("name", [name for name in TEACHERS if name != "coin"])
def test_with_a_reward_function_true_rewards_are_never_read(name: str, function: Callable[[Segment], float]) -> None:
    def answers(true: float) -> list[float | None]:
        judge = make_teacher(name, seed=0, reward_function=function)
        judge.observe([episode([true])])
        return ask(judge, *(query([true] * 2, [true] * 2, label) for label in range(10)))

    if name == "myopic" and function is first_observation:
        with pytest.raises(UserError, match="'first_observation' returned one number"):
            answers(0.0)
        return
    expected = answers(0.0)
    assert answers(math.nan) == expected
    if name == "oracle":
        assert set(expected) == {0}  # the second segment of each query has the larger observation


def test_thresholds_of_a_reward_function_come_from_the_segments_asked_about() -> None:
    # sums 0, 1, 2, 3 per step, so the mean is 1.5 and nothing is negative: skip 0.8 asks for more than 1.2
    queries = [query([0.0], [0.0], label) for label in range(2)]
    skipper = SimulatedTeacher(TeacherSettings(skip=0.8), seed=0, reward_function=first_observation)
    assert ask(skipper, *queries) == ask(skipper, *queries) == [None, 0]
    shifted = SimulatedTeacher(TeacherSettings(skip=0.8), seed=0, reward_function=lambda s: first_observation(s) - 9)
    assert ask(shifted, *queries) == [None, 0]


def test_lists_and_single_numbers_will_do_as_rewards() -> None:
    asked = query([0.0, 0.0], [0.0, 0.0])
    for function in (lambda s: [first_observation(s), 0], lambda s: np.float32(first_observation(s))):
        assert ask(make_teacher("oracle", seed=0, reward_function=function), asked) == [0]


def raises(one: Segment) -> float:
    raise KeyError("height")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (raises, r"'raises' raised KeyError: 'height'"),
        (lambda s: np.zeros(5), r"returned an array of shape \(5,\); expected 2 numbers"),
        (lambda s: np.zeros((2, 1)), r"shape \(2, 1\)"),
        (lambda s: "high", r"returned 'high'; expected 2 numbers"),
        (lambda s: None, r"returned"),
        (lambda s: [0.0, math.nan], r"NaN or infinite values"),
        (lambda s: math.inf, r"NaN or infinite values"),
    ],
)
def test_a_reward_function_that_fails_is_named(function: Callable[[Segment], float], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        ask(make_teacher("oracle", seed=0, reward_function=function), query([0, 0], [0, 0]))
    assert (function is raises) == isinstance(caught.value.__cause__, KeyError)


def test_the_coin_takes_no_reward_function() -> None:
    with pytest.raises(UserError, match="'coin' looks at nothing"):
        make_teacher("coin", seed=0, reward_function=first_observation)

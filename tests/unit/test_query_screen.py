"""Pairs that a person could hardly tell apart: which are dropped before a method chooses."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from prefrl.control import QuerySettings, TrainSettings, train
from prefrl.control.reward_learner import RewardLearner
from prefrl.errors import UserError
from prefrl.history import History
from prefrl.offline.settings import OfflineSettings
from prefrl.queries import METHODS, Pair, QueryMaker, Screen, propose_pairs
from prefrl.rewards import RewardEnsemble, RewardSettings, look_difference
from prefrl.segments import Rollout, Segment

LENGTH = 4


def segment(value: float, length: int = LENGTH) -> Segment:
    return Segment(
        observations=np.full((length + 1, 1), value, np.float32),
        actions=np.zeros((length, 1), np.float32),
        true_rewards=np.zeros(length),
    )


def differ(first: Segment, second: Segment) -> float:
    return abs(value_of(first) - value_of(second))


def value_of(one: Segment) -> float:
    return float(np.asarray(one.observations).ravel()[0])


class Worth:
    """Members to which a segment is worth its first observation times -1, 1 and 3: on average that."""

    def segment_returns(self, segments: list[Segment]) -> NDArray[np.float32]:
        values = np.array([value_of(one) for one in segments])
        return np.stack([-values, values, 3 * values]).astype(np.float32)

    def segment_embeddings(self, segments: list[Segment]) -> NDArray[np.float32]:
        return np.stack([np.asarray(one.observations).ravel() for one in segments]).astype(np.float32)


def make_history(num_steps: int = 200) -> History:
    rng = np.random.default_rng(0)
    history = History()
    history.add(
        Rollout(
            observations=rng.normal(size=(num_steps + 1, 1, 1)).astype(np.float32),
            actions=np.zeros((num_steps, 1, 1), np.float32),
            true_rewards=np.zeros((num_steps, 1)),
            terminated=np.zeros((num_steps, 1), bool),
            truncated=np.zeros((num_steps, 1), bool),
            last_observations=np.zeros((0, 1), np.float32),
        )
    )
    return history


def pairs_of(differences: list[float]) -> list[Pair]:
    return [(segment(10 * n), segment(10 * n + difference)) for n, difference in enumerate(differences)]


# --- what is dropped ---


def test_the_most_alike_are_dropped_and_the_others_keep_their_order() -> None:
    pairs = pairs_of([3.0, 0.1, 2.0, 0.0, 5.0, -0.2, 1.0, -4.0])
    screen = Screen(alike=0.4, even=0.0, differ=differ)
    assert screen.keep(pairs, 2, None) == [pairs[n] for n in (0, 2, 4, 6, 7)]  # 3 of 8
    assert screen.metrics() == {"candidates_drawn": 8, "candidates_dropped": 3} and not screen.fell_short


def test_those_of_most_nearly_equal_worth_to_the_mean_of_the_members_are_dropped_once_there_is_a_reward() -> None:
    class Members(Worth):
        def segment_returns(self, segments: list[Segment]) -> NDArray[np.float32]:
            values = np.array([value_of(one) for one in segments])
            return np.stack([values % 10, -(values % 10), 4.0 * (values >= 30)]).astype(np.float32)

    pairs = [(segment(0), segment(9)), (segment(20), segment(31)), (segment(1), segment(2)), (segment(33), segment(29))]
    screen = Screen(alike=0.0, even=0.5, differ=differ)
    assert screen.keep(pairs, 1, Members()) == [pairs[1], pairs[3]]  # members contradict each other on the others
    assert screen.keep(pairs, 1, None) == pairs
    assert screen.metrics() == {"candidates_drawn": 8, "candidates_dropped": 2}


def test_what_looks_alike_goes_first_and_then_a_share_of_the_others() -> None:
    pairs = pairs_of([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    screen = Screen(
        alike=0.5, even=0.5, differ=lambda first, second: -differ(first, second)
    )  # the least different look
    assert screen.keep(pairs, 1, Worth()) == pairs[2:5]
    assert screen.num_dropped == 7


@given(
    st.lists(st.floats(-5, 5), min_size=1, max_size=40), st.integers(1, 40), st.floats(0, 0.95), st.floats(0, 0.95),
    st.booleans(),
)  # fmt: skip
def test_no_fewer_are_left_than_are_asked_and_no_more_dropped_than_the_shares(
    differences: list[float], num: int, alike: float, even: float, fitted: bool
) -> None:
    pairs = pairs_of(differences)
    screen = Screen(alike=alike, even=even, differ=differ)
    left = screen.keep(pairs, num, Worth() if fitted else None)
    names = [frozenset((a.id, b.id)) for a, b in left]
    assert len(left) >= min(num, len(pairs))
    assert screen.num_drawn == len(pairs) and screen.num_dropped == len(pairs) - len(left)
    first = int(alike * len(pairs) + 1e-9)
    most = first + (int(even * (len(pairs) - first) + 1e-9) if fitted else 0)
    assert screen.num_dropped == min(most, max(0, len(pairs) - num)) or screen.fell_short
    assert screen.fell_short or screen.num_dropped == most
    gone = [abs(d) for pair, d in zip(pairs, differences, strict=True) if frozenset(s.id for s in pair) not in names]
    kept = [differ(*pair) for pair in left]
    assert not gone or max(gone) <= min(kept) + 1e-5  # both shares go by the same differences here


@given(st.integers(1, 500), st.floats(0, 0.95), st.floats(0, 0.95), st.booleans())
def test_so_many_are_drawn_that_as_many_are_left_as_without(
    wanted: int, alike: float, even: float, fitted: bool
) -> None:
    drawn = Screen(alike=alike, even=even, differ=differ).num_to_draw(wanted, fitted=fitted)
    left = drawn - int(alike * drawn + 1e-9)
    left -= int(even * left + 1e-9) if fitted else 0
    assert drawn >= wanted and left >= wanted
    assert (drawn - 1) * (1 - alike) * ((1 - even) if fitted else 1) < wanted + 1e-6


# --- in choosing ---


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("fitted", [True, False])
def test_every_method_chooses_among_as_many_of_those_that_are_left(method: str, fitted: bool) -> None:
    seen: list[Pair] = []

    class Noted(Screen):
        def keep(self, pairs: Any, num: int, ensemble: Any) -> list[Pair]:
            left = super().keep(pairs, num, ensemble)
            seen.extend(left)
            return left

    screen = Noted(alike=0.5, even=0.25, differ=differ)
    chosen = propose_pairs(
        make_history(), Worth() if fitted else None, 6, length=LENGTH, method=method, screen=screen,
        candidates_per_query=5, rng=np.random.default_rng(0),
    )  # fmt: skip
    names = {frozenset((a.id, b.id)) for a, b in seen}
    assert len(chosen) == 6 and all(frozenset((a.id, b.id)) in names for a, b in chosen)
    assert len(seen) >= (30 if fitted and method != "uniform" else 6)
    assert screen.num_dropped >= (1 - 0.5 * (0.75 if fitted else 1)) * screen.num_drawn - 2


@pytest.mark.parametrize("feedback", ["comparison", "strength", "ranking", "rating", "mixed"])
def test_every_kind_of_question_is_cut_from_pairs_that_are_left(feedback: str) -> None:
    maker = QueryMaker(feedback=feedback, num_ranked=4)
    screen = Screen(alike=0.8, even=0.0, differ=differ)
    pairs = propose_pairs(
        make_history(), None, maker.num_pairs(5), length=LENGTH, method="uniform", screen=screen,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    queries = maker.make(pairs, 5, session=0, num_env_steps=0)
    row = [one for query in queries for one in query.segments]
    assert len(queries) == 5
    together = list(zip(row[::2], row[1::2], strict=False))
    assert together and min(differ(*pair) for pair in together) > 0.5


def test_where_there_are_too_few_pairs_fewer_are_dropped() -> None:
    screen = Screen(alike=0.5, even=0.0, differ=differ)
    few = [segment(value) for value in (0.0, 1.0, 5.0)]  # three pairs
    pairs = propose_pairs(
        None, None, 2, segments=few, length=LENGTH, method="uniform", screen=screen, fewer=True,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    assert sorted(differ(*pair) for pair in pairs) == [4.0, 5.0]
    assert screen.metrics() == {"candidates_drawn": 3, "candidates_dropped": 1} and not screen.fell_short
    assert len(propose_pairs(
        None, None, 3, segments=few, length=LENGTH, method="uniform", screen=screen, fewer=True,
        rng=np.random.default_rng(0),
    )) == 3  # fmt: skip
    assert screen.metrics() == {"candidates_drawn": 6, "candidates_dropped": 1} and screen.fell_short


# --- how different two segments look ---


def test_vectors_differ_in_standard_deviations_of_each_dimension_and_actions_count_for_nothing() -> None:
    reward = RewardEnsemble(spaces.Box(-np.inf, np.inf, (2,)), spaces.Box(-1, 1, (1,)), RewardSettings())
    reward.set_input_statistics(
        np.array([[0.0, 5.0], [2.0, 25.0]]), np.array([[0.0], [1.0]]), np.zeros((2, 2))
    )  # standard deviations of 1 and 10

    def make(observations: list[list[float]], action: float) -> Segment:
        steps = len(observations) - 1
        return Segment(
            observations=np.array(observations), actions=np.full((steps, 1), action), true_rewards=np.zeros(steps)
        )

    first = make([[0, 0], [0, 0], [7, 7]], 1.0)
    second = make([[1, 20], [0, -10], [0, 0]], -1.0)
    assert look_difference(reward, first, second) == pytest.approx((1 + 2 + 0 + 1) / 4)  # not what follows the last
    assert look_difference(reward, first, make([[0, 0], [0, 0], [9, 9]], -1.0)) == 0


@pytest.mark.parametrize("inputs", ["s", "sas"])
def test_what_a_dictionary_holds_counts_once_whatever_the_reward_reads(inputs: str) -> None:
    space = spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Box(-1, 1, (2,))})
    reward = RewardEnsemble(space, spaces.Discrete(2), RewardSettings(inputs=inputs))

    def make(a: int, b: float) -> Segment:
        observations = {"a": np.full(3, a), "b": np.full((3, 2), b, np.float32)}
        return Segment(observations=observations, actions=np.zeros(2, int), true_rewards=np.zeros(2))

    assert look_difference(reward, make(0, 0.0), make(1, 0.5)) == pytest.approx((1 + 1 + 0.5 + 0.5) / 4)


def test_images_differ_by_their_pixels() -> None:
    space = spaces.Box(0, 255, (20, 20, 3), np.uint8)
    reward = RewardEnsemble(space, spaces.Discrete(2), RewardSettings())

    def make(value: int) -> Segment:
        pictures = np.zeros((4, 20, 20, 3), np.uint8)
        pictures[:3, :10] = value
        return Segment(observations=pictures, actions=np.zeros(3, int), true_rewards=np.zeros(3))

    assert look_difference(reward, make(0), make(255)) == pytest.approx(0.5)
    assert look_difference(reward, make(255), make(0)) == pytest.approx(0.5)


# --- in a run ---

TINY = TrainSettings(
    env_id="Pendulum-v1", labels=12, steps=2400, num_envs=2, segment_length=20, warmup_steps=400, num_checkpoints=1,
    hyperparameters={"n_steps": 100, "batch_size": 50, "n_epochs": 1}, eval_episodes=1,
)  # fmt: skip


def test_a_run_counts_what_was_dropped_and_asks_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = RewardLearner.ask
    seen: list[float] = []

    def noted(learner: RewardLearner, *given: Any) -> int:
        num = ask(learner, *given)
        for query in learner.open_queries.values():
            seen.append(look_difference(learner.reward, *query.segments))
        return num

    monkeypatch.setattr(RewardLearner, "ask", noted)
    differences = []
    for queries in (QuerySettings(method="uniform"), QuerySettings(method="uniform", drop_alike=0.9)):
        seen.clear()
        folder = train(replace(TINY, queries=queries), tmp_path / f"run{len(differences)}", quiet=True)
        differences.append(np.array(seen))
        rows = folder.read_metrics()
        if queries.drop_alike:
            assert rows[-1]["candidates_drawn"] == 10 * rows[-1]["labels"] == 120
            assert rows[-1]["candidates_dropped"] == 108
        else:
            assert "candidates_drawn" not in rows[-1]
    assert np.median(differences[1]) > 1.2 * np.median(differences[0])


def test_that_fewer_could_be_dropped_is_said_once(tmp_path: Path) -> None:
    settings = replace(
        TINY, labels=6, steps=800, segment_length=198, queries=QuerySettings(drop_alike=0.95, initial_share=0.5)
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(settings, tmp_path / "run", quiet=True)
    said = [str(one.message) for one in caught if "many pairs as --queries.drop-alike" in str(one.message)]
    assert len(said) == 1, said


@pytest.mark.parametrize("name", ["drop_alike", "drop_even"])
@pytest.mark.parametrize("share", [-0.1, 0.96, float("nan")])
def test_other_shares_are_refused(name: str, share: float) -> None:
    with pytest.raises(UserError, match=rf"queries.{name} must be in \[0, 0.95\]. Received {share}"):
        QuerySettings(**{name: share})


def test_where_no_reward_is_fitted_nothing_is_even() -> None:
    with pytest.raises(UserError, match=r"cpl fits no reward by which pairs could be even: leave out --queries.drop-"):
        OfflineSettings(dataset="x", method="cpl", queries=QuerySettings(drop_even=0.1))
    with pytest.raises(UserError, match=r"share even must be in \[0, 1\). Received 1"):
        Screen(alike=0, even=1, differ=differ)

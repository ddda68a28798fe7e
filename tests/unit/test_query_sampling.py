"""Which pairs are asked about."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from prefrl.errors import UserError
from prefrl.history import History
from prefrl.queries import METHODS, disagreement, entropy, k_center, pair_embeddings, propose_pairs
from prefrl.queries import methods as methods_module
from prefrl.queries import scores as scores_module
from prefrl.segments import Rollout, Segment


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def make_history(num_steps: int = 60, num_envs: int = 2, seed: int = 0) -> History:
    rng = np.random.default_rng(seed)
    ended = np.zeros((num_steps, num_envs), bool)
    ended[29::30] = True
    observations = rng.normal(size=(num_steps + 1, num_envs, 3))
    history = History()
    history.add(
        Rollout(
            observations=observations,
            actions=rng.normal(size=(num_steps, num_envs, 1)),
            true_rewards=rng.normal(size=(num_steps, num_envs)),
            terminated=np.zeros_like(ended),
            truncated=ended,
            last_observations=rng.normal(size=(int(ended.sum()), 3)),
        )
    )
    return history


def make_segments(num: int, length: int = 4) -> list[Segment]:
    return [
        Segment(
            observations=np.full((length + 1, 1), i, np.float32),
            actions=np.zeros((length, 1), np.float32),
            true_rewards=np.zeros(length),
        )
        for i in range(num)
    ]


class FakeEnsemble:
    """Members see different numbers in a segment's first observation; embeddings are the flattened observations."""

    def __init__(self, num_members: int = 3) -> None:
        self.num_members = num_members
        self.largest_call = 0

    def segment_returns(self, segments: list[Segment]) -> NDArray[np.float32]:
        self.largest_call = max(self.largest_call, len(segments))
        first = np.array([np.asarray(s.observations).ravel()[:1] for s in segments])[:, 0]
        return np.stack([first * (m - 1) for m in range(self.num_members)]).astype(np.float32)

    def segment_embeddings(self, segments: list[Segment]) -> NDArray[np.float32]:
        self.largest_call = max(self.largest_call, len(segments))
        return np.stack([np.asarray(s.observations).ravel() for s in segments]).astype(np.float32)


# --- scores ---


def test_disagreement_is_the_variance_of_members_preferences() -> None:
    first = np.array([[logit(0.9), 0.0], [logit(0.5), 5.0], [logit(0.1), -3.0]])
    second = np.array([[0.0, 0.0], [0.0, 5.0], [0.0, -3.0]])
    variance = ((0.9 - 0.5) ** 2 + 0 + (0.1 - 0.5) ** 2) / 3
    np.testing.assert_allclose(disagreement(first, second), [variance, 0.0], atol=1e-15)


def test_entropy_is_that_of_the_mean_preference() -> None:
    first = np.array([[logit(0.9), 0.0], [logit(0.5), 0.0]])
    second = np.zeros((2, 2))
    np.testing.assert_allclose(entropy(first, second), [-(0.7 * math.log(0.7) + 0.3 * math.log(0.3)), math.log(2)])


def test_members_that_are_sure_and_contradict_each_other_have_the_largest_scores_possible() -> None:
    first, second = np.array([[1e30], [-1e30]]), np.zeros((2, 1))
    assert disagreement(first, second) == 0.25
    assert entropy(first, second) == pytest.approx(math.log(2))


def test_scores_stay_finite_and_ordered_at_extreme_returns() -> None:
    first = np.array([[0.0, 1.0, 50.0, 700.0, 1e300]])
    scores = entropy(first, np.zeros_like(first))
    assert np.isfinite(scores).all()
    assert (np.diff(scores) < 0)[:3].all()
    assert scores[-1] == 0


returns = st.lists(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4), min_size=2, max_size=5).map(np.array)


@given(returns, st.randoms())
def test_scores_ignore_which_segment_comes_first(first: NDArray[np.float64], random: object) -> None:
    second = first[:, ::-1] * 0.5
    np.testing.assert_allclose(disagreement(first, second), disagreement(second, first), atol=1e-12)
    np.testing.assert_allclose(entropy(first, second), entropy(second, first), atol=1e-12)


# --- k-center ---


def brute_force_k_center(candidates: np.ndarray, centers: list[np.ndarray], num: int) -> list[int]:
    chosen: list[int] = []
    covered = list(centers)
    for _ in range(num):
        best, best_distance = -1, -1.0
        for index, point in enumerate(candidates):
            distance = min(math.dist(point, c) for c in covered)
            if index not in chosen and distance > best_distance:
                best, best_distance = index, distance
        chosen.append(best)
        covered.append(candidates[best])
    return chosen


@settings(max_examples=50)
@given(st.integers(1, 25), st.integers(1, 6), st.integers(1, 8), st.integers(0, 2**32 - 1), st.data())
def test_k_center_chooses_as_brute_force_does(
    num_c: int, num_f: int, num_a: int, seed: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    candidates, centers = rng.normal(size=(num_c, num_f)), rng.normal(size=(num_a, num_f))
    num = data.draw(st.integers(0, num_c))
    assert k_center(candidates, centers, num).tolist() == brute_force_k_center(candidates, list(centers), num)


def test_k_center_without_centers_starts_in_the_middle_and_goes_to_the_ends() -> None:
    candidates = np.array([[0.0], [4.0], [5.0], [6.0], [11.0]])
    assert k_center(candidates, None, 3).tolist() == [2, 4, 0]
    assert k_center(candidates, np.empty((0, 1)), 3).tolist() == [2, 4, 0]


def test_k_center_is_the_same_in_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    candidates, centers = rng.normal(size=(40, 5)), rng.normal(size=(33, 5))
    whole = k_center(candidates, centers, 20)
    monkeypatch.setattr(scores_module, "_MAX_BLOCK", 80)  # two centres at a time
    np.testing.assert_array_equal(k_center(candidates, centers, 20), whole)


def test_k_center_never_chooses_a_point_twice_even_if_all_points_are_equal() -> None:
    assert sorted(k_center(np.ones((5, 3), np.float32), np.ones((2, 3), np.float32), 5).tolist()) == [0, 1, 2, 3, 4]


def test_k_center_refuses_more_points_than_there_are() -> None:
    with pytest.raises(UserError, match=r"from 0 to the number of candidates, 3. Received 4"):
        k_center(np.zeros((3, 2)), None, 4)


# --- proposals ---


@pytest.mark.parametrize("method", METHODS)
def test_proposals_are_different_pairs_never_asked_before(method: str) -> None:
    history, rng, ensemble = make_history(), np.random.default_rng(0), FakeEnsemble()
    asked: set[frozenset[str]] = set()
    for _ in range(4):
        pairs = propose_pairs(history, ensemble, 12, length=26, method=method, rng=rng, asked=asked)
        names = {frozenset(segment.id for segment in pair) for pair in pairs}
        assert len(pairs) == len(names) == 12
        assert all(len(name) == 2 for name in names)
        assert not names & asked
        assert all(len(segment) == 26 for pair in pairs for segment in pair)
        asked |= names


@pytest.mark.parametrize("method", METHODS)
def test_proposals_follow_from_the_random_state(method: str) -> None:
    def names(seed: int) -> list[tuple[str, str]]:
        rng = np.random.default_rng(seed)
        pairs = propose_pairs(make_history(), FakeEnsemble(), 5, length=10, method=method, rng=rng)
        return [(a.id, b.id) for a, b in pairs]

    assert names(1) == names(1)
    assert names(1) != names(2)


def test_disagreement_keeps_the_candidates_with_the_highest_scores_in_order() -> None:
    history, ensemble = make_history(), FakeEnsemble()

    def scores(method: str, num: int) -> list[float]:
        rng = np.random.default_rng(3)
        pairs = propose_pairs(history, ensemble, num, length=10, method=method, rng=rng, candidates_per_query=60 // num)
        first, second = (ensemble.segment_returns([p[side] for p in pairs]) for side in (0, 1))
        return disagreement(first, second).tolist()

    assert scores("disagreement", 6) == sorted(scores("uniform", 60), reverse=True)[:6]


def test_hybrids_choose_only_among_the_half_that_is_least_sure() -> None:
    history, ensemble = make_history(), FakeEnsemble()

    def names(method: str, num: int) -> set[frozenset[str]]:
        pairs = propose_pairs(
            history,
            ensemble,
            num,
            length=10,
            method=method,
            rng=np.random.default_rng(3),
            candidates_per_query=40 // num,
        )
        return {frozenset(segment.id for segment in pair) for pair in pairs}

    for acquisition in ("disagreement", "entropy"):
        chosen = names(f"k-center+{acquisition}", 4)
        # 20 of 40 by the acquisition: the same 40 candidates are drawn for 20 x 2
        assert chosen <= names(acquisition, 20)
        assert chosen != names(acquisition, 4)
        assert chosen != names("k-center", 4)


def test_k_center_stays_away_from_pairs_asked_before() -> None:
    segments = make_segments(8)
    ensemble = FakeEnsemble()
    corners = [(segments[0], segments[7]), (segments[7], segments[0]), (segments[7], segments[6])]
    chosen = propose_pairs(
        None,
        ensemble,
        1,
        length=4,
        method="k-center",
        rng=np.random.default_rng(0),
        candidates_per_query=28,
        segments=segments,
        asked={frozenset(s.id for s in pair) for pair in corners},
        asked_embeddings=pair_embeddings(ensemble, corners),
    )
    values = sorted(int(np.asarray(s.observations)[0, 0]) for s in chosen[0])
    assert values == [0, 1]  # the corner that is left


def test_without_an_ensemble_every_method_draws_uniformly() -> None:
    for method in METHODS:
        pairs = propose_pairs(make_history(), None, 5, length=10, method=method, rng=np.random.default_rng(0))
        plain = propose_pairs(make_history(), None, 5, length=10, method="uniform", rng=np.random.default_rng(0))
        assert [(a.id, b.id) for a, b in pairs] == [(a.id, b.id) for a, b in plain]


def test_uniform_draws_every_new_pair_equally_often() -> None:
    segments = make_segments(4)
    asked = {frozenset((segments[0].id, segments[1].id))}
    rng = np.random.default_rng(0)
    counts: dict[frozenset[str], int] = {}
    for _ in range(2_000):
        ((a, b),) = propose_pairs(None, None, 1, length=4, method="uniform", rng=rng, asked=asked, segments=segments)
        name = frozenset((a.id, b.id))
        counts[name] = counts.get(name, 0) + 1
    assert len(counts) == 5
    assert all(abs(count - 400) < 5 * math.sqrt(400 * 0.8) for count in counts.values())


def test_every_pair_that_exists_can_be_asked_and_then_no_more() -> None:
    segments, rng = make_segments(5), np.random.default_rng(0)
    pairs = propose_pairs(None, None, 10, length=4, method="uniform", rng=rng, segments=segments)
    asked = {frozenset((a.id, b.id)) for a, b in pairs}
    assert len(asked) == 10
    with pytest.raises(UserError, match=r"Found only 0 of 1 different pairs of 4-step segments.*fewer labels"):
        propose_pairs(None, None, 1, length=4, method="uniform", rng=rng, segments=segments, asked=asked)


def test_fewer_candidates_than_wanted_are_enough_if_they_cover_the_queries() -> None:
    pairs = propose_pairs(
        None, FakeEnsemble(), 3, length=4, method="entropy", rng=np.random.default_rng(0), segments=make_segments(3)
    )
    assert len(pairs) == 3


def test_segments_of_equal_content_are_one_segment() -> None:
    twins = [make_segments(1)[0], make_segments(1)[0]]
    with pytest.raises(UserError, match="Found only 0 of 1"):
        propose_pairs(None, None, 1, length=4, method="uniform", rng=np.random.default_rng(0), segments=twins)


def test_recent_steps_only_come_from_the_end_of_the_history() -> None:
    pairs = propose_pairs(
        make_history(), None, 5, length=5, method="uniform", rng=np.random.default_rng(0), last_steps=40
    )
    assert all(segment.episode in (1, 3) and segment.start >= 10 for pair in pairs for segment in pair)


def test_the_ensemble_is_handed_a_bounded_number_of_segments_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def names(ensemble: FakeEnsemble) -> list[tuple[str, str]]:
        rng = np.random.default_rng(0)
        pairs = propose_pairs(make_history(), ensemble, 4, length=10, method="k-center+entropy", rng=rng)
        return [(a.id, b.id) for a, b in pairs]

    whole, parts = FakeEnsemble(), FakeEnsemble()
    expected = names(whole)
    assert whole.largest_call == 40
    monkeypatch.setattr(methods_module, "_MAX_CHUNK_BYTES", 7 * 11 * 3 * 8)  # seven segments
    assert names(parts) == expected
    assert parts.largest_call == 7


def test_asking_for_no_pairs_gives_none() -> None:
    assert propose_pairs(None, None, 0, length=4, method="uniform", rng=np.random.default_rng(0)) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"method": "disagreemnt"}, "Did you mean 'disagreement'"),
        ({"num": -1}, "num must not be negative. Received -1"),
        ({"candidates_per_query": 0}, "candidates_per_query must be at least 1. Received 0"),
        (
            {"length": 31},
            r"for segments of 31 steps \(the longest has \d+\).*--segment-length \d+\. Or.*--fixed-horizon 310",
        ),
        ({"history": None}, "nothing to draw pairs from"),
        ({"ensemble": FakeEnsemble(1), "method": "disagreement"}, "at least 2 members"),
        ({"ensemble": FakeEnsemble(1), "method": "k-center+disagreement"}, "at least 2 members"),
        ({"segments": []}, "Found only 0 of 2"),
    ],
)
def test_requests_that_cannot_be_met_are_refused(wrong: dict[str, object], message: str) -> None:
    asked_for = {"history": make_history(), "ensemble": FakeEnsemble(), "num": 2, "length": 5, "method": "uniform"}
    with pytest.raises(UserError, match=message):
        propose_pairs(**(asked_for | {"rng": np.random.default_rng(0)} | wrong))  # type: ignore[arg-type]

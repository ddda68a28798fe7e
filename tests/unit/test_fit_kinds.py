"""Fits to rankings, ratings and mixtures of all kinds, and to annotators of unlike reliability."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from scipy.optimize import minimize
from scipy.special import expit

from prefrl.errors import UserError
from prefrl.feedback import Answer, Comparison, Ranking, Rating
from prefrl.rewards import ComparisonData, FitReport, FitSettings, Fitter, RewardEnsemble, RewardSettings
from prefrl.rewards.reliability import most_likely_share
from prefrl.segments import Segment, stack_transitions

TRUTH = np.array([1.0, -0.5, 2.0])
K = 6


def make_segment(rng: np.random.Generator) -> Segment:
    observations, actions = rng.normal(size=(K + 1, 2)), rng.uniform(-1, 1, (K, 1))
    true = np.concatenate([observations[:-1], actions], axis=1) @ TRUTH
    return Segment(observations=observations, actions=actions, true_rewards=true)


def total(segment: Segment) -> float:
    return float(segment.true_rewards.sum())


def make_reward(seed: int = 0, **settings: Any) -> RewardEnsemble:
    box = spaces.Box(-np.inf, np.inf, (2,)), spaces.Box(-1, 1, (1,))
    reward = RewardEnsemble(*box, RewardSettings(**settings), seed=seed)
    rng = np.random.default_rng(99)
    reward.set_input_statistics(*stack_transitions([make_segment(rng) for _ in range(100)]))
    return reward


def grade_of(value: float, cuts: list[float]) -> int:
    return 1 + sum(value > cut for cut in cuts)


def ranks_of(segments: list[Segment], tie_below: float = 0.0) -> tuple[int, ...]:
    rounded = [round(total(s) / tie_below) if tie_below else total(s) for s in segments]
    places = sorted(set(rounded), reverse=True)
    return tuple(1 + places.index(value) for value in rounded)


def ask(kind: str, rng: np.random.Generator, annotator: str = "anna") -> tuple[list[Segment], Answer, int | None]:
    """Return segments, a truthful answer about them, and the scale of a rating."""
    common = {"query_id": "q", "annotator": annotator}
    segments = [
        make_segment(rng) for _ in range({"comparison": 2, "ranking": int(rng.integers(3, 6)), "rating": 1}[kind])
    ]
    if kind == "comparison":
        return segments, Comparison(preference=float(total(segments[0]) > total(segments[1])), **common), None
    if kind == "ranking":
        return segments, Ranking(ranks=ranks_of(segments, tie_below=2.0), **common), None
    cuts = [-6.0, -2.0, 2.0, 6.0] if annotator == "anna" else [2.0, 6.0]  # ben is hard to please
    return segments, Rating(rating=grade_of(total(segments[0]), cuts), **common), len(cuts) + 1


def make_data(
    reward: RewardEnsemble, asked: list[tuple[list[Segment], Answer, int | None]], **settings: Any
) -> ComparisonData:
    data = ComparisonData(reward, K, **settings)
    counts = data.draw_counts(len(asked), np.random.default_rng(0))
    items = [data.encode(segments) for segments, _, _ in asked]
    data.add_answers(items, [answer for _, answer, _ in asked], [scale for _, _, scale in asked], counts)
    return data


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def correlation(reward: RewardEnsemble) -> float:
    rng = np.random.default_rng(1234)
    segments = [make_segment(rng) for _ in range(60)]
    truth = np.concatenate([segment.true_rewards for segment in segments])
    return float(np.corrcoef(reward(*stack_transitions(segments)), truth)[0, 1])


@pytest.mark.parametrize("kinds", [("ranking",), ("rating",), ("comparison", "ranking", "rating")])
def test_every_kind_of_answer_and_all_together_teach_the_reward(kinds: tuple[str, ...]) -> None:
    rng, reward = np.random.default_rng(0), make_reward()
    asked = [ask(kinds[n % len(kinds)], rng, ("anna", "ben")[n % 2]) for n in range(120)]
    report = Fitter(reward, FitSettings(first_steps=120, learning_rate=2e-3)).fit(make_data(reward, asked), generator())
    assert correlation(reward) > 0.9
    assert report.num_comparisons == 120
    assert all(a is not None and a > 0.6 for a in report.held_out_accuracy)


@pytest.mark.slow
def test_a_rating_and_a_comparison_speak_of_one_reward() -> None:
    """Ratings tell of one half of the observations and comparisons of the other; the reward knows both."""
    rng, reward = np.random.default_rng(0), make_reward()
    asked = []
    for _ in range(250):
        for kind, column in (("rating", 1), ("comparison", 0)):
            segments = []
            for _ in range(2 if kind == "comparison" else 1):
                segment = make_segment(rng)
                observations = np.array(segment.observations)
                observations[:, column] = 0.0
                actions = np.zeros_like(segment.actions)
                true = np.concatenate([observations[:-1], actions], axis=1) @ TRUTH
                segments.append(Segment(observations=observations, actions=actions, true_rewards=true))
            answer: Answer = Rating(query_id="q", annotator="a", rating=grade_of(total(segments[0]), [-2.0, 0.0, 2.0]))
            if kind == "comparison":
                answer = Comparison(
                    query_id="q", annotator="a", preference=float(total(segments[0]) > total(segments[1]))
                )
            asked.append((segments, answer, 4))
    Fitter(reward, FitSettings(first_steps=400)).fit(make_data(reward, asked), generator())
    states = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    values = reward(states, np.zeros((4, 1)), states)
    assert values[0] - values[1] > 0.5 and values[3] - values[2] > 0.25


def test_linear_members_come_to_the_optimum_of_ordinal_regression() -> None:
    rng = np.random.default_rng(0)
    reward = make_reward(num_members=1, hidden=())
    segments = [make_segment(rng) for _ in range(400)]
    grades = np.array([grade_of(total(s) + rng.logistic(), [-2.0, 1.0, 5.0]) for s in segments])
    asked = [
        ([s], Rating(query_id="q", annotator="a", rating=int(g)), 4) for s, g in zip(segments, grades, strict=True)
    ]
    settings = FitSettings(
        held_out=0.0, batch_size=400, first_steps=300, learning_rate=5e-2, l2=0, adapt_l2=False, patience=0
    )
    fitter = Fitter(reward, settings)
    fitter.fit(make_data(reward, asked, held_out=0.0), generator())
    nothing = Segment(observations=np.zeros((K + 1, 2)), actions=np.zeros((K, 1)), true_rewards=np.zeros(K))
    found = fitter.cut_points.table()[0, 0, :3].detach().numpy() - reward.segment_returns([nothing])[0, 0]

    features = np.array([np.concatenate([s.observations[:-1], s.actions], axis=1).sum(0) for s in segments])  # type: ignore[index]

    def loss(parameters: np.ndarray) -> float:  # type: ignore[type-arg]
        cuts = np.concatenate([[-np.inf], parameters[3:], [np.inf]])
        scores = features @ parameters[:3]
        return -float(np.log(expit(cuts[grades] - scores) - expit(cuts[grades - 1] - scores)).sum())

    best = minimize(loss, np.array([0.0, 0.0, 0.0, -1.0, 0.0, 1.0]), method="BFGS").x
    np.testing.assert_allclose(found, best[3:], atol=0.05)


def test_answers_of_all_kinds_give_the_same_fit_in_one_part_or_in_many() -> None:
    rng = np.random.default_rng(0)
    asked = [ask(("comparison", "ranking", "rating")[n % 3], rng) for n in range(30)]

    def fit(parts: int) -> bytes:
        reward = make_reward()
        data = ComparisonData(reward, K)
        counts = data.draw_counts(30, np.random.default_rng(0))
        for rows in np.array_split(np.arange(30), parts):
            some = [asked[row] for row in rows]
            items = [data.encode(segments) for segments, _, _ in some]
            data.add_answers(items, [a for _, a, _ in some], [scale for _, _, scale in some], counts[rows])
        Fitter(reward, FitSettings(first_steps=10)).fit(data, generator())
        return b"".join(t.numpy().tobytes() for t in reward.state_dict().values())

    assert fit(1) == fit(5)


def test_an_answer_taken_back_teaches_nothing_more() -> None:
    rng = np.random.default_rng(0)
    asked = [ask(("comparison", "ranking", "rating")[n % 3], rng) for n in range(24)]

    def fit(data: ComparisonData, reward: RewardEnsemble) -> FitReport:
        return Fitter(reward, FitSettings(first_steps=20)).fit(data, generator())

    reward, other = make_reward(), make_reward()
    data, rest = make_data(reward, asked, held_out=0.0), make_data(other, asked[1:4] + asked[5:], held_out=0.0)
    data.remove(4)
    data.remove(0)
    assert len(data) == 22
    assert fit(data, reward) == fit(rest, other)


def test_a_fitter_restored_between_two_fits_goes_on_bit_for_bit() -> None:
    rng = np.random.default_rng(0)
    asked = [ask(("comparison", "ranking", "rating")[n % 3], rng, "ab"[n % 2]) for n in range(60)]
    settings = FitSettings(first_steps=20, num_steps=20, estimate_reliability=True)

    def weights(restored: bool) -> bytes:
        reward = make_reward()
        fitter = Fitter(reward, settings)
        fitter.fit(make_data(reward, asked[:40]), generator(1))
        if restored:
            buffer = io.BytesIO()
            torch.save({"reward": reward.state_dict(), "fitter": fitter.state()}, buffer)
            buffer.seek(0)
            state = torch.load(buffer, weights_only=True)
            reward = make_reward()
            reward.load_state_dict(state["reward"])
            fitter = Fitter(reward, settings)
            fitter.restore(state["fitter"])
        report = fitter.fit(make_data(reward, asked), generator(2))
        return repr(report).encode() + b"".join(t.numpy().tobytes() for t in reward.state_dict().values())

    assert weights(True) == weights(False)


def test_cannot_tell_is_never_fitted_to() -> None:
    reward = make_reward()
    data = ComparisonData(reward, K)
    items = [data.encode([make_segment(np.random.default_rng(0))])]
    with pytest.raises(UserError, match="Only an answer that says something can be learned from"):
        data.add_answers(items, [Rating(query_id="q", annotator="a", rating=None)], [5], np.ones((1, 3)))


# reliability


def flip(answer: Answer, rng: np.random.Generator) -> Answer:
    assert isinstance(answer, Comparison)
    return Comparison(query_id="q", annotator="coin", preference=float(rng.random() < 0.5))


def test_the_likeliest_share_is_found_and_without_answers_it_is_nine_tenths() -> None:
    chance = torch.full((1000,), math.log(0.5), dtype=torch.float64)
    certain = torch.tensor([0.0] * 750 + [-40.0] * 250, dtype=torch.float64)  # right and wrong for certain
    # with a share of rho, (1 + rho) / 2 of the answers are right: 3 / 4 are at 1 / 2
    assert most_likely_share(certain, chance) == pytest.approx(0.5, abs=0.005)
    assert most_likely_share(certain[:0], chance[:0]) == pytest.approx(0.9, abs=1e-6)
    assert most_likely_share(certain[:750], chance[:750]) > 0.98
    assert most_likely_share(certain[500:], chance[500:]) == pytest.approx(0.01, abs=0.01)


@pytest.mark.slow
def test_one_of_three_who_flips_coins_is_found_out_and_does_not_spoil_the_reward() -> None:
    rng = np.random.default_rng(0)
    asked = []
    for n in range(600):
        segments, answer, scale = ask("comparison", rng, ("anna", "ben", "coin")[n % 3])
        asked.append((segments, flip(answer, rng) if n % 3 == 2 else answer, scale))
    correlations, report = [], None
    for estimate in (False, True):
        reward = make_reward()
        settings = FitSettings(first_steps=150, num_steps=150, patience=0, estimate_reliability=estimate)
        fitter = Fitter(reward, settings)
        data = make_data(reward, asked)
        for seed in range(2):
            report = fitter.fit(data, generator(seed))
        correlations.append(correlation(reward))
    assert report is not None and report.reliability is not None
    assert report.reliability["coin"] < 0.3  # of 200 answers: its standard error is 0.14
    assert report.reliability["anna"] > 0.85 and report.reliability["ben"] > 0.85
    assert correlations[1] > correlations[0]


def test_a_share_of_careless_answers_is_measured() -> None:
    rng = np.random.default_rng(1)
    asked = []
    for _ in range(900):
        segments, answer, scale = ask("comparison", rng, "half")
        if rng.random() < 0.5:
            answer = Comparison(query_id="q", annotator="half", preference=float(rng.random() < 0.5))
        asked.append((segments, answer, scale))
    reward = make_reward()
    fitter = Fitter(reward, FitSettings(first_steps=200, learning_rate=4e-3, patience=0, estimate_reliability=True))
    report = fitter.fit(make_data(reward, asked), generator())
    assert report.reliability is not None
    assert 0.35 < report.reliability["half"] < 0.65


@pytest.mark.slow
def test_random_rankings_and_grades_are_found_out_too() -> None:
    rng = np.random.default_rng(0)
    asked = []
    for n in range(600):
        name = ("anna", "dice")[n % 2]
        segments, answer, scale = ask(("ranking", "rating")[n // 2 % 2], rng, name)
        if name == "dice" and isinstance(answer, Ranking):
            order = rng.permutation(len(segments)) + 1
            answer = Ranking(query_id="q", annotator=name, ranks=tuple(int(place) for place in order))
        elif name == "dice":
            answer = Rating(query_id="q", annotator=name, rating=int(rng.integers(1, 4)))
        asked.append((segments, answer, scale))
    reward = make_reward()
    fitter = Fitter(reward, FitSettings(first_steps=200, patience=0, estimate_reliability=True))
    report = fitter.fit(make_data(reward, asked), generator())
    assert report.reliability is not None
    assert report.reliability["dice"] < 0.25 and report.reliability["anna"] > 0.8

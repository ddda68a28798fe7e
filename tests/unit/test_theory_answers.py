"""Studies of answers that are not as they should be: what they come to exactly, and what estimates recover."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from prefrl.errors import UserError
from prefrl.rewards.reliability import most_likely_share
from prefrl.theory import bias, judges, reliability, richer
from prefrl.theory.linear import fit_rankings


def test_rates_of_nought_are_plain_and_of_one_the_opposite() -> None:
    ranked, annotators = reliability.crowd_answers(np.zeros(3), 40, np.random.default_rng(0))
    plain = fit_rankings(ranked, ridge=reliability.RIDGE).theta
    for rate, sign in ((0.0, 1.0), (1.0, -1.0)):
        found = reliability.fit_with_rates(ranked, annotators, 3, known=np.full(3, rate))
        assert found.theta == pytest.approx(sign * plain, abs=5e-3)


def test_rates_up_to_a_half_are_the_shares_that_prefrl_fit_estimates() -> None:
    rates = np.array([0.02, 0.2, 0.45, 0.9])
    ranked, annotators = reliability.crowd_answers(rates, 200, np.random.default_rng(1))
    found = reliability.fit_with_rates(ranked, annotators, 4, most=0.5)
    right = 1 / (1 + np.exp(-(ranked[:, 0] - ranked[:, 1]) @ found.theta))
    for one in range(4):
        told = torch.tensor(np.log(right[annotators == one]))
        share = most_likely_share(told, torch.full_like(told, -np.log(2)))
        assert found.rates[one] == pytest.approx((1 - share) / 2, abs=0.01)


def test_an_adversary_is_turned_round() -> None:
    ranked, annotators = reliability.crowd_answers(reliability.ADVERSE, 100, np.random.default_rng(0))
    found = reliability.fit_with_rates(ranked, annotators, 12)
    assert found.rates == pytest.approx(reliability.ADVERSE, abs=0.15)
    assert found.theta == pytest.approx(reliability.THETA, abs=0.4)


def test_what_theory_expects_of_error_rates() -> None:
    known, plain = reliability.expected_angles(np.zeros(2), draws=50_000)
    assert known == pytest.approx(plain, rel=0.02)  # without errors the plain estimate is that of known rates
    half_random, _ = reliability.expected_angles(np.array([0.0, 0.5]), draws=50_000)
    assert half_random == pytest.approx(2 * known, rel=1e-9)  # half the answers tell nothing
    turned, _ = reliability.expected_angles(np.array([0.0, 1.0]), draws=50_000)
    assert turned == pytest.approx(known, rel=1e-9)  # who always lies tells all


def test_an_answer_without_an_annotator_is_refused() -> None:
    with pytest.raises(UserError, match="who answered each"):
        reliability.fit_with_rates(np.zeros((3, 2, 1)), np.zeros(2, int), 1)


def test_the_test_for_a_side_by_hand() -> None:
    pairs = np.zeros((100, 2, 5))
    pairs[:70, 0, bias.FIRST] = 1.0  # 70 of 100 times the first was preferred
    pairs[70:, 1, bias.FIRST] = 1.0
    expected = 2 * (70 * np.log(0.7) + 30 * np.log(0.3) + 100 * np.log(2))
    assert bias.gain_of(bias.FIRST, pairs) == pytest.approx(expected, rel=1e-6)


def test_where_nothing_is_asked_the_test_finds_its_level() -> None:
    assert bias.expected_power("length", (0, 100_000)) == pytest.approx([bias.LEVEL, 1.0], abs=1e-4)


def test_pairs_are_shown_as_the_way_says() -> None:
    rng = np.random.default_rng(0)
    longer = bias.draw_pairs(200, rng, longer_first=True)
    assert (longer[:, 0, bias.LENGTH] >= longer[:, 1, bias.LENGTH]).all()
    assert (longer[:, :, bias.FIRST] == [1.0, 0.0]).all()
    alike = bias.draw_pairs(200, rng, alike=True)
    assert (alike[:, 0, bias.LENGTH] == alike[:, 1, bias.LENGTH]).all()
    goes = np.corrcoef(bias.draw_items((20_000,), rng)[:, [bias.ACCURACY, bias.LENGTH]].T)[0, 1]
    assert goes == pytest.approx(bias.GOES_WITH, abs=0.02)


def test_what_is_wanted_serves_best_and_its_opposite_worst() -> None:
    items = bias.draw_items((30,), np.random.default_rng(0))
    assert bias.served(bias.WISHES, items) == pytest.approx(1.0)
    assert bias.served(-bias.WISHES, items) < 0


def test_what_answers_are_worth_by_hand() -> None:
    known, guessed = 0.95 - 0.05 * 1.5, 0.35 - 0.65 * 1.5
    gold = [known, known, guessed, guessed, judges.GOLD_FILLER, judges.GOLD_FLATTERY]
    assert judges.weight(None) == pytest.approx(gold)
    sure = judges.Judge(checks=(1.0, 0.0), confidence=0.5)
    assert judges.weight(sure) == pytest.approx([known, 1.5, guessed, 1.5, 0.0, 0.0])


def test_a_judge_sees_on_average_what_the_weights_say() -> None:
    rng = np.random.default_rng(0)
    guessed = judges.draw_prompts(100_000, rng)
    answers = judges.draw_answers(guessed, rng)
    right = rng.random(guessed.shape) < judges.RIGHT_IF[guessed]
    seen = judges.seems(answers, right, judges.PERSUADED, rng)
    expected = judges.best_policy(np.zeros(6), 1.0).expected() @ judges.weight(judges.PERSUADED)
    assert seen.mean() == pytest.approx(expected, abs=0.02)


def test_in_a_debate_the_guess_is_named() -> None:
    said = np.array([[judges.CONFIDENT, judges.PLAIN, judges.PLAIN, judges.NOTHING]])
    answers = judges.Answers(guessed=np.array([[0, 1, 0, 1]]), said=said, flatters=np.zeros(1, np.int64))
    blind = judges.Judge(checks=(0.0, 0.0))
    debate = judges.Judge(checks=(0.0, 0.0), named=1.0)
    wrong = np.zeros((1, 4), bool)
    assert judges.seems(answers, wrong, blind, np.random.default_rng(0)) == pytest.approx([3.0])
    assert judges.seems(answers, wrong, debate, np.random.default_rng(0)) == pytest.approx([2.0 - 1.5])


def test_the_best_policy_is_that_of_all_answers() -> None:
    reward, beta = np.array([0.5, 1.0, -0.5, 0.8, 0.2, 0.6]), 0.7
    expected, kl = np.zeros(6), 0.0
    for prompt in itertools.product(range(2), repeat=judges.SLOTS):
        every = np.array(list(itertools.product(range(4), repeat=judges.SLOTS)) * 2)
        guessed = np.tile(prompt, (len(every), 1))
        flatters = np.repeat([0, 1], len(every) // 2)
        features = judges.Answers(guessed=guessed, said=every, flatters=flatters).features()
        base = judges.BASE[guessed, every].prod(axis=1) * np.where(flatters, judges.FLATTERS, 1 - judges.FLATTERS)
        policy = base * np.exp(features @ reward / beta)
        policy /= policy.sum()
        expected += policy @ features / 2**judges.SLOTS
        kl += policy @ np.log(policy / base) / 2**judges.SLOTS
    found = judges.best_policy(reward, beta)
    assert found.expected() == pytest.approx(expected)
    assert found.kl_nats() == pytest.approx(kl)
    assert judges.best_policy(reward, 1e9).kl_nats() == pytest.approx(0.0, abs=1e-9)
    assert judges.best_policy(reward, 1e-3).expected() == pytest.approx([0, 2, 0, 2, 0, 1])


def test_the_grid_by_hand() -> None:
    assert richer.best_walk(richer.score_of("sparse")) == (48 - 22 + 1, True)  # 22 steps away, and then there
    assert richer.best_walk(richer.score_of("wrong")) == (3.0 * 48 / 2, False)  # on the coin at every second step
    assert richer.DISTANCE[[richer.START, richer.GOAL]].tolist() == [22.0, 0.0]
    assert (richer.NEXT[richer.GOAL] == richer.GOAL).all()


def test_how_often_chance_reaches_the_goal() -> None:
    rng = np.random.default_rng(0)
    cells = np.full(200_000, richer.START)
    for _ in range(richer.HORIZON):
        cells = richer.NEXT[cells, rng.integers(4, size=len(cells))]
    assert (cells == richer.GOAL).mean() == pytest.approx(richer.chance_by_chance(), abs=2e-4)


def test_a_walker_plans_by_what_it_has_tried() -> None:
    walker = richer.Walker(rng=np.random.default_rng(0))
    before = richer.GOAL - 1
    move = int(np.flatnonzero(richer.NEXT[before] == richer.GOAL)[0])
    walker.tried[before, move] = True
    walker.plan(richer.score_of("sparse"))
    assert walker.values[before, move] == pytest.approx(1.0)  # staying there was not tried yet
    assert np.count_nonzero(walker.values) == 1
    walker.tried[richer.GOAL] = True
    for _ in range(40):
        walker.plan(richer.score_of("sparse"))
    assert walker.values[before, move] == pytest.approx(1 / (1 - richer.DISCOUNT), rel=1e-3)

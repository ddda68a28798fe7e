"""Studies: what their problems come to exactly, and that each runs from the command line and finds what theory says."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from prefrl.cli import main
from prefrl.errors import UserError
from prefrl.theory import memory, minority, optimism, overfitting, pessimism
from prefrl.theory.catalogue import STUDIES, run_study
from prefrl.theory.groups import find_groups, fit_mixture, worst_group_choice
from prefrl.theory.linear import sample_rankings
from prefrl.theory.overfitting import polynomials as polynomials_of


def test_the_bandit_is_that_of_the_paper() -> None:
    assert pytest.approx([-0.9, -1.0, 0.0, 0.1]) == pessimism.ACTIONS @ pessimism.THETA
    found = pessimism.outcomes(64)
    assert sum(probability for probability, _, _ in found) == pytest.approx(1.0, abs=1e-4)
    assert pessimism.shortfall(found, 0.0) == pytest.approx(0.304, abs=0.005)


def test_a_policy_without_memory_is_right_half_the_time() -> None:
    rewards = {walk: float(memory.trajectory_features(walk) @ memory.THETA) for walk in memory.WALKS}
    assert memory.best_policy(rewards, remembers=False)[1] == pytest.approx(memory.SCALE / 2)
    policy, value = memory.best_policy(rewards, remembers=True)
    assert value == pytest.approx(memory.SCALE)
    assert [policy[1, cue] for cue in range(2)] == [0, 1]


def test_where_two_arms_are_the_same_nothing_is_asked() -> None:
    arms = np.array([[1.0, 0, 0, 0], [0.0, 0, 0, 0]])
    sure = np.eye(4) * 1e-9
    assert optimism.CHOICES["optimistic"](arms, np.ones(4), sure, np.random.default_rng(0)) == (0, 0)
    unsure = np.eye(4) * 100
    assert optimism.CHOICES["optimistic"](arms, np.ones(4), unsure, np.random.default_rng(0)) == (0, 1)


def test_a_mixture_finds_groups_that_nobody_named() -> None:
    answers, majority = minority.group_answers(0.7, 40, np.random.default_rng(0))
    found = fit_mixture(answers, 2, np.random.default_rng(1))
    assert found.shares == pytest.approx([0.7, 0.3], abs=0.02)
    assert (found.belongs[:, 0] > 0.5).tolist() == majority
    assert found.thetas[0] == pytest.approx(minority.MAJORITY, abs=0.5)
    assert found.thetas[1] == pytest.approx(minority.MINORITY, abs=0.6)


@pytest.mark.slow
def test_groups_are_found_where_there_are_some_and_not_where_there_are_none() -> None:
    rng = np.random.default_rng(0)
    answers, _ = minority.group_answers(0.8, 20, rng)
    assert find_groups(answers, rng, draws=19).p_value == pytest.approx(0.05)
    alike = [sample_rankings(rng.normal(size=(20, 2, 4)), minority.MAJORITY, rng) for _ in range(10)]
    assert find_groups(alike, rng, draws=19).p_value > 0.05


def test_the_worst_group_first_by_hand() -> None:
    items = np.array([[1.0, 0.0], [0.0, 1.0], [0.4, 0.4]])
    assert worst_group_choice(items, np.eye(2)) == pytest.approx([0.5, 0.5, 0.0], abs=1e-9)
    assert worst_group_choice(items, np.eye(2)[:1]) == pytest.approx([1.0, 0.0, 0.0], abs=1e-9)


def test_the_best_of_n_is_that_of_all_draws() -> None:
    values = np.array([3.0, -1.0, 2.0, 5.0])
    by = np.array([0.1, 0.4, 0.3, 0.2])
    draws = list(itertools.combinations(range(4), 2))
    expected = np.mean([values[max(draw, key=lambda item: by[item])] for draw in draws])
    assert overfitting.best_of(values, by, (1, 2, 4)) == pytest.approx([values.mean(), expected, -1.0])


def test_polynomials_are_all_monomials() -> None:
    point = np.arange(1.0, 7.0)
    assert polynomials_of(point, 1) == pytest.approx(point)
    assert len(polynomials_of(point, 2)) == 6 + 21
    assert polynomials_of(point, 2)[6] == pytest.approx(1 / np.sqrt(2))


def test_more_groups_than_annotators_are_refused() -> None:
    with pytest.raises(UserError, match="need as many annotators"):
        fit_mixture([np.zeros((1, 2, 1))], 2, np.random.default_rng(0))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(STUDIES) - {"minority"}))
def test_each_study_finds_what_theory_says(name: str, tmp_path: Path) -> None:
    numbers = {"convergence": 60, "memory": 10, "k-wise": 40, "optimism": 8, "overfitting": 12, "tournament": 20}
    numbers |= {"reliability": 12, "bias": 40, "persuasion": 12, "richer": 10}
    repetitions = numbers.get(name)  # pessimism draws nothing
    finding = run_study(STUDIES[name], tmp_path, repetitions=repetitions)
    assert [check.claim for check in finding.checks if not check.holds] == []


@pytest.mark.slow
def test_a_study_is_run_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "memory", "--repetitions", "3", "--out", str(tmp_path / "memory")]) == 0
    said = capsys.readouterr().out
    assert "yes" in said
    assert "NO" not in said
    found = json.loads((tmp_path / "memory" / "finding.json").read_text())
    assert found["repetitions"] == 3
    assert found["checks"][0]["holds"] is True
    assert (tmp_path / "memory" / "figure.png").stat().st_size > 5_000
    assert main(["study"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in STUDIES)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["study", "memroy"], "Did you mean 'memory'"),
        (["study", "memory", "--repetitions", "0"], "two repetitions or more"),
        (["study", "memory", "--seed", "-1"], "must be from 0"),
        (["study", "memory", "--out", "{file}"], "is a file"),
    ],
)
def test_what_is_no_study_is_refused(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    assert main([a.format(file=file) for a in arguments]) == 2
    assert said in capsys.readouterr().err

"""Why offline the cautious estimate is right: the bandit of Zhu et al. 2023, Theorem 3.9.

Four actions, n - 1 comparisons of the first two and a single one of the second with the third. Whatever n, that one
answer is wrong with probability sigmoid(-1) = 0.27, and the greedy choice then takes the worst action. The pessimistic
choice distrusts what was asked once. All outcomes are enumerated, so what is shown is exact.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from prefrl.errors import require
from prefrl.runs.plotting import BLUE, GREEN, GREY, ORANGE, set_style
from prefrl.theory.linear import Ellipsoid, Floats, fit_rankings
from prefrl.theory.study import Check, Finding, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACTIONS = np.array([[1.0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 1, 0]])
THETA = np.array([-1.0, 0.1, 0.9])
MAX_NORM = 2.0
SIZES = (8, 32, 128, 512, 2048)
FACTORS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""Of the radius sqrt((d + log n) / n)."""
_LEAST = 1e-7  # probability of an outcome that is left out


def outcomes(n: int) -> list[tuple[float, Floats, Floats]]:
    """Return what n answers may come to: probability, estimate and Sigma_D + I / n."""
    rewards = ACTIONS @ THETA
    first = 1 / (1 + math.exp(rewards[1] - rewards[0]))  # that action 1 is said to be better than action 2
    third = 1 / (1 + math.exp(rewards[1] - rewards[2]))
    probabilities = require("scipy.stats", "train").binom.pmf(np.arange(n), n - 1, first)
    found = []
    for wins, probability in enumerate(probabilities):
        if probability < _LEAST:
            continue
        for third_wins in (True, False):
            ranked = [ACTIONS[[0, 1]], ACTIONS[[1, 0]], ACTIONS[[2, 1]] if third_wins else ACTIONS[[1, 2]]]
            given = [(pair, count) for pair, count in zip(ranked, (wins, n - 1 - wins, 1), strict=True) if count]
            pairs, counts = np.stack([pair for pair, _ in given]), np.array([float(count) for _, count in given])
            theta = fit_rankings(pairs, counts=counts, max_norm=MAX_NORM).theta
            differences = pairs[:, 0] - pairs[:, 1]
            matrix = (differences.T * counts) @ differences / n + np.eye(3) / n
            found.append((probability * (third if third_wins else 1 - third), theta, matrix))
    return found


def shortfall(found: list[tuple[float, Floats, Floats]], radius: float) -> float:
    """Return by how much the pessimistic choice is worse than the best action, on average; radius 0 is greedy."""
    rewards = ACTIONS @ THETA
    short = 0.0
    for probability, theta, matrix in found:
        values = Ellipsoid(centre=theta, matrix=matrix, radius=radius).pessimistic_values(ACTIONS)
        short += probability * float(rewards.max() - rewards[np.argmax(values)])
    return short / sum(probability for probability, _, _ in found)


def run(repetitions: int, seed: int) -> Finding:
    """Enumerate what n answers may come to; nothing is drawn, so repetitions and seed change nothing."""
    del repetitions, seed
    short = {}
    for n in SIZES:
        found = outcomes(n)
        unit = math.sqrt((3 + math.log(n)) / n)
        for factor in FACTORS:
            short[n, factor] = shortfall(found, factor * unit)
    rows = [(n, *(f"{short[n, factor]:.3f}" for factor in FACTORS)) for n in SIZES]
    last = SIZES[-1]
    greedy = [short[n, 0.0] for n in SIZES]
    checks = [
        Check(
            claim="greedy stays some 0.27 below the best action for every n",
            measured=", ".join(f"{value:.3f}" for value in greedy),
            holds=all(0.25 < value < 0.36 for value in greedy),
        ),
        Check(
            claim="pessimistic goes to the best action",
            measured=f"{short[last, 1.0]:.3f} at n = {last}",
            holds=short[last, 1.0] < 0.03,
        ),
        Check(
            claim="at half the radius the advantage is gone",
            measured=f"{short[last, 0.5]:.3f} at n = {last}",
            holds=short[last, 0.5] > 0.9 * short[last, 0.0],
        ),
        Check(
            claim="too great a radius trusts nothing: it stays with what was taken for zero, 0.1 below the best",
            measured=f"{short[last, 3.0]:.3f} at three times the radius",
            holds=0.05 < short[last, 3.0] < 0.11,
        ),
    ]

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        figure.subplots_adjust(left=0.08, right=0.98, bottom=0.14, wspace=0.25)
        shown = ((0.0, ORANGE, "greedy"), (0.5, GREY, "half the radius"), (1.0, BLUE, "pessimistic"))
        for factor, colour, name in (*shown, (2.0, GREEN, "twice the radius")):
            left.plot(SIZES, [short[n, factor] for n in SIZES], color=colour, marker="o", markersize=4, label=name)
        left.set_xscale("log")
        set_style(left, "Exact shortfall of the action chosen", "answers n", "below the best action")
        left.legend(fontsize=9, frameon=False)
        for n, colour in zip(SIZES[2:], (GREY, GREEN, BLUE), strict=True):
            values = [short[n, factor] for factor in FACTORS]
            right.plot(FACTORS, values, color=colour, marker="o", markersize=4, label=f"n = {n}")
        set_style(right, "The radius matters", "radius over sqrt((d + log n) / n)", "below the best action")
        right.legend(fontsize=9, frameon=False)

    return Finding(columns=("n", *(f"radius {f:g}" for f in FACTORS)), rows=rows, checks=checks, draw=draw)


STUDY = Study(
    name="pessimism",
    question="Offline, is it better to trust the estimate or its lower bound?",
    source="Zhu, Jordan and Jiao 2023, Theorems 3.9 and 3.10",
    run=run,
    repetitions=1,
)

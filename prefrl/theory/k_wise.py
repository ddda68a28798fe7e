"""What a ranking of K items is worth: as one answer, and cut into pairs.

Zhu et al. 2023, s. 5: both estimates converge, that of whole rankings with the smaller variance. How much smaller is
computed here from theory as well: the inverse information of Plackett-Luce beside the sandwich covariance of the pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prefrl.runs.plotting import BLUE, GREEN, GREY, ORANGE, set_style
from prefrl.theory.linear import fit_rankings, fit_split, sample_rankings
from prefrl.theory.study import Check, Finding, Study, mean_and_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KS = (2, 3, 4, 6, 9)
DIM = 5
NUM_ANSWERS = 200


def run(repetitions: int, seed: int) -> Finding:
    """Fit the same rankings both ways, for several K."""
    squares = {k: np.zeros((repetitions, 2)) for k in KS}
    theory = {}
    theta = np.linspace(-1.0, 1.0, DIM)
    for k in KS:
        for repetition in range(repetitions):
            rng = np.random.default_rng([seed, k, repetition])
            ranked = sample_rankings(rng.normal(size=(NUM_ANSWERS, k, DIM)), theta, rng)
            for way, fitted in enumerate((fit_rankings(ranked), fit_split(ranked))):
                squares[k][repetition, way] = ((fitted.theta - theta) ** 2).sum()
        rng = np.random.default_rng([seed, k])
        many = sample_rankings(rng.normal(size=(10_000, k, DIM)), theta, rng)
        whole, split = (np.trace(fitted.covariance) * len(many) for fitted in (fit_rankings(many), fit_split(many)))
        theory[k] = (whole / NUM_ANSWERS, split / NUM_ANSWERS)
    rows, ratios = [], {}
    for k in KS:
        (whole, off_whole), (split, off_split) = (mean_and_interval(squares[k][:, way]) for way in (0, 1))
        ratios[k] = _ratio(squares[k])
        rows.append(
            (k, f"{whole:.4f} ± {off_whole:.4f}", f"{split:.4f} ± {off_split:.4f}",
             f"{ratios[k][0]:.2f} ± {ratios[k][1]:.2f}", f"{theory[k][1] / theory[k][0]:.2f}",
             f"{theory[2][0] / theory[k][0]:.1f}")
        )  # fmt: skip
    expected = {k: theory[k][1] / theory[k][0] for k in KS}
    checks = [
        Check(
            claim="pairs: both are one estimate",
            measured=f"ratio {ratios[2][0]:.3f}",
            holds=abs(ratios[2][0] - 1) < 1e-6,
        ),
        Check(
            claim="cutting rankings of 4 into pairs costs 1.04 to 1.14 times the error",
            measured=f"{ratios[4][0]:.2f} ± {ratios[4][1]:.2f}, in theory {expected[4]:.2f}",
            holds=1.04 - ratios[4][1] <= ratios[4][0] <= 1.14 + ratios[4][1],
        ),
        Check(
            claim="of 9 into pairs, 1.21 to 1.29 times",
            measured=f"{ratios[9][0]:.2f} ± {ratios[9][1]:.2f}, in theory {expected[9]:.2f}",
            holds=1.21 - ratios[9][1] <= ratios[9][0] <= 1.29 + ratios[9][1],
        ),
        Check(
            claim="a ranking of 9 tells several times as much as a pair",
            measured=f"{theory[2][0] / theory[9][0]:.1f} times, 8 choices in place of one",
            holds=theory[2][0] / theory[9][0] > 4,
        ),
    ]

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        figure.subplots_adjust(left=0.08, right=0.98, bottom=0.14, wspace=0.25)
        for way, (colour, name) in enumerate(((BLUE, "whole rankings"), (ORANGE, "cut into pairs"))):
            found = np.array([mean_and_interval(squares[k][:, way]) for k in KS])
            left.errorbar(KS, found[:, 0], found[:, 1], color=colour, marker="o", markersize=4, label=name)
            left.plot(KS, [theory[k][way] for k in KS], color=colour, linestyle=":", linewidth=1)
        left.set_yscale("log")
        set_style(left, f"Squared error after {NUM_ANSWERS} answers", "items K in an answer", "squared error")
        left.legend(fontsize=9, frameon=False)
        found = np.array([ratios[k] for k in KS])
        right.errorbar(KS, found[:, 0], found[:, 1], color=GREEN, marker="o", markersize=4, label="measured")
        right.plot(KS, [expected[k] for k in KS], color=GREY, linestyle="--", label="theory")
        set_style(right, "What cutting into pairs costs", "items K in an answer", "error, pairs over rankings")
        right.legend(fontsize=9, frameon=False)

    columns = ("K", "error, rankings", "error, pairs", "ratio", "ratio in theory", "worth in pairs")
    return Finding(columns=columns, rows=rows, checks=checks, draw=draw)


def _ratio(squares: np.ndarray) -> tuple[float, float]:
    """Return the ratio of the mean errors and half its 95 % interval, by bootstrap: both ways saw the same answers."""
    rng = np.random.default_rng(0)
    drawn = squares[rng.integers(len(squares), size=(500, len(squares)))].mean(axis=1)
    means = squares.mean(axis=0)
    return float(means[1] / means[0]), float(1.96 * np.std(drawn[:, 1] / drawn[:, 0]))


STUDY = Study(
    name="k-wise",
    question="What is a ranking of K worth, and what is lost by cutting it into pairs?",
    source="Zhu, Jordan and Jiao 2023, section 5",
    run=run,
    repetitions=200,
)

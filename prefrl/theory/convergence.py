"""How fast a linear reward is learned from pairs, and what answers do that the model does not expect.

Zhu et al. 2023, Lemma 3.1: the error in the norm of Sigma_D falls as sqrt(d / n). Maximum likelihood also says with
what constant: the squared error is tr(Sigma_D I^-1) / n, I the information of one answer. Where a share of the answers
is random and the model does not know it, the estimate goes to another reward: the error stops falling, though for
features that lie alike about their mean only the length of the reward shrinks, not its direction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prefrl.errors import require
from prefrl.runs.plotting import BLUE, GREEN, GREY, ORANGE, set_style
from prefrl.theory.linear import Floats, difference_covariance, fit_rankings, sample_rankings
from prefrl.theory.study import Check, Finding, Study, mean_and_interval, slope

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZES = (50, 100, 200, 400, 800, 1600, 3200, 6400)
THETA = np.array([1.2, -0.8, 0.5, 0.0, 1.0])
RANDOM = 0.1  # share of answers (Christiano et al. 2017, s. 2.2.3)
MAX_NORM = 10.0


def fit_pairs_with_errors(ranked: Floats, error_rate: float) -> Floats:
    """Estimate a linear reward from pairs of which a known share was answered at random.

    P' = (1 - error_rate) P + error_rate / 2 (Christiano et al. 2017, s. 2.2.3). No longer concave: the search starts
    where the likelihood without errors has its optimum.

    Args:
        ranked: `(n, 2, d)` float, the better first.
        error_rate: in [0, 1).
    """
    differences = ranked[:, 0] - ranked[:, 1]

    def loss(theta: Floats) -> tuple[float, Floats]:
        right = 1.0 / (1.0 + np.exp(-differences @ theta))
        mixed = (1 - error_rate) * right + error_rate / 2
        weights = (1 - error_rate) * right * (1 - right) / mixed
        return float(-np.log(mixed).mean()), -(weights[:, None] * differences).mean(axis=0)

    start = fit_rankings(ranked, max_norm=MAX_NORM).theta
    bounds = [(-MAX_NORM, MAX_NORM)] * len(start)
    minimise = require("scipy.optimize", "train").minimize
    found: Floats = minimise(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-14}).x
    return found


def _answers(n: int, error_rate: float, rng: np.random.Generator) -> Floats:
    ranked = sample_rankings(rng.normal(size=(n, 2, len(THETA))), THETA, rng)
    wrong = rng.random(n) < error_rate / 2  # a random answer is the right one every second time
    ranked[wrong] = ranked[wrong][:, ::-1]
    return ranked


def _expected_errors() -> Floats:
    """Return what theory expects at each size: sqrt(tr(Sigma_D I^-1) / n), from a large sample of features."""
    features = np.random.default_rng(0).normal(size=(200_000, 2, len(THETA)))
    differences = features[:, 0] - features[:, 1]
    right = 1.0 / (1.0 + np.exp(-differences @ THETA))
    information = (differences * (right * (1 - right))[:, None]).T @ differences / len(differences)
    covariance = difference_covariance(features)
    expected: Floats = np.sqrt(np.trace(covariance @ np.linalg.inv(information)) / np.array(SIZES, dtype=np.float64))
    return expected


def run(repetitions: int, seed: int) -> Finding:
    """Measure errors over n, for answers as expected, with random ones among them, and with these in the model."""
    names = ("answers as modelled", "10 % random, not modelled", "10 % random, modelled")
    errors = {name: np.zeros((repetitions, len(SIZES))) for name in names}
    cosines = np.zeros(repetitions)
    for repetition in range(repetitions):
        rng = np.random.default_rng([seed, repetition])
        for column, n in enumerate(SIZES):
            clean, noisy = _answers(n, 0.0, rng), _answers(n, RANDOM, rng)
            estimates = (
                fit_rankings(clean, max_norm=MAX_NORM).theta,
                fit_rankings(noisy, max_norm=MAX_NORM).theta,
                fit_pairs_with_errors(noisy, RANDOM),
            )
            for name, ranked, theta in zip(names, (clean, noisy, noisy), estimates, strict=True):
                off = theta - THETA
                errors[name][repetition, column] = np.sqrt(off @ difference_covariance(ranked) @ off)
            cosines[repetition] = estimates[1] @ THETA / np.linalg.norm(estimates[1]) / np.linalg.norm(THETA)
    expected = _expected_errors()
    rows = []
    for column, n in enumerate(SIZES):
        found = [mean_and_interval(errors[name][:, column]) for name in names]
        rows.append((n, *(f"{mean:.3f} ± {half:.3f}" for mean, half in found), f"{expected[column]:.3f}"))
    slopes = {name: slope(SIZES[3:], errors[name][:, 3:]) for name in names}
    as_modelled, blind, aware = (slopes[name] for name in names)
    root = float(np.sqrt((errors[names[0]][:, -1] ** 2).mean()))
    floor = float(errors[names[1]][:, -1].mean())
    checks = [
        Check(
            claim="the error falls as n to the power of -1/2",
            measured=f"slope {as_modelled[0]:.3f} ± {as_modelled[1]:.3f}",
            holds=abs(as_modelled[0] + 0.5) < max(0.03, as_modelled[1]),
        ),
        Check(
            claim=f"at n = {SIZES[-1]} it is what the information of an answer says, {expected[-1]:.3f}",
            measured=f"{root:.3f} (root of the mean square)",
            holds=abs(root / expected[-1] - 1) < 0.1,
        ),
        Check(
            claim="random answers that the model does not know of leave an error that does not fall",
            measured=f"{floor:.2f} at n = {SIZES[-1]}, slope {blind[0]:.2f}",
            holds=floor > 3 * expected[-1],
        ),
        Check(
            claim="with their share in the model the rate is back",
            measured=f"slope {aware[0]:.3f} ± {aware[1]:.3f}",
            holds=abs(aware[0] + 0.5) < max(0.06, aware[1]),
        ),
    ]
    notes = [
        f"Unmodelled errors shorten the reward but hardly turn it: its cosine with the true one is {cosines.mean():.3f}"
        f" after {SIZES[-1]} answers, so that the best item is still found; differences are understated."
    ]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for name, colour in zip(names, (BLUE, ORANGE, GREEN), strict=True):
            found = np.array([mean_and_interval(values) for values in errors[name].T])
            axes.errorbar(SIZES, found[:, 0], found[:, 1], color=colour, marker="o", markersize=4, label=name)
        axes.plot(SIZES, expected, color=GREY, linestyle="--", label="theory: sqrt(tr(Sigma I^-1) / n)")
        axes.set_xscale("log")
        axes.set_yscale("log")
        set_style(axes, "Error of a linear reward learned from pairs", "answers n", "error in the norm of Sigma")
        axes.legend(fontsize=9, frameon=False)

    return Finding(columns=("n", *names, "theory"), rows=rows, checks=checks, notes=notes, draw=draw)


STUDY = Study(
    name="convergence",
    question="How fast is a reward learned from pairs, and what do unexpected answers do?",
    source="Zhu, Jordan and Jiao 2023, Lemma 3.1",
    run=run,
    repetitions=150,
)

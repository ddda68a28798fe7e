"""Why online the hopeful choice is right: which pairs to ask about, so that little is lost while learning.

In each round some arms are at hand, two are compared and both are paid for: the regret is the best arm's reward less
the mean of the two (Saha 2021; Pacchiano, Saha and Lee 2023 for policies). The optimistic choice compares the arm that
seems best with the one that may yet be furthest above it; Thompson sampling compares the best arms of two rewards drawn
from what is likely; uniform compares any two. Where the two are the same arm, nothing is asked. The first two pay in
the order of sqrt(T) at most, uniform a constant a round.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from prefrl.runs.plotting import BLUE, GREEN, GREY, ORANGE, set_style
from prefrl.theory.linear import Floats, fit_rankings, sample_rankings
from prefrl.theory.study import Check, Finding, Study, mean_and_interval, slope

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROUNDS, ARMS, DIM = 2000, 12, 4
THETA = np.array([1.5, -1.0, 1.0, 0.5])
WIDTH = 1.0  # of the optimistic bonus, in standard deviations
RIDGE = 1.0
_REFIT = 1.1  # again when there are so many times as many answers

Choice = Callable[[Floats, Floats, Floats, np.random.Generator], tuple[int, int]]
"""(arms `(A, d)`, estimate, its covariance, random numbers) -> the two arms to compare."""


def _optimistic(arms: Floats, theta: Floats, covariance: Floats, rng: np.random.Generator) -> tuple[int, int]:
    del rng
    values = arms @ theta
    first = int(values.argmax())
    off = arms - arms[first]
    bonus = WIDTH * np.sqrt(np.maximum(np.einsum("ad,de,ae->a", off, covariance, off), 0.0))
    return first, int((values + bonus).argmax())


def _thompson(arms: Floats, theta: Floats, covariance: Floats, rng: np.random.Generator) -> tuple[int, int]:
    drawn = rng.multivariate_normal(theta, covariance, size=2, method="cholesky")
    first, second = (drawn @ arms.T).argmax(axis=1)
    return int(first), int(second)


def _uniform(arms: Floats, theta: Floats, covariance: Floats, rng: np.random.Generator) -> tuple[int, int]:
    del theta, covariance
    first, second = rng.choice(len(arms), size=2, replace=False)
    return int(first), int(second)


CHOICES: dict[str, Choice] = {"optimistic": _optimistic, "Thompson": _thompson, "uniform": _uniform}


def regrets(choose: Choice, seed: tuple[int, int]) -> Floats:
    """Return the regret summed up to each round, `(ROUNDS,)`; the arms are the same for every way to choose."""
    world, own = (np.random.default_rng([*seed, part]) for part in range(2))
    theta: Floats = np.zeros(DIM)
    covariance: Floats = np.eye(DIM) / RIDGE
    asked: list[Floats] = []
    lost, due = np.zeros(ROUNDS), 1.0
    for number in range(ROUNDS):
        arms = world.normal(size=(ARMS, DIM)) / math.sqrt(DIM)
        first, second = choose(arms, theta, covariance, own)
        rewards = arms @ THETA
        lost[number] = rewards.max() - (rewards[first] + rewards[second]) / 2
        if first != second:  # the same arm twice: there is nothing to ask
            asked.append(sample_rankings(arms[[first, second]][None], THETA, own)[0])
        if len(asked) >= due:
            fitted = fit_rankings(np.stack(asked), ridge=RIDGE)
            theta, covariance, due = fitted.theta, fitted.covariance, max(len(asked) + 1.0, len(asked) * _REFIT)
    total: Floats = np.cumsum(lost)
    return total


def run(repetitions: int, seed: int) -> Finding:
    """Sum up what each way to choose pairs loses."""
    curves = {
        name: np.stack([regrets(choose, (seed, r)) for r in range(repetitions)]) for name, choose in CHOICES.items()
    }
    at = np.unique(np.geomspace(20, ROUNDS, 12).astype(int)) - 1
    late = at[at >= 150]
    slopes = {name: slope((late + 1).tolist(), curve[:, late]) for name, curve in curves.items()}
    ends = {name: mean_and_interval(curve[:, -1]) for name, curve in curves.items()}
    rows = [
        (name, f"{ends[name][0]:.1f} ± {ends[name][1]:.1f}", f"{slopes[name][0]:.2f} ± {slopes[name][1]:.2f}")
        for name in CHOICES
    ]
    checks = [
        Check(
            claim="what uniform choice loses grows in proportion to T",
            measured=f"slope {slopes['uniform'][0]:.3f}",
            holds=abs(slopes["uniform"][0] - 1) < 0.02,
        )
    ]
    for name in ("optimistic", "Thompson"):
        checks.append(
            Check(
                claim=f"{name}: in the order of sqrt(T) at most (a bound; where few arms are nearly as good, less)",
                measured=f"slope {slopes[name][0]:.2f} ± {slopes[name][1]:.2f}, {ends[name][0]:.0f} lost",
                holds=slopes[name][0] <= 0.5 + max(0.05, slopes[name][1]) and ends[name][0] < ends["uniform"][0] / 4,
            )
        )
    share = ends["optimistic"][0] / ends["uniform"][0]
    notes = [f"In {ROUNDS} rounds optimistic choice lost {share:.1%} of what uniform choice did."]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        rounds = np.arange(1, ROUNDS + 1)
        for (name, curve), colour in zip(curves.items(), (BLUE, GREEN, ORANGE), strict=True):
            axes.plot(rounds, curve.mean(axis=0), color=colour, label=name)
            low, high = np.quantile(curve, (0.1, 0.9), axis=0)
            axes.fill_between(rounds, low, high, color=colour, alpha=0.15, linewidth=0)
        reference = ends["optimistic"][0] * np.sqrt(rounds / ROUNDS)
        axes.plot(rounds, reference, color=GREY, linestyle=":", label="sqrt(T)")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(left=10)
        set_style(axes, "Lost while learning (80 % of repetitions shaded)", "rounds T", "regret")
        axes.legend(fontsize=9, frameon=False)

    return Finding(
        columns=("pairs chosen", f"regret at T = {ROUNDS}", "slope"), rows=rows, checks=checks, notes=notes, draw=draw
    )


STUDY = Study(
    name="optimism",
    question="Online, which pairs are to be compared so that little is lost while learning?",
    source="Pacchiano, Saha and Lee 2023; Saha 2021",
    run=run,
    repetitions=20,
)

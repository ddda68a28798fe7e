"""Annotators who err at rates of their own: what estimating the rates brings, and what it does about adversaries.

Each annotator reverses an answer of Bradley-Terry with a probability of their own, which nobody knows (Chen et al.
2013; Dawid and Skene 1979 for labels; who answers a share s at random errs at s / 2). Expectation maximisation
estimates rates and reward together: how likely each answer is a reversed one, then rate and reward by these. Rates held
to 1/2 are what `prefrl fit --reliability` learns: an annotator who errs more often is left out. Free rates turn such
answers round. Unknown rates hardly turn a linear reward (see `convergence`) but waste answers, so what is compared is
the angle to the true reward: by theory its square is tr(P V P) / |theta|^2 / n, V / n the covariance of an estimate and
P what is orthogonal to the reward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prefrl.errors import UserError
from prefrl.runs.plotting import BLUE, GREEN, GREY, ORANGE, set_style
from prefrl.theory.linear import Floats, fit_rankings, sample_rankings
from prefrl.theory.study import Check, Finding, Study, mean_and_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Integers = NDArray[np.integer[Any]]

THETA = np.array([1.2, -0.8, 0.5, 0.0, 1.0])
MIXED = np.repeat([0.02, 0.2, 0.45], 4)
"""Error rates of twelve annotators: careful, middling, next to random."""
ADVERSE = np.concatenate([np.repeat(0.05, 8), np.repeat(0.9, 4)])
"""The same number, a third of whom answer the opposite on purpose."""
CROWDS = {"careful to careless": MIXED, "a third adversaries": ADVERSE}
EACH = (3, 5, 10, 20, 40, 80)
RIGHT, WRONG = 3.0, 3.0 * 0.1 / 1.9
"""The prior of a rate, as if so many answers had been right and wrong: that of `prefrl.rewards.reliability`."""
RIDGE = 0.1
_STEPS = 200
_ENOUGH = 1e-3  # change of a rate

PLAIN, HELD, FREE, TOLD = "plain", "rates estimated, at most 1/2", "rates estimated", "rates known"


@dataclass(frozen=True, kw_only=True)
class Reliabilities:
    """A reward and the error rates of those who answered."""

    theta: Floats
    """`(d,)` float64."""
    rates: Floats
    """`(A,)` float64: probability that an annotator's answer is reversed."""


def fit_with_rates(
    ranked: Floats, annotators: Integers, num_annotators: int, *, known: Floats | None = None, most: float = 1.0
) -> Reliabilities:
    """Estimate a linear reward from pairs, and how often each annotator reverses an answer.

    Args:
        ranked: `(n, 2, d)` float, the better first.
        annotators: `(n,)` int in [0, A), who answered.
        num_annotators: A.
        known: `(A,)` float, error rates that are not to be estimated.
        most: greatest rate; 1/2 leaves out who is worse than random, 1 turns their answers round.

    Raises:
        UserError: no pairs, or not one annotator for each.
    """
    if ranked.ndim != 3 or ranked.shape[1] != 2 or annotators.shape != (len(ranked),):
        raise UserError(
            f"Expected pairs of shape (n, 2, d) and who answered each. Received shapes {ranked.shape} and "
            f"{annotators.shape}"
        )
    both = np.concatenate([ranked, ranked[:, ::-1]])
    differences = ranked[:, 0] - ranked[:, 1]
    theta = fit_rankings(ranked, ridge=RIDGE).theta
    rates: Floats = np.full(num_annotators, WRONG / (RIGHT + WRONG)) if known is None else known
    given = np.bincount(annotators, minlength=num_annotators)
    for _ in range(_STEPS):
        right = 1.0 / (1.0 + np.exp(-differences @ theta))
        erring = rates[annotators]
        straight = (1 - erring) * right
        meant = straight / (straight + erring * (1 - right))  # probability that the answer is not reversed
        counts = np.maximum(np.concatenate([meant, 1 - meant]), 1e-12)
        before, last = rates, theta
        theta = fit_rankings(both, counts=counts, ridge=RIDGE, start=theta).theta
        if known is None:
            reversed_ = np.bincount(annotators, 1 - meant, minlength=num_annotators)
            rates = np.minimum((reversed_ + WRONG) / (given + RIGHT + WRONG), most)
        if np.abs(rates - before).max() < _ENOUGH and np.abs(theta - last).max() < _ENOUGH:
            break
    return Reliabilities(theta=theta, rates=rates)


def crowd_answers(rates: Floats, each: int, rng: np.random.Generator) -> tuple[Floats, Integers]:
    """Return pairs answered by annotators with these error rates, `(A each, 2, d)`, and who answered."""
    annotators = np.repeat(np.arange(len(rates)), each)
    ranked = sample_rankings(rng.normal(size=(len(annotators), 2, len(THETA))), THETA, rng)
    wrong = rng.random(len(ranked)) < rates[annotators]
    ranked[wrong] = ranked[wrong][:, ::-1]
    return ranked, annotators


def squared_angle(theta: Floats) -> float:
    """Return the squared sine of the angle to the true reward, 1 where the reward points away from it."""
    cosine = float(theta @ THETA / np.linalg.norm(theta) / np.linalg.norm(THETA))
    return 1.0 - cosine**2 if cosine > 0 else 1.0


def expected_angles(rates: Floats, *, draws: int = 100_000) -> tuple[float, float]:
    """Return n times the squared angle that theory expects: of known rates, and of the plain estimate.

    Both by the information of an answer, in the limit of many: V = I^-1 where the rates are known, and the sandwich
    H^-1 G H^-1 of the plain estimate (White 1982) at the reward it goes to, which has the right direction since the
    features lie alike in all.

    Args:
        rates: of annotators who answer equally often; where their mean is 1/2 or more, the plain estimate goes astray
            and its angle is infinite.
        draws: pairs of features that the expectations are taken over.
    """
    features = np.random.default_rng(0).normal(size=(draws, 2, len(THETA)))
    differences = features[:, 0] - features[:, 1]
    true = 1.0 / (1.0 + np.exp(-differences @ THETA))

    def product(weights: Floats) -> Floats:
        matrix: Floats = (differences * weights[:, None]).T @ differences / len(differences)
        return matrix

    told = np.zeros((len(THETA), len(THETA)))
    for rate in rates:
        said = (1 - rate) * true + rate * (1 - true)
        told += product(((1 - 2 * rate) * true * (1 - true)) ** 2 / (said * (1 - said))) / len(rates)
    error = min(float(rates.mean()), 0.5)
    said = (1 - error) * true + error * (1 - true)
    low, high = 0.0, 1.0  # of the length of the plain reward, in lengths of the true one
    for _ in range(40):
        middle = (low + high) / 2
        guess = 1.0 / (1.0 + np.exp(-middle * differences @ THETA))
        low, high = (middle, high) if float(((said - guess) * (differences @ THETA)).mean()) > 0 else (low, middle)
    guess = 1.0 / (1.0 + np.exp(-low * differences @ THETA))
    bread = np.linalg.inv(product(guess * (1 - guess)))
    meat = product(said * (1 - guess) ** 2 + (1 - said) * guess**2)
    unit = THETA / np.linalg.norm(THETA)
    across = np.eye(len(THETA)) - np.outer(unit, unit)
    length = float(THETA @ THETA)
    known = float(np.trace(across @ np.linalg.inv(told))) / length
    plain = float(np.trace(across @ bread @ meat @ bread)) / (low**2 * length) if error < 0.5 else math.inf
    return known, plain


def run(repetitions: int, seed: int) -> Finding:
    """Fit rewards to the answers of two crowds, few and many, by each way."""
    ways = (PLAIN, HELD, FREE, TOLD)
    angles = {(crowd, way): np.zeros((repetitions, len(EACH))) for crowd in CROWDS for way in ways}
    off = {crowd: np.zeros((repetitions, len(EACH))) for crowd in CROWDS}
    for number, (crowd, rates) in enumerate(CROWDS.items()):
        for repetition in range(repetitions):
            for column, each in enumerate(EACH):
                answers = crowd_answers(rates, each, np.random.default_rng([seed, number, repetition, each]))
                free = fit_with_rates(*answers, len(rates))
                thetas = (
                    fit_rankings(answers[0], ridge=RIDGE).theta,
                    fit_with_rates(*answers, len(rates), most=0.5).theta,
                    free.theta,
                    fit_with_rates(*answers, len(rates), known=rates).theta,
                )
                for way, theta in zip(ways, thetas, strict=True):
                    angles[crowd, way][repetition, column] = squared_angle(theta)
                off[crowd][repetition, column] = np.abs(free.rates - rates).mean()
    rows = []
    for crowd in CROWDS:
        for column, each in enumerate(EACH):
            found = [mean_and_interval(angles[crowd, way][:, column]) for way in ways]
            told = (f"{mean:.4f} ± {half:.4f}" for mean, half in found)
            rows.append((crowd, each, *told, f"{off[crowd][:, column].mean():.3f}"))
    theory = {crowd: expected_angles(rates) for crowd, rates in CROWDS.items()}
    first, second = CROWDS
    most_answers = EACH[-1] * len(MIXED)
    mixed = {way: angles[first, way].mean(axis=0) for way in ways}
    known, plain = (value / most_answers for value in theory[first])
    pays = pays_from(angles[first, PLAIN], angles[first, FREE])
    adverse = {way: mean_and_interval(angles[second, way][:, -1]) for way in ways}
    late = np.array(EACH[-2:]) * len(MIXED)
    shares = {
        way: mean_and_interval((angles[first, way][:, -2:] * late / value).mean(axis=1))
        for way, value in zip((TOLD, PLAIN), theory[first], strict=True)
    }
    checks = [
        Check(
            claim=f"from {EACH[-2]} answers each on the squared angle is what theory says, with rates known and "
            f"plainly ({known:.4f} and {plain:.4f} at {EACH[-1]})",
            measured=" and ".join(f"{mean:.2f} ± {half:.2f}" for mean, half in shares.values()) + " times as much",
            holds=all(abs(mean - 1) < max(0.15, 1.5 * half) for mean, half in shares.values()),
        ),
        Check(
            claim="rates that are estimated come to what known ones give",
            measured=f"{mixed[FREE][-1]:.4f} beside {mixed[TOLD][-1]:.4f}",
            holds=bool(mixed[FREE][-1] < 1.2 * mixed[TOLD][-1]),
        ),
        Check(
            claim=f"estimating them pays from {EACH[-2]} answers of each on, or from fewer",
            measured=f"from {pays} on" if pays else "nowhere",
            holds=pays is not None and pays <= EACH[-2],
        ),
        Check(
            claim=f"the rates are found to within 0.06 from {EACH[-1]} answers of each",
            measured=f"mean error {off[first][:, -1].mean():.3f}",
            holds=bool(off[first][:, -1].mean() < 0.06),
        ),
        Check(
            claim="adversaries cost the plain estimate more than half its answers, and are left out by rates up to 1/2",
            measured=f"squared angle {adverse[PLAIN][0]:.4f}, {adverse[HELD][0]:.4f} without them",
            holds=adverse[HELD][0] + adverse[HELD][1] < adverse[PLAIN][0] / 2,
        ),
        Check(
            claim="turned round, their answers are worth as much as those of others",
            measured=f"{adverse[FREE][0]:.4f} ± {adverse[FREE][1]:.4f}, known {adverse[TOLD][0]:.4f}",
            holds=bool(adverse[FREE][0] < 1.2 * adverse[TOLD][0] and adverse[FREE][0] < adverse[HELD][0]),
        ),
    ]
    notes = [
        f"With rates known, {100 * known / plain:.0f} answers of the crowd from careful to careless tell as much about "
        "the direction of the reward as 100 by the plain estimate.",
        f"With {EACH[0]} answers of each there is little to tell rates by: the squared angle is {mixed[FREE][0]:.2f}, "
        f"plainly {mixed[PLAIN][0]:.2f}.",
    ]

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, 2, sharey=True)
        figure.subplots_adjust(left=0.08, right=0.98, bottom=0.14, wspace=0.08)
        for axes, crowd in zip(panels, CROWDS, strict=True):
            sizes = np.array(EACH)
            for way, colour, shape in zip(ways, (ORANGE, BLUE, GREEN, GREY), "os^x", strict=True):
                found = np.array([mean_and_interval(values) for values in angles[crowd, way].T])
                axes.errorbar(sizes, found[:, 0], found[:, 1], color=colour, marker=shape, markersize=4, label=way)
            for value, colour in zip(theory[crowd], (GREY, ORANGE), strict=True):
                axes.plot(sizes, value / sizes / len(MIXED), color=colour, linestyle="--", linewidth=1)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xticks(EACH, [str(each) for each in EACH])
            axes.set_xticks([], minor=True)
            set_style(axes, f"{crowd.capitalize()}: theory dashed", "answers of each of twelve", "squared angle")
        panels[0].legend(fontsize=8, frameon=False)

    columns = ("annotators", "answers each", *ways, "mean error of rates")
    return Finding(columns=columns, rows=rows, checks=checks, notes=notes, draw=draw)


def pays_from(plain: Floats, other: Floats) -> int | None:
    """Return the least number of answers each from which on the other way is surely better; None if there is none.

    Args:
        plain: `(R, len(EACH))` float: errors of one way.
        other: of another, on the same answers.
    """
    better = None
    for column in reversed(range(len(EACH))):
        gain, half = mean_and_interval(plain[:, column] - other[:, column])
        if gain <= half:
            break
        better = EACH[column]
    return better


STUDY = Study(
    name="reliability",
    question="What does it bring to estimate how reliable each annotator is, and from how many answers on?",
    source="Dawid and Skene 1979; Chen et al. 2013",
    run=run,
    repetitions=40,
)

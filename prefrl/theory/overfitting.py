"""Overfitting a reward and optimising it too hard: capacity, answers, and what helps.

Items are points, their true reward is a bounded function of a direction less a penalty for going far out, and the
learned reward is linear in polynomials of the point: of degree 1, 2 or 3. The more it can say, the better it fits the
answers and, where they are few, the worse what was held out. Choosing the best of N items by it is the sharpest policy
whose distance from chance is known, KL = log N - (N - 1) / N (Gao et al. 2022): far out the learned reward is wrong,
and that is where it points. What helps: a ridge (or stopping early), the mean of an ensemble, and taking off its
disagreement (Coste et al. 2024).
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

from prefrl.runs.plotting import BLUE, GREEN, GREY, ORANGE, PURPLE, set_style
from prefrl.theory.linear import Floats, fit_rankings, sample_rankings
from prefrl.theory.study import Check, Finding, Study, mean_and_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DIM = 6
ANSWERS, MANY_ANSWERS = 150, 3000
DEGREES = (1, 2, 3)
POOL = 4000
BEST_OF = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
HARDLY, RIDGE = 0.02, 2.0
MEMBERS, PESSIMISM = 10, 1.0
WAYS = ("alone", "ridge", "ensemble", "ensemble, pessimistic")


def true_reward(points: Floats) -> Floats:
    """Return the reward of points `(..., DIM)`: bounded along a direction, and less far out."""
    along = points @ np.linspace(1.0, -1.0, DIM) / math.sqrt(DIM)
    reward: Floats = 3.0 * np.tanh(along) - 0.15 * (points**2).sum(axis=-1)
    return reward


def polynomials(points: Floats, degree: int) -> Floats:
    """Return all monomials of degree 1 to `degree`, `(..., F)`, each of about unit size."""
    columns = []
    for power in range(1, degree + 1):
        for chosen in itertools.combinations_with_replacement(range(DIM), power):
            columns.append(np.prod(points[..., list(chosen)], axis=-1) / math.sqrt(math.factorial(power)))
    return np.stack(columns, axis=-1)


def best_of(values: Floats, chosen_by: Floats, sizes: tuple[int, ...] = BEST_OF) -> Floats:
    """Return the mean value of the best of N items by another measure, `(len(sizes),)`: exact over the pool.

    The item of rank k, from the least, is the best of N that were drawn without repetition with probability
    C(k, N - 1) / C(P, N), k from 0.
    """
    ordered = values[np.argsort(chosen_by, kind="stable")]
    ranks = np.arange(len(values))
    means = []
    for size in sizes:
        with np.errstate(divide="ignore"):
            steps = np.log(np.maximum(ranks[:, None] - np.arange(size - 1)[None, :], 0)).sum(axis=1)
        weights = np.exp(steps - steps.max())
        means.append(float(weights @ ordered / weights.sum()))
    return np.array(means)


def _answers(n: int, rng: np.random.Generator) -> Floats:
    """Return pairs of points, the better first."""
    points = rng.normal(size=(n, 2, DIM))
    marked = np.concatenate([points, true_reward(points)[..., None]], axis=-1)
    return sample_rankings(marked, np.append(np.zeros(DIM), 1.0), rng)[..., :DIM]


def learn(answers: Floats, degree: int, way: str, points: Floats, rng: np.random.Generator) -> Floats:
    """Return what a learned reward says of points, `(P,)`."""
    ranked, features = polynomials(answers, degree), polynomials(points, degree)
    if way in ("alone", "ridge"):
        return features @ fit_rankings(ranked, ridge=HARDLY if way == "alone" else RIDGE).theta
    members = []
    for _ in range(MEMBERS):
        drawn = ranked[rng.integers(len(ranked), size=len(ranked))]
        says = features @ fit_rankings(drawn, ridge=HARDLY).theta
        members.append((says - says.mean()) / says.std())
    told = np.stack(members)
    pessimism = PESSIMISM if way.endswith("pessimistic") else 0.0
    reward: Floats = told.mean(axis=0) - pessimism * told.std(axis=0)
    return reward


def run(repetitions: int, seed: int) -> Finding:
    """Fit rewards of three capacities to few and many answers, and choose by them more and more sharply."""
    accuracies = {(n, degree): np.zeros((repetitions, 2)) for n in (ANSWERS, MANY_ANSWERS) for degree in DEGREES}
    curves = {way: np.zeros((repetitions, len(BEST_OF))) for way in WAYS}
    limits = np.zeros((repetitions, len(BEST_OF)))
    for repetition in range(repetitions):
        rng = np.random.default_rng([seed, repetition])
        held_out, points = _answers(2000, rng), rng.normal(size=(POOL, DIM))
        true = true_reward(points)
        limits[repetition] = best_of(true, true)
        for n in (ANSWERS, MANY_ANSWERS):
            answers = _answers(n, rng)
            for degree in DEGREES:
                theta = fit_rankings(polynomials(answers, degree), ridge=HARDLY).theta
                for column, given in enumerate((answers, held_out)):
                    gaps = (polynomials(given[:, 0], degree) - polynomials(given[:, 1], degree)) @ theta
                    accuracies[n, degree][repetition, column] = (gaps > 0).mean()
            if n == ANSWERS:
                for way in WAYS:
                    curves[way][repetition] = best_of(true, learn(answers, DEGREES[-1], way, points, rng))
    rows: list[tuple[str, ...]] = []
    for (n, degree), found in accuracies.items():
        (fitted, off_fitted), (held, off_held) = (mean_and_interval(column) for column in found.T)
        name = f"degree {degree}, {polynomials(np.zeros(DIM), degree).size} weights, {n} answers"
        rows.append((name, f"{fitted:.3f} ± {off_fitted:.3f}", f"{held:.3f} ± {off_held:.3f}"))
    for way in WAYS:
        last, off = mean_and_interval(curves[way][:, -1])
        peak = int(curves[way].mean(axis=0).argmax())
        top = f"{curves[way][:, peak].mean():.2f} at the best of {BEST_OF[peak]}"
        rows.append((f"chosen by degree 3, {way}", top, f"{last:.2f} ± {off:.2f} at {BEST_OF[-1]}"))
    few = [accuracies[ANSWERS, degree].mean(axis=0) for degree in DEGREES]
    many = [accuracies[MANY_ANSWERS, degree].mean(axis=0) for degree in DEGREES]
    alone = curves["alone"].mean(axis=0)
    gains = {way: mean_and_interval(curves[way][:, -1] - curves["alone"][:, -1]) for way in WAYS[1:]}
    checks = [
        Check(
            claim=f"with {ANSWERS} answers the reward that can say most fits them best and the rest worse",
            measured=f"fitted {few[0][0]:.2f} to {few[-1][0]:.2f}, held out {few[1][1]:.2f} to {few[-1][1]:.2f}",
            holds=bool(few[-1][0] > few[0][0] and few[-1][1] < few[1][1]),
        ),
        Check(
            claim=f"with {MANY_ANSWERS} it is better, or no worse, on what was held out",
            measured=f"held out {many[0][1]:.3f}, {many[1][1]:.3f}, {many[-1][1]:.3f}",
            holds=bool(many[-1][1] > many[0][1] - 0.01),
        ),
        Check(
            claim="choosing by it ever more sharply, the true reward rises, then falls",
            measured=f"{alone[0]:.2f}, at most {alone.max():.2f} at the best of {BEST_OF[int(alone.argmax())]}, "
            f"then {alone[-1]:.2f}",
            holds=bool(alone.max() - alone[-1] > 0.2 and alone.max() > alone[0] + 0.2),
        ),
        *(
            Check(
                claim=f"{way} helps at the best of {BEST_OF[-1]}",
                measured=f"{gain:+.2f} ± {half:.2f}",
                holds=gain > half,
            )
            for way, (gain, half) in gains.items()
        ),
    ]

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        figure.subplots_adjust(left=0.08, right=0.98, bottom=0.14, wspace=0.25)
        for n, style in ((ANSWERS, "-"), (MANY_ANSWERS, "--")):
            for column, (colour, name) in enumerate(((ORANGE, "fitted"), (BLUE, "held out"))):
                found = [mean_and_interval(accuracies[n, degree][:, column]) for degree in DEGREES]
                means, halves = zip(*found, strict=True)
                left.errorbar(DEGREES, means, halves, color=colour, linestyle=style, marker="o", markersize=4,
                              label=f"{name}, {n} answers")  # fmt: skip
        left.set_xticks(DEGREES)
        set_style(left, "Answers in the order of the reward", "degree of the learned reward", "share")
        left.legend(fontsize=8, frameon=False)
        distance = [math.log(size) - (size - 1) / size for size in BEST_OF]
        for way, colour in zip(WAYS, (ORANGE, GREEN, BLUE, PURPLE), strict=True):
            found = [mean_and_interval(column) for column in curves[way].T]
            means, halves = zip(*found, strict=True)
            right.errorbar(np.sqrt(distance), means, halves, color=colour, marker="o", markersize=3, label=way)
        right.plot(
            np.sqrt(distance), limits.mean(axis=0), color=GREY, linestyle="--", label="chosen by the true reward"
        )
        set_style(right, "True reward of the best of N by the learned", "sqrt(KL), nats", "true reward")
        right.legend(fontsize=8, frameon=False)

    columns = ("reward", "fitted, or at its best", "held out, or at the end")
    return Finding(columns=columns, rows=rows, checks=checks, draw=draw)


STUDY = Study(
    name="overfitting",
    question="What do capacity and few answers do to a learned reward, and what helps?",
    source="Gao et al. 2022; Coste et al. 2024; Casper et al. 2023",
    run=run,
    repetitions=40,
)

"""What one reward does to a minority, and what tells that there are groups.

Two groups wish the opposite on two of four features and agree on the others; who belongs where is not recorded. One
reward for all follows the majority (Casper et al. 2023; Siththaranjan et al. 2024 show that it is a Borda count). A
mixture fitted by annotator finds both rewards; the worst-group choice serves both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prefrl.runs.plotting import BLUE, GREEN, GREY, ORANGE, set_style
from prefrl.theory.groups import Mixture, find_groups, fit_mixture, worst_group_choice
from prefrl.theory.linear import Floats, fit_rankings, sample_rankings
from prefrl.theory.study import Check, Finding, Study, mean_and_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAJORITY, MINORITY = np.array([1.5, -1.0, 0.5, 0.5]), np.array([-1.5, 1.0, 0.5, 0.5])
SHARES = (0.5, 0.65, 0.8, 0.95)
ANNOTATORS, EACH = 20, 40
TEST_EACH = (3, 10)
TEST_DRAWS = 19
LEVEL = 0.05
NUM_ITEMS = 30


def group_answers(share: float, each: int, rng: np.random.Generator) -> tuple[list[Floats], list[bool]]:
    """Return the answers of each annotator, and who belongs to the majority."""
    majority = [number < round(share * ANNOTATORS) for number in range(ANNOTATORS)]
    thetas = [MAJORITY if one else MINORITY for one in majority]
    return [sample_rankings(rng.normal(size=(each, 2, 4)), theta, rng) for theta in thetas], majority


def served(chosen: Floats, items: Floats, theta: Floats) -> float:
    """Return what a choice of items is worth to a group: 0 is a random item, 1 the group's own best one."""
    values = items @ theta
    return float((chosen @ values - values.mean()) / (values.max() - values.mean()))


def _only(values: Floats) -> Floats:
    chosen = np.zeros(len(values))
    chosen[values.argmax()] = 1.0
    return chosen


def serve(share: float, rng: np.random.Generator) -> dict[str, tuple[float, ...]]:
    """Return how well majority and minority are served by each way to learn from the same answers."""
    answers, majority = group_answers(share, EACH, rng)
    items = rng.normal(size=(NUM_ITEMS, 4))
    single = fit_rankings(np.concatenate(answers), ridge=0.1).theta
    mixture = fit_mixture(answers, 2, rng)
    thetas = _in_order(mixture)
    halves = []
    for of in (True, False):
        own = [given[: EACH // 2] for given, belongs in zip(answers, majority, strict=True) if belongs is of]
        halves.append(fit_rankings(np.concatenate(own), ridge=0.1).theta)
    each = (MAJORITY, MINORITY)
    return {
        "one reward": tuple(served(_only(items @ single), items, theta) for theta in each),
        "each its own, of a mixture": tuple(
            served(_only(items @ own), items, theta) for own, theta in zip(thetas, each, strict=True)
        ),
        "each its own, told who is who, half the answers": tuple(
            served(_only(items @ own), items, theta) for own, theta in zip(halves, each, strict=True)
        ),
        "one choice, worst group first": tuple(
            served(worst_group_choice(items - items.mean(axis=0), _unit(thetas, items)), items, theta) for theta in each
        ),
    }


def _in_order(mixture: Mixture) -> Floats:
    """Return the rewards of majority and minority: the names of a mixture's groups are its own."""
    like = np.linalg.norm(mixture.thetas - MAJORITY, axis=1)
    return mixture.thetas[np.argsort(like)]


def _unit(thetas: Floats, items: Floats) -> Floats:
    """Return rewards by which each group's own best item is worth 1 more than a random one."""
    values = (items - items.mean(axis=0)) @ thetas.T
    scaled: Floats = thetas / values.max(axis=0)[:, None]
    return scaled


def run(repetitions: int, seed: int) -> Finding:
    """Serve two groups at several shares, and test for groups with few and many answers."""
    names = list(serve(0.5, np.random.default_rng(0)))
    found = {
        share: [serve(share, np.random.default_rng([seed, column, r])) for r in range(repetitions)]
        for column, share in enumerate(SHARES)
    }
    served_by = {
        (share, name): np.array([one[name] for one in rows]) for share, rows in found.items() for name in names
    }
    rows = []
    for share in SHARES:
        for name in names:
            (first, off_first), (second, off_second) = (mean_and_interval(v) for v in served_by[share, name].T)
            rows.append((f"{share:.0%}", name, f"{first:.2f} ± {off_first:.2f}", f"{second:.2f} ± {off_second:.2f}"))
    tries = max(4, repetitions // 2)
    told = {}
    for each in TEST_EACH:
        for share in (0.8, 1.0):
            hits = [
                find_groups(group_answers(share, each, rng)[0], rng, draws=TEST_DRAWS).p_value <= LEVEL
                for rng in (np.random.default_rng([seed, 9, each, round(share * 100), t]) for t in range(tries))
            ]
            told[each, share] = float(np.mean(hits))
    for each in TEST_EACH:
        text = f"groups found in {told[each, 0.8]:.0%}, where there are none in {told[each, 1.0]:.0%}"
        rows.append(("80%", f"test, {each} answers of each of {ANNOTATORS}", text, ""))
    single, mixture, halves, worst = (served_by[0.8, name].mean(axis=0) for name in names)
    checks = [
        Check(
            claim="at 80:20 one reward serves the minority worse than a random choice",
            measured=f"{single[1]:.2f} (0 is random, 1 its own best), the majority {single[0]:.2f}",
            holds=single[1] < 0,
        ),
        Check(
            claim="the mixture serves both as well as their own rewards from half the answers, told who is who",
            measured=f"{mixture[0]:.2f} and {mixture[1]:.2f} beside {halves[0]:.2f} and {halves[1]:.2f}",
            holds=bool((mixture >= halves - 0.03).all()),
        ),
        Check(
            claim="one choice for all can serve the worse-off group better than random",
            measured=f"{worst[0]:.2f} and {worst[1]:.2f}",
            holds=bool(worst.min() > 0.1),
        ),
        Check(
            claim=f"{TEST_EACH[-1]} answers of each of {ANNOTATORS} tell that there are groups",
            measured=f"found in {told[TEST_EACH[-1], 0.8]:.0%} of {tries} tries at 80:20",
            holds=told[TEST_EACH[-1], 0.8] >= 0.9,
        ),
        Check(
            claim=f"where there are none, some are found in {LEVEL:.0%} of tries at most",
            measured=", ".join(f"{told[each, 1.0]:.0%} at {each} answers" for each in TEST_EACH),
            holds=float(np.mean([told[each, 1.0] for each in TEST_EACH])) <= LEVEL + 2 * np.sqrt(LEVEL / (3 * tries)),
        ),
    ]

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        figure.subplots_adjust(left=0.08, right=0.98, bottom=0.22, wspace=0.25)
        for axes, group, title in ((left, 0, "Served: the majority"), (right, 1, "Served: the minority")):
            for name, colour in zip(names, (ORANGE, BLUE, GREY, GREEN), strict=True):
                points = np.array([mean_and_interval(served_by[share, name][:, group]) for share in SHARES])
                axes.errorbar(SHARES, points[:, 0], points[:, 1], color=colour, marker="o", markersize=4, label=name)
            axes.axhline(0, color=GREY, linewidth=1, linestyle=":")
            set_style(axes, title, "share of the majority", "0 random, 1 own best item")
        figure.legend(*left.get_legend_handles_labels(), loc="lower center", ncols=4, fontsize=8, frameon=False)

    return Finding(
        columns=("majority", "learned by", "majority served", "minority served"), rows=rows, checks=checks, draw=draw
    )


STUDY = Study(
    name="minority",
    question="What does one reward do to a minority, and what tells that there is one?",
    source="Casper et al. 2023; Siththaranjan et al. 2024; Chakraborty et al. 2024",
    run=run,
    repetitions=24,
)

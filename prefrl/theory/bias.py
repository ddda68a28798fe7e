"""Annotators who prefer a side, a length or a style: what a reward makes of it, what finds it and what helps.

What is wanted is accuracy and clarity. An annotator with a bias also prefers what is shown first, what is longer or
what flatters, and a plain reward learns that as if it were wanted: answers alone cannot tell a bias from a wish.
Somebody must say what is not wanted. Then it is a weight like others, tested by the likelihood ratio (Wilks 1938),
estimated along and left out of the reward; or the questions are asked so that it cannot matter: in random order, or
between items that do not differ in it. Not to let the reward see it is no cure where it goes with what is wanted
(Singhal et al. 2023 on length; Park et al. 2024 leave an estimated length out of the reward).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from prefrl.errors import require
from prefrl.runs.plotting import BLUE, GREEN, GREY, ORANGE, PURPLE, set_style
from prefrl.theory.linear import Floats, fit_rankings, sample_rankings
from prefrl.theory.study import Check, Finding, Study, mean_and_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACCURACY, CLARITY, LENGTH, FLATTERY, FIRST = range(5)
WISHES = np.array([1.0, 0.7, 0.0, 0.0, 0.0])
BIASES = {"side": (FIRST, 0.8), "length": (LENGTH, 0.8), "style": (FLATTERY, 1.2)}
"""What an annotator prefers beside what is wanted, and by how many nats."""
GOES_WITH = 0.6  # correlation of length and accuracy among answers that are compared
ANSWERS, NUM_ITEMS = 400, 30
SIZES = (50, 100, 200, 400, 800)
LEVEL, CRITICAL = 0.05, 3.841  # of a chi-squared variable of one degree
RIDGE = 0.1
PLAIN = (ACCURACY, CLARITY, LENGTH, FLATTERY)
ALL = (*PLAIN, FIRST)


@dataclass(frozen=True, kw_only=True)
class Way:
    """How questions are put and a reward is learned from the answers."""

    name: str
    bias: str | None
    """Of the annotator."""
    fitted: tuple[int, ...] = PLAIN
    """Features that the reward is fitted to."""
    left_out: tuple[int, ...] = ()
    """Those of them that do not count when an item is chosen by the reward."""
    longer_first: bool = False
    """The longer of two is shown first; otherwise the order is random."""
    alike: bool = False
    """Only items of the same length are compared."""


WAYS = (
    Way(name="plain", bias=None),
    Way(name="plain, the longer shown first", bias="side", longer_first=True),
    Way(name="side estimated, the longer shown first", bias="side", longer_first=True, fitted=ALL, left_out=(FIRST,)),
    Way(name="plain, random order", bias="side"),
    Way(name="side estimated, random order", bias="side", fitted=ALL, left_out=(FIRST,)),
    Way(name="plain", bias="length"),
    Way(name="hidden from the reward", bias="length", fitted=(ACCURACY, CLARITY, FLATTERY)),
    Way(name="estimated and left out", bias="length", left_out=(LENGTH,)),
    Way(name="pairs of the same length", bias="length", fitted=(ACCURACY, CLARITY, FLATTERY), alike=True),
    Way(name="plain", bias="style"),
    Way(name="hidden from the reward", bias="style", fitted=(ACCURACY, CLARITY, LENGTH)),
    Way(name="estimated and left out", bias="style", left_out=(FLATTERY,)),
)


def weights_of(bias: str | None) -> Floats:
    """Return what an annotator goes by, `(5,)`: the wishes, and the bias beside them."""
    weights = WISHES.copy()
    if bias is not None:
        feature, strength = BIASES[bias]
        weights[feature] = strength
    return weights


def draw_items(shape: tuple[int, ...], rng: np.random.Generator, goes_with: float = GOES_WITH) -> Floats:
    """Return features of items, `(*shape, 5)`; none is shown first yet."""
    items = rng.normal(size=(*shape, 5))
    items[..., LENGTH] = goes_with * items[..., ACCURACY] + np.sqrt(1 - goes_with**2) * items[..., LENGTH]
    items[..., FLATTERY] = rng.integers(2, size=shape)
    items[..., FIRST] = 0.0
    return items


def draw_pairs(num: int, rng: np.random.Generator, *, longer_first: bool = False, alike: bool = False) -> Floats:
    """Return pairs as they are shown, `(num, 2, 5)`, the first of each marked."""
    pairs = draw_items((num, 2), rng)
    if alike:
        pairs[:, 1, LENGTH] = pairs[:, 0, LENGTH]
    if longer_first:
        order = np.argsort(-pairs[:, :, LENGTH], axis=1)
        pairs = np.take_along_axis(pairs, order[:, :, None], axis=1)
    pairs[:, 0, FIRST] = 1.0
    return pairs


def learn(way: Way, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return the weights learned from `ANSWERS` answers, and those by which an item is chosen, `(5,)` each."""
    pairs = draw_pairs(ANSWERS, rng, longer_first=way.longer_first, alike=way.alike)
    ranked = sample_rankings(pairs, weights_of(way.bias), rng)
    learned = np.zeros(len(ALL))
    learned[list(way.fitted)] = fit_rankings(ranked[..., list(way.fitted)], ridge=RIDGE).theta
    chosen_by = learned.copy()
    chosen_by[list(way.left_out)] = 0.0
    return learned, chosen_by


def served(chosen_by: Floats, items: Floats) -> float:
    """Return what the item chosen by these weights is worth: 0 is a random item, 1 the best by what is wanted."""
    values = items @ WISHES
    return float((values[(items @ chosen_by).argmax()] - values.mean()) / (values.max() - values.mean()))


def gain_of(feature: int, ranked: Floats) -> float:
    """Return the likelihood ratio statistic of a feature beside the others: chi-squared of one degree without a bias.

    Args:
        feature: the one that is asked about.
        ranked: `(n, 2, 5)`, the better first.
    """
    without = [one for one in ALL if one != feature]
    full, rest = (fit_rankings(ranked[..., columns], max_norm=20.0) for columns in (list(ALL), without))
    return 2 * max(0.0, full.log_likelihood - rest.log_likelihood)


def expected_power(bias: str, sizes: tuple[int, ...] = SIZES) -> Floats:
    """Return how often theory expects the test to find a bias, `(len(sizes),)`.

    The statistic is noncentral chi-squared with n b^2 / V, b the weight and V its variance times n (Wald 1943).
    """
    rng = np.random.default_rng(0)
    pairs = draw_pairs(100_000, rng)
    pairs[:50_000, :, FIRST] = pairs[:50_000, ::-1, FIRST]
    differences = pairs[:, 0] - pairs[:, 1]
    right = 1.0 / (1.0 + np.exp(-differences @ weights_of(bias)))
    information = (differences * (right * (1 - right))[:, None]).T @ differences / len(differences)
    feature, strength = BIASES[bias]
    shift = strength**2 / np.linalg.inv(information)[feature, feature]
    power: Floats = require("scipy.stats", "train").ncx2.sf(CRITICAL, 1, np.array(sizes) * shift)
    return power


def run(repetitions: int, seed: int) -> Finding:
    """Learn from biased answers by each way, and test for each bias with few and many."""
    worth = np.zeros((len(WAYS), repetitions))
    learned = np.zeros((len(WAYS), repetitions, len(ALL)))
    for number, way in enumerate(WAYS):
        for repetition in range(repetitions):
            items = draw_items((20, NUM_ITEMS), np.random.default_rng([seed, 0, repetition]), goes_with=0.0)
            learned[number, repetition], chosen_by = learn(way, np.random.default_rng([seed, 1, number, repetition]))
            worth[number, repetition] = np.mean([served(chosen_by, one) for one in items])
    found = {(bias, biased): np.zeros(len(SIZES)) for bias in BIASES for biased in (True, False)}
    for place, (bias, biased) in enumerate(found):
        for column, size in enumerate(SIZES):
            streams = (np.random.default_rng([seed, 2, place, column, r]) for r in range(repetitions))
            weights = weights_of(bias if biased else None)
            answers = (sample_rankings(draw_pairs(size, rng), weights, rng) for rng in streams)
            hits = [gain_of(BIASES[bias][0], ranked) > CRITICAL for ranked in answers]
            found[bias, biased][column] = np.mean(hits)
    power = {bias: expected_power(bias) for bias in BIASES}

    rows: list[tuple[str, ...]] = []
    for number, way in enumerate(WAYS):
        cells = [mean_and_interval(learned[number, :, feature]) for feature in ALL]
        told = [f"{mean:.2f} ± {half:.2f}" if one in way.fitted else "" for one, (mean, half) in enumerate(cells)]
        mean, half = mean_and_interval(worth[number])
        rows.append((way.bias or "none", way.name, *told, f"{mean:.3f} ± {half:.3f}"))
    for bias in BIASES:
        shares = ", ".join(f"{share:.0%} of {size}" for share, size in zip(found[bias, True], SIZES, strict=True))
        rows.append((bias, f"test finds it in {shares}", *[""] * (len(ALL) + 1)))

    at = {(way.bias, way.name): number for number, way in enumerate(WAYS)}

    def value(bias: str | None, name: str) -> tuple[float, float]:
        return mean_and_interval(worth[at[bias, name]])

    unbiased = value(None, "plain")
    taken = {bias: mean_and_interval(learned[at[bias, "plain"], :, BIASES[bias][0]]) for bias in ("length", "style")}
    turned = mean_and_interval(learned[at["side", "plain, the longer shown first"], :, LENGTH])
    cures = (
        ("side", "side estimated, the longer shown first"),
        ("side", "plain, random order"),
        ("length", "estimated and left out"),
        ("length", "pairs of the same length"),
        ("style", "estimated and left out"),
    )
    plainly = (("side", "plain, the longer shown first"), ("length", "plain"), ("style", "plain"))
    harm = [value(*way) for way in plainly]
    hidden = learned[at["length", "hidden from the reward"]]
    kept = learned[at["length", "estimated and left out"]]
    ratios = [mean_and_interval(one[:, ACCURACY] / one[:, CLARITY]) for one in (hidden, kept)]
    false_alarms = float(np.mean([found[bias, False] for bias in BIASES]))
    gap = max(float(np.abs(found[bias, True] - power[bias])[1:].mean()) for bias in BIASES)
    checks = [
        Check(
            claim="a plain reward learns a bias as if it were wanted: length by 0.8 nats, flattery by 1.2",
            measured=", ".join(f"{mean:.2f} ± {half:.2f}" for mean, half in taken.values()),
            holds=all(abs(mean - BIASES[bias][1]) < max(0.05, 1.5 * half) for bias, (mean, half) in taken.items()),
        ),
        Check(
            claim="a bias for a side becomes a taste for what is shown there: length, if the longer stands first",
            measured=f"weight of length {turned[0]:.2f} ± {turned[1]:.2f}",
            holds=turned[0] > 0.1 + turned[1],
        ),
        Check(
            claim=f"chosen by it, items are worth less than by unbiased answers, {unbiased[0]:.3f}",
            measured=", ".join(f"{mean:.3f} ± {half:.3f}" for mean, half in harm),
            holds=all(mean + half < unbiased[0] - unbiased[1] for mean, half in harm),
        ),
        Check(
            claim="estimated and left out, or asked so that it cannot matter, it does no harm",
            measured=", ".join(f"{value(*cure)[0]:.3f}" for cure in cures),
            holds=all(value(*cure)[0] > unbiased[0] - 0.02 for cure in cures),
        ),
        Check(
            claim="hidden from the reward, length goes on to count as accuracy, which it goes with",
            measured=f"accuracy is {ratios[0][0]:.2f} ± {ratios[0][1]:.2f} times as important as clarity, estimated "
            f"and left out {ratios[1][0]:.2f} ± {ratios[1][1]:.2f} (true: {WISHES[ACCURACY] / WISHES[CLARITY]:.2f})",
            holds=ratios[0][0] - ratios[0][1] > ratios[1][0] + ratios[1][1],
        ),
        Check(
            claim=f"from {SIZES[1]} answers on the test finds each bias as often as theory says",
            measured=f"mean difference {gap:.3f} at most; "
            + ", ".join(f"{bias} in {found[bias, True][1]:.0%} from {SIZES[1]} answers" for bias in BIASES),
            holds=gap < max(0.03, 0.5 / np.sqrt(repetitions)),
        ),
        Check(
            claim=f"where there is none, it finds one in {LEVEL:.0%}",
            measured=f"{false_alarms:.1%}",
            holds=abs(false_alarms - LEVEL) < max(0.015, 2 * np.sqrt(LEVEL / (len(BIASES) * len(SIZES) * repetitions))),
        ),
    ]

    hidden_style = value("style", "hidden from the reward")
    notes = [
        f"Hidden from the reward, flattery does little harm ({hidden_style[0]:.3f}): it goes with nothing that is "
        "wanted, so that it is only noise. Whether length is a bias or a wish no answer tells; somebody has to say."
    ]

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
        figure.subplots_adjust(left=0.28, right=0.98, bottom=0.14, wspace=0.2)
        names = [f"{way.bias or 'no bias'}: {way.name}" for way in WAYS]
        colour_of = {None: GREY, "side": BLUE, "length": ORANGE, "style": PURPLE}
        for number, way in enumerate(WAYS):
            mean, half = mean_and_interval(worth[number])
            left.errorbar(mean, number, xerr=half, color=colour_of[way.bias], marker="o", markersize=5)
        left.axvline(unbiased[0], color=GREY, linewidth=1, linestyle=":")
        left.set_yticks(range(len(names)), names, fontsize=8)
        left.invert_yaxis()
        set_style(left, "What is chosen is worth", "0 random, 1 the best", "")
        for bias, shape in zip(BIASES, "os^", strict=True):
            right.plot(SIZES, found[bias, True], color=colour_of[bias], marker=shape, linestyle="", label=bias)
            right.plot(SIZES, power[bias], color=colour_of[bias], linestyle="--", linewidth=1)
        none = np.mean([found[bias, False] for bias in BIASES], axis=0)
        right.plot(SIZES, none, color=GREEN, marker="x", linestyle="", label="no bias")
        right.axhline(LEVEL, color=GREEN, linestyle="--", linewidth=1)
        right.set_xscale("log")
        right.set_xticks(SIZES, [str(size) for size in SIZES])
        right.set_xticks([], minor=True)
        set_style(right, "Found by the test; theory dashed", "answers", "share of tries")
        right.legend(fontsize=8, frameon=False)

    columns = ("bias", "learned by", "accuracy", "clarity", "length", "flattery", "shown first", "served")
    return Finding(columns=columns, rows=rows, checks=checks, notes=notes, draw=draw)


STUDY = Study(
    name="bias",
    question="What does a reward make of annotators who prefer a side, a length or a style, and what helps?",
    source="Singhal et al. 2023; Park et al. 2024; Wilks 1938",
    run=run,
    repetitions=200,
)

"""Are the answers good? Consistency, agreement, position bias and time, of each annotator and between them.

Everything is read from the record: comparisons asked twice with their sides swapped tell of consistency, queries that
several annotators answered of agreement, and which side was shown where of a preference for a side. Shares come with
95 % Wilson intervals.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from prefrl.errors import require
from prefrl.feedback import Answer, Comparison, Entry, Strength
from prefrl.shares import Share, share_of, wilson
from prefrl.store import PreferenceStore
from prefrl.store.reading import Outline

TOO_FAST_SECONDS = 0.5
"""Below this nobody has looked at two clips and chosen: the bare choice between two keys takes some 0.3 to 0.4 s."""
MANY_TOO_FAST = 0.1
FEWEST_TO_CALL = 10  # cases, before a share is called chance or worse
FEWEST_TO_JUDGE = 20  # answers, before the way they come is judged
REGULAR_BELOW = 1e-4  # probability that honest answers look so regular
SIDE_ERRORS = 3.29  # standard errors from 1/2
LONGEST_PERIOD = 4  # of a pattern of sides
EVEN_TIMES = 0.1  # standard deviation of times by their mean; people's is 0.3 and more
EXPECTED = "expected.json"
"""File of a run folder that holds how likely its reward finds each answer (`prefrl.studies.expected`)."""
RIGHT_FROM = 0.75  # share of the pairs whose order is known


@dataclass(frozen=True, kw_only=True)
class AnnotatorQuality:
    """What the answers of one annotator look like. None stands for what cannot be told yet."""

    name: str
    kind: str
    num_answers: int
    """Answers that stand, repeats too."""
    num_ties: int
    """Among comparisons."""
    num_cannot_tell: int
    consistency: Share | None
    """Share of comparisons asked twice, with the sides swapped, that were answered the same."""
    chose_left: Share | None
    """Share of decided comparisons in which what was shown at the left was preferred; 1/2 without position bias."""
    agreement: Share | None
    """Share of judgements that others made too, in which they said the same."""
    median_seconds: float | None
    """Per answer."""
    too_fast: Share | None
    """Share of a person's answers that took less than `TOO_FAST_SECONDS`, in which nobody looks and chooses."""
    gold: Share | None
    """Share of questions with known answers to which they said what is known."""
    total_seconds: float = 0.0
    """Of all answers."""
    regular: tuple[str, ...] = ()
    """In which ways a person's answers are more regular than those of somebody who looks."""

    @property
    def is_too_fast(self) -> bool:
        """More than one answer in ten was too fast to have been thought of."""
        return self.too_fast is not None and self.too_fast.low > MANY_TOO_FAST

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to look at before the answers are relied on, in a few words each."""
        found = []
        if self.is_too_fast and self.too_fast is not None:
            found.append(f"too fast: {self.too_fast.share:.0%}")
        found += [f"too regular: {way}" for way in self.regular]
        left = (
            self.chose_left
        )  # one in twenty who look has an interval without 1/2; one in a thousand is so far from it
        if left is not None and 2 * abs(left.share - 0.5) * math.sqrt(left.num) > SIDE_ERRORS:
            found.append(f"prefers a side: {left.share:.0%} left")
        for what, share in (("others", self.agreement), ("what is known", self.gold)):
            if share is not None and share.num >= FEWEST_TO_CALL and share.high < 0.5:
                found.append(f"contradicts {what}: {share.share:.0%} the same")
        for what, share in (("on being asked again", self.consistency), ("what is known", self.gold)):
            if share is not None and share.num >= FEWEST_TO_CALL and share.low < 0.5 <= share.high:
                found.append(f"no better than chance, {what}: {share.share:.0%}")
        return tuple(found)

    @property
    def prefers_a_side(self) -> bool:
        """The interval of `chose_left` leaves out 1/2."""
        return self.chose_left is not None and not self.chose_left.low <= 0.5 <= self.chose_left.high


@dataclass(frozen=True, kw_only=True)
class PairQuality:
    """How far two annotators agree on what both judged."""

    first: str
    second: str
    agreement: Share
    alpha: float | None
    """Krippendorff's alpha of comparisons (and pairs of rankings): 1 perfect, 0 chance."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What the answers of a record look like."""

    annotators: tuple[AnnotatorQuality, ...]
    pairs: tuple[PairQuality, ...]
    """Of annotators that judged something together."""
    alpha_comparisons: float | None
    """Krippendorff's alpha between all annotators over comparisons and pairs of rankings, nominal."""
    alpha_ratings: float | None
    """Over ratings, ordinal."""
    seconds: Mapping[str, tuple[float, ...]]
    """Time of every answer, by annotator."""

    @property
    def anything_known(self) -> bool:
        """There is more to tell of somebody than the number of answers."""
        return any(one.consistency or one.agreement or one.chose_left for one in self.annotators)

    def to_json(self) -> dict[str, Any]:
        """Return everything but the single times as JSON values."""
        values = asdict(self)
        del values["seconds"]
        for one, told in zip(self.annotators, values["annotators"], strict=True):
            told["warnings"] = list(one.warnings)
        return values


def same_judgement(known: Answer, said: Answer) -> bool:
    """Tell whether an answer says what is known: a grade within a point, three quarters of what is said of pairs."""
    if known.value is None or said.value is None or type(known) is not type(said):
        return False
    if known.graded:
        return abs(known.value - said.value) <= 1
    num_items = len(said.shown or known.shown or (0, 1))
    pairs = {(i, j): value for i, j, value in said.pairs(num_items)}
    agreed = [1 - abs(value - pairs.get((i, j), 0.5)) for i, j, value in known.pairs(num_items) if value != 0.5]
    return sum(agreed) >= RIGHT_FROM * len(agreed)


def measure_quality(store: PreferenceStore, standing: Sequence[tuple[int, Entry]] | None = None) -> Quality:
    """Measure the answers that stand in a record.

    Args:
        store: the record.
        standing: its `answers(standing=True)`, where they have been read.
    """
    rows = store.answers(standing=True) if standing is None else standing
    answers = [answer for _, answer in rows if isinstance(answer, Answer)]
    given: dict[str, list[Answer]] = {}
    for answer in answers:
        given.setdefault(answer.annotator, []).append(answer)
    again, kinds = store.asked_again(), store.annotators()
    several = _answered_by_several(answers, again)
    outlines = store.outlines([answer.query_id for answer in several])
    judgements, ratings = _judgements(several, outlines), _ratings(several, outlines)
    shared = _shared(judgements)
    known_by = store.facts().get("known_by")
    gold = {name: store.known_answers(name, known_by) if known_by else [] for name in given}
    names = sorted(given)
    return Quality(
        annotators=tuple(_annotator(n, kinds[n], given[n], again, shared, gold[n]) for n in names),
        pairs=tuple(_pairs(shared)),
        alpha_comparisons=krippendorff_alpha(judgements.values(), "nominal"),
        alpha_ratings=krippendorff_alpha(ratings.values(), "ordinal"),
        seconds={name: tuple(answer.seconds for answer in given[name]) for name in names},
    )


def _answered_by_several(answers: Sequence[Answer], again: Mapping[str, str | None]) -> list[Answer]:
    """Return the answers to queries that several annotators answered, without those to what was asked again."""
    first: dict[str, str] = {}
    several = {a.query_id for a in answers if first.setdefault(a.query_id, a.annotator) != a.annotator}
    several -= {query_id for query_id, original in again.items() if original is not None}
    return [answer for answer in answers if answer.query_id in several] if several else []


def duels(store: PreferenceStore) -> Share | None:
    """Return in how many duels of before training against after what came after was preferred; a tie counts half.

    None: nobody has answered one. They are the comparisons of `JUDGING_SESSION`; the first item of each was before.
    """
    judged = [a.preference for a in store.judgements() if isinstance(a, Comparison) and a.preference is not None]
    return wilson(sum(1 - preference for preference in judged), len(judged))


Unit = dict[str, float]
"""What each annotator said of one thing, by name."""


def krippendorff_alpha(units: Iterable[Unit], level: str) -> float | None:
    """Return Krippendorff's alpha; None where nobody judged what another did, or all said the same of everything.

    Args:
        units: things that were judged.
        level: "nominal" or "ordinal".
    """
    several = [unit for unit in units if len(unit) > 1]
    names = list(dict.fromkeys(name for unit in several for name in unit))
    values = np.array([[unit.get(name, np.nan) for unit in several] for name in names])
    if len({value for unit in several for value in unit.values()}) < 2:
        return None
    return float(require("krippendorff", "train").alpha(reliability_data=values, level_of_measurement=level))


def _judgements(answers: Sequence[Answer], outlines: Mapping[str, Outline]) -> dict[Any, Unit]:
    """Return who said what of each pair of a query: 1: the first is better."""
    units: dict[Any, Unit] = {}
    for answer in answers:
        for i, j, preference in answer.pairs(outlines[answer.query_id].num_items):
            units.setdefault((answer.query_id, i, j), {})[answer.annotator] = preference
    return units


def _ratings(answers: Sequence[Answer], outlines: Mapping[str, Outline]) -> dict[Any, Unit]:
    """Return who gave which grade, in shares of the scale."""
    units: dict[Any, Unit] = {}
    for answer in answers:
        scale = outlines[answer.query_id].scale
        share = None if scale is None else answer.share_of_scale(scale)
        if share is not None:
            units.setdefault(answer.query_id, {})[answer.annotator] = share
    return units


def _shared(units: Mapping[Any, Unit]) -> dict[tuple[str, str], list[Unit]]:
    """Return what each two annotators both judged."""
    shared: dict[tuple[str, str], list[Unit]] = {}
    for unit in units.values():
        for first, second in itertools.combinations(sorted(unit), 2):
            shared.setdefault((first, second), []).append({first: unit[first], second: unit[second]})
    return dict(sorted(shared.items()))


def _pairs(shared: Mapping[tuple[str, str], Sequence[Unit]]) -> Iterable[PairQuality]:
    for (first, second), units in shared.items():
        agreement = share_of([unit[first] == unit[second] for unit in units])
        assert agreement is not None
        alpha = krippendorff_alpha(units, "nominal")
        yield PairQuality(first=first, second=second, agreement=agreement, alpha=alpha)


def _annotator(
    name: str,
    kind: str,
    mine: Sequence[Answer],
    again: Mapping[str, str | None],
    shared: Mapping[tuple[str, str], Sequence[Unit]],
    gold: Sequence[tuple[Answer, Answer]],
) -> AnnotatorQuality:
    compared = [(answer, _preferred(answer)) for answer in mine if isinstance(answer, Comparison | Strength)]
    said = {answer.query_id: preference for answer, preference in compared}
    twice = []
    for query_id, preference in said.items():
        before = said.get(again.get(query_id) or "")
        if before is not None and preference is not None:
            twice.append(before == preference)
    left = [preferred == (a.shown[0] == 0) for a, preferred in compared if a.shown and preferred in (0.0, 1.0)]
    same = [
        unit[one] == unit[other] for (one, other), units in shared.items() if name in (one, other) for unit in units
    ]
    seconds = [answer.seconds for answer in mine if answer.seconds > 0]
    return AnnotatorQuality(
        name=name,
        kind=kind,
        num_answers=len(mine),
        num_ties=sum(preferred == 0.5 for _, preferred in compared),
        num_cannot_tell=sum(answer.value is None for answer in mine),
        consistency=share_of(twice),
        chose_left=share_of(left),
        agreement=share_of(same),
        median_seconds=float(np.median(seconds)) if seconds else None,
        total_seconds=float(sum(seconds)),
        too_fast=share_of([time < TOO_FAST_SECONDS for time in seconds]) if kind == "person" else None,
        gold=share_of([same_judgement(known, given) for known, given in gold]),
        regular=regularities(left, seconds) if kind == "person" else (),
    )


def _preferred(answer: Answer) -> float | None:
    """Return the probability that the first of two is better: 1, 0 or 1/2; None: can't tell."""
    pairs = answer.pairs(2)
    return pairs[0][2] if pairs else None


def regularities(left: Sequence[bool], seconds: Sequence[float]) -> tuple[str, ...]:
    """Return in which ways answers are more regular than chance lets those of somebody who looks be, in words.

    Which side the better one is on is drawn anew for each question, so that the sides chosen follow no pattern: for
    each period, whether the side is that of so many answers before is a fair coin.

    Args:
        left: of each decided comparison in order, whether what was shown at the left was preferred.
        seconds: that each answer took.
    """
    found = []
    if len(left) >= FEWEST_TO_JUDGE:
        for period in range(1, LONGEST_PERIOD + 1):
            same = [a == b for a, b in zip(left[period:], left, strict=False)]
            unlikely = require("scipy.stats", "train").binomtest(sum(same), len(same)).pvalue < REGULAR_BELOW
            if unlikely and 2 * sum(same) > len(same):
                found.append("the same side again and again" if period == 1 else f"sides with a period of {period}")
                break
            if unlikely and period == 1:
                found.append("sides in turn")
                break
    if len(seconds) >= FEWEST_TO_JUDGE and np.std(seconds) < EVEN_TIMES * np.mean(seconds):
        found.append(f"every {np.mean(seconds):.1f} s")
    return tuple(found)

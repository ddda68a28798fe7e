"""Which pairs of segments to ask about: `propose_pairs` draws candidates, a method of `METHODS` chooses among them."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

import numpy as np

from prefrl.errors import UserError
from prefrl.history import History
from prefrl.queries.methods import METHODS, Pair, QueryMethod, SegmentScorer, Uniform
from prefrl.queries.scores import Floats
from prefrl.queries.screen import Screen
from prefrl.segments import Segment

_MAX_ROUNDS = 50  # of drawing more pairs where those drawn had been asked before
_PAIRS_PER_ROUND = 64  # at least, after the first round
_MANY_ENDS = 10  # fewer are not shown as often as `end_share` says, lest the reward be about these few alone


def propose_pairs(
    history: History | None,
    ensemble: SegmentScorer | None,
    num: int,
    *,
    length: int,
    method: str | QueryMethod,
    rng: np.random.Generator,
    candidates_per_query: int = 10,
    asked: Container[frozenset[str]] = frozenset(),
    asked_embeddings: Floats | None = None,
    last_steps: int | None = None,
    recent_share: float = 1.0,
    end_share: float = 0.0,
    segments: Sequence[Segment] | None = None,
    fewer: bool = False,
    screen: Screen | None = None,
) -> list[Pair]:
    """Choose `num` pairs of segments to ask about, none of them asked before.

    Pairs of windows are drawn uniformly; those asked before in either order, drawn twice, or of a segment with itself
    are dropped. Of `candidates_per_query` x `num` such candidates the best by `method` are kept (10 times as many:
    Christiano et al. 2017, s. 2.2.4). The hybrids first keep the half of the candidates that is least sure, then choose
    by k-center among these, as B-Pref does. Where the history has fewer new pairs than candidates are wanted, those it
    has are the candidates.

    Args:
        history: where windows are drawn from; None only with `segments`.
        ensemble: the reward ensemble; None (nothing fitted yet) draws uniformly whatever the method.
        num: how many pairs.
        length: steps per segment.
        method: one of `METHODS` or of your own, by name, or a function that chooses (see `QueryMethod`).
        rng: source of randomness.
        candidates_per_query: candidates drawn for each pair wanted.
        asked: pairs of segment names asked before (`Query.pair`).
        asked_embeddings: `(A, 2 F)`: `pair_embeddings` of pairs asked before, the first centres for k-center.
        last_steps: draw windows that began within this many most recent environment steps; None: all that are kept.
        recent_share: with `last_steps`, the share of windows drawn from there; the others come from all that are kept.
        end_share: share of windows drawn from those that show an end (a termination, or one that the fixed-horizon form
            hides), where there are any: without them most pairs of a sparse task tie. Where the history has fewer than
            ten ends, a tenth of this share for each.
        segments: draw from these segments instead of windows of the history.
        fewer: where there are too few pairs that were not asked before, return those there are.
        screen: drops candidates that could hardly be told apart; so many more are drawn that there are as many to
            choose from. None: all are candidates.

    Returns:
        `num` different pairs, the most wanted first; with `fewer` perhaps not so many.

    Raises:
        UserError: an unknown method, a number out of range, disagreement of an ensemble of one, no episode that
            is long enough, or too few pairs that were not asked before (without `fewer`).
    """
    choose = METHODS.find(method)
    if num < 0:
        raise UserError(f"num must not be negative. Received {num}")
    if candidates_per_query < 1:
        raise UserError(f"candidates_per_query must be at least 1. Received {candidates_per_query}")
    if num == 0:
        return []
    for name, share in (("recent_share", recent_share), ("end_share", end_share)):
        if not 0 <= share <= 1:
            raise UserError(f"{name} must be in [0, 1]. Received {share}")
    uniform = ensemble is None or isinstance(choose, Uniform)
    wanted = num if uniform else num * candidates_per_query

    def draw(how_many: int) -> Sequence[Segment]:
        if segments is not None:
            return [segments[index] for index in rng.integers(len(segments), size=how_many)] if segments else []
        if history is None:
            raise UserError("There is nothing to draw pairs from: give a history or segments.")
        share = end_share * min(1.0, history.num_ends / _MANY_ENDS)
        drawn = history.sample_ends(int(rng.binomial(how_many, share)), length, rng)
        if last_steps is not None and history.num_windows(length, last_steps) > 0:
            num_recent = int(rng.binomial(how_many - len(drawn), recent_share))
            drawn += history.sample(num_recent, length, rng, last_steps=last_steps)
        drawn += history.sample(how_many - len(drawn), length, rng)
        return [drawn[index] for index in rng.permutation(how_many)]

    drawn = wanted if screen is None else screen.num_to_draw(wanted, fitted=ensemble is not None)
    pairs = _draw_new_pairs(draw, drawn, asked)
    if fewer:
        num = min(num, len(pairs))
    if len(pairs) < num:
        raise UserError(
            f"Found only {len(pairs)} of {num} different pairs of {length}-step segments that were not asked before. "
            "Let the agent make more steps before it asks, ask for fewer labels at a time, or use shorter segments."
        )
    if screen is not None:
        pairs = screen.keep(pairs, num, ensemble)[:wanted]
    if ensemble is None or uniform or not pairs:
        return pairs
    return [pairs[index] for index in choose(pairs, ensemble, num, asked_embeddings)]


def _draw_new_pairs(
    draw: Callable[[int], Sequence[Segment]], wanted: int, asked: Container[frozenset[str]]
) -> list[Pair]:
    """Draw up to `wanted` different pairs that are not in `asked`; fewer if a bounded number of tries yields fewer."""
    pairs: list[Pair] = []
    seen: set[frozenset[str]] = set()
    for attempt in range(_MAX_ROUNDS):
        missing = wanted - len(pairs)
        if missing == 0:
            break
        how_many = missing if attempt == 0 else max(missing, _PAIRS_PER_ROUND)
        drawn = draw(2 * how_many)
        for first, second in zip(drawn[:how_many], drawn[how_many:], strict=True):
            name = frozenset((first.id, second.id))
            if len(name) == 2 and name not in seen and name not in asked and len(pairs) < wanted:
                seen.add(name)
                pairs.append((first, second))
    return pairs

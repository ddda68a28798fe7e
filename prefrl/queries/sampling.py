"""Which pairs of segments to ask about.

Six methods, as in B-Pref (Lee et al. 2021, s. 4): uniform; disagreement (Christiano et al. 2017, s. 2.2.4) and entropy,
which keep the candidates that the reward ensemble is least sure of; k-center, which keeps candidates unlike each other
and unlike the pairs asked before; and the two of k-center with an uncertainty. `propose_pairs` draws the
candidates, the pure functions `disagreement`, `entropy` and `k_center` choose among them.

Choosing by uncertainty can do worse than drawing uniformly on some tasks (Christiano et al. 2017, s. 3.3).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from prefrl.errors import UserError, near_names
from prefrl.history import History
from prefrl.segments import Segment
from prefrl.spaces import num_bytes

METHODS = ("uniform", "disagreement", "entropy", "k-center", "k-center+disagreement", "k-center+entropy")

Pair = tuple[Segment, Segment]
Floats = NDArray[np.floating]

_MAX_ROUNDS = 50  # of drawing more pairs where those drawn had been asked before
_PAIRS_PER_ROUND = 64  # at least, after the first round
_MAX_BLOCK = 1 << 22  # distances held at once
_MANY_ENDS = 10  # fewer are not shown as often as `end_share` says, lest the reward be about these few alone
_MAX_CHUNK_BYTES = 1 << 26  # observations handed to the ensemble at once


class SegmentScorer(Protocol):
    """What choosing by uncertainty or distance needs of a reward ensemble."""

    def segment_returns(self, segments: list[Segment]) -> NDArray[np.float32]:
        """Return each of M members' summed reward of N segments: `(M, N)`."""

    def segment_embeddings(self, segments: list[Segment]) -> NDArray[np.float32]:
        """Return features of N segments in which distance means difference: `(N, F)`."""


def check_method(method: str) -> None:
    """Raise `UserError`, offering near names, unless `method` is one of `METHODS`."""
    if method not in METHODS:
        raise UserError(
            f"There is no way of choosing queries called {method!r}; choose one of {', '.join(METHODS)}."
            + near_names(method, METHODS)
        )


def disagreement(returns_first: Floats, returns_second: Floats) -> NDArray[np.float64]:
    """Variance over members of the predicted preference (Christiano et al. 2017, s. 2.2.4).

    Args:
        returns_first: `(M, C)` float: each member's summed reward of the first segments.
        returns_second: `(M, C)` float: of the second.

    Returns:
        `(C,)` float64 in [0, 1/4]; the same with the segments swapped.
    """
    variance: NDArray[np.float64] = _preferences(returns_first, returns_second).var(axis=0)
    return variance


def entropy(returns_first: Floats, returns_second: Floats) -> NDArray[np.float64]:
    """Entropy of the ensemble's predicted preference, the mean over its members.

    B-Pref's text speaks of the entropy of the predicted preference; its code averages the members' entropies, which
    overlooks pairs on which members are sure and contradict each other. The ensemble's prediction is the mean,
    so its entropy is taken.

    Args:
        returns_first: `(M, C)` float: each member's summed reward of the first segments.
        returns_second: `(M, C)` float: of the second.

    Returns:
        `(C,)` float64 in [0, log 2], in nats.
    """
    first = _preferences(returns_first, returns_second).mean(axis=0)
    second = _preferences(returns_second, returns_first).mean(axis=0)  # not 1 - first: exact where that rounds to 0
    return _minus_p_log_p(first) + _minus_p_log_p(second)


def _preferences(returns_first: Floats, returns_second: Floats) -> NDArray[np.float64]:
    logits = np.asarray(returns_first, np.float64) - np.asarray(returns_second, np.float64)
    smaller = np.exp(-np.abs(logits))  # cannot overflow
    preferences: NDArray[np.float64] = np.where(logits >= 0, 1.0, smaller) / (1.0 + smaller)
    return preferences


def _minus_p_log_p(p: NDArray[np.float64]) -> NDArray[np.float64]:
    return -p * np.log(p, out=np.zeros_like(p), where=p > 0)


def k_center(candidates: Floats, centers: Floats | None, num: int) -> NDArray[np.int64]:
    """Choose points greedily, each the farthest from all centres and all points chosen before it.

    The greedy k-center of B-Pref (Lee et al. 2021); ties go to the earlier candidate. Without centres the first choice
    is the candidate nearest to the mean of all, so that it is not an outlier.

    Args:
        candidates: `(C, F)` float.
        centers: `(A, F)` float, or None for none.
        num: how many to choose, at most C.

    Returns:
        `(num,)` int64: indices of different candidates, in the order they were chosen.

    Raises:
        UserError: more points asked for than there are.
    """
    candidates = np.asarray(candidates)
    if candidates.dtype.kind != "f":
        candidates = candidates.astype(np.float64)
    if not 0 <= num <= len(candidates):
        raise UserError(f"num must be from 0 to the number of candidates, {len(candidates)}. Received {num}")
    chosen = np.empty(num, np.int64)
    if num == 0:
        return chosen
    norms = _squared_norms(candidates)
    begin = 0
    if centers is None or len(centers) == 0:
        chosen[0] = np.argmin(_to_nearest(candidates, norms, candidates.mean(axis=0, keepdims=True)))
        begin, centers = 1, candidates[chosen[:1]]
    distances = _to_nearest(candidates, norms, np.asarray(centers, candidates.dtype))
    distances[chosen[:begin]] = -np.inf
    for index in range(begin, num):
        chosen[index] = best = np.argmax(distances)
        distances = np.minimum(distances, _to_nearest(candidates, norms, candidates[best : best + 1]))
        distances[best] = -np.inf
    return chosen


def _squared_norms(points: Floats) -> Floats:
    norms: Floats = np.einsum("nf,nf->n", points, points)
    return norms


def _to_nearest(candidates: Floats, norms: Floats, centers: Floats) -> Floats:
    """Return the squared distance of each candidate to its nearest centre `(C,)`."""
    nearest = np.full(len(candidates), np.inf, norms.dtype)
    rows = max(1, _MAX_BLOCK // len(candidates))
    for begin in range(0, len(centers), rows):
        block = centers[begin : begin + rows]
        squared = norms[:, None] + _squared_norms(block) - 2 * (candidates @ block.T)
        nearest = np.minimum(nearest, squared.min(axis=1))
    return np.maximum(nearest, 0)  # rounding may leave it just below


def pair_embeddings(ensemble: SegmentScorer, pairs: Sequence[Pair]) -> NDArray[np.float32]:
    """Return the features of C pairs for k-center `(C, 2 F)`: those of the first segment, then of the second."""
    both = [_in_chunks(ensemble.segment_embeddings, [pair[side] for pair in pairs], axis=0) for side in (0, 1)]
    return np.concatenate(both, axis=1)


def propose_pairs(
    history: History | None,
    ensemble: SegmentScorer | None,
    num: int,
    *,
    length: int,
    method: str,
    rng: np.random.Generator,
    candidates_per_query: int = 10,
    asked: Collection[frozenset[str]] = frozenset(),
    asked_embeddings: Floats | None = None,
    last_steps: int | None = None,
    recent_share: float = 1.0,
    end_share: float = 0.0,
    segments: Sequence[Segment] | None = None,
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
        method: one of `METHODS`.
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

    Returns:
        `num` different pairs, the most wanted first.

    Raises:
        UserError: an unknown method, a number out of range, disagreement of an ensemble of one, no episode that
            is long enough, or too few pairs that were not asked before.
    """
    check_method(method)
    if num < 0:
        raise UserError(f"num must not be negative. Received {num}")
    if candidates_per_query < 1:
        raise UserError(f"candidates_per_query must be at least 1. Received {candidates_per_query}")
    if num == 0:
        return []
    for name, share in (("recent_share", recent_share), ("end_share", end_share)):
        if not 0 <= share <= 1:
            raise UserError(f"{name} must be in [0, 1]. Received {share}")
    uniform = ensemble is None or method == "uniform"
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

    pairs = _draw_new_pairs(draw, wanted, asked)
    if len(pairs) < num:
        raise UserError(
            f"Found only {len(pairs)} of {num} different pairs of {length}-step segments that were not asked before. "
            "Let the agent make more steps before it asks, ask for fewer labels at a time, or use shorter segments."
        )
    if ensemble is None or uniform:
        return pairs
    return [pairs[index] for index in _choose(pairs, ensemble, num, method, asked_embeddings)]


def _draw_new_pairs(
    draw: Callable[[int], Sequence[Segment]], wanted: int, asked: Collection[frozenset[str]]
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


def _choose(
    pairs: list[Pair], ensemble: SegmentScorer, num: int, method: str, centers: Floats | None
) -> NDArray[np.int64]:
    """Return the indices of the `num` best pairs by a method other than uniform."""
    acquisition = method.removeprefix("k-center+")
    kept = np.arange(len(pairs))
    if acquisition != "k-center":
        first, second = (_in_chunks(ensemble.segment_returns, [p[side] for p in pairs], axis=1) for side in (0, 1))
        if acquisition == "disagreement" and len(first) < 2:
            raise UserError(
                "Disagreement needs an ensemble of at least 2 members; this one has 1. "
                "Use more members, or choose queries by uniform or entropy."
            )
        scores = disagreement(first, second) if acquisition == "disagreement" else entropy(first, second)
        kept = np.argsort(-scores, kind="stable")  # equal scores keep the random order of drawing
        if method == acquisition:
            return kept[:num]
        kept = kept[: max(num, len(pairs) // 2)]
    embeddings = pair_embeddings(ensemble, [pairs[index] for index in kept])
    return kept[k_center(embeddings, centers, num)]


def _in_chunks(
    function: Callable[[list[Segment]], NDArray[np.float32]], segments: list[Segment], axis: int
) -> NDArray[np.float32]:
    """Apply `function` to parts of `segments`, so that stacked images never lie in memory all at once."""
    size = max(1, _MAX_CHUNK_BYTES // max(1, num_bytes(segments[0].observations)))
    parts = [function(segments[begin : begin + size]) for begin in range(0, len(segments), size)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=axis)

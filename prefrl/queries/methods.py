"""Ways of choosing which pairs to ask about, by name.

Six of them, as in B-Pref (Lee et al. 2021, s. 4): uniform; disagreement and entropy, which keep the candidates that the
reward ensemble is least sure of; k-center, which keeps candidates unlike each other and unlike the pairs asked before;
and the two of k-center with an uncertainty. A user's own is a function, see `QueryMethod`.

Choosing by uncertainty can do worse than drawing uniformly on some tasks (Christiano et al. 2017, s. 3.3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from prefrl.errors import UserError
from prefrl.queries.scores import Floats, disagreement, entropy, k_center
from prefrl.seams import Registry, check_call
from prefrl.segments import Segment
from prefrl.spaces import num_bytes

Pair = tuple[Segment, Segment]

_MAX_CHUNK_BYTES = 1 << 26  # observations handed to the ensemble at once


class SegmentScorer(Protocol):
    """What choosing by uncertainty or distance needs of a reward ensemble."""

    def segment_returns(self, segments: list[Segment]) -> NDArray[np.float32]:
        """Return each of M members' summed reward of N segments: `(M, N)`."""

    def segment_embeddings(self, segments: list[Segment]) -> NDArray[np.float32]:
        """Return features of N segments in which distance means difference: `(N, F)`."""


class QueryMethod(Protocol):
    """A function that chooses among candidate pairs."""

    def __call__(
        self, pairs: Sequence[Pair], ensemble: SegmentScorer, num: int, asked: Floats | None
    ) -> Sequence[int] | NDArray[np.integer[Any]]:
        """Return the indices of `num` different pairs, the most wanted first.

        Args:
            pairs: C candidates, at least `num`, none of them asked before, in random order.
            ensemble: the reward ensemble, fitted.
            num: how many to choose.
            asked: `(A, 2 F)`: `pair_embeddings` of the pairs asked before; None where there are none.
        """


ONE_MEMBER = (
    "Disagreement needs an ensemble of at least 2 members; this one has 1. Use more members, or choose queries by "
    "uniform or entropy."
)


@dataclass(frozen=True)
class Uniform:
    """Takes candidates as they were drawn; so no more are drawn than are wanted."""

    def __call__(
        self, pairs: Sequence[Pair], ensemble: SegmentScorer, num: int, asked: Floats | None
    ) -> NDArray[np.int64]:
        """Return the first indices; see `QueryMethod`."""
        return np.arange(num)


@dataclass(frozen=True)
class LeastSure:
    """Keeps the candidates of the highest score.

    Args:
        score: of the members' summed rewards of the first and of the second segments, `(M, C)` each.
    """

    score: Callable[[Floats, Floats], NDArray[np.float64]]

    def order(self, pairs: Sequence[Pair], ensemble: SegmentScorer) -> NDArray[np.int64]:
        """Return all indices, those of the highest scores first; equal scores keep the order of drawing.

        Raises:
            UserError: disagreement of an ensemble of one.
        """
        first, second = returns_of_both(ensemble, pairs)
        if self.score is disagreement and len(first) < 2:
            raise UserError(ONE_MEMBER)
        return np.argsort(-self.score(first, second), kind="stable")

    def __call__(
        self, pairs: Sequence[Pair], ensemble: SegmentScorer, num: int, asked: Floats | None
    ) -> NDArray[np.int64]:
        """Return the indices of the highest scores; see `QueryMethod`."""
        return self.order(pairs, ensemble)[:num]


@dataclass(frozen=True)
class FarApart:
    """Keeps candidates far from each other and from what was asked, by k-center.

    Args:
        among: first leave only the half that this one is least sure of, as B-Pref does.
    """

    among: LeastSure | None = None

    def __call__(
        self, pairs: Sequence[Pair], ensemble: SegmentScorer, num: int, asked: Floats | None
    ) -> NDArray[np.int64]:
        """Return indices of candidates far apart; see `QueryMethod`."""
        kept = np.arange(len(pairs))
        if self.among is not None:
            kept = self.among.order(pairs, ensemble)[: max(num, len(pairs) // 2)]
        embeddings = pair_embeddings(ensemble, [pairs[int(index)] for index in kept])
        return kept[k_center(embeddings, asked, num)]


def pair_embeddings(ensemble: SegmentScorer, pairs: Sequence[Pair]) -> NDArray[np.float32]:
    """Return the features of C pairs for k-center `(C, 2 F)`: those of the first segment, then of the second."""
    both = [_in_chunks(ensemble.segment_embeddings, [pair[side] for pair in pairs], axis=0) for side in (0, 1)]
    return np.concatenate(both, axis=1)


def returns_of_both(ensemble: SegmentScorer, pairs: Sequence[Pair]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the members' summed rewards of the first and of the second segments of C pairs: `(M, C)` each."""
    first, second = (_in_chunks(ensemble.segment_returns, [p[side] for p in pairs], axis=1) for side in (0, 1))
    return first, second


def _in_chunks(
    function: Callable[[list[Segment]], NDArray[np.float32]], segments: list[Segment], axis: int
) -> NDArray[np.float32]:
    """Apply `function` to parts of `segments`, so that stacked images never lie in memory all at once."""
    size = max(1, _MAX_CHUNK_BYTES // max(1, num_bytes(segments[0].observations)))
    parts = [function(segments[begin : begin + size]) for begin in range(0, len(segments), size)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=axis)


def _adopt(thing: Any, where: str) -> QueryMethod:
    check_call(thing, where, ("pairs", "ensemble", "num", "asked"))

    def choose(pairs: Sequence[Pair], ensemble: SegmentScorer, num: int, asked: Floats | None) -> NDArray[np.int64]:
        chosen = np.asarray(thing(pairs, ensemble, num, asked))
        wanted = f"expected {num} different indices below {len(pairs)}"
        if chosen.shape != (num,) or chosen.dtype.kind not in "iu":
            raise UserError(f"The {where} returned {chosen.dtype} of shape {chosen.shape}; {wanted}.")
        if len(set(chosen.tolist())) < num or not ((chosen >= 0) & (chosen < len(pairs))).all():
            raise UserError(f"The {where} returned {chosen.tolist()[:20]}; {wanted}.")
        return chosen.astype(np.int64)

    return choose


def check_members(method: QueryMethod, num_members: int) -> None:
    """Check that a method can choose by an ensemble of so many members.

    Raises:
        UserError: disagreement of an ensemble of one.
    """
    least_sure = method.among if isinstance(method, FarApart) else method
    if num_members < 2 and isinstance(least_sure, LeastSure) and least_sure.score is disagreement:
        raise UserError(ONE_MEMBER)


def reads_asked(method: QueryMethod) -> bool:
    """Return whether a method may look at the pairs asked before."""
    return not isinstance(method, Uniform | LeastSure)


_DISAGREEMENT, _ENTROPY = LeastSure(disagreement), LeastSure(entropy)
METHODS: Registry[QueryMethod] = Registry(
    "query method",
    {
        "uniform": Uniform(),
        "disagreement": _DISAGREEMENT,
        "entropy": _ENTROPY,
        "k-center": FarApart(),
        "k-center+disagreement": FarApart(_DISAGREEMENT),
        "k-center+entropy": FarApart(_ENTROPY),
    },
    _adopt,
)
"""Every way of choosing that settings can name."""

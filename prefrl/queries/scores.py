"""How much an answer about a pair of segments would tell: scores of candidates, as pure functions.

`disagreement` (Christiano et al. 2017, s. 2.2.4) and `entropy` say how little sure an ensemble is, `k_center` finds
candidates unlike each other and unlike what was asked before (Lee et al. 2021, s. 4).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prefrl.errors import UserError

Floats = NDArray[np.floating]

_MAX_BLOCK = 1 << 22  # distances held at once


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

"""Best of n: draw n responses, keep the one that a reward likes best. The baseline that needs no training.

KL(best of n || one) = log n - (n - 1) / n (Stiennon et al. 2020, app. G.3), in nats, if no two responses tie.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from prefrl.errors import UserError


def best_of_n_kl(n: int) -> float:
    """Return log n - (n - 1) / n, in nats."""
    return math.log(n) - (n - 1) / n


def expected_best_of_n(proxy: NDArray[np.float64], value: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Return the expected value of the response that the proxy picks from n, over all subsets of n of those drawn.

    Unbiased for every n up to N, from one set of N draws (Nakano et al. 2021, app. I).

    Args:
        proxy: `(P, N)` what picks, for P prompts with N responses each.
        value: `(P, N)` what is counted, e.g. the gold reward, or the proxy itself.
        n: at most N.

    Returns:
        `(P,)` float64.

    Raises:
        UserError: n outside [1, N].
    """
    drawn = proxy.shape[1]
    if not 1 <= n <= drawn:
        raise UserError(f"n must lie in [1, {drawn}], the responses drawn. Received {n}")
    order = np.argsort(proxy, axis=1, kind="stable")
    ranked = np.take_along_axis(value, order, 1)
    # The response of rank i (from 0) is the best of a subset if the other n - 1 come from the i below it.
    below = np.arange(drawn)
    log_weight = np.full(drawn, -np.inf)
    possible = below >= n - 1
    log_weight[possible] = [_log_choose(int(i), n - 1) - _log_choose(drawn, n) for i in below[possible]]
    return np.asarray((ranked * np.exp(log_weight)).sum(1), np.float64)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def pick_best(texts: Sequence[Sequence[str]], scores: NDArray[np.float64]) -> list[str]:
    """Return for each prompt the response with the highest score `(P, N)`."""
    return [row[int(best)] for row, best in zip(texts, scores.argmax(1), strict=True)]

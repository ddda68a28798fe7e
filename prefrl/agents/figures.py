"""What agents tell of their updates: names, meanings, and what a run's last updates came to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FIGURES: Mapping[str, str] = {
    "policy_loss": "loss of the policy: the clipped surrogate (PPO), minus advantage times log-probability (A2C)",
    "value_loss": "mean squared error of the values against the returns",
    "approx_kl": "how far the update moved the policy, in nats",
    "clip_share": "share of the steps whose probability ratio lies outside the clip range",
    "entropy": "mean entropy of the policy, in nats",
    "explained_variance": "1 - Var(returns - values) / Var(returns) of the values before the update",
    "critic_loss": "loss of the critics (DQN: of its one network)",
    "actor_loss": "loss of the actor",
    "alpha": "weight of the entropy (SAC)",
}
"""The figures of an update by the names under which metrics hold them; an agent tells those that it has."""

LAST_SHARE = 0.1  # of a run's updates, over which a summary averages


def explained_variance(values: NDArray[np.floating], returns: NDArray[np.floating]) -> float:
    """Return 1 - Var(returns - values) / Var(returns).

    It is 1 where values are perfect, 0 where they are no better than a constant, NaN where all returns are equal.

    Args:
        values: `(B,)`.
        returns: `(B,)`.
    """
    total = float(np.var(returns))
    return 1 - float(np.var(returns - values)) / total if total > 0 else math.nan


def last_figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return each figure's mean over the last tenth of the rows of metrics, at least one; none that is missing."""
    last = rows[-max(1, round(LAST_SHARE * len(rows))) :]
    told = {name: [row[name] for row in last if row.get(name) is not None] for name in FIGURES}
    return {name: float(f"{np.mean(values):.4g}") for name, values in told.items() if values}

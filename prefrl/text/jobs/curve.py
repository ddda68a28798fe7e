"""The curve of alignment: gold and proxy reward against the square root of the divergence from the start.

Over several seeds and methods, with the fits of Gao et al. 2022: with d = sqrt(KL), gold gained is d (alpha - beta d)
for best of n and d (alpha - beta log d) for reinforcement learning. Both are linear in alpha and beta, so the fit is
least squares. The methods without a reward model are fitted with the second form (Rafailov et al. 2024).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from prefrl.errors import UserError
from prefrl.text.jobs.folder import TextFolder
from prefrl.text.learn.policy_measures import win_rate

Row = Mapping[str, Any]
FIGURES = (
    "step", "examples", "kl_nats", "kl_standard_error", "gold", "proxy", "length", "repetition", "end_rate",
    "language_loss",
)  # fmt: skip
"""Numbers that an evaluation may have; any other is the share of a probe of the world that was answered rightly."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """d (alpha - beta d) for best of n, d (alpha - beta log d) for the others."""

    alpha: float
    beta: float
    best_of_n: bool
    r_squared: float

    def gold(self, d: float) -> float:
        """Return the gold reward gained at a distance d = sqrt(KL)."""
        return d * (self.alpha - self.beta * (d if self.best_of_n else np.log(d))) if d > 0 else 0.0

    @property
    def peak(self) -> float | None:
        """The distance of most gold reward; None if the fit has none."""
        if self.beta <= 0:
            return None
        if self.best_of_n:
            return self.alpha / (2 * self.beta) if self.alpha > 0 else None
        return float(np.exp(self.alpha / self.beta - 1))


def fit_curve(distances: Sequence[float], gains: Sequence[float], *, best_of_n: bool) -> Fit | None:
    """Fit the form of Gao et al. 2022 by least squares; None with fewer than three points away from the start.

    Args:
        distances: sqrt(KL) of each point.
        gains: gold reward less that of the start.
        best_of_n: which form.
    """
    d, y = np.asarray(distances, float), np.asarray(gains, float)
    away = d > 1e-3
    d, y = d[away], y[away]
    if len(d) < 3:
        return None
    features = np.stack([d, -d * (d if best_of_n else np.log(d))], 1)
    (alpha, beta), *_ = np.linalg.lstsq(features, y, rcond=None)
    spread = float(((y - y.mean()) ** 2).sum())
    missed = float(((y - features @ [alpha, beta]) ** 2).sum())
    r_squared = 1 - missed / spread if spread > 0 else 0.0
    return Fit(alpha=float(alpha), beta=float(beta), best_of_n=best_of_n, r_squared=r_squared)


@dataclass(frozen=True, kw_only=True)
class MethodCurve:
    """What one method did in one run of the chain."""

    name: str
    seed: int
    rows: tuple[Row, ...]

    @property
    def is_best_of_n(self) -> bool:
        """Whether it only picks."""
        return self.name == "bestofn"

    def distances(self) -> list[float]:
        """Return sqrt(KL) of each evaluation."""
        return [max(0.0, float(row["kl_nats"])) ** 0.5 for row in self.rows]

    def best(self) -> Row:
        """Return the evaluation with the most gold reward."""
        return max(self.rows, key=lambda row: row["gold"])


def read_chain(path: Path) -> list[MethodCurve]:
    """Return the curves of all methods in a folder that `prefrl text demo` made.

    Raises:
        UserError: there are none.
    """
    curves = []
    for config in sorted(path.glob("*/config.json")):
        folder = TextFolder.open(config.parent, reads_only=True)
        rows = [row for row in folder.read_evaluations() if row.get("gold") is not None]
        if rows:
            _refuse_without_divergence(folder, rows)
            seed = folder.setting(int, "training", "seed") or folder.setting(int, "place", "seed") or 0
            curves.append(MethodCurve(name=config.parent.name, seed=seed, rows=tuple(rows)))
    if not curves:
        raise UserError(f"There are no evaluated methods in {path}. Make some with: prefrl text demo --out {path}")
    return curves


def _refuse_without_divergence(folder: TextFolder, rows: Sequence[Row]) -> None:
    for row in rows:
        if not all(isinstance(row.get(name), int | float) for name in ("gold", "kl_nats")):
            raise UserError(
                f"{folder.evaluations_path} is damaged: the row of step {row['step']} should hold gold and kl_nats, "
                "both numbers. Restore it from a copy."
            )


def probes_of(rows: Sequence[Row]) -> list[str]:
    """Return the names of the world's probes in evaluations."""
    numbers = {key: None for row in rows for key, value in row.items() if isinstance(value, int | float)}
    return [key for key in numbers if key not in FIGURES]


def median_curve(curves: Sequence[MethodCurve]) -> MethodCurve:
    """Return the medians over the seeds of one method: of its first evaluations, its second ones, and so on.

    Seeds with fewer evaluations than others leave out the last ones of all.
    """
    rows = []
    for of_seeds in zip(*(curve.rows for curve in curves)):  # noqa: B905  (as many as all have)
        keys = [key for key, value in of_seeds[0].items() if isinstance(value, int | float)]
        shared = [key for key in keys if all(row.get(key) is not None for row in of_seeds)]
        rows.append({key: median(row[key] for row in of_seeds) for key in shared})
    return MethodCurve(name=curves[0].name, seed=curves[0].seed, rows=tuple(rows))


def over_optimisation(curve: MethodCurve) -> float:
    """Return how much gold reward was lost after the best evaluation, while the proxy rose or held; 0 if none was."""
    best, last = curve.best(), curve.rows[-1]
    if "proxy" in last and "proxy" in best and last["proxy"] < best["proxy"]:
        return 0.0
    return max(0.0, float(best["gold"]) - float(last["gold"]))


def summarise_chain(curves: Sequence[MethodCurve]) -> list[dict[str, Any]]:
    """Return a row for each method and seed: start, best and last gold reward, wins, divergence, what was kept."""
    table = []
    for curve in curves:
        first, best, last = curve.rows[0], curve.best(), curve.rows[-1]
        row: dict[str, Any] = {
            "method": curve.name,
            "seed": curve.seed,
            "start_gold": first["gold"],
            "best_gold": best["gold"],
            "best_sqrt_kl": max(0.0, best["kl_nats"]) ** 0.5,
            "last_gold": last["gold"],
            "last_sqrt_kl": max(0.0, last["kl_nats"]) ** 0.5,
            "lost_to_over_optimisation": over_optimisation(curve),
        }
        for name in ("length", "repetition", "end_rate", *probes_of([last]), "language_loss"):
            if name in last:
                row |= {f"start_{name}": first[name], f"last_{name}": last[name]}
        if "gold_each" in best and "gold_each" in first:
            row["best_win_rate"] = win_rate(best["gold_each"], first["gold_each"])
        fit = fit_curve(
            curve.distances(), [r["gold"] - first["gold"] for r in curve.rows], best_of_n=curve.is_best_of_n
        )
        if fit is not None:
            row["fit"] = {"alpha": fit.alpha, "beta": fit.beta, "r_squared": fit.r_squared, "peak_sqrt_kl": fit.peak}
        table.append(row)
    return table

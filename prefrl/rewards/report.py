"""The report card of a learned reward: how far it agrees with the truth on segments it was not fitted on.

Contents: accuracy on pairs, calibration and log-loss of predicted preferences, correlations per step and per segment,
the agreement by tercile of learned return (a reward can agree overall and not among the best segments, which is where
the agent ends up), and the EPIC distance (Gleave et al. 2021).

Departure from Gleave et al. 2021: EPIC evaluates the true reward on transitions (s, a', s'') that never happened, and a
Gymnasium environment cannot be asked for those. A regression of the true reward on (s, a, s'), fitted to half of the
steps, takes its place in every term; its R^2 on the other half stands beside the distance. A low R^2 means that the
distance is to a blurred truth: then read `direct_distance`, the same without canonicalisation, which needs no stand-in.
The distributions D_S and D_A of the paper are the states and actions of the segments.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from prefrl.errors import UserError, require
from prefrl.likelihood import bradley_terry_log_likelihood
from prefrl.rewards.calibration import Calibration, calibration_curve
from prefrl.rewards.epic import (
    epic_distance,
    fit_true_reward,
    in_turn,
    independent_samples,
    is_constant,
    pearson_correlation,
    pearson_distance,
)
from prefrl.segments import Segment, transitions_at
from prefrl.spaces import Array, Batch, is_image, num_bytes

LARGE_BYTES = 4_096  # an observation from which on fewer transitions make up the EPIC distance
MAX_POINTS = 500  # segments whose returns are kept for the scatter plot


class JudgedReward(Protocol):
    """What a report card needs of a reward; `RewardEnsemble` has it."""

    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]

    def __call__(self, observations: Batch, actions: Array, next_observations: Batch) -> NDArray[np.floating[Any]]:
        """Return the reward that the agent gets, `(B,)`."""

    def segment_returns(self, segments: list[Segment]) -> NDArray[np.floating[Any]]:
        """Return each member's summed reward, `(M, N)`: the terms of its logits."""


@dataclass(frozen=True, kw_only=True)
class Tercile:
    """Agreement among the segments of one third, ordered by learned return."""

    learned_return_from: float
    learned_return_to: float
    num_segments: int
    num_pairs: int
    """Pairs within the third, ties excluded."""
    num_ties: int
    accuracy: float | None
    pearson_per_segment: float | None
    spearman_per_segment: float | None


@dataclass(frozen=True, kw_only=True)
class ReportCard:
    """Agreement of a learned reward with the truth. None stands for what cannot be told; `missing` says why."""

    num_segments: int
    segment_length: int
    """k, in steps."""
    num_pairs: int
    """Random pairs whose true returns differ."""
    num_ties: int
    """Random pairs left out because their true returns are equal."""
    accuracy: float | None
    """Share of the pairs that the learned return puts in the right order (equal learned returns count one half)."""
    log_loss: float | None
    """Mean of -log P[what the truth says], nats per pair; ln 2 = 0.69 is a coin."""
    calibration: Calibration | None
    pearson_per_step: float | None
    spearman_per_step: float | None
    pearson_per_segment: float | None
    spearman_per_segment: float | None
    terciles: tuple[Tercile, ...]
    """Lowest learned return first; empty with fewer than 6 segments."""
    epic_distance: float | None
    """0: same preferences over policies, 1: opposite, 0.71: unrelated."""
    direct_distance: float | None
    """Pearson distance of learned and true rewards per step, without canonicalisation."""
    true_reward_r2: float | None
    """R^2, on steps it was not fitted on, of the regression that stands for the true reward in EPIC."""
    true_reward_model: str | None
    """"ridge" or "ridge + network"."""
    gamma: float
    error_rate: float
    learned_returns: tuple[float, ...]
    """Of the first 500 segments, for a scatter plot."""
    true_returns: tuple[float, ...]
    num_unknown: int = 0
    """Segments left out because the true reward is unknown in them."""
    missing: dict[str, str] = field(default_factory=dict)
    """Why a field is None, by its name."""

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values (no NaN among them)."""
        return asdict(self)

    def to_text(self, against: str = "the true reward") -> str:
        """Return the main figures as a few lines for a terminal; `against` says what it is held against."""

        def show(value: float | None, form: str, name: str) -> str:
            return "unknown (" + self.missing.get(name, "no data") + ")" if value is None else format(value, form)

        left_out = (
            [f"  left out                {self.num_unknown} segments whose true reward is unknown"]
            if self.num_unknown and self.num_segments
            else []
        )
        return "\n".join(
            [
                f"Learned reward against {against}, on {self.num_segments} segments of {self.segment_length} steps "
                "it was not fitted on:",
                f"  accuracy on pairs       {show(self.accuracy, '.1%', 'accuracy')}",
                f"  correlation per step    {show(self.pearson_per_step, '.3f', 'pearson_per_step')}",
                f"  correlation per segment {show(self.pearson_per_segment, '.3f', 'pearson_per_segment')}",
                f"  EPIC distance           {show(self.epic_distance, '.3f', 'epic_distance')} (unrelated: 0.71)",
                *left_out,
            ]
        )


def report_card(
    reward: JudgedReward,
    segments: list[Segment],
    *,
    rng: np.random.Generator,
    num_pairs: int = 2000,
    gamma: float = 0.99,
    error_rate: float = 0.0,
) -> ReportCard:
    """Compare a learned reward with the truth on segments it was not fitted on.

    Accuracy, correlations and distances judge the reward the agent gets (the mean over normalised members); calibration
    and log-loss judge the predicted preference, the mean over members of the probability from their raw returns.

    Args:
        reward: a `RewardEnsemble`.
        segments: N >= 2 held-out segments of k steps each. Those in which the true reward is unknown (NaN or infinite)
            are left out and counted; where fewer than two are left, all that the truth is needed for is unknown.
        rng: draws pairs, halves and samples.
        num_pairs: random pairs to draw.
        gamma: discount of the EPIC distance.
        error_rate: share of random answers that the likelihood was fitted with; predictions include it.

    Raises:
        UserError: fewer than 2 segments, unequal lengths, NaN or infinite learned rewards, or `num_pairs` below 1.
    """
    _check(segments, num_pairs)
    known = [segment for segment in segments if np.isfinite(segment.true_rewards).all()]
    length, num_unknown, segments = len(segments[0]), len(segments) - len(known), known
    if len(segments) < 2:
        return _unknown_card(num_unknown + len(segments), num_unknown, gamma, error_rate, length)
    learned = in_turn(reward, segments)
    truth = np.concatenate([segment.true_rewards for segment in segments]).astype(np.float64)
    if not np.isfinite(learned).all():
        raise UserError("The learned rewards hold NaN or infinite values; expected finite numbers to report on.")
    learned_returns, true_returns = (r.reshape(len(segments), -1).sum(1) for r in (learned, truth))
    missing: dict[str, str] = {}

    first, second = _random_pairs(len(segments), num_pairs, rng)
    told = ~_ties(true_returns, first, second)
    first, second = first[told], second[told]
    accuracy = log_loss = calibration = None
    if len(first):
        accuracy = _accuracy(learned_returns, true_returns, first, second)
        log_first, log_second = _log_preferences(reward.segment_returns(segments), first, second, error_rate)
        better = true_returns[first] > true_returns[second]
        log_loss = float(-np.where(better, log_first, log_second).mean())
        calibration = calibration_curve(np.exp(log_first), better)
    else:
        why = "The true returns of both segments are equal in every pair."
        missing |= dict.fromkeys(("accuracy", "log_loss", "calibration"), why)

    correlations = {
        "pearson_per_step": pearson_correlation(learned, truth),
        "spearman_per_step": spearman_correlation(learned, truth),
        "pearson_per_segment": pearson_correlation(learned_returns, true_returns),
        "spearman_per_segment": spearman_correlation(learned_returns, true_returns),
        "direct_distance": pearson_distance(learned, truth),
    }
    for name, value in correlations.items():
        if value is None and name.endswith("segment"):
            missing[name] = _why_constant(learned_returns, true_returns, "segment")
        elif value is None:
            missing[name] = _why_constant(learned, truth, "step")
    epic, r2, kind = _epic(reward, segments, rng, gamma, missing)
    if len(segments) < 6:
        missing["terciles"] = f"Terciles need at least 6 segments; there are {len(segments)}."
    return ReportCard(
        num_segments=len(segments),
        segment_length=len(segments[0]),
        num_pairs=len(first),
        num_ties=int(num_pairs - len(first)),
        accuracy=accuracy,
        log_loss=log_loss,
        calibration=calibration,
        terciles=_terciles(learned_returns, true_returns, rng, max(1, num_pairs // 3)) if len(segments) >= 6 else (),
        epic_distance=epic,
        true_reward_r2=r2,
        true_reward_model=kind,
        gamma=gamma,
        error_rate=error_rate,
        learned_returns=tuple(learned_returns[:MAX_POINTS].tolist()),
        true_returns=tuple(true_returns[:MAX_POINTS].tolist()),
        num_unknown=num_unknown,
        missing=missing,
        **correlations,
    )


def _unknown_card(num: int, num_unknown: int, gamma: float, error_rate: float, length: int) -> ReportCard:
    """Return what can be said where the true reward is not known."""
    figures = ("accuracy", "log_loss", "calibration", "epic_distance", "direct_distance", "true_reward_r2")
    correlations = [f"{kind}_per_{unit}" for kind in ("pearson", "spearman") for unit in ("step", "segment")]
    nothing: dict[str, Any] = dict.fromkeys([*figures, *correlations, "true_reward_model"])
    why = f"The true reward is unknown (NaN, None or infinite) in {num_unknown} of {num} segments."
    return ReportCard(
        num_segments=num - num_unknown,
        segment_length=length,
        num_pairs=0,
        num_ties=0,
        terciles=(),
        gamma=gamma,
        error_rate=error_rate,
        learned_returns=(),
        true_returns=(),
        num_unknown=num_unknown,
        missing=dict.fromkeys([*nothing, "terciles"], why),
        **nothing,
    )


def spearman_correlation(first: ArrayLike, second: ArrayLike) -> float | None:
    """Return the rank correlation of two series `(n,)`, equal values sharing a rank; None if either is constant."""
    stats = require("scipy.stats", "train")
    x, y = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if is_constant(x) or is_constant(y):
        return None
    return pearson_correlation(stats.rankdata(x), stats.rankdata(y))


def _check(segments: list[Segment], num_pairs: int) -> None:
    if len(segments) < 2:
        raise UserError(f"A report card needs at least 2 segments. Received {len(segments)}")
    lengths = sorted({len(segment) for segment in segments})
    if len(lengths) > 1:
        raise UserError(f"The segments of a report card must be of equal length; got {lengths} steps.")
    if num_pairs < 1:
        raise UserError(f"num_pairs must be at least 1. Received {num_pairs}")


def _random_pairs(num: int, num_pairs: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    first = rng.integers(num, size=num_pairs)
    return first, (first + rng.integers(1, num, size=num_pairs)) % num


def _ties(returns: NDArray[np.float64], first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.bool_]:
    a, b = returns[first], returns[second]
    return np.abs(a - b) <= 1e-9 * (np.abs(a) + np.abs(b))  # sums in another order differ by rounding


def _accuracy(
    learned: NDArray[np.float64], truth: NDArray[np.float64], first: NDArray[np.int64], second: NDArray[np.int64]
) -> float:
    predicted, right = np.sign(learned[first] - learned[second]), np.sign(truth[first] - truth[second])
    return float(((1.0 + predicted * right) / 2.0).mean())


def _log_preferences(
    member_returns: NDArray[np.floating[Any]],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    error_rate: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return log P[first better] and log P[second better], the probabilities averaged over members: `(P,)` each."""
    returns = torch.from_numpy(np.asarray(member_returns, np.float64))
    logits = returns[:, first] - returns[:, second]
    both = []
    for preference in (1.0, 0.0):
        each = bradley_terry_log_likelihood(logits, torch.full_like(logits, preference), error_rate)
        both.append(torch.logsumexp(each, 0) - np.log(len(returns)))
    log_first, log_second = (log.clamp(max=0.0).numpy() for log in both)
    return log_first, log_second


def _terciles(
    learned: NDArray[np.float64], truth: NDArray[np.float64], rng: np.random.Generator, num_pairs: int
) -> tuple[Tercile, ...]:
    thirds = []
    for rows in np.array_split(np.argsort(learned, kind="stable"), 3):
        mine, true = learned[rows], truth[rows]
        first, second = _random_pairs(len(rows), num_pairs, rng)
        told = ~_ties(true, first, second)
        thirds.append(
            Tercile(
                learned_return_from=float(mine[0]),
                learned_return_to=float(mine[-1]),
                num_segments=len(rows),
                num_pairs=int(told.sum()),
                num_ties=int((~told).sum()),
                accuracy=_accuracy(mine, true, first[told], second[told]) if told.any() else None,
                pearson_per_segment=pearson_correlation(mine, true),
                spearman_per_segment=spearman_correlation(mine, true),
            )
        )
    return tuple(thirds)


def _epic(
    reward: JudgedReward, segments: list[Segment], rng: np.random.Generator, gamma: float, missing: dict[str, str]
) -> tuple[float | None, float | None, str | None]:
    """Return the EPIC distance, R^2 of the stand-in for the true reward, and what it is."""
    truth = np.concatenate([segment.true_rewards for segment in segments])
    if is_constant(truth):
        why = "The true reward is the same at every step."
        missing |= dict.fromkeys(("epic_distance", "true_reward_r2", "true_reward_model"), why)
        return None, None, None
    model, r2, others = fit_true_reward(reward.observation_space, reward.action_space, segments, rng)
    if r2 is None:
        missing["true_reward_r2"] = "The true reward is the same at every step that the regression is tested on."
    large = is_image(reward.observation_space) or num_bytes(segments[0].observations) > LARGE_BYTES * len(segments[0])
    num_transitions, num_samples = (48, 24) if large else (512, 128)
    num_steps = len(others) * len(others[0])
    coverage = transitions_at(others, rng.choice(num_steps, size=min(num_transitions, num_steps), replace=False))
    samples = independent_samples(segments, num_samples, rng)
    distance = epic_distance(reward, model, coverage, samples, gamma)
    if distance is None:
        missing["epic_distance"] = "The learned or the true reward is constant once potential shaping is taken away."
    return distance, r2, model.kind


def _why_constant(learned: NDArray[np.float64], truth: NDArray[np.float64], unit: str) -> str:
    which = [name for name, values in (("learned", learned), ("true", truth)) if is_constant(values)]
    return f"The {' and the '.join(which)} reward is the same for every {unit}."

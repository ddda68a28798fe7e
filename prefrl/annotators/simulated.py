"""The simulated teacher of B-Pref: an annotator that judges by a reward, with the faults of people.

It follows Lee et al. 2021, s. 3.2, and their public code step by step, and judges by the environment's true reward or
by a Python function of a segment.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from prefrl.annotators.judging import grade, ranks_of
from prefrl.annotators.reward_functions import SegmentReward, evaluate, name_of
from prefrl.errors import UserError
from prefrl.feedback import Answer, Comparison, Query, Strength
from prefrl.feedback.answers import groups_of
from prefrl.feedback.strength import MOST_DEGREES
from prefrl.history import Episode
from prefrl.runs.streams import check_seed
from prefrl.segments import Segment


@dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """The parameters of a simulated teacher (Lee et al. 2021, s. 3.2); the defaults are the perfect oracle.

    Raises:
        UserError: a value out of its range.
    """

    beta: float = -1.0
    """Rationality: above 0, answers are drawn with P[1 > 2] = sigmoid(beta x difference of sums); else the larger sum
    wins."""
    gamma: float = 1.0
    """Short sight: the reward t steps into a segment of k counts gamma^(k - 1 - t)."""
    epsilon: float = 0.0
    """Probability of answering the opposite."""
    skip: float = 0.0
    """The teacher declines unless the better segment earns more than this share of what a segment typically earns."""
    equal: float = 0.0
    """Sums closer than this share of what a segment typically earns are a tie."""
    num_returns: int = 10
    """Most recent training episodes that say what a segment typically earns."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.beta):
            raise UserError(f"beta must be finite; 0 or less is perfectly rational. Received {self.beta}")
        for name in ("gamma", "epsilon"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} must be in [0, 1]. Received {getattr(self, name)}")
        for name in ("skip", "equal"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name} must be at least 0 and finite. Received {getattr(self, name)}")
        if self.num_returns < 1:
            raise UserError(f"num_returns must be at least 1. Received {self.num_returns}")


class _Judged(NamedTuple):
    """What a teacher thinks of one segment of k steps."""

    total: float
    weighted: float  # with the weights of short sight
    lowest: float  # least reward of one step


class _Typical(NamedTuple):
    """What one step typically earns."""

    mean: float
    lowest: float  # at most 0


class SimulatedTeacher:
    """Compares segments by their summed reward, with the faults of `TeacherSettings`, in B-Pref's order.

    1. Decline unless the larger sum passes the skip threshold. 2. Note a tie if the sums differ by less than the equal
    threshold. 3. Weigh the rewards by gamma. 4. Choose, at random if beta > 0. 5. Choose the opposite with probability
    epsilon. 6. A tie noted in step 2 overrides the choice.

    Two departures, undone by `published=True`. First, sums exactly equal are a tie where beta <= 0; the public code
    picks one. Second, thresholds are shares of what a segment typically earns *above the worst it could*: with m the
    mean reward of a step in recent episodes and f = min(0, least reward of a step so far), a pair of k-step segments is
    skipped unless max(sum) - k f > skip (k m - k f), and tied if |difference| < equal (k m - k f). For rewards that are
    never negative this is the paper's formula. For others the paper's threshold may be negative, which switches it
    off, while ours works, whatever the scale of the rewards. A threshold of 0, as before any episode has ended, is off.

    Rankings and ratings have the same faults. A ranking is drawn from Plackett-Luce where beta > 0 and is turned round
    with probability epsilon; neighbours in it that a comparison would call a tie are tied. A rating says in which of C
    equal parts the sum lies between the worst and the best that an episode has earned per step (before any has ended:
    between the least and the greatest sum of those put to it together); beta > 0 adds logistic noise of scale 1 / beta
    to the sum, and with probability epsilon the grade is that of the other end of the scale.

    An answer follows from the settings, the seed, the query and the thresholds at that time, not the order of asking.

    Args:
        settings: the faults; `PRESETS` has B-Pref's.
        seed: seed of its random answers, at least 0.
        name: goes into the record with each answer.
        reward_function: judge by this function of a segment instead of the environment's true reward, which is then
            never read. What is typical is then taken over the segments of the queries put to it together, so that
            a resumed run, which does not ask again, answers the same.
        published: behave as the public code does: thresholds by the raw formula, so that skip and equal go silent
            where the mean return is not positive; their share applied twice (0.1 x 0.1) after session 0, as in its
            off-policy script; equal sums answered "the first"; skipped queries cost labels. Its episode length is the
            environment's limit; here it is the mean length of the same episodes.

    Raises:
        UserError: a negative seed.
    """

    def __init__(
        self,
        settings: TeacherSettings | None = None,
        *,
        seed: int,
        name: str = "teacher",
        reward_function: SegmentReward | None = None,
        published: bool = False,
    ) -> None:
        self.settings = settings or TeacherSettings()
        self.seed = checked_seed(seed)
        self.name = name
        self.reward_function = reward_function
        self.published = published
        self._returns: list[float] = []
        self._lengths: list[int] = []
        self._lowest = 0.0
        self._worst, self._best = math.inf, -math.inf  # mean reward of a step in an episode
        self._knows = self._told_unknown = False  # a true reward; that some are unknown

    @property
    def skips_cost_labels(self) -> bool:
        """Whether a query that the teacher declines uses up a label of the budget."""
        return self.published

    def observe(self, episodes: Sequence[Episode]) -> None:
        """Learn from the true returns of training episodes what a segment typically earns; leave out unknown ones."""
        if self.reward_function is not None:
            return
        needs_returns = self.settings.skip > 0 or self.settings.equal > 0
        for episode in episodes:
            rewards = episode.true_rewards.window(0, episode.num_steps)
            known = np.isfinite(rewards)
            self._knows = self._knows or bool(known.any())
            if not known.all():
                continue
            if needs_returns:
                self._returns.append(math.fsum(rewards))
                self._lengths.append(episode.num_steps)
                self._lowest = min(self._lowest, float(rewards.min()))
            mean = float(np.mean(rewards))
            self._worst, self._best = min(self._worst, mean), max(self._best, mean)
        del self._returns[: -self.settings.num_returns], self._lengths[: -self.settings.num_returns]

    def answer(self, queries: Sequence[Query]) -> list[Answer]:
        """Answer every query; with None where it declines, or does not know the true reward (NaN or infinite).

        Raises:
            UserError: no true reward was ever known, or the reward function failed.
        """
        judged = [[self._judge(segment) for segment in query.segments] for query in queries]
        if any(math.isnan(one.total) for shown in judged for one in shown):
            self._tell_unknown([segment for query in queries for segment in query.segments])
        typical = self._typical(queries, judged)
        graded = [one[0] for query, one in zip(queries, judged, strict=True) if query.answer_kind.graded]
        return [self._answer(query, one, typical, graded) for query, one in zip(queries, judged, strict=True)]

    def _answer(self, query: Query, judged: Sequence[_Judged], typical: _Typical, graded: Sequence[_Judged]) -> Answer:
        return query.answer_kind.saying(
            self._value(query, judged, typical, graded), query_id=query.id, annotator=self.name
        )

    def _value(self, query: Query, judged: Sequence[_Judged], typical: _Typical, graded: Sequence[_Judged]) -> Any:
        kind = query.answer_kind
        if any(math.isnan(one.total) for one in judged):
            return None
        if kind is Comparison:
            return self._prefer(query, judged[0], judged[1], typical)
        skip, _, worst, earned = self._thresholds(query, typical)
        if skip * earned > 0 and not max(one.total for one in judged) - worst > skip * earned:
            return None
        if kind.graded:
            return self._degree(query, judged) if kind is Strength else self._grade(query, judged[0], graded)
        return kind.from_order(groups_of(self._rank(query, judged, typical)), len(judged))

    def _rank(self, query: Query, judged: Sequence[_Judged], typical: _Typical) -> tuple[int, ...]:
        settings, (_, equal, _, earned) = self.settings, self._thresholds(query, typical)
        uniform = draws(self.seed, query, len(judged) + 1)
        felt = np.array([one.weighted for one in judged])
        if settings.beta > 0:  # the order of sums with Gumbel noise is Plackett-Luce
            felt = settings.beta * felt - np.log(-np.log(np.maximum(uniform[:-1], 1e-300)))
        if uniform[-1] < settings.epsilon:
            felt = -felt
        exact = settings.beta <= 0 and not self.published
        return ranks_of(felt, np.array([one.total for one in judged]), equal * earned, tie_equal=exact)

    def _grade(self, query: Query, judged: _Judged, graded: Sequence[_Judged]) -> int:
        settings, k = self.settings, len(query.segments[0])
        low, high = k * self._worst, k * self._best
        if not low < high:
            sums = [one.weighted for one in graded if not math.isnan(one.weighted)]
            low, high = min(sums), max(sums)
        noise_draw, mistake_draw = draws(self.seed, query)
        felt = judged.weighted
        if settings.beta > 0:
            felt += math.log(noise_draw / (1 - noise_draw)) / settings.beta
        assert query.scale is not None
        given = grade(felt, low, high, query.scale)
        return query.scale + 1 - given if mistake_draw < settings.epsilon else given

    def _degree(self, query: Query, judged: Sequence[_Judged]) -> int:
        """Return how much better the first is: in thirds of half the range of what it has seen, beyond a sixth."""
        settings = self.settings
        noise_draw, mistake_draw = draws(self.seed, query)
        felt = judged[0].weighted - judged[1].weighted
        if settings.beta > 0:
            felt += math.log(noise_draw / (1 - noise_draw)) / settings.beta
        half = len(query.segments[0]) * (self._best - self._worst) / 2
        if not half > 0:
            half = max(abs(one.weighted) for one in judged) or 1.0
        given = round(max(-1.0, min(1.0, felt / half)) * MOST_DEGREES)
        return -given if mistake_draw < settings.epsilon else given

    def state(self) -> dict[str, Any]:
        """Return what it knows of recent episodes, as JSON."""
        seen = [self._worst, self._best] if self._worst <= self._best else None
        typical = {"returns": list(self._returns), "lengths": list(self._lengths), "lowest": self._lowest}
        return {**typical, "seen": seen, "knows": self._knows}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        self._returns, self._lengths = list(state["returns"]), list(state["lengths"])
        self._lowest = state["lowest"]
        self._worst, self._best = state.get("seen") or (math.inf, -math.inf)
        self._knows = state.get("knows", False)

    def _tell_unknown(self, segments: Sequence[Segment]) -> None:
        """Warn the first time that a true reward is unknown; refuse where none ever was known."""
        segment = next(segment for segment in segments if not np.isfinite(segment.true_rewards).all())
        step = segment.start + int(np.argmin(np.isfinite(segment.true_rewards)))
        found = (
            f"The environment's true reward is NaN, None or infinite at step {step} of episode {segment.episode}, and "
            f"the teacher {self.name!r} judges by it"
        )
        self._knows = self._knows or any(np.isfinite(segment.true_rewards).any() for segment in segments)
        if not self._knows:
            raise UserError(
                f"{found}; expected finite numbers. Fix the environment, or give the teacher a reward function of "
                "your own."
            )
        if not self._told_unknown:
            self._told_unknown = True
            warnings.warn(f"{found}: asked about such steps, it can't tell.", stacklevel=3)

    def _judge(self, segment: Segment) -> _Judged:
        k, function = len(segment), self.reward_function
        if function is None:
            rewards = segment.true_rewards
            if not np.isfinite(rewards).all():
                return _Judged(math.nan, math.nan, math.nan)
        else:
            rewards = evaluate(function, segment)
            if rewards.ndim == 0:
                if self.settings.gamma != 1:
                    raise UserError(
                        f"The teacher {self.name!r} weighs the steps of a segment (gamma {self.settings.gamma}), but "
                        f"the reward function {name_of(function)} returned one number for all of them. Return one "
                        "reward for each step, or choose another teacher."
                    )
                return _Judged(float(rewards), float(rewards), float(rewards) / k)
        # fsum rounds once, so segments with the same rewards in another order have the same sum
        total = weighted = math.fsum(rewards)
        if self.settings.gamma != 1:
            weighted = math.fsum(rewards * self.settings.gamma ** np.arange(k - 1, -1, -1.0))
        return _Judged(total, weighted, float(rewards.min()))

    def _typical(self, queries: Sequence[Query], judged: Sequence[Sequence[_Judged]]) -> _Typical:
        if self.reward_function is not None:
            both = [one for shown in judged for one in shown]
            num_steps = sum(len(segment) for query in queries for segment in query.segments)
            mean = math.fsum(one.total for one in both) / max(num_steps, 1)
            return _Typical(mean, min((one.lowest for one in both), default=0.0))
        if not self._returns:
            return _Typical(0.0, 0.0)
        return _Typical(math.fsum(self._returns) / sum(self._lengths), self._lowest)

    def _thresholds(self, query: Query, typical: _Typical) -> tuple[float, float, float, float]:
        """Return the shares of skip and equal, the worst sum, and what a segment typically earns above it."""
        skip, equal, k = self.settings.skip, self.settings.equal, len(query.segments[0])
        worst = 0.0 if self.published else k * min(0.0, typical.lowest)
        if self.published and query.session > 0:
            skip, equal = skip**2, equal**2
        return skip, equal, worst, k * typical.mean - worst

    def _prefer(self, query: Query, first: _Judged, second: _Judged, typical: _Typical) -> float | None:
        settings, (skip, equal, worst, earned) = self.settings, self._thresholds(query, typical)
        if skip * earned > 0 and not max(first.total, second.total) - worst > skip * earned:
            return None
        tied = abs(first.total - second.total) < equal * earned
        difference = first.weighted - second.weighted
        choice_draw, mistake_draw = draws(self.seed, query)
        if settings.beta > 0:
            preference = 1.0 if choice_draw < _sigmoid(settings.beta * difference) else 0.0
        elif difference == 0 and not self.published:
            preference = 0.5
        else:
            preference = 1.0 if difference >= 0 else 0.0
        if mistake_draw < settings.epsilon:
            preference = 1.0 - preference
        return 0.5 if tied else preference


def checked_seed(seed: int) -> int:
    """Return the seed, or raise `UserError` if it can be none."""
    check_seed(seed)
    return seed


def draws(seed: int, query: Query, num: int = 2) -> list[float]:
    """Return uniform draws that belong to this seed and query alone."""
    return [float(draw) for draw in np.random.default_rng([seed, int(query.id, 16)]).random(num)]


def _sigmoid(x: float) -> float:
    return 0.5 * (1.0 + math.tanh(0.5 * x))  # cannot overflow

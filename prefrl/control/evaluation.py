"""Evaluating a policy by the environment's own reward, within bounds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np

from prefrl.envs.measures import Measure
from prefrl.errors import UserError
from prefrl.program import own_folder
from prefrl.rewards import RewardEnsemble
from prefrl.rewards.function import RewardFunction
from prefrl.runs.metrics import mean_of_known
from prefrl.runs.streams import check_seed
from prefrl.spaces import Array, Batch, map_batch

MAX_STEPS = 10_000  # of an episode, where neither the environment nor the user set a limit
MAX_MINUTES = 30.0  # for all episodes of one policy


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """True returns of episodes."""

    true_returns: list[float]
    """NaN: the true reward was unknown (NaN, None or infinite) at a step."""
    lengths: list[int]
    learned_returns: list[float] | None = None
    """By the learned reward, where there is one."""
    group_returns: list[list[float]] | None = None
    """By the learned reward of each group of annotators, where there are several."""
    measures: dict[str, float] = field(default_factory=dict)
    """What returns do not tell, by name: the mean over episodes."""
    num_stopped: int = 0
    """Episodes that were stopped before their end; their returns are those of the steps they made."""
    out_of_time: bool = False
    """They were stopped because the time was up, not the steps."""

    @property
    def mean(self) -> float | None:
        """Mean true return of the episodes in which it is known; None where there are none."""
        return mean_of_known(self.true_returns)

    @property
    def learned_mean(self) -> float | None:
        """Mean learned return; None without a learned reward."""
        return None if self.learned_returns is None else mean_of_known(self.learned_returns)

    @property
    def group_means(self) -> list[float | None] | None:
        """Mean learned return of each group of annotators; None where there is but one."""
        return None if self.group_returns is None else [mean_of_known(returns) for returns in self.group_returns]

    @property
    def std(self) -> float | None:
        """Standard deviation of the true return over those episodes (biased)."""
        known = [one for one in self.true_returns if math.isfinite(one)]
        return float(np.std(known)) if known else None

    @property
    def num_unknown(self) -> int:
        """Episodes whose true return is not known."""
        return sum(not math.isfinite(one) for one in self.true_returns)

    def remarks(self) -> list[str]:
        """Return what must be said beside the mean, as sentences."""
        said, num = [], len(self.true_returns)
        if self.num_stopped:
            why = "the time was up" if self.out_of_time else "the limit of an episode"
            said.append(
                f"{self.num_stopped} of {num} episodes were stopped after {max(self.lengths):,} steps ({why}); their "
                "returns are those of these steps."
            )
        if self.num_unknown == num:
            said.append("The true return is unknown: the environment's reward is NaN, None or infinite.")
        elif self.num_unknown:
            said.append(
                f"The true return of {self.num_unknown} of {num} episodes is unknown (NaN, None or infinite) and left "
                "out."
            )
        return said


class _Untold(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Leaves out infos, which nothing here reads: a vector cannot join all those that differ from copy to copy."""

    def reset(self, **given: Any) -> tuple[Any, dict[str, Any]]:
        return self.env.reset(**given)[0], {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        return (*self.env.step(action)[:4], {})


@own_folder()
def evaluate(
    make_env: Callable[[], gymnasium.Env[Any, Any]],
    act: Callable[[Batch], Array],
    *,
    num_episodes: int,
    seed: int,
    measures: Sequence[Measure] = (),
    reward: RewardFunction | None = None,
    max_steps: int = MAX_STEPS,
    max_minutes: float = MAX_MINUTES,
    on_step: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Run `num_episodes` episodes side by side, one in each of as many environments, to their ends or a limit.

    One episode each keeps short episodes from being counted more often than long ones.

    Args:
        make_env: makes one environment.
        act: actions `(B, ...)` for observations `(B, ...)`.
        num_episodes: how many.
        seed: seed of the environments.
        measures: of the episodes, besides their returns.
        reward: a learned reward, to sum up as well; None for none.
        max_steps: of each episode; those that have not ended by then are stopped.
        max_minutes: for all of them; those that have not ended by then are stopped. At least one step is made.
        on_step: called after every step with the steps made by each and the number of episodes that are over.

    Raises:
        UserError: `num_episodes` or `max_steps` below 1, `max_minutes` not positive, or a negative seed.
    """
    check_seed(seed)
    for name, value in (("num_episodes", num_episodes), ("max_steps", max_steps)):
        if value < 1:
            raise UserError(f"{name} must be at least 1. Received {value}")
    if not max_minutes > 0:
        raise UserError(f"max_minutes must be positive. Received {max_minutes}")
    envs = gymnasium.vector.SyncVectorEnv(
        [lambda: _Untold(make_env())] * num_episodes,
        observation_mode="different",  # of other bounds, which nothing here depends on
        autoreset_mode=gymnasium.vector.AutoresetMode.NEXT_STEP,
    )
    until = time.monotonic() + 60 * max_minutes
    try:
        observations, _ = envs.reset(seed=seed)
        returns, lengths = np.zeros(num_episodes), np.zeros(num_episodes, np.int64)
        learned = np.zeros(num_episodes)
        groups = reward if isinstance(reward, RewardEnsemble) and reward.num_groups > 1 else None
        by_group = np.zeros((1 if groups is None else groups.num_groups, num_episodes))
        running = np.ones(num_episodes, np.bool_)
        seen = []
        out_of_time = False
        for step in range(1, max_steps + 1):
            before, actions = observations, act(observations)
            if reward is not None:
                before = map_batch(np.array, before)  # the vector may write into the same arrays
            observations, rewards, terminated, truncated, _ = envs.step(actions)
            if reward is not None:
                learned[running] += np.asarray(reward(before, actions, observations), np.float64)[running]
                if groups is not None:
                    by_group[:, running] += groups.group_rewards(before, actions, observations)[:, running]
            if measures:
                seen.append(np.array(observations))
            returns[running] += np.asarray(rewards, np.float64)[running]
            lengths[running] += 1
            running &= ~(terminated | truncated)
            if on_step is not None:
                on_step(step, int((~running).sum()))
            out_of_time = time.monotonic() > until
            if not running.any() or out_of_time:
                break
    finally:
        with suppress(Exception):  # a simulator that fails to close takes nothing from what was measured
            envs.close()
    episodes = [np.stack([step[i] for step in seen[:length]]) for i, length in enumerate(lengths)] if seen else []
    found = {measure.name: float(np.mean([measure.of_episode(one) for one in episodes])) for measure in measures}
    return Evaluation(
        true_returns=[value if math.isfinite(value) else math.nan for value in returns.tolist()],
        lengths=lengths.tolist(),
        learned_returns=None if reward is None else learned.tolist(),
        group_returns=None if groups is None else by_group.tolist(),
        measures=found,
        num_stopped=int(running.sum()),
        out_of_time=out_of_time and bool(running.any()),
    )

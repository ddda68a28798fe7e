"""Evaluating a policy by the environment's own reward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np

from prefrl.envs.measures import Measure
from prefrl.errors import UserError
from prefrl.spaces import Array, Batch


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """True returns of whole episodes."""

    true_returns: list[float]
    lengths: list[int]
    measures: dict[str, float] = field(default_factory=dict)
    """What returns do not tell, by name: the mean over episodes."""

    @property
    def mean(self) -> float:
        """Mean of the true returns over the episodes."""
        return float(np.mean(self.true_returns))

    @property
    def std(self) -> float:
        """Standard deviation of the true return over episodes (biased)."""
        return float(np.std(self.true_returns))


def evaluate(
    make_env: Callable[[], gymnasium.Env[Any, Any]],
    act: Callable[[Batch], Array],
    *,
    num_episodes: int,
    seed: int,
    measures: Sequence[Measure] = (),
    on_step: Callable[[int], None] | None = None,
) -> Evaluation:
    """Run `num_episodes` whole episodes side by side, one in each of as many environments.

    One episode each keeps short episodes from being counted more often than long ones.

    Args:
        make_env: makes one environment.
        act: actions `(B, ...)` for observations `(B, ...)`.
        num_episodes: how many.
        seed: seed of the environments.
        measures: of the episodes, besides their returns.
        on_step: called after every step with the number of episodes that are over.

    Raises:
        UserError: `num_episodes` below 1.
    """
    if seed < 0:
        raise UserError(f"seed must be 0 or more. Received {seed}")
    if num_episodes < 1:
        raise UserError(f"num_episodes must be at least 1. Received {num_episodes}")
    envs = gymnasium.vector.SyncVectorEnv(
        [make_env] * num_episodes, autoreset_mode=gymnasium.vector.AutoresetMode.NEXT_STEP
    )
    try:
        observations, _ = envs.reset(seed=seed)
        returns, lengths = np.zeros(num_episodes), np.zeros(num_episodes, np.int64)
        running = np.ones(num_episodes, np.bool_)
        seen = []
        while running.any():
            observations, rewards, terminated, truncated, _ = envs.step(act(observations))
            if measures:
                seen.append(np.array(observations))
            returns[running] += rewards[running]
            lengths[running] += 1
            running &= ~(terminated | truncated)
            if on_step is not None:
                on_step(int((~running).sum()))
    finally:
        envs.close()
    episodes = [np.stack([step[i] for step in seen[:length]]) for i, length in enumerate(lengths)] if seen else []
    found = {measure.name: float(np.mean([measure.of_episode(one) for one in episodes])) for measure in measures}
    return Evaluation(true_returns=returns.tolist(), lengths=lengths.tolist(), measures=found)

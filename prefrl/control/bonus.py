"""A bonus for exploring where the members of the reward disagree (RUNE: Liang et al. 2022, s. 4).

An agent in training is given r + beta_t std: the mean over the members of the reward, and their standard deviation
times beta_t = beta_0 (1 - rho)^t after t environment steps, the warm-up's among them. Nobody else is: who evaluates,
reports, chooses questions or holds policies against each other has the reward without it.

Departures. In the paper members end in tanh and are taken as they are; ours are each normalised to the same mean and
standard deviation, so that beta is in units of a reward's spread, and a constant between members, which no answer
tells, is no disagreement. And beta_t goes down by stairs, each a tenth lower, up to a thousandth of beta_0, where it
ends. At each stair everything that an agent keeps is scored again, as after a fit (by SAC with `reset_critics` "always"
also with new critics). The paper's code keeps mean and deviation of every transition, and weighs them by beta_t in each
update; ours differs from it by a tenth of the bonus at most.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from prefrl.agents import Improvement
from prefrl.rewards import RewardEnsemble, RewardSettings
from prefrl.rewards.function import RewardFunction
from prefrl.spaces import Array, Batch

STAIR = 0.9  # of the bonus before
LEAST = 1e-3  # of the first bonus
SCORED_AT_ONCE = 4_096  # transitions: images are large


class Bonus:
    """When an agent is given how much more for what the members disagree on.

    Args:
        settings: of the reward.
    """

    def __init__(self, settings: RewardSettings) -> None:
        self._first, self._kept = settings.bonus, 1 - settings.bonus_decay

    def at(self, num_env_steps: int) -> float:
        """Return the standard deviations to add after so many steps: at most beta_t, and more than 0.9 beta_t."""
        stair = math.ceil(num_env_steps * math.log(self._kept) / math.log(STAIR) - 1e-9)
        share = STAIR**stair
        return self._first * share if share >= LEAST else 0.0


class RewardWithBonus:
    """A reward with a bonus, for the agent in training.

    Args:
        reward: of several members.
        bonus: standard deviations to add.
    """

    def __init__(self, reward: RewardEnsemble, bonus: float) -> None:
        self.reward, self.bonus = reward, bonus

    def __call__(self, observations: Batch, actions: Array, next_observations: Batch) -> NDArray[np.floating]:
        """Return one reward per transition `(B,)`."""
        return self.reward.with_bonus(observations, actions, next_observations, self.bonus)


def without_bonus(improvement: Improvement, reward: RewardFunction) -> Improvement:
    """Return what an agent did with the rewards of it that it would have been given without a bonus, for reports.

    Among the figures is the mean of the difference per step, `exploration_bonus`.

    Args:
        improvement: of an agent that was given a bonus.
        reward: what the bonus was added to.
    """
    plain = rescored(improvement, reward)
    more = float(np.mean(improvement.learned_rewards - plain.learned_rewards))
    return replace(plain, figures=plain.figures | {"exploration_bonus": more})


def rescored(improvement: Improvement, reward: RewardFunction) -> Improvement:
    """Return what an agent did with the rewards that another reward gives for it.

    Args:
        improvement: of an agent that was given something else.
        reward: the other one.
    """
    rollout = improvement.rollout
    steps, envs = rollout.terminated.shape
    size = max(1, SCORED_AT_ONCE // envs)
    parts = [rollout.part(begin, min(begin + size, steps)) for begin in range(0, steps, size)]
    plain = np.concatenate([np.asarray(reward(*part.flat_transitions()), np.float32) for part in parts])
    return replace(improvement, learned_rewards=plain.reshape(steps, envs))

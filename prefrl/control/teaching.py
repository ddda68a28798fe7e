"""What a run is taught by, as the trainer sees it: comparisons asked by schedule, people, or the true reward itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from prefrl.control.bonus import Bonus, RewardWithBonus
from prefrl.control.folder import ControlFolder
from prefrl.control.reward_learner import RewardLearner
from prefrl.control.settings import RunSettings
from prefrl.history import Episode, History
from prefrl.rewards.function import RewardFunction
from prefrl.runs import State
from prefrl.segments import Rollout

A_FEW = 10
"""Answers by which is judged whether there is anything to tell apart."""
MOSTLY_TIES = 0.8
"""The share of ties among them from which on there is not."""


class Lesson(NamedTuple):
    """What came of looking for answers after a rollout."""

    fitted: RewardFunction | None = None
    """The reward where it was fitted, so that all the agent holds must be scored anew."""
    judge: RewardFunction | None = None
    """The reward where the policy is to be held against the best so far."""


class Teaching(Protocol):
    """Decides what is asked, when, and when the reward is fitted."""

    @property
    def reward(self) -> RewardFunction | None:
        """What is known of the reward; None: nothing yet, or the agent has the true one."""

    def bonus(self, num_env_steps: int) -> float:
        """Return how much more the agent is given for what is uncertain, after so many steps; 0: nothing."""

    def given(self, num_env_steps: int) -> RewardFunction | None:
        """Return what the agent trains on after so many steps: the reward, with the bonus if there is one."""

    @property
    def told(self) -> bool | None:
        """Answers tell something, or are ties because what the agent does shows nothing; None: there are none yet."""

    @property
    def labels(self) -> int:
        """Answers that were paid for."""

    @property
    def total_labels(self) -> int:
        """Answers to ask for in all."""

    def begin(self, warmup: Rollout, history: History, num_env_steps: int) -> None:
        """Begin a run, after its warm-up, with the first questions if there are any."""

    def observe(self, episodes: Sequence[Episode]) -> None:
        """Take note of training episodes that ended; a teacher judges what is typical by them."""

    def hold(self, history: History, num_env_steps: int, stopping: Callable[[], bool]) -> RewardFunction | None:
        """Wait before the agent goes on, if there is a reason to; return the reward if it was fitted meanwhile."""

    def after_rollout(self, history: History, num_env_steps: int) -> Lesson:
        """Ask what is due, take in answers that have come, and fit if there is reason to."""

    def begin_rollout(self, history: History) -> None:
        """Begin what goes on beside the next rollout and is over with it; no checkpoint is made in between."""

    def at_end(self, num_env_steps: int) -> bool:
        """Tell whether the training is over."""

    def finish(self, folder: ControlFolder, best_policy: dict[str, Any]) -> None:
        """Write what was learned into the run folder, at the end of a run."""

    def metrics(self) -> dict[str, float | None]:
        """Return how well the reward fits, by name, for a row of metrics."""

    def state(self) -> State:
        """Return what a checkpoint must hold."""

    def restore(self, state: State) -> None:
        """Go on from what `state` gave."""

    def close(self) -> None:
        """Close the record, where there is one."""


class AnswerTeaching:
    """What teaching from answers has in common, whoever decides when something is asked and fitted.

    Args:
        learner: the reward and its record.
        settings: of the run.
    """

    def __init__(self, learner: RewardLearner, settings: RunSettings) -> None:
        self.learner, self.settings = learner, settings
        self.total_labels, self.total_env_steps = settings.labels, settings.steps
        self._bonus = Bonus(settings.reward)
        self._told = False

    @property
    def told(self) -> bool | None:
        """At some time fewer than eight of the last ten answers were ties; None: there are no answers yet."""
        return self._told or (False if len(self.learner.data) else None)

    def _take_answers(self) -> None:
        """Take in the answers that there are now, and note whether they tell something."""
        data = self.learner.data
        self.learner.take_answers()
        ties = data.share_of_ties(max(0, len(data) - A_FEW))
        self._told |= ties is not None and ties < MOSTLY_TIES

    @property
    def reward(self) -> RewardFunction | None:
        """The learned reward, once it has been fitted."""
        return self.learner.reward if self.learner.fitted else None

    def bonus(self, num_env_steps: int) -> float:
        """Return the standard deviations over members that the agent is given more after so many steps."""
        return self._bonus.at(num_env_steps)

    def given(self, num_env_steps: int) -> RewardFunction | None:
        """Return what the agent trains on after so many steps, once the reward has been fitted."""
        if self.reward is not None and (bonus := self.bonus(num_env_steps)):
            return RewardWithBonus(self.learner.reward, bonus)
        return self.reward

    @property
    def labels(self) -> int:
        """Answers that were paid for."""
        return self.learner.labels

    def observe(self, episodes: Sequence[Episode]) -> None:
        """Tell the annotator of training episodes that ended."""
        self.learner.observe(episodes)

    def begin_rollout(self, history: History) -> None:
        """Do nothing: fits are waited for."""

    def finish(self, folder: ControlFolder, best_policy: dict[str, Any]) -> None:
        """Keep the best policy and the reward."""
        folder.save_policy("best", best_policy)
        self.learner.save(folder.reward_path)

    def metrics(self) -> dict[str, float | None]:
        """Return how well the reward fits."""
        return self.learner.metrics()

    def close(self) -> None:
        """Close the record."""
        self.learner.close()


class TrueReward:
    """The environment's own reward, which the agent of a baseline is given: nothing is asked.

    Args:
        total_env_steps: of the run.
    """

    reward: RewardFunction | None = None
    labels = 0
    total_labels = 0
    told = True

    def __init__(self, total_env_steps: int) -> None:
        self.total_env_steps = total_env_steps

    def bonus(self, num_env_steps: int) -> float:
        """Return 0: the true reward is certain."""
        return 0.0

    def given(self, num_env_steps: int) -> RewardFunction | None:
        """Return None: the agent has the true reward."""
        return None

    def begin(self, warmup: Rollout, history: History, num_env_steps: int) -> None:
        """Do nothing: no question is ever asked."""

    def observe(self, episodes: Sequence[Episode]) -> None:
        """Do nothing: nobody judges by episodes."""

    def hold(self, history: History, num_env_steps: int, stopping: Callable[[], bool]) -> RewardFunction | None:
        """Wait for nothing."""
        return None

    def after_rollout(self, history: History, num_env_steps: int) -> Lesson:
        """Do nothing: no question is ever due."""
        return Lesson()

    def begin_rollout(self, history: History) -> None:
        """Do nothing: nothing goes on beside."""

    def at_end(self, num_env_steps: int) -> bool:
        """Tell whether all steps are made."""
        return num_env_steps >= self.total_env_steps

    def finish(self, folder: ControlFolder, best_policy: dict[str, Any]) -> None:
        """Write nothing: the last policy, which every run keeps, is the only one."""

    def metrics(self) -> dict[str, float | None]:
        """Return no figures: no reward is fitted."""
        return {}

    def state(self) -> State:
        """Return an empty state: there is nothing to go on from."""
        return State()

    def restore(self, state: State) -> None:
        """Do nothing: the state is empty."""

    def close(self) -> None:
        """Do nothing: no record is open."""

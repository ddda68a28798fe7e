"""What a run is taught by, as the trainer sees it: comparisons asked by schedule, people, or the true reward itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from prefrl.control.bonus import Bonus, RewardWithBonus
from prefrl.control.folder import ControlFolder
from prefrl.control.reward_learner import RewardLearner
from prefrl.control.settings import RunSettings
from prefrl.history import Episode, History
from prefrl.rewards.function import RewardFunction
from prefrl.rewards.particle_entropy import ParticleEntropy
from prefrl.runs import State
from prefrl.segments import Rollout

A_FEW = 10
"""Answers from which on it can be seen whether there is anything to tell apart."""
TELLING = 3
"""Answers that are no ties from which on there is."""


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

    novelty: ParticleEntropy | None
    """What the agent is given while answers tell nothing; None: that is over, or cannot be."""

    @property
    def explores(self) -> bool:
        """Ten answers or more tell nothing, so that the agent is given the novelty of what it sees."""

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
        novelty: what the agent is given while answers tell nothing; None: the learned reward all the same.
    """

    def __init__(self, learner: RewardLearner, settings: RunSettings, novelty: ParticleEntropy | None = None) -> None:
        self.learner, self.settings, self.novelty = learner, settings, novelty
        self.total_labels, self.total_env_steps = settings.labels, settings.steps
        self._bonus = Bonus(settings.reward)
        self._said_exploring = False

    @property
    def explores(self) -> bool:
        """Ten answers or more tell nothing, or as good as nothing: fewer than three are no ties."""
        return self.novelty is not None and len(self.learner.data) >= A_FEW

    def _take_answers(self) -> None:
        """Take in the answers that there are now, and note whether they tell something."""
        self.learner.take_answers()
        self._look_whether_told()

    def _look_whether_told(self) -> None:
        """Give the agent what was learned, for good, once answers tell something or no more will be asked."""
        if self.novelty is None:
            return
        num, telling = len(self.learner.data), self.learner.data.num_telling()
        used_up = self.labels >= self.total_labels
        if telling >= TELLING or used_up:
            if num >= A_FEW and telling < TELLING:
                warnings.warn(
                    f"All {self.labels} labels are used, and {num - telling} of {num} answers are ties: the agent is "
                    "given what could be learned from them, which may be nothing.",
                    stacklevel=2,
                )
            self.novelty = None
        elif self.explores and not self._said_exploring:
            self._said_exploring = True
            warnings.warn(
                f"{num - telling} of {num} answers so far are ties: what the agent does shows nothing yet that could "
                f"be learned from. So it looks for what it has not seen (by particle entropy) until {TELLING} answers "
                "are no ties.",
                stacklevel=2,
            )

    @property
    def reward(self) -> RewardFunction | None:
        """The learned reward, once it has been fitted."""
        return self.learner.reward if self.learner.fitted else None

    def bonus(self, num_env_steps: int) -> float:
        """Return the standard deviations over members that the agent is given more after so many steps."""
        return self._bonus.at(num_env_steps)

    def given(self, num_env_steps: int) -> RewardFunction | None:
        """Return what the agent trains on after so many steps, once the reward has been fitted or while it explores."""
        if self.explores:
            return self.novelty
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

    def state(self) -> State:
        """Return what a checkpoint must hold."""
        state = self.learner.state()
        seen = {} if self.novelty is None else {"novelty": self.novelty.seen}
        return replace(state, arrays=state.arrays | seen)

    def restore(self, state: State) -> None:
        """Go on from what `state` gave; a run that did not explore, as none did before that was there, does not now."""
        self.learner.restore(state)
        if self.novelty is not None and "novelty" in state.arrays:
            self.novelty.seen = state.arrays["novelty"]
        else:
            self.novelty = None

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
    novelty: ParticleEntropy | None = None
    explores = False

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

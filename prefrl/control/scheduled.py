"""Asking by schedule: at set times a set number of labels is due (`prefrl.queries.schedule`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from prefrl.control.reward_learner import RewardLearner
from prefrl.control.settings import RunSettings
from prefrl.control.teaching import A_FEW, AnswerTeaching, Lesson
from prefrl.history import History
from prefrl.rewards.function import RewardFunction
from prefrl.rewards.particle_entropy import ParticleEntropy
from prefrl.runs import State
from prefrl.segments import Rollout

UP_FRONT_TIES = 0.8  # share of ties among a few labels before training from which on the others are postponed
ATTEMPTS = 5  # times a session asks again for what its annotator skipped


class ScheduledTeaching(AnswerTeaching):
    """Asks what is due, and fits the reward whenever an answer has come.

    Fits of perceptrons on the CPU are made beside the next rollout and update, on another core if there is one, so
    that the agent has their reward from the rollout after that on. The first fit, and the last, are waited for.

    Args:
        learner: the reward and its record.
        settings: of the run.
        novelty: what the agent is given while answers tell nothing; None: the learned reward all the same.
    """

    def __init__(self, learner: RewardLearner, settings: RunSettings, novelty: ParticleEntropy | None = None) -> None:
        super().__init__(learner, settings, novelty)
        self.schedule = settings.label_schedule()
        self._postponed: tuple[int, int] | None = None  # after how many steps some last were; labels asked by then

    def begin(self, warmup: Rollout, history: History, num_env_steps: int) -> None:
        """Take the statistics of the inputs from the warm-up, ask the labels due before training and fit."""
        self.learner.begin(warmup, history)
        self._look_whether_told()
        self._ask_up_front(history, num_env_steps)
        if self._answers_came(history, num_env_steps):
            self.learner.fit(history)

    def hold(self, history: History, num_env_steps: int, stopping: Callable[[], bool]) -> RewardFunction | None:
        """Wait for nothing: answers that come later are taken in when they are there."""
        return None

    def at_end(self, num_env_steps: int) -> bool:
        """Tell whether all steps are made."""
        return num_env_steps >= self.total_env_steps

    def after_rollout(self, history: History, num_env_steps: int) -> Lesson:
        """Ask for labels that are due, take in answers that have come, and fit if there are any."""
        learner, last = self.learner, num_env_steps >= self.total_env_steps
        fitted = learner.finish_fit(history)
        due = self._num_missing(num_env_steps) > 0
        came = (due or learner.num_open > 0) and self._answers_came(history, num_env_steps)
        if came and (last or not self._fits_beside):
            learner.fit(history)
            fitted = True
        return Lesson(learner.reward if fitted else None, learner.reward if due or fitted or last else None)

    def begin_rollout(self, history: History) -> None:
        """Begin a fit to the answers that came after the last rollout, beside the next one."""
        if self._fits_beside and 0 < len(self.learner.data) != self.learner.num_fitted:  # none: all were lost
            self.learner.begin_fit(history)

    @property
    def _fits_beside(self) -> bool:
        return self.learner.fits_beside and self.learner.fitted

    def _answers_came(self, history: History, num_env_steps: int) -> bool:
        """Ask for the labels that are due; return whether there are answers that the reward was not fitted to."""
        learner, known = self.learner, self.learner.num_fitted
        if self.explores:
            self._ask_whether_told(history, num_env_steps)
        for _ in range(ATTEMPTS):
            missing = self._num_missing(num_env_steps)
            num_asked = learner.ask(history, num_env_steps, missing) if missing > 0 else 0
            self._take_answers()
            if num_asked == 0 or learner.num_open > 0:
                break
        return len(learner.data) != known

    def _ask_up_front(self, history: History, num_env_steps: int) -> None:
        """Ask the labels due before training, a few at a time.

        Where nearly all of a few are ties, random behaviour shows too little to be worth a label: the others are
        postponed.
        """
        learner = self.learner
        due = self.schedule.labels_due(num_env_steps)
        while self.labels + learner.num_open < due:
            begin = len(learner.data)
            if not self._ask_a_few(history, num_env_steps):
                break  # there is nothing new to ask about before the agent has gone on
            ties = learner.data.share_of_ties(begin)
            if learner.num_open > 0:
                continue  # answers will come later: nothing to go by
            if ties is None:
                break
            if ties >= UP_FRONT_TIES and self._postpone(num_env_steps):
                break

    def _ask_whether_told(self, history: History, num_env_steps: int) -> None:
        """Ask a few of the labels that are due, and postpone the others where there is still nothing to learn from."""
        if self._num_missing(num_env_steps) > 0 and self._ask_a_few(history, num_env_steps) and self.explores:
            self._postpone(num_env_steps)

    def _postpone(self, num_env_steps: int) -> bool:
        """Have the labels that are due asked in the later sessions, in proportion to what these ask anyway.

        Returns:
            Whether there are any, and later sessions.
        """
        able = self._num_missing(num_env_steps) > 0 and self.schedule.labels_due(num_env_steps) < self.total_labels
        if able:
            self._postponed = num_env_steps, self.labels + self.learner.num_open
        return able

    def _ask_a_few(self, history: History, num_env_steps: int) -> int:
        """Ask no more than ten of the labels that are due and take in the answers; return how many were asked."""
        num_asked = self.learner.ask(history, num_env_steps, min(A_FEW, self._num_missing(num_env_steps)))
        self._take_answers()
        return num_asked

    def _num_missing(self, num_env_steps: int) -> int:
        """Return how many labels should have been asked by now and were not."""
        return self._labels_due(num_env_steps) - self.labels - self.learner.num_open

    def _labels_due(self, num_env_steps: int) -> int:
        """Return how many labels should have been asked by now, those that were postponed among the later."""
        planned, total = self.schedule.labels_due(num_env_steps), self.total_labels
        if self._postponed is None:
            return planned
        since, asked = self._postponed
        before = self.schedule.labels_due(since)
        if before == total:  # in a run that was given fewer labels since
            return total
        return asked + round((planned - before) / (total - before) * (total - asked))

    def state(self) -> State:
        """Return what a checkpoint must hold."""
        state = super().state()
        return replace(state, values=state.values | {"postponed": self._postponed})

    def restore(self, state: State) -> None:
        """Go on from what `state` gave."""
        super().restore(state)
        postponed = state.values["postponed"]
        if isinstance(postponed, int):  # as it was before they were postponed in later sessions too
            due = state.values["up_front"]
            postponed = (self.schedule.steps_until(due), due - postponed) if postponed else None
        self._postponed = None if postponed is None else tuple(postponed)

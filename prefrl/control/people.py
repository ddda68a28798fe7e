"""Learning the reward from people: queries wait in the record, and training goes on beside.

A few queries are always open. Answers are taken as they come, the reward is fitted when some are new, and more are
asked when few are open, about what the agent does by then. The agent trains on meanwhile, but rests when it is ahead of
the schedule by which a teacher program answers: a reward that stands still is exploited, until the agent has unlearned
to try anything else.
"""

from __future__ import annotations

import shlex
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefrl.annotators import Annotator
from prefrl.control.reward_learner import RewardLearner
from prefrl.control.settings import RunSettings
from prefrl.control.teaching import AnswerTeaching, Lesson
from prefrl.control.viewer import LostViewers
from prefrl.errors import UserError
from prefrl.feedback import Answer, Query
from prefrl.files import text_or_file
from prefrl.history import Episode, History
from prefrl.rewards.function import RewardFunction
from prefrl.rewards.particle_entropy import ParticleEntropy
from prefrl.runs import State
from prefrl.segments import Rollout, Segment
from prefrl.store.pulse import Pulse

FEW_OPEN, MANY_OPEN = 8, 12  # more are asked when fewer than the first are open, up to the second
FIT_AFTER = 5  # new answers
FIT_AFTER_SECONDS = 20.0  # or one new answer and so much time
AHEAD = 0.05  # of the run's steps that the agent may be ahead of the schedule of the labels
LAST_STRETCH = 0.2  # of the run's steps are made with the last answers
SHARED_SHARE = 0.1  # of the questions, where several people answer
POLL_SECONDS = 0.2
TELL_SECONDS = 1.0


class People:
    """Those who answer in the viewer, in their own time, and a teacher who answers what is reserved for it.

    Args:
        teacher: None if people are to answer everything.
    """

    name = "people"

    def __init__(self, teacher: Annotator | None) -> None:
        self.teacher = teacher

    def observe(self, episodes: Sequence[Episode]) -> None:
        """Pass episodes on to the teacher."""
        if self.teacher is not None:
            self.teacher.observe(episodes)

    def answer(self, queries: Sequence[Query]) -> list[Answer]:
        """Return the teacher's answers; those of people come through the record."""
        if self.teacher is None:
            return []
        mine = [query for query in queries if query.reserved_for == self.teacher.name]
        return list(self.teacher.answer(mine)) if mine else []

    def state(self) -> dict[str, Any]:
        """Return the teacher's state."""
        return {} if self.teacher is None else self.teacher.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        if self.teacher is not None:
            self.teacher.restore(state)


class PeopleTeaching(AnswerTeaching):
    """Keeps a few queries open, takes answers as they come, and rests where the agent is ahead of them.

    Args:
        learner: the reward and its record; its annotator is `People`.
        settings: of the run.
        teacher: who answers its share beside the people; None: they answer everything.
        novelty: what the agent is given while answers tell nothing; None: the learned reward all the same.
    """

    def __init__(
        self, learner: RewardLearner, settings: RunSettings, teacher: Annotator | None,
        novelty: ParticleEntropy | None = None,
    ) -> None:  # fmt: skip
        super().__init__(learner, settings, novelty)
        self._teacher = teacher
        self._instruction = text_or_file(settings.instruction)
        schedule = settings.label_schedule()
        first_share = min(schedule.initial_share, settings.wait / settings.labels)
        self._schedule = replace(schedule, initial_share=first_share)
        self._fitted_row, self._fitted_at = 0, time.monotonic()  # row of the record at the last fit, and when
        self._last_fit_steps = 0
        self._told_at = 0.0
        self._lost = LostViewers()
        self._pulse = Pulse(
            learner.store, self._facts() | {"training": "the agent plays until there is something to ask"}
        )
        self._nothing_new = False  # nothing is open, and there is nothing that was not asked about yet

    def begin(self, warmup: Rollout, history: History, num_env_steps: int) -> None:
        """Take the statistics of the inputs from the warm-up and ask the first queries."""
        if self._teacher is not None:
            self.learner.store.add_annotator(self._teacher.name, "teacher")
        self.learner.begin(warmup, history)
        self._look_whether_told()
        self._last_fit_steps = num_env_steps
        self.learner.take_up_recorded()
        self._ask_more(history, num_env_steps)
        self.tell(num_env_steps, "the agent waits for the first answers", at_once=True)

    def state(self) -> State:
        """Return what a checkpoint must hold."""
        state = super().state()
        return replace(state, values=state.values | {"people": [self._last_fit_steps, self._fitted_row]})

    def restore(self, state: State) -> None:
        """Go on from what `state` gave, and from what was asked and answered since."""
        super().restore(state)
        self._last_fit_steps, self._fitted_row = state.values["people"]
        self._fitted_row = min(self._fitted_row, self.learner.intake.read_up_to)  # lower where answers were lost
        self.learner.take_up_recorded()

    # ------------------------------------------------------------------------------------------------ as it goes

    @property
    def _complete(self) -> bool:
        return self.labels >= self.settings.labels

    def at_end(self, num_env_steps: int) -> bool:
        """All answers that can be had are in, and the agent has had time to learn from the last."""
        stretch = self._last_fit_steps + LAST_STRETCH * self.total_env_steps
        return (self._complete or self._nothing_new) and num_env_steps >= max(self.total_env_steps, stretch)

    def _num_missing(self) -> int:
        intake = self.learner.intake
        num_open = sum(not intake.answerers(name) for name in intake.open)  # a second answer is not waited for
        left = self.settings.labels - self.labels - num_open
        return min(MANY_OPEN - num_open, left) if num_open < FEW_OPEN else 0

    def after_rollout(self, history: History, num_env_steps: int) -> Lesson:
        """Take in answers, ask more where few are open, fit if enough is new."""
        due, fitted = self._num_missing() > 0, False
        if due or self.learner.num_open > 0:
            self._look(history, num_env_steps)
            self.tell(num_env_steps, self._progress(num_env_steps))
            fitted = self._fit_if_due(history, num_env_steps)
        judge = due or fitted or num_env_steps >= self.total_env_steps
        return Lesson(self.learner.reward if fitted else None, self.learner.reward if judge else None)

    def hold(self, history: History, num_env_steps: int, stopping: Callable[[], bool]) -> RewardFunction | None:
        """Wait for the first answers, and whenever none has come for long; return the reward if it was fitted."""
        fitted = waited = False
        while not stopping() and (reason := self._reason_to_wait(num_env_steps)):
            waited = True
            self._refuse_to_wait_for_nothing(history)
            self.tell(num_env_steps, reason)
            time.sleep(POLL_SECONDS)
            self._look(history, num_env_steps)
            fitted |= self._fit_if_due(history, num_env_steps)
        if waited and not stopping():  # the next rollout may take long
            self.tell(num_env_steps, self._progress(num_env_steps), at_once=True)
        return self.learner.reward if fitted else None

    def _progress(self, num_env_steps: int) -> str:
        found = "learned from"
        if self.explores:
            found = "so far, nearly all of them ties: the agent looks for something new"
        return f"training: {num_env_steps:,} steps, {self.labels} answers {found}"

    def _refuse_to_wait_for_nothing(self, history: History) -> None:
        if (
            self.learner.num_open == 0
            and self._num_missing() > 0
            and history.num_windows(self.settings.segment_length) < 2
        ):
            raise UserError(
                f"Nothing can be asked: no episode so far holds two segments of {self.settings.segment_length} steps. "
                "Use a shorter --segment-length, more --warmup-steps, or the fixed-horizon form: --fixed-horizon STEPS."
            )

    def _reason_to_wait(self, num_env_steps: int) -> str:
        if self._nothing_new:
            return ""  # the agent must go on before there is something to ask
        if len(self.learner.data) < self.settings.wait:
            return f"the agent waits for the first {self.settings.wait} answers"
        due = self._schedule.labels_due(int(num_env_steps - AHEAD * self.total_env_steps))
        last_stretch = num_env_steps >= (1 - LAST_STRETCH) * self.total_env_steps
        if self.labels < due or (last_stretch and not self._complete):
            return f"training rests at {num_env_steps:,} steps until answers come"
        return ""

    def _look(self, history: History, num_env_steps: int) -> None:
        self._take_answers()
        self._ask_more(history, num_env_steps)

    def _ask_more(self, history: History, num_env_steps: int) -> None:
        missing = self._num_missing()
        if missing > 0 and history.num_windows(self.settings.segment_length) >= 2:
            num_asked = self.learner.ask(history, num_env_steps, missing, self._prepared)
            self._nothing_new = num_asked == 0 and self.learner.num_open == 0
            self._take_answers()  # those of the teacher

    def _fit_if_due(self, history: History, num_env_steps: int) -> bool:
        read = self.learner.intake.read_up_to
        new = read - self._fitted_row
        wait = 1 if self._nothing_new else max(1, self.settings.wait)
        if new == 0 or len(self.learner.data) < wait:
            return False
        waited = time.monotonic() - self._fitted_at
        if new < FIT_AFTER and not self._complete and waited < FIT_AFTER_SECONDS and self.learner.fitted:
            return False
        self.learner.fit(history)
        self._fitted_row, self._fitted_at, self._last_fit_steps = read, time.monotonic(), num_env_steps
        return True

    def _prepared(self, query: Query, history: History) -> Query:
        """Give a query what it is shown and judged by, and to the teacher if it is one of its share."""
        reserved, overlap = None, 1
        if self._teacher is not None and int(query.id[:8], 16) / 2**32 < self.settings.teacher_share:
            reserved = self._teacher.name
        elif int(query.id[8:16], 16) / 2**32 < self._shared_share():
            overlap = 2

        def shown(segment: Segment) -> Segment:
            source = history.clip_source(segment)
            return segment if source is None else replace(segment, replay=source.to_arrays())

        segments = tuple(shown(segment) for segment in query.segments)
        return replace(query, segments=segments, instruction=self._instruction, reserved_for=reserved, overlap=overlap)

    def _shared_share(self) -> float:
        """Return the share of questions that two people are asked."""
        if self.settings.shared_share is not None:
            return self.settings.shared_share
        people = [name for name, kind in self.learner.store.annotators().items() if kind == "person"]
        return SHARED_SHARE if len(people) > 1 else 0.0

    def tell(self, num_env_steps: int, training: str, *, at_once: bool = False, state: str = "running") -> None:
        """Tell the viewers how the training stands, once a second."""
        if not at_once and time.monotonic() - self._told_at < TELL_SECONDS:
            return
        self._told_at = time.monotonic()
        store = self.learner.store
        now = {"num_env_steps": num_env_steps, "training": training, "training_state": state, "seen_at": store.now()}
        store.set_facts(self._facts() | now)
        for name in self._lost.find(store.facts(), store.now()):
            place = store.name if "://" in store.name else Path(store.name).parent
            warnings.warn(
                f"The viewer of {name!r} is gone. Open it again with: prefrl label {place} --name {shlex.quote(name)}",
                stacklevel=2,
            )

    def _facts(self) -> dict[str, Any]:
        """Return what viewers are told that stays as it is."""
        settings = self.settings
        return {"env_id": settings.env_id, "instruction": self._instruction, "labels_wanted": settings.labels}

    def close(self) -> None:
        """Tell the viewers that the training has ended, and close the record."""
        self.learner.store.patience_seconds = TELL_SECONDS
        self._pulse.stop()
        try:
            complete = self._complete
            told = "training has ended" if complete else "training was stopped"
            self.tell(0, told, at_once=True, state="finished" if complete else "stopped")
        finally:
            super().close()

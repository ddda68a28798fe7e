"""How far training goes beside people: as far as a teacher program's schedule would have it."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from prefrl.control import TrainSettings
from prefrl.control.people import AHEAD, LAST_STRETCH, PeopleTeaching
from prefrl.history import History

SETTINGS = TrainSettings(env_id="Pendulum-v1", annotator="human", labels=100, steps=100_000)


def rests(answers: int, num_env_steps: int, settings: TrainSettings = SETTINGS) -> bool:
    store = SimpleNamespace(set_facts=lambda facts: None, now=lambda: 0.0)
    learner: Any = SimpleNamespace(labels=answers, data=range(answers), store=store)
    teaching = PeopleTeaching(learner, settings.resolve(), None)
    teaching._pulse.stop()
    return bool(teaching._reason_to_wait(num_env_steps))


def test_training_begins_after_twenty_answers_or_a_quarter_of_them_where_that_is_less() -> None:
    assert rests(19, 0)
    assert not rests(20, 0)
    many, few = replace(SETTINGS, labels=600), replace(SETTINGS, labels=40)
    assert rests(19, 0, many)
    assert not rests(20, 0, many)
    assert rests(9, 0, few)
    assert not rests(10, 0, few)


@pytest.mark.parametrize("answers", [20, 25, 40, 60, 80, 99])
def test_the_agent_is_never_further_ahead_of_the_schedule_than_a_twentieth_of_the_run(answers: int) -> None:
    schedule = replace(SETTINGS.resolve().label_schedule(), initial_share=0.2)  # twenty of them before training
    furthest = max(step for step in range(0, 100_000, 500) if not rests(answers, step))
    assert schedule.labels_due(int(furthest - AHEAD * 100_000)) <= answers
    assert furthest < (1 - LAST_STRETCH) * 100_000
    assert (
        furthest + 500 >= (1 - LAST_STRETCH) * 100_000
        or schedule.labels_due(int(furthest + 500 - AHEAD * 100_000)) > answers
    )


def test_after_a_quarter_of_the_answers_the_agent_has_made_no_third_of_the_run() -> None:
    assert rests(29, 20_000)
    assert not rests(29, 8_000)


def test_the_last_fifth_is_made_with_all_answers() -> None:
    assert rests(99, 80_000)
    assert not rests(100, 80_000)


def test_who_waits_for_fewer_answers_goes_on_with_fewer() -> None:
    early = TrainSettings(env_id="Pendulum-v1", annotator="human", labels=100, steps=100_000, wait=5)
    assert rests(4, 0, early)
    assert not rests(5, 5_000, early)
    assert rests(5, 20_000, early)
    free = TrainSettings(env_id="Pendulum-v1", annotator="human", labels=100, steps=100_000, wait=0)
    assert not rests(0, 4_000, free)


class Waiting(PeopleTeaching):
    """Rests once, and notes what it tells."""

    def __init__(self) -> None:
        self.reasons, self.told = ["training rests", ""], list[str]()
        self.learner: Any = None

    def _reason_to_wait(self, num_env_steps: int) -> str:
        return self.reasons.pop(0) if self.reasons else ""

    def _look(self, *_: object) -> None: ...

    def _refuse_to_wait_for_nothing(self, *_: object) -> None: ...

    def _fit_if_due(self, *_: object) -> bool:
        return False

    def _progress(self, num_env_steps: int) -> str:
        return "training"

    def tell(self, num_env_steps: int, training: str, *, at_once: bool = False, state: str = "running") -> None:
        self.told.append(training)


def test_people_are_told_that_it_goes_on_when_it_does_and_not_when_it_stops() -> None:
    going_on, stopping, free = Waiting(), Waiting(), Waiting()
    going_on.hold(History(1_000), 0, lambda: False)
    assert going_on.told == ["training rests", "training"]
    stopping.hold(History(1_000), 0, lambda: bool(stopping.told))
    assert stopping.told == ["training rests"]
    free.reasons = []
    free.hold(History(1_000), 0, lambda: False)
    assert free.told == []

"""Whether those who answer are told that more will come: the one who asks is at work, has ended, or is gone."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from prefrl.control import TrainSettings
from prefrl.control.people import PeopleTeaching
from prefrl.human_ui.page.host import Host, Person
from prefrl.human_ui.sitting import Sitting
from prefrl.store import PreferenceStore, pulse
from prefrl.store.pulse import Pulse, is_running
from prefrl.text.data.asking import PeopleComparing

ANNA = Person(name="anna", role="annotator")


@pytest.fixture
def store(tmp_path: Path) -> PreferenceStore:
    return PreferenceStore(tmp_path / "record.sqlite")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(pulse, "SILENT_SECONDS", 0.5)


def running(store: PreferenceStore) -> bool:
    return is_running(store, store.facts())


@pytest.mark.usefixtures("quick")
def test_a_program_is_at_work_for_as_long_as_it_lives_however_long_it_says_nothing(store: PreferenceStore) -> None:
    assert not running(store)
    beats = Pulse(store, {"training": "a fit that takes long"})
    time.sleep(0.8)
    assert running(store) and store.facts()["training"] == "a fit that takes long"
    beats.stop()
    assert running(store)
    time.sleep(0.6)
    assert not running(store), "it is gone"


@pytest.mark.usefixtures("quick")
def test_a_record_that_cannot_be_written_for_a_while_does_not_end_the_pulse(
    store: PreferenceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefrl.errors import UserError

    def away(facts: object) -> None:
        raise UserError("away")

    beats = Pulse(store, {})
    with monkeypatch.context() as patch:
        patch.setattr(store, "set_facts", away)
        time.sleep(0.6)
        assert not running(store)
    time.sleep(0.2)
    assert running(store)
    beats.stop()


def test_nobody_is_told_that_nothing_more_comes_while_the_agent_makes_its_first_steps(store: PreferenceStore) -> None:
    host, sitting = Host(store, run="r"), Sitting("anna", run="r", environment="", repeat_share=0.0)
    settings = TrainSettings(env_id="Pendulum-v1", annotator="human", labels=30).resolve()
    learner: Any = SimpleNamespace(labels=0, data=[], store=store)
    teaching = PeopleTeaching(learner, settings, None)
    found = host.next(ANNA)
    standing = sitting.standing(store)
    teaching._pulse.stop()
    assert not found["finished"] and found["completion"] is None
    assert found["standing"]["training"] == "the agent plays until there is something to ask"
    assert (standing.wanted, standing.running, sitting.is_over(store, standing, 0)) == (30, True, False)


def test_who_compares_a_models_answers_is_not_sent_away_between_two_of_them(tmp_path: Path) -> None:
    people = PeopleComparing(str(tmp_path / "record.sqlite"))
    with PreferenceStore(tmp_path / "record.sqlite") as store:
        host = Host(store, run="r")
        with people.at_work():
            assert not host.next(ANNA)["finished"]
        assert Host(store, run="r").next(ANNA)["finished"] and store.facts()["training_state"] == "finished"
        with pytest.raises(KeyboardInterrupt), people.at_work():
            raise KeyboardInterrupt
        assert store.facts()["training_state"] == "stopped"

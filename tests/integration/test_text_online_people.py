"""Online DPO from people: questions wait in the record of the run while the policy is trained on the answers."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefrl.feedback import Comparison, Edit, Query
from prefrl.runs.guard import Interrupted
from prefrl.runs.optimisation import OptimiserSettings
from prefrl.store import PreferenceStore
from prefrl.text.data.asking import PeopleComparing
from prefrl.text.jobs import jobs, policies
from prefrl.text.jobs.folder import TextFolder
from prefrl.text.jobs.parts import Place, Watch
from prefrl.text.learn.online import OnlineSettings
from prefrl.text.model.generation import SamplingSettings
from tests.integration.test_text_chain import FAST, run

NUM_ANSWERS, OF_STEP, AHEAD = 12, 4, 6


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("people")
    assert run("pretrain", "--size", "tiny", "--paragraphs", "1500", "--out", path / "base", *FAST) == 0
    return path / "base"


def job_of(base: Path) -> policies.OnlineDPOJob:
    return policies.OnlineDPOJob(
        model=str(base), annotator="human", instruction="The shorter one.", place=Place(device="cpu"),
        watch=Watch(times=1, prompts=4),
        training=OnlineSettings(
            episodes=2 * NUM_ANSWERS, batch_size=2 * OF_STEP, minibatch_size=2 * OF_STEP, ahead=AHEAD,
            sampling=SamplingSettings(max_tokens=40), optimiser=OptimiserSettings(learning_rate=1e-3),
        ),
    )  # fmt: skip


class Person(threading.Thread):
    """Answers the questions of a record one by one, as fast as they come, up to so many."""

    def __init__(self, record: Path, most: int, then: Callable[[], Any] = lambda: None) -> None:
        super().__init__(daemon=True)
        self.record, self.most, self.then, self.waiting = record, most, then, list[int]()

    def run(self) -> None:
        given, until = 0, time.monotonic() + 120
        while given < self.most and time.monotonic() < until:
            time.sleep(0.02)
            if not self.record.is_file():
                continue
            with PreferenceStore(self.record) as store:
                asked = store.open_queries()
                for query in asked[:1]:
                    self.waiting.append(len(asked))
                    store.add_answers([answer_to(query)])
                    given += 1
        self.then()


def answer_to(query: Query) -> Comparison:
    first, second = (len(response.text) for response in query.responses)
    return about(query, float(first < second))


def about(query: Query, preference: float | None) -> Comparison:
    return Comparison(query_id=query.id, preference=preference, annotator="anna")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefrl.runs import running

    monkeypatch.setattr(running, "SECONDS_BETWEEN_LOOKS", 0.05)


@pytest.mark.usefixtures("quick")
def test_a_policy_is_trained_beside_the_person_and_goes_on_after_a_stop(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"

    def stop() -> None:
        time.sleep(1.0)  # it waits for more
        os.kill(os.getpid(), signal.SIGTERM)

    first = Person(out / "record.sqlite", OF_STEP + 1, stop)
    first.start()
    with pytest.raises(Interrupted, match="resume"):
        jobs.start(job_of(base), out, quiet=True)
    first.join()
    assert [row["step"] for row in TextFolder.open(out).read_metrics()] == [1]
    second = Person(out / "record.sqlite", NUM_ANSWERS - OF_STEP - 1)
    second.start()
    folder = jobs.resume(out, quiet=True)
    second.join()
    rows = folder.read_metrics()
    assert [row["step"] for row in rows] == [1, 2, 3], "no answer is learned from twice, none is lost"
    assert {"loss", "accuracy", "chosen_reward", "age_steps", "length", "untold"} <= set(rows[0])
    ages = [row["age_steps"] for row in rows]
    assert ages[0] == 0 < max(ages), "questions are drawn ahead"
    assert max(first.waiting + second.waiting) <= AHEAD
    with PreferenceStore(out / "record.sqlite") as store:
        assert store.num_answers() == NUM_ANSWERS
        assert store.query(store.query_ids()[0]).instruction == "The shorter one."
    assert folder.read_summary()["steps"] == 3


def test_answers_that_come_faster_than_is_learned_are_of_no_old_policy(base: Path, tmp_path: Path) -> None:
    from prefrl.text.data.examples import Encoder
    from prefrl.text.learn.online import OnlineTrainer
    from prefrl.text.learn.runtime import Runtime
    from prefrl.text.model.models import load_model

    model, tokens = load_model(base)
    record = tmp_path / "record.sqlite"
    prompts = [f"My lamp, order {number}: it is broken." for number in range(10, 40)]
    settings, encoder = job_of(base).training, Encoder(tokens, 256, 40)
    trainer = OnlineTrainer(model, encoder, prompts, PeopleComparing(str(record)), settings, runtime=Runtime("cpu"))
    ages, asked = [], []
    for _ in range(5):
        for _ in range(20):  # all that is asked is answered at once, time and again before the next step
            trainer.ready()
            with PreferenceStore(record) as store:
                store.add_answers([answer_to(query) for query in store.open_queries()])
                asked.append(len(store.query_ids()) - OF_STEP * trainer.num_steps)
        ages.append(trainer.step()["age_steps"])
    assert max(asked) == AHEAD
    assert max(ages) <= AHEAD / OF_STEP


def test_what_somebody_said_is_never_removed_with_a_run_that_made_no_step(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefrl.text.learn.online import OnlineTrainer

    asked = OnlineTrainer.ready

    def ready(self: OnlineTrainer) -> bool:
        asked(self)
        raise Interrupted("stopped before the first step")

    monkeypatch.setattr(OnlineTrainer, "ready", ready)
    with pytest.raises(Interrupted):
        jobs.start(job_of(base), tmp_path / "run", quiet=True)
    waiting, in_all = PeopleComparing(str(tmp_path / "run" / "record.sqlite")).counts()
    assert 0 < waiting == in_all <= AHEAD


def test_answers_teach_once_those_taken_back_in_time_not_at_all_and_too_late_are_counted(tmp_path: Path) -> None:
    people = PeopleComparing(str(tmp_path / "record.sqlite"))
    people.ask(["p", "q", "r", "s"], [["a", "b"], ["c", "d", "e"], ["f", "g"], ["h", "h"]], 7)
    with PreferenceStore(tmp_path / "record.sqlite") as store:
        by_prompt = {query.responses[0].prompt: query for query in store.open_queries()}
        assert set(by_prompt) == {"p", "q", "r"}, "two that read the same are no question"
        (first,) = store.add_answers([about(by_prompt["p"], 0.0)])
        store.add_answers([about(by_prompt["r"], None)])
        (edit,) = store.add_answers([Edit(query_id=by_prompt["r"].id, annotator="anna", item=1, text="G")])
        assert people.num_new() == 2
        (one,) = people.take(1)
        assert (one.prompt, one.responses, one.said, one.asked_at) == ("p", ("a", "b"), 0.0, 7)
        store.undo(edit, "anna")  # before it was read
        store.undo(first, "anna")  # after it was
    assert people.take(9) == []
    assert (people.num_untold, people.num_late) == (1, 1)

"""Training beside people: here a thread that answers through the record, as the viewer does."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from background import in_background

from prefrl.clips.codec import decode_clip
from prefrl.control import TrainSettings, train
from prefrl.control.earlier import copy_answers
from prefrl.control.folder import ControlFolder
from prefrl.control.reward_learner import RewardLearner
from prefrl.control.run import resume
from prefrl.errors import UserError
from prefrl.feedback import Comparison
from prefrl.feedback.queries import JUDGING_SESSION
from prefrl.quality import measure_quality
from prefrl.store import Claim, PreferenceStore
from prefrl.store.engine import Database

Judge = Callable[[PreferenceStore, Claim], float | None]


def by_true_return(store: PreferenceStore, claim: Claim) -> float | None:
    first, second = (segment.true_rewards.sum() for segment in store.query(claim.query.id).segments)
    return 0.5 if first == second else float(first > second)


@contextmanager
def person(
    out: Path,
    judge: Judge = by_true_return,
    *,
    name: str = "anna",
    with_clips: bool = False,
    pause: float = 0.0,
) -> Iterator[None]:
    """Answer whatever a run asks, from a thread."""

    def work(over: threading.Event) -> None:
        while not over.wait(0.05):  # until there is a record, and again where it could not be read yet
            with suppress(UserError), PreferenceStore(out / "record.sqlite", create=False) as store:
                while not over.wait(pause or 0.02):
                    for claim in store.claim(name, 1, with_clips=with_clips, repeat_share=0.0):
                        answer = Comparison(
                            query_id=claim.query.id,
                            annotator=name,
                            preference=judge(store, claim),
                            shown=claim.shown,
                            claim=claim.token,
                        )
                        store.add_answers([answer])

    with in_background(work):
        yield


def settings(**options: Any) -> TrainSettings:
    small: dict[str, Any] = {
        "env_id": "Pendulum-v1",
        "labels": 12,
        "steps": 6_000,
        "annotator": "human",
        "segment_length": 20,
        "num_envs": 4,
        "warmup_steps": 400,
        "hyperparameters": {"n_steps": 100},
        "wait": 4,
    }
    return TrainSettings(**{**small, **options})


def test_people_teach_a_run_that_goes_on_beside_them_by_clips_of_the_record(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with person(out, with_clips=True):
        folder = train(settings(instruction="Upright."), out, quiet=True)
    rows = folder.read_metrics()
    assert rows[0]["labels"] >= 4, "the agent did not wait for the first answers"
    assert rows[-1]["labels"] == 12
    assert rows[-1]["num_env_steps"] >= 6_000
    with PreferenceStore(folder.record_path) as store:
        assert store.num_answers(teaching=True) == 12
        facts = store.facts()
        assert facts["training_state"] == "finished"
        assert facts["instruction"] == "Upright."
        assert 0 <= facts["held_out_agreement"]["share"] <= 1
        for _, answer in store.answers():
            (card,) = store.cards([answer.query_id])
            clips = store.clips(card.segment_ids)
            assert len(clips) == 2
        pictures = decode_clip(next(iter(clips.values())).data)
        assert len(pictures.frames) == 20
        assert pictures.frames_per_second == 30


def test_while_people_find_all_alike_the_agent_looks_for_something_new(tmp_path: Path) -> None:
    out, states, count = tmp_path / "run", set(), iter(range(1000))

    def judge(store: PreferenceStore, claim: Claim) -> float | None:
        states.add(str(store.facts().get("training")))
        return 0.5 if next(count) < 12 else by_true_return(store, claim)

    with person(out, judge, pause=0.05):
        folder = train(settings(labels=24, steps=30_000, wait=10), out, quiet=True)
    rows = folder.read_metrics()
    assert "novelty" in rows[0] and "novelty" not in rows[-1]
    assert any("looks for something new" in state for state in states)


def test_what_cannot_be_told_is_asked_anew_and_costs_nothing(tmp_path: Path) -> None:
    count = iter(range(1000))

    def sometimes(store: PreferenceStore, claim: Claim) -> float | None:
        return None if next(count) % 3 == 0 else by_true_return(store, claim)

    out = tmp_path / "run"
    with person(out, sometimes):
        folder = train(settings(labels=8), out, quiet=True)
    with PreferenceStore(folder.record_path) as store:
        asked = store.answers(up_to_session=JUDGING_SESSION - 1)  # those after it judge the run and teach nothing
        told = [answer.preference for _, answer in asked if isinstance(answer, Comparison)]
    assert sum(preference is not None for preference in told) == 8
    assert None in told


def test_a_teacher_and_people_share_the_work(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with person(out):
        folder = train(settings(labels=20, annotator="both", teacher_share=0.5, wait=0), out, quiet=True)
    with PreferenceStore(folder.record_path) as store:
        names = [answer.annotator for _, answer in store.answers()]
        assert store.annotators()["oracle"] == "teacher"
        queries = [answer.query_id for _, answer in store.answers()]
    assert len(queries) == len(set(queries))
    assert names.count("anna") >= 3
    assert names.count("oracle") >= 3


def test_questions_may_be_put_to_two_people_and_one_alone_holds_nothing_up(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with person(out), person(out, name="ben"):
        folder = train(settings(labels=20, shared_share=0.5, wait=0), out, quiet=True)
    assert folder.read_metrics()[-1]["labels"] >= 20
    with PreferenceStore(folder.record_path) as store:
        wanted = [query.overlap for query in store.queries(store.query_ids())]
        (pair,) = measure_quality(store).pairs
    assert {*wanted} == {1, 2}
    assert (pair.first, pair.second) == ("anna", "ben")
    with person(tmp_path / "alone"):
        alone = train(settings(labels=20, shared_share=1.0, wait=0), tmp_path / "alone", quiet=True)
    assert alone.read_metrics()[-1]["labels"] == 20


def test_training_rests_when_nobody_answers_and_goes_on_when_somebody_does(tmp_path: Path) -> None:
    out = tmp_path / "run"
    outcome: list[Any] = []
    thread = threading.Thread(target=lambda: outcome.append(train(settings(), out, quiet=True)), daemon=True)
    thread.start()
    with person(out, pause=0.05):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(UserError), PreferenceStore(out / "record.sqlite", create=False) as store:
                if store.num_answers() >= 5:
                    break
            time.sleep(0.05)
    with PreferenceStore(out / "record.sqlite") as store:
        while "rests" not in store.facts()["training"] and time.monotonic() < deadline:
            time.sleep(0.1)
        facts = store.facts()
        assert "rests" in facts["training"]
        time.sleep(1.5)
        assert store.facts()["num_env_steps"] == facts["num_env_steps"]
    with person(out):
        thread.join(timeout=60)
    assert outcome[0].read_metrics()[-1]["labels"] == 12


def test_a_later_run_starts_from_the_answers_of_an_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train(settings(annotator="teacher", labels=15), tmp_path / "first", quiet=True)
    sizes: list[int] = []
    fit = RewardLearner.fit

    def noting(self: RewardLearner, history: Any) -> None:
        sizes.append(len(self.data))
        fit(self, history)

    monkeypatch.setattr(RewardLearner, "fit", noting)
    second = train(settings(annotator="teacher", labels=10, from_run=str(first.path)), tmp_path / "second", quiet=True)
    assert sizes[0] > 15
    assert sizes[-1] == 25
    assert second.read_metrics()[-1]["labels"] == 10
    with person(tmp_path / "third"):
        third = train(settings(labels=6, from_run=str(first.path)), tmp_path / "third", quiet=True)
    assert third.read_metrics()[-1]["labels"] == 6
    with PreferenceStore(third.record_path) as store:
        assert [a.annotator for _, a in store.answers()].count("oracle") == 15
        assert store.annotators()["oracle"] == "teacher"
        assert store.num_answers(teaching=True) - store.facts()["labels_before"] == 6


def test_nobody_is_asked_what_was_answered_in_the_earlier_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train(settings(annotator="teacher", labels=15), tmp_path / "first", quiet=True)
    env = gymnasium.make(settings().env_id)
    write, num_open = Database.write, set[int]()
    with PreferenceStore(tmp_path / "record.sqlite") as store:

        def noting(self: Database, work: Callable[[Any], Any]) -> Any:
            result = write(self, work)
            num_open.add(store.num_open("anna"))
            return result

        monkeypatch.setattr(Database, "write", noting)
        copy_answers(first.path, store, (env.observation_space, env.action_space), settings().segment_length)
        assert store.num_answers() == 15
    assert num_open == {0}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"wait": 13}, "between 0 and the labels"),
        ({"annotator": "cat"}, "teacher, human or both"),
        ({"teacher_share": 1.0}, "between 0 and 1"),
        ({"shared_share": 1.5}, "must lie in"),
        ({"shared_share": 0.5, "annotator": "teacher"}, "questions to people"),
        ({"env_id": "test_people:Unseen-v0"}, "cannot be shown to people"),
    ],
)
def test_settings_that_cannot_work_say_so(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        train(settings(**options), tmp_path / "run", quiet=True)


def test_a_run_does_not_wait_for_answers_to_what_it_cannot_ask(tmp_path: Path) -> None:
    short = settings(env_id="CartPole-v1", fixed_horizon=0, segment_length=120, warmup_steps=800)
    with pytest.raises(UserError, match=r"Nothing can be asked.*--segment-length"):
        train(short, tmp_path / "run", quiet=True)


def test_earlier_answers_that_do_not_fit_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    first = train(settings(annotator="teacher", labels=5), tmp_path / "first", quiet=True)
    for options, told in (
        ({"segment_length": 10}, "20 steps"),
        ({"env_id": "CartPole-v1"}, "another environment"),
        ({"from_run": "nowhere"}, "no run in nowhere"),
    ):
        with pytest.raises(UserError, match=told):
            train(settings(**{"from_run": str(first.path), **options}), tmp_path / "x", quiet=True)
        assert not (tmp_path / "x").exists()


def test_killed_training_goes_on_with_every_answer(tmp_path: Path) -> None:
    out = tmp_path / "run"
    program = (
        f"import sys; sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]}; "
        "from pathlib import Path\n"
        "from prefrl.control import train; from test_people import settings\n"
        "train(settings(labels=30, steps=20_000), Path(sys.argv[1]), quiet=True)"
    )
    training = subprocess.Popen([sys.executable, "-c", program, str(out)])
    deadline = time.monotonic() + 120
    with person(out, pause=0.05):
        while time.monotonic() < deadline:
            with suppress(UserError), PreferenceStore(out / "record.sqlite", create=False) as store:
                if store.num_answers() >= 8:
                    break
            assert training.poll() is None
            time.sleep(0.05)
        training.send_signal(signal.SIGKILL)
        training.wait()
        time.sleep(0.5)  # people go on answering what is open
        folder = resume(out, quiet=True)
    with PreferenceStore(ControlFolder.open(out).record_path) as store:
        answered = [answer.query_id for _, answer in store.answers(up_to_session=JUDGING_SESSION - 1)]
    assert len(answered) == len(set(answered)) == 30
    assert folder.read_metrics()[-1]["labels"] == 30


class Unseen(gymnasium.Env[Any, Any]):
    """An environment that has no pictures."""

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    observation_space = gymnasium.spaces.Box(-1, 1, (1,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(1, np.float32), 0.0, False, False, {}


gymnasium.register("Unseen-v0", entry_point=Unseen, max_episode_steps=100)

"""Fits of the reward beside the agent: when one is over on the clock decides nothing."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from prefrl.control import ControlFolder, Interrupted, TrainSettings, fit_worker, resume, reward_learner, train
from prefrl.control.fit_worker import FitJob, FitWorker
from prefrl.control.loop import Trainer
from prefrl.control.reward_learner import RewardLearner
from prefrl.control.settings import QuerySettings
from prefrl.errors import UserError
from prefrl.rewards import ComparisonData, FitSettings, Fitter, RewardEnsemble
from prefrl.threads import one_thread
from tests.outcomes import assert_same, outcome

TINY = TrainSettings(
    env_id="Pendulum-v1", labels=24, steps=3200, num_envs=2, segment_length=20, warmup_steps=400, num_checkpoints=3,
    hyperparameters={"n_steps": 100, "batch_size": 50, "n_epochs": 2},
)  # fmt: skip


@pytest.fixture
def in_a_process(monkeypatch: pytest.MonkeyPatch) -> list[FitJob]:
    """Make all fits in the other process but the first, which is begun after that; returns those it was given."""
    jobs: list[FitJob] = []
    submit = FitWorker.submit

    def noted(worker: FitWorker, job: FitJob) -> Any:
        jobs.append(job)
        return submit(worker, job)

    def ready(worker: FitWorker) -> bool:
        worker._begun.exception()  # wait for it
        return True

    monkeypatch.setattr(reward_learner, "LONG_FIT_SECONDS", 0.0)
    monkeypatch.setattr(FitWorker, "submit", noted)
    monkeypatch.setattr(FitWorker, "ready", property(ready))
    return jobs


def run(path: Path, settings: TrainSettings = TINY) -> ControlFolder:
    folder = ControlFolder.create(path, settings.resolve(), baseline=False)
    with one_thread():
        trainer = Trainer(folder, fit_threads=2)
        try:
            assert trainer.run()
        finally:
            trainer.close()
    return folder


MIXED = replace(TINY, queries=QuerySettings(feedback="mixed", num_ranked=3), fit=FitSettings(estimate_reliability=True))


MANY = replace(  # a sum of more than 32,768 numbers is one that PyTorch divides among its threads
    TINY, reward=replace(TINY.reward, num_members=1), reference_segments=2_000, queries=QuerySettings(method="uniform")
)


DYNAMICS = replace(TINY, reward=replace(TINY.reward, network="dynamics"), fit=FitSettings(dynamics_steps=20))


@pytest.mark.parametrize(
    "settings", [TINY, MIXED, replace(TINY, env_id="MountainCar-v0", segment_length=10), MANY, DYNAMICS]
)
def test_it_is_the_same_whoever_makes_the_fits(
    settings: TrainSettings, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Strengths and ties, cut points and reliability go there and back, and inputs that follow the agent."""
    own = run(tmp_path / "own", settings)
    jobs = request.getfixturevalue("in_a_process")
    other = run(tmp_path / "other", settings)
    assert len(jobs) > 3
    assert_same(outcome(own), outcome(other))


def test_where_the_process_ends_the_training_makes_the_fits_itself(
    tmp_path: Path, in_a_process: list[FitJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = train(TINY, tmp_path / "own", quiet=True)
    exchange = FitWorker._exchange

    def kill(worker: FitWorker, job: bytes) -> Any:
        if len(in_a_process) == 3:
            worker._process.kill()
        return exchange(worker, job)

    monkeypatch.setattr(FitWorker, "_exchange", kill)
    with pytest.warns(UserWarning, match="has ended, or could not begin. The training makes the fits itself"):
        other = run(tmp_path / "other")
    assert len(in_a_process) == 3
    assert_same(outcome(own), outcome(other))


@pytest.mark.parametrize("where", [["/nonexistent/python"], [sys.executable, "-c", "import sys; sys.exit(3)"]])
def test_where_no_process_can_begin_it_goes_on_without(
    where: list[str], tmp_path: Path, in_a_process: list[FitJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = subprocess.Popen
    monkeypatch.setattr(fit_worker.subprocess, "Popen", lambda _, **options: begin(where, **options))
    with pytest.warns(UserWarning, match="has ended, or could not begin"):
        folder = run(tmp_path / "run")
    assert folder.read_metrics()[-1]["labels"] == 24


def test_the_agent_has_a_reward_from_the_rollout_after_the_next_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    def noted(of: type, name: str, called: str) -> None:
        original = getattr(of, name)

        def call(*arguments: Any) -> Any:
            result = original(*arguments)
            if result is not False:
                events.append(called)
            return result

        monkeypatch.setattr(of, name, call)

    noted(RewardLearner, "begin_fit", "begun")
    noted(RewardLearner, "finish_fit", "over")
    noted(Trainer, "_take_in", "acted")
    noted(Trainer, "_save_checkpoint", "saved")
    train(TINY, tmp_path / "run", quiet=True)
    assert "begun" in events
    for place, event in enumerate(events):
        if event == "begun":  # with a rollout, with which it is over: no checkpoint lies between
            assert events[place + 1 : place + 3] == ["acted", "over"]


def test_a_run_that_is_stopped_while_a_fit_is_under_way_waits_for_it_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_fit = RewardLearner.begin_fit
    trainers: list[Trainer] = []
    begin = Trainer.__init__

    def kept(trainer: Trainer, *arguments: Any, **options: Any) -> None:
        begin(trainer, *arguments, **options)
        trainers.append(trainer)

    def stop(learner: RewardLearner, *arguments: Any) -> None:
        begin_fit(learner, *arguments)
        trainers[-1].stop()

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "__init__", kept)
        patch.setattr(RewardLearner, "begin_fit", stop)
        with pytest.raises(Interrupted):
            train(TINY, tmp_path / "run", quiet=True)
    folder = resume(tmp_path / "run", quiet=True)
    rows = folder.read_metrics()
    assert folder.finished and rows[-1]["labels"] == 24
    assert [row["num_env_steps"] for row in rows] == list(range(600, 3201, 200))


@pytest.mark.parametrize("process", [True, False])
def test_what_goes_wrong_in_a_fit_is_said_and_nothing_stays(
    process: bool, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if process:
        request.getfixturevalue("in_a_process")
        monkeypatch.setattr(FitWorker, "_exchange", lambda *_: (_ for _ in ()).throw(EOFError))
    fit = Fitter.fit

    def fails(fitter: Fitter, *arguments: Any, **options: Any) -> Any:
        if fitter.num_fits == 2:
            raise UserError("The third fit cannot be.")
        return fit(fitter, *arguments, **options)

    monkeypatch.setattr(Fitter, "fit", fails)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with pytest.raises(UserError, match="The third fit cannot be"):
            run(tmp_path / "run")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fit")]


@pytest.mark.parametrize(
    "settings",
    [
        replace(TINY, reward=replace(TINY.reward, groups=2), panel=("oracle", "inverted")),
        replace(TINY, reward=replace(TINY.reward, network="transformer")),
    ],
)
def test_fits_that_others_look_into_or_that_draw_from_global_streams_are_waited_for(
    settings: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    monkeypatch.setattr(RewardLearner, "begin_fit", lambda *_: begun.append(1))
    train(replace(settings, steps=1200), tmp_path / "run", quiet=True)
    assert not begun


class Noise:
    """Writes into the standard output of whoever unpickles it, as a library in C does."""

    def __reduce__(self) -> Any:
        return os.write, (1, b"noise from a library, longer than the size of what follows")


def test_what_a_library_prints_is_no_result(
    tmp_path: Path, in_a_process: list[FitJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = FitWorker.submit
    monkeypatch.setattr(FitWorker, "submit", lambda worker, job: submit(worker, replace(job, draw=Noise())))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(tmp_path / "run")
    assert len(in_a_process) > 3


def test_what_is_no_result_leaves_the_fits_to_the_training(
    tmp_path: Path, in_a_process: list[FitJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FitWorker, "_exchange", lambda *_: pickle.loads(b"noise"))
    with pytest.warns(UserWarning, match="The training makes the fits itself"):
        folder = run(tmp_path / "run")
    assert len(in_a_process) == 1 and folder.read_metrics()[-1]["labels"] == 24


def test_signals_do_not_reach_it_while_it_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "told"
    (tmp_path / "prefrl").mkdir()
    (tmp_path / "prefrl" / "__init__.py").write_text(
        f"import signal; open({str(told)!r}, 'w').write(str(signal.getsignal(signal.SIGINT) == signal.SIG_IGN))\n"
        "raise SystemExit\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    worker = FitWorker()
    assert isinstance(worker._begun.exception(), EOFError)
    worker.close()
    assert told.read_text() == "True"


def test_a_space_of_a_users_own_within_another_stays_here() -> None:
    class Own(spaces.Box):
        pass

    seen = spaces.Dict({"own": Own(-1, 1, (2,))})
    ensemble = RewardEnsemble(seen, spaces.Box(-1, 1, (1,)))
    job = FitJob(
        fitter=Fitter(ensemble), data=ComparisonData(ensemble, 5), seed=0, recently=None,
        transitions=None, reference=None, num_reference=1, draw=np.random.default_rng(0),
    )  # fmt: skip
    assert not job.can_move

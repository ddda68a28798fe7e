"""docs/extending.md: objects of a user's own on the command line, and in a run that is stopped and resumed."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gymnasium
import pytest

from prefrl.cli import main
from prefrl.control import ControlFolder, QuerySettings, TrainSettings, resume, train
from prefrl.control.loop import Trainer
from prefrl.errors import UserError
from prefrl.rewards import RewardEnsemble, RewardSettings
from prefrl.store import PreferenceStore
from tests.documents import write_files
from tests.outcomes import assert_same, outcome

PAGE = Path(__file__).resolve().parents[2] / "docs" / "extending.md"
OWN = TrainSettings(
    env_id="mine:CORRIDOR",
    agent="mine:HillClimb",
    teacher="mine:Hurried",
    queries=QuerySettings(method="mine:nearest_to_a_tie", schedule="mine:early", feedback="mine:Best", num_ranked=3),
    reward=RewardSettings(network="mine:wide"),
    labels=12,
    steps=2_000,
    num_envs=2,
    num_checkpoints=4,
)


@pytest.fixture(autouse=True)
def folder_with_mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)  # another test may have had one
    assert tmp_path / "mine.py" in write_files(PAGE, tmp_path)
    yield
    sys.modules.pop("mine", None)
    gymnasium.registry.pop("Corridor-v0", None)


def test_the_command_of_the_page_trains_and_what_it_made_can_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    found = re.search(r"^    prefrl train mine:(?:.*\\\n)+.*", PAGE.read_text(), re.MULTILINE)
    assert found is not None
    arguments = found.group(0).replace("\\\n", " ").split()[1:]
    quick = {"40": "12", "10000": "3000"}
    assert main([quick.get(word, word) for word in arguments] + ["--out", "run", "--num-envs", "2", "--quiet"]) == 0
    folder = ControlFolder.open(Path("run"))
    settings = folder.config["settings"]
    assert (settings["env_id"], settings["agent"], settings["teacher"]) == (OWN.env_id, OWN.agent, OWN.teacher)
    assert settings["queries"]["method"] == "mine:nearest_to_a_tie"
    assert settings["segment_length"] == 10  # of the task
    assert settings["hyperparameters"] == {"change": 0.5}
    assert "best" in folder.read_metrics()[-1]
    with PreferenceStore(folder.record) as store:
        answers = [answer for _, answer in store.answers()]
        assert {(answer.annotator, answer.kind) for answer in answers} == {("hurried", "mine:Best")}
    assert folder.read_metrics()[-1]["reward_train_accuracy"] > 0.6
    assert RewardEnsemble.load(folder.path).settings.network == "mine:wide"
    assert main(["evaluate", "run", "--policy", "best", "--episodes", "3"]) == 0
    assert main(["report", "run"]) == 0
    assert main(["quality", "run"]) == 0
    assert main(["export", "run", "--to", "data"]) == 0
    assert main(["import", "data", "--to", "copy.sqlite"]) == 0
    with PreferenceStore(Path("copy.sqlite")) as store:
        assert [answer for _, answer in store.answers()] == answers


def test_a_run_of_ones_own_that_was_stopped_ends_as_one_that_was_not(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(OWN, Path("whole"), quiet=True)
    iterate, made = Trainer._iterate, 0

    def iterate_and_stop(trainer: Trainer) -> None:
        nonlocal made
        iterate(trainer)
        made += 1
        if made == 6:
            raise KeyboardInterrupt  # as a kill: what came after the last checkpoint is lost

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_iterate", iterate_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train(OWN, Path("stopped"), quiet=True)
    sys.modules.pop("mine")  # a new process has not imported it
    again = resume(Path("stopped"), quiet=True)
    assert_same(outcome(whole), outcome(again))


def test_objects_of_a_file_are_found_again_by_their_path(tmp_path: Path) -> None:
    settings = replace(OWN, env_id="mine.py:CORRIDOR", agent="mine.py:HillClimb", steps=1_000)
    folder = train(settings, Path("run"), quiet=True)
    assert folder.settings.agent == "mine.py:HillClimb"


def test_a_run_whose_module_is_gone_says_so(tmp_path: Path) -> None:
    folder = train(replace(OWN, steps=1_000), Path("run"), quiet=True)
    folder.summary_path.unlink()
    sys.modules.pop("mine")
    (tmp_path / "mine.py").unlink()
    with pytest.raises(UserError, match=r"There is no module 'mine' to load"):
        resume(folder.path, quiet=True)

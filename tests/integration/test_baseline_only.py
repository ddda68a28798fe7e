"""A run on the environment's own reward alone, to see what an agent can do before anybody is asked."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from gymnasium.envs.classic_control import PendulumEnv

from prefrl.cli import main
from prefrl.control import ControlFolder, Interrupted, TrainSettings, resume
from prefrl.control import run as runs
from prefrl.control.loop import Trainer
from prefrl.control.run import train_baseline
from prefrl.errors import UserError
from prefrl.hub.card import card_of
from prefrl.hub.packing import pack, people_of
from tests.outcomes import figures

QUICK = [
    "--steps", "3200", "--num-envs", "2", "--segment-length", "20", "--warmup-steps", "400",
    "--hyper", "n_steps=100", "batch_size=50", "n_epochs=2", "--quiet",
]  # fmt: skip
TINY = TrainSettings(
    env_id="Pendulum-v1", steps=3200, num_envs=2, segment_length=20, warmup_steps=400, num_checkpoints=5,
    hyperparameters={"n_steps": 100, "batch_size": 50, "n_epochs": 2},
)  # fmt: skip


def test_it_is_the_baseline_of_a_run_with_questions_and_has_all_but_a_reward(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone, both = tmp_path / "alone", tmp_path / "both"
    assert main(["train", "Pendulum-v1", "--baseline-only", "--out", str(alone), *QUICK]) == 0
    said = capsys.readouterr()
    assert "trained on the true reward" in said.out and "best learned" not in said.out and said.err == ""
    assert main(["train", "Pendulum-v1", "--labels", "12", "--baseline", "--out", str(both), *QUICK]) == 0
    assert figures(ControlFolder.open(alone)) == figures(ControlFolder.open(both / "baseline"))
    assert (alone / "curves.png").is_file() and (alone / "videos" / "training.mp4").is_file()
    assert not (alone / "reward.safetensors").exists() and not (alone / "record.sqlite").exists()
    summary = json.loads((alone / "summary.json").read_text())
    assert summary["teacher"] is None and summary["labels"] == 0 and summary["failures"] == {}
    capsys.readouterr()
    assert main(["evaluate", str(alone), "--episodes", "2"]) == 0
    assert main(["resume", str(alone)]) == 2
    assert "finished" in capsys.readouterr().err


def test_stopped_it_goes_on_as_if_nothing_had_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train_baseline(TINY, tmp_path / "whole", quiet=True)
    iterate = Trainer._iterate

    def stop_halfway(trainer: Trainer) -> None:
        iterate(trainer)
        if trainer.agent.num_env_steps > 1600:
            trainer.stop()

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_iterate", stop_halfway)
        with pytest.raises(Interrupted):
            train_baseline(TINY, tmp_path / "stopped", quiet=True)
    with pytest.raises(UserError, match="has no meaning"):
        resume(tmp_path / "stopped", quiet=True, labels="+10")
    stopped = resume(tmp_path / "stopped", quiet=True)
    assert len(figures(stopped)) == len(figures(whole)) and stopped.finished
    assert stopped.read_summary()["labels"] == 0


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--labels", "20"], "labels"),
        (["--teacher", "coin"], "teacher"),
        (["--annotator", "human"], "annotator"),
        (["--fit.num-steps", "3"], "fit"),
        (["--warmup", "entropy"], "warmup"),
        (["--baseline"], "--baseline"),
        (["--serve"], "--serve"),
    ],
)
def test_what_is_about_answers_is_refused(
    words: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["train", "Pendulum-v1", "--baseline-only", *words, "--out", str(out), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert named in said.splitlines()[0] and "--baseline-only" in said and not out.exists()


def test_verbs_about_answers_say_that_nobody_was_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train_baseline(TINY, tmp_path / "run", quiet=True).path
    capsys.readouterr()
    for words in (["fit"], ["quality"], ["label"], ["serve"], ["gallery"], ["forget", "--annotator", "anna"]):
        assert main([words[0], str(run), *words[1:]]) == 2, words
        said = capsys.readouterr().err
        assert "on the environment's own reward alone: nobody" in said and "prefrl resume" not in said, words
    assert main(["report", str(run)]) == 2
    assert "there is no learned reward to judge" in capsys.readouterr().err
    assert not (run / "record.sqlite").exists()


def test_it_can_be_shared_though_it_has_no_record(tmp_path: Path) -> None:
    folder = train_baseline(TINY, tmp_path / "run", quiet=True)
    place = tmp_path / "shared"
    place.mkdir()
    assert people_of(folder) == [] and pack(folder, place) == []
    assert (place / "policies" / "last.pt").is_file()
    assert "on the environment's own reward" in card_of(ControlFolder(place), "anna/run", licence=None, num_people=0)


def test_where_its_environment_cannot_be_played_in_nothing_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train_baseline(TINY, tmp_path / "run", quiet=True)

    def fails(*_: object) -> None:
        raise UserError("There is no world.")

    monkeypatch.setattr(runs, "_evaluate", fails)
    assert main(["evaluate", str(folder.path)]) == 2
    assert "cannot be evaluated: There is no world" in capsys.readouterr().err


class Unrewarded(PendulumEnv):
    """Its reward is known to nobody."""

    def step(self, action: Any) -> Any:
        observation, _, *ends = super().step(action)
        return observation, math.nan, *ends


def test_a_reward_that_is_no_number_is_said_before_anything_is_learned_from_it(tmp_path: Path) -> None:
    gymnasium.register("Unrewarded-v0", Unrewarded, max_episode_steps=200)
    try:
        with pytest.raises(UserError, match="reward is NaN, None or infinite"):
            train_baseline(replace(TINY, env_id="Unrewarded-v0"), tmp_path / "run", quiet=True)
    finally:
        del gymnasium.registry["Unrewarded-v0"]

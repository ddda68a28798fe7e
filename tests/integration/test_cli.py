"""The command line: what it makes, and what it says to nonsense."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from prefrl.cli import main
from prefrl.control import ControlFolder, TrainSettings
from prefrl.control.pairs import pairs
from prefrl.control.run import default_out
from prefrl.rewards import RewardEnsemble
from prefrl.store import PreferenceStore

pytestmark = pytest.mark.lowest

QUICK = [
    "--steps", "3200", "--num-envs", "2", "--segment-length", "20", "--warmup-steps", "400",
    "--hyper", "n_steps=100", "batch_size=50", "n_epochs=2", "--quiet",
]  # fmt: skip


def run(*arguments: str | Path) -> int:
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stopped:  # the parser's own exit
        return int(stopped.code or 0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "pendulum"
    assert run("train", "Pendulum-v1", "--labels", "12", "--baseline", "--out", out, *QUICK) == 0
    return out


def test_train_leaves_everything_in_the_run_folder(finished: Path) -> None:
    names = {
        "config.json", "metrics.jsonl", "record.sqlite", "reward.safetensors", "summary.json", "report.json",
        "report.png", "curves.png", "videos/training.mp4", "policies/before.pt", "policies/last.pt", "policies/best.pt",
        "baseline/metrics.jsonl",
    }  # fmt: skip
    assert [name for name in sorted(names) if not (finished / name).is_file()] == []
    config = ControlFolder.open(finished).config
    assert config["settings"]["hyperparameters"]["n_steps"] == 100
    assert {"torch", "gymnasium", "stable-baselines3"} <= set(config["versions"])
    assert list((finished / "tensorboard").iterdir())


def test_metrics_rows_hold_what_is_promised(finished: Path) -> None:
    rows = ControlFolder.open(finished).read_metrics()
    assert [row["num_env_steps"] for row in rows] == list(range(600, 3201, 200))
    assert rows[-1]["labels"] == 12
    for name in ("true_return", "learned_return", "correlation", "reward_accuracy", "steps_per_second", "seconds"):
        assert name in rows[-1]
    figures = {"policy_loss", "value_loss", "approx_kl", "clip_share", "entropy", "explained_variance"}
    assert figures <= rows[-1].keys()
    assert ControlFolder.open(finished).read_summary()["update"].keys() == figures
    assert {"collect", "reward", "update", "ask_and_fit"} <= rows[-1]["seconds"].keys()


@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_json_is_one_object_with_the_promised_keys(
    command: str, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command, finished, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    promised = {
        "true_return_mean", "true_return_std", "num_episodes", "baseline_true_return_mean", "labels", "steps",
        "seconds",
    }  # fmt: skip
    assert promised <= result.keys()
    assert result["labels"] == 12
    assert result["steps"] == 3200


def test_envs_lists_the_benchmark_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("envs") == 0
    assert "HalfCheetah-v5" in capsys.readouterr().out


def make_broken(kind: str) -> Any:
    class Broken(gymnasium.Wrapper[Any, Any, Any, Any]):
        def step(self, action: Any) -> Any:
            observation, reward, terminated, truncated, info = self.env.step(action)
            if kind == "observation":
                observation = np.full_like(observation, np.nan)
            return observation, float("nan") if kind == "reward" else reward, terminated, truncated, info

    return lambda **kwargs: Broken(gymnasium.make("Pendulum-v1", **kwargs).unwrapped)


@pytest.fixture
def broken_envs() -> Any:
    for kind in ("observation", "reward"):
        gymnasium.register(f"Broken{kind.title()}-v0", make_broken(kind), max_episode_steps=200)
    gymnasium.register("TupleSpace-v0", lambda **_: _TupleEnv(), max_episode_steps=10)
    yield
    for name in ("BrokenObservation-v0", "BrokenReward-v0", "TupleSpace-v0"):
        del gymnasium.registry[name]


class _TupleEnv(gymnasium.Env[Any, Any]):
    observation_space = gymnasium.spaces.Tuple([gymnasium.spaces.Discrete(2)])
    action_space = gymnasium.spaces.Discrete(2)


BAD = {
    "unknown environment": (["HalfCheeta-v5"], "HalfCheetah-v5"),
    "no labels": (["Pendulum-v1", "--labels", "0"], "labels must be at least 1"),
    "negative labels": (["Pendulum-v1", "--labels", "-5"], "labels must be at least 1"),
    "segments longer than an episode": (["Pendulum-v1", "--segment-length", "500"], "longer than an episode"),
    "negative seed": (["Pendulum-v1", "--seed", "-1"], "A seed must be from 0 to 2^63 - 1"),
    "no reference": (["Pendulum-v1", "--reference-segments", "0"], "reference_segments must be at least 1"),
    "a rate that is no number": (["Pendulum-v1", "--fit.learning-rate", "nan"], "prefrl: learning_rate must be"),
    "wrong units of the reward": (["Pendulum-v1", "--reward.hidden", "0"], "prefrl: hidden must be numbers of units"),
    "nobody to learn from": (["Pendulum-v1", "--without", "oracle"], "leaves nobody to learn from"),
    "buffer of no size": (["Pendulum-v1", "--agent", "sac", "--hyper", "buffer_size=abc"], "buffer_size must be"),
    "device that is not there": (["Pendulum-v1", "--device", "cuda:7"], "cuda:7"),
    "unknown device": (["Pendulum-v1", "--device", "gpu"], "gpu"),
    "unknown teacher": (["Pendulum-v1", "--teacher", "orcale"], "oracle"),
    "unknown agent": (["Pendulum-v1", "--agent", "pppo"], "ppo"),
    "unknown hyper-parameter": (["Pendulum-v1", "--hyper", "learning_rat=1"], "learning_rate"),
    "hyper-parameter without a value": (["Pendulum-v1", "--hyper", "gamma"], "NAME=VALUE"),
    "unknown option of the environment": (["Pendulum-v1", "--env", "gravity=2"], "cannot be made with gravity=2"),
    "option of the environment without a value": (["Pendulum-v1", "--env", "g"], "NAME=VALUE"),
    "option that the run sets": (["Pendulum-v1", "--env", "max_episode_steps=9"], "the run sets it"),
    "option that is no finite number": (["Hopper-v5", "--env", "ctrl_cost_weight=NaN"], "Received NaN"),
    "robot that cannot be": (["Hopper-v5", "--env", "frame_skip=0"], "frame_skip must be a whole number"),
    "robot that is not there": (["Hopper-v5", "--env", "xml_file=/nowhere.xml"], "/nowhere.xml does not exist"),
    "endless rollout": (
        ["Pendulum-v1", "--hyper", "n_steps=100000000000", "--steps", "1000000000000000"],
        "GB are free",
    ),
    "unknown query method": (["Pendulum-v1", "--queries.method", "disagree"], "disagreement"),
    "agent that cannot act there": (["Pendulum-v1", "--agent", "dqn"], "DQN"),
    "too few steps": (["Pendulum-v1", "--steps", "100"], "--steps"),
    "reward function that is not there": (["Pendulum-v1", "--reward-function", "nowhere.py:f"], "nowhere.py"),
    "unsupported space": (["TupleSpace-v0"], "Tuple"),
    "NaN observation": (["BrokenObservation-v0"], "NaN"),
    "NaN true reward that a teacher reads": (["BrokenReward-v0"], "NaN"),
}


@pytest.mark.usefixtures("broken_envs")
@pytest.mark.parametrize("case", BAD)
def test_nonsense_ends_with_one_clear_message(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, expected = BAD[case]
    status = run("train", *arguments, "--quiet", "--no-video", "--out", tmp_path / "run")
    errors = capsys.readouterr().err
    assert status == 2
    assert expected in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("raise RuntimeError('no idea')", "no idea"),
        ("return [1.0, 2.0]", "expected 20 numbers"),
        ("return float('nan')", "finite"),
    ],
)
def test_reward_function_that_fails_is_named(
    body: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "judge.py").write_text(f"def judge(segment):\n    {body}\n")
    status = run(
        "train", "Pendulum-v1", "--labels", "12", "--reward-function", f"{tmp_path}/judge.py:judge", "--no-video",
        "--out", tmp_path / "run", *QUICK,
    )  # fmt: skip
    errors = capsys.readouterr().err
    assert status == 2
    assert "judge" in errors and expected in errors


def test_refused_run_leaves_no_folder(tmp_path: Path) -> None:
    assert run("train", "Pendulum-v1", "--labels", "0", "--out", tmp_path / "run") == 2
    assert run("train", "Pendulum-v1", "--device", "cuda:7", "--out", tmp_path / "run") == 2
    assert not (tmp_path / "run").exists()


def test_existing_run_is_not_overwritten(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (finished / "config.json").read_bytes()
    assert run("train", "Pendulum-v1", "--out", finished) == 2
    assert "prefrl resume" in capsys.readouterr().err
    assert (finished / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "judge"),
    [
        ({}, "oracle"),
        ({"annotator": "human"}, "people"),
        ({"annotator": "both", "teacher": "noisy"}, "people+noisy"),
        ({"reward_function": "x.py:front_leg"}, "front_leg"),
        ({"reward_function": "x.py:front_leg", "teacher": "mistake"}, "mistake-front_leg"),
    ],
)
def test_folder_of_a_run_is_named_after_who_judges(options: dict[str, Any], judge: str) -> None:
    settings = TrainSettings(env_id="Pendulum-v1", labels=60, **options)
    assert default_out(settings) == Path(f"runs/Pendulum-v1-ppo-{judge}-60-seed0")


def test_folder_that_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("chapter 1")
    for command in ("resume", "evaluate", "report", "video"):
        assert run(command, tmp_path) == 2
        assert "config.json" in capsys.readouterr().err
    assert run("train", "Pendulum-v1", "--out", tmp_path) == 2
    assert (tmp_path / "thesis.txt").read_text() == "chapter 1"


def test_wrong_arguments_exit_with_status_2() -> None:
    assert run("trane", "Pendulum-v1") == 2
    assert run("train", "Pendulum-v1", "--lables", "3") == 2
    assert run("train") == 2


def test_full_disk_while_saving_ends_clearly_and_keeps_what_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from prefrl.runs import checkpoint

    real, calls = checkpoint.os.fsync, []

    def full_after_a_while(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 40:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(checkpoint.os, "fsync", full_after_a_while)
    out = tmp_path / "run"
    assert run("train", "Pendulum-v1", "--labels", "12", "--no-video", "--out", out, *QUICK) != 0
    assert "No space left on device" in capsys.readouterr().err
    monkeypatch.undo()
    found, refused = checkpoint.newest_checkpoint(ControlFolder.open(out))
    assert found is not None and not refused
    assert run("resume", out, "--no-video", "--quiet") == 0


def test_quality_of_answers_is_told_and_drawn(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("quality", finished) == 0
    told = capsys.readouterr().out
    assert "oracle" in told and "Answers by annotator" in told and "Expected least" in told
    assert (finished / "quality.png").read_bytes().startswith(b"\x89PNG")
    assert run("quality", finished, "--json", "--surprises", "3") == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["surprises"]) == 3
    assert found["surprises"] == sorted(found["surprises"], key=lambda one: one["probability"])
    assert found["annotators"][0]["num_answers"] == 12
    agreement = found["held_out_agreement"]
    assert 0 < agreement["num"] <= 12 and agreement["low"] <= agreement["share"] <= agreement["high"]
    with PreferenceStore(finished / "record.sqlite") as store:  # the same figure that viewers show
        assert store.facts()["held_out_agreement"] == agreement
    last = json.loads((finished / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["held_out_agreement"] == agreement["share"]
    assert json.loads((finished / "report.json").read_text())["answers"]["held_out_agreement"] == agreement
    assert json.loads((finished / "report.json").read_text())["answers"]["annotators"][0]["name"] == "oracle"


def test_a_reward_is_fitted_anew_without_an_annotator(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", finished, "--to", tmp_path / "data") == 0
    record = tmp_path / "copy.sqlite"
    assert run("import", tmp_path / "data", "--to", record) == 0
    assert "12 answers" in capsys.readouterr().out
    with PreferenceStore(record) as copy, PreferenceStore(finished / "record.sqlite") as original:
        assert copy.answers() == original.answers()
    assert run("fit", finished, "--reliability", "--out", tmp_path / "reward.safetensors", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["num_comparisons"] == 12 and "oracle" in report["reliability"]
    RewardEnsemble.load(tmp_path / "reward.safetensors")
    assert run("fit", finished, "--without", "oracle") == 2
    assert "holds no answers about segments" in capsys.readouterr().err
    assert run("fit", finished, "--without", "nobody") == 2
    assert "Nobody named 'nobody' answered" in capsys.readouterr().err


def test_a_run_asks_for_all_kinds_of_feedback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mixed"
    kinds = ["--queries.feedback", "mixed", "--queries.num-ranked", "3", "--no-video"]
    assert run("train", "Pendulum-v1", "--labels", "9", "--out", out, *QUICK[:2], *kinds, *QUICK[2:]) == 0
    with PreferenceStore(out / "record.sqlite") as store:
        assert {answer.kind for _, answer in store.answers()} == {"comparison", "ranking", "rating"}
    assert ControlFolder.open(out).read_metrics()[-1]["labels"] == 9
    assert run("train", "Pendulum-v1", "--queries.scale", "1") == 2
    assert "queries.scale must be" in " ".join(capsys.readouterr().err.split())


def test_script_to_copy_from_takes_a_folder_and_gives_one_message(tmp_path: Path) -> None:
    script = [sys.executable, str(Path(__file__).parents[2] / "scripts" / "examples" / "train.py")]
    told = subprocess.run(
        [*script, "HalfCheeta-v5", "--baseline", "--out", str(tmp_path / "run")], capture_output=True, text=True
    )
    assert told.returncode != 0
    assert "HalfCheetah-v5" in told.stderr
    assert "Traceback" not in told.stderr


def test_options_are_read_as_json_or_as_python_spells_them() -> None:
    given = ["a=1", "b=true", "c=False", "d=None", "e=linear:0.1", "f=[1, 2]"]
    read = {"a": 1, "b": True, "c": False, "d": None, "e": "linear:0.1", "f": [1, 2]}
    assert pairs(given, "options", "a=1") == read


@pytest.mark.parametrize(("old", "new"), [("--place.seed", "--seed"), ("--place.max-tokens=9", "--max-tokens")])
def test_options_of_text_that_were_called_otherwise_are_refused_with_their_name_of_today(
    old: str, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["text", "sft", "--model", "m", "--out", "o", old, "3"]) == 2
    assert f"{old.partition('=')[0]} is called {new} now" in capsys.readouterr().err

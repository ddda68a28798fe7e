"""Which runs a sweep is of, what it refuses before anything starts, and what figures come to over seeds."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from prefrl import trust
from prefrl.aggregate import better, interquartile_mean, interval_of
from prefrl.cli import main
from prefrl.control.folder import ControlFolder
from prefrl.control.settings import RunSettings, TrainSettings
from prefrl.errors import UserError
from prefrl.runs.codec import from_json
from prefrl.sweeps.cells import attempts, check_cell, make_cell
from prefrl.sweeps.command import _split, _sweep, _varied
from prefrl.sweeps.kinds import kind_named
from prefrl.sweeps.naming import option_paths
from prefrl.sweeps.picture import plot_results
from prefrl.sweeps.plan import Plan, Sweep, read_sweep
from prefrl.sweeps.results import results_of, rows_of

SMALL: dict[str, Any] = {
    "env_id": "Pendulum-v1", "labels": 6, "steps": 1600, "num_envs": 2, "segment_length": 10, "warmup_steps": 200,
    "eval_episodes": 1, "hyperparameters": {"n_steps": 100, "batch_size": 50, "n_epochs": 1}, "num_checkpoints": 2,
}  # fmt: skip


def swept(words: str, *, seeds: int = 2) -> Plan:
    """Return the plan of a command line, from after `prefrl sweep`."""
    command, *rest = words.split()
    if command in ("text", "image"):
        command, rest = f"{command} {rest[0]}", rest[1:]
    kind = kind_named(command)
    vary, rest = _split(rest, "--vary")
    return Plan.of(_sweep(kind, rest, _varied(kind, vary), seeds))


# ------------------------------------------------------------------------------------------------------- which runs


def test_every_combination_is_a_run_for_each_seed_with_a_folder_of_its_own() -> None:
    plan = swept("train Pendulum-v1 --seed 3 --vary labels=6,8 teacher=oracle,noisy --steps 16000")
    assert len(plan.cells) == 8 == len({cell.name for cell in plan.cells})
    assert [cell.seed for cell in plan.cells[:2]] == [3, 4]
    last = plan.cells[-1]
    assert last.name == "labels-8_teacher-noisy/seed-4" and last.variant == "labels=8, teacher=noisy"
    settings = from_json(TrainSettings, last.settings)
    assert (settings.labels, settings.teacher, settings.seed, settings.steps) == (8, "noisy", 4, 16000)
    assert last.expected["warmup_steps"] > 0, "as config.json will hold it: resolved"


def test_changes_are_made_one_at_a_time_within_each_combination() -> None:
    sweep = Sweep(
        settings={"env_id": "Pendulum-v1", "steps": 16000},
        vary={"labels": [6, 8]},
        one_at_a_time={"fit.crop": [0.1, 0.3], "reward.network": ["dynamics"]},
        seeds=2,
        options={"baseline": True},
    )
    plan = Plan.of(sweep)
    assert [cell.variant for cell in plan.cells[:8:2]] == [
        "labels=6", "labels=6, fit.crop=0.1", "labels=6, fit.crop=0.3", "labels=6, reward.network=dynamics",
    ]  # fmt: skip
    assert len(plan.cells) == 16 == len({cell.name for cell in plan.cells})
    last = from_json(TrainSettings, plan.cells[-1].settings)
    assert (last.labels, last.fit.crop, last.reward.network, last.seed) == (8, 0.0, "dynamics", 1)
    assert {cell.name for cell in plan.cells if cell.baseline_of is None} == {"labels-6/seed-0", "labels-6/seed-1"}
    assert plan.described["one_at_a_time"] == sweep.one_at_a_time
    plain = Plan.of(replace(sweep, one_at_a_time={}))
    assert [cell.settings for cell in plain.cells[:2]] == [cell.settings for cell in plan.cells[:2]]
    assert "one_at_a_time" not in plain.described, "as folders of before have it"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"labels": [9]}, "labels is varied, and changed one at a time"),
        ({"env_id": ["CartPole-v1"]}, "Give tasks with --vary env-id"),
        ({"seed": [4]}, "Leave seed out"),
        ({"fit.crop": []}, "no value of fit.crop"),
        ({"fit.crop": [0.1, 0.1]}, "is given twice"),
        ({"fit.crop": [2.0]}, "The runs with labels=6, fit.crop=2.0 cannot be"),
        ({"fit.crop": [0.0]}, "The runs with labels=6, fit.crop=0.0 are those without"),
        ({"fit.corp": [0.1]}, "fit.crop"),
    ],
)
def test_a_change_that_changes_nothing_or_cannot_be_is_refused(change: dict[str, list[Any]], what: str) -> None:
    sweep = Sweep(settings={"env_id": "Pendulum-v1", "steps": 16000}, vary={"labels": [6]}, one_at_a_time=change)
    with pytest.raises(UserError, match=re.escape(what)):
        Plan.of(sweep)


def test_a_folder_with_other_changes_is_another_sweep(tmp_path: Path) -> None:
    sweep = Sweep(settings=SMALL, one_at_a_time={"fit.crop": [0.1]}, seeds=1)
    Plan.of(sweep).begin(tmp_path / "sweep")
    Plan.of(sweep).begin(tmp_path / "sweep")
    for other in ({}, {"fit.crop": [0.1], "reward.bonus": [0.05]}):
        with pytest.raises(UserError, match="holds another sweep: its one_at_a_time"):
            Plan.of(replace(sweep, one_at_a_time=other)).begin(tmp_path / "sweep")
    with pytest.raises(UserError, match="Leave --search out"):
        Plan.of(replace(sweep, search={"fit.crop": {"low": 0.1, "high": 0.3}}))
    (tmp_path / "sweep.json").write_text(json.dumps({"settings": SMALL, "one_at_a_time": {"fit.crop": 0.1}}))
    with pytest.raises(UserError, match=r"one_at_a_time\.fit\.crop should be a list"):
        read_sweep(tmp_path / "sweep.json")


def test_runs_that_differ_in_what_is_asked_alone_have_one_baseline(tmp_path: Path) -> None:
    plan = swept(
        "train Pendulum-v1 --steps 16000 --baseline --vary labels=6,8 hyper.gamma=0.9,0.97 reward.num-members=2,3"
    )
    own = [cell for cell in plan.cells if cell.baseline_of is None]
    assert {(cell.varied["hyper.gamma"], cell.seed) for cell in own} == {(0.9, 0), (0.9, 1), (0.97, 0), (0.97, 1)}
    assert len(own) == 4 and all(plan.options_of(cell)["baseline"] for cell in own)
    by_name = {cell.name: cell for cell in own}
    for cell in plan.cells:
        if cell.baseline_of is not None:
            first = by_name[cell.baseline_of]
            assert (first.varied["hyper.gamma"], first.seed) == (cell.varied["hyper.gamma"], cell.seed)
            assert plan.options_of(cell)["baseline"] is False
    brought = swept(
        "train Pendulum-v1 --steps 16000 --baseline --labels 8 --vary demonstration-pairs=0,2 --demonstrations x"
    )
    assert all(cell.baseline_of is None for cell in brought.cells), "a clone is where the baseline begins too"
    assert all(cell.baseline_of is None for cell in swept("train Pendulum-v1 --steps 16000 --vary labels=6,8").cells)


def test_words_after_vary_that_are_no_values_are_those_of_the_run() -> None:
    plan = swept("train --vary labels=6,8 Pendulum-v1 --steps 16000")
    assert {cell.settings["env_id"] for cell in plan.cells} == {"Pendulum-v1"}


@pytest.mark.parametrize("words", ["--vary", "--vary Pendulum-v1 labels=6,8", "--seed 1 --search --seeds 3"])
def test_an_option_that_is_given_nothing_is_refused(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "train", *words.split()]) == 2
    assert "is followed by NAME=VALUE" in capsys.readouterr().err


def test_what_must_be_given_may_be_varied() -> None:
    plan = swept("train --vary env-id=Pendulum-v1,CartPole-v1 --labels 6", seeds=1)
    assert [cell.settings["env_id"] for cell in plan.cells] == ["Pendulum-v1", "CartPole-v1"]


@pytest.mark.parametrize(
    ("words", "place", "values"),
    [
        ("reward.num-members=1,3", ("reward", "num_members"), [1, 3]),
        ("hyper.gamma=0.9,0.99", ("hyperparameters", "gamma"), [0.9, 0.99]),
        ("from=null,a/run", ("from_run",), [None, "a/run"]),
        ("true-reward=true,false", ("shows_true_reward",), [True, False]),
        ("panel=[[],[\"oracle\",\"coin\"]]", ("panel",), [[], ["oracle", "coin"]]),
        ("steps=null,4000", ("steps",), [None, 4000]),
    ],
)  # fmt: skip
def test_settings_are_varied_by_the_names_of_their_options(
    words: str, place: tuple[str, ...], values: list[Any]
) -> None:
    kind = kind_named("train")
    name = words.partition("=")[0]
    from prefrl.sweeps.naming import place_of

    assert place_of(name, option_paths(kind.settings), kind.aliases) == place
    assert _varied(kind, [words]) == {name: values}


def test_a_text_that_looks_like_a_number_stays_one_where_texts_are_taken() -> None:
    assert _varied(kind_named("train"), ["instruction=7,true"]) == {"instruction": ["7", "true"]}


def test_jobs_of_text_are_swept_with_the_defaults_of_their_verb() -> None:
    plan = swept("text grpo --model m --reward gold --vary max-tokens=8,16 training.beta=0.0,0.1 --seed 5")
    assert len(plan.cells) == 8
    last = plan.cells[-1].expected
    assert last["place"]["seed"] == 6 and last["training"]["sampling"]["max_tokens"] == 16
    assert last["training"]["estimator"] == "grpo" and plan.cells[0].expected["training"]["beta"] == 0.0
    assert swept("text ipo --model m --data d.jsonl", seeds=1).cells[0].expected["training"]["method"] == "ipo"


def test_jobs_of_images_are_swept_and_their_files_are_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    plan = swept("image dpok --model model --reward gold --vary training.beta=0.0,0.01 --seed 5")
    assert len(plan.cells) == 4
    last = plan.cells[-1].expected
    assert last["place"]["seed"] == 6 and last["training"]["beta"] == 0.01
    assert last["model"] == str(tmp_path / "model")


@pytest.mark.parametrize("form", ["toml", "yaml", "json"])
def test_a_file_says_the_same_as_the_command(form: str, tmp_path: Path) -> None:
    file = tmp_path / f"sweep.{form}"
    if form == "toml":
        file.write_text(
            'command = "train"\nseeds = 2\n[settings]\nenv_id = "Pendulum-v1"\nsteps = 16000\n'
            "[settings.reward]\nnum-members = 2\n[vary]\nlabels = [6, 8]\n"
        )
    elif form == "yaml":
        pytest.importorskip("yaml")
        file.write_text(
            "command: train\nseeds: 2\nsettings: {env_id: Pendulum-v1, steps: 16000, reward: {num-members: 2}}\n"
            "vary: {labels: [6, 8]}\n"
        )
    else:
        file.write_text(
            json.dumps(
                {
                    "command": "train",
                    "seeds": 2,
                    "vary": {"labels": [6, 8]},
                    "settings": {"env_id": "Pendulum-v1", "steps": 16000, "reward": {"num-members": 2}},
                }
            )
        )
    command = swept("train Pendulum-v1 --steps 16000 --reward.num-members 2 --vary labels=6,8")
    assert Plan.of(read_sweep(file)).described == command.described


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--vary lables=6,8", "There is no setting 'lables'. Did you mean 'labels'"),
        ("--vary labels=6,0", "The runs with labels=0 cannot be: labels must be at least 1"),
        ("--vary teacher=oracle,nosy", "The runs with teacher=nosy cannot be: There is no teacher 'nosy'"),
        ("--vary labels=6,many", "labels should be a whole number"),
        ("--vary labels=6,6", "A value of labels is given twice: 6, 6"),
        ("--vary labels=6 labels=8", "labels is varied twice"),
        ("--vary num-envs=1 num_envs=2", "num-envs and num_envs are the same setting"),
        ("--vary seed=1,2", "Seeds are counted by --seeds"),
        ("--vary labels=", "Expected what is varied as NAME=VALUE,VALUE"),
        ("--vary queries.methodd=uniform", "There is no setting 'queries.methodd'. Did you mean 'queries.method'"),
        ("--vary segment-length=10,9999", "longer than an episode"),
        ("--annotator human", "A sweep asks no people"),
        ("--record postgresql://h/d", "have a record each"),
        ("--measure share", "--measure share needs --baseline"),
        ("--measure share --baseline-only", "--measure share needs --baseline"),
        ("--baseline-only --labels 8", "these settings have no meaning: labels"),
        ("--baseline-only --vary labels=6,8", "these settings have no meaning: labels"),
        ("--baseline-only --baseline", "need no baseline beside them"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(
    words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sweep"
    assert main(["sweep", "train", "Pendulum-v1", "--steps", "16000", *words.split(), "--out", str(out)]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


@pytest.mark.parametrize("words", ["", "trains Pendulum-v1", "text dpoo", "image dpokk", "image", "show RUN"])
def test_what_cannot_be_swept_is_a_sentence(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    if not words:
        return
    assert main(["sweep", *words.split()]) == 2
    assert "prefrl: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "cannot be read"),
        ("[1]", "should hold command"),
        ('{"comand": "train"}', "no key 'comand'; .* Did you mean 'command'"),
        ('{"vary": {"labels": 6}}', "vary.labels should be a list"),
        ('{"seeds": "3"}', "seeds should be of type int"),
        ('{"settings": {"env_id": "Pendulum-v1"}, "options": {"basline": true}}', "no option 'basline'"),
        ('{"settings": {"env_id": "Pendulum-v1"}, "seeds": 0}', "at least 1"),
        ('{"settings": {"labels": 6}}', "needs env_id"),
        ('{"settings": {"env_id": "Pendulum-v1"}, "vary": {"labels": []}}', "no value of labels"),
        ('{"settings": {"env_id": "Pendulum-v1", "reward": 3}}', "reward"),
    ],
)
def test_a_file_that_says_no_sweep_is_a_sentence(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "sweep.json"
    file.write_text(text)
    with pytest.raises(UserError, match=message):
        Plan.of(read_sweep(file))


def test_a_sweep_of_an_older_version_is_the_same_if_it_is(tmp_path: Path) -> None:
    plan = swept("train Pendulum-v1 --steps 16000 --baseline --vary labels=6,8")
    plan.begin(tmp_path / "sweep")
    path = tmp_path / "sweep" / "sweep.json"
    described = json.loads(path.read_text())
    for name in ("dynamics_steps", "dynamics_batch"):
        del described["settings"]["fit"][name]
    del described["settings"]["reward"]["bonus"], described["options"]["baseline_only"]
    path.write_text(json.dumps(described))
    plan.begin(tmp_path / "sweep")
    with pytest.raises(UserError, match=r"its settings.reward.bonus is 0.0, and 0.1 is asked for"):
        swept("train Pendulum-v1 --steps 16000 --baseline --vary labels=6,8 --reward.bonus 0.1").begin(path.parent)


def test_a_folder_with_another_sweep_is_refused_and_more_seeds_are_not(tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    swept("train Pendulum-v1 --steps 16000 --vary labels=6,8").begin(out)
    swept("train Pendulum-v1 --steps 16000 --vary labels=6,8", seeds=4).begin(out)
    assert json.loads((out / "sweep.json").read_text())["seeds"] == 4
    swept("train Pendulum-v1 --steps 16000 --vary labels=6,8", seeds=2).begin(out)
    assert json.loads((out / "sweep.json").read_text())["seeds"] == 4
    with pytest.raises(UserError, match=r"holds another sweep: its settings.steps is 16000, and 20000 is asked for"):
        swept("train Pendulum-v1 --steps 20000 --vary labels=6,8").begin(out)
    with pytest.raises(UserError, match=r"another sweep: its vary.labels"):
        swept("train Pendulum-v1 --steps 16000 --vary labels=6,9").begin(out)


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not the folder of a sweep"):
        swept("train Pendulum-v1 --vary labels=6,8").begin(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


# -------------------------------------------------------------------------------------------------------- one run


def placed(tmp_path: Path) -> dict[str, str]:
    return {"begun_in": str(tmp_path), "path": str(tmp_path / "run"), "log": str(tmp_path / "logs" / "run.log")}


def test_a_run_that_is_in_the_way_is_refused_and_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    other = TrainSettings(**{**SMALL, "labels": 7}).resolve()
    folder = ControlFolder.create(tmp_path / "run", other, baseline=False)
    plan = Plan.of(Sweep(settings=SMALL, seeds=1))
    with pytest.raises(UserError, match="holds another run than the sweep asks for"):
        check_cell(plan.kind, folder.path, plan.cells[0].expected)
    outcome = make_cell("train", plan.cells[0].settings, plan.cells[0].expected, plan.options, placed(tmp_path))
    assert outcome[0] == "failed" and "holds another run" in outcome[1]
    assert folder.settings.labels == 7


def test_runs_of_an_older_version_are_those_that_the_sweep_asks_for_if_they_are(tmp_path: Path) -> None:
    for agent, differs in (("ppo", False), ("td3", True)):  # td3 was stable-baselines3's until format 3
        plan = Plan.of(Sweep(settings={"env_id": "Pendulum-v1", "steps": 16000, "agent": agent}, seeds=1))
        cell = plan.cells[0]
        folder = ControlFolder.create(
            tmp_path / agent, from_json(RunSettings, json.loads(json.dumps(cell.expected))), baseline=False
        )
        config = json.loads(folder.config_path.read_text())
        config["version"] = 2
        for name in ("drop_alike", "drop_even"):
            del config["settings"]["queries"][name]
        for name in ("bonus", "bonus_decay", "encoders"):
            del config["settings"]["reward"][name]
        folder.config_path.write_text(json.dumps(config))
        if differs:
            with pytest.raises(UserError, match="another run than the sweep asks for: other agent"):
                check_cell(plan.kind, folder.path, cell.expected)
        else:
            check_cell(plan.kind, folder.path, cell.expected)


@pytest.mark.slow
def test_what_a_kill_left_before_training_began_is_begun_anew_with_its_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = Plan.of(Sweep(settings=SMALL, seeds=1, options={"baseline": True}))
    cell = plan.cells[0]
    ControlFolder.create(tmp_path / "run", TrainSettings(**SMALL).resolve(), baseline=False)  # and no baseline yet
    assert make_cell("train", cell.settings, cell.expected, plan.options, placed(tmp_path)) == ("done", "")
    folder = ControlFolder.open(tmp_path / "run")
    assert "baseline_true_return_mean" in folder.read_summary() and (folder.path / "report.json").is_file()
    assert make_cell("train", cell.settings, cell.expected, plan.options, placed(tmp_path)) == ("done", "")
    assert attempts(tmp_path / "logs" / "run.log") == 2


def test_a_run_that_fails_says_why_and_its_log_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "judge.py").write_text("def near(segment):\n    raise OSError('the disk is gone')\n")
    plan = Plan.of(Sweep(settings={**SMALL, "reward_function": "judge.py:near"}, seeds=1))
    cell = plan.cells[0]
    how, why = make_cell("train", cell.settings, cell.expected, plan.options, placed(tmp_path))
    assert how == "failed" and "the disk is gone" in why
    assert "the disk is gone" in (tmp_path / "logs" / "run.log").read_text()


def test_what_a_strangers_run_names_in_a_sweep_is_not_trusted_for_the_sweeps_sake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "me"))
    monkeypatch.setenv(trust.VARIABLE, "")
    (tmp_path / "evil.py").write_text("open('ran', 'w')\ndef judge(segment):\n    return 0.0\n")
    cell = Plan.of(Sweep(command="offline", settings={"dataset": "data", "env": "Pendulum-v1"}, seeds=1)).cells[0]
    settings = {**cell.settings, "reward_function": "evil.py:judge"}
    about = {"format": "prefrl.offline", "version": 1, "run_id": "0", "made_by": "prefrl offline", "baseline": False}
    config = {**about, "settings": settings}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    (tmp_path / "run" / "metrics.jsonl").write_text('{"num_updates": 1}\n')
    how, why = make_cell("offline", cell.settings, {}, {"controls": (), "track": (), "project": ""}, placed(tmp_path))
    assert how == "failed" and "made by another user" in why and "evil.py:judge" in why
    assert not (tmp_path / "ran").exists()


# -------------------------------------------------------------------------------------------------------- figures


def finished(out: Path, plan: Plan, figures: Any) -> None:
    """Make folders of runs that are over, with these figures at their ends."""
    for cell in plan.cells:
        value = figures(cell)
        if value is not None:
            folder = ControlFolder.create(
                out / cell.name, from_json(TrainSettings, cell.settings).resolve(), baseline=False
            )
            folder.finish({"true_return_mean": value, "steps": 10, "measures": {"upright": 0.5}})


def test_a_baseline_that_runs_share_counts_for_each_and_its_time_once(tmp_path: Path) -> None:
    plan = swept("train Pendulum-v1 --steps 16000 --baseline --vary labels=6,8", seeds=2)
    for cell in plan.cells:
        settings = from_json(TrainSettings, cell.settings).resolve()
        own = {"baseline_true_return_mean": 110.0, "baseline_seconds": 5.0, "baseline_learned_return_mean": 7.0}
        own |= {"baseline_measures": {"upright": 0.5}}
        beside = own if cell.baseline_of is None else {}
        figures = {"true_return_mean": 60.0, "random_true_return_mean": 10.0, **beside}
        if cell.name != "labels-6/seed-1":  # still to be made, and the baseline of labels-8/seed-1 with it
            ControlFolder.create(tmp_path / cell.name, settings, baseline=False).finish(figures)
    rows = {row["run"]: row["figures"] for row in rows_of(plan, tmp_path, {})}
    assert rows["labels-8/seed-0"]["baseline_true_return_mean"] == 110.0
    assert rows["labels-8/seed-0"]["baseline_measures/upright"] == 0.5
    assert "baseline_learned_return_mean" not in rows["labels-8/seed-0"], "by the reward of another run"
    assert "baseline_seconds" not in rows["labels-8/seed-0"] and rows["labels-6/seed-0"]["baseline_seconds"] == 5.0
    assert rows["labels-8/seed-0"]["share"] == rows["labels-6/seed-0"]["share"] == 0.5
    assert "baseline_true_return_mean" not in rows["labels-8/seed-1"] and rows["labels-6/seed-1"] == {}


def test_a_run_that_an_older_version_made_with_a_baseline_keeps_its_figures(tmp_path: Path) -> None:
    plan = swept("train Pendulum-v1 --steps 16000 --baseline --vary labels=6,8", seeds=1)
    for cell, value in zip(plan.cells, (110.0, 120.0), strict=True):
        settings = from_json(TrainSettings, cell.settings).resolve()
        figures = {"true_return_mean": 60.0, "baseline_true_return_mean": value, "baseline_seconds": 5.0}
        ControlFolder.create(tmp_path / cell.name, settings, baseline=False).finish(figures)
    rows = rows_of(plan, tmp_path, {})
    assert [row["figures"]["baseline_true_return_mean"] for row in rows] == [110.0, 120.0]


@pytest.mark.slow
def test_the_baseline_does_not_depend_on_what_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    vary = {"labels": [6, 9], "fit.crop": [0.0, 0.3], "queries.method": ["disagreement", "uniform"]}
    plan = Plan.of(Sweep(settings=SMALL, seeds=1, vary=vary, options={"baseline": True}))
    assert sum(cell.baseline_of is None for cell in plan.cells) == 1
    policies = []
    for number in (0, -1):
        place = {**placed(tmp_path), "path": str(tmp_path / f"run{number}")}
        cell = plan.cells[number]
        assert make_cell("train", cell.settings, cell.expected, plan.options, place) == ("done", "")
        policies.append(ControlFolder.open(Path(place["path"]) / "baseline").load_policy("last"))
    assert str(policies[0]) == str(policies[1])
    assert ControlFolder.open(tmp_path / "run0").read_metrics() != ControlFolder.open(tmp_path / "run-1").read_metrics()


def test_a_table_has_the_middle_half_of_the_seeds_and_who_is_above_whom(tmp_path: Path) -> None:
    plan = swept("train Pendulum-v1 --steps 16000 --vary labels=6,8", seeds=8)
    finished(
        tmp_path,
        plan,
        lambda cell: None if cell.seed == 7 else cell.seed + (2.0 if cell.varied["labels"] == 8 else 0.0),
    )
    results = results_of(plan, rows_of(plan, tmp_path, {}))
    assert results is not None and results.measure == "true_return_mean"
    first, second = results.lines
    assert first.value is not None and second.value is not None
    assert first.value.value == pytest.approx(stats.trim_mean(np.arange(7.0), 0.25)) == 3.0
    assert second.value.value == 5.0 and (second.least, second.most) == (2.0, 8.0)
    assert (first.num, first.wanted) == (7, 8)
    (comparison,) = results.comparisons
    pairs = [(a + 2 > b) + (a + 2 == b) / 2 for a in range(7) for b in range(7)]
    assert comparison.above.value == pytest.approx(np.mean(pairs))
    assert comparison.above.low is not None and comparison.above.low > 0.5
    results.write(tmp_path)
    plot_results(results, tmp_path / "results.png")
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert len(rows) == 16 and rows[0]["vary.labels"] == "6" and rows[0]["measures/upright"] == "0.5"
    assert [row["state"] for row in rows].count("open") == 2
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["lines"][0]["value"]["value"] == 3.0 and (tmp_path / "results.png").stat().st_size > 5000


def test_tasks_stand_apart_and_improvement_is_averaged_over_them(tmp_path: Path) -> None:
    plan = swept("train --vary env-id=Pendulum-v1,CartPole-v1 labels=6,8 --steps 16000", seeds=3)
    large = {"Pendulum-v1": 1000.0, "CartPole-v1": 1.0}
    finished(
        tmp_path,
        plan,
        lambda cell: large[cell.settings["env_id"]] * (cell.seed + 10 * (cell.varied["labels"] == 8)),
    )
    results = results_of(plan, rows_of(plan, tmp_path, {}))
    assert results is not None
    assert [(line.task, line.variant) for line in results.lines] == [
        ("Pendulum-v1", "labels=6"), ("Pendulum-v1", "labels=8"),
        ("CartPole-v1", "labels=6"), ("CartPole-v1", "labels=8"),
    ]  # fmt: skip
    assert results.comparisons[0].above.value == 1.0


def test_a_figure_that_no_run_has_is_refused_with_those_there_are(tmp_path: Path) -> None:
    plan = swept("train Pendulum-v1 --steps 16000", seeds=1)
    finished(tmp_path, plan, lambda cell: 1.0)
    rows = rows_of(plan, tmp_path, {})
    with pytest.raises(UserError, match=r"No run has a figure 'true_retrun_mean'.*Did you mean 'true_return_mean'"):
        results_of(plan, rows, "true_retrun_mean")
    one = results_of(plan, rows, "measures/upright")
    assert one is not None and one.lines[0].value is not None
    assert (one.lines[0].value.value, one.lines[0].value.low) == (0.5, None), "one run has no interval"


def test_a_sweep_whose_runs_are_all_over_shows_them_without_ray(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sweep"
    words = ["train", "Pendulum-v1", "--steps", "16000", "--vary", "labels=6,8", "--seeds", "2", "--out", str(out)]
    plan = swept("train Pendulum-v1 --steps 16000 --vary labels=6,8")
    plan.begin(out)
    finished(out, plan, lambda cell: float(cell.seed))
    assert main(["sweep", *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["failed"] == {} and len(found["runs"]) == 4 and found["lines"][1]["variant"] == "labels=8"
    assert main(["sweep", *words, "--measure", "nothing"]) == 2


def test_the_interquartile_mean_and_its_interval_are_those_of_known_draws() -> None:
    values = np.random.default_rng(1).normal(5.0, 1.0, (1, 200))
    assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values[0], 0.25))
    interval = interval_of(interquartile_mean, values)
    assert interval.low is not None and interval.high is not None
    half = 1.96 * 1.19 / np.sqrt(200)  # the interquartile mean of a normal has 1.19 times the error of the mean
    assert (interval.high - interval.low) / 2 == pytest.approx(half, rel=0.25)
    assert better(values, values) == 0.5

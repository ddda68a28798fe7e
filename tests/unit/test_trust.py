"""What a run of somebody else's, or data, name is neither run, read nor connected to without consent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prefrl import trust
from prefrl.cli import main
from prefrl.control.folder import ControlFolder
from prefrl.control.settings import TrainSettings
from prefrl.errors import UserError
from prefrl.files import write_json
from prefrl.offline.folder import OfflineFolder
from prefrl.seams import Registry
from prefrl.text.jobs.folder import TextFolder


def make_run(path: Path, **settings: Any) -> ControlFolder:
    resolved = TrainSettings(env_id="Pendulum-v1", **settings).resolve()
    return ControlFolder.create(path, resolved, baseline=False)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Be another user."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "other"))
    monkeypatch.delenv(trust.VARIABLE, raising=False)


def become_another(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    monkeypatch.setenv("APPDATA", str(home))
    monkeypatch.setenv(trust.VARIABLE, "")


def test_ones_own_run_is_opened_also_in_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    become_another(monkeypatch, tmp_path / "me")
    make_run(tmp_path / "run", reward_function="judge.py:near")
    monkeypatch.setenv(trust.VARIABLE, "")
    assert ControlFolder.open(tmp_path / "run").settings.reward_function == "judge.py:near"
    if os.name != "nt":
        assert (tmp_path / "me" / "prefrl" / "trusted").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("verb", ["resume", "evaluate", "report", "quality", "fit", "video", "label"])
def test_no_verb_runs_code_of_a_run_of_somebody_elses(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    become_another(monkeypatch, tmp_path / "them")
    make_run(tmp_path / "run", reward_function=f"{tmp_path}/evil.py:judge")
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef judge(segment): return 0.0\n")
    become_another(monkeypatch, tmp_path / "me")
    arguments = [verb, str(tmp_path / "run")]
    if verb == "label":
        from prefrl.human_ui.command import main as label

        with pytest.raises(UserError, match="--trust"):
            label(arguments[1:])
    else:
        assert main(arguments) == 2
        assert "evil.py:judge" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


def test_trust_is_said_once_and_ends_when_the_names_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    become_another(monkeypatch, tmp_path / "them")
    folder = make_run(tmp_path / "run", teacher="teachers:Kind")
    become_another(monkeypatch, tmp_path / "me")
    with pytest.raises(UserError, match="teachers:Kind"):
        ControlFolder.open(folder.path)
    assert ControlFolder.open(folder.path, reads_only=True).path == folder.path
    ControlFolder.open(folder.path, trust=True)
    monkeypatch.setenv(trust.VARIABLE, "")
    ControlFolder.open(folder.path)
    config = folder.config
    config["settings"]["teacher"] = "teachers:Evil"
    write_json(folder.config_path, config)
    with pytest.raises(UserError, match="teachers:Evil"):
        ControlFolder.open(folder.path)


def test_the_baseline_within_a_run_is_trusted_with_it_and_not_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    become_another(monkeypatch, tmp_path / "them")
    folder = make_run(tmp_path / "run")
    make_run(tmp_path / "run" / "baseline", teacher="teachers:Kind")
    become_another(monkeypatch, tmp_path / "me")
    with pytest.raises(UserError, match="teachers:Kind"):
        _ = ControlFolder.open(folder.path).baseline
    assert ControlFolder.open(folder.path, trust=True).baseline is not None


def test_the_controls_beside_an_offline_run_are_trusted_with_it_and_not_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    become_another(monkeypatch, tmp_path / "them")
    folder = OfflineFolder._create(tmp_path / "run", baseline=False, settings={"teacher": "teachers:Kind"})
    OfflineFolder._create(folder.control_path("zero"), baseline=False, settings={"teacher": "teachers:Kind"})
    become_another(monkeypatch, tmp_path / "me")
    with pytest.raises(UserError, match="teachers:Kind"):
        _ = OfflineFolder(folder.path).controls
    assert list(OfflineFolder.open(folder.path, trust=True).controls) == ["zero"]


def test_a_run_that_names_nothing_needs_no_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    become_another(monkeypatch, tmp_path / "them")
    make_run(tmp_path / "run", instruction="Which swings up? Take your time.")
    become_another(monkeypatch, tmp_path / "me")
    assert ControlFolder.open(tmp_path / "run").settings.env_id == "Pendulum-v1"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"env_id": "ALE/Pong-v5", "labels": 3, "agent": "ppo"}, []),
        ({"env_id": "module:Name-v0"}, ["module:Name-v0"]),
        ({"record": "postgresql://elsewhere/db"}, ["postgresql://elsewhere/db"]),
        ({"instruction": "secret"}, ["secret"]),
        ({"instruction": "/etc/passwd"}, ["/etc/passwd"]),
        ({"queries": {"method": "methods:Mine"}, "hidden": ["a:b"]}, ["a:b", "methods:Mine"]),
        ({"env_options": {"xml_file": "../x.xml"}}, ["../x.xml"]),
        ({"model": "gpt2", "data": "servicedesk"}, ["gpt2"]),
        ({"data": "pairs.jsonl", "reward": ["gold", "judge"]}, ["judge", "pairs.jsonl"]),
        ({"reward": {"network": "mlp"}, "references": None}, []),
        ({"estimator": "mine:advantages", "pretraining": "book.jsonl"}, ["book.jsonl", "mine:advantages"]),
    ],
)
def test_what_settings_name(settings: dict[str, Any], named: list[str]) -> None:
    assert trust.names_in(settings) == named


def test_a_text_run_of_somebody_elses_is_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    become_another(monkeypatch, tmp_path / "them")
    TextFolder.create(tmp_path / "run", "sft", {"data": "worlds:Mine", "model": "x/y"})
    become_another(monkeypatch, tmp_path / "me")
    with pytest.raises(UserError, match="worlds:Mine"):
        TextFolder.open(tmp_path / "run")


def test_data_name_no_code_that_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: Registry[Any] = Registry("kind of answer", {"known": 1}, lambda thing, _: thing)
    kinds.check_read("known")
    kinds.check_read("json:JSONDecoder")  # imported already
    for name in ("this:s", "antigravity:fly", "/tmp/evil.py:Kind"):
        with pytest.raises(UserError, match="--trust"):
            kinds.check_read(name)
    assert "this" not in sys.modules
    with pytest.raises(UserError, match="must be a text"):
        kinds.check_read(7)
    monkeypatch.setattr("prefrl.seams._consented", {"this:s"})
    kinds.check_read("this:s")


def test_a_record_that_names_a_kind_of_ones_own_runs_nothing(tmp_path: Path) -> None:
    program = """
import sqlite3, sys
from pathlib import Path
import numpy as np
from prefrl.errors import UserError
from prefrl.feedback import Query
from prefrl.segments import Segment
from prefrl.store import PreferenceStore
s = [Segment(observations=np.full((3, 1), i), actions=np.zeros((2, 1)), true_rewards=np.zeros(2)) for i in (1.0, 2.0)]
path = Path("record.sqlite")
with PreferenceStore(path) as store:
    store.add_queries([Query(segments=tuple(s))])
raw = sqlite3.connect(path)
raw.execute("UPDATE queries SET kind = 'evil:Kind'")
raw.commit()
with PreferenceStore(path) as store:
    try:
        store.cards(store.query_ids())
    except UserError as error:
        print(error)
"""
    (tmp_path / "evil.py").write_text("open('ran', 'w')\nclass Kind: pass\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert "evil:Kind" in done.stdout, done.stderr
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(os.name == "nt", reason="permissions are others there")
def test_a_configuration_that_holds_a_password_is_its_owners_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    become_another(monkeypatch, tmp_path / "them")
    for number, record in enumerate(("postgresql://me:secret@host/db", "postgresql://host/db?user=me&password=secret")):
        folder = make_run(tmp_path / f"run{number}", record=record)
        assert folder.config_path.stat().st_mode & 0o077 == 0
        assert folder.settings.record == record
    assert make_run(tmp_path / "plain").config_path.stat().st_mode & 0o044
    become_another(monkeypatch, tmp_path / "me")
    with pytest.raises(UserError) as refused:
        ControlFolder.open(tmp_path / "run0")
    assert "secret" not in str(refused.value)
    assert json.loads((tmp_path / "run0" / "config.json").read_text())["settings"]["record"]

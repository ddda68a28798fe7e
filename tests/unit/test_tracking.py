"""Figures sent to experiment trackers: each row once, whatever happens to the run, and nothing to the training."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from prefrl import trust
from prefrl.cli import main
from prefrl.control import TrainSettings, train
from prefrl.control.folder import ControlFolder
from prefrl.errors import UserError
from prefrl.runs import tracking
from prefrl.runs.metrics import MetricsWriter
from prefrl.runs.trackers import TRACKERS

SMALL: dict[str, Any] = {
    "env_id": "Pendulum-v1", "labels": 6, "steps": 1600, "num_envs": 2, "segment_length": 10, "warmup_steps": 200,
    "eval_episodes": 1, "hyperparameters": {"n_steps": 100, "batch_size": 50, "n_epochs": 1}, "num_checkpoints": 2,
}  # fmt: skip


class Noted:
    """A tracker that notes what it is told."""

    opened: list[Noted]

    def __init__(
        self, *, path: Path, run_id: str, project: str, settings: Mapping[str, Any], own: dict[str, Any]
    ) -> None:
        self.run_id, self.project, self.settings = run_id, project, settings
        self.before = own.get("times", 0)
        own["times"] = self.before + 1
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.final: dict[str, float] = {}
        self.files: list[str] = []
        self.closed = 0
        Noted.opened.append(self)

    def log(self, figures: Mapping[str, float], count: int) -> None:
        self.rows.append((count, dict(figures)))

    def finish(self, figures: Mapping[str, float], files: Sequence[Path]) -> None:
        self.final, self.files = dict(figures), [path.name for path in files]

    def close(self) -> None:
        self.closed += 1


class Broken(Noted):
    def log(self, figures: Mapping[str, float], count: int) -> None:
        raise ConnectionError("no network")


@pytest.fixture(autouse=True)
def trackers(monkeypatch: pytest.MonkeyPatch) -> None:
    Noted.opened = []
    monkeypatch.setattr(TRACKERS, "_known", {**TRACKERS._known, "noted": Noted, "broken": Broken})
    monkeypatch.setattr(tracking, "SECONDS", 0.05)


def folder_with(path: Path, counts: Sequence[int]) -> ControlFolder:
    folder = ControlFolder.create(path, TrainSettings(**SMALL).resolve(), baseline=False)
    writer = MetricsWriter(folder)
    for count in counts:
        writer.write({"num_env_steps": count, "labels": count // 10, "seconds": {"collect": 0.5}, "true_return": None})
    writer.close()
    return folder


@pytest.mark.slow
def test_a_training_is_seen_as_its_metrics_hold_it_with_what_it_came_to(tmp_path: Path) -> None:
    folder = train(TrainSettings(**SMALL), tmp_path / "run", quiet=True, trackers=["noted"], project="mine")
    assert tracking.finish(folder) == (0, []), "all rows were sent while it trained"
    (seen,) = Noted.opened
    rows = folder.read_metrics()
    assert [count for count, _ in seen.rows] == [row["num_env_steps"] for row in rows]
    for (_, figures), row in zip(seen.rows, rows, strict=True):
        assert figures["labels"] == row["labels"] and figures["seconds/update"] == row["seconds"]["update"]
        assert "num_env_steps" not in figures
    assert (seen.project, seen.run_id, seen.closed) == ("mine", folder.run_id, 1)
    assert seen.settings["labels"] == 6 and seen.settings["fit.num_steps"] > 0
    assert seen.final["labels"] == 6 and "curves.png" in seen.files


def test_rows_that_come_again_after_a_kill_are_sent_once(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "run", [10, 20, 30])
    tracking.track(folder, ["noted"])
    assert tracking.Tracking(folder).send() == 3
    writer = MetricsWriter(folder, folder.metrics_path.read_text().index("\n") + 1, 10)  # the checkpoint knew one row
    with tracking.followed(folder):
        for count in (20, 30, 40):
            writer.write({"num_env_steps": count, "labels": 0})
        writer.close()
    assert [[count for count, _ in one.rows] for one in Noted.opened] == [[10, 20, 30], [40]]
    assert [one.before for one in Noted.opened] == [0, 1], "it knows that it goes on"
    tracking.finish(folder)


def test_what_goes_wrong_there_stops_neither_the_training_nor_other_trackers(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "run", [10])
    tracking.track(folder, ["broken", "noted"])
    with pytest.warns(UserWarning, match=r"broken stopped: ConnectionError: no network.*prefrl track .* --to broken"):
        assert tracking.finish(folder) == (1, ["broken"])
    assert [len(one.rows) for one in Noted.opened] == [0, 1]
    kept = json.loads((folder.path / "tracking.json").read_text())["trackers"]
    assert (kept["broken"]["sent"], kept["noted"]["sent"]) == (-1, 10)


def test_a_finished_run_is_sent_by_the_command_and_only_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_with(tmp_path / "run", [10, 20])
    assert main(["track", str(folder.path)]) == 2
    assert "--to wandb | mlflow | trackio | aim" in capsys.readouterr().err
    assert main(["track", str(folder.path), "--to", "noted", "--project", "p"]) == 0
    assert main(["track", str(folder.path)]) == 0
    assert capsys.readouterr().out == "Sent 2 rows.\nSent 0 rows.\n"
    assert main(["track", str(folder.path), "--to", "broken"]) == 2
    assert "sent to broken: see above" in capsys.readouterr().err


def test_what_somebody_else_has_tracked_goes_nowhere_until_one_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("XDG_CONFIG_HOME", "APPDATA"):
        monkeypatch.setenv(variable, str(tmp_path / "them"))
    folder = folder_with(tmp_path / "run", [10, 20])
    tracking.track(folder, ["noted"], "theirs")
    for variable in ("XDG_CONFIG_HOME", "APPDATA"):
        monkeypatch.setenv(variable, str(tmp_path / "me"))
    monkeypatch.setenv(trust.VARIABLE, "")
    with pytest.warns(UserWarning, match=r"did not ask .* nothing is sent there.* prefrl track .* --to noted"):
        assert tracking.finish(folder) == (0, [])
    assert Noted.opened == []
    tracking.track(folder, ["noted"], "mine")
    assert tracking.finish(folder) == (2, [])
    assert Noted.opened[0].project == "mine" and Noted.opened[0].before == 0, "nothing of theirs is gone on with"
    assert tracking.finish(folder) == (0, [])


@pytest.mark.parametrize("name", ["wandbb", "module:Name", ""])
def test_unknown_trackers_are_refused_before_anything_is_done(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no tracker {name!r}; choose of wandb"):
        train(TrainSettings(**SMALL), tmp_path / "run", quiet=True, trackers=[name])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "text", ["", "[]", '{"trackers": 3}', '{"trackers": {"os:system": {"project": "", "sent": 1, "own": {}}}}']
)
def test_a_damaged_file_is_a_sentence(text: str, tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "run", [10])
    (folder.path / "tracking.json").write_text(text)
    with pytest.raises(UserError, match=r"tracking\.json"):
        tracking.Tracking(folder)


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio", "aim"])
def test_a_library_that_is_not_installed_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    folder = folder_with(tmp_path / "run", [10])
    tracking.track(folder, [name])
    with pytest.warns(UserWarning, match=f"pip install {name}"):
        tracking.finish(folder)

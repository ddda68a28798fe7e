"""A record, metrics or settings that are not what the checkpoint knew: said, refused, and gone on with knowingly."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from prefrl.cli import main
from prefrl.control import ControlFolder, TrainSettings, resume, train
from prefrl.control.loop import Trainer
from prefrl.errors import UserError
from prefrl.feedback import Comparison, Query
from prefrl.files import write_json
from prefrl.segments import Segment
from prefrl.store import PreferenceStore

TINY = TrainSettings(
    env_id="Pendulum-v1", labels=6, steps=1200, num_envs=2, segment_length=10, warmup_steps=200, num_checkpoints=3,
    hyperparameters={"n_steps": 100, "batch_size": 50, "n_epochs": 1},
)  # fmt: skip


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed just before its end."""
    folder = train(TINY, tmp_path_factory.mktemp("runs") / "run", quiet=True)
    (folder.policies / "last.pt").unlink()
    folder.summary_path.unlink()
    return folder.path


@pytest.fixture
def run(stopped: Path, tmp_path: Path) -> Path:
    shutil.copytree(stopped, tmp_path / "run")
    return tmp_path / "run"


def change(record: Path, *statements: str) -> None:
    raw = sqlite3.connect(record)
    for statement in statements:
        raw.execute(statement)
    raw.commit()
    raw.close()


def test_a_record_that_is_gone_is_made_by_no_verb(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = run / "record.sqlite"
    for name in run.glob("record.sqlite*"):
        name.unlink()
    for verb in ("fit", "report", "quality", "resume", "export"):
        options = ["--to", str(tmp_path / "data")] if verb == "export" else []
        assert main([verb, str(run), *options]) == 2, verb
        assert "record" in capsys.readouterr().err
        assert not record.exists(), verb
    assert not (tmp_path / "data").exists()
    record.touch()
    for verb in ("fit", "resume"):
        assert main([verb, str(run)]) == 2
        assert "or an empty one" in capsys.readouterr().err
    assert record.stat().st_size == 0


def test_answers_that_are_missing_are_named_and_gone_on_without_knowingly(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(run / "record.sqlite", "DELETE FROM answers WHERE id IN (2, 5)")
    assert main(["resume", str(run), "--quiet", "--no-video"]) == 2
    told = capsys.readouterr().err
    assert "lacks 2 of 6 answers that were learned from (rows 2, 5)" in told
    assert "--accept-lost" in told
    assert len(list((run / "checkpoints").iterdir())) == 2
    with pytest.warns(UserWarning, match="lacks 2 of 6"):
        folder = resume(run, quiet=True, accept_lost=True)
    with PreferenceStore(folder.record) as store:
        assert store.num_answers() >= 4
    assert folder.finished


def test_an_emptied_record_can_be_gone_on_from_and_asks_anew(run: Path) -> None:
    for name in run.glob("record.sqlite*"):
        name.unlink()
    with pytest.raises(UserError, match="There is no record"):
        resume(run, quiet=True)
    with pytest.warns(UserWarning, match="lacks 6 of 6 answers .* and 6 queries"):
        assert resume(run, quiet=True, accept_lost=True).finished


def test_on_the_way_an_emptied_record_is_asked_before_anything_is_fitted(run: Path) -> None:
    first, _ = sorted((run / "checkpoints").iterdir())
    shutil.copytree(
        run,
        run.parent / "way",
        ignore=lambda folder, names: [
            name
            for name in names
            if name.startswith("record.sqlite") or (Path(folder).name == "checkpoints" and name != first.name)
        ],
    )
    with pytest.warns(UserWarning, match="lacks . of . answers"):
        folder = resume(run.parent / "way", quiet=True, accept_lost=True)
    assert folder.finished and folder.read_summary()["labels"] == 6


def test_the_record_of_another_run_is_not_taken_for_ones_own(run: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in run.glob("record.sqlite*"):
        name.unlink()
    with PreferenceStore(run / "record.sqlite") as store:
        for number in range(8):
            pair = [
                Segment(
                    observations=rng.normal(size=(11, 3)), actions=rng.normal(size=(10, 1)), true_rewards=np.ones(10)
                )
                for _ in range(2)
            ]
            query = Query(segments=tuple(pair), session=number)
            store.add_queries([query])
            store.add_answers([Comparison(query_id=query.id, preference=1.0, annotator="anna")])
    with pytest.raises(UserError, match="lacks 6 of 6 answers"):
        resume(run, quiet=True)


def test_metrics_that_were_cut_are_kept_and_what_is_missing_is_said(run: Path) -> None:
    metrics = run / "metrics.jsonl"
    whole = metrics.read_bytes()
    lines = whole.splitlines(keepends=True)
    metrics.write_bytes(b"".join(lines[:2]) + lines[2][:20])
    with pytest.warns(UserWarning, match="what is missing is missing from"):
        folder = resume(run, quiet=True)
    kept = metrics.read_bytes()
    assert kept == b"".join(lines[:2])
    assert b"\0" not in kept
    assert folder.read_summary()["labels"] is not None


def test_without_metrics_nothing_is_said_to_be_trained_on_the_true_reward(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "metrics.jsonl").write_bytes(b"")
    assert main(["resume", str(run), "--quiet", "--no-video"]) == 0
    told = capsys.readouterr().out
    assert "unknown number of answers" in " ".join(told.split())
    assert "true reward" not in told


def test_rows_of_metrics_that_are_damaged_are_counted(run: Path) -> None:
    metrics = run / "metrics.jsonl"
    lines = metrics.read_bytes().splitlines(keepends=True)
    metrics.write_bytes(lines[0] + b"\0\0\0\n" + b"[1]\n" + b"".join(lines[1:]) + b'{"cut')
    with pytest.warns(UserWarning, match="2 of its .* lines are no rows, the first of them line 2"):
        rows = ControlFolder(run).read_metrics()
    assert len(rows) == len(lines)


def test_settings_that_were_changed_under_a_checkpoint_are_refused_or_taken_knowingly(run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    config["settings"]["seed"] = 7
    config["settings"]["fit"]["batch_size"] = 16
    write_json(run / "config.json", config)
    with pytest.raises(UserError, match=r"seed was 0 and is 7.*--accept-changed") as refused:
        resume(run, quiet=True)
    assert "fit.batch_size" in str(refused.value)
    assert resume(run, quiet=True, accept_changed=True).finished


@pytest.mark.skipif(os.name == "nt", reason="what is open cannot be removed there")
@pytest.mark.parametrize("replaced", [False, True])
def test_a_record_that_is_removed_while_training_is_saved_aside(tmp_path: Path, replaced: bool) -> None:
    folder = ControlFolder.create(tmp_path / "run", TINY.resolve(), baseline=False)
    trainer = Trainer(folder)
    held = 0

    def remove(_: object) -> None:
        nonlocal held
        if folder.record_path.exists() and not held:
            held = trainer.teaching.labels
            for name in folder.path.glob("record.sqlite*"):
                name.unlink()
            if replaced:
                with PreferenceStore(folder.record_path):
                    pass

    trainer.on_progress = remove
    with pytest.raises(UserError, match="removed or replaced while it was in use") as refused:
        trainer.run()
    (rescued,) = folder.path.glob("record-rescued-*.sqlite")
    assert str(rescued) in str(refused.value)
    with PreferenceStore(rescued) as store:
        assert store.num_answers() == held > 0
    if not replaced:
        assert not folder.record_path.exists()


def test_of_a_finished_run_it_is_said_what_is_missing(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume", str(run), "--quiet", "--no-video", "--no-viewer"]) == 0
    for name in ("reward.safetensors", "record.sqlite"):
        capsys.readouterr()
        assert main(["evaluate", str(run), "--episodes", "1", "--json"]) == 0
        assert "is missing" not in capsys.readouterr().err or name == "record.sqlite"
        for path in run.glob(f"{name}*"):
            path.unlink()
        assert main(["evaluate", str(run), "--episodes", "1", "--json"]) == 0
        assert f"{name} is missing" in " ".join(capsys.readouterr().err.split())

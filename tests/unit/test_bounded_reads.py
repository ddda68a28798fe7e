"""Files of strangers that have no end, unpack to anything, or say what cannot be: refused before memory is taken."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prefrl import errors, files
from prefrl.control.folder import ControlFolder
from prefrl.control.settings import TrainSettings
from prefrl.errors import UserError, printable, tell
from prefrl.files import write_json
from prefrl.human_ui.gallery import Expected
from prefrl.human_ui.outcome import learned_returns
from prefrl.offline.data import World
from prefrl.offline.sources import read_npz
from prefrl.runs.checkpoint import DamagedCheckpoint, State, check_unchanged, load_checkpoint, save_checkpoint
from prefrl.runs.metrics import read_rows
from prefrl.studies.asking import Asking, of_rollouts
from prefrl.text.data import files as text_files

DEEP = "[" * 100_000


@pytest.fixture
def folder(tmp_path: Path) -> ControlFolder:
    return ControlFolder.create(tmp_path / "run", TrainSettings(env_id="Pendulum-v1").resolve(), baseline=False)


def packed(data: bytes) -> bytes:
    """Return an archive with its parts compressed."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as there, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name in there.namelist():
            file.writestr(name, there.read(name))
    return out.getvalue()


def test_policies_and_checkpoints_that_would_unpack_are_refused(folder: ControlFolder) -> None:
    folder.save_policy("last", {"w": torch.zeros(100_000)})
    path = folder.policies / "last.pt"
    path.write_bytes(packed(path.read_bytes()))
    with pytest.raises(UserError, match="is compressed"):
        folder.load_policy("last")
    place = save_checkpoint(folder, 10, State(tensors={"w": torch.zeros(100_000)}))
    data = packed((place / "state.pt").read_bytes())
    (place / "state.pt").write_bytes(data)
    manifest = json.loads((place / "manifest.json").read_text())
    manifest["sha256"]["state.pt"] = hashlib.sha256(data).hexdigest()
    write_json(place / "manifest.json", manifest)
    with pytest.raises(UserError, match="is compressed"):
        load_checkpoint(place, folder.run_id)


def test_a_checkpoint_is_read_from_plain_files_however_its_manifest_is_nested(
    folder: ControlFolder,
) -> None:
    place = save_checkpoint(folder, 10, State())
    (place / "manifest.json").write_text(DEEP)
    with pytest.raises(DamagedCheckpoint, match="manifest"):
        load_checkpoint(place, folder.run_id)
    place = save_checkpoint(folder, 20, State())
    (place / "state.json").unlink()
    if os.name != "nt":
        (place / "state.json").symlink_to("/dev/zero")
        with pytest.raises(DamagedCheckpoint, match="no plain file"):
            load_checkpoint(place, folder.run_id)


def test_a_changed_baseline_is_refused_first_with_what_goes_on(folder: ControlFolder) -> None:
    inner = ControlFolder.create(folder.path / "baseline", folder.settings, baseline=True)
    save_checkpoint(inner, 10, State())
    config = inner.config
    config["settings"]["teacher"] = "noisy"
    write_json(inner.config_path, config)
    baseline = folder.baseline
    assert baseline is not None
    with pytest.raises(UserError, match=f"teacher was .*prefrl resume {folder.path} --accept-changed"):
        check_unchanged(baseline)
    folder.accept_changed = True
    assert folder.baseline is not None
    check_unchanged(folder.baseline)


@pytest.mark.parametrize("write", [lambda data: gzip.compress(data), lambda data: data], ids=["gzip", "plain"])
def test_rows_are_unpacked_up_to_a_bound(
    write: Callable[[bytes], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(write(b'{"a": 1}\n' * 100))
    assert len(text_files.read_rows(path)) == 100
    for module in (files, text_files):
        monkeypatch.setattr(module, "MOST_BYTES", 500)
    with pytest.raises(UserError, match=r"larger than|unpacks to more"):
        text_files.read_rows(path)


def test_tables_are_unpacked_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    parquet.write_table(arrow.Table.from_pylist([{"a": "x" * 1000}] * 100), path, use_dictionary=False)
    assert len(text_files.read_rows(path)) == 100
    monkeypatch.setattr(text_files, "MOST_BYTES", 500)
    with pytest.raises(UserError, match="unpacks to"):
        text_files.read_rows(path)


def test_figures_are_read_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.jsonl").write_bytes(b'{"a": 1}\n' * 100)
    assert len(read_rows(tmp_path / "m.jsonl")) == 100
    monkeypatch.setattr(files, "MOST_BYTES", 500)
    with pytest.raises(UserError, match="larger than"):
        read_rows(tmp_path / "m.jsonl")


def test_what_viewers_read_beside_the_record_may_be_anything(tmp_path: Path) -> None:
    for content in (DEEP, "[]", "{}", '{"probabilities": {"x": 1}, "newest_row": 1e999}', '{"newest_row": []}'):
        (tmp_path / "expected.json").write_text(content)
        expected = Expected(tmp_path)
        assert expected.read() == {}
        assert expected._known() == 0
    (tmp_path / "metrics.jsonl").write_text(f'{DEEP}\n{{"num_env_steps": 1, "learned_return": 2.0}}\n')
    assert list(learned_returns(tmp_path / "metrics.jsonl")) == [(1, 2.0)]


EPISODE: dict[str, Any] = {
    "observations": np.zeros((6, 3), np.float32), "actions": np.zeros((5, 1), np.float32),
    "frames": np.zeros((5, 8, 8, 3), np.uint8), "rewards": np.zeros(5),
}  # fmt: skip


@pytest.mark.parametrize("name", ["observations", "actions", "frames", "rewards"])
def test_a_single_value_in_place_of_a_row_for_each_step_is_named(name: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", **{**EPISODE, name: np.float32(1)})
    with pytest.raises(UserError, match=f"{name} must have a row for each step"):
        of_rollouts(tmp_path / "e.npz", 3, Asking(num=1))


@pytest.mark.parametrize("value", [np.zeros(3), np.float64(np.nan), np.float64(-1), np.array("x"), np.array(True)])
@pytest.mark.parametrize("name", ["seed", "frames_per_second"])
def test_a_number_of_an_episode_that_is_none_is_named(name: str, value: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", **EPISODE, **{name: value})
    with pytest.raises(UserError, match=f"{name} must be one number from 0"):
        read_npz(tmp_path, World(env_id="none"))


@pytest.mark.skipif(os.name == "nt", reason="no pipes among files")
def test_an_episode_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "e.npz")
    for read in (lambda: read_npz(tmp_path, World(env_id="none")), lambda: of_rollouts(tmp_path, 3, Asking(num=1))):
        with pytest.raises(UserError, match="no plain file"):
            read()


def test_a_message_does_nothing_to_a_terminal_and_has_an_end(capsys: pytest.CaptureFixture[str]) -> None:
    tell("prefrl: no \x1b]0;title\x07 of \u202egnp.exe\nsecond line, \xe9 and \u4e2d")
    assert capsys.readouterr().err == "prefrl: no \\x1b]0;title\\x07 of \\u202egnp.exe\nsecond line, \xe9 and \u4e2d\n"
    tell("x" * 10**6)
    assert len(capsys.readouterr().err) < errors.LONGEST_MESSAGE + 10
    assert printable("a\rb\ud800") == "a\\rb\\ud800"

"""What runs of every kind share: states, checkpoints, progress, guards, loading by name."""

from __future__ import annotations

import hashlib
import io
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from prefrl.errors import UserError
from prefrl.runs import RunFolder, State
from prefrl.runs.checkpoint import checkpoint_to_go_on_from, newest_checkpoint, save_checkpoint
from prefrl.runs.device import choose_device
from prefrl.runs.folder import format_of
from prefrl.runs.guard import enough_memory, locked
from prefrl.runs.metrics import mean_of_known
from prefrl.runs.progress import ProgressDisplay
from prefrl.seams import is_function_name, load_function


class CakeFolder(RunFolder):
    FORMAT, COMMAND, COUNTER = "test.cake", "bake", "layers"


class PieFolder(RunFolder):
    FORMAT, COMMAND, COUNTER = "test.pie", "bake pie", "slices"


@pytest.fixture
def folder(tmp_path: Path) -> CakeFolder:
    return CakeFolder._create(tmp_path / "cake")


def a_state(number: int = 1) -> State:
    return State(tensors={"w": torch.full((2,), number)}, arrays={"a": np.arange(number)}, values={"n": number})


def test_a_state_joined_of_parts_gives_each_its_own_again() -> None:
    whole = State.joined({"oven": a_state(2), "nobody": State()}, {"size": 3})
    assert whole.values == {"oven": {"n": 2}, "size": 3}
    again = whole.part("oven")
    assert again.values == {"n": 2} and again.arrays["a"].tolist() == [0, 1]
    assert torch.equal(again.tensors["w"], torch.full((2,), 2))
    assert whole.part("nobody") == State()


def test_the_newest_checkpoint_that_can_be_read_is_gone_on_from(folder: CakeFolder) -> None:
    for count in (1, 2, 3):
        save_checkpoint(folder, count, a_state(count))
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == ["000000000002", "000000000003"]
    manifest = json.loads((folder.checkpoints / "000000000003" / "manifest.json").read_text())
    assert (manifest["counter"], manifest["count"]) == ("layers", 3)
    (folder.checkpoints / "000000000003" / "state.json").write_text("{}")
    with pytest.warns(UserWarning, match=r"damaged.*Going on from the checkpoint before it"):
        found = checkpoint_to_go_on_from(folder)
    assert found is not None and found.count == 2 and found.state.values == {"n": 2}
    (folder.checkpoints / "000000000002" / "state.json").unlink()
    kept = folder.checkpoints / "000000000003.damaged" / "state.json"
    assert kept.read_text() == "{}", "what is damaged may still be of use to someone"


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty manifest": lambda path: (path / "manifest.json").write_bytes(b""),
    "manifest of another shape": lambda path: (path / "manifest.json").write_text("[1]"),
    "a count of another": lambda path: (path / "manifest.json").write_text(
        (path / "manifest.json").read_text().replace('"count": ', '"count": 1')
    ),
    "no manifest": lambda path: (path / "manifest.json").unlink(),
    "empty tensors": lambda path: (path / "state.pt").write_bytes(b""),
    "cut tensors": lambda path: (path / "state.pt").write_bytes((path / "state.pt").read_bytes()[:100]),
    "no arrays": lambda path: (path / "arrays.safetensors").unlink(),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_where_every_checkpoint_is_damaged_nothing_is_begun_anew_or_deleted(folder: CakeFolder, how: str) -> None:
    for count in (1, 2):
        DAMAGE[how](save_checkpoint(folder, count, a_state(count)))
    before = {path: path.read_bytes() for path in folder.checkpoints.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"damaged.*Nothing was changed"):
        checkpoint_to_go_on_from(folder)
    assert {path: path.read_bytes() for path in folder.checkpoints.rglob("*") if path.is_file()} == before


def rewrite(path: Path, content: bytes) -> None:
    """Put other tensors into a checkpoint, with the right checksum."""
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["sha256"]["state.pt"] = hashlib.sha256(content).hexdigest()
    (path / "state.pt").write_bytes(content)
    (path / "manifest.json").write_text(json.dumps(manifest))


def test_tensors_of_a_class_that_is_not_known_are_refused_even_where_an_older_checkpoint_is_there(
    folder: CakeFolder,
) -> None:
    save_checkpoint(folder, 1, a_state(1))
    buffer = io.BytesIO()
    torch.save({"w": CakeFolder(folder.path)}, buffer)
    rewrite(save_checkpoint(folder, 2, a_state(2)), buffer.getvalue())
    with pytest.raises(UserError, match=r"undamaged but cannot be read here.*Nothing was changed"):
        checkpoint_to_go_on_from(folder)


def test_a_checkpoint_of_a_newer_version_is_refused_and_stays(folder: CakeFolder) -> None:
    save_checkpoint(folder, 1, a_state(1))
    path = save_checkpoint(folder, 2, a_state(2)) / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 99}))
    with pytest.raises(UserError, match=r"newer prefrl.*Upgrade"):
        checkpoint_to_go_on_from(folder)
    assert json.loads(path.read_text())["version"] == 99


def test_a_checkpoint_that_a_gpu_wrote_is_read_on_the_cpu(folder: CakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_checkpoint(folder, 1, a_state(5))
    buffer = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr("torch.serialization.location_tag", lambda storage: "cuda:0")
        torch.save(a_state(5).tensors, buffer)
    rewrite(path, buffer.getvalue())
    found = checkpoint_to_go_on_from(folder)
    assert found is not None and found.state.tensors["w"].device.type == "cpu"
    assert torch.equal(found.state.tensors["w"], a_state(5).tensors["w"])


def test_who_asks_for_counters_alone_does_not_read_the_arrays(folder: CakeFolder) -> None:
    """They are most of a checkpoint where observations are images: hundreds of MB that quality has no use for."""
    path = save_checkpoint(folder, 1, a_state(5))
    (path / "arrays.safetensors").unlink()
    assert newest_checkpoint(folder)[0] is None
    found, refused = newest_checkpoint(folder, with_arrays=False)
    assert refused == []
    assert found is not None
    assert found.state.values == {"n": 5} and found.state.arrays == {}
    assert torch.equal(found.state.tensors["w"], torch.full((2,), 5))


def test_a_save_removes_older_checkpoints_only(folder: CakeFolder) -> None:
    newer = save_checkpoint(folder, 9, a_state(9))
    for count in (1, 2, 3):
        save_checkpoint(folder, count, a_state(count))
    assert newer.is_dir()
    assert sorted(int(path.name) for path in folder.checkpoints.iterdir()) == [2, 3, 9]


def test_means_are_of_what_is_known() -> None:
    assert mean_of_known([1.0, math.nan, None, 3.0]) == 2.0
    assert mean_of_known([math.nan, None, math.inf]) is None
    assert mean_of_known([]) is None


def test_checkpoints_of_version_1_are_read(folder: CakeFolder) -> None:
    path = save_checkpoint(folder, 7, a_state()) / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["counter"]
    path.write_text(json.dumps({**manifest, "version": 1, "num_env_steps": manifest.pop("count")}))
    found, refused = newest_checkpoint(folder)
    assert found is not None and found.count == 7 and refused == []


def test_a_folder_of_another_kind_says_what_made_it(folder: CakeFolder) -> None:
    with pytest.raises(UserError, match=r"not written by bake pie, but by bake\. Give the folder"):
        PieFolder.open(folder.path)
    assert format_of(folder.path) == "test.cake" and format_of(folder.path.parent) is None


def test_a_folder_is_locked_for_others(folder: CakeFolder) -> None:
    with locked(folder.path), pytest.raises(UserError, match="trained by another process"), locked(folder.path):
        pass
    with locked(folder.path):
        pass


def test_too_little_memory_names_what_to_lower() -> None:
    with pytest.raises(UserError, match=r"too little memory: .*Bake less\."), enough_memory("Bake less."):
        raise MemoryError("Unable to allocate 9 GiB")


def test_progress_without_a_terminal_is_a_line_for_each_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressDisplay("cake") as display:
        for step in range(1, 21):
            display.show(step, 20, "sweet")
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "cake: 20 of 20 steps, sweet"
    assert len(lines) == 10
    with ProgressDisplay("cake", quiet=True) as display:
        display.show(20, 20, "sweet")
    with ProgressDisplay("pie") as display:
        display.show(1, 1, "sour")
    assert capsys.readouterr().err.splitlines() == ["pie: 1 of 1 steps, sour"]


def test_functions_are_loaded_by_file_or_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("def taste(cake):\n    return 1\nsize = 3\n")
    where = f"{tmp_path / 'mine.py'}:taste"
    assert is_function_name(where) and not is_function_name(str(tmp_path)) and not is_function_name("org/model")
    assert load_function(where, "reward function", "a cake")(None) == 1
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    assert load_function("mine:taste", "reward function", "a cake")(None) == 1
    with pytest.raises(UserError, match="expected a function that takes a cake"):
        load_function("mine:size", "reward function", "a cake")


def test_a_device_that_is_not_here_is_refused() -> None:
    assert choose_device("auto", prefer_gpu=False) == choose_device("cpu", prefer_gpu=True) == "cpu"
    with pytest.raises(UserError, match=r"cannot be used here.*Take cpu or auto"):
        choose_device("nonsense", prefer_gpu=True)

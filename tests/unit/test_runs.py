"""What runs of every kind share: states, checkpoints, progress, guards, loading by name."""

from __future__ import annotations

import json
import sys
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
    with pytest.warns(UserWarning, match="from the beginning of the run"):
        assert checkpoint_to_go_on_from(folder) is None


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

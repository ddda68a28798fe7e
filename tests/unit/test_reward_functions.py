"""Loading reward functions by name."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from prefrl.annotators import load_reward_function
from prefrl.errors import UserError
from prefrl.segments import Segment

SOURCE = """
from __future__ import annotations
from dataclasses import dataclass

@dataclass
class Weights:
    height: float = 2.0

def backflip(segment):
    return segment.actions[:, 0] * Weights().height

limit = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tricks.py"
    path.write_text(SOURCE)
    return path


def check(where: str) -> None:
    segment = Segment(observations=np.zeros((3, 1)), actions=np.array([[1.0], [2.0]]), true_rewards=np.zeros(2))
    np.testing.assert_array_equal(load_reward_function(where)(segment), [2.0, 4.0])


def test_a_function_is_loaded_from_a_file(file: Path) -> None:
    check(f"{file}:backflip")


def test_a_function_is_loaded_from_a_module(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(file.parent))
    check("tricks:backflip")
    sys.modules.pop("tricks")


def test_a_missing_function_is_refused_with_near_names(file: Path) -> None:
    with pytest.raises(UserError, match=r"no function 'backflp' in .*tricks.py. Did you mean 'backflip'"):
        load_reward_function(f"{file}:backflp")


def test_what_cannot_be_called_is_refused(file: Path) -> None:
    with pytest.raises(UserError, match="is a int; expected a function"):
        load_reward_function(f"{file}:limit")


@pytest.mark.parametrize("where", ["", "backflip", "tricks.py", ":backflip", "tricks.py:", "tricks.py:back flip"])
def test_a_name_of_another_form_is_refused_with_the_form_expected(where: str) -> None:
    with pytest.raises(UserError, match=r"path/to/file.py:function or package.module:function. Received"):
        load_reward_function(where)


def test_a_missing_file_or_module_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no file .*absent.py"):
        load_reward_function(f"{tmp_path}/absent.py:backflip")
    for module in ("absent_module", "json.absent", "absent_package.inner"):
        with pytest.raises(UserError, match=f"There is no module '{module}'"):
            load_reward_function(f"{module}:backflip")


@pytest.mark.parametrize(
    ("source", "error"),
    [("1 / 0", ZeroDivisionError), ("def f(:", SyntaxError), ("import absent_dependency", ModuleNotFoundError)],
)
def test_a_file_that_cannot_be_imported_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, error: type[Exception]
) -> None:
    path = tmp_path / "broken_tricks.py"
    path.write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    for where in (str(path), "broken_tricks"):
        with pytest.raises(UserError, match=f"Importing .*broken_tricks.* failed with {error.__name__}") as caught:
            load_reward_function(f"{where}:f")
        assert isinstance(caught.value.__cause__, error)
    assert not [name for name in sys.modules if "broken_tricks" in name]

"""Messages for users, and the guard for optional packages."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import pytest

from prefrl.errors import BrokenExtraError, MissingExtraError, UserError, first_line, near_names, require, shown_once


def test_a_missing_package_names_the_command_that_installs_it() -> None:
    with pytest.raises(MissingExtraError, match=r'pip install "prefrl\[mujoco\]"') as caught:
        require("package_that_is_not_there.part", "mujoco")
    assert isinstance(caught.value, UserError)
    assert isinstance(caught.value, ImportError)


def test_an_installed_package_is_returned() -> None:
    assert require("json.decoder", "train").__name__ == "json.decoder"


def test_an_import_that_fails_inside_the_package_is_not_taken_for_a_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_package.py").write_text("import another_that_is_not_there\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(BrokenExtraError, match="another_that_is_not_there") as caught:
        require("broken_package", "train")
    assert not isinstance(caught.value, MissingExtraError)
    assert isinstance(caught.value, ImportError)
    sys.modules.pop("broken_package", None)


@pytest.mark.parametrize("kind", ["ImportError", "ValueError", "AttributeError"])
def test_a_package_that_does_not_go_with_another_is_told_in_a_sentence(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "particular_package.py").write_text(f"raise {kind}('requires NumPy 2.0')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    expected = (
        r"installed but cannot be imported: requires NumPy 2\.0\. .* --upgrade-strategy eager \"prefrl\[data\]\"$"
    )
    with pytest.raises(UserError, match=expected):
        require("particular_package", "data")


def test_an_error_without_a_message_is_named_by_its_kind() -> None:
    assert first_line(RuntimeError("one\ntwo")) == "one"
    assert first_line(RuntimeError()) == "RuntimeError"


def test_near_names_are_offered_whatever_their_case() -> None:
    known = ["HalfCheetah-v5", "Hopper-v5", "CartPole-v1"]
    assert near_names("halfcheeta-v5", known) == " Did you mean 'HalfCheetah-v5'?"
    assert near_names("zzz", known) == ""


def test_a_warning_is_shown_once_even_if_other_packages_catch_warnings_in_between() -> None:
    lines: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = shown_once(lines.append)
        ours, theirs = (os.path.join("home", name, "module.py") for name in ("prefrl", "other"))
        for said in ("It is dark.", "It is dark.", "It is cold.", "It is dark."):
            with warnings.catch_warnings():  # after which Python has forgotten what it showed
                warnings.simplefilter("ignore")
            warnings.warn_explicit(said, UserWarning, ours, 10, registry={})
        warnings.warn_explicit("Of another package.", UserWarning, theirs, 10, registry={})
    assert lines == ["prefrl: It is dark.", "prefrl: It is cold."]

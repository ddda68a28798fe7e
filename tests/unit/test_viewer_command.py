"""`prefrl label` as a command: what it imports, and what it says when it cannot go on."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from prefrl import start
from prefrl.errors import UserError
from prefrl.files import text_or_file
from prefrl.human_ui.command import find_instruction, main
from prefrl.store import PreferenceStore

HEAVY = (
    "torch",
    "mujoco",
    "ale_py",
    "stable_baselines3",
    "gymnasium.envs.mujoco",
    "prefrl.control",
    "prefrl.studies",
    "prefrl.rewards",
    "tyro",
)


def label(*arguments: str, screen: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")}
    if screen is not None:
        environment["DISPLAY"] = screen
    return subprocess.run(
        [sys.executable, "-m", "prefrl", "label", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "record.sqlite"
    PreferenceStore(path).close()
    return path


def test_the_viewer_imports_neither_torch_nor_a_simulator() -> None:
    program = (
        "import sys, prefrl.start, prefrl.human_ui.command, prefrl.human_ui.window, prefrl.human_ui.desk\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert outcome.stdout.splitlines()[-1] == "[]"


def test_without_a_screen_it_says_what_to_do(record: Path) -> None:
    outcome = label(str(record))
    assert outcome.returncode == 2
    assert "no screen" in outcome.stderr
    assert "ssh -X" in outcome.stderr


def test_a_screen_that_cannot_be_reached_is_an_error_too(record: Path) -> None:
    outcome = label(str(record), screen=":987")
    assert outcome.returncode == 2
    assert "prefrl: " in outcome.stderr
    assert "Run this where there is" in outcome.stderr
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere"], "There is no run in nowhere"),
        (["RECORD", "--size", "big"], "WIDTHxHEIGHT"),
        (["RECORD", "--size", "100x100"], "at least 640x480"),
        (["RECORD", "--repeat-share", "1.5"], "repeat-share"),
    ],
)
def test_wrong_arguments_say_what_was_expected(record: Path, arguments: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        main([str(record) if argument == "RECORD" else argument for argument in arguments])


def test_a_run_without_a_record_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"settings": {"env_id": "Pendulum-v1"}}))
    with pytest.raises(UserError, match="has no record yet"):
        main([str(tmp_path)])


def test_damaged_and_newer_records_are_refused_and_left_alone(
    tmp_path: Path, record: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DISPLAY", ":987")
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(b"this is no database " * 100)
    assert start.main(["label", str(damaged)]) == 2
    assert "not a record of preferences" in capsys.readouterr().err
    assert damaged.read_bytes().startswith(b"this is no database")
    with sqlite3.connect(record) as connection:
        connection.execute("UPDATE about SET value = '99' WHERE key = 'schema_version'")
    connection.close()
    assert start.main(["label", str(record)]) == 2
    assert "newer version" in capsys.readouterr().err


def test_an_instruction_is_a_text_or_a_file_that_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "look.txt"
    path.write_text("Stand still.\n")
    assert text_or_file(str(path)) == "Stand still."
    assert text_or_file("Jump.") == "Jump."
    assert text_or_file("") == ""
    assert text_or_file("long " * 1000).startswith("long")


def test_the_instruction_is_the_option_or_what_the_run_told_before_the_name_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "look.txt").write_text("Jump.")
    config = {"instruction": "file/of/elsewhere.txt"}
    assert find_instruction(str(tmp_path / "look.txt"), {"instruction": "Stand still."}, config) == "Jump."
    assert find_instruction(None, {"instruction": "Stand still."}, config) == "Stand still."
    assert find_instruction(None, {}, {"instruction": str(tmp_path / "look.txt")}) == "Jump."
    assert find_instruction(None, {}, {}) == ""


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        start.main(["label", "--help"])
    assert stopped.value.code == 0
    told = capsys.readouterr().out
    assert all(name in told for name in ("--name", "--instruction", "--repeat-share", "--high-contrast", "--size"))

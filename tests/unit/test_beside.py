"""Runs beside each other: all are finished, a failure is told when the others are done, a stop reaches each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from prefrl.errors import UserError
from prefrl.runs import beside
from prefrl.runs.beside import finish_runs
from prefrl.runs.guard import Interrupted

WORK = """
import pathlib, signal, sys, time
place = pathlib.Path(sys.argv[1])
def stop(number, frame):
    (place / "saved").touch()
    sys.exit(130)
signal.signal(signal.SIGINT, stop)
(place / "begun").write_text(str(time.monotonic()))
print("prefrl: hello from", place.name, flush=True)
time.sleep(float((place / "seconds").read_text()))
(place / "over").write_text(str(time.monotonic()))
sys.exit(int((place / "status").read_text()))
"""


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Four runs of half a second, made by a stand-in for `prefrl resume`."""
    begin = subprocess.Popen

    def stand_in(command: list[str], **options: Any) -> Any:
        assert command[1:4] == ["-m", "prefrl", "resume"] and command[5:] == ["--quiet"]
        return begin([sys.executable, "-c", WORK, command[4]], **options)

    monkeypatch.setattr(beside.subprocess, "Popen", stand_in)
    made = [tmp_path / name for name in "abcd"]
    for path in made:
        path.mkdir()
        (path / "seconds").write_text("0.5")
        (path / "status").write_text("0")
    return made


def finish(folders: list[Path], at_once: int = 2) -> list[str]:
    done: list[str] = []
    finish_runs(
        folders, at_once=at_once, logs=folders[0].parent / "logs", again="prefrl it again",
        done=lambda path, seconds: done.append(f"{path.name} {seconds > 0.4}"),
    )  # fmt: skip
    return done


def test_all_are_finished_so_many_at_once(folders: list[Path]) -> None:
    assert sorted(finish(folders)) == ["a True", "b True", "c True", "d True"]
    times = [(float((p / "begun").read_text()), float((p / "over").read_text())) for p in folders]
    most = max(sum(begun <= moment <= over for begun, over in times) for moment, _ in times)
    assert most == 2
    finish_runs(
        [], at_once=2, logs=folders[0].parent / "logs", again="", done=lambda path, seconds: pytest.fail("none")
    )


def test_a_failure_is_told_with_its_last_words_and_no_more_are_begun(folders: list[Path]) -> None:
    (folders[0] / "status").write_text("2")
    (folders[1] / "seconds").write_text("1.5")
    with pytest.raises(UserError, match=r"/a ended with status 2 .*hello from a What is finished .*: prefrl it again"):
        finish(folders)
    assert (folders[1] / "over").exists() and not (folders[3] / "begun").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_reaches_each_and_waits_for_what_they_save(folders: list[Path], number: int) -> None:
    for path in folders:
        (path / "seconds").write_text("60")

    def stop() -> None:
        while not all((path / "begun").exists() for path in folders[:2]):
            time.sleep(0.05)
        time.sleep(0.1)
        os.kill(os.getpid(), number)

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(Interrupted, match="Resume with: prefrl it again"):
        finish(folders)
    assert all((path / "saved").exists() for path in folders[:2])
    assert not (folders[2] / "begun").exists()

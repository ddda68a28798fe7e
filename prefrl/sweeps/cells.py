"""One run of a sweep, wherever it is made: begun, or gone on with from its checkpoint after a kill."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import socket
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TextIO

from prefrl.control.rendering import choose_gl_backend
from prefrl.errors import ANYTHING, UserError, first_line, shown_once
from prefrl.files import append_to
from prefrl.runs.guard import BeingTrained, Interrupted
from prefrl.runs.metrics import read_rows
from prefrl.sweeps.kinds import Kind, kind_named
from prefrl.trust import names_in, remember

Outcome = tuple[Literal["done", "failed", "stopped"], str]
ATTEMPT, SECONDS_BETWEEN_LOOKS = "begun on ", 5.0


def make_cell(
    command: str, values: Mapping[str, Any], expected: Mapping[str, Any], options: Mapping[str, Any],
    place: Mapping[str, str],
) -> Outcome:  # fmt: skip
    """Make a run to its end, or go on with it where an earlier attempt, on whatever machine, was killed.

    Args:
        command: the kind of run.
        values: its settings.
        expected: what its `config.json` will hold as settings; empty where that is not known before.
        options: what it is told beside them.
        place: `begun_in`, the directory that relative names lead from; `path` of the run; `log` for what it says.

    Returns:
        how it ended, and why where it failed.
    """
    os.chdir(place["begun_in"])
    path, log = Path(place["path"]), Path(place["log"])
    log.parent.mkdir(parents=True, exist_ok=True)
    with io.TextIOWrapper(append_to(log), encoding="utf-8") as file, _said_to(file):
        print(
            f"{ATTEMPT}{socket.gethostname()}, process {os.getpid()}, {time.strftime('%F %T')}", file=file, flush=True
        )
        try:
            with contextlib.suppress(UserError):  # said where something is to be drawn
                choose_gl_backend()
            _make(kind_named(command), values, expected, options, path)
        except (Interrupted, KeyboardInterrupt):
            return "stopped", ""
        except UserError as error:
            print(f"failed: {error}", file=file)
            return "failed", str(error)
        except ANYTHING as error:  # of whatever a user brings
            traceback.print_exc(file=file)
            return "failed", f"{type(error).__name__}: {first_line(error)}"
        return "done", ""


def _make(
    kind: Kind, values: Mapping[str, Any], expected: Mapping[str, Any], options: Mapping[str, Any], path: Path
) -> None:
    while True:
        try:
            folder = kind.folder(path)
            if folder.config_path.is_file():
                check_cell(kind, path, expected)
                if set(names_in(folder.config.get("settings"))) <= set(names_in(values)):
                    remember(folder.config)  # it names nothing that this user does not name now
            if not folder.finished:
                if _was_begun(kind, path):
                    kind.go_on(path)
                else:
                    shutil.rmtree(path, ignore_errors=True)  # of an attempt that was killed before anything was trained
                    kind.begin(values, path, options)
            kind.judge(path)
            return
        except BeingTrained:  # by an attempt whose machine was lost from sight, until it notices
            time.sleep(SECONDS_BETWEEN_LOOKS)


def check_cell(kind: Kind, path: Path, expected: Mapping[str, Any]) -> None:
    """Check that a folder holds the run that belongs there.

    Raises:
        UserError: it is another one.
    """
    folder = kind.folder(path)
    if folder.config.get("format") != folder.FORMAT:
        raise UserError(f"{path} holds another run than the sweep asks for. Choose another --out.")
    if not expected:
        return
    there, asked = folder.settings_as_json(), json.loads(json.dumps(expected))
    if there != asked:
        differ = [name for name in asked if not isinstance(there, dict) or there.get(name) != asked[name]]
        raise UserError(
            f"{path} holds another run than the sweep asks for: other {', '.join(differ or ['settings'])}. Choose "
            "another --out."
        )


def _was_begun(kind: Kind, path: Path) -> bool:
    """Tell whether a run has something to go on from; one that has not is begun anew, whole."""
    metrics = kind.folder(path).metrics_path
    return metrics.is_file() and metrics.stat().st_size > 0


def attempts(log: Path) -> int:
    """Return how often a run was begun or gone on with."""
    if not log.is_file():
        return 0
    return sum(line.startswith(ATTEMPT) for line in log.read_text(encoding="utf-8", errors="replace").splitlines())


def steps_so_far(kind: Kind, path: Path) -> int:
    """Return how far a run has come, by its own counter."""
    row = last_row(kind, path)
    return int(row[kind.folder.COUNTER]) if row else 0


def last_row(kind: Kind, path: Path) -> dict[str, Any]:
    """Return the newest figures that a run has told along the way; none before the first."""
    folder = kind.folder(path)
    rows = read_rows(folder.metrics_path, folder.COUNTER) if folder.metrics_path.is_file() else []
    return rows[-1] if rows else {}


@contextlib.contextmanager
def _said_to(file: TextIO) -> Iterator[None]:
    """Write what is said and warned of into a file."""
    before = warnings.showwarning
    with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        warnings.showwarning = shown_once(lambda line: print(line, file=file, flush=True))
        try:
            yield
        finally:
            warnings.showwarning = before

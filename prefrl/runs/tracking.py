"""A run's figures sent to experiment trackers, beside the training and whatever becomes of them.

`tracking.json` in the run folder says where to, and how far each tracker has come: a run that is killed and goes on,
whose rows come again as they were, sends each row once. Nothing that goes wrong there reaches the training.
"""

from __future__ import annotations

import atexit
import json
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefrl.errors import UserError, first_line
from prefrl.files import read_json, write_json
from prefrl.runs.folder import RunFolder
from prefrl.runs.metrics import finite, numbers, read_rows
from prefrl.runs.trackers import TRACKERS, Tracker
from prefrl.trust import allow, is_allowed

NAME, PROJECT = "tracking.json", "prefrl"
SECONDS = 5.0  # between looks at what is new
PICTURES = ("*.png", "videos/*.mp4")


def track(folder: RunFolder, names: Sequence[str], project: str = PROJECT) -> None:
    """Send a run's figures to trackers from now on, also whenever it goes on.

    Args:
        folder: of the run.
        names: of trackers.
        project: in which runs are seen side by side.

    Raises:
        UserError: there is no such tracker.
    """
    entries = _entries(folder.path)
    for name in names:
        if name not in TRACKERS:
            raise UserError(f"There is no tracker {name!r}; choose of {', '.join(TRACKERS)}.")
        if name not in entries or not _is_asked_for(folder, name, entries[name]):
            entries[name] = {"project": project, "sent": -1, "own": {}}
        allow(_asked(folder, name, entries[name]))
    write_json(folder.path / NAME, {"trackers": entries})


def is_tracked(path: Path) -> bool:
    """Tell whether a run's figures go to trackers."""
    return (path / NAME).is_file()


class Tracking:
    """The trackers of one run, opened when there is something to send.

    Args:
        folder: of the run, which `track` was called for.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder, entries = folder, _entries(folder.path)
        self._entries = {name: one for name, one in entries.items() if _is_asked_for(folder, name, one)}
        for name in entries.keys() - self._entries.keys():
            warnings.warn(
                f"{folder.path / NAME} would have the run sent to {name}, for which you did not ask on this machine: "
                f"nothing is sent there. If it is right: prefrl track {folder.path} --to {name}",
                stacklevel=2,
            )
        self.metrics_path = folder.metrics_path
        self.stopped: list[str] = []
        """Trackers to which something could not be sent."""
        self._open: dict[str, Tracker] = {}
        self._lock = threading.Lock()

    def send(self, *, finish: bool = False) -> int:
        """Send the rows that no tracker has seen; return how many.

        Args:
            finish: send what the run came to as well, its pictures and films, and close the trackers.
        """
        rows = read_rows(self.metrics_path, self._folder.COUNTER)
        with self._lock:
            sent = [self._send_to(name, rows, finish) for name in list(self._entries)]
        return max(sent, default=0)

    def _send_to(self, name: str, rows: Sequence[Mapping[str, Any]], finish: bool) -> int:
        entry, counter = self._entries[name], self._folder.COUNTER
        new = [row for row in rows if row[counter] > entry["sent"]]
        if not new and not finish:
            return 0
        try:
            tracker = self._open.get(name) or self._begin(name)
            for row in new:
                tracker.log({key: value for key, value in numbers(finite(dict(row))) if key != counter}, row[counter])
                entry["sent"] = row[counter]
                self._keep()
            if finish:
                if self._folder.finished:
                    figures = dict(numbers(finite(self._folder.read_summary())))
                    files = [path for form in PICTURES for path in sorted(self._folder.path.glob(form))]
                    tracker.finish(figures, files)
                self._open.pop(name).close()
        except Exception as error:  # of somebody else's library, network or disk
            del self._entries[name]  # until the run is begun again
            self._open.pop(name, None)
            self.stopped.append(name)
            reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {first_line(error)}"
            warnings.warn(
                f"Tracking by {name} stopped: {reason} Nothing is lost; send the rest with: "
                f"prefrl track {self._folder.path} --to {name}",
                stacklevel=2,
            )
            return 0
        return len(new)

    def _begin(self, name: str) -> Tracker:
        entry, folder = self._entries[name], self._folder
        tracker = TRACKERS.find(name)(
            path=folder.path.resolve(), run_id=folder.run_id, project=entry["project"],
            settings=dict(_flat(folder.config["settings"])), own=entry["own"],
        )  # fmt: skip
        self._open[name] = tracker
        self._keep()
        return tracker

    def _keep(self) -> None:
        """Write down how far each tracker has come; of one that stopped it stays as it was."""
        write_json(self._folder.path / NAME, {"trackers": _entries(self._folder.path) | self._entries})


class Follower:
    """Sends what a training writes, from a thread, until it is over."""

    def __init__(self, folder: RunFolder) -> None:
        self.tracking = Tracking(folder)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        size = 0
        while not self._over.wait(SECONDS):
            before, size = size, self._size()
            if size != before:
                self._send()
        self._send()

    def _size(self) -> int:
        path = self.tracking.metrics_path
        return path.stat().st_size if path.is_file() else 0

    def _send(self) -> None:
        try:
            self.tracking.send()
        except UserError as error:  # the metrics are gone or cannot be read: training says so
            warnings.warn(f"Nothing is tracked: {error}", stacklevel=2)
            self._over.set()

    def stop(self) -> None:
        """Send what is left of the rows, and no more."""
        self._over.set()
        self._thread.join()


_following: dict[Path, Follower] = {}


@contextmanager
def followed(folder: RunFolder) -> Iterator[None]:
    """Send the rows of a training while it goes on, where it is tracked, and what is left of them when it stops."""
    key = folder.path.resolve()
    if is_tracked(key):
        _following[key] = Follower(folder)
    try:
        yield
    finally:
        if (follower := _following.get(key)) is not None:
            follower.stop()


def finish(folder: RunFolder) -> tuple[int, list[str]]:
    """Send all that is left of a tracked run, and what it came to; also of one that was never followed.

    Returns:
        How many rows that were, and the trackers that did not get all of it, of which a warning tells.
    """
    if not is_tracked(folder.path):
        return 0, []
    follower = _following.pop(folder.path.resolve(), None)
    if follower is not None:
        follower.stop()
    tracking = Tracking(folder) if follower is None else follower.tracking
    return tracking.send(finish=True), tracking.stopped


@atexit.register
def _close_all() -> None:
    for follower in list(_following.values()):
        follower.stop()
        with warnings.catch_warnings():
            follower.tracking.send(finish=True)
    _following.clear()


def _asked(folder: RunFolder, name: str, entry: Mapping[str, Any]) -> list[str]:
    """Return what a user asks for who has a run sent to a tracker."""
    return ["tracking", folder.run_id, name, entry["project"]]


def _is_asked_for(folder: RunFolder, name: str, entry: Mapping[str, Any]) -> bool:
    """Tell whether this user asked for it, and not whoever made the folder: it is their account that it goes to."""
    return is_allowed(_asked(folder, name, entry))


def _entries(path: Path) -> dict[str, dict[str, Any]]:
    """Return what is known of each tracker.

    Raises:
        UserError: the file is damaged.
    """
    file = path / NAME
    if not file.is_file():
        return {}
    found = read_json(file)
    entries = found.get("trackers") if isinstance(found, dict) else None
    whole = isinstance(entries, dict) and all(
        name in TRACKERS
        and isinstance(entry, dict)
        and isinstance(entry.get("project"), str)
        and type(entry.get("sent")) is int
        and isinstance(entry.get("own"), dict)
        for name, entry in entries.items()
    )
    if not whole:
        raise UserError(f"{file} is damaged. Remove it, and begin again with: prefrl track {path} --to NAME")
    assert isinstance(entries, dict)
    return entries


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            found += _flat(value, f"{prefix}{name}.")
        else:
            found.append((prefix + name, json.dumps(value) if isinstance(value, list | dict) else value))
    return found

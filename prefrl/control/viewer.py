"""Opening the viewer, and the page, beside a training: processes of their own that live on when the training ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from prefrl.control.folder import ControlFolder
from prefrl.errors import require

STILL_MINUTES = 15  # after which the page of a training that has ended is closed
SEEN_SECONDS = 15.0  # a viewer says that it is there every few seconds
LOST_SECONDS = 20.0
VIEWER = "viewer "
"""How the facts begin in which viewers say that they are there."""


def open_viewer(folder: ControlFolder, *, wanted: bool) -> subprocess.Popen[bytes] | None:
    """Open the viewer of a run where there is a screen and none is open yet; else say how to open one.

    Args:
        folder: the run; it has a record already.
        wanted: open it; otherwise only say how.
    """
    with folder.open_record() as store:
        seen = [value for name, value in store.facts().items() if name.startswith(VIEWER) and value]
        now = store.now()
    if any(now - presence["at"] < SEEN_SECONDS for presence in seen):
        return None
    if wanted and _has_screen():
        command = [sys.executable, "-m", "prefrl", "label", str(folder.path)]
        environment = {name: value for name, value in os.environ.items() if name not in ("SDL_VIDEODRIVER",)}
        return subprocess.Popen(  # noqa: S603  (this program again, without a shell)
            command, stdin=subprocess.DEVNULL, stdout=sys.stderr, env=environment, start_new_session=True
        )
    print(f"Clips wait to be compared. Open the viewer with: prefrl label {folder.path}", file=sys.stderr)  # noqa: T201
    return None


class LostViewers:
    """Notices windows that are gone without having been left."""

    def __init__(self) -> None:
        self._open: dict[str, float] = {}

    def find(self, facts: Mapping[str, Any], now: float) -> list[str]:
        """Return whose window was lost since the last call.

        Args:
            facts: of the record.
            now: by its clock, in seconds since 1970.
        """
        there = {
            name.removeprefix(VIEWER): presence["at"]
            for name, presence in facts.items()
            if name.startswith(VIEWER) and presence and presence.get("window")
        }
        lost = [name for name in self._open if name in there and now - there[name] > LOST_SECONDS]
        self._open = {name: at for name, at in there.items() if now - at <= LOST_SECONDS}
        return lost


def serve_page(folder: ControlFolder) -> subprocess.Popen[bytes]:
    """Serve a run's questions to browsers, until the training has ended and nobody looks any more.

    Raises:
        MissingExtraError: the extra `serve` is not installed.
    """
    for package in ("starlette", "uvicorn", "jinja2", "itsdangerous"):
        require(package, "serve")
    command = [sys.executable, "-m", "prefrl", "serve", str(folder.path), "--leave-after", str(STILL_MINUTES)]
    return subprocess.Popen(  # noqa: S603  (likewise)
        command, stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True
    )


def _has_screen() -> bool:
    if not sys.platform.startswith("linux"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))

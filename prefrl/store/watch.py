"""The file of a record that is removed or replaced while it is in use: noticed, and what it held is saved aside.

The connections that are open still reach the old file, which no other program sees any more: what they wrote would be
lost without a word. A new connection would make an empty record in its place.
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from prefrl.errors import UserError


class FileWatch:
    """Watches that the file of a record stays the one that was opened.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._first: tuple[int, int] | None = None
        self._told: str | None = None

    def before_connecting(self, *_: Any) -> None:
        """Check, before a further connection would make a new file, that the old one is there.

        Raises:
            UserError: it is not.
        """
        if self._first is not None and self._now() != self._first:
            raise UserError(self._told or self._message(None))

    def before_transaction(self, connection: sa.Connection) -> None:
        """Check that what an open connection reaches is the file at its path; else save what it reaches.

        Raises:
            UserError: it is another file, or none.
        """
        now = self._now()
        if self._first is None:
            self._first = now
        elif now != self._first:
            if self._told is None:
                self._told = self._message(self._rescue(connection.connection.dbapi_connection))
            raise UserError(self._told)

    def _now(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _rescue(self, raw: Any) -> Path | None:
        name = f"{self.path.stem}-rescued-{time.strftime('%Y%m%d-%H%M%S')}{self.path.suffix}"
        with suppress(sqlite3.Error):
            raw.execute("ROLLBACK")
        for place in (self.path.parent, Path(tempfile.gettempdir())):
            with suppress(sqlite3.Error):
                raw.execute("VACUUM INTO ?", (str(place / name),))
                return place / name
        return None

    def _message(self, rescued: Path | None) -> str:
        if rescued is None:
            saved = "What it held could not be saved; restore it from a copy"
        else:
            saved = f"All that it held is saved in {rescued}: put that in its place"
        return f"The record {self.path} was removed or replaced while it was in use. {saved}, then go on."

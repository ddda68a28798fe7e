"""Links by which people reach a page of questions without a password: who holds one may answer under its name.

The record keeps a link's SHA-256 only, beside the secret with which the page signs what it hands out. A link can be
revoked; it is then as good as never made.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from prefrl.errors import UserError
from prefrl.store import tables
from prefrl.store.engine import Database

TOKEN_BYTES = 24  # 192 bits: nobody guesses it, so one round of SHA-256 keeps it
ROLES = ("annotator", "owner", "study")
LONGEST_NAME = 80
MOST_SECONDS = 1e11  # since 1970: the year 5138

_metadata = sa.MetaData()  # apart from the record's own tables: made when the first link is
_links = sa.Table(
    "links",
    _metadata,
    sa.Column("hash", sa.String, primary_key=True),
    sa.Column("annotator", sa.String, nullable=False),
    sa.Column("role", sa.String, nullable=False),
    sa.Column("made_at", sa.Double, nullable=False),
    sa.Column("revoked_at", sa.Double),
)


@dataclass(frozen=True, kw_only=True)
class Link:
    """A link, as the record knows it."""

    hash: str
    annotator: str
    """Name of the person who answers by it."""
    role: str
    """"annotator"; "owner", who also sees how everybody answers; "study", by which a platform's participants come."""
    made_at: float
    """Seconds since 1970."""
    revoked_at: float | None


class Links:
    """The links of one record."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._made = False

    def make(self, annotator: str, role: str = "annotator") -> str:
        """Make a link; return its token, which is kept nowhere.

        Raises:
            UserError: a name that cannot be one.
        """
        assert role in ROLES
        name = annotator.strip()
        if not name or len(name) > LONGEST_NAME or not name.isprintable():
            raise UserError(
                f"The name of an annotator has 1 to {LONGEST_NAME} printable characters. Received {annotator!r}"
            )
        token = secrets.token_urlsafe(TOKEN_BYTES)
        row = {"hash": _hash(token), "annotator": name, "role": role, "made_at": time.time()}
        self._write(lambda c: c.execute(sa.insert(_links), row))
        return token

    def of_token(self, token: str) -> Link | None:
        """Return the link of a token; None if there is none, or it was revoked."""
        return self.of_hash(_hash(token))

    def of_hash(self, name: str) -> Link | None:
        """Return the link of a token's hash; None if there is none, or it was revoked."""
        found = [link for link in self._read(_links.c.hash == name) if link.revoked_at is None]
        return found[0] if found else None

    def all(self) -> list[Link]:
        """Return all links that were ever made, oldest first."""
        return self._read(sa.true())

    def revoke(self, annotator: str) -> int:
        """Revoke every link of an annotator's; return how many held."""
        condition = (_links.c.annotator == annotator) & _links.c.revoked_at.is_(None)
        revoked = sa.update(_links).where(condition).values(revoked_at=time.time())
        return int(self._write(lambda c: c.execute(revoked)).rowcount)

    def secret(self) -> str:
        """Return the secret by which the page signs; made when it is first asked for."""
        key = "page_secret"

        def work(connection: sa.Connection) -> str:
            found = connection.scalar(sa.select(tables.about.c.value).where(tables.about.c.key == key))
            if found is None:
                found = secrets.token_urlsafe(32)
                connection.execute(sa.insert(tables.about), {"key": key, "value": found})
            return str(found)

        return self._database.write(work)

    def _read(self, condition: sa.ColumnElement[bool]) -> list[Link]:
        statement = sa.select(_links).where(condition).order_by(_links.c.made_at)

        def work(connection: sa.Connection) -> list[Link]:
            if not self._made and not sa.inspect(connection).has_table(_links.name):
                return []
            self._made = True
            found = [Link(**row._asdict()) for row in connection.execute(statement)]
            for link in found:
                if link.role not in ROLES:
                    raise ValueError(f"the role of a link of {link.annotator!r} is {link.role!r}")
                times = (link.made_at, link.revoked_at or 0.0)
                if not isinstance(link.annotator, str) or not all(map(_is_time, times)):
                    raise ValueError(f"a link is of {link.annotator!r}, {link.made_at!r} to {link.revoked_at!r}")
            return found

        return self._database.read(work)

    def _write(self, work: Any) -> Any:
        def made(connection: sa.Connection) -> Any:
            _links.create(connection, checkfirst=True)
            return work(connection)

        return self._database.write(made)


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value < MOST_SECONDS


def forget_links(connection: sa.Connection, annotator: str) -> int:
    """Remove every link of an annotator's; return how many there were."""
    if not sa.inspect(connection).has_table(_links.name):
        return 0
    return int(connection.execute(sa.delete(_links).where(_links.c.annotator == annotator)).rowcount)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()

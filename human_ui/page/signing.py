"""What the page hands out, signed with the record's secret, so that nobody makes it up or uses what is another's."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from prefrl.errors import require

COOKIE_SECONDS = 60 * 24 * 3600


class Signatures:
    """What only whoever knows the secret can sign.

    Args:
        secret: of the record.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret

    @property
    def cookie_name(self) -> str:
        """Name of the cookie: another for each record, since cookies do not tell ports apart."""
        return "prefrl_" + hashlib.sha256(self._secret.encode()).hexdigest()[:8]

    def csrf(self, name: str) -> str:
        """Return what every request of a person's that changes something must carry: no other site can read it."""
        return hmac.new(self._secret.encode(), f"csrf {name}".encode(), "sha256").hexdigest()

    def cookie(self, content: object) -> str:
        """Return a cookie that holds this, and when it was made."""
        return str(self._signer("cookie", "URLSafeTimedSerializer").dumps(content))

    def of_cookie(self, cookie: str | None) -> Any:
        """Return what a cookie holds; None if it was not made here, or too long ago."""
        try:
            return self._signer("cookie", "URLSafeTimedSerializer").loads(cookie or "", max_age=COOKIE_SECONDS)
        except require("itsdangerous", "serve").BadData:
            return None

    def signed(self, purpose: str, content: object) -> str:
        """Return this, signed for a purpose."""
        return str(self._signer(purpose).dumps(content))

    def opened(self, purpose: str, signed: str) -> Any:
        """Return what was signed for a purpose; None if it was not."""
        try:
            return self._signer(purpose).loads(signed)
        except require("itsdangerous", "serve").BadData:
            return None

    def _signer(self, purpose: str, kind: str = "URLSafeSerializer") -> Any:
        return getattr(require("itsdangerous", "serve"), kind)(self._secret, salt=purpose)

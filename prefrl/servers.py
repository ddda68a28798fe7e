"""Asking a server that answers JSON to JSON: again where it is busy, nowhere else, and no more than can be held."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

from prefrl.errors import UserError, first_line
from prefrl.files import MOST_JSON_BYTES, parse_json

ATTEMPTS, FIRST_WAIT, LONGEST_WAIT = 5, 0.5, 60.0
"""How often a server is asked one question, and seconds before the second time (doubled each time) and at most."""
BUSY = (408, 409, 425, 429, 500, 502, 503, 504, 529)
"""Statuses after which asking again helps."""
OWN_HOSTS = ("localhost", "127.0.0.1", "::1")


def check_address(address: str, what: str) -> urllib.parse.SplitResult:
    """Return the parts of an address that can be asked.

    Args:
        address: of the server.
        what: it is, e.g. "judge"; for messages.

    Raises:
        UserError: it is no address, or holds a name or password.
    """
    try:
        place = urllib.parse.urlsplit(address)
        host, _ = place.hostname, place.port
    except ValueError as error:
        raise UserError(f"The address of the {what} is not valid: {error}.") from None
    if not host or place.scheme not in ("http", "https") or not address.isascii() or not address.isprintable():
        raise UserError(f"The {what}'s address should be like http://localhost:8000/v1. Received {address[:200]!r}")
    if any(letter.isspace() for letter in address):
        raise UserError(f"The {what}'s address should be like http://localhost:8000/v1. Received {address[:200]!r}")
    return place


def ask_server(
    what: str, address: str, body: Mapping[str, Any], *, timeout: float, headers: Mapping[str, str] | None = None
) -> Any:
    """Return the JSON value that a server answers; it is asked again after a while if it is busy or gone for a moment.

    Args:
        what: it is, e.g. "judge"; for messages.
        address: `http://` or `https://`.
        body: the JSON object that it is sent.
        timeout: seconds to wait for an answer.
        headers: sent with it, and to no other address: a redirect is refused.

    Raises:
        UserError: it does not answer, or not with JSON of at most `MOST_JSON_BYTES`.
    """
    data = json.dumps(body).encode()
    check_address(address, what)
    sent = {"Content-Type": "application/json", **(headers or {})}
    request = urllib.request.Request(address, data, sent)  # noqa: S310  (http or https: it was checked)
    for attempt in range(ATTEMPTS):
        try:
            with _client(what).open(request, timeout=timeout) as reply:
                given = reply.read(MOST_JSON_BYTES + 1)
                if reply.length and len(given) <= MOST_JSON_BYTES:  # which a read of so many bytes does not say
                    raise http.client.IncompleteRead(given, reply.length)
            if len(given) > MOST_JSON_BYTES:
                raise UserError(
                    f"The {what} at {address} answers more than the {MOST_JSON_BYTES:,} bytes that are read."
                )
            return parse_json(given)
        except (OSError, http.client.HTTPException) as error:
            status = error.code if isinstance(error, urllib.error.HTTPError) else None
            if attempt == ATTEMPTS - 1 or (status is not None and status not in BUSY):
                raise UserError(
                    f"The {what} at {address} does not answer: {first_line(error)[:200]}, after {attempt + 1} "
                    "attempts. Is it running?"
                ) from error
            after = error.headers.get("Retry-After", "") if isinstance(error, urllib.error.HTTPError) else ""
            time.sleep(min(float(after), LONGEST_WAIT) if after.isdecimal() else FIRST_WAIT * 2**attempt)
        except ValueError as error:  # of JSON, or of the header
            raise UserError(f"The {what} at {address} did not answer in JSON: {first_line(error)[:200]}") from error
    raise AssertionError("the last attempt returns or raises")


class _RefuseRedirects(urllib.request.HTTPRedirectHandler):
    """A server that sends elsewhere would have what is asked, and the key, sent there too."""

    def __init__(self, what: str) -> None:
        self.what = what

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        place = urllib.parse.urlsplit(newurl)
        raise UserError(
            f"The {self.what} at {req.full_url} sends on to {place.scheme}://{place.hostname}{place.path}, where "
            "nothing was sent. If that is right, name that address."
        )


def _client(what: str) -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_RefuseRedirects(what))

"""The page on the network: an ASGI application around a `Host`, with what keeps strangers and floods out.

Nobody without a link reads anything but the page that asks for one. What changes something must be JSON, carry the
page's own secret, and not come from another site; bodies and rates are limited; no address of anybody is kept.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefrl.errors import UserError, require
from prefrl.human_ui.page import owner
from prefrl.human_ui.page.gallery import Gallery
from prefrl.human_ui.page.host import Host, Person
from prefrl.human_ui.page.reading import Refused
from prefrl.human_ui.page.signing import COOKIE_SECONDS

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

HERE = Path(__file__).resolve().parent
LARGEST_BODY = 64 * 1024
SCRIPTS = ("app.js", "session.js", "gallery.js", "outcome.js", "campaign.js", "text.js", "dashboard.js")
STATIC = {**dict.fromkeys(SCRIPTS, "text/javascript"), "style.css": "text/css", "campaign.css": "text/css"}
OWNERS: dict[str, Any] = {
    "dashboard": None,
    "people": owner.overview,
    "disagreements": owner.disagreements,
    "remarks": owner.remarks,
}
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self' 'nonce-{nonce}'; "
        "img-src 'self' data:; media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors {ancestors}"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}


class Bucket:
    """Lets through so many a second, and now and then a crowd.

    Args:
        rate: requests per second.
        burst: requests that may come at once.
    """

    def __init__(self, rate: float, burst: int, now: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._now = rate, burst, now
        self._left, self._at = float(burst), now()
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Take one; return False if there is none."""
        with self._lock:
            now = self._now()
            self._left = min(self._burst, self._left + (now - self._at) * self._rate)
            self._at = now
            if self._left < 1:
                return False
            self._left -= 1
            return True


class Page:
    """Answers the requests of browsers.

    Args:
        host: what may be asked.
        framed_by: sites that may show the page in a frame, as CSP names them; "": none.
    """

    def __init__(self, host: Host, framed_by: str = "") -> None:
        self.host, self._gallery = host, Gallery(host)
        self._framed_by = framed_by or "'none'"
        jinja = require("jinja2", "serve")
        loader = jinja.FileSystemLoader(HERE / "templates")
        self._templates = jinja.Environment(loader=loader, autoescape=True)
        self._strangers = Bucket(30, 120)  # of all together: tokens cannot be guessed, and no addresses are kept
        self._buckets: dict[str, Bucket] = {}

    async def handle(self, request: Request) -> Response:
        """Answer one request."""
        from starlette.concurrency import run_in_threadpool
        from starlette.responses import FileResponse, JSONResponse, Response

        response: Response
        nonce = secrets.token_urlsafe(16)
        try:
            body = await _body(request)
            found = await run_in_threadpool(self._answer, request, body, nonce)
            if isinstance(found, Path):
                response = FileResponse(found, media_type="video/mp4")
            elif isinstance(found, tuple):
                content, media_type, status = found
                response = Response(content, status, media_type=media_type)
            else:
                response = JSONResponse(found)
                if "cookie" in found:
                    response = JSONResponse({name: found[name] for name in found if name not in ("cookie", "max_age")})
                    response.set_cookie(
                        self.host.signatures.cookie_name,
                        found["cookie"],
                        max_age=found["max_age"],
                        path=None,  # where the page lies, whatever a proxy puts in front
                        secure=request.url.scheme == "https",
                        httponly=True,
                        samesite="strict",
                    )
        except Refused as refused:
            response = JSONResponse({"error": str(refused)}, refused.status)
            if refused.status == 429:
                response.headers["retry-after"] = "2"
        except UserError as error:  # of the record: it may pass
            response = JSONResponse({"error": str(error)}, 503, headers={"retry-after": "2"})
        response.headers.update({k: v.format(ancestors=self._framed_by, nonce=nonce) for k, v in HEADERS.items()})
        return response

    def _answer(self, request: Request, body: bytes, nonce: str) -> Any:
        path, cookie = request.path_params.get("path", ""), request.cookies.get(self.host.signatures.cookie_name)
        if request.method == "POST" and path == "enter":
            return self._enter(_read(request, body))
        content = self.host.signatures.of_cookie(cookie)
        name = None if content is None else str(content[2])  # of who was let in once, whether their link still holds
        self._limit(name)
        at_once = name is None or path.startswith(("clips/", "static/", "film"))
        # Who it is is asked within the turn: they may have withdrawn while this waited.
        with nullcontext() if at_once else self.host.turn(str(name)), self.host.store.reading_together():
            return self._answer_to(request, path, self.host.person_of(content), body, nonce)

    def _answer_to(self, request: Request, path: str, person: Person | None, body: bytes, nonce: str) -> Any:
        if request.method == "POST":
            return self._post(request, path, person, body)
        if path in ("", "gallery"):
            return self._page(person, nonce, "gallery.html" if path else "page.html")
        if person is None:
            raise Refused(401, "Open the link that you were sent first.")
        if path.startswith("clips/"):
            return self.host.clip(person, path.removeprefix("clips/")), "video/mp4", 200
        name = path.removeprefix("static/")
        if path.startswith("static/") and name in STATIC:
            return (HERE / "static" / name).read_bytes(), STATIC[name] + "; charset=utf-8", 200
        if path == "film" or path.startswith("films/"):
            film = self.host.film(path.removeprefix("film").removeprefix("s/"))
            if film is not None:
                return film
        if path == "progress":
            return self.host.progress(person)
        if path == "answers":
            return self._gallery.find(person, request.query_params)
        if path == "examples":
            return {"examples": self.host.examples(person)}
        if path in OWNERS and person.role != "owner":
            raise Refused(403, "Only the owner's link opens this.")
        if path == "dashboard":
            settings = {
                "csrf": self.host.signatures.csrf(person.name),
                "run": self.host.run,
                "environment": self.host.environment,
            }
            return self._templates.get_template("dashboard.html").render(settings=settings), "text/html", 200
        if path in OWNERS:
            return OWNERS[path](self.host, person)
        raise Refused(404, "There is no such page.")

    def _page(self, person: Person | None, nonce: str, template: str) -> tuple[str, str, int]:
        if person is None:
            return self._templates.get_template("enter.html").render(nonce=nonce), "text/html", 401
        settings = {
            "csrf": self.host.signatures.csrf(person.name),
            "name": person.name,
            "owner": person.role == "owner",
            "run": self.host.run,
            "environment": self.host.environment,
            "instruction": self.host.instruction,
            "mustSee": self.host.campaign.must_see,
            "stage": self.host.stage(person),
            "consent": self.host.gate.consent(),
            "examples": bool(self.host.store.facts().get("examples")),
            "breakAfter": 60 * self.host.campaign.break_after,
            "place": self.host.signatures.cookie_name,
        }
        return self._templates.get_template(template).render(settings=settings), "text/html", 200

    def _post(self, request: Request, path: str, person: Person | None, body: bytes) -> Any:
        said = _read(request, body)
        if person is None:
            raise Refused(401, "Open the link that you were sent first.")
        if request.headers.get("x-prefrl") != self.host.signatures.csrf(person.name):
            raise Refused(401, "This did not come from this person's page: open your link again.")
        if path == "leave":
            return {"cookie": "", "max_age": 0}
        held = said.get("held", [])
        if not isinstance(held, list):
            raise Refused(422, "held is a list of tickets.")
        if path == "next":
            return self.host.next(person, held, said.get("want", 1), page=said.get("page"))
        if path == "answer":
            return self.host.answer(person, said.get("ticket"), said)
        if path == "consent":
            return self.host.agree(person, said.get("version"))
        if path == "withdraw":
            return self.host.withdraw(person)
        if path == "edit":
            return self.host.edit(person, said)
        if path == "adjudicate":
            return owner.adjudicate(self.host, person, said)
        if path == "pin":
            return owner.pin(self.host, person, said)
        if path == "undo":
            return self.host.undo(person, said.get("ticket"))
        if path == "release":
            return self.host.release(person, held, page=said.get("page"))
        if path == "again":
            return self._gallery.again(person, said.get("row"))
        if path == "reopen":
            return self._gallery.reopen(person, said.get("row"))
        raise Refused(404, "There is no such page.")

    def _enter(self, said: Mapping[str, Any]) -> Any:
        """Let in who has a link, however many others try without."""
        try:
            return {"cookie": self.host.sign_in(said.get("token"), said), "max_age": COOKIE_SECONDS}
        except Refused:
            self._limit(None)
            raise

    def _limit(self, name: str | None) -> None:
        bucket = self._strangers
        if name is not None:
            bucket = self._buckets.setdefault(name, Bucket(20, 100))
        if not bucket.take():
            raise Refused(429, "That is too much at once: wait a moment.")


def make_app(pages: Mapping[str, Page]) -> Any:
    """Return the ASGI application of pages by the paths they lie at, e.g. `{"": page}`."""
    require("starlette", "serve")
    from starlette.applications import Starlette
    from starlette.responses import RedirectResponse
    from starlette.routing import Route

    routes = []
    for place, page in pages.items():
        where = f"/{place.strip('/')}" if place.strip("/") else ""
        routes.append(Route(where + "/{path:path}", page.handle, methods=["GET", "POST"]))
        if where:
            name = where.rpartition("/")[2]

            async def with_slash(request: Request, name: str = name) -> Response:
                return RedirectResponse(name + "/")

            routes.append(Route(where, with_slash, methods=["GET"]))
    return Starlette(routes=routes)


async def _body(request: Request) -> bytes:
    """Return what a request holds.

    Raises:
        Refused: it is too large.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            raise Refused(413, f"A request has at most {LARGEST_BODY} bytes.")
    return body


def _read(request: Request, body: bytes) -> dict[str, Any]:
    """Return the JSON of a request that changes something.

    Raises:
        Refused: it comes from another site, or holds no JSON object.
    """
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Refused(403, "This came from another site.")
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Refused(415, "Requests hold JSON.")
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "The request holds no JSON.") from None
    if not isinstance(said, dict):
        raise Refused(400, "The request holds no JSON object.")
    return said

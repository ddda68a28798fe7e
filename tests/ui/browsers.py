"""The page served from a thread of the test, and a real browser that opens it."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from prefrl.feedback import Query
from prefrl.human_ui.page.app import Page, make_app
from prefrl.human_ui.page.command import make_server
from prefrl.human_ui.page.gate import Campaign
from prefrl.human_ui.page.host import Host
from prefrl.store import PreferenceStore

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@dataclass
class Site:
    """A page that is being served."""

    host: Host
    port: int
    place: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/{self.place}"

    def link(self, name: str, role: str = "annotator") -> str:
        return f"{self.url}#{self.host.store.links.make(name, role)}"


@contextmanager
def serving(record: Path, *, place: str = "", port: int = 0, **options: Any) -> Iterator[Site]:
    """Serve a record's page; options are those of `Host` and `Campaign`."""
    pytest.importorskip("uvicorn", reason="needs the extra serve")
    of_host = {name: options.pop(name) for name in ("instruction", "folder", "environment") if name in options}
    campaign = Campaign(**{"repeat_share": 0.0, "must_see": 0.0, **options})
    listener = socket.create_server(("127.0.0.1", port))
    with PreferenceStore(record) as store:
        host = Host(store, run="a run", campaign=campaign, **of_host)
        server = make_server(make_app({place: Page(host)}))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield Site(host, listener.getsockname()[1], place)
        finally:
            server.should_exit = True
            thread.join(timeout=10)
            listener.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, or a reason why there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    if CHROMIUM is None:
        pytest.skip("needs Debian's chromium")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield opened
        opened.close()


def open_page(context: Any, link: str, *, begin: bool = True) -> Any:
    """Open a link in a new tab, and whatever goes wrong there fails the test."""
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.wrong = []
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.goto(link)
    if begin:
        page.click("#begin")
        question(page)
    return page


def question(page: Any) -> dict[str, Any]:
    """Wait until a question is shown and its clips are; return it."""
    until(page, "document.body.dataset.screen === 'question' && window.prefrl?.session.question")
    drawn = "document.querySelector('#items').dataset.ticket === prefrl.session.question?.ticket"
    until(page, f"{drawn} && !document.querySelector('.chosen, .other')")
    until(page, "[...document.querySelectorAll('.card video')].every((video) => video.readyState >= 2)")
    found: dict[str, Any] = page.evaluate("prefrl.session.question")
    return found


def until(page: Any, true: str, seconds: float = 30.0) -> None:
    """Wait until an expression holds in the page; Playwright's own way needs `eval`, which the page forbids."""
    deadline = time.monotonic() + seconds

    def holds() -> bool:
        try:
            return bool(page.evaluate(f"Boolean({true})"))
        except Exception as error:
            if "context was destroyed" not in str(error):  # it goes to another page just now
                raise
            return False

    while not holds():
        if time.monotonic() > deadline:
            shown = page.evaluate("[location.href, document.body.dataset, document.body.innerText, window.prefrl]")
            raise AssertionError(f"waited in vain: {true}; the page is {shown}")
        time.sleep(0.03)


def next_question(page: Any, asked: dict[str, Any]) -> None:
    """Wait until another question than `asked`, or none, is shown."""
    until(page, f"prefrl.session.question?.ticket !== {json.dumps(asked['ticket'])}")


def answered(store: PreferenceStore, num: int, seconds: float = 30.0) -> list[Any]:
    """Wait until so many entries are in the record; return them."""
    deadline = time.monotonic() + seconds
    while len(found := [entry for _, entry in store.answers()]) < num:
        assert time.monotonic() < deadline, f"waited in vain: {found}"
        time.sleep(0.05)
    return found


def add(store: PreferenceStore, query: Query) -> str:
    store.add_queries([query])
    return query.id

"""The page within a notebook: `prefrl.show(run)` in a cell."""

from __future__ import annotations

import html
import os
import threading
from pathlib import Path
from typing import Any

from prefrl.errors import require
from prefrl.human_ui.command import find_instruction, find_record, login_name
from prefrl.human_ui.page.app import Page, make_app
from prefrl.human_ui.page.command import listen, make_server
from prefrl.human_ui.page.host import Host
from prefrl.store import PreferenceStore

NEAR = "'self' http://localhost:* http://127.0.0.1:* vscode-webview: https://*.vscode-cdn.net"
"""Who may show the page within their own: notebooks on this machine."""


class Shown:
    """A page of questions that is served from this process; a notebook shows it where it is a cell's value.

    Attributes:
        url: where it is, with a link to answer by.
    """

    def __init__(self, url: str, height: int, server: Any, thread: threading.Thread, store: PreferenceStore) -> None:
        self.url, self._height = url, height
        self._server, self._thread, self._store = server, thread, store

    def _repr_html_(self) -> str:
        address = html.escape(self.url, quote=True)
        look = f'width="100%" height="{self._height}" allow="fullscreen" style="border:0"'
        return f'<iframe src="{address}" {look}></iframe>'

    def __repr__(self) -> str:
        return f"questions at {self.url}"

    def close(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        self._thread.join(timeout=10)
        self._store.close()


def show(run: Path | str, *, name: str | None = None, height: int = 720, url: str | None = None) -> Shown:
    """Serve a run's questions from this process and show them in a notebook's cell, while it trains or after.

    Args:
        run: folder of the run, a record, or its URL.
        name: who answers; default: the name you are logged in by.
        height: of the frame, in pixels.
        url: where the notebook's proxy shows a port of this machine, "{port}" for its number; default: JupyterHub's
            where there is one, else this machine's own.

    Raises:
        UserError: no such run, or no record yet.
        MissingExtraError: the extra `serve` is not installed.
    """
    for package in ("starlette", "uvicorn", "jinja2", "itsdangerous"):
        require(package, "serve")
    where, called, config = find_record(str(run))
    store = PreferenceStore(where, patience_seconds=5.0, create=False)
    host = Host(
        store,
        run=called,
        environment=str(config.get("env_id", "")),
        instruction=find_instruction(None, store.facts(), config),
        folder=Path(run) if Path(run).is_dir() else None,
    )
    listener = listen("127.0.0.1", None)
    server = make_server(make_app({"": Page(host, NEAR)}))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    hub = os.environ.get("JUPYTERHUB_SERVICE_PREFIX")
    place = url or (f"{hub.rstrip('/')}/proxy/{{port}}/" if hub else "http://localhost:{port}/")
    token = store.links.make(name or login_name(), "owner")
    return Shown(f"{place.format(port=listener.getsockname()[1])}#{token}", height, server, thread, store)

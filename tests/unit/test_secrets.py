"""Keys and passwords go to whom they are for, and into no message."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from prefrl.chats import KEY_VARIABLE
from prefrl.cli import main
from prefrl.errors import UserError
from prefrl.store import PreferenceStore
from prefrl.store.engine import shown_address
from prefrl.text.data.judge import ServerJudge

SECRET = "hunter2"


class Elsewhere(BaseHTTPRequestHandler):
    """Sends on to `target`, where there is one, and keeps what it was sent."""

    target: ClassVar[str | None] = None
    seen: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.seen.append(f"{self.path} {self.headers.get('Authorization')}")
        self.send_response(307 if self.target else 200)
        if self.target:
            self.send_header("Location", self.target)
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Elsewhere) as served:
        thread = threading.Thread(target=served.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}/v1"
        served.shutdown()
        thread.join()


def test_the_key_of_a_judge_follows_no_redirect(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, SECRET)
    monkeypatch.setattr(Elsewhere, "target", server.replace("127.0.0.1", "localhost") + "/elsewhere?q=1")
    monkeypatch.setattr(Elsewhere, "seen", [])
    with pytest.raises(UserError, match=r"sends on to http://localhost/v1/elsewhere,") as refused:
        ServerJudge(server, "m", "Be kind.", timeout=5).prefer_first("p", "a", "b")
    assert Elsewhere.seen == [f"/v1/chat/completions Bearer {SECRET}"]
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("key", [f"{SECRET}\n", f"{SECRET} x", f"{SECRET}\r\nX: y", f"{SECRET}ü"])
def test_a_malformed_key_is_not_shown(key: str, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, key)
    with pytest.raises(UserError, match=KEY_VARIABLE) as refused:
        ServerJudge(server, "m", "Be kind.", timeout=5).prefer_first("p", "a", "b")
    assert SECRET not in str(refused.value)


def test_a_key_over_plain_http_to_another_machine_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, SECRET)
    with pytest.warns(UserWarning, match="unencrypted") as warned:
        ServerJudge("http://judge.example/v1", "m", "Be kind.")
    assert SECRET not in str(warned[0].message)
    with warnings.catch_warnings(action="error"):
        for address in ("http://localhost:8000/v1", "https://judge.example/v1"):
            ServerJudge(address, "m", "Be kind.")


@pytest.mark.parametrize(
    "address",
    [f"http://me:{SECRET}@host/v1", "http://[host/v1", "http://host:port/v1", "http:///v1"],
)
def test_an_address_of_a_judge_that_is_none_is_refused_at_once(address: str) -> None:
    with pytest.raises(UserError) as refused:
        ServerJudge(address, "m", "Be kind.")
    assert SECRET not in str(refused.value)


ADDRESSES = (
    f"postgresql://me:{SECRET}@127.0.0.1:1/db",
    f"postgresql://127.0.0.1:1/db?user=me&password={SECRET}",
    f"mysql://me:{SECRET}@host/db",
    f"postgresql://me:{SECRET}@host:port/db",
    f"postgresql://me:{SECRET}@127.0.0.1:1",
)


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_message_shows_the_password_of_a_database(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert SECRET not in shown_address(address)
    with pytest.raises(UserError) as refused:
        PreferenceStore(address, patience_seconds=0.1)
    assert SECRET not in str(refused.value)
    assert main(["import", str(tmp_path), "--to", address]) == 2
    assert SECRET not in "".join(capsys.readouterr())


def test_export_takes_the_address_of_a_database(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", f"mysql://me:{SECRET}@host/db", "--to", str(tmp_path / "data")]) == 2
    told = capsys.readouterr().err
    assert "mysql://me:***@host/db" in told
    assert SECRET not in told

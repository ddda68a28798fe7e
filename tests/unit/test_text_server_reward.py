"""A reward over HTTP: what is sent, what comes back, and what is said when it does not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from prefrl.errors import UserError
from prefrl.text.learn.server_reward import ServerReward


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr("prefrl.servers.FIRST_WAIT", 0.01)

    class Handler(BaseHTTPRequestHandler):
        asked: list[dict[str, Any]] = []  # noqa: RUF012
        failures = 0
        answer: Any = None

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            Handler.asked.append(body)
            if Handler.failures:
                Handler.failures -= 1
                self.send_error(503)
                return
            given = Handler.answer or {"rewards": [len(text) for text in body["responses"]]}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(given).encode())

        def log_message(self, *_: Any) -> None:
            pass

    running = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    Handler.address = f"http://127.0.0.1:{running.server_port}/score"  # type: ignore[attr-defined]
    yield Handler
    running.shutdown()
    running.server_close()


def test_each_response_gets_its_number_and_a_server_that_is_busy_is_asked_again(server: Any) -> None:
    server.failures = 2
    assert ServerReward(server.address)(["a?", "b?"], [" yes", " no"]) == [4.0, 3.0]
    assert len(server.asked) == 3
    assert server.asked[-1]["query"] == ["a? yes", "b? no"]
    assert server.asked[-1]["prompts"] == ["a?", "b?"]


@pytest.mark.parametrize("answer", [{"rewards": [1.0]}, {"scores": [1, 2]}, {"rewards": ["a", "b"]}, [1, 2]])
def test_another_answer_is_refused(server: Any, answer: Any) -> None:
    server.answer = answer
    with pytest.raises(UserError, match="with 2 numbers"):
        ServerReward(server.address)(["a", "b"], ["c", "d"])


def test_a_server_that_does_not_answer_is_said(server: Any) -> None:
    server.failures = 99
    with pytest.raises(UserError, match="does not answer"):
        ServerReward(server.address)(["a"], ["b"])

"""A stand-in for a server of a vision-language model, which looks at the pictures that it is sent."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

Look = Callable[[str, list[np.ndarray[Any, Any]]], str]
"""Takes the text of a question and its pictures `(H, W, 3)` uint8; returns what the model says."""


@contextmanager
def serving(look: Look) -> Iterator[str]:
    """Serve a model called `eyes` and yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert body["model"] == "eyes"
            text, *shown = body["messages"][0]["content"]
            data = json.dumps({"choices": [{"message": {"content": look(text["text"], list(map(_picture, shown)))}}]})
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1#eyes"
    server.shutdown()
    server.server_close()


def _picture(part: dict[str, Any]) -> np.ndarray[Any, Any]:
    data = base64.b64decode(part["image_url"]["url"].removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

"""Runs shared on a hub and brought from it, by huggingface_hub's own client against a stand-in of the hub."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from prefrl.control import TrainSettings, train
from prefrl.control.folder import ControlFolder
from prefrl.errors import UserError
from prefrl.feedback import Comparison
from prefrl.hub.client import check_repo
from prefrl.hub.packing import pack
from prefrl.store import PreferenceStore

pytest.importorskip("huggingface_hub")


NAME = "(?:models/)?((?:datasets/)?[^/]+/[^/]+)"


class Hub(BaseHTTPRequestHandler):
    """Keeps repositories as dictionaries of files."""

    repos: dict[str, dict[str, bytes]] = {}  # noqa: RUF012
    asked: list[tuple[str, str]] = []  # noqa: RUF012

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.asked.append((self.path, self.headers.get("Authorization", "")))
        if self.path == "/api/repos/create":
            body = json.loads(data)
            kind = "datasets/" if body.get("type") == "dataset" else ""
            repo = f"{kind}{body.get('organization') or 'anna'}/{body['name']}"
            self.repos.setdefault(repo, {})
            self._json({"url": f"http://{self.headers['Host']}/{repo}"})
        elif self.path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = json.loads(data)["files"]
            self._json({"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]})
        elif match := re.match(r"/api/(?:models/)?(.+)/commit/", self.path):
            for line in data.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.repos[match[1]][entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            commit = self._commit(match[1])
            url = f"http://{self.headers['Host']}/{match[1]}/commit/{commit}"
            self._json({"commitUrl": url, "commitOid": commit, "hookOutput": "", "success": True})
        else:
            self.send_error(404)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if match := re.match(rf"/api/{NAME}/tree/", path):
            files = self.repos.get(match[1], {})
            self._json([{"type": "file", "path": n, "size": len(d), "oid": self._sum(d)} for n, d in files.items()])
        elif match := re.match(rf"/api/{NAME}(/revision/.*)?$", path):
            if match[1] not in self.repos:
                self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
                return
            names = [{"rfilename": name} for name in self.repos[match[1]]]
            self._json({"id": match[1], "sha": self._commit(match[1]), "siblings": names, "private": False, "tags": []})
        elif match := re.match(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/[^/]+/(.+)$", path):
            data = self.repos[match[1]][match[2]]
            self.send_response(200)
            headers = {
                "ETag": f'"{self._sum(data)}"',
                "X-Repo-Commit": self._commit(match[1]),
                "Content-Length": len(data),
            }
            for name, value in headers.items():
                self.send_header(name, str(value))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)
        else:
            self.send_error(404)

    do_HEAD = do_GET

    def _commit(self, repo: str) -> str:
        return self._sum(repr(sorted((n, self._sum(d)) for n, d in self.repos[repo].items())).encode())

    def _sum(self, data: bytes) -> str:
        return hashlib.sha1(data).hexdigest()

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            **(headers or {}),
        }.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> ControlFolder:
    """A finished run, one of whose answers a person gave, and whose settings name where files lie."""
    place = tmp_path_factory.mktemp("runs")
    (place / "judge.py").write_text("def near(segment):\n    return segment.observations[:-1, 0]\n")
    settings = TrainSettings(
        env_id="Pendulum-v1", labels=6, steps=1600, num_envs=2, segment_length=10, warmup_steps=200, eval_episodes=1,
        hyperparameters={"n_steps": 100, "batch_size": 50, "n_epochs": 1}, reward_function=f"{place}/judge.py:near",
        instruction="Anna says: hold it up",
    )  # fmt: skip
    folder = train(settings, place / "run", quiet=True)
    with folder.open_record() as store:
        query_id = store.query_ids()[0]
        store.add_annotator("Anna", "person")
        said = Comparison(query_id=query_id, annotator="Anna", preference=1.0, comment="Anna: it is higher")
        store.add_answers([said])
    return folder


def called(words: list[str], hub: str, cwd: Path, home: Path) -> subprocess.CompletedProcess[str]:
    env = {
        **os.environ, "HF_ENDPOINT": hub, "HF_TOKEN": "hf_secret", "HF_HOME": str(home / "hf"), "HF_HUB_OFFLINE": "0",
        "XDG_CONFIG_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "prefrl.start", *words], cwd=cwd, env=env, capture_output=True, text=True, timeout=400,
        check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_neither_names_nor_places_nor_the_record_are_shared(run: ControlFolder, tmp_path: Path) -> None:
    left_out = pack(run, tmp_path)
    texts = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {"config.json", "summary.json", "metrics.jsonl", "reward.safetensors"} <= {path.name for path in texts}
    assert not any("record" in path.name or path.name.startswith(".") for path in texts)
    assert not any(b"Anna" in data or str(run.path.parent).encode() in data for data in texts.values())
    settings = json.loads((tmp_path / "config.json").read_text())["settings"]
    assert settings["instruction"] == "person-1 says: hold it up" and settings["reward_function"] == "judge.py:near"
    assert left_out[0] == "the names of 1 people"
    assert ControlFolder.open(tmp_path, reads_only=True).read_summary() == run.read_summary()


@pytest.mark.slow
def test_what_is_shared_is_brought_back_and_is_a_strangers(run: ControlFolder, hub: str, tmp_path: Path) -> None:
    done = called(["push", str(run.path), "anna/pendulum", "--licence", "mit"], hub, tmp_path, tmp_path / "anna")
    assert done.returncode == 0, done.stderr
    files = Hub.repos["anna/pendulum"]
    card = files["README.md"].decode()
    assert "license: mit" in card and "hold it up" in card and "1 people" in card and "Anna" not in card
    assert not any(b"hf_secret" in data for data in files.values())
    assert all(key == "Bearer hf_secret" for path, key in Hub.asked if "commit" in path)
    brought = called(["pull", "anna/pendulum"], hub, tmp_path, tmp_path / "ben")
    assert brought.returncode == 0, brought.stderr
    place = tmp_path / "runs" / "hub" / "anna-pendulum"
    assert (place / "reward.safetensors").read_bytes() == (run.path / "reward.safetensors").read_bytes()
    refused = called(["evaluate", "hub:anna/pendulum"], hub, tmp_path, tmp_path / "ben")
    assert refused.returncode == 2 and "judge.py:near" in refused.stderr and "--trust" in refused.stderr


@pytest.mark.slow
def test_answers_are_shared_as_a_data_set_without_names_and_read_back(
    run: ControlFolder, hub: str, tmp_path: Path
) -> None:
    pushed = called(["push", str(run.path), "datasets/anna/answers"], hub, tmp_path, tmp_path / "anna")
    assert pushed.returncode == 0, pushed.stderr
    assert "the names of 1 people" in pushed.stderr
    card = Hub.repos["datasets/anna/answers"]["README.md"].decode()
    assert "`Pendulum-v1`" in card and "| annotators: person | 1 |" in card
    assert "> person-1 says: hold it up" in card and "Anna" not in card
    assert "| answers that stand: comparison | 17 |" in card  # ten of them duels of before against after
    words = ["import", "hub:datasets/anna/answers", "--to", "brought.sqlite"]
    brought = called(words, hub, tmp_path, tmp_path / "ben")
    assert brought.returncode == 0, brought.stderr
    with PreferenceStore(tmp_path / "brought.sqlite") as theirs, run.open_record() as ours:
        renamed = [
            replace(a, annotator=a.annotator.replace("Anna", "person-1"), comment=a.comment.replace("Anna", "person-1"))
            for _, a in ours.answers()
        ]
        assert [a for _, a in theirs.answers()] == renamed
        assert theirs.annotators() == {"oracle": "teacher", "person-1": "person"}
        name = ours.query_ids()[0]
        assert theirs.query(name).segments[0].id == ours.query(name).segments[0].id
    place = str(tmp_path / "runs" / "hub" / "datasets-anna-answers")
    again = called(["push", place, "anna/x"], hub, tmp_path, tmp_path)
    assert again.returncode == 2 and "There is no run in" in again.stderr
    words = ["push", place, "datasets/ben/copy", "--names"]
    assert called(words, hub, tmp_path, tmp_path).returncode == 0
    copied, first = Hub.repos["datasets/ben/copy"], Hub.repos["datasets/anna/answers"]
    assert {n for n in copied if n.startswith("segments/")} == {n for n in first if n.startswith("segments/")}


@pytest.mark.parametrize(
    "repo", ["anna", "anna/../x", "/anna/x", "anna/x/y", "an na/x", "", "datasets/x", "models/a/b"]
)
def test_what_is_no_name_on_a_hub_is_refused(repo: str) -> None:
    with pytest.raises(UserError, match="named USER/NAME"):
        check_repo(repo)


@pytest.mark.slow
def test_what_is_not_there_or_no_run_is_a_sentence(hub: str, tmp_path: Path) -> None:
    Hub.repos["ben/notes"] = {"README.md": b"# notes", "config.json": b'{"model_type": "llama"}', "evil.py": b"1"}
    for repo, message in (("ben/none", "ben/none cannot be had"), ("ben/notes", "holds no run of prefrl")):
        done = called(["report", f"hub:{repo}"], hub, tmp_path, tmp_path)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not list(tmp_path.rglob("evil.py")), "only what a run may hold is taken"

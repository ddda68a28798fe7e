"""Whatever a file or a server holds becomes one sentence: configurations, metrics, rewards, records, replies."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import struct
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box

from prefrl import servers
from prefrl.control.folder import ControlFolder
from prefrl.control.settings import TrainSettings
from prefrl.dataset import export_record
from prefrl.errors import UserError
from prefrl.feedback import Comparison, Query, Ranking
from prefrl.files import append_to, parse_json, read_json
from prefrl.rewards import RewardEnsemble
from prefrl.runs.metrics import MetricsWriter, read_rows
from prefrl.segments import Segment
from prefrl.servers import ask_server
from prefrl.spaces import space_from_json
from prefrl.store import PreferenceStore
from prefrl.studies.run_quality import record_quality

SPACES = Box(-1, 1, (3,), np.float32), Box(-1, 1, (1,), np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> ControlFolder:
    return ControlFolder.create(tmp_path / "run", TrainSettings(env_id="Pendulum-v1").resolve(), baseline=False)


def one_sentence(error: BaseException) -> None:
    assert "\n" not in str(error)
    assert len(str(error)) < 1000


@pytest.mark.parametrize(
    "text", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a": NaN}', b'{"a": 1e999}', b'{"a": "\\ud800"}', b"9" * 10_000]
)
def test_what_is_no_json_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (many kinds of message)
        parse_json(text)
    assert parse_json(b'{"a": [1, 2.5, "\\u00e9", null]}') == {"a": [1, 2.5, "\u00e9", None]}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_what_is_no_plain_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("pipe", "loop", "none", "."):
        with pytest.raises(UserError, match="cannot be read") as refused:
            read_json(tmp_path / name)
        one_sentence(refused.value)
    for name in ("pipe", "."):
        with pytest.raises(UserError, match="no plain file") as refused:
            append_to(tmp_path / name)
        one_sentence(refused.value)
    with append_to(tmp_path / "new") as file:
        file.write(b"row")
    assert (tmp_path / "new").read_bytes() == b"row"


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("steps", "many"), ("steps", True), ("steps", 1.5), ("seed", None), ("env_id", 7), ("env_id", "\0"),
        ("annotator", "nobody"), ("hyperparameters", []), ("queries", [1]), ("queries.end_share", "0.5"),
        ("reward.hidden", 64), ("reward.hidden", [64, "64"]), ("num_envs", {}), ("fit", None),
    ],
)  # fmt: skip
def test_a_setting_of_another_type_is_named(folder: ControlFolder, where: str, value: object) -> None:
    config = json.loads(folder.config_path.read_text())
    *way, name = where.split(".")
    inside = config["settings"]
    for key in way:
        inside = inside[key]
    inside[name] = value
    folder.config_path.write_text(json.dumps(config))
    with pytest.raises(UserError, match=name) as refused:
        _ = ControlFolder(folder.path).settings
    assert str(folder.config_path) in str(refused.value)
    one_sentence(refused.value)


@pytest.mark.parametrize(
    "change",
    [{"version": "1"}, {"version": None}, {"run_id": 5}, {"settings": []}, {"baseline": 0}, {"format": None}],
)
def test_a_configuration_that_lacks_what_it_should_hold_is_refused(
    folder: ControlFolder, change: dict[str, Any]
) -> None:
    config = json.loads(folder.config_path.read_text())
    folder.config_path.write_text(json.dumps({**config, **change}))
    with pytest.raises(UserError, match="damaged") as refused:
        ControlFolder.open(folder.path)
    one_sentence(refused.value)


def test_a_whole_number_may_be_written_as_one_with_a_point(folder: ControlFolder) -> None:
    config = json.loads(folder.config_path.read_text())
    config["settings"]["steps"] = 1e5
    folder.config_path.write_text(json.dumps(config))
    assert ControlFolder(folder.path).settings.steps == 100_000


@pytest.mark.parametrize("bad", [{"n": "x"}, {"n": True}, {"n": 1, "loss": "x"}, {"n": 1, "loss": [{"a": ""}]}, {}])
def test_rows_that_hold_no_figures_are_counted(tmp_path: Path, bad: dict[str, Any]) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"n": 1, "loss": null, "seconds": {"fit": 1.0}}\n' + json.dumps(bad) + '\n{"n": 2, "loss": 0.5}\n')
    with pytest.warns(UserWarning, match="1 of its 3 lines are no rows, the first of them line 2"):
        assert [row["n"] for row in read_rows(path, "n")] == [1, 2]


def test_metrics_with_a_row_too_many_are_cut_at_the_end_of_a_row(folder: ControlFolder) -> None:
    rows = [b'{"num_env_steps": 100, "labels": 1}\n', b'{"num_env_steps": 200, "labels": 22}\n']
    folder.metrics_path.write_bytes(rows[0] + rows[0] + rows[1])
    with pytest.warns(UserWarning, match="not what the checkpoint knew"):
        MetricsWriter(folder, size=len(rows[0] + rows[1]), count=200).close()
    assert folder.metrics_path.read_bytes() == rows[0] + rows[0]


def test_metrics_that_do_not_reach_the_end_of_a_finished_run_are_told(folder: ControlFolder) -> None:
    folder.metrics_path.write_text('{"num_env_steps": 100}\n')
    folder.summary_path.write_text('{"steps": 100}')
    assert len(folder.read_metrics()) == 1
    folder.summary_path.write_text('{"steps": 200}')
    with pytest.warns(UserWarning, match="ends at 100, and the run ended at 200"):
        folder.read_metrics()


def described(path: Path, **change: object) -> None:
    """Change what a saved reward says of itself."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    own = json.loads(header["__metadata__"]["prefrl"])
    header["__metadata__"]["prefrl"] = json.dumps({**own, **change})
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])


@pytest.mark.parametrize(
    "change",
    [
        {"version": None}, {"settings": None}, {"settings": {"hidden": 3}}, {"settings": {"hidden": [64], "x": 1}},
        {"observation_space": {"kind": "Box", "shape": [10**9, 10**9], "dtype": "float32", "low": "0", "high": "1"}},
        {"observation_space": {"kind": "Discrete", "n": 10**7, "start": 0}, "settings": {"hidden": [100_000]}},
        {"action_space": {"kind": "Box", "shape": [1], "dtype": "strange", "low": "0", "high": "1"}}, {"sha256": None},
    ],
)  # fmt: skip
def test_a_reward_that_describes_itself_wrongly_is_refused_before_memory_is_taken(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    path = tmp_path / "reward.safetensors"
    RewardEnsemble(*SPACES).save(path)
    described(path, **change)
    with pytest.raises(UserError) as refused:
        RewardEnsemble.load(path)
    one_sentence(refused.value)


def test_sizes_of_spaces_are_bounded() -> None:
    for shape in ([10**12], [-1], [1.5], ["3"]):
        with pytest.raises(UserError, match="no space"):
            space_from_json({"kind": "Box", "shape": shape, "dtype": "float32", "low": "0", "high": "1"})


# ------------------------------------------------------------------------------------------ records


def segment(rng: np.random.Generator) -> Segment:
    return Segment(observations=rng.normal(size=(3, 2)), actions=rng.normal(size=(2, 1)), true_rewards=np.ones(2))


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path, rng = tmp_path / "record.sqlite", np.random.default_rng(0)
    with PreferenceStore(path) as store:
        pairs = [Query(segments=(segment(rng), segment(rng)), session=n) for n in range(40)]
        ranked = Query(kind="ranking", segments=tuple(segment(rng) for _ in range(3)))
        store.add_queries([*pairs, ranked])
        store.add_answers([Comparison(query_id=q.id, preference=1.0, annotator="anna") for q in pairs])
        store.add_answers([Ranking(query_id=ranked.id, ranks=(1, 2, 3), annotator="anna")])
        store.check()
    return path


def changed(path: Path, statement: str) -> None:
    raw = sqlite3.connect(path)
    raw.execute("PRAGMA foreign_keys=OFF")
    raw.execute(statement)
    raw.commit()
    raw.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM queries WHERE session = 3 AND kind = 'comparison'",
        "DELETE FROM segments WHERE rowid = 2",
        "DELETE FROM query_items WHERE rowid = 2",
        "UPDATE query_items SET segment_id = NULL WHERE rowid = 2",
        "UPDATE answers SET query_id = 'x' WHERE id = 2",
        "UPDATE answers SET value = '[1, 2]' WHERE kind = 'ranking'",
        "UPDATE answers SET value = '{' WHERE id = 2",
        "UPDATE answers SET value = '[[1]]' WHERE id = 2",
        "UPDATE answers SET shown = '{}' WHERE id = 2",
        "UPDATE answers SET seconds = 'long' WHERE id = 2",
        "UPDATE answers SET annotator = x'ff' WHERE id = 2",
        "UPDATE segments SET arrays = 'text' WHERE rowid = 2",
        "UPDATE query_items SET position = '{}' WHERE rowid = 2",
        "UPDATE annotators SET kind = x''",
        "UPDATE queries SET scale = 'x', kind = 5 WHERE session = 3",
        "INSERT INTO facts (key, value) VALUES ('questions', 'inf')",
        "UPDATE queries SET num_env_steps = 'null' WHERE session = 3",
        "UPDATE queries SET session = '{}' WHERE session = 3 AND kind = 'comparison'",
        "UPDATE answers SET comment = x'00' WHERE id = 2",
        "INSERT INTO responses (id, prompt, text) VALUES ('00', 'p', 'changed')",
    ],
)
def test_a_record_that_is_not_whole_is_refused_and_nothing_is_exported(record: Path, statement: str) -> None:
    changed(record, statement)
    with pytest.raises(UserError, match="damaged") as refused:
        export_record(record, record.parent / "data")
    one_sentence(refused.value)
    assert not (record.parent / "data" / "dataset.json").exists()


def test_rows_that_a_damaged_index_hides_are_not_left_out_silently(record: Path) -> None:
    raw = sqlite3.connect(record)
    raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (root,) = raw.execute("SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_query_items_1'").fetchone()
    (size,) = raw.execute("PRAGMA page_size").fetchone()
    raw.close()
    data = bytearray(record.read_bytes())
    cells = (root - 1) * size + 3
    data[cells : cells + 2] = struct.pack(">H", struct.unpack(">H", data[cells : cells + 2])[0] - 1)
    record.write_bytes(bytes(data))
    for use in (lambda: export_record(record, record.parent / "data"), lambda: record_quality(record)):
        with pytest.raises(UserError, match="damaged"):
            use()


def test_quality_takes_a_record_that_is_no_runs(record: Path) -> None:
    (one,) = record_quality(record).quality.annotators
    assert (one.name, one.num_answers) == ("anna", 41)


# ------------------------------------------------------------------------------------------ servers


@pytest.fixture
def reply() -> Iterator[Any]:
    class Handler(BaseHTTPRequestHandler):
        content = b""

        def do_POST(self) -> None:
            self.wfile.write(Handler.content)
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    running = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=running.serve_forever, daemon=True).start()
    Handler.address = f"http://127.0.0.1:{running.server_port}/"  # type: ignore[attr-defined]
    yield Handler
    running.shutdown()
    running.server_close()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\0\0", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000,
        b"HTTP/1.1 200 OK\r\n\r\nNaN", b"HTTP/1.1 200 OK\r\n\r\n\xff", b"HTTP/1.1 200 OK\r\n" + b"X" * 70_000,
        b"HTTP/1.1 503 Busy\r\nRetry-After: \xb2\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example/\r\n\r\n",
    ],
)  # fmt: skip
def test_whatever_a_server_answers_is_json_or_a_sentence(
    reply: Any, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "FIRST_WAIT", 0.0)
    reply.content = content
    with pytest.raises(UserError, match="The judge at") as refused:
        ask_server("judge", reply.address, {}, timeout=5)
    one_sentence(refused.value)


def test_a_server_is_read_up_to_a_bound(reply: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "MOST_JSON_BYTES", 10)
    reply.content = b"HTTP/1.1 200 OK\r\n\r\n[1, 2]"
    assert ask_server("judge", reply.address, {}, timeout=5) == [1, 2]
    reply.content = b"HTTP/1.1 200 OK\r\n\r\n[" + b"1," * 1000
    with pytest.raises(UserError, match="more than the 10 bytes"):
        ask_server("judge", reply.address, {}, timeout=5)


def test_only_http_is_asked() -> None:
    for address in ("file:///etc/passwd", "ftp://host/x", "http://", "http://[", "http://a b/"):
        with pytest.raises(UserError, match="address"):
            ask_server("reward", address, {}, timeout=5)


def test_figures_that_were_changed_since_the_run_ended_are_told(folder: ControlFolder) -> None:
    folder.metrics_path.write_text('{"num_env_steps": 100, "true_return": 5.0}\n')
    folder.finish({"steps": 100, "bins": {2: 0.5, 10: math.nan}})
    assert folder.read_summary() == {"steps": 100, "bins": {"2": 0.5, "10": None}}
    assert len(folder.read_metrics()) == 1
    folder.metrics_path.write_text('{"num_env_steps": 100, "true_return": 7.0}\n')
    with pytest.warns(UserWarning, match=r"metrics\.jsonl was changed since the run ended"):
        folder.read_metrics()
    folder.summary_path.write_text('{"steps": 100, "bins": {"2": 0.6, "10": null}}')
    with pytest.raises(UserError, match="not those that the run wrote"):
        folder.read_summary()
    folder.digests_path.unlink()  # as an earlier version left it
    assert folder.read_summary()["bins"]["2"] == 0.6


def test_figures_written_in_another_layout_are_the_same_figures(folder: ControlFolder) -> None:
    folder.finish({"steps": 1, "loss": 0.1})
    folder.summary_path.write_text('{"loss":0.1,\r\n"steps":1}')
    assert folder.read_summary() == {"steps": 1, "loss": 0.1}


def test_evaluations_of_a_text_run_that_were_changed_or_lack_a_figure_are_told(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from prefrl.text.jobs.curve import read_chain
    from prefrl.text.jobs.folder import TextFolder

    run = TextFolder.create(tmp_path / "dpo", "dpo", {})
    run.add_evaluation({"step": 0, "gold": 1.0, "kl_nats": 0.0})
    run.finish({"steps": 1})
    assert read_chain(tmp_path)[0].rows[0]["gold"] == 1.0
    run.evaluations_path.write_text('{"step": 0, "gold": 1.0, "kl": 0.0}\n')
    with (
        pytest.warns(UserWarning, match=r"evaluations\.jsonl was changed"),
        pytest.raises(UserError, match="the row of step 0 should hold gold and kl_nats"),
    ):
        read_chain(tmp_path)


@pytest.mark.parametrize("damage", ["{", "[]", '{"base_model_name_or_path": 7}', "\udcff", '"text"'])
def test_damaged_descriptions_of_models_are_a_sentence(tmp_path: Path, damage: str) -> None:
    pytest.importorskip("peft")
    from prefrl.text.learn.classifier_reward import is_classifier
    from prefrl.text.model.loading import base_of

    for name in ("adapter_config.json", "config.json"):
        (tmp_path / name).write_bytes(damage.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=r"adapter_config\.json (cannot be read|is damaged)"):
        base_of(str(tmp_path))
    if damage in ("{", "\udcff"):
        with pytest.raises(UserError, match=r"config\.json cannot be read"):
            is_classifier(str(tmp_path))
    else:
        assert not is_classifier(str(tmp_path))


def test_damaged_times_of_a_demo_are_a_sentence(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from prefrl.text.jobs.demo import Demo, DemoSettings

    for damage in ("{", "[1]", '{"sft": "long"}'):
        (tmp_path / "seconds.json").write_text(damage)
        with pytest.raises(UserError, match=r"seconds\.json"):
            Demo(DemoSettings(), tmp_path)

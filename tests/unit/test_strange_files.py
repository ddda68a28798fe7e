"""Files of strangers, well made and not what they should be: nothing in them is run, waited for or believed."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prefrl.control.folder import ControlFolder
from prefrl.control.settings import TrainSettings
from prefrl.errors import UserError
from prefrl.feedback import Comparison, Query, Response
from prefrl.files import parse_json
from prefrl.hub.packing import pack
from prefrl.image.data import read_rankings
from prefrl.rewards import RewardEnsemble
from prefrl.runs.checkpoint import CheckpointError, State, load_checkpoint, save_checkpoint
from prefrl.runs.metrics import read_rows
from prefrl.runs.tensors import read_tensors
from prefrl.store import PreferenceStore
from prefrl.studies.media import find_media
from prefrl.sweeps.plan import read_sweep

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")


@pytest.fixture
def folder(tmp_path: Path) -> ControlFolder:
    return ControlFolder.create(tmp_path / "run", TrainSettings(env_id="Pendulum-v1").resolve(), baseline=False)


@pytest.fixture
def record(tmp_path: Path) -> Path:
    query = Query(responses=(Response(prompt="p", text="a"), Response(prompt="p", text="b")))
    with PreferenceStore(tmp_path / "record.sqlite") as store:
        store.add_queries([query])
        store.add_answers([Comparison(query_id=query.id, preference=1.0, annotator="anna")])
    return tmp_path / "record.sqlite"


ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x AS id FROM c"


@pytest.mark.parametrize(
    ("statements", "what"),
    [
        (["CREATE TRIGGER t AFTER INSERT ON annotators BEGIN DELETE FROM answers; END"], "a trigger 't'"),
        (["ALTER TABLE answers RENAME TO kept", "CREATE VIEW answers AS SELECT * FROM kept"], "a view 'answers'"),
        (["DROP TABLE facts", f"CREATE VIEW facts AS {ENDLESS}"], "a view 'facts'"),
        (["DROP TABLE facts", "CREATE VIRTUAL TABLE facts USING fts5(key, value)"], "a virtual table 'facts'"),
        (["ALTER TABLE facts ADD COLUMN more TEXT AS (hex(zeroblob(100000000)))"], "a column facts.more"),
    ],
)
def test_a_record_whose_tables_are_not_what_they_seem_is_refused(
    record: Path, statements: list[str], what: str
) -> None:
    raw = sqlite3.connect(record)
    for statement in statements:
        raw.execute(statement)
    raw.commit()
    raw.close()
    before = record.read_bytes()
    with pytest.raises(UserError, match=what):
        PreferenceStore(record)
    assert record.read_bytes() == before


def test_a_view_of_ones_own_beside_the_tables_does_no_harm(record: Path) -> None:
    raw = sqlite3.connect(record)
    raw.execute("CREATE VIEW mine AS SELECT annotator, count(*) FROM answers GROUP BY annotator")
    raw.commit()
    raw.close()
    with PreferenceStore(record) as store:
        assert len(store.answers()) == 1


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_a_link_that_leads_in_a_circle_is_a_sentence(tmp_path: Path, folder: ControlFolder) -> None:
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(UserError, match="no record at"):
        PreferenceStore(tmp_path / "circle", create=False)
    with pytest.raises(UserError, match=r"could not be|no record"):
        PreferenceStore(tmp_path / "circle")
    (tmp_path / "table.csv").write_text("file\ncircle\n")
    with pytest.raises(UserError, match="there is no file 'circle'"):
        find_media(tmp_path, tmp_path / "table.csv")
    row = {"prompt": "p", "images": ["circle", "circle"], "ranks": [1, 2]}
    (tmp_path / "rankings.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match="there is no picture 'circle'"):
        read_rankings(str(tmp_path), (8, 8, 3))


def test_an_end_that_is_gone_is_told_when_it_is_made_again(folder: ControlFolder) -> None:
    folder.finish({"steps": 10})
    folder.summary_path.unlink()
    with pytest.warns(UserWarning, match="is missing, and the run had come to its end: that end is made again"):
        folder.refuse_if_finished()


HUGE = {"w": torch.zeros(1).expand(10**13)}
"""Of 40 terabytes, in a file of a kilobyte."""


def test_tensors_that_say_they_are_larger_than_their_file_are_refused(folder: ControlFolder) -> None:
    folder.save_policy("last", HUGE)
    with pytest.raises(UserError, match=r"a tensor of shape \(10000000000000,\) is not in its"):
        folder.load_policy("last")
    place = save_checkpoint(folder, 10, State(tensors=HUGE))
    with pytest.raises(CheckpointError, match="is not in its"):
        load_checkpoint(place, folder.run_id)
    folder.save_policy("last", {"w": torch.sparse_coo_tensor(torch.zeros(1, 1, dtype=torch.long), [1.0], (10**13,))})
    with pytest.raises(UserError, match="is not in its"):
        folder.load_policy("last")
    state = {"a": [torch.ones(3), {"b": torch.arange(4)}], "c": 1.5}
    folder.save_policy("last", state)
    read = read_tensors((folder.policies / "last.pt").read_bytes())
    assert read["c"] == 1.5 and torch.equal(read["a"][1]["b"], torch.arange(4))


def test_a_number_of_more_digits_than_a_float_takes_is_no_figure(tmp_path: Path, folder: ControlFolder) -> None:
    huge = "9" * 400
    with pytest.raises(ValueError, match="has 400 digits; 300 at most are read"):
        parse_json(f'{{"a": [{huge}]}}')
    assert parse_json("[-12, 1e5]") == [-12, 1e5]
    assert float(parse_json("9" * 300)) == 1e300
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1}}\n{{"step": {huge}}}\n')
    with pytest.warns(UserWarning, match="1 of its 2 lines are no rows"):
        assert len(read_rows(tmp_path / "metrics.jsonl", "step")) == 1
    config = json.loads(folder.config_path.read_text())
    folder.config_path.write_text(json.dumps(config).replace('"seed": 0', f'"seed": {huge}'))
    with pytest.raises(UserError, match="400 digits"):
        ControlFolder.open(folder.path)


def headed(header: dict[str, Any], data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize("how", ["overlap", "gap", "beyond", "backwards", "strange type", "huge shape"])
def test_weights_whose_places_do_not_fit_the_file_are_refused(tmp_path: Path, how: str) -> None:
    import gymnasium

    space = gymnasium.spaces.Box(-1, 1, (2,))
    path = tmp_path / "reward.safetensors"
    RewardEnsemble(space, space, seed=0).save(path)
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    name, other = [key for key in header if key != "__metadata__"][:2]
    begin, end = header[name]["data_offsets"]
    if how == "overlap":
        header[other]["data_offsets"] = [
            begin,
            begin + header[other]["data_offsets"][1] - header[other]["data_offsets"][0],
        ]
    elif how == "gap":
        header[name]["data_offsets"] = [begin + 4, end + 4]
    elif how == "beyond":
        header[name]["data_offsets"] = [len(body), len(body) + end - begin]
    elif how == "backwards":
        header[name]["data_offsets"] = [end, begin]
    elif how == "strange type":
        header[name]["dtype"] = "F4_E9"
    else:
        header[name]["shape"] = [2**62, 2]
    path.write_bytes(headed(header, body))
    with pytest.raises(UserError, match=r"reward\.safetensors"):
        RewardEnsemble.load(path)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_what_is_shared_of_a_run_is_never_a_file_outside_of_it(
    folder: ControlFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ControlFolder, "read_summary", lambda _: {})
    folder.open_record(begins=True).close()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "key.pt").write_bytes(b"secret")
    (outside / "rows.jsonl").write_text('{"secret": 1}\n')
    (tmp_path / "packed").mkdir()
    folder.policies.mkdir(exist_ok=True)
    (folder.policies / "key.pt").symlink_to(outside / "key.pt")
    with pytest.raises(UserError, match="is a link that leads out of the run"):
        pack(folder, tmp_path / "packed")
    (folder.policies / "key.pt").unlink()
    folder.policies.rmdir()
    folder.policies.symlink_to(outside)
    with pytest.raises(UserError, match="is a link that leads out of the run"):
        pack(folder, tmp_path / "packed")
    folder.policies.unlink()
    folder.metrics_path.unlink(missing_ok=True)
    folder.metrics_path.symlink_to(outside / "rows.jsonl")
    with pytest.raises(UserError, match="leads out of the folder"):
        pack(folder, tmp_path / "packed")
    assert not any("secret" in path.read_text(errors="replace") for path in (tmp_path / "packed").rglob("*.*"))


@pytest.mark.parametrize("name", ["a\0b.png", "a" * 5000, "../up.png", "", ".", "/dev/zero", "pipe.png"])
def test_a_name_of_a_picture_that_none_can_have_is_a_sentence(tmp_path: Path, name: str) -> None:
    if name == "pipe.png" and hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / name)
    row = {"prompt": "p", "images": [name, name], "ranks": [1, 2]}
    (tmp_path / "rankings.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=r"line 1: (there is no picture|.* is not below)"):
        read_rankings(str(tmp_path), (8, 8, 3))


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"[" * 100_000, b'{"prompt": "\\ud800"}', b"9" * 400, b"null", b"NaN"]
)
def test_rankings_that_are_none_are_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rankings.jsonl").write_bytes(content + b"\n")
    with pytest.raises(UserError, match=r"line 1: (this is not JSON|expected an object)"):
        read_rankings(str(tmp_path), (8, 8, 3))


@pytest.mark.parametrize("cell", ["a\0.png", "a" * 5000 + ".png", "../up.png", "", "/dev/zero"])
def test_a_table_of_videos_names_files_of_its_folder_only(tmp_path: Path, cell: str) -> None:
    (tmp_path / "table.csv").write_text(f"speed,file\n1,{cell}\n2\n")
    with pytest.raises(UserError, match=r"row 1: there is no file"):
        find_media(tmp_path, tmp_path / "table.csv")
    (tmp_path / "table.csv").write_text("speed,file\n2\n")  # a row that is too short
    with pytest.raises(UserError, match=r"row 1: there is no file"):
        find_media(tmp_path, tmp_path / "table.csv")


@pytest.mark.parametrize("suffix", [".yaml", ".json", ".toml"])
@needs_pipes
def test_a_sweep_is_read_from_a_plain_file(tmp_path: Path, suffix: str) -> None:
    os.mkfifo(tmp_path / f"sweep{suffix}")
    with pytest.raises(UserError, match="no plain file"):
        read_sweep(tmp_path / f"sweep{suffix}")


def test_a_few_lines_of_yaml_cannot_stand_for_billions(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12)]
    (tmp_path / "sweep.yaml").write_text("\n".join(["l0: &l0 [1]", *levels, "command: *l11"]))
    with pytest.raises(UserError, match="can stand for billions"):
        read_sweep(tmp_path / "sweep.yaml")
    (tmp_path / "sweep.yaml").write_text("command: train\nsettings: {env_id: !!python/object/apply:os.system [ls]}")
    with pytest.raises(UserError, match="cannot be read"):
        read_sweep(tmp_path / "sweep.yaml")


CODE = "open('RAN', 'w').close()\nclass Thing:\n    pass\n"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, in which a file RAN would show that code was run."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


@pytest.mark.parametrize("of", ["model", "tokenizer", "known model"])
def test_a_language_model_that_brings_code_is_not_run_and_nobody_is_asked(
    elsewhere: Path, of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefrl.text.model.models import load_model, load_reader

    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked whether to run it"))
    place = elsewhere / "model"
    place.mkdir()
    (place / "strange.py").write_text(CODE)
    names = {
        "AutoConfig": "strange.Thing",
        "AutoModelForCausalLM": "strange.Thing",
        "AutoTokenizer": ["strange.Thing"] * 2,
    }
    kind = "llama" if of == "known model" else "stranger"
    (place / "config.json").write_text(json.dumps({"model_type": kind, "auto_map": names}))
    about = {"tokenizer_class": "Thing", "auto_map": {"AutoTokenizer": ["strange.Thing", "strange.Thing"]}}
    if of == "tokenizer":
        (place / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (place / "tokenizer_config.json").write_text(json.dumps(about))
    for load in (load_model, load_reader):
        with pytest.raises(UserError, match=r"holds no (language model|tokenizer)"):
            load(place)
    assert not list(elsewhere.rglob("RAN"))


def test_an_image_model_that_brings_code_is_not_run(elsewhere: Path) -> None:
    pytest.importorskip("diffusers")
    from prefrl.image.model import ImageModel

    place = elsewhere / "pipeline"
    for about in (
        {"_class_name": ["strange", "Thing"]},
        {"_class_name": "StableDiffusionPipeline", "unet": ["strange", "Thing"]},
        {"_class_name": "DiffusionPipeline", "unet": ["strange", "Thing"], "vae": ["os", "system"]},
    ):
        (place / "unet").mkdir(parents=True, exist_ok=True)
        (place / "unet" / "strange.py").write_text(CODE)
        (place / "strange.py").write_text(CODE)
        (elsewhere / "here" / "strange.py").write_text(CODE)
        (place / "model_index.json").write_text(json.dumps({"_diffusers_version": "0.30.0", **about}))
        with pytest.raises(UserError, match=r"cannot be loaded|is a "):
            ImageModel.load(str(place))
    assert not list(elsewhere.rglob("RAN"))


@pytest.mark.parametrize(
    ("changed", "about"),
    [
        ({"r": 10**9}, "ranks should be from 1 to"),
        ({"rank_pattern": {"q_proj": 10**9}}, "ranks should be from 1 to"),
        ({"megatron_config": {"a": 1}, "megatron_core": "strange"}, "name code of another library"),
        ({"layer_replication": [[0, 1]] * 10_000}, "repeat layers"),
    ],
)
def test_adapters_that_would_take_memory_or_import_code_are_refused(
    elsewhere: Path, changed: dict[str, Any], about: str
) -> None:
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    from prefrl.text.model.loading import load_weights

    (elsewhere / "here" / "strange.py").write_text(CODE)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=16, **sizes))
    model.save_pretrained(elsewhere / "base")
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"]))
    place = elsewhere / "adapters"
    adapted.save_pretrained(place)
    source = f"{place}@{elsewhere / 'base'}"
    load_weights(transformers.AutoModelForCausalLM, source, "language model")
    config = json.loads((place / "adapter_config.json").read_text())
    (place / "adapter_config.json").write_text(json.dumps(config | changed))
    with pytest.raises(UserError, match=about):
        load_weights(transformers.AutoModelForCausalLM, source, "language model")
    assert not list(elsewhere.rglob("RAN"))


def test_types_of_tables_that_are_none_of_ours_are_a_sentence(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    from prefrl.text.data.files import read_rows as read_text_rows

    columns = [
        arrow.array([1, 2], arrow.duration("ns")),
        arrow.array([b"\xff", b"\0"], arrow.binary()),
        arrow.array([[("a", 1)], []], arrow.map_(arrow.string(), arrow.int64())),
        arrow.array(["a", "b"]).dictionary_encode(),
        arrow.array([10**30, 1], arrow.decimal128(38)),
        arrow.array([{"a": {"b": [1]}}, None]),
        arrow.array([253402300800_000, -1], arrow.timestamp("ms", tz="Mars/Base")),
        arrow.array([np.float16(1), np.float16("nan")], arrow.float16()),
    ]
    for column in columns:
        path = tmp_path / "rows.parquet"
        parquet.write_table(arrow.table({"prompt": column, "chosen": column, "rejected": column}), path)
        try:
            rows = read_text_rows(path)
        except UserError:
            continue
        assert len(list(rows)) == 2

"""A data set from anybody: read whole or not at all, and no file outside it is read or written."""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from prefrl import dataset, files
from prefrl.dataset import export_record, import_record
from prefrl.errors import UserError
from prefrl.feedback import Comparison, Query
from prefrl.segments import Segment
from prefrl.store import Clip, PreferenceStore
from prefrl.store.rows import pack, unpack


def segment(number: int) -> Segment:
    rng = np.random.default_rng(number)
    return Segment(observations=rng.normal(size=(4, 2)), actions=rng.normal(size=(3, 1)), true_rewards=np.zeros(3))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with PreferenceStore(tmp_path / "a.sqlite") as store:
        queries = [Query(segments=(segment(2 * n), segment(2 * n + 1))) for n in range(3)]
        store.add_queries(queries)
        store.add_answers([Comparison(query_id=q.id, preference=1.0, annotator="anna", seconds=2.0) for q in queries])
        clip = Clip(data=b"frames", format="mp4", frames_per_second=12.5, width=64, height=48, num_frames=5)
        store.add_clip(segment(0).id, clip)
    export_record(tmp_path / "a.sqlite", tmp_path / "data")
    return tmp_path / "data"


def change(folder: Path, table: str, change_row: Callable[[dict[str, Any]], Any], at: int = -1) -> None:
    path = folder / f"{table}.parquet"
    read = pq.read_table(path)
    rows = read.to_pylist()
    change_row(rows[at])
    pq.write_table(pa.Table.from_pylist(rows, schema=read.schema), path)


def refuse(folder: Path, about: str) -> None:
    """Check that the data set is refused, in one sentence, and adds nothing to a record."""
    held, fresh = folder.parent / "held.sqlite", folder.parent / "fresh.sqlite"
    other = Query(segments=(segment(50), segment(51)))
    with PreferenceStore(held) as store:
        store.add_queries([other])
    for record in (held, fresh):
        with pytest.raises(UserError, match=about) as refused:
            import_record(folder, record)
        assert "\n" not in str(refused.value)
    with PreferenceStore(held) as store:
        assert store.query_ids() == [other.id]
        assert store.answers() == []
        assert store.annotators() == {}
    assert not fresh.exists()


def set_to(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda row: row.update(values)


def test_names_from_a_data_set_lead_to_no_file_outside_it(folder: Path) -> None:
    secret = folder.parent / "secret"
    secret.write_bytes(b"secret")
    queries, clips = (folder / name for name in ("queries.parquet", "clips.parquet"))
    whole = queries.read_bytes(), clips.read_bytes()
    for name in ("../secret", "/dev/zero", str(secret), "a" * 31, "A" * 32, "\0" * 32):
        change(folder, "queries", lambda row, name=name: row["segments"].__setitem__(0, name))
        refuse(folder, "no name of a segment")
    queries.write_bytes(whole[0])
    for format_ in ("../../secret", "exe", "mp4/../../../secret", ""):
        change(folder, "clips", set_to(format=format_))
        refuse(folder, "format of a clip must be mp4")
    clips.write_bytes(whole[1])
    change(folder, "clips", set_to(segment_id="../secret"))
    refuse(folder, "no query shows that segment")


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
@pytest.mark.parametrize("target", ["secret", "/dev/zero"])
def test_a_link_in_a_data_set_is_not_followed_out_of_it(folder: Path, target: str) -> None:
    (folder.parent / "secret").write_bytes(b"secret")
    clip = folder / "clips" / f"{segment(0).id}.mp4"
    clip.unlink()
    clip.symlink_to(folder.parent / target)
    refuse(folder, "leads out of the folder")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_pipe_in_a_data_set_is_not_waited_for(folder: Path) -> None:
    clip = folder / "clips" / f"{segment(0).id}.mp4"
    clip.unlink()
    os.mkfifo(clip)
    refuse(folder, "no plain file")


def test_values_are_checked_as_on_the_way_in(folder: Path) -> None:
    answers = folder / "answers.parquet"
    whole = answers.read_bytes()
    for wrong, about in (
        ({"seconds": 1e12}, "a year"),
        ({"seconds": -1.0}, "a year"),
        ({"seconds": float("nan")}, "a year"),
        ({"shown_at": -1.0}, "since 1970"),
        ({"answered_at": 1.7e12}, "not milliseconds"),
        ({"annotator": None}, "holds nulls"),
        ({"annotator": ""}, "name of its annotator"),
        ({"value": "[1"}, "row 3"),
        ({"value": "7"}, "damaged|preference"),
        ({"value": '{"a": 1}'}, "row 3|damaged|preference"),
        ({"kind": "opinion"}, "does not know"),
        ({"kind": "undo", "undoes": 999}, "999 is missing"),
        ({"query_id": "f" * 32}, "no query"),
    ):
        change(folder, "answers", set_to(**wrong))
        refuse(folder, about)
        answers.write_bytes(whole)
    change(folder, "queries", set_to(session=-1))
    refuse(folder, "must be 0 or more|not what was exported")


def test_observations_that_are_no_numbers_are_refused(folder: Path) -> None:
    path = folder / "segments" / f"{segment(0).id}.npz"
    broken = Segment(
        observations=np.full((4, 2), np.nan), actions=segment(0).actions, true_rewards=segment(0).true_rewards
    )
    with np.load(path) as file:
        arrays = dict(file)
    arrays["steps/observations"] = broken.observations
    renamed = folder / "segments" / f"{broken.id}.npz"
    np.savez(renamed, **arrays)
    query = Query(segments=(broken, segment(1)))
    change(folder, "queries", set_to(id=query.id, segments=[broken.id, segment(1).id]), at=0)
    change(folder, "answers", set_to(query_id=query.id), at=0)
    refuse(folder, "NaN or infinite")


def test_a_column_that_is_missing_or_of_another_kind_is_said(folder: Path) -> None:
    path = folder / "answers.parquet"
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["seconds"]), path)
    refuse(folder, "no column seconds")
    pq.write_table(table.set_column(4, "annotator", pa.array([b"\xff"] * len(table))), path)
    refuse(folder, r"answers\.parquet")


def test_an_answer_that_is_there_twice_is_refused(folder: Path) -> None:
    path = folder / "answers.parquet"
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table.slice(1, 1)]), path)
    refuse(folder, r"answers\.parquet row \d+: it is there twice")


def test_a_question_that_is_there_twice_is_refused(folder: Path) -> None:
    path = folder / "queries.parquet"
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table.slice(1, 1)]), path)
    refuse(folder, r"queries\.parquet holds '\w+' twice")


@pytest.mark.skipif(os.name == "nt", reason="no such names there")
def test_a_folder_whose_name_looks_like_an_address_is_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    export_record("a.sqlite", Path("s3:data"))
    import_record(Path("s3:data"), "b.sqlite")
    with PreferenceStore("b.sqlite") as store:
        assert store.num_answers() == 3


def test_what_unpacks_to_too_much_is_refused_before_memory_is_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_BYTES", 100_000)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("steps/actions.npy", bytes(200_000))
    with pytest.raises(ValueError, match="unpacks to"):
        files.npz_arrays(bomb.getvalue())
    path = folder / "segments" / f"{segment(0).id}.npz"
    path.write_bytes(bytes(100_001))
    refuse(folder, "larger than")


def test_an_array_larger_than_its_bytes_is_refused() -> None:
    lying = io.BytesIO()
    with zipfile.ZipFile(lying, "w") as file:
        npy = io.BytesIO()
        header = {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
        np.lib.format.write_array_header_1_0(npy, header)
        file.writestr("a.npy", npy.getvalue() + bytes(80))
    with pytest.raises(ValueError, match="does not fit"):
        files.npz_arrays(lying.getvalue())


def test_a_segment_of_a_record_that_unpacks_to_too_much_is_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = {"actions": np.zeros(3), "observations": np.arange(8.0)}
    assert set(unpack(pack(arrays))) == set(arrays)
    with pytest.raises(ValueError, match="cut short"):
        unpack(pack(arrays)[:-3])
    monkeypatch.setattr("prefrl.store.rows.MOST_BYTES", 1_000)
    with pytest.raises(ValueError, match="too much"):
        unpack(zlib.compress(bytes(2_000)))
    with pytest.raises(UserError, match="Use shorter ones"):
        pack({"a": np.zeros(1_000)})


def test_a_record_of_strangers_writes_no_file_outside_the_folder_of_the_export(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with PreferenceStore(path) as store:
        store.add_queries([Query(segments=(segment(0), segment(1)))])
        clip = Clip(data=b"frames", format="mp4", frames_per_second=12.5, width=64, height=48, num_frames=5)
        store.add_clip(segment(0).id, clip)
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE clips SET format = '/../../../outside'")
    engine.dispose()
    with pytest.raises(UserError, match="format of a clip must be mp4"):
        export_record(path, tmp_path / "data" / "deep")
    assert not list(tmp_path.glob("outside*"))
    assert not list((tmp_path / "data").glob("outside*"))


def test_answers_that_another_program_gave_no_claims_are_added_once(folder: Path) -> None:
    for row in range(3):
        change(folder, "answers", set_to(claim=None), at=row)
    for _ in range(2):
        import_record(folder, folder.parent / "b.sqlite")
    with PreferenceStore(folder.parent / "b.sqlite") as store:
        assert store.num_answers() == 3


def test_an_import_that_is_killed_in_its_middle_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset, "_read_entry", killed)
    with pytest.raises(KeyboardInterrupt):
        import_record(folder, folder.parent / "b.sqlite")
    assert not (folder.parent / "b.sqlite").exists()

"""A portable data set of answers: Parquet for queries and answers, arrays and clips beside; see docs/dataset.md.

dataset.json         format, version, counts
queries.parquet      one row for each query
answers.parquet      one row for each answer, taken back or not
annotators.parquet   name and kind
segments/ID.npz      observations, actions, true rewards, what draws it again
clips/ID.FORMAT      frames, as they are kept in the record
clips.parquet        their size and speed
consents.parquet     who agreed to what, and when
comparisons.jsonl    texts: prompt, chosen, rejected
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from prefrl.errors import UserError, first_line, require
from prefrl.feedback import KINDS, Answer, Edit, Entry, Query, Response, Undo, settled
from prefrl.files import MOST_BYTES, npz_arrays, npz_bytes, parse_json, read_inside, write_json
from prefrl.segments import Segment, segment_arrays, segment_from_arrays
from prefrl.spaces import Array, check_finite
from prefrl.store import Clip, PreferenceStore, QueryCard
from prefrl.store.addition import Addition
from prefrl.store.rows import entry_value, make_entry

FORMAT, VERSION = "prefrl dataset", 2
AT_ONCE = 200  # queries whose segments are in memory
MOST_ROWS = 10_000_000  # of a table
_NAME = re.compile("[0-9a-f]{32}")  # of a segment, from which that of its file is made
_PARQUET_ROWS = 10_000  # per group
_QUERY_FIELDS = ("kind", "session", "num_env_steps", "scale", "instruction", "overlap", "repeat_of", "reserved_for")
_ENTRY_FIELDS = ("query_id", "annotator", "seconds", "shown", "shown_at", "answered_at", "comment", "claim")
_REMARK_FIELDS = {"reason": "", "flagged": False, "adjudicates": False}  # since version 2
_MAY_BE_NULL = {"prompt", "scale", "repeat_of", "reserved_for", "shown", "shown_at", "answered_at", "claim", "undoes"}
_CLIP_FIELDS = ("format", "frames_per_second", "width", "height", "num_frames")


def export_record(where: Path | str, folder: Path, *, rename: Callable[[str], str] | None = None) -> str:
    """Write what a record holds as a data set; return what was written, in words.

    Args:
        where: the record: a file or the URL of a database.
        folder: where to; it must not exist, or be empty. `dataset.json` is written last: a folder that has it is whole.
        rename: returns names of people, and what they wrote, without what must not leave; consents are left out then.

    Raises:
        UserError: there is no record, the folder holds something, or it cannot be written.
    """
    require("pyarrow", "data")
    if isinstance(where, Path) and not where.is_file():
        raise UserError(f"There is no record at {where} to export.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} holds something already. Name a folder that does not exist, or is empty.")
    try:
        with PreferenceStore(where, create=False) as store:
            return _export(store, folder, rename)
    except OSError as error:
        raise UserError(
            f"The data set could not be written to {folder}: {error}. Free some space, or name another."
        ) from None


def import_record(folder: Path, where: Path | str) -> str:
    """Add a data set to a record, which is made if there is none; return what was read, in words.

    Reading a data set twice adds nothing the second time.

    Raises:
        UserError: no data set, one of a newer version, or one that is damaged.
    """
    require("pyarrow", "data")
    path = folder / "dataset.json"
    if not path.is_file():
        raise UserError(f"There is no data set in {folder}: it has no dataset.json. Give a folder that export wrote.")
    with _reading(folder, "dataset.json"):
        about = parse_json(read_inside(folder, "dataset.json"))
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise UserError(f"{path} was not written by prefrl export.")
        if not isinstance(about.get("version"), int):
            raise ValueError(f"version should be a number, not {about.get('version')!r}")
        if about["version"] > VERSION:
            raise UserError(f"{folder} was written by a newer prefrl (version {about['version']}). Update prefrl.")
    fresh = isinstance(where, Path) and not where.exists()
    try:
        with PreferenceStore(where) as store:
            return store.add_together(lambda addition: _import(folder, addition))
    except BaseException:
        if fresh:  # nothing is in it
            for ending in ("", "-wal", "-shm"):
                Path(f"{where}{ending}").unlink(missing_ok=True)
        raise


def _export(store: PreferenceStore, folder: Path, rename: Callable[[str], str] | None) -> str:
    """Write a record part by part, so that what lies in memory does not grow with it."""
    store.check()
    known = rename or str
    last_row, names = store.last_row(), store.query_ids()  # in this order: each of these answers has its query
    for name in ("segments", "clips"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    counts = {"queries": len(names), "answers": 0, "segments": 0, "clips": 0}
    with (
        _table(folder / "queries.parquet", _query_schema()) as write,
        _table(folder / "clips.parquet", _clip_schema()) as write_clips,
    ):
        for begin in range(0, len(names), AT_ONCE):
            cards = store.cards(names[begin : begin + AT_ONCE])
            named = dict.fromkeys(segment for card in cards for segment in card.segment_ids)
            fresh = [name for name in named if not _segment_path(folder, name).exists()]
            for segment in store.segments(fresh, replay=True).values():
                _segment_path(folder, segment.id).write_bytes(_packed(segment))
                counts["segments"] += 1
            clips = store.clips(fresh)
            for name, clip in clips.items():
                (folder / "clips" / f"{name}.{clip.format}").write_bytes(clip.data)
            counts["clips"] += len(clips)
            write_clips({"segment_id": n, **{f: getattr(c, f) for f in _CLIP_FIELDS}} for n, c in clips.items())
            write(_query_row(card, known) for card in cards)
    with _table(folder / "answers.parquet", _answer_schema()) as write:
        after = 0
        while answers := [one for one in store.answers(after, at_most=_PARQUET_ROWS) if one[0] <= last_row]:
            own = {card.id: card.kind for card in store.cards(_of_ones_own(answers))}
            write(_entry_row(row, entry, own, known) for row, entry in answers)
            counts["answers"] += len(answers)
            after = answers[-1][0]
    with _table(folder / "annotators.parquet", _annotator_schema()) as write:
        write({"name": known(name), "kind": kind} for name, kind in store.annotators().items())
    versions_of, consents = store.participants.texts(), store.participants.consents()
    agreed = [
        {"annotator": name, "version": version, "agreed_at": when, "text": versions_of[version]}
        for name, versions in consents.items()
        for version, when in versions.items()
    ]
    if agreed and rename is None:
        with _table(folder / "consents.parquet", _consent_schema()) as write:
            write(agreed)
    lines = text_comparisons(store)
    if (first := next(lines, None)) is not None:
        with open(folder / "comparisons.jsonl", "w", encoding="utf-8") as file:
            said = ({**line, "chosen": known(line["chosen"])} for line in chain((first,), lines))  # an edit's too
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in said)
    if hasattr(os, "sync"):  # all files at once: one by one they would take longer than all the rest
        os.sync()
    write_json(folder / "dataset.json", {"format": FORMAT, "version": VERSION, "counts": counts})
    return ", ".join(f"{number} {what}" for what, number in counts.items())


def _segment_path(folder: Path, name: str) -> Path:
    return folder / "segments" / f"{name}.npz"


def _query_row(card: QueryCard, known: Callable[[str], str]) -> dict[str, Any]:
    texts = [response.text for response in card.responses]
    prompt = card.responses[0].prompt if card.responses else None
    row = {field: getattr(card, field) for field in _QUERY_FIELDS}
    row["instruction"] = known(card.instruction)
    row["reserved_for"] = None if card.reserved_for is None else known(card.reserved_for)
    return {"id": card.id, "segments": list(card.segment_ids), "prompt": prompt, "responses": texts, **row}


def _of_ones_own(answers: Sequence[tuple[int, Entry]]) -> list[str]:
    """Return the queries whose answers are of a kind of a user's own: they keep the name by which it was asked for."""
    return list(dict.fromkeys(entry.query_id for _, entry in answers if ":" in entry.kind))


def _import(folder: Path, record: Addition) -> str:
    for row in _read_table(folder, "annotators.parquet", _annotator_schema()):
        if row["kind"] != "unknown":
            record.add_annotator(row["name"], row["kind"])
    if (folder / "consents.parquet").exists():
        for row in _read_table(folder, "consents.parquet", _consent_schema()):
            record.add_consent(row["annotator"], row["text"], row["agreed_at"])
    queries = _read_table(folder, "queries.parquet", _query_schema())
    known = {row["id"] for row in queries}
    if len(known) < len(queries):
        twice = next(name for name, count in Counter(row["id"] for row in queries).items() if count > 1)
        raise UserError(f"The data set in {folder} is damaged: queries.parquet holds {twice!r} twice. Copy it again.")
    for begin in range(0, len(queries), AT_ONCE):
        record.add_queries([_read_query(folder, row) for row in queries[begin : begin + AT_ONCE]])
    segments = {name for row in queries for name in row["segments"]}
    for row in _read_table(folder, "clips.parquet", _clip_schema()):
        with _reading(folder, "clips.parquet", row["segment_id"]):
            if row["segment_id"] not in segments:
                raise ValueError("no query shows that segment")
            clip = Clip(data=b"", **{field: row[field] for field in _CLIP_FIELDS})  # checks the format, a file's ending
            data = read_inside(folder, f"clips/{row['segment_id']}.{clip.format}")
        record.add_clip(row["segment_id"], replace(clip, data=data))
    rows: dict[int, int] = {}
    numbers: set[int] = set()
    answers = _read_table(folder, "answers.parquet", _answer_schema())
    batch: list[tuple[int, Entry]] = []

    def flush() -> None:
        rows.update(zip([number for number, _ in batch], record.add_answers([a for _, a in batch]), strict=True))
        batch.clear()

    for row in answers:
        undoes = row["undoes"]
        if undoes is not None and undoes not in rows:
            flush()
        with _reading(folder, "answers.parquet", f"row {row['row']}"):
            if row["query_id"] not in known:
                raise ValueError(f"there is no query {row['query_id']!r}")
            if row["row"] in numbers:
                raise ValueError("it is there twice")
            numbers.add(row["row"])
            batch.append((row["row"], _read_entry(row, None if undoes is None else rows[undoes])))
        if len(batch) == AT_ONCE:
            flush()
    flush()
    return f"{len(queries)} queries, {len(answers)} answers"


@contextmanager
def _reading(folder: Path, file: str, place: str = "") -> Iterator[None]:
    """Say of whatever a file of strangers makes Python raise where it was."""
    try:
        yield
    except Exception as error:  # pyarrow, NumPy, zlib and JSON raise many kinds
        if isinstance(error, UserError) and not place:
            raise
        reason = (f"{error} is missing" if isinstance(error, KeyError) else first_line(error)).rstrip(".")
        where = " ".join(part for part in (file, place) if part)
        raise UserError(f"The data set in {folder} is damaged: {where}: {reason}. Copy it again.") from error


def text_comparisons(store: PreferenceStore) -> Iterator[dict[str, str]]:
    """Yield what stands answered about texts as prompt, chosen and rejected: comparisons, pairs of rankings, edits."""
    asked = store.text_queries()
    answers = (
        settled([a for _, a in store.answers(standing=True, repeats=False) if a.query_id in asked]) if asked else []
    )
    for begin in range(0, len(answers), AT_ONCE):
        part = answers[begin : begin + AT_ONCE]
        cards = {card.id: card for card in store.cards(list(dict.fromkeys(answer.query_id for answer in part)))}
        for answer in part:
            responses = cards[answer.query_id].responses
            for chosen, rejected in _better_first(answer, responses):
                yield {"prompt": responses[0].prompt, "chosen": chosen, "rejected": rejected}


def _better_first(entry: Entry, responses: Sequence[Response]) -> Iterator[tuple[str, str]]:
    if isinstance(entry, Edit):
        yield entry.text, responses[entry.item].text
    elif isinstance(entry, Answer):
        better = [
            (i, j) if preference == 1 else (j, i)
            for i, j, preference in entry.pairs(len(responses))
            if preference != 0.5
        ]
        for i, j in sorted(better):
            yield responses[i].text, responses[j].text


def _packed(segment: Segment) -> bytes:
    arrays: dict[str, Array] = {f"steps/{name}": array for name, array in segment_arrays(segment).items()}
    arrays["true_rewards"] = np.asarray(segment.true_rewards, np.float64)
    arrays["terminated"], arrays["truncated"] = np.array(segment.terminated), np.array(segment.truncated)
    arrays["episode"], arrays["start"] = np.array(segment.episode), np.array(segment.start)
    for name, array in (segment.replay or {}).items():
        arrays[f"replay/{name}"] = np.asarray(array)
    return npz_bytes(arrays, compressed=True)


def _read_segment(folder: Path, name: str) -> Segment:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a segment")
    arrays = npz_arrays(read_inside(folder, f"segments/{name}.npz"))
    steps, replay = (
        {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        for prefix in ("steps/", "replay/")
    )
    segment = segment_from_arrays(
        steps,
        np.asarray(arrays["true_rewards"], np.float64),
        terminated=bool(arrays["terminated"]),
        truncated=bool(arrays["truncated"]),
        episode=int(arrays["episode"]),
        start=int(arrays["start"]),
        replay=replay or None,
    )
    if segment.id != name:
        raise ValueError(f"segment {name} is not what was exported")
    check_finite(segment.observations, "An observation")
    check_finite(segment.actions, "An action")
    return segment


def _read_query(folder: Path, row: Mapping[str, Any]) -> Query:
    with _reading(folder, "queries.parquet", f"query {row['id']}"):
        if row["responses"] and not all(isinstance(text, str) for text in (row["prompt"], *row["responses"])):
            raise ValueError("a prompt or response is null")
        KINDS.check_read(row["kind"])
        query = Query(
            segments=tuple(_read_segment(folder, name) for name in row["segments"]),
            responses=tuple(Response(prompt=row["prompt"], text=text) for text in row["responses"]),
            **{field: row[field] for field in _QUERY_FIELDS},
        )
        if query.id != row["id"]:  # a name follows from the content
            raise ValueError("it is not what was exported")
    return query


def _entry_row(row: int, entry: Entry, kinds: Mapping[str, str], known: Callable[[str], str]) -> dict[str, Any]:
    entry = replace(entry, annotator=known(entry.annotator), comment=known(entry.comment))
    entry = replace(entry, text=known(entry.text)) if isinstance(entry, Edit) else entry
    values = {field: getattr(entry, field) for field in (*_ENTRY_FIELDS, *_REMARK_FIELDS)}
    values["shown"] = None if entry.shown is None else list(entry.shown)
    undoes = entry.undoes if isinstance(entry, Undo) else None
    kind = kinds.get(entry.query_id, entry.kind) if isinstance(entry, Answer) else entry.kind
    return {"row": row, "kind": kind, "value": json.dumps(entry_value(entry)), "undoes": undoes, **values}


def _read_entry(row: Mapping[str, Any], undoes: int | None) -> Entry:
    common = {field: row[field] for field in _ENTRY_FIELDS}
    common["shown"] = None if row["shown"] is None else tuple(row["shown"])
    if row["claim"] is None:  # of another program: a name that follows from the content
        said = {name: value for name, value in row.items() if value != _REMARK_FIELDS.get(name, ...)}
        common["claim"] = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]
    common |= {field: row[field] for field in _REMARK_FIELDS}
    return make_entry(row["kind"], json.loads(row["value"]), undoes, common)


def _schema(columns: Mapping[str, str]) -> Any:
    arrow = require("pyarrow", "data")
    kinds = {"strings": arrow.list_(arrow.string()), "integers": arrow.list_(arrow.int32())}
    return arrow.schema([(name, kinds.get(kind) or getattr(arrow, kind)()) for name, kind in columns.items()])


def _annotator_schema() -> Any:
    return _schema({"name": "string", "kind": "string"})


def _consent_schema() -> Any:
    return _schema({"annotator": "string", "version": "string", "agreed_at": "float64", "text": "string"})


def _query_schema() -> Any:
    columns = {"id": "string", "kind": "string", "segments": "strings", "prompt": "string", "responses": "strings"}
    columns |= {"session": "int64", "num_env_steps": "int64", "scale": "int32", "instruction": "string"}
    return _schema({**columns, "overlap": "int32", "repeat_of": "string", "reserved_for": "string"})


def _answer_schema() -> Any:
    columns = {"row": "int64", "query_id": "string", "kind": "string", "value": "string", "annotator": "string"}
    columns |= {"seconds": "float64", "shown": "integers", "shown_at": "float64", "answered_at": "float64"}
    columns |= {"comment": "string", "claim": "string", "undoes": "int64"}
    return _schema({**columns, "reason": "string", "flagged": "bool_", "adjudicates": "bool_"})


def _clip_schema() -> Any:
    columns = {"segment_id": "string", "format": "string", "frames_per_second": "float64"}
    return _schema({**columns, "width": "int32", "height": "int32", "num_frames": "int32"})


@contextmanager
def _table(path: Path, schema: Any) -> Iterator[Callable[[Iterable[Mapping[str, Any]]], None]]:
    """Open a table to be written; what it yields adds rows."""
    arrow, parquet = require("pyarrow", "data"), require("pyarrow.parquet", "data")
    held: list[Mapping[str, Any]] = []
    about = schema.with_metadata({"format": FORMAT, "version": str(VERSION)})
    with open(path, "wb") as file, parquet.ParquetWriter(file, about) as writer:  # it takes names with : for addresses

        def write(rows: Iterable[Mapping[str, Any]], *, last: bool = False) -> None:
            held.extend(rows)
            if len(held) >= _PARQUET_ROWS or last:
                writer.write_table(arrow.Table.from_pylist(held, schema=schema), row_group_size=_PARQUET_ROWS)
                held.clear()

        yield write
        write((), last=True)


def _read_table(folder: Path, name: str, schema: Any) -> list[dict[str, Any]]:
    """Return the rows of a table whose columns are those of a schema, null only where it allows that.

    Columns that version 1 had not say there what nobody could say.
    """
    parquet = require("pyarrow.parquet", "data")
    with _reading(folder, name):
        file = parquet.ParquetFile(io.BytesIO(read_inside(folder, name)))
        about = file.metadata
        size = sum(about.row_group(group).total_byte_size for group in range(about.num_row_groups))
        if about.num_rows > MOST_ROWS or size > MOST_BYTES:
            raise ValueError(f"it has {about.num_rows:,} rows of {size:,} bytes: too many")
        missing = set(schema.names) - set(file.schema_arrow.names)
        added = {name: value for name, value in _REMARK_FIELDS.items() if name in missing}
        if len(added) == len(_REMARK_FIELDS):
            for name in added:
                schema = schema.remove(schema.get_field_index(name))
            missing -= added.keys()
        if missing:
            raise ValueError(f"it has no column {', '.join(sorted(missing))}")
        table = file.read(columns=schema.names).select(schema.names).cast(schema)
        for column in schema.names:
            if column not in _MAY_BE_NULL and table[column].null_count:
                raise ValueError(f"the column {column} holds nulls")
        rows: list[dict[str, Any]] = table.to_pylist()
        return [{**row, **added} for row in rows] if added else rows

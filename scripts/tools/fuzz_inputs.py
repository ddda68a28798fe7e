"""Damage of every kind to the content of a file: to its bytes, its JSON values, its archive, its rows, its tables.

Each function takes the content and a source of randomness, and returns the damaged content, what was done in words, and
whether the result still says something that can be true: a setting that was changed to another one, an answer that says
the opposite. What can be true need not be noticed where the file has no checksum.
"""

from __future__ import annotations

import io
import json
import pickle
import random
import sqlite3
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

Damaged = tuple[bytes, str, bool]
Damage = Callable[[bytes, random.Random], Damaged]

NONSENSE: tuple[Any, ...] = (
    None, True, -1, 0, 2**31, 2**63, 10**30, 1e308, float("nan"), float("inf"), -0.5, "", "x", "NaN", "../../outside",
    "/dev/zero", "/etc/passwd", "\0", "\ud800", "\u2028", "x" * 100_000, "stranger:Thing", "stranger.py:thing",
    "http://127.0.0.1:9/x", "postgresql://user:secret@127.0.0.1:9/x", "sqlite:////etc/passwd", [], {}, [[]], [None],
    {"": {}}, [1e9] * 3, {"a": float("nan")}, "1e400", "%s%n{0}", "\x1b[31m",
)  # fmt: skip
ODD_TEXTS = (
    b"", b"\n", b"null", b"[]", b"{}", b"\xef\xbb\xbf{}", b"\xff\xfe\x00", b"{", b'{"a": NaN}', b"[" * 100_000,
    b'{"a":' * 50_000, b"\x89PNG\r\n\x1a\n", b"PK\x03\x04", b"SQLite format 3\0", b"PAR1", b"\x1f\x8b\x08\0",
    b"9" * 10_000, b"\0" * 4096, pickle.dumps(print), b"\xff" * 300, b"<html>404</html>",
)  # fmt: skip


def damage_bytes(data: bytes, rng: random.Random) -> Damaged:
    """Empty, halve, cut, flip, overwrite, remove, double, append or replace."""
    what = rng.choice(("emptied", "halved", "cut", "flipped", "overwritten", "zeroed", "removed", "doubled", "appended",
                       "replaced", "flipped", "flipped"))  # fmt: skip
    there = bytearray(data)
    begin = rng.randrange(len(there) + 1)
    end = min(len(there), begin + rng.choice((1, 4, 64, 1024)))
    if what == "emptied":
        return b"", "emptied", False
    if what == "halved":
        return data[: len(data) // 2], "halved", False
    if what == "cut":
        return data[:begin], f"cut at byte {begin}", False
    if what == "flipped":
        for _ in range(rng.choice((1, 1, 2, 8)) if there else 0):
            there[rng.randrange(len(there))] ^= 1 << rng.randrange(8)
    elif what == "overwritten":
        there[begin:end] = rng.randbytes(end - begin)
    elif what == "zeroed":
        there[begin:end] = bytes(end - begin)
    elif what == "removed":
        del there[begin:end]
    elif what == "doubled":
        there[begin:begin] = there[begin:end]
    elif what == "appended":
        there += rng.choice((b"\0", b"\n", b"x" * 100, data[:100]))
    else:
        return rng.choice(ODD_TEXTS), "replaced by something else", False
    return bytes(there), f"{what} at byte {begin}", True


def damage_json(data: bytes, rng: random.Random) -> Damaged:
    """Put nonsense in the place of a value, or remove, rename or add one."""
    value = json.loads(data)
    done, plausible = _damage_value(value, rng)
    return json.dumps(value).encode("utf-8", "surrogatepass"), done, plausible


def damage_rows(data: bytes, rng: random.Random) -> Damaged:
    """Damage a row of a JSONL file, its values or its line; or leave it out, double it, or swap two."""
    lines = data.split(b"\n")[:-1]
    if not lines or rng.random() < 0.3:
        return damage_bytes(data, rng)
    number = rng.randrange(len(lines))
    what = rng.choice(("value", "value", "value", "line", "left out", "doubled"))
    done, plausible = what, what in ("left out", "doubled")
    if what == "value":
        lines[number], done, plausible = damage_json(lines[number], rng)
    elif what == "line":
        lines[number] = rng.choice(ODD_TEXTS).replace(b"\n", b" ")
    elif what == "left out":
        del lines[number]
    else:
        lines.insert(number, lines[number])
    return b"".join(line + b"\n" for line in lines), f"row {number + 1}: {done}", plausible


def _damage_value(value: Any, rng: random.Random) -> tuple[str, bool]:
    """Damage one value within nested ones; dictionaries and lists are entered at random."""
    name, inside = "", value
    while True:
        keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
        if not keys:
            if isinstance(inside, dict):
                inside["stranger"] = rng.choice(NONSENSE)
            else:
                inside.append(rng.choice(NONSENSE))
            return f"{name}: added a value", False
        key = rng.choice(keys)
        name = f"{name}.{key}" if name else str(key)
        if isinstance(inside[key], dict | list) and rng.random() < 0.8:
            inside = inside[key]
            continue
        break
    what = rng.choice(("nonsense", "nonsense", "nonsense", "removed", "renamed", "near"))
    before = inside[key]
    if what == "removed" or (what == "renamed" and not isinstance(inside, dict)):
        del inside[key]
        return f"{name}: removed", False
    if what == "renamed":
        inside[f"{key}_"] = inside.pop(key)
        return f"{name}: renamed", False
    if what == "near" and isinstance(before, int | float) and not isinstance(before, bool):
        inside[key] = rng.choice((-before, before + 1, before * 1000, before / 3, float(before), str(before)))
        return f"{name}: {before!r} became {inside[key]!r}", True
    inside[key] = rng.choice(NONSENSE)
    same_type = type(inside[key]) is type(before) or before is None
    return f"{name}: {str(before)[:40]!r} became {str(inside[key])[:40]!r}", same_type


def damage_zip(data: bytes, rng: random.Random) -> Damaged:
    """Damage one member of an archive (.npz, .pt) and pack it anew, with checksums that fit; or the archive itself."""
    if rng.random() < 0.3:
        return damage_bytes(data, rng)
    out = io.BytesIO()
    done = ""
    with zipfile.ZipFile(io.BytesIO(data)) as there, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        names = there.namelist()
        chosen = rng.choice(names)
        for name in names:
            content = there.read(name)
            if name == chosen:
                what = rng.choice(("damaged", "gone", "renamed", "a bomb", "a pickle", "a huge shape"))
                done = f"{name}: {what}"
                if what == "gone":
                    continue
                if what == "renamed":
                    name = rng.choice(("../outside", "stranger.npy", "/tmp/outside"))
                elif what == "a bomb":
                    content = bytes(1 << 28)
                elif what == "a pickle":
                    content = _EVIL_PICKLE
                elif what == "a huge shape" and content[:6] == b"\x93NUMPY":
                    content = _huge_npy()
                else:
                    content, more, _ = damage_bytes(content, rng)
                    done += f", {more}"
            file.writestr(name, content)
    return out.getvalue(), done, "flipped" in done or "overwritten" in done


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("open('ran','w').close()",)


_EVIL_PICKLE = pickle.dumps(_Evil())


def _huge_npy() -> bytes:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999, 9999), }"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n"


def damage_safetensors(data: bytes, rng: random.Random) -> Damaged:
    """Damage the header of a `.safetensors` file, that of prefrl within it, or its bytes."""
    if rng.random() < 0.4:
        return damage_bytes(data, rng)
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    own = header.get("__metadata__", {}).get("prefrl")
    if own is not None and rng.random() < 0.7:
        inner, done, plausible = damage_json(own.encode(), rng)
        header["__metadata__"]["prefrl"] = inner.decode("utf-8", "replace")
    else:
        done, plausible = _damage_value(header, rng)
    text = json.dumps(header).encode("utf-8", "replace")
    return struct.pack("<Q", len(text)) + text + data[8 + size :], f"header: {done}", plausible


def damage_parquet(data: bytes, rng: random.Random) -> Damaged:
    """Damage a value, row or column of a table and write it anew, or its bytes."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    table = parquet.read_table(io.BytesIO(data))
    if rng.random() < 0.3 or table.num_rows == 0:
        return damage_bytes(data, rng)
    rows = table.to_pylist()
    number, column = rng.randrange(len(rows)), rng.choice(table.column_names)
    what = rng.choice(("value", "value", "value", "column gone", "row gone", "row doubled", "type"))
    if what == "column gone":
        table = table.drop_columns([column])
    elif what == "row gone":
        table = arrow.Table.from_pylist(rows[:number] + rows[number + 1 :], schema=table.schema)
    elif what == "row doubled":
        table = arrow.Table.from_pylist([*rows, rows[number]], schema=table.schema)
    elif what == "type":
        table = table.set_column(table.column_names.index(column), column, arrow.array([str(r[column]) for r in rows]))
    else:
        for _ in range(20):
            rows[number][column] = value = rng.choice(NONSENSE)
            try:
                table = arrow.Table.from_pylist(rows, schema=table.schema)
            except (arrow.ArrowException, OverflowError, TypeError, ValueError, UnicodeError):
                continue
            what = f"value {str(value)[:30]!r}"
            break
    out = io.BytesIO()
    parquet.write_table(table, out)
    return out.getvalue(), f"row {number}, {column}: {what}", True


def damage_values(data: bytes, rng: random.Random) -> Damaged:
    """Damage values or rows of the tables of a SQLite file, or its schema."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record"
        path.write_bytes(data)
        raw = sqlite3.connect(path, isolation_level=None)
        raw.execute("PRAGMA journal_mode=DELETE")
        tables = [row[0] for row in raw.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        full = [name for name in tables if raw.execute(f"SELECT count(*) FROM {name}").fetchone()[0]]
        table = rng.choice([name for name in full if not name.startswith("sqlite_")])
        columns = [row[1] for row in raw.execute(f"PRAGMA table_info({table})")]
        column = rng.choice(columns)
        what = rng.choice(("value",) * 7 + ("row gone", "table gone", "column gone", "column added", "trigger"))
        done, plausible = f"{table}.{column}: {what}", what in ("row gone", "column added")
        try:
            if what == "value":
                value = rng.choice((None, -1, 0, 2**62, 1e300, float("inf"), "", "x", "../../outside", "null", "[]",
                                    "{}", "NaN", '"x"', "[[0]]", "1e999", b"", b"\xff\xfe", b"x" * 1000, "x" * 100_000,
                                    "stranger:Thing", -0.5, "0.5", "\0"))  # fmt: skip
                some = "(SELECT rowid FROM {0} LIMIT 1 OFFSET {1})"
                count = raw.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                place = some.format(table, rng.randrange(count))
                before = raw.execute(f"SELECT {column} FROM {table} WHERE rowid = {place}").fetchone()[0]
                everywhere = "" if rng.random() < 0.2 else f" WHERE rowid = {place}"
                raw.execute(f"UPDATE {table} SET {column} = ?{everywhere}", (value,))
                done = f"{table}.{column}: {str(before)[:30]!r} became {str(value)[:30]!r}"
                never_told = (table, column) == ("facts", "key")
                plausible = never_told or before is None or type(before) is type(value)
            elif what == "row gone":
                raw.execute(f"DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} ORDER BY random() LIMIT 1)")
            elif what == "table gone":
                raw.execute(f"DROP TABLE {table}")
            elif what == "column gone":
                raw.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
            elif what == "column added":
                raw.execute(f"ALTER TABLE {table} ADD COLUMN stranger TEXT")
            else:
                raw.execute(f"CREATE TRIGGER stranger AFTER INSERT ON {table} BEGIN DELETE FROM answers; END")
        except sqlite3.DatabaseError as error:  # it keeps itself
            done, plausible = f"{done}, refused by SQLite ({error})", True
        raw.close()
        return path.read_bytes(), done, plausible


def damage_pages(data: bytes, rng: random.Random) -> Damaged:
    """Damage the pages of a SQLite file: whole ones, their headers, or bytes anywhere."""
    size, there = 4096, bytearray(data)
    page = size * rng.randrange(max(1, len(there) // size))
    what = rng.choice(("bytes", "bytes", "zeroed", "random", "header", "swapped", "cut"))
    if what == "bytes":
        return damage_bytes(data, rng)
    if what == "zeroed":
        there[page : page + size] = bytes(size)
    elif what == "random":
        there[page : page + size] = rng.randbytes(size)
    elif what == "header":
        there[page + rng.randrange(12)] ^= 1 << rng.randrange(8)
    elif what == "cut":
        del there[page:]
    else:
        other = size * rng.randrange(max(1, len(there) // size))
        there[page : page + size], there[other : other + size] = there[other : other + size], there[page : page + size]
    return bytes(there), f"page {page // size}: {what}", False


def damage_reply(data: bytes, rng: random.Random) -> Damaged:
    """Damage what a server sends: the JSON, the body, the header, or how much of it comes."""
    body, done, _ = rng.choice((damage_json, damage_json, damage_bytes))(data, rng)
    if rng.random() < 0.1:
        body, done = rng.choice(ODD_TEXTS), "something else"
    status = rng.choice(
        (b"200 OK",) * 8 + (b"404 Not Found", b"500 Oops", b"200", b"abc", b"204 No Content", b"301 Moved")
    )
    headers = [b"Content-Type: application/json"]
    length = rng.choice((len(body), len(body), len(body), len(body) + 100, 10**15, -1))
    headers += [] if rng.random() < 0.1 else [b"Content-Length: %d" % length]
    headers += rng.choice(([], [], [], [b"Transfer-Encoding: chunked"], [b"Content-Encoding: gzip"], [b"X" * 70_000],
                           [b"Location: http://127.0.0.1:9/"], [b"Retry-After: \xc2\xb2"]))  # fmt: skip
    first = rng.choice((b"HTTP/1.1 ",) * 9 + (b"", b"\0"))
    return first + status + b"\r\n" + b"\r\n".join(headers) + b"\r\n\r\n" + body, f"reply {status!r}, {done}", True

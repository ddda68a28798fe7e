"""Where data come from: a world of text, JSONL or Parquet files, or a record of people's answers.

Columns, one row each:

    {"text"}                              pretraining
    {"prompt"}                            prompts
    {"prompt", "response"}                examples to imitate
    {"prompt", "chosen", "rejected"}      a comparison
    {"prompt", "responses", "ranking"}    a ranking: response numbers, best first, ties as lists
    {"prompt", "response", "liked"}       a like or dislike
    {"prompt", "response", "edited", "critique"}    what a person wrote about a response, one of the two or both

More columns are ignored; where several forms would do, one row may be of another form than the next.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from prefrl.envs.text_worlds import DEFAULT_WORLD, WORLDS, TextWorld
from prefrl.errors import UserError, require
from prefrl.files import write_atomically
from prefrl.seams import is_function_name
from prefrl.text.data.examples import Example, Liked, RankedResponses, likes_of, ranks_from_order
from prefrl.text.data.recorded import (
    Remark,
    read_examples_of_people,
    read_likes_of_people,
    read_prompts_of_people,
    read_rankings_of_people,
)

Row = Mapping[str, Any]
_Item = TypeVar("_Item")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSONL or Parquet file.

    Raises:
        UserError: it is not there, not readable, of another kind, or empty.
    """
    if not path.is_file():
        raise UserError(
            f"There is no data file {path}. Give a .jsonl or .parquet file, a record, {DEFAULT_WORLD!r}, or a world "
            "of your own as module:Name."
        )
    if path.suffix == ".parquet":
        try:
            rows = require("pyarrow.parquet", "text").read_table(path).to_pylist()
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is not a readable Parquet file: {error}") from error
    elif path.suffix in (".jsonl", ".json", ".ndjson"):
        rows = []
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read as UTF-8: {error}. Save it as UTF-8.") from None
        for number, line in enumerate(content.splitlines(), 1):
            if line.strip():
                try:
                    rows.append(json.loads(line))
                except json.JSONDecodeError as error:
                    raise UserError(f"{path}, line {number} is not JSON: {error}. Write one object a line.") from None
                if not isinstance(rows[-1], dict):
                    raise UserError(f"{path}, line {number} must be a JSON object. Received {rows[-1]!r}")
    else:
        raise UserError(f"Data must be a .jsonl or .parquet file. Received {path}")
    if not rows:
        raise UserError(f"The data set {path} is empty.")
    return rows


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as JSONL, whole or not at all."""
    write_atomically(path, "".join(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows))


def read_texts(data: str, *, seed: int, count: int) -> list[str]:
    """Return texts to pretrain on."""
    if (world := world_named(data)) is not None:
        return _given(make_world(world, seed).texts(count), world, "texts to pretrain on")
    return _read(data, lambda row: _text(row, "text"), ("text",))


def read_prompts(data: str, *, seed: int, count: int, held_out: bool = False) -> list[str]:
    """Return prompts, each once; those of a world may be held-out ones, a file or a record has none."""
    if (world := world_named(data)) is not None:
        return prompts_of(make_world(world, seed), count, held_out=held_out)
    if is_record(data):
        return read_prompts_of_people(data)
    return list(dict.fromkeys(_read(data, lambda row: _text(row, "prompt"), ("prompt",))))


def read_examples(data: str, *, seed: int, count: int) -> list[Example]:
    """Return examples to imitate; of a comparison or ranking, the best response."""
    if (world := world_named(data)) is not None:
        given = _given(make_world(world, seed).examples(count), world, "examples to imitate")
        return [Example(prompt=prompt, response=response) for prompt, response in given]
    if is_record(data):
        return read_examples_of_people(data)

    def example(row: Row) -> Example:
        if "response" in row:
            return Example(prompt=_text(row, "prompt"), response=_text(row, "response"))
        ranking = _ranking(row)
        return Example(prompt=ranking.prompt, response=ranking.responses[ranking.order()[0]])

    return _read(data, example, ("prompt and response", "prompt, chosen and rejected", "prompt, responses and ranking"))


def read_rankings(data: str) -> list[RankedResponses]:
    """Return comparisons and rankings."""
    if world_named(data) is not None:
        raise UserError(
            f"The world {data} holds no comparisons of its own: have a model answer and someone compare, with prefrl "
            "text compare, and give the file that it writes."
        )
    if is_record(data):
        return read_rankings_of_people(data)
    return _read(data, _ranking, ("prompt, chosen and rejected", "prompt, responses and ranking"))


def read_responses(data: str) -> list[tuple[str, tuple[str, ...]]]:
    """Return prompts with two or more responses to each, ranked or not: what a judge compares."""
    if world_named(data) is not None or is_record(data):
        return [(ranking.prompt, ranking.responses) for ranking in read_rankings(data)]

    def responses(row: Row) -> tuple[str, tuple[str, ...]]:
        found = _responses(row)
        if len(found) < 2:
            raise UserError(f"A judge compares two or more responses. Received {len(found)}")
        return _text(row, "prompt"), found

    return _read(data, responses, ("prompt and responses", "prompt, chosen and rejected"))


def read_likes(data: str) -> list[Liked]:
    """Return likes and dislikes; of comparisons and rankings, the best response of each is liked, the worst is not."""
    if is_record(data) and (likes := read_likes_of_people(data)):
        return likes
    if world_named(data) is not None or is_record(data):
        return likes_of(read_rankings(data))
    rows = read_rows(Path(data))
    if "liked" not in rows[0]:
        return likes_of(read_rankings(data))

    def liked(row: Row) -> Liked:
        if not isinstance(row["liked"], bool):
            raise UserError(f"liked must be true or false. Received {row['liked']!r}")
        return Liked(prompt=_text(row, "prompt"), response=_text(row, "response"), liked=row["liked"])

    return _read(data, liked, ("prompt, response and liked",))


def read_remarks(data: str) -> list[Remark]:
    """Return what people wrote about responses."""

    def remark(row: Row) -> Remark:
        edited, critique = (None if row.get(name) is None else _text(row, name) for name in ("edited", "critique"))
        return Remark(
            prompt=_text(row, "prompt"), response=_text(row, "response"), edited=edited, critique=critique or ""
        )

    return _read(data, remark, ("prompt and response, with edited, critique or both",))


def world_named(data: str) -> str | None:
    """Return the name of a world of text if that is what data name: one of `WORLDS`, or a user's `module:Name`."""
    return data if data in WORLDS or (not is_record(data) and is_function_name(data)) else None


def make_world(name: str, seed: int) -> TextWorld:
    """Return a world by name.

    Raises:
        UserError: there is none of that name, or it lacks what `TextWorld` lists.
    """
    return WORLDS.find(name)(seed)


def prompts_of(world: TextWorld, count: int, *, held_out: bool = False) -> list[str]:
    """Return prompts of a world.

    Raises:
        UserError: it gives none.
    """
    return _given(world.prompts(count, held_out=held_out), type(world).__name__, "prompts")


def _given(items: Sequence[_Item], world: str, what: str) -> list[_Item]:
    if not items:
        raise UserError(f"The world {world} has no {what}. Give a file of them as data.")
    return list(items)


def is_record(data: str) -> bool:
    """Tell whether data names a record of answers: a database file, or the address of one."""
    return data.endswith((".sqlite", ".db")) or data.startswith(("sqlite:", "postgresql"))


def ranking_rows(rankings: Sequence[RankedResponses]) -> list[dict[str, Any]]:
    """Return rankings as rows that `read_rankings` reads."""
    rows = []
    for ranking in rankings:
        order: list[Any] = []
        for place in sorted(set(ranking.ranks)):
            tied = [i for i, rank in enumerate(ranking.ranks) if rank == place]
            order.append(tied[0] if len(tied) == 1 else tied)
        rows.append({"prompt": ranking.prompt, "responses": list(ranking.responses), "ranking": order})
    return rows


def _ranking(row: Row) -> RankedResponses:
    if "responses" in row and ("ranking" in row or "chosen" not in row):
        responses = _responses(row)
        ranks = ranks_from_order(row["ranking"], len(responses))
        return RankedResponses(prompt=_text(row, "prompt"), responses=responses, ranks=ranks)
    pair = (_text(row, "chosen"), _text(row, "rejected"))
    return RankedResponses(prompt=_text(row, "prompt"), responses=pair, ranks=(0, 1))


def _responses(row: Row) -> tuple[str, ...]:
    if "responses" not in row:
        return _text(row, "chosen"), _text(row, "rejected")
    responses = row["responses"]
    if not isinstance(responses, list) or not all(isinstance(r, str) for r in responses):
        raise UserError(f"responses must be a list of texts. Received {responses!r}")
    return tuple(responses)


def _text(row: Row, column: str) -> str:
    value = row[column]
    if not isinstance(value, str):
        raise UserError(f"{column} must be a text. Received {value!r}")
    return value


def _read(data: str, parse: Callable[[Row], _Item], forms: Sequence[str]) -> list[_Item]:
    """Parse all rows; a column that is missing is said with those found and those expected."""
    items = []
    for number, row in enumerate(read_rows(Path(data)), 1):
        try:
            items.append(parse(row))
        except KeyError as missing:
            raise UserError(
                f"{data}, row {number} has no column {missing}. Found: {', '.join(map(str, row)) or 'none'}. Expected: "
                f"{'; or '.join(forms)}."
            ) from None
        except UserError as error:
            raise UserError(f"{data}, row {number}: {error}") from None
    return items

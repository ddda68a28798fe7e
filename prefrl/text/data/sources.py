"""Where data come from: a world of text, files, or a record of people's answers.

The rows of files have one of the forms that `prefrl.text.data.forms` recognises, each row its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from prefrl.envs.text_worlds import WORLDS, TextWorld
from prefrl.errors import UserError
from prefrl.files import write_atomically
from prefrl.runs.folder import is_record
from prefrl.seams import is_function_name
from prefrl.text.data.examples import Example, Liked, RankedResponses, likes_of
from prefrl.text.data.files import read_rows, shortened
from prefrl.text.data.forms import Found, Reading, recognise
from prefrl.text.data.recorded import (
    Remark,
    read_examples_of_people,
    read_likes_of_people,
    read_prompts_of_people,
    read_rankings_of_people,
)
from prefrl.text.data.sides import LeftOut

Row = Mapping[str, Any]
_Item = TypeVar("_Item")


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as JSONL, whole or not at all."""
    write_atomically(path, "".join(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows))


def read_texts(data: str, *, seed: int, count: int, reading: Reading | None = None) -> list[str]:
    """Return texts to pretrain on."""
    if (world := world_named(data)) is not None:
        return _given(make_world(world, seed).texts(count), world, "texts to pretrain on")
    return read_items(data, lambda found: [] if found.text is None else [found.text], "a text", reading)


def read_prompts(
    data: str, *, seed: int, count: int | None, held_out: bool = False, reading: Reading | None = None
) -> list[str]:
    """Return prompts, each once; those of a world may be held-out ones, a file or a record has none.

    Args:
        data: a world, a file or a record.
        seed: of a world.
        count: at most so many; the first ones of a file or a record. None: all of a file or a record.
        held_out: of a world.
        reading: how rows of a file are read, and the account of them.
    """
    if (world := world_named(data)) is not None:
        return prompts_of(make_world(world, seed), 4_000 if count is None else count, held_out=held_out)
    if is_record(data):
        return read_prompts_of_people(data)[:count]

    def prompts(found: Found) -> list[str]:
        prompt = found.prompt if found.asked is None else found.asked
        return [prompt] if prompt is not None else []

    found = list(dict.fromkeys(read_items(data, prompts, "a prompt", reading)))
    if reading is not None and count is not None and len(found) > count:
        reading.noted[f"prompts beyond the first {count:,} (--prompts) are not used"] = len(found) - count
    return found[:count]


def read_examples(data: str, *, seed: int, count: int, reading: Reading | None = None) -> list[Example]:
    """Return examples to imitate; of a comparison or ranking the best response, of a conversation each answer."""
    if (world := world_named(data)) is not None:
        given = _given(make_world(world, seed).examples(count), world, "examples to imitate")
        return [Example(prompt=prompt, response=response) for prompt, response in given]
    if is_record(data):
        return read_examples_of_people(data)

    def examples(found: Found) -> list[Example]:
        if found.liked is False:
            raise LeftOut("the response is not liked, so it is not imitated")
        if found.prompt is None or not found.responses or (len(found.responses) > 1 and found.ranks is None):
            return []
        best = 0 if found.ranks is None else found.ranks.index(0)
        pairs = [*found.more, (found.prompt, found.responses[best])]
        return [Example(prompt=prompt, response=response) for prompt, response in pairs]

    return read_items(data, examples, "a prompt and a response", reading)


def read_rankings(data: str, reading: Reading | None = None) -> list[RankedResponses]:
    """Return comparisons and rankings."""
    if world_named(data) is not None:
        raise UserError(
            f"The world {data} holds no comparisons of its own: have a model answer and someone compare, with prefrl "
            "text compare, and give the file that it writes."
        )
    if is_record(data):
        return read_rankings_of_people(data)
    return read_items(data, _rankings, "a comparison or ranking of responses", reading)


def read_responses(data: str, reading: Reading | None = None) -> list[tuple[str, tuple[str, ...]]]:
    """Return prompts with two or more responses to each, ranked or not: what a judge compares."""
    if world_named(data) is not None or is_record(data):
        return [(ranking.prompt, ranking.responses) for ranking in read_rankings(data)]

    def responses(found: Found) -> list[tuple[str, tuple[str, ...]]]:
        return [(found.prompt or "", found.responses)] if len(found.responses) > 1 else []

    return read_items(data, responses, "two or more responses to a prompt", reading)


def read_likes(data: str, reading: Reading | None = None) -> list[Liked]:
    """Return likes and dislikes; of comparisons and rankings, the best response of each is liked, the worst is not."""
    if is_record(data) and (likes := read_likes_of_people(data)):
        return likes
    if world_named(data) is not None or is_record(data):
        return likes_of(read_rankings(data))

    def liked(found: Found) -> list[Liked]:
        if found.liked is None:
            likes = likes_of(_rankings(found))
            if found.ranks is not None and not likes:
                raise LeftOut("all responses are equally good, so none is liked or disliked")
            return likes
        return [Liked(prompt=found.prompt or "", response=found.responses[0], liked=found.liked)]

    return read_items(data, liked, "likes, or a comparison or ranking of responses", reading)


def _rankings(found: Found) -> list[RankedResponses]:
    if found.ranks is None or found.prompt is None:
        return []
    return [RankedResponses(prompt=found.prompt, responses=found.responses, ranks=found.ranks)]


def read_remarks(data: str) -> list[Remark]:
    """Return what people wrote about responses."""
    remarks = []
    for number, row in enumerate(read_rows(Path(data)), 1):
        missing = [name for name in ("prompt", "response") if name not in row]
        if missing:
            raise UserError(
                f"{data}, row {number} has no column {missing[0]!r}. Found: {', '.join(map(str, row)) or 'none'}. "
                "Expected: prompt and response, with edited, critique or both."
            )
        for name in ("prompt", "response", "edited", "critique"):
            if not isinstance(row.get(name), str) and (name in ("prompt", "response") or row.get(name) is not None):
                raise UserError(f"{data}, row {number}: {name} must be a text. Received {shortened(row[name])}")
        try:
            edited, critique = row.get("edited"), row.get("critique") or ""
            remarks.append(Remark(prompt=row["prompt"], response=row["response"], edited=edited, critique=critique))
        except UserError as error:
            raise UserError(f"{data}, row {number}: {error}") from None
    return remarks


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


def ranking_rows(rankings: Sequence[RankedResponses]) -> list[dict[str, Any]]:
    """Return rankings as rows that `read_rankings` reads."""
    return [
        {"prompt": ranking.prompt, "responses": list(ranking.responses), "ranking": order_of(ranking.ranks)}
        for ranking in rankings
    ]


def order_of(ranks: Sequence[int]) -> list[Any]:
    """Return a ranking as files have it, from ranks: (1, 3, 0, 1) gives [2, [0, 3], 1]."""
    order: list[Any] = []
    for place in sorted(set(ranks)):
        tied = [i for i, rank in enumerate(ranks) if rank == place]
        order.append(tied[0] if len(tied) == 1 else tied)
    return order


def read_items(
    data: str,
    take: Callable[[Found], list[_Item]],
    wanted: str,
    reading: Reading | None = None,
) -> list[_Item]:
    """Return what all rows hold of what is wanted; what is left out or guessed is counted in the account, and said.

    Args:
        data: the file.
        take: gives the items of a row; none where it holds none.
        wanted: what a row should hold, in words.
        reading: how rows are read. Without one nothing is said.
    """
    account = reading or Reading()
    items: list[_Item] = []
    for number, row in enumerate(read_rows(Path(data)), 1):
        account.rows += 1
        try:
            found = recognise(row, account)
            taken = take(found)
        except LeftOut as why:
            account.left_out[str(why)] += 1
            continue
        except UserError as error:
            raise UserError(f"{data}, row {number}: {error}") from None
        if not taken:
            raise UserError(
                f"{data}, row {number} has the form {found.form!r}, which holds no {wanted.removeprefix('a ')}. "
                f"{_verb(found)}"
            )
        items += taken
    if not items:
        raise UserError(f"{data} has no row to learn from. " + " ".join(account.lines()))
    return items


def _verb(found: Found) -> str:
    """Say what a row is good for."""
    if found.liked is not None:
        return "Likes are learned from by: prefrl text kto, or sft."
    if found.ranks is not None:
        return "Comparisons are learned from by: prefrl text reward, dpo, ipo, simpo or kto."
    if len(found.responses) > 1:
        return "Have the responses compared first: prefrl text judge."
    if found.responses:
        return "Examples are learned from by: prefrl text sft."
    return (
        "Prompts are answered by: prefrl text compare, judge, ask or ppo."
        if found.prompt is not None
        else ("Texts are learned from by: prefrl text pretrain.")
    )

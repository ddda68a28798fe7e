"""People's answers about pictures: questions put into a record, and the rankings that its answers are.

In the record a picture is a segment of one step of the one-step game: the observation is the prompt, the action the
picture. So the window, the browser and `prefrl quality` take it as any other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefrl.errors import UserError
from prefrl.feedback import Answer, Query, settled
from prefrl.image.reward_model import Ranked
from prefrl.runs.folder import record_place
from prefrl.segments import Segment
from prefrl.store import PreferenceStore
from prefrl.store.clips import clip_of

PROMPT_BYTES = 1000
INSTRUCTION = "Which picture shows it better: {}"
SHOWN_PIXELS = 256
"""Smaller pictures are enlarged for people to at least so many pixels a side."""


def ask_people(
    record: str, prompts: Sequence[str], pictures: Sequence[NDArray[np.uint8]], *, instruction: str = INSTRUCTION,
    overlap: int = 1,
) -> int:  # fmt: skip
    """Put pictures into a record, created if it is missing: two are to be compared, three to nine ranked.

    Args:
        record: file or address of the record.
        prompts: P prompts.
        pictures: of each prompt `(K, H, W, 3)`, 2 to 9; equal ones are shown once.
        instruction: what people are told; {} stands for the prompt.
        overlap: people who are asked each question.

    Returns:
        How many questions are new.

    Raises:
        UserError: no prompt has two different pictures, or the record cannot be written.
    """
    queries, clips = [], dict[str, NDArray[np.uint8]]()
    for prompt, some in zip(prompts, pictures, strict=True):
        segments = list({segment.id: segment for segment in (as_segment(prompt, one) for one in some)}.values())[:9]
        if len(segments) < 2:
            continue
        kind = "comparison" if len(segments) == 2 else "ranking"
        said = instruction.replace("{}", prompt)
        queries.append(Query(segments=tuple(segments), kind=kind, instruction=said, overlap=overlap))
        clips |= {segment.id: segment.actions[0] for segment in segments}
    if not queries:
        raise UserError("No prompt has two different pictures; there is nothing to compare. Draw more.")
    with PreferenceStore(record_place(record)) as store:
        before = store.num_open()
        session = store.next_session()
        store.add_queries([replace(query, session=session) for query in queries])
        for name, picture in clips.items():
            store.add_clip(name, clip_of(iter([_enlarged(picture)]), 1.0))
        return store.num_open() - before


def read_answers(record: str, shape: tuple[int, int, int]) -> list[Ranked]:
    """Return the comparisons and rankings of pictures in a record, without those taken back, repeats and "can't tell".

    Args:
        record: file or address of the record.
        shape: rows, columns and 3 of the pictures.

    Raises:
        UserError: it holds none, or pictures of another shape.
    """
    found = [row for query, answer in _answered(record) for row in _ranked(query, answer, shape)]
    if not found:
        raise UserError(f"The record {record} holds no comparison or ranking of pictures yet. Answer some first.")
    return found


def digest_of_answers(record: str) -> str:
    """Return a digest of what stands in a record about pictures: it changes where a run would learn otherwise."""
    said = [[query.id, answer.value] for query, answer in _answered(record)]
    return hashlib.sha256(json.dumps(said, default=str).encode()).hexdigest()


def _answered(record: str) -> list[tuple[Query, Answer]]:
    """Return queries of pictures with the answers that stand."""
    place = record_place(record)
    if isinstance(place, Path) and not place.is_file():
        raise UserError(f"There is no record {record}. Make one with: prefrl image ask --record {record}")
    with PreferenceStore(place) as store:
        answers = settled([answer for _, answer in store.answers(standing=True, repeats=False)])
        pairs = [(store.query(answer.query_id), answer) for answer in answers if isinstance(answer, Answer)]
    return [(query, answer) for query, answer in pairs if query.segments]


def as_segment(prompt: str, picture: NDArray[np.uint8]) -> Segment:
    """Return a picture for a prompt as a step of the one-step game.

    Raises:
        UserError: the prompt is longer than 1,000 bytes.
    """
    told = prompt.encode()
    if len(told) > PROMPT_BYTES:
        raise UserError(f"A prompt may have {PROMPT_BYTES:,} bytes for people to answer. Received {len(told):,}")
    row = np.zeros(PROMPT_BYTES, np.uint8)
    row[: len(told)] = np.frombuffer(told, np.uint8)
    return Segment(
        observations=np.stack([row, row]), actions=np.ascontiguousarray(picture)[None], true_rewards=np.full(1, np.nan),
        terminated=True,
    )  # fmt: skip


def _ranked(query: Query, answer: Answer, shape: tuple[int, int, int]) -> list[Ranked]:
    pictures: list[NDArray[Any]] = [segment.actions[0] for segment in query.segments]
    if any(picture.shape != shape or picture.dtype != np.uint8 for picture in pictures):
        raise UserError(
            f"The query {query.id} shows something else than pictures of shape {shape}: {pictures[0].shape}. The model "
            "must be one that draws pictures of the same size."
        )
    prompt = bytes(np.asarray(query.segments[0].observations)[0]).rstrip(b"\0").decode(errors="replace")
    if answer.order is not None:
        return [Ranked(prompt, np.stack(pictures), tuple(answer.order))]
    rows = []
    for i, j, preference in answer.pairs(len(pictures)):
        ranks = {1.0: (1, 2), 0.0: (2, 1), 0.5: (1, 1)}[preference]
        rows.append(Ranked(prompt, np.stack([pictures[i], pictures[j]]), ranks))
    return rows


def _enlarged(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    times = max(1, -(-SHOWN_PIXELS // max(picture.shape[:2])))
    return picture.repeat(times, 0).repeat(times, 1)

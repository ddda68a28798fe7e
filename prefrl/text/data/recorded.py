"""People's feedback on responses: questions put into a record, and what its answers teach.

Comparisons and rankings become rankings. A response that a person rewrote becomes the comparison "edited before
original" and an example to imitate (InstructGPT's demonstrations by another way). Ratings become likes and dislikes,
those at the middle of the scale neither. Written critiques stay in the record, as the comment of the answer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prefrl.errors import UserError
from prefrl.feedback import SMALLEST_SCALE, Answer, Edit, Entry, Query, Rating, Response, settled
from prefrl.runs.folder import record_place
from prefrl.store import Addition, PreferenceStore
from prefrl.text.data.examples import Example, Liked, RankedResponses


@dataclass(frozen=True, kw_only=True)
class Remark:
    """What a person wrote about a response: the text as it should read, a critique, or both.

    Raises:
        UserError: it says nothing.
    """

    prompt: str
    response: str
    edited: str | None = None
    critique: str = ""

    def __post_init__(self) -> None:
        if self.edited is None and not self.critique:
            raise UserError("A remark needs `edited`, the response as it should read, or `critique`. Received neither.")
        if self.edited == self.response:
            raise UserError(f"The edited text is the response itself: {self.response[:80]!r}. Leave it out.")


def ask_people(
    record: str,
    prompts: Sequence[str],
    responses: Sequence[Sequence[str]],
    *,
    scale: int | None = None,
    instruction: str = "",
    overlap: int = 1,
    num_steps: int = 0,
) -> int:
    """Put responses into a record, created if it is missing: two are to be compared, three to nine ranked.

    Args:
        record: file or address of the record.
        prompts: P prompts.
        responses: to each prompt; those that read the same are shown once.
        scale: each response is to be rated from 1 to this (2 to 9) instead.
        instruction: what people are told to look for.
        overlap: people who are asked each question.
        num_steps: that the policy had been trained for when it wrote the responses.

    Returns:
        How many questions are new.

    Raises:
        UserError: no prompt has two different responses (to be rated: one), or the record cannot be written.
    """
    queries = []
    for prompt, row in zip(prompts, responses, strict=True):
        items = tuple(Response(prompt=prompt, text=text) for text in list(dict.fromkeys(row))[:9])
        if scale is not None:
            queries += [Query(responses=(item,), kind="rating", scale=scale) for item in items]
        elif len(items) > 1:
            queries.append(Query(responses=items, kind="comparison" if len(items) == 2 else "ranking"))
    if not queries:
        what = "two different responses; there is nothing to compare" if scale is None else "a response to rate"
        raise UserError(f"No prompt has {what}. Draw more.")
    with _opened(record) as store:
        before = store.num_open()
        session = before + store.num_answers()
        said: dict[str, Any] = {"session": session, "instruction": instruction, "overlap": overlap}
        store.add_queries([replace(query, num_env_steps=num_steps, **said) for query in queries])
        return store.num_open() - before


def record_remarks(record: str, remarks: Sequence[Remark], annotator: str) -> None:
    """Put edits and critiques into a record, created if it is missing.

    Each belongs to a question for a rating, which is answered without one, so that nobody is asked it.

    Args:
        record: file or address of the record.
        remarks: what was written.
        annotator: name of who wrote it.

    Raises:
        UserError: the record cannot be written.
    """
    queries, answers = [], list[Entry]()
    with _opened(record) as store:
        session = store.num_open() + store.num_answers()
        for remark in remarks:
            item = Response(prompt=remark.prompt, text=remark.response)
            query = Query(responses=(item,), kind="rating", scale=SMALLEST_SCALE, session=session)
            queries.append(query)
            said: dict[str, Any] = {"query_id": query.id, "annotator": annotator, "comment": remark.critique}
            answers.append(Rating(rating=None, claim=f"{query.id} rating", **said))
            if remark.edited is not None:
                answers.append(Edit(item=0, text=remark.edited, claim=f"{query.id} edit", **said))

        def add(addition: Addition) -> None:  # at once, so that nobody is asked in between
            addition.add_annotator(annotator, "person")
            addition.add_queries(queries)
            addition.add_answers(answers)

        store.add_together(add)


def read_rankings_of_people(record: str) -> list[RankedResponses]:
    """Return the comparisons, rankings and edits of a record, without those taken back, repeats and "can't tell".

    Raises:
        UserError: it holds none.
    """
    rankings = []
    for query, answer in _answered(record):
        texts = tuple(response.text for response in query.responses)
        prompt = query.responses[0].prompt
        if isinstance(answer, Edit):
            pair = (answer.text, texts[answer.item])
            rankings.append(RankedResponses(prompt=prompt, responses=pair, ranks=(0, 1)))
        elif answer.order is not None:
            ranks = tuple(rank - 1 for rank in answer.order)
            rankings.append(RankedResponses(prompt=prompt, responses=texts, ranks=ranks))
        else:
            for i, j, preference in answer.pairs(len(texts)):
                ranks = {1.0: (0, 1), 0.0: (1, 0), 0.5: (0, 0)}[preference]
                rankings.append(RankedResponses(prompt=prompt, responses=(texts[i], texts[j]), ranks=ranks))
    if not rankings:
        raise UserError(
            f"The record {record} holds no comparison, ranking or edit of responses yet. Answer some first."
        )
    return rankings


def read_examples_of_people(record: str) -> list[Example]:
    """Return the responses that people wrote by editing.

    Raises:
        UserError: it holds none.
    """
    examples = [
        Example(prompt=query.responses[answer.item].prompt, response=answer.text)
        for query, answer in _answered(record)
        if isinstance(answer, Edit)
    ]
    if not examples:
        raise UserError(f"Nobody edited a response in the record {record}; there is no example to imitate.")
    return examples


def read_prompts_of_people(record: str) -> list[str]:
    """Return the prompts to which people said something, each once.

    Raises:
        UserError: there are none.
    """
    prompts = list(dict.fromkeys(query.responses[0].prompt for query, _ in _answered(record)))
    if not prompts:
        raise UserError(f"The record {record} holds no answer about responses yet. Answer some first.")
    return prompts


def read_likes_of_people(record: str) -> list[Liked]:
    """Return likes and dislikes from ratings: above and below the middle of their scale; empty without ratings."""
    likes = []
    for query, answer in _answered(record):
        share = None if isinstance(answer, Edit) or query.scale is None else answer.share_of_scale(query.scale)
        if share not in (None, 0.5):
            item = query.responses[0]
            likes.append(Liked(prompt=item.prompt, response=item.text, liked=share > 0.5))
    return likes


def digest_of_answers(record: str) -> str:
    """Return a digest of what stands in a record about responses: it changes where a run would learn otherwise."""
    digest = hashlib.sha256()
    for query, answer in _answered(record):
        texts = [[response.prompt, response.text] for response in query.responses]
        said = [texts, query.kind, query.scale, vars(answer)]
        digest.update(json.dumps(said, default=str, sort_keys=True).encode())
    return digest.hexdigest()


def _answered(record: str) -> list[tuple[Query, Answer | Edit]]:
    """Return queries of responses with the answers that stand."""
    place = record_place(record)
    if isinstance(place, Path) and not place.is_file():
        raise UserError(f"There is no record {record}. Make one with: prefrl text ask --record {record}")
    with _opened(record) as store:
        answers = settled([answer for _, answer in store.answers(standing=True, repeats=False)])
        found = {name: store.query(name) for name in dict.fromkeys(answer.query_id for answer in answers)}
    return [(found[a.query_id], a) for a in answers if isinstance(a, Answer | Edit) and found[a.query_id].responses]


@contextmanager
def _opened(record: str) -> Iterator[PreferenceStore]:
    with PreferenceStore(record_place(record)) as store:
        yield store

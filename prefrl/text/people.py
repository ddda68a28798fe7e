"""People's feedback on responses: questions put into a record, and what its answers teach.

Comparisons and rankings become rankings. A response that a person rewrote becomes the comparison "edited before
original" and an example to imitate (InstructGPT's demonstrations by another way). Ratings become likes and dislikes,
those at the middle of the scale neither. Written critiques stay in the record, as the comment of the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from prefrl.errors import UserError
from prefrl.feedback import Answer, Comparison, Edit, Query, Ranking, Rating, Response
from prefrl.store import PreferenceStore
from prefrl.text.data import Example, Liked, RankedResponses


def ask_people(record: str, prompts: Sequence[str], responses: Sequence[Sequence[str]]) -> int:
    """Put responses into a record, created if it is missing: two are to be compared, three to nine ranked.

    Args:
        record: file or address of the record.
        prompts: P prompts.
        responses: to each prompt; those that read the same are shown once.

    Returns:
        How many questions are new.

    Raises:
        UserError: no prompt has two different responses, or the record cannot be written.
    """
    queries = []
    with _opened(record) as store:
        session = store.num_open() + store.num_answers()
        for prompt, row in zip(prompts, responses, strict=True):
            texts = list(dict.fromkeys(row))[:9]
            if len(texts) > 1:
                items = tuple(Response(prompt=prompt, text=text) for text in texts)
                kind = "comparison" if len(texts) == 2 else "ranking"
                queries.append(Query(responses=items, kind=kind, session=session))
        if not queries:
            raise UserError("No prompt has two different responses; there is nothing to compare. Draw more.")
        before = store.num_open()
        store.add_queries(queries)
        return store.num_open() - before


def read_rankings_of_people(record: str) -> list[RankedResponses]:
    """Return the comparisons, rankings and edits of a record, without those taken back, repeats and "can't tell".

    Raises:
        UserError: it holds none.
    """
    rankings = []
    for query, answer in _answered(record):
        texts = tuple(response.text for response in query.responses)
        prompt = query.responses[0].prompt
        if isinstance(answer, Comparison) and answer.preference is not None:
            ranks = {1.0: (0, 1), 0.0: (1, 0), 0.5: (0, 0)}[answer.preference]
            rankings.append(RankedResponses(prompt=prompt, responses=texts, ranks=ranks))
        elif isinstance(answer, Ranking) and answer.ranks is not None:
            ranks_of = tuple(rank - 1 for rank in answer.ranks)
            rankings.append(RankedResponses(prompt=prompt, responses=texts, ranks=ranks_of))
        elif isinstance(answer, Edit):
            pair = (answer.text, texts[answer.item])
            rankings.append(RankedResponses(prompt=prompt, responses=pair, ranks=(0, 1)))
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


def read_likes_of_people(record: str) -> list[Liked]:
    """Return likes and dislikes from ratings: above and below the middle of their scale; empty without ratings."""
    likes = []
    for query, answer in _answered(record):
        if isinstance(answer, Rating) and answer.rating is not None and query.scale is not None:
            middle = (query.scale + 1) / 2
            if answer.rating != middle:
                item = query.responses[0]
                likes.append(Liked(prompt=item.prompt, response=item.text, liked=answer.rating > middle))
    return likes


def _answered(record: str) -> list[tuple[Query, Answer]]:
    """Return queries of responses with the answers that stand."""
    if "://" not in record and not Path(record.removeprefix("sqlite:")).is_file():
        raise UserError(f"There is no record {record}. Make one with: prefrl text ask --record {record}")
    with _opened(record) as store:
        answers = [answer for _, answer in store.answers(standing=True, repeats=False)]
        found = {name: store.query(name) for name in dict.fromkeys(answer.query_id for answer in answers)}
    return [(found[answer.query_id], answer) for answer in answers if found[answer.query_id].responses]


@contextmanager
def _opened(record: str) -> Iterator[PreferenceStore]:
    with PreferenceStore(record if "://" in record else Path(record.removeprefix("sqlite:"))) as store:
        yield store

"""Examples, rankings and likes as strings, and how they become token ids."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal, NamedTuple

from prefrl.envs.text_tokens import TextTokenizer
from prefrl.errors import UserError
from prefrl.text.model.tokens import Templated, response_ids, text_ids

TooLong = Literal["drop", "cut", "refuse"]


@dataclass(frozen=True, kw_only=True)
class Example:
    """A prompt with a response to imitate."""

    prompt: str
    response: str


@dataclass(frozen=True, kw_only=True)
class RankedResponses:
    """Two or more responses to one prompt and which is better.

    Raises:
        UserError: fewer than two responses, or not one rank for each.
    """

    prompt: str
    responses: tuple[str, ...]
    ranks: tuple[int, ...]
    """One for each response, 0 is best; equal ranks are ties."""

    def __post_init__(self) -> None:
        if len(self.responses) < 2:
            raise UserError(f"A ranking needs at least 2 responses. Received {len(self.responses)} to {self.prompt!r}")
        if len(self.ranks) != len(self.responses):
            raise UserError(
                f"A ranking needs one rank for each response. Received {len(self.ranks)} ranks for "
                f"{len(self.responses)} responses to {self.prompt!r}"
            )

    def pairs(self) -> list[tuple[int, int]]:
        """Return the pairs (better, worse) of response numbers; ties give none."""
        return [
            (i, j) if self.ranks[i] < self.ranks[j] else (j, i)
            for i, j in combinations(range(len(self.ranks)), 2)
            if self.ranks[i] != self.ranks[j]
        ]

    def order(self) -> list[int]:
        """Return the response numbers, best first; ties in the order given."""
        return sorted(range(len(self.ranks)), key=lambda i: self.ranks[i])


@dataclass(frozen=True, kw_only=True)
class Liked:
    """A response that someone liked or did not."""

    prompt: str
    response: str
    liked: bool


def texts_of(item: RankedResponses | Liked) -> tuple[str, ...]:
    """Return the responses that are ranked, or the one that is liked or not."""
    return (item.response,) if isinstance(item, Liked) else item.responses


def check_no_ties(rankings: Sequence[RankedResponses]) -> None:
    """Check that Plackett-Luce, which knows no ties, can be fitted.

    Raises:
        UserError: some rankings have ties.
    """
    tied = [number for number, ranking in enumerate(rankings, 1) if len(set(ranking.ranks)) < len(ranking.ranks)]
    if tied:
        raise UserError(
            f"Plackett-Luce knows no ties, and {len(tied):,} of {len(rankings):,} rankings have some; the first is "
            f"number {tied[0]}, of ranks {rankings[tied[0] - 1].ranks}. Learn from pairs: leave --training.rankings or "
            "--training.plackett-luce out."
        )


def ranks_from_order(order: Sequence[int | Sequence[int]], num_responses: int) -> tuple[int, ...]:
    """Return ranks from a ranking: response numbers, best first, ties as lists: [2, [0, 3], 1] gives (1, 3, 0, 1).

    Raises:
        UserError: it is no list, or a response is missing, named twice, or there is none of that number.
    """
    if not isinstance(order, list | tuple) or not all(isinstance(item, int | list | tuple) for item in order):
        raise UserError(
            f"A ranking is a list of response numbers, best first, ties as lists: [2, [0, 3], 1]. Received {order!r}"
        )
    ranks: dict[int, int] = {}
    place = 0
    for item in order:
        tied = [item] if isinstance(item, int) else list(item)
        for number in tied:
            if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < num_responses:
                raise UserError(
                    f"A ranking names responses by number, 0 to {num_responses - 1}, best first. Received {number!r}"
                )
            if number in ranks:
                raise UserError(f"The ranking {list(order)} names response {number} twice.")
            ranks[number] = place
        place += len(tied)
    missing = [number for number in range(num_responses) if number not in ranks]
    if missing:
        raise UserError(
            f"The ranking {list(order)} leaves out response {', '.join(map(str, missing))} of {num_responses}. "
            "Name every response; those that are equally good go into one list, as in [2, [0, 3], 1]."
        )
    return tuple(ranks[number] for number in range(num_responses))


def likes_of(rankings: Iterable[RankedResponses]) -> list[Liked]:
    """Return likes and dislikes from rankings: the best of each prompt is liked, the worst is not."""
    likes = []
    for ranking in rankings:
        order = ranking.order()
        if ranking.ranks[order[0]] < ranking.ranks[order[-1]]:
            likes.append(Liked(prompt=ranking.prompt, response=ranking.responses[order[0]], liked=True))
            likes.append(Liked(prompt=ranking.prompt, response=ranking.responses[order[-1]], liked=False))
    return likes


class Row(NamedTuple):
    """A prompt with its responses as token ids."""

    prompt: list[int]
    responses: list[list[int]]


@dataclass(kw_only=True)
class Fitted:
    """Rows of data as ids within the limits of a model, and the account of those that were not."""

    max_data_tokens: int
    """Of a response, its end included."""
    context: int
    """Of a row."""
    rows: list[Row | None] = field(default_factory=list)
    """None for those that are left out."""
    cut: dict[int, Row] = field(default_factory=dict)
    """Those that were cut as they had been, by their numbers from 0."""
    num_empty: int = 0
    """Rows whose prompt has no token."""
    num_long: int = 0
    longest_row: int = 0
    """Tokens of the longest of these."""
    longest_response: int = 0

    def words(self) -> str:
        """Return how many rows are too long or have no prompt."""
        counts = {"a prompt without a token": self.num_empty, "longer than the limit": self.num_long}
        said = ", ".join(f"{count:,} of {len(self.rows):,} rows: {why}" for why, count in counts.items() if count)
        if self.num_long:
            said += (
                f" (at most {self.max_data_tokens:,} tokens of a response and {self.context:,} in all; the longest "
                f"response has {self.longest_response:,}, the longest row {self.longest_row:,})"
            )
        return said

    def mend(self, ways: str) -> str:
        """Return what helps against rows that cannot be taken."""
        if not self.num_long:
            return "Give every row a prompt."
        limit = "Raise --max-tokens, take" if self.max_data_tokens < self.context else "Take"
        return f"{limit} a model with a longer context, or give --too-long {ways}."


class Encoder:
    """Turns strings into token ids within the context of a model.

    Args:
        tokens: the tokenizer.
        context: tokens the model can look at.
        max_response_tokens: of a response that is drawn, its end included.
        max_data_tokens: of a response in data, its end included; None: `max_response_tokens`.
        too_long: what becomes of a row of data that is longer: it is left out, cut, or refuses all. A row fits if each
            of its responses is within the limit and, behind its prompt, within the context.
    """

    def __init__(
        self,
        tokens: TextTokenizer,
        context: int,
        max_response_tokens: int,
        *,
        max_data_tokens: int | None = None,
        too_long: TooLong = "refuse",
    ) -> None:
        if max_response_tokens >= context:
            raise UserError(
                f"Responses of {max_response_tokens} tokens leave no room for a prompt in a context of {context}. "
                "Lower the response limit."
            )
        self.tokens, self.max_response_tokens = tokens, max_response_tokens
        self.max_prompt_tokens = context - max_response_tokens
        self.context, self.too_long = context, too_long
        self.max_data_tokens = max_response_tokens if max_data_tokens is None else max_data_tokens
        self._prompts: dict[tuple[bool, str], list[int]] = {}

    def prompt(self, text: str) -> list[int]:
        """Return the ids of a prompt.

        Raises:
            UserError: it is empty or too long.
        """
        ids = self.prompt_ids(text)
        if not ids:
            raise UserError(f"A prompt must have at least one token. Received {text!r}")
        if len(ids) > self.max_prompt_tokens:
            raise UserError(
                f"A prompt has {len(ids)} tokens; the model's context leaves room for {self.max_prompt_tokens} "
                "beside the response. Shorten it, lower the response limit, or take a model with a longer context. "
                f"It begins: {text[:80]!r}"
            )
        return ids

    def prompt_ids(self, text: str) -> list[int]:
        """Return the ids of a prompt, however many."""
        key = isinstance(text, Templated), text
        if key not in self._prompts:
            self._prompts[key] = self.tokens.encode_prompt(text)
        return self._prompts[key]

    def leaves_room(self, prompt: str) -> bool:
        """Tell whether a response of the limit fits behind a prompt."""
        return 0 < len(self.prompt_ids(prompt)) <= self.max_prompt_tokens

    def rows(self, texts: Sequence[tuple[str, Sequence[str]]]) -> list[Row | None]:
        """Return prompts with their responses as ids, None for those that are left out; how many is said.

        Raises:
            UserError: some are too long and are to be refused, or none is left.
        """
        fitted = self.fit(texts)
        if fitted.num_long or fitted.num_empty:
            said = fitted.words()
            if self.too_long == "refuse":
                raise UserError(f"Some rows cannot be learned from: {said}. {fitted.mend('drop or cut')}")
            if not any(fitted.rows):
                raise UserError(f"No row is left to learn from: {said}. {fitted.mend('cut')}")
            warnings.warn(f"{'Cut' if fitted.cut else 'Left out'}: {said}.", stacklevel=2)
        return fitted.rows

    def fit(self, texts: Sequence[tuple[str, Sequence[str]]]) -> Fitted:
        """Return prompts with their responses as ids, and the account of those that are too long or have no token.

        A row that is cut keeps the end of its prompt, at most half of the context where there is not room for all, and
        the beginning of its responses, which then have no end.
        """
        fitted = Fitted(max_data_tokens=self.max_data_tokens, context=self.context)
        for prompt, responses in texts:
            row = Row(self.prompt_ids(prompt), [response_ids(self.tokens, prompt, text) for text in responses])
            size = max(map(len, row.responses))
            if not row.prompt:
                fitted.num_empty += 1
                fitted.rows.append(None)
            elif size > self.max_data_tokens or len(row.prompt) + size > self.context:
                fitted.num_long += 1
                fitted.longest_row = max(fitted.longest_row, len(row.prompt) + size)
                fitted.longest_response = max(fitted.longest_response, size)
                if self.too_long == "cut":
                    fitted.cut[len(fitted.rows)] = row
                fitted.rows.append(self._cut(row) if self.too_long == "cut" else None)
            else:
                fitted.rows.append(row)
        return fitted

    def _cut(self, row: Row) -> Row:
        prompt = row.prompt[-max(self.context // 2, self.context - max(map(len, row.responses))) :]
        limit = min(self.max_data_tokens, self.context - len(prompt))
        return Row(prompt, [response[:limit] for response in row.responses])

    def fits(self, prompt: str, text: str) -> bool:
        """Tell whether a response is within the limit; one that a model drew to the limit may not be, with its end."""
        return len(response_ids(self.tokens, prompt, text)) <= self.max_response_tokens

    def response(self, prompt: str, text: str) -> list[int]:
        """Return the ids of a response behind its prompt, with its end.

        Raises:
            UserError: it is too long.
        """
        ids = response_ids(self.tokens, prompt, text)
        if len(ids) > self.max_response_tokens:
            raise UserError(
                f"A response has {len(ids)} tokens with its end, more than the limit of {self.max_response_tokens}. "
                f"Raise the limit (--max-tokens) or shorten it. It begins: {text[:80]!r}"
            )
        return ids


def language_model_blocks(tokens: TextTokenizer, texts: Sequence[str], block_tokens: int) -> list[list[int]]:
    """Return texts joined by end tokens and cut into blocks of equal length, the rest dropped.

    Raises:
        UserError: they do not fill one block, or a block is to have no token.
    """
    if block_tokens < 1:
        raise UserError(f"block_tokens must be at least 1. Received {block_tokens}")
    joined: list[int] = []
    for text in texts:
        joined += [*text_ids(tokens, text), tokens.end_id]
    blocks = [joined[i : i + block_tokens] for i in range(0, len(joined) - block_tokens + 1, block_tokens)]
    if not blocks:
        raise UserError(
            f"The texts have {len(joined)} tokens in all, fewer than one block of {block_tokens}. Give more text."
        )
    return blocks

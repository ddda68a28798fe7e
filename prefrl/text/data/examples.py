"""Examples, rankings and likes as strings, and how they become token ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from prefrl.envs.text_tokens import TextTokenizer
from prefrl.errors import UserError
from prefrl.text.model.tokens import response_ids, text_ids


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


class Encoder:
    """Turns strings into token ids within the context of a model.

    Args:
        tokens: the tokenizer.
        context: tokens the model can look at.
        max_response_tokens: of a response, its end included; longer ones are refused.
    """

    def __init__(self, tokens: TextTokenizer, context: int, max_response_tokens: int) -> None:
        if max_response_tokens >= context:
            raise UserError(
                f"Responses of {max_response_tokens} tokens leave no room for a prompt in a context of {context}. "
                "Lower the response limit."
            )
        self.tokens, self.max_response_tokens = tokens, max_response_tokens
        self.max_prompt_tokens = context - max_response_tokens
        self._prompts: dict[str, list[int]] = {}

    def prompt(self, text: str) -> list[int]:
        """Return the ids of a prompt.

        Raises:
            UserError: it is empty or too long.
        """
        if text not in self._prompts:
            ids = self.tokens.encode_prompt(text)
            if not ids:
                raise UserError(f"A prompt must have at least one token. Received {text!r}")
            if len(ids) > self.max_prompt_tokens:
                raise UserError(
                    f"A prompt has {len(ids)} tokens; the model's context leaves room for {self.max_prompt_tokens} "
                    "beside the response. Shorten it, lower the response limit, or take a model with a longer context. "
                    f"It begins: {text[:80]!r}"
                )
            self._prompts[text] = ids
        return self._prompts[text]

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

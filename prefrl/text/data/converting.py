"""Data sets of any form that is recognised as rows of our own, before any chat template.

Texts stay texts and conversations message lists, so a model that learns from what was written learns what it would have
learned from the original, whatever its template.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from prefrl.text.data.chat import Message
from prefrl.text.data.forms import Found, Reading
from prefrl.text.data.sources import order_of, read_items


class _Messages(str):
    """Messages as JSON, in the place of the text that a chat template would make of them."""

    __slots__ = ()


class _MessageChat:
    """Leaves conversations as they are."""

    def prompt(self, messages: Sequence[Message]) -> str:
        """Return the messages as JSON."""
        return _Messages(json.dumps(list(messages)))

    def split(self, messages: Sequence[Message], reply: Sequence[Message]) -> tuple[str, str]:
        """Return both as JSON."""
        return self.prompt(messages), self.prompt(reply)


def convert(data: str, reading: Reading) -> list[dict[str, Any]]:
    """Return the rows of a file in the forms that `docs/text.md` lists first.

    Args:
        data: the file.
        reading: what columns mean, and the account of what was found; its chat is not used.

    Raises:
        UserError: it cannot be read, or a row has no form that is known.
    """
    reading.chat = _MessageChat()
    return read_items(data, lambda found: [_row(found)], "anything to learn from", reading)


def _row(found: Found) -> dict[str, Any]:
    if found.text is not None:
        return {"text": found.text}
    prompt = _given(found.prompt or "")
    responses = [_given(response) for response in found.responses]
    said = {} if found.liked is None else {"liked": found.liked}
    if found.more:  # each answer in a conversation is an example
        return {"messages": [*prompt, *responses[0]], **said}
    if not responses:
        return {"prompt": prompt}
    if len(responses) == 1:
        return {"prompt": prompt, "response": responses[0], **said}
    if found.ranks is None:
        return {"prompt": prompt, "responses": responses}
    if len(responses) == 2 and found.ranks[0] != found.ranks[1]:
        best = found.ranks.index(0)
        return {"prompt": prompt, "chosen": responses[best], "rejected": responses[1 - best]}
    return {"prompt": prompt, "responses": responses, "ranking": order_of(found.ranks)}


def _given(text: str) -> Any:
    """Return messages, or the text that it is."""
    return json.loads(text) if isinstance(text, _Messages) else text

"""One row's values as texts, numbers and verdicts: a prompt and what was said to it, conversations through a chat."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from prefrl.errors import UserError
from prefrl.text.data.chat import Chat, Message, is_messages, read_messages
from prefrl.text.data.files import shortened

Row = Mapping[str, Any]
Turns = tuple[Message, ...]
NO_SCORE = ("", "n/a", "na", "none", "null", "-")
"""What data sets write where there is no score."""


class LeftOut(Exception):
    """A row that teaches nothing; the message says of what kind it is."""


class Sides(NamedTuple):
    """What was asked and what was said to it, as texts."""

    prompt: str
    responses: tuple[str, ...]
    asked: str | None = None


class Side:
    """The prompt of a row, as a text or as messages, and replies to it."""

    def __init__(self, cols: Row, chat: Chat, name: str | None) -> None:
        self.name, self.chat = name, chat
        for unread in ("tools", "images", "image", "chat_template_kwargs"):
            if cols.get(unread):
                raise UserError(
                    f"the column {unread!r} would be ignored, since only text is read. Leave it out of the file."
                )
        system = cols.get("system", cols.get("system_prompt"))
        value = None if name is None else cols[name]
        self.text: str | None = None
        self.turns: Turns | None = None
        if is_messages(value):
            self.turns = tuple(read_messages(value, str(name)))
        elif name is not None:
            text = text_of(value, name)
            more = next((cols[n] for n in ("input", "context") if n != name and isinstance(cols.get(n), str)), "")
            if name == "instruction" and more.strip():
                text = f"{text}\n\n{more}"
            if name == "prompt" and not system:
                self.text = text
            else:
                self.turns = ({"role": "user", "content": text},)
        if system and self.turns is not None and self.turns[0]["role"] != "system":
            self.turns = ({"role": "system", "content": text_of(system, "system")}, *self.turns)

    def prompt_alone(self) -> str:
        """Return the prompt as a model is asked it."""
        if self.turns is None:
            return str(self.text)
        turns = self.turns[:-1] if self.turns[-1]["role"] == "assistant" else self.turns
        return self.chat.prompt(turns)

    def reply(self, values: Sequence[tuple[str, Any]]) -> Sides:
        """Return the prompt and the replies as texts; message lists may repeat the prompt."""
        if self.turns is None and not any(is_messages(value) for _, value in values):
            if self.text is None:
                raise UserError(f"there is no prompt beside {', '.join(name for name, _ in values)}.")
            return Sides(self.text, tuple(text_of(value, name) for name, value in values))
        before: Turns = self.turns or ()
        talks = [
            tuple(read_messages(value, name))
            if is_messages(value)
            else ({"role": "assistant", "content": text_of(value, name)},)
            for name, value in values
        ]
        if all(talk[: len(before)] == before for talk in talks):
            talks = [talk[len(before) :] for talk in talks]
        shared = _shared(talks)
        if not before and not shared and self.text is not None:
            before = ({"role": "user", "content": self.text},)
        before, talks = (*before, *talks[0][:shared]), [talk[shared:] for talk in talks]
        if not before:
            raise UserError(
                f"the conversation in {values[0][0]} has no turn before the answer, and there is no prompt."
            )
        if any(len(talk) != 1 or talk[0]["role"] != "assistant" for talk in talks):
            raise LeftOut("the conversations part before their last answer")
        split = [self.chat.split(before, talk) for talk in talks]
        shortest = min((prompt for prompt, _ in split), key=len)
        responses = tuple(type(shortest)((prompt + text)[len(shortest) :]) for prompt, text in split)
        return Sides(shortest, responses, self.chat.prompt(before))


def _shared(talks: Sequence[Turns]) -> int:
    """Return how many first messages are the same in all, the last of each not counted."""
    least = min(len(talk) for talk in talks) - 1
    return next((i for i in range(least) if any(talk[i] != talks[0][i] for talk in talks)), max(0, least))


def verdict_of(value: Any, column: str) -> bool:
    """Return whether something is liked: true or false, 1 or 0, also as text.

    Raises:
        UserError: it is something else.
    """
    if isinstance(value, bool):
        return value
    said = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip().lower()
    if said not in ("0", "1", "true", "false"):
        raise UserError(f"{column} must be true or false (or 1 or 0). Received {shortened(value)}")
    return said in ("1", "true")


def text_of(value: Any, column: str) -> str:
    """Return a text.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(value, str):
        raise UserError(f"{column} must be a text. Received {shortened(value)}")
    return value


def score_of(value: Any, column: str) -> float | None:
    """Return a score, also one that is written as a text; None where it is missing, NaN or infinite.

    Raises:
        UserError: it is something else.
    """
    if isinstance(value, str) and value.strip().lower() in NO_SCORE:
        return None
    try:
        number = None if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = None
    if number is None and value is not None:
        raise UserError(f"{column} must be a number. Received {shortened(value)}")
    return number if number is not None and math.isfinite(number) else None

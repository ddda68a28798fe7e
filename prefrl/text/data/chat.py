"""Conversations as text: through the chat template of a tokenizer, or a plain one where it has none."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from prefrl.errors import UserError, first_line
from prefrl.text.data.files import shortened
from prefrl.text.model.tokens import Templated

Message = Mapping[str, str]
"""`role` and `content`."""
_ROLES = {
    "human": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
    "model": "assistant", "bot": "assistant", "prompter": "user", "function_response": "tool", "observation": "tool",
}  # fmt: skip
"""What public data sets call the roles of the chat templates."""
_HEADS = {"user": "\n\nHuman: ", "assistant": "\n\nAssistant: ", "system": ""}


class Chat(Protocol):
    """Turns conversations into texts."""

    def prompt(self, messages: Sequence[Message]) -> str:
        """Return what comes before an answer."""

    def split(self, messages: Sequence[Message], reply: Sequence[Message]) -> tuple[str, str]:
        """Return the prompt, and the reply as it stands behind it."""


class PlainChat:
    r"""Turns a conversation into the transcript that Anthropic's data sets have; for models without a chat template.

    >>> PlainChat().split([{"role": "user", "content": "Hi"}], [{"role": "assistant", "content": "Hello"}])
    ('\n\nHuman: Hi\n\nAssistant:', ' Hello')
    """

    def prompt(self, messages: Sequence[Message]) -> str:
        """Return the turns, each after who speaks."""
        return self._turns(messages) + _HEADS["assistant"].rstrip(" ")

    def split(self, messages: Sequence[Message], reply: Sequence[Message]) -> tuple[str, str]:
        """Return the prompt, and the reply with the space before it."""
        before = self.prompt(messages)
        return before, self._turns([*messages, *reply])[len(before) :]

    @staticmethod
    def _turns(messages: Sequence[Message]) -> str:
        return "".join(_HEADS.get(m["role"], f"\n\n{m['role'].capitalize()}: ") + m["content"] for m in messages)


class TemplateChat:
    """Turns a conversation into what a tokenizer's chat template makes of it.

    The prompt ends where the template has the assistant begin. Where it renders a prompt alone otherwise than one that
    goes on, as with a thought that is over, the prompt of what is learned ends at the last token that both share, as in
    trl; that is said once.

    Args:
        tokenizer: a `transformers` tokenizer with a chat template.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._said = False

    def prompt(self, messages: Sequence[Message]) -> str:
        """Return the prompt with its special tokens, up to where the assistant begins."""
        return Templated(self._apply(messages, add_generation_prompt=True))

    def split(self, messages: Sequence[Message], reply: Sequence[Message]) -> tuple[str, str]:
        """Return the prompt, and the reply with what the template puts behind it."""
        whole, before = self._apply([*messages, *reply]), self.prompt(messages)
        length = len(before) if whole.startswith(before) else self._shared(before, whole)
        return Templated(whole[:length]), Templated(whole[length:])

    def _shared(self, before: str, whole: str) -> int:
        """Return how many letters of a whole conversation hold the tokens that its prompt alone begins with, too."""
        parted = next((i for i, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), len(whole))
        ids, others = self._ids(whole), self._ids(before)
        count = next((i for i, (a, b) in enumerate(zip(ids, others, strict=False)) if a != b), len(ids))
        lengths = range(parted, 0, -1)
        found = next((length for length in lengths if self._ids(whole[:length]) == ids[:count]), parted)
        if not self._said:
            self._said = True
            warnings.warn(
                f"The chat template ends a prompt alone with {before[found:]!r}, which is not there once an answer "
                "follows: what is learned begins before it, what is drawn behind it.",
                stacklevel=2,
            )
        return found

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _apply(self, messages: Sequence[Message], **options: Any) -> str:
        roles = ", ".join(message["role"] for message in messages)
        try:
            text = str(self.tokenizer.apply_chat_template([dict(m) for m in messages], tokenize=False, **options))
        except Exception as error:  # whatever the template raises
            raise UserError(
                f"The chat template refuses a conversation of {roles}: {first_line(error)}. Fix the conversation or "
                "the tokenizer's template."
            ) from error
        # What the assistant said may be changed by design, as where earlier thoughts are left out.
        lost = next((m for m in messages if m["role"] != "assistant" and m["content"].strip() not in text), None)
        if lost is not None:
            raise UserError(
                f"The chat template leaves out the {lost['role']} message of a conversation of {roles}: "
                f"{shortened(lost['content'])}. Leave it out of the data, or fix the tokenizer's template."
            )
        return text


def chat_of(tokenizer: Any) -> Chat:
    """Return what turns conversations into texts for a tokenizer; a missing template is said when it is needed."""
    return TemplateChat(tokenizer) if getattr(tokenizer, "chat_template", None) else _SayingPlainChat()


class _SayingPlainChat(PlainChat):
    """A plain chat that says once that it stands in for a template."""

    def __init__(self) -> None:
        self._said = False

    def prompt(self, messages: Sequence[Message]) -> str:
        if not self._said:
            self._said = True
            warnings.warn(
                "The model's tokenizer has no chat template; conversations are written as "
                "'\\n\\nHuman: ...\\n\\nAssistant: ...'.",
                stacklevel=2,
            )
        return super().prompt(messages)


def read_messages(value: Any, column: str) -> list[Message]:
    """Return a conversation as messages of role and content; also with `from` and `value`, or as one message.

    Raises:
        UserError: it is none, or holds something else than text.
    """
    turns = [value] if isinstance(value, Mapping) else value
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, Mapping) for turn in turns):
        raise UserError(
            f"{column} must be a text or a list of messages with role and content. Received {shortened(value)}"
        )
    found: list[Message] = []
    for turn in turns:
        role = turn.get("role", turn.get("from"))
        content = turn.get("content", turn.get("value"))
        if not isinstance(role, str) or not role:
            raise UserError(f"A message in {column} has no role (or from). Received {shortened(turn)}")
        if isinstance(content, list) and all(
            isinstance(part, Mapping) and part.get("type") == "text" for part in content
        ):
            content = "".join(str(part["text"]) for part in content)
        if not isinstance(content, str) or turn.get("tool_calls"):
            raise UserError(f"A message in {column} must have a text as content. Received {shortened(turn)}")
        found.append({"role": _ROLES.get(role.lower(), role.lower()), "content": content})
    return found


def is_messages(value: Any) -> bool:
    """Tell whether a value is a conversation rather than a text or a list of texts."""
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, Mapping)

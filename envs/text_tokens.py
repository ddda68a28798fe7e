"""What the text game needs of a tokenizer, and the plainest one: bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class TextTokenizer(Protocol):
    """Turns strings into token ids and back. `prefrl.text.model.tokens.Tokens` is one for Hugging Face tokenizers."""

    vocab_size: int
    """Ids lie in [0, vocab_size)."""
    pad_id: int
    """Fills up what is shorter than the array; masks say where."""
    end_id: int
    """Closes a response."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of a response, without end or padding."""

    def encode_prompt(self, text: str) -> list[int]:
        """Return the ids of a prompt, with what the tokenizer puts before a text."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids up to, and without, the end."""


class ByteTokenizer:
    """One token for each byte of UTF-8, one for padding, one for the end.

    >>> tokens = ByteTokenizer()
    >>> tokens.encode("hi"), tokens.decode([104, 105])
    ([104, 105], 'hi')
    """

    vocab_size = 258
    pad_id = 256
    end_id = 257

    def encode(self, text: str) -> list[int]:
        """Return the bytes of `text`."""
        return list(text.encode())

    def encode_prompt(self, text: str) -> list[int]:
        """Return the bytes of `text`."""
        return self.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of bytes; those that are no UTF-8 are shown as a replacement character."""
        return bytes(i for i in ids if i < 256).decode(errors="replace")

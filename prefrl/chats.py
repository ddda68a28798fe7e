"""Judges behind an OpenAI-compatible address: asking one, keeping what it said, and reading A or B out of its words."""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from pathlib import Path
from typing import Any

from prefrl.errors import UserError
from prefrl.files import append_to
from prefrl.runs.metrics import read_rows
from prefrl.servers import OWN_HOSTS, ask_server, check_address

KEY_VARIABLE = "PREFRL_JUDGE_KEY"
MAX_ANSWER_TOKENS = 256
_CLAUSES = re.compile(r"[.,;:!?\n]+|\b(?=(?:because|since|while|whereas|although|but)\b)", re.IGNORECASE)
_REASON = re.compile(r"(?:because|since|while|whereas|although)\b", re.IGNORECASE)
_OTHER = re.compile(r"\b(?:than|over|to|against|of)\s+(?:the\s+)?(?:answer\s+|response\s+|option\s+)?[AB]\b")
_ARTICLE = re.compile(r"\bA(?=\s+(?!(?:is|was|wins|has|does|seems|gives|answers|looks|reads|because)\b)[a-z])")
_DOUBTFUL = re.compile(r"\b(?:not|neither|both|worse|isn't|isn\u2019t)\b", re.IGNORECASE)


def verdict(said: str) -> str | None:
    """Return A or B as a judge said it, read from the end; None where it is neither or unclear.

    `"B"` and `"A better answer is B."` are B, `"**A** is better than B"` is A, `"Both A and B are good"` is neither.
    """
    if alone := re.fullmatch(r"\W*([AB])\W*", said, re.IGNORECASE):
        return alone[1].upper()
    for clause in reversed([part.strip() for part in _CLAUSES.split(said)]):
        letters = set(re.findall(r"\b[AB]\b", _ARTICLE.sub("", _OTHER.sub("", clause))))
        if letters and not _REASON.match(clause):
            return None if len(letters) > 1 or _DOUBTFUL.search(clause) else letters.pop()
    return None


class ChatServer:
    """A model behind an address; its key is read from the variable PREFRL_JUDGE_KEY.

    Args:
        address: e.g. `http://localhost:8000/v1`.
        model: the server's name for it.
        timeout: seconds to wait for an answer.

    Raises:
        UserError: the address is none, or holds a name or password.
    """

    def __init__(self, address: str, model: str, *, timeout: float = 60.0) -> None:
        _check_judge(address)
        self.model, self.timeout = model, timeout
        self.address = address.rstrip("/") + "/chat/completions"
        self._answers: dict[str, str] = {}
        self._kept: Path | None = None

    def keep_answers(self, path: Path) -> None:
        """Keep what is said in a file as it comes, and ask nothing again that it holds.

        Raises:
            UserError: it holds something else.
        """
        self._kept = path
        for row in read_rows(path):
            if isinstance(row.get("asked"), str) and isinstance(row.get("answer"), str):
                self._answers[row["asked"]] = row["answer"]

    def answer(self, content: str | list[dict[str, Any]]) -> str:
        """Return what the model says to a message.

        Args:
            content: a text, or parts as OpenAI's interface has them, of types "text" and "image_url".

        Raises:
            UserError: it does not answer in time, or answers with an error, after several attempts.
        """
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": MAX_ANSWER_TOKENS,
        }
        asked = hashlib.sha256(json.dumps([self.address, body]).encode()).hexdigest()
        if asked not in self._answers:
            self._answers[asked] = self._ask(body)
            if self._kept is not None:
                self._kept.parent.mkdir(parents=True, exist_ok=True)
                with append_to(self._kept) as file:
                    file.write((json.dumps({"asked": asked, "answer": self._answers[asked]}) + "\n").encode())
        return self._answers[asked]

    def _ask(self, body: dict[str, Any]) -> str:
        """Return what the server says."""
        key = os.environ.get(KEY_VARIABLE)
        headers = {"Authorization": f"Bearer {_checked_key(key)}"} if key else {}
        reply = ask_server("judge", self.address, body, timeout=self.timeout, headers=headers)
        try:
            content = reply["choices"][0]["message"]["content"]
        except (LookupError, TypeError) as error:
            raise UserError(f"The judge at {self.address} gave no OpenAI-compatible answer: {error!r}") from error
        if content is not None and not isinstance(content, str):
            raise UserError(f"The judge at {self.address} should answer a text. Received {str(content)[:60]!r}")
        return content or ""


def _check_judge(address: str) -> None:
    """Check where a judge is asked, and say where its key would be readable on the way."""
    place = check_address(address, "judge")
    if place.username is not None or place.password is not None:
        raise UserError(f"The judge's address must hold no name or password: put the key into {KEY_VARIABLE}.")
    if place.scheme == "http" and place.hostname not in OWN_HOSTS and os.environ.get(KEY_VARIABLE):
        warnings.warn(
            f"The key in {KEY_VARIABLE} goes to {place.hostname} unencrypted (http). Use https.", stacklevel=2
        )


def _checked_key(key: str) -> str:
    """Return a key that a header can hold; it is never shown."""
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UserError(f"The key in {KEY_VARIABLE} holds a space, a line break or another character that no key has.")
    return key

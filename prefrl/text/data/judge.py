"""Learning from AI feedback: a judge that compares two responses under a written constitution.

It is asked in both orders and the two answers are averaged, since language models favour a side (Bai et al. 2022b; Lee
et al. 2023, s. 3.1). Three kinds: a written rule, any causal language model of `transformers`, and an OpenAI-compatible
server.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from prefrl.envs.service_desk import FILLERS, REMEDIES, TONES, Message
from prefrl.errors import UserError
from prefrl.runs.device import choose_device
from prefrl.runs.metrics import read_rows
from prefrl.text.data.server import OWN_HOSTS, ask_server, check_address
from prefrl.text.model.models import context_length, load_model
from prefrl.text.model.sequences import sequence_log_probs

DEFAULT_CONSTITUTION = (
    "Prefer the answer that is more helpful: it addresses what the customer wrote, states nothing wrong, is polite, "
    "and is no longer than it needs to be."
)
KEY_VARIABLE = "PREFRL_JUDGE_KEY"
MAX_ANSWER_TOKENS = 256


class Judge(Protocol):
    """Whoever compares two responses as they are shown: A first, then B."""

    name: str

    def prefer_first(self, prompt: str, first: str, second: str) -> float | None:
        """Return the probability, in [0, 1], that A is better; None if the answer was neither A nor B."""


def question(constitution: str, prompt: str, first: str, second: str) -> str:
    """Return the question that a language model is asked; its answer begins with A or B."""
    return (
        f"You compare two answers under this constitution:\n{constitution.strip()}\n\nMessage:\n{prompt}\n\n"
        f"Answer A:\n{first}\n\nAnswer B:\n{second}\n\nWhich answer is better? Reply with A or B only.\nBetter:"
    )


def ask_both_ways(judge: Judge, prompt: str, first: str, second: str) -> tuple[float, float] | None:
    """Return how likely each is better where it is shown first; None where the judge said neither A nor B."""
    ahead = judge.prefer_first(prompt, first, second)
    behind = None if ahead is None else judge.prefer_first(prompt, second, first)
    return None if ahead is None or behind is None else (ahead, behind)


def judge_pairs(
    judge: Judge, prompts: Sequence[str], pairs: Sequence[tuple[str, str]], rows: list[dict[str, Any]]
) -> Counter[str]:
    """Add a row for each pair that the judge prefers one way: prompt, chosen, rejected, its certainty and its name.

    Each pair is put in both orders; p = (p(A | first, second) + 1 - p(A | second, first)) / 2. Pairs with p = 1/2, and
    those of equal texts, are left out.

    Args:
        judge: who is asked.
        prompts: one for each pair.
        pairs: of responses.
        rows: where each row goes as soon as it is known.

    Returns:
        Numbers of the pairs that are left out, by the reason.

    Raises:
        UserError: the judge does not answer.
    """
    left_out: Counter[str] = Counter()
    for prompt, (first, second) in zip(prompts, pairs, strict=True):
        if first == second:
            left_out["both responses are the same"] += 1
            continue
        asked = ask_both_ways(judge, prompt, first, second)
        if asked is None:
            left_out["the judge answered neither A nor B"] += 1
            continue
        ahead, behind = asked
        p = (ahead + 1 - behind) / 2
        if p == 0.5:
            left_out["the judge prefers neither, or whichever stands in one place"] += 1
        else:
            chosen, rejected = (first, second) if p > 0.5 else (second, first)
            rows.append(
                {
                    "prompt": prompt,
                    "chosen": chosen,
                    "rejected": rejected,
                    "certainty": round(max(p, 1 - p), 4),
                    "annotator": judge.name,
                }
            )
    return left_out


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


def make_judge(name: str, constitution: str, *, device: str = "auto", timeout: float = 60.0) -> Judge:
    """Return the judge that a name means: `rule`, a folder or hub id, or `URL#MODEL`.

    Raises:
        UserError: it cannot be had.
    """
    if name == "rule":
        return RuleJudge()
    if name.startswith(("http://", "https://")):
        address, _, model = name.partition("#")
        if not model:
            raise UserError(f"Name the server's model after a #, as in {address}#MODEL.")
        return ServerJudge(address, model, constitution, timeout=timeout)
    return ModelJudge(name, constitution, device=device)


class RuleJudge:
    """A programmatic judge for the demo: counts what a quick reader sees, and never checks the order number."""

    name = "rule"

    def prefer_first(self, prompt: str, first: str, second: str) -> float:
        """Return 1, 0 or 1/2."""
        message = Message.from_prompt(prompt)
        if message is None:
            raise UserError("The judge `rule` knows ServiceDesk's customers only. Name a language model instead.")
        ours, theirs = (self._points(message, text) for text in (first, second))
        return 0.5 if ours == theirs else float(ours > theirs)

    @staticmethod
    def _points(message: Message, text: str) -> float:
        points = 2.0 * (REMEDIES[message.fault] in text) + 1.0 * (message.product in text)
        points += 1.0 * any(sentence in text for sentence in TONES[message.mood])
        return points - 0.5 * sum(sentence in text for sentence in FILLERS)


class ModelJudge:
    """A causal language model as a judge: the probability of " A" against " B" after the question.

    Args:
        model: folder or id of the hub.
        constitution: what it judges by.
        device: auto, cpu or cuda.
    """

    def __init__(self, model: str, constitution: str, *, device: str = "auto") -> None:
        self.name, self.constitution = model, constitution
        self._model, self._tokens = load_model(model)
        self._model.to(choose_device(device, prefer_gpu=True))
        self._context = context_length(self._model)

    def prefer_first(self, prompt: str, first: str, second: str) -> float:
        """Return the probability of A among A and B.

        Raises:
            UserError: the question is longer than the model's context, or the probabilities are not numbers.
        """
        ids = self._tokens.encode_prompt(question(self.constitution, prompt, first, second))
        answers = [self._tokens.encode(" A"), self._tokens.encode(" B")]
        longest = max(map(len, answers))
        if len(ids) + longest > self._context:
            raise UserError(
                f"The judge {self.name} can look at {self._context} tokens; the question has {len(ids)}. Shorten the "
                "constitution or take another judge."
            )
        both = sequence_log_probs(self._model, [ids, ids], answers, pad_id=self._tokens.pad_id)
        p = float(torch.softmax(both, 0)[0])
        if not math.isfinite(p):
            raise UserError(f"The judge {self.name} gives neither A nor B a probability. Take another one.")
        return p


class ServerJudge:
    """A model behind an OpenAI-compatible address; its key is read from the variable PREFRL_JUDGE_KEY.

    Args:
        address: e.g. `http://localhost:8000/v1`.
        model: the server's name for it.
        constitution: what it judges by.
        timeout: seconds to wait for an answer.
    """

    def __init__(self, address: str, model: str, constitution: str, *, timeout: float = 60.0) -> None:
        _check_judge(address)
        self.name, self.constitution, self.timeout = model, constitution, timeout
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

    def prefer_first(self, prompt: str, first: str, second: str) -> float | None:
        """Return 1 if it answers A, 0 if B, None if neither.

        Raises:
            UserError: it does not answer in time, or answers with an error, after several attempts.
        """
        body = {
            "model": self.name,
            "messages": [{"role": "user", "content": question(self.constitution, prompt, first, second)}],
            "temperature": 0,
            "max_tokens": MAX_ANSWER_TOKENS,
        }
        asked = hashlib.sha256(json.dumps([self.address, body]).encode()).hexdigest()
        if asked not in self._answers:
            self._answers[asked] = self._ask(body)
            if self._kept is not None:
                self._kept.parent.mkdir(parents=True, exist_ok=True)
                with self._kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"asked": asked, "answer": self._answers[asked]}) + "\n")
        found = verdict(self._answers[asked])
        return None if found is None else float(found == "A")

    def _ask(self, body: Mapping[str, Any]) -> str:
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

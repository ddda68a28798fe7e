"""Learning from AI feedback: a judge that compares two responses under a written constitution.

It is asked in both orders and the two answers are averaged, since language models favour a side (Bai et al. 2022b; Lee
et al. 2023, s. 3.1). Three kinds: a written rule, any causal language model of `transformers`, and an OpenAI-compatible
server.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from prefrl.chats import ChatServer, verdict
from prefrl.envs.docstring_judge import Source, form_share, told_share, words_in
from prefrl.envs.docstring_world import source_of
from prefrl.envs.service_desk import FILLERS, REMEDIES, TONES, Message
from prefrl.errors import UserError
from prefrl.runs.device import choose_device
from prefrl.text.model.models import context_length, load_model
from prefrl.text.model.sequences import sequence_log_probs

DEFAULT_CONSTITUTION = (
    "Prefer the answer that is more helpful: it addresses what the customer wrote, states nothing wrong, is polite, "
    "and is no longer than it needs to be."
)


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
    """A programmatic judge for the demo: counts what a quick reader sees.

    It never checks the order number in an answer to a customer, nor whether a summary says more than the name does or
    makes something up.
    """

    name = "rule"

    def prefer_first(self, prompt: str, first: str, second: str) -> float:
        """Return 1, 0 or 1/2."""
        message, source = Message.from_prompt(prompt), source_of(prompt)
        if message is not None:
            ours, theirs = (self._points(message, text) for text in (first, second))
        elif source is not None:
            ours, theirs = (self._points_of_summary(source, text) for text in (first, second))
        else:
            raise UserError(
                "The judge `rule` knows the prompts of servicedesk and docstrings only. Name a language model instead."
            )
        return 0.5 if ours == theirs else float(ours > theirs)

    @staticmethod
    def _points_of_summary(source: Source, text: str) -> float:
        words = words_in(text)
        third_person = bool(words) and words[0].endswith("s") and not words[0].endswith("ss")
        return 2.0 * told_share(source.name, words) + form_share(text.strip()) - 0.5 * third_person

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
        self.server = ChatServer(address, model, timeout=timeout)
        self.name, self.constitution = model, constitution

    def keep_answers(self, path: Path) -> None:
        """Keep what is said in a file as it comes, and ask nothing again that it holds.

        Raises:
            UserError: it holds something else.
        """
        self.server.keep_answers(path)

    def prefer_first(self, prompt: str, first: str, second: str) -> float | None:
        """Return 1 if it answers A, 0 if B, None if neither.

        Raises:
            UserError: it does not answer in time, or answers with an error, after several attempts.
        """
        found = verdict(self.server.answer(question(self.constitution, prompt, first, second)))
        return None if found is None else float(found == "A")

"""The forms in which public data sets hold prompts, responses and what was said of them, recognised row by row.

A row is recognised by its columns that are not null. A text under `prompt` is taken as it is; questions, instructions
and message lists are conversations, and go through a chat template.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prefrl.errors import UserError, near_names
from prefrl.text.data.chat import Chat, PlainChat, is_messages, read_messages
from prefrl.text.data.examples import ranks_from_order
from prefrl.text.data.files import shortened
from prefrl.text.data.sides import LeftOut, Row, Side, Sides, score_of, text_of, verdict_of

PROMPTS = ("prompt", "question", "instruction", "query", "history", "input")
REPLIES = ("response", "completion", "output", "answer")
VERDICTS = ("liked", "label")
TALKS = ("messages", "conversations", "conversation")
LISTS = ("responses", "completions", "answers")
SCORES = ("scores", "score", "ratings")
_WINNERS: dict[Any, tuple[int, int]] = {
    "model_a": (0, 1), "model_b": (1, 0), "tie": (0, 0), "tie (bothbad)": (0, 0)
}  # fmt: skip
PAIRS: tuple[tuple[str, str, str, dict[Any, tuple[int, int]]], ...] = (
    ("response_0", "response_1", "better_response_id", {0: (0, 1), 1: (1, 0)}),  # PKU-SafeRLHF
    ("response_a", "response_b", "winner", _WINNERS),
    ("conversation_a", "conversation_b", "winner", _WINNERS),  # chatbot arena
    ("output_1", "output_2", "preference", {1: (0, 1), 2: (1, 0)}),  # AlpacaFarm
    ("human_ref_A", "human_ref_B", "labels", {1: (0, 1), 0: (1, 0)}),  # SHP
)  # fmt: skip
"""First, second, the column that says which is better, and the ranks for each of its values."""
KNOWN = (
    ("prompt", "chosen", "rejected"), ("prompt", "responses", "ranking"), ("prompt", "responses", "scores"),
    ("prompt", "completion", "label"), ("prompt", "response"), ("instruction", "output"), ("question", "answer"),
    ("messages",), ("conversations",), ("text",), ("prompt",), *((f, s, w) for f, s, w, _ in PAIRS),
)  # fmt: skip
NATIVE = (
    "text",
    "prompt",
    "system",
    "response",
    "chosen",
    "rejected",
    "responses",
    "ranking",
    "scores",
    "liked",
    "messages",
)
"""What `--columns` can say a column is."""
HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one row holds, as texts."""

    form: str
    prompt: str | None = None
    responses: tuple[str, ...] = ()
    ranks: tuple[int, ...] | None = None
    """One for each response, 0 is best."""
    liked: bool | None = None
    text: str | None = None
    asked: str | None = None
    """The prompt as a model is asked it, where a chat template has it otherwise than before an answer."""
    more: tuple[tuple[str, str], ...] = ()
    """Earlier turns of the assistant in a conversation, as further examples."""


@dataclass(kw_only=True)
class Reading:
    """How rows are read, and the account of what was found.

    Args:
        chat: turns conversations into texts.
        columns: ours: theirs, for data sets with columns of other names.
    """

    chat: Chat = field(default_factory=PlainChat)
    columns: Mapping[str, str] = field(default_factory=dict)
    rows: int = 0
    forms: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)
    """Rows that are taken, with what is to be known of them."""
    left_out: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """Return what is to be known of the rows beside their number."""
        left = [f"{count:,} of {self.rows:,} rows left out: {why}." for why, count in self.left_out.items()]
        return left + [f"{count:,} of {self.rows:,} rows: {what}." for what, count in self.noted.items()]


def columns_of(pairs: Sequence[str]) -> dict[str, str]:
    """Return ours: theirs from `ours=theirs`, given one by one or with commas.

    Raises:
        UserError: ours is no column that there is.
    """
    found = {}
    for pair in (part for given in pairs for part in given.split(",") if part):
        ours, equals, theirs = pair.partition("=")
        if not equals or not theirs or ours not in NATIVE:
            raise UserError(
                f"--columns takes OURS=THEIRS, where OURS is one of {', '.join(NATIVE)}. Received {pair!r}."
                f"{near_names(ours, NATIVE)}"
            )
        found[ours] = theirs
    return found


def recognise(row: Row, reading: Reading) -> Found:
    """Return what a row holds.

    Raises:
        LeftOut: it teaches nothing.
        UserError: no form is recognised, or a value is of another kind.
    """
    cols = {name: value for name, value in row.items() if value is not None and value != []}
    for ours, theirs in reading.columns.items():
        if theirs not in row:
            raise UserError(f"there is no column {theirs!r}, which --columns names. Found: {', '.join(map(str, row))}.")
        cols.pop(ours, None)
        if (value := cols.get(theirs)) is not None:
            cols[ours] = value
    found = _of_list(cols, reading) or _of_pair(cols, reading) or _of_reply(cols, reading) or _of_talk(cols, reading)
    if found is None and (name := _first(cols, PROMPTS)) is not None:
        found = Found(form=name, prompt=Side(cols, reading.chat, name).prompt_alone())
    if found is None and "text" in cols:
        found = Found(form="text", text=text_of(cols["text"], "text"))
    if found is None:
        raise UserError(_unknown(cols))
    reading.forms[found.form] += 1
    return found


def _of_list(cols: Row, reading: Reading) -> Found | None:
    """Return a ranking: responses with their order, with scores, or without either."""
    name = _first(cols, LISTS)
    if name is None or ("chosen" in cols and "ranking" not in cols and name != "responses"):
        return None
    if name != "responses" and not isinstance(cols[name], list):
        return None
    values, scores_name = cols[name], _first(cols, SCORES)
    scores = cols[scores_name] if scores_name else None
    if isinstance(values, list) and values and all(isinstance(v, Mapping) and "response" in v for v in values):
        scores = scores or [v.get("overall_score", v.get("score")) for v in values]
        values = [v["response"] for v in values]
    if not isinstance(values, list) or not all(isinstance(v, str) or is_messages(v) for v in values):
        raise UserError(f"{name} must be a list of texts. Received {shortened(values)}")
    sides = Side(cols, reading.chat, _first(cols, PROMPTS, needed=name)).reply([(name, v) for v in values])
    ranks = None
    if "ranking" in cols:
        ranks = ranks_from_order(cols["ranking"], len(values))
    elif isinstance(scores, list) and any(score is not None for score in scores):
        if len(scores) != len(values):
            raise UserError(
                f"scores must be one number for each of {len(values)} responses. Received {shortened(scores)}"
            )
        sides, ranks = _ranked_by(sides, [score_of(score, scores_name or "scores") for score in scores], reading)
    elif "chosen" in cols:
        return None
    how = "ranking" if "ranking" in cols else scores_name or "scores"
    return Found(form=f"{name}, {how}" if ranks else name, ranks=ranks, **sides._asdict())


def _ranked_by(sides: Sides, scores: Sequence[float | None], reading: Reading) -> tuple[Sides, tuple[int, ...]]:
    """Return the responses that have a score, and their ranks."""
    kept = [(text, score) for text, score in zip(sides.responses, scores, strict=True) if score is not None]
    if len(kept) < 2:
        raise LeftOut("fewer than two responses have a score that is a number")
    if len(kept) < len(scores):
        reading.noted["responses whose score is missing or no number are left out"] += 1
    ranks = tuple(sum(other > score for _, other in kept) for _, score in kept)
    return sides._replace(responses=tuple(text for text, _ in kept)), ranks


def _of_pair(cols: Row, reading: Reading) -> Found | None:
    for first, second, which, ranks_of in PAIRS:
        if {first, second, which} <= set(cols):
            said = cols[which]
            said = int(said) if isinstance(said, str) and said.isdecimal() else said
            if not isinstance(said, str | int | float) or said not in ranks_of:
                raise UserError(f"{which} must be one of {', '.join(map(str, ranks_of))}. Received {shortened(said)}")
            side = Side(cols, reading.chat, _first(cols, PROMPTS))
            sides = side.reply([(first, cols[first]), (second, cols[second])])
            return _ranked(f"{first}, {second}, {which}", sides, ranks_of[said])
    if not {"chosen", "rejected"} <= set(cols):
        return None
    name = _first(cols, PROMPTS)
    values = [("chosen", cols["chosen"]), ("rejected", cols["rejected"])]
    kind = "conversations" if any(is_messages(value) for _, value in values) else "texts"
    if name is None and kind == "texts":
        split = _without_prompt(*(text_of(value, column) for column, value in values))
        if split is None:
            raise UserError(f"chosen and rejected do not begin alike, and {_unknown(cols)}")
        sides = Sides(*split)
        kind = "transcripts" if sides.prompt.endswith(ASSISTANT) else "texts that begin alike"
    else:
        sides = Side(cols, reading.chat, name).reply(values)
    ranks = (0, 1)
    given = [next((cols[n] for n in _scores_of(column) if n in cols), None) for column, _ in values]
    if any(score is not None for score in given):
        scores = [score_of(score, f"the score of {column}") for (column, _), score in zip(values, given, strict=True)]
        if scores[0] is None or scores[1] is None:
            reading.noted["a score is missing or no number; chosen is taken as the better"] += 1
        elif scores[0] == scores[1]:
            ranks = (0, 0)
            reading.noted["a tie, for the two scores are equal"] += 1
        elif scores[0] < scores[1]:
            reading.noted["the score of the rejected response is the higher one; chosen is taken as the better"] += 1
    return _ranked(f"{name + ', ' if name else ''}chosen, rejected ({kind})", sides, ranks)


def _ranked(form: str, sides: Sides, ranks: tuple[int, ...]) -> Found:
    if len(set(sides.responses)) == 1:
        raise LeftOut("both responses are the same")
    return Found(form=form, ranks=ranks, **sides._asdict())


def _without_prompt(chosen: str, rejected: str) -> tuple[str, tuple[str, ...]] | None:
    """Split two texts that begin with the same prompt: behind a transcript's last turn, or where they part.

    None if they do not begin alike.
    """
    if chosen == rejected:
        raise LeftOut("both responses are the same")
    if HUMAN in chosen and ASSISTANT in chosen:
        cut = chosen.rfind(ASSISTANT) + len(ASSISTANT)
        if rejected[:cut] != chosen[:cut] or HUMAN in rejected[cut:]:
            raise LeftOut("the conversations part before their last answer")
        return chosen[:cut], (chosen[cut:], rejected[cut:])
    length = min(len(chosen), len(rejected))
    cut = next((i for i in range(length) if chosen[i] != rejected[i]), length)
    inside = re.compile(r"\w\w")
    while cut and any(inside.match(text[cut - 1 : cut + 1]) for text in (chosen, rejected)):
        cut -= 1  # not within a word
    cut -= chosen[cut - 1 : cut] == " "
    if cut <= 0:
        return None
    return chosen[:cut], (chosen[cut:], rejected[cut:])


def _of_reply(cols: Row, reading: Reading) -> Found | None:
    name = _first(cols, REPLIES)
    asked = _first({k: v for k, v in cols.items() if k != name}, PROMPTS)
    if name is None or (asked is None and not is_messages(cols[name])):
        return None
    sides = Side(cols, reading.chat, asked).reply([(name, cols[name])])
    said = _first(cols, VERDICTS)
    liked = None if said is None else verdict_of(cols[said], said)
    form = ", ".join(part for part in (asked, name, said) if part)
    return Found(form=form, liked=liked, **sides._asdict())


def _of_talk(cols: Row, reading: Reading) -> Found | None:
    name = _first(cols, TALKS)
    if name is None:
        return None
    talk = read_messages(cols[name], name)
    if (system := cols.get("system")) and talk[0]["role"] != "system":
        talk = [{"role": "system", "content": text_of(system, "system")}, *talk]
    places = [
        i
        for i, message in enumerate(talk)
        if message["role"] == "assistant" and i > 0 and talk[i - 1]["role"] != "system"
    ]
    if not places:
        if talk[-1]["role"] == "user":
            return Found(form=name, prompt=reading.chat.prompt(talk))
        raise LeftOut("the conversation has no answer of the assistant to anything")
    split = [reading.chat.split(talk[:i], talk[i : i + 1]) for i in places]
    said = _first(cols, VERDICTS)
    liked = None if said is None else verdict_of(cols[said], said)
    prompt, reply = split[-1]
    asked = reading.chat.prompt(talk[: places[-1]])
    return Found(form=name, prompt=prompt, responses=(reply,), asked=asked, liked=liked, more=tuple(split[:-1]))


def _first(cols: Row, names: Sequence[str], *, needed: str | None = None) -> str | None:
    found = next((name for name in names if name in cols), None)
    if found is None and needed is not None:
        raise UserError(_unknown(cols))
    return found


def _scores_of(column: str) -> tuple[str, ...]:
    return (f"score_{column}", f"{column}_score", f"{column}-rating", f"{column}_rating")


def _unknown(cols: Row) -> str:
    """Return what is said of columns in no form that there is: those found and the form that is nearest."""

    def near(form: Sequence[str]) -> tuple[int, int]:
        shared = sum(name in cols for name in form)
        alike = sum(name not in cols and bool(near_names(name, map(str, cols), 1)) for name in form)
        return 2 * shared + alike, -len(form)

    best = max(KNOWN, key=near)
    missing = [name for name in best if name not in cols]
    ours = next((name for name in missing if name in NATIVE), missing[0] if missing else best[0])
    return (
        f"no form of data has these columns: {', '.join(map(str, cols)) or 'none'}. The nearest is {', '.join(best)}; "
        f"{', '.join(map(repr, missing))} is missing. If a column of another name is it: --columns {ours}=NAME"
    )

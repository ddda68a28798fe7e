"""The forms in which public data sets hold prompts, responses and what was said of them, recognised row by row.

A row is recognised by its columns that are not null. A text under `prompt` is taken as it is; questions, instructions
and message lists are conversations, and go through a chat template.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from prefrl.errors import UserError, near_names
from prefrl.text.data.chat import Chat, Message, PlainChat, is_messages, read_messages
from prefrl.text.data.examples import ranks_from_order
from prefrl.text.data.files import shortened

Row = Mapping[str, Any]
Turns = tuple[Message, ...]

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


class LeftOut(Exception):
    """A row that teaches nothing; the message says of what kind it is."""


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
        found = Found(form=name, prompt=_Side(cols, reading, name).prompt_alone())
    if found is None and "text" in cols:
        found = Found(form="text", text=_text(cols["text"], "text"))
    if found is None:
        raise UserError(_unknown(cols))
    reading.forms[found.form] += 1
    return found


class _Sides(NamedTuple):
    """What was asked and what was said to it, as texts."""

    prompt: str
    responses: tuple[str, ...]
    asked: str | None = None


class _Side:
    """The prompt of a row, as a text or as messages, and replies to it."""

    def __init__(self, cols: Row, reading: Reading, name: str | None) -> None:
        self.name, self.chat = name, reading.chat
        for unread in ("tools", "images", "image", "chat_template_kwargs"):
            if cols.get(unread):
                raise UserError(
                    f"the column {unread!r} would be passed over, as only text is read. Leave it out of the file."
                )
        system = cols.get("system", cols.get("system_prompt"))
        value = None if name is None else cols[name]
        self.text: str | None = None
        self.turns: Turns | None = None
        if is_messages(value):
            self.turns = tuple(read_messages(value, str(name)))
        elif name is not None:
            text = _text(value, name)
            more = next((cols[n] for n in ("input", "context") if n != name and isinstance(cols.get(n), str)), "")
            if name == "instruction" and more.strip():
                text = f"{text}\n\n{more}"
            if name == "prompt" and not system:
                self.text = text
            else:
                self.turns = ({"role": "user", "content": text},)
        if system and self.turns is not None and self.turns[0]["role"] != "system":
            self.turns = ({"role": "system", "content": _text(system, "system")}, *self.turns)

    def prompt_alone(self) -> str:
        if self.turns is None:
            return str(self.text)
        turns = self.turns[:-1] if self.turns[-1]["role"] == "assistant" else self.turns
        return self.chat.prompt(turns)

    def reply(self, values: Sequence[tuple[str, Any]]) -> _Sides:
        """Return the prompt and the replies as texts; message lists may repeat the prompt."""
        if self.turns is None and not any(is_messages(value) for _, value in values):
            if self.text is None:
                raise UserError(f"there is no prompt beside {', '.join(name for name, _ in values)}.")
            return _Sides(self.text, tuple(_text(value, name) for name, value in values))
        before: Turns = self.turns or ()
        talks = [
            tuple(read_messages(value, name))
            if is_messages(value)
            else ({"role": "assistant", "content": _text(value, name)},)
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
        return _Sides(shortest, responses, self.chat.prompt(before))


def _shared(talks: Sequence[Turns]) -> int:
    """Return how many first messages are the same in all, the last of each not counted."""
    least = min(len(talk) for talk in talks) - 1
    return next((i for i in range(least) if any(talk[i] != talks[0][i] for talk in talks)), max(0, least))


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
    sides = _Side(cols, reading, _first(cols, PROMPTS, needed=name)).reply([(name, v) for v in values])
    ranks = None
    if "ranking" in cols:
        ranks = ranks_from_order(cols["ranking"], len(values))
    elif isinstance(scores, list) and any(score is not None for score in scores):
        if len(scores) != len(values) or not all(_is_number(score) for score in scores):
            raise UserError(
                f"scores must be one number for each of {len(values)} responses. Received {shortened(scores)}"
            )
        ranks = tuple(sum(other > score for other in scores) for score in scores)
    elif "chosen" in cols:
        return None
    how = "ranking" if "ranking" in cols else scores_name or "scores"
    return Found(form=f"{name}, {how}" if ranks else name, ranks=ranks, **sides._asdict())


def _of_pair(cols: Row, reading: Reading) -> Found | None:
    for first, second, which, ranks_of in PAIRS:
        if {first, second, which} <= set(cols):
            said = cols[which]
            said = int(said) if isinstance(said, str) and said.isdecimal() else said
            if not isinstance(said, str | int | float) or said not in ranks_of:
                raise UserError(f"{which} must be one of {', '.join(map(str, ranks_of))}. Received {shortened(said)}")
            side = _Side(cols, reading, _first(cols, PROMPTS))
            sides = side.reply([(first, cols[first]), (second, cols[second])])
            return _ranked(f"{first}, {second}, {which}", sides, ranks_of[said])
    if not {"chosen", "rejected"} <= set(cols):
        return None
    name = _first(cols, PROMPTS)
    values = [("chosen", cols["chosen"]), ("rejected", cols["rejected"])]
    kind = "conversations" if any(is_messages(value) for _, value in values) else "texts"
    if name is None and kind == "texts":
        split = _without_prompt(*(_text(value, column) for column, value in values))
        if split is None:
            raise UserError(f"chosen and rejected do not begin alike, and {_unknown(cols)}")
        sides = _Sides(*split)
        kind = "transcripts" if sides.prompt.endswith(ASSISTANT) else "texts that begin alike"
    else:
        sides = _Side(cols, reading, name).reply(values)
    scores = [
        cols.get(f"score_{column}", cols.get(f"{column}_score", cols.get(f"{column}-rating"))) for column, _ in values
    ]
    ranks = (0, 1)
    if all(_is_number(score) for score in scores):
        if scores[0] == scores[1]:
            ranks = (0, 0)
            reading.noted["a tie, for the two scores are equal"] += 1
        elif scores[0] < scores[1]:
            reading.noted["the score of the rejected response is the higher one; chosen is taken as the better"] += 1
    return _ranked(f"{name + ', ' if name else ''}chosen, rejected ({kind})", sides, ranks)


def _ranked(form: str, sides: _Sides, ranks: tuple[int, ...]) -> Found:
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
    sides = _Side(cols, reading, asked).reply([(name, cols[name])])
    said = _first(cols, VERDICTS)
    liked = None if said is None else _verdict(cols[said], said)
    form = ", ".join(part for part in (asked, name, said) if part)
    return Found(form=form, liked=liked, **sides._asdict())


def _of_talk(cols: Row, reading: Reading) -> Found | None:
    name = _first(cols, TALKS)
    if name is None:
        return None
    talk = read_messages(cols[name], name)
    if (system := cols.get("system")) and talk[0]["role"] != "system":
        talk = [{"role": "system", "content": _text(system, "system")}, *talk]
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
    liked = None if said is None else _verdict(cols[said], said)
    prompt, reply = split[-1]
    asked = reading.chat.prompt(talk[: places[-1]])
    return Found(form=name, prompt=prompt, responses=(reply,), asked=asked, liked=liked, more=tuple(split[:-1]))


def _verdict(value: Any, column: str) -> bool:
    """Return whether something is liked: true or false, 1 or 0, also as text."""
    if isinstance(value, bool):
        return value
    said = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip().lower()
    if said not in ("0", "1", "true", "false"):
        raise UserError(f"{column} must be true or false (or 1 or 0). Received {shortened(value)}")
    return said in ("1", "true")


def _first(cols: Row, names: Sequence[str], *, needed: str | None = None) -> str | None:
    found = next((name for name in names if name in cols), None)
    if found is None and needed is not None:
        raise UserError(_unknown(cols))
    return found


def _text(value: Any, column: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{column} must be a text. Received {shortened(value)}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


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

"""What a job will learn from: the rows of a data set as they are recognised, left out, cut, and read as tokens."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from prefrl.errors import UserError
from prefrl.runs.folder import is_record
from prefrl.text.data import sources
from prefrl.text.data.examples import Encoder, Example, Fitted, Liked, RankedResponses, Row, texts_of
from prefrl.text.data.forms import Found, Reading
from prefrl.text.jobs.parts import Place, prompt_key, split_by
from prefrl.text.model.models import load_reader
from prefrl.text.model.tokens import Templated, Tokens, end_ids_of

LEARNED = {
    "reward": "comparisons", "dpo": "comparisons", "ipo": "comparisons", "simpo": "comparisons",
    "kto": "likes", "sft": "examples",
    "ppo": "prompts", "rloo": "prompts", "grpo": "prompts", "reinforce": "prompts", "rl": "prompts",
    "online-dpo": "prompts", "online-ipo": "prompts", "rejection": "prompts",
}  # fmt: skip
"""What each verb learns from."""
SHOWN_TOKENS = (48, 16)
"""First and last tokens of a text that are shown."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """What a verb will learn from."""

    data: str
    model: str
    verb: str
    reading: Reading
    items: list[tuple[str, tuple[str, ...], tuple[str, ...]]]
    """Prompts, responses, and what each of these is: chosen, rejected, tied, liked, disliked, response."""
    fitted: Fitted
    tokens: Tokens
    too_long: str
    held_out: tuple[int, int] = field(default=(0, 0))
    """Items, and prompts."""

    def to_json(self) -> dict[str, Any]:
        """Return all figures, and the first row that is learned from with its ids."""
        kept = [row for row in self.fitted.rows if row is not None]
        ended = sum(not self._ends.isdisjoint(response) for row in kept for response in row.responses)
        return {
            "data": self.data,
            "model": self.model,
            "verb": self.verb,
            "rows": self.reading.rows,
            "forms": dict(self.reading.forms),
            "left_out": dict(self.reading.left_out),
            "noted": dict(self.reading.noted),
            LEARNED[self.verb]: len(self.items),
            "of_prompts": len({prompt_key(prompt) for prompt, _, _ in self.items}),
            "labels": _counts(name for _, _, names in self.items for name in names),
            "without_a_token": self.fitted.num_empty,
            "too_long": self.fitted.num_long,
            "too_long_are": {"drop": "left out", "cut": "cut", "refuse": "refused"}[self.too_long],
            "learned_from": len(kept) - self.held_out[0],
            "held_out": self.held_out[0],
            "held_out_prompts": self.held_out[1],
            "context": self.fitted.context,
            "response_limit": self.fitted.max_data_tokens,
            "prompt_tokens": _spread([len(row.prompt) for row in kept]),
            "response_tokens": _spread([len(response) for row in kept for response in row.responses]),
            "responses": sum(len(row.responses) for row in kept),
            "responses_with_an_end": ended,
            "ends": [self._piece(i) for i in sorted(self._ends)],
            "through_chat_template": sum(isinstance(prompt, Templated) for prompt, _, _ in self.items),
            "example": self._example(),
        }

    @property
    def _ends(self) -> frozenset[int]:
        return end_ids_of(self.tokens)

    def _example(self) -> dict[str, Any] | None:
        """Return the first row that is cut, or else the first that is learned from."""
        number = next(iter(self.fitted.cut), None)
        if number is None:
            number = next((i for i, row in enumerate(self.fitted.rows) if row is not None), None)
        row = None if number is None else self.fitted.rows[number]
        if number is None or row is None:
            return None
        before = self.fitted.cut.get(number, row)
        return {
            "number": number + 1,
            "prompt": row.prompt,
            "prompt_loses": len(before.prompt) - len(row.prompt),
            "responses": [
                {"is": name, "ids": ids, "loses": len(whole) - len(ids)}
                for name, ids, whole in zip(self.items[number][2], row.responses, before.responses, strict=True)
            ],
        }

    def _piece(self, number: int) -> str:
        return str(self.tokens.tokenizer.convert_ids_to_tokens(number))

    def to_text(self) -> str:
        """Return it in plain words."""
        all_, what = self.to_json(), LEARNED[self.verb]
        known = all_["of_prompts"]
        lines = [
            f"{self.data}, as prefrl text {self.verb} would learn from it with {self.model}",
            "",
            _line("rows", f"{all_['rows']:,}" if all_["rows"] else "of no file"),
            *(_line("form", f"{form} ({count:,} rows)") for form, count in all_["forms"].items()),
            *(_line("left out", f"{count:,} rows: {why}") for why, count in all_["left_out"].items()),
            *(_line("noted", f"{count:,} rows: {why}") for why, count in all_["noted"].items()),
            _line(what, f"{len(self.items):,}, of {known:,} prompts" + _labels(all_["labels"])),
            _line("chat template", self._template(all_["through_chat_template"])),
        ]
        if self.fitted.num_empty:
            lines.append(_line("left out", f"{self.fitted.num_empty:,} {what}: a prompt without a token"))
        if self.fitted.num_long:
            lines.append(
                _line(
                    all_["too_long_are"],
                    f"{self.fitted.num_long:,} {what}: longer than the limit; the longest row has "
                    f"{self.fitted.longest_row:,} tokens, the longest response {self.fitted.longest_response:,}",
                )
            )
        kept = f"{all_['learned_from']:,} {what}"
        if self.held_out[0]:
            kept += f"; to judge by, {self.held_out[0]:,} are held out, all those to {self.held_out[1]:,} prompts"
        lines += [
            _line("learned from", kept),
            _line("limits", f"{all_['response_limit']:,} tokens of a response, {all_['context']:,} in all"),
            _line("tokens", f"prompts {_range(all_['prompt_tokens'])}"),
        ]
        if all_["responses"]:
            ends = f"{all_['responses_with_an_end']:,} of {all_['responses']:,} responses come to an end"
            lines += [
                _line("", f"responses {_range(all_['response_tokens'])}"),
                _line("ends", f"{ends} ({' or '.join(all_['ends'])})"),
            ]
        if example := all_["example"]:
            lines += ["", f"Number {example['number']:,} of the {what}, token by token:"]
            lines += self._tokens("prompt", example["prompt"], cut=example["prompt_loses"])
            for response in example["responses"]:
                lines += self._tokens(response["is"], response["ids"], lost=response["loses"])
        return "\n".join(lines)

    def _template(self, count: int) -> str:
        """Say what became of conversations."""
        if not getattr(self.tokens.tokenizer, "chat_template", None):
            return "the tokenizer has none; message lists become '\\n\\nHuman: ...\\n\\nAssistant: ...'"
        texts = len(self.items) - count
        return f"applied to {count:,}" + (f"; {texts:,} are texts and stay as they are" if texts else "")

    def _tokens(self, name: str, ids: Sequence[int], *, cut: int = 0, lost: int = 0) -> list[str]:
        """Return the tokens of a text as they are in the vocabulary, and what it lost."""
        first, last = SHOWN_TOKENS
        shown = [json.dumps(self._piece(i), ensure_ascii=False)[1:-1].replace(" ", "␣") for i in ids]
        if len(shown) > first + last:
            shown = [*shown[:first], f"({len(shown) - first - last:,} more)", *shown[-last:]]
        begun = [f"({cut:,} cut off)"] if cut else []
        ended = [f"({lost:,} cut off)"] if lost else []
        return [f"  {name}, {len(ids):,} tokens:", "    " + " ".join([*begun, *shown, *ended])]


def check(data: str, model: str, verb: str | None, place: Place) -> Check:
    """Return what a verb will learn from data, read as for a model; no weights are loaded.

    Args:
        data: a file, a record or a world.
        model: a run, a folder or a hub id.
        verb: one of `LEARNED`; None: the one that the rows of a file are for.
        place: limits, columns and seed, as of the job.

    Raises:
        UserError: the job would refuse the data, with what it would say.
    """
    if verb is None:
        verb = _verb_for(data, place)
    elif verb not in LEARNED:
        raise UserError(f"--verb must be one of {', '.join(LEARNED)}. Received {verb!r}")
    tokens, context = load_reader(model)
    reading, encoder = place.reading(tokens), place.encoder(tokens, context)
    items = [_item(thing) for thing in _read(data, verb, place.seed, reading)]
    texts = [(prompt, responses) for prompt, responses, _ in items]
    if LEARNED[verb] == "prompts":
        fitted, held_out = _prompts(encoder, [prompt for prompt, _ in texts]), []
    else:
        fitted = encoder.fit(texts)
        if not any(fitted.rows) or (place.too_long == "refuse" and (fitted.num_long or fitted.num_empty)):
            encoder.rows(texts)  # says why
        kept = [item for item, row in zip(items, fitted.rows, strict=True) if row is not None]
        judged = [item for item in kept if verb != "reward" or set(item[2]) != {"tied"}]
        if LEARNED[verb] == "comparisons" and all(set(names) == {"tied"} for _, _, names in kept):
            raise UserError(f"All {len(kept):,} comparisons in {data} are ties, from which nothing can be learned.")
        held_out = split_by(judged, [prompt_key(prompt) for prompt, _, _ in judged], place.seed)[1]
    return Check(
        data=data, model=model, verb=verb, reading=reading, items=items, fitted=fitted, tokens=tokens,
        too_long="drop" if LEARNED[verb] == "prompts" else place.too_long,
        held_out=(len(held_out), len({prompt_key(prompt) for prompt, _, _ in held_out})),
    )  # fmt: skip


def _read(data: str, verb: str, seed: int, reading: Reading) -> Sequence[RankedResponses | Liked | Example | str]:
    if verb == "kto":
        return sources.read_likes(data, reading)
    if verb == "sft":
        return sources.read_examples(data, seed=seed, count=8_000, reading=reading)
    if LEARNED[verb] == "prompts":
        return sources.read_prompts(data, seed=seed, count=None, reading=reading)
    return sources.read_rankings(data, reading)


def _item(thing: RankedResponses | Liked | Example | str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Return a prompt, its responses, and what each of them is."""
    if isinstance(thing, str):
        return thing, (), ()
    if isinstance(thing, Example):
        return thing.prompt, (thing.response,), ("response",)
    if isinstance(thing, Liked):
        return thing.prompt, texts_of(thing), ("liked" if thing.liked else "disliked",)
    if len(set(thing.ranks)) == 1:
        return thing.prompt, thing.responses, ("tied",) * len(thing.ranks)
    if len(thing.ranks) == 2:
        return thing.prompt, thing.responses, tuple("chosen" if rank == 0 else "rejected" for rank in thing.ranks)
    return thing.prompt, thing.responses, tuple(f"rank {rank + 1}" for rank in thing.ranks)


def _prompts(encoder: Encoder, prompts: Sequence[str]) -> Fitted:
    """Return prompts as ids, None for those behind which a response has no room."""
    fitted = Fitted(max_data_tokens=encoder.max_response_tokens, context=encoder.context)
    for prompt in prompts:
        ids = encoder.prompt_ids(prompt)
        fitted.rows.append(Row(ids, []) if encoder.leaves_room(prompt) else None)
        fitted.num_empty += not ids
        fitted.num_long += len(ids) > encoder.max_prompt_tokens
        fitted.longest_row = max(fitted.longest_row, len(ids))
    return fitted


def _verb_for(data: str, place: Place) -> str:
    """Return what the rows of a file are for: kto if there are likes, else the most that can be learned from them."""
    if sources.world_named(data) is not None or is_record(data):
        raise UserError(f"{data} is not a file, so say what is to be learned: --verb {', '.join(LEARNED)}")
    found: list[Found] = sources.read_items(data, lambda row: [row], "anything", place.reading())
    if any(row.liked is not None for row in found):
        return "kto"
    if any(row.ranks is not None for row in found):
        return "dpo"
    if all(row.text is not None for row in found):
        raise UserError(f"{data} holds texts. They are learned from by: prefrl text pretrain, which needs no --model.")
    return "sft" if all(len(row.responses) == 1 for row in found) else "ppo"


def _counts(names: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in names:
        found[name] = found.get(name, 0) + 1
    return found


def _labels(counts: dict[str, int]) -> str:
    told = {name: count for name, count in counts.items() if name in ("tied", "liked", "disliked")}
    return "".join(f", {count:,} {'responses tied' if name == 'tied' else name}" for name, count in told.items())


def _spread(lengths: Sequence[int]) -> list[float] | None:
    return [min(lengths), median(lengths), max(lengths)] if lengths else None


def _range(spread: Sequence[float] | None) -> str:
    return "none" if spread is None else f"{spread[0]:,} to {spread[2]:,}, median {spread[1]:,.0f}"


def _line(name: str, said: str) -> str:
    return f"  {name:<13} {said}"

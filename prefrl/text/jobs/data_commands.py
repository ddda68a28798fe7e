"""Verbs of `prefrl text` about what is learned from: shown, converted, compared, judged, asked of people."""

from __future__ import annotations

import json as json_module
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.console import Console

from prefrl.envs.text_worlds import DEFAULT_WORLD
from prefrl.errors import UserError
from prefrl.files import text_or_file
from prefrl.text.data import sources
from prefrl.text.data.annotating import draw_responses, rank_by
from prefrl.text.data.chat import chat_of
from prefrl.text.data.converting import convert as convert_rows
from prefrl.text.data.examples import Encoder, TooLong
from prefrl.text.data.forms import Reading, columns_of
from prefrl.text.data.judge import DEFAULT_CONSTITUTION, ServerJudge, judge_pairs, make_judge
from prefrl.text.data.recorded import ask_people, record_remarks
from prefrl.text.jobs.checking import check as check_data
from prefrl.text.jobs.parts import Place, fitting, say
from prefrl.text.jobs.worlds import world_of
from prefrl.text.learn.runtime import Runtime
from prefrl.text.model.generation import SamplingSettings
from prefrl.text.model.models import context_length, load_model


def check(
    *, data: str, model: str, verb: str | None = None, max_tokens: int | None = None, too_long: TooLong = "drop",
    columns: tuple[str, ...] = (), seed: int = 0, json: bool = False,
) -> None:  # fmt: skip
    """Show what would be learned from data with a model: forms, rows, lengths, what is left out or cut, the tokens.

    Args:
        data: a file, a record or a world.
        model: whose tokenizer, chat template and context count; its weights are not read.
        verb: reward, dpo, ipo, simpo, kto, sft, ppo or its like; default: what the rows of a file are for.
        max_tokens: longest response, its end included, as for the verb.
        too_long: drop, cut or refuse, as for the verb.
        columns: OURS=THEIRS, as for the verb.
        seed: as for the verb.
        json: print one JSON object, with the ids of the example.
    """
    place = Place(max_tokens=max_tokens, too_long=too_long, columns=columns, seed=seed)
    found = check_data(data, model, verb, place)
    print(json_module.dumps(found.to_json(), ensure_ascii=False) if json else found.to_text())


def convert(*, data: Path, out: Path, columns: tuple[str, ...] = ()) -> None:
    """Write a data file of another form as one of ours, conversations as lists of messages; see docs/text.md.

    Args:
        data: a JSONL, JSON or Parquet file.
        out: the JSONL file to write.
        columns: OURS=THEIRS, for columns of other names.
    """
    if out.suffix != ".jsonl":
        raise UserError(f"--out must end in .jsonl, as the file is one. Received {out}")
    if out.exists() and data.exists() and out.samefile(data):
        raise UserError(f"--out is the file that is read, {data}. Choose another name; yours stays as it is.")
    reading = Reading(columns=columns_of(columns))
    rows = convert_rows(str(data), reading)
    say(str(data), reading)
    sources.write_rows(out, rows)
    forms = ", ".join(f"{count:,} of {form}" for form, count in reading.forms.items())
    Console(stderr=True).print(f"Wrote {len(rows):,} rows to {out}: {forms}", markup=False)


def compare(
    model: str, *, out: Path, data: str = DEFAULT_WORLD, prompts: int = 1000, responses: int = 4,
    temperature: float = 0.5, max_tokens: int = 64, seed: int = 1, device: str = "auto",
) -> None:  # fmt: skip
    """Have a model answer customers, and rank its answers as an annotator would who feels the gold reward.

    Args:
        model: who answers.
        out: the JSONL file of rankings to write.
        data: servicedesk, docstrings, a world of your own as module:Name, or prompts of one. For others see judge and
            ask.
        prompts: how many.
        responses: to each prompt, 2 to 9.
        temperature: noise of the annotator (Plackett-Luce); 0: none.
        max_tokens: longest response.
        seed: of prompts, draws and noise.
        device: auto, cpu or cuda.
    """
    world = world_of(data, seed)
    if world is None:
        raise UserError(
            f"No world knows the prompts of {data}, so no gold reward can rank responses to them. Use prefrl text "
            "judge, or ask people: ask."
        )
    asked, texts = _drawn(model, data, prompts, responses, max_tokens, seed, device)
    ranked = rank_by(world.gold, asked, texts, temperature=temperature, seed=seed)
    if not ranked:
        raise UserError(
            f"No prompt got two different answers that end within {max_tokens} tokens; there is nothing to rank. "
            "Raise --max-tokens, --responses or --prompts."
        )
    sources.write_rows(out, sources.ranking_rows(ranked))
    Console(stderr=True).print(f"Wrote {len(ranked)} rankings to {out}")


def judge(
    *, out: Path, judge: str = "rule", data: str = DEFAULT_WORLD, model: str | None = None, prompts: int = 500,
    constitution: Path | None = None, max_tokens: int = 64, seed: int = 1, device: str = "auto", timeout: float = 60.0,
) -> None:  # fmt: skip
    """Have a judge say, in both orders, which of two responses is better under a written constitution.

    Args:
        out: the JSONL file of comparisons to write.
        judge: rule (of servicedesk and docstrings), a folder or hub id of a causal language model, or the address of an
            OpenAI-compatible server as URL#MODEL, e.g. http://localhost:8000/v1#qwen (its key in PREFRL_JUDGE_KEY).
        data: prompts; or rows with prompt and responses or chosen and rejected, of which every pair is judged (anew).
        model: who answers the prompts, if the data hold none.
        prompts: how many at most.
        constitution: a text file; default: a short one.
        max_tokens: longest response.
        seed: of prompts and draws.
        device: auto, cpu or cuda.
        timeout: seconds to wait for a server's answer.
    """
    written = DEFAULT_CONSTITUTION if constitution is None else _read_text(constitution)
    asker = make_judge(judge, written, device=device, timeout=timeout)
    if model is not None:
        asked, texts = _drawn(model, data, prompts, 2, max_tokens, seed, device)
    else:
        reading = Reading()
        given = sources.read_responses(data, reading)
        if len(given) > prompts:
            reading.noted[f"beyond the first {prompts:,} (--prompts), not judged"] = len(given) - prompts
            given = given[:prompts]
        say(data, reading)
        asked, texts = [prompt for prompt, _ in given], [list(responses) for _, responses in given]
    pairs = [(prompt, pair) for prompt, row in zip(asked, texts, strict=True) for pair in combinations(row, 2)]
    console = Console(stderr=True)
    if isinstance(asker, ServerJudge):
        asker.keep_answers(out.with_name(f"{out.name}.answers.jsonl"))
    rows: list[dict[str, Any]] = []
    try:
        left_out = judge_pairs(asker, [prompt for prompt, _ in pairs], [pair for _, pair in pairs], rows)
    except (UserError, KeyboardInterrupt):
        if rows:
            sources.write_rows(out, rows)
            again = " The same command goes on from there." if isinstance(asker, ServerJudge) else ""
            console.print(f"Wrote {len(rows)} judged pairs to {out} so far.{again}")
        raise
    told = "; ".join(f"{num} of {len(pairs)} pairs: {reason}" for reason, num in left_out.items())
    if told and not rows:
        raise UserError(f"Nothing was judged by {asker.name}. {told}. Take another judge or constitution.")
    sources.write_rows(out, rows)
    console.print(f"Wrote {len(rows)} judged pairs to {out}")
    if told:
        console.print(f"Left out {told}.")


def ask(
    model: str, *, record: str, data: str = DEFAULT_WORLD, prompts: int = 100, responses: int = 2,
    scale: int | None = None, instruction: str = "", overlap: int = 1, max_tokens: int = 64, seed: int = 1,
    device: str = "auto",
) -> None:  # fmt: skip
    """Put a model's responses into a record, for people to compare; give the record as --data afterwards.

    Args:
        model: who answers.
        record: the record: a file ending in .sqlite, the folder of a run, or the address of a database.
        data: prompts.
        prompts: how many at most.
        responses: to each prompt: 2 are compared, 3 to 9 are ranked.
        scale: have each response rated from 1 to this, 2 to 9, instead; one response to a prompt will do then.
        instruction: what people are told to look for: a text, or a file that holds it.
        overlap: people who are asked each question, so that their agreement is known.
        max_tokens: longest response.
        seed: of prompts and draws.
        device: auto, cpu or cuda.
    """
    fewest = 2 if scale is None else 1
    asked, texts = _drawn(model, data, prompts, responses, max_tokens, seed, device, fewest)
    told = text_or_file(instruction)
    count = ask_people(record, asked, texts, scale=scale, instruction=told, overlap=overlap)
    shown = record if "://" in record else record.removeprefix("sqlite:")
    Console(stderr=True).print(
        f"{count} questions wait in {record}. Answer them with: prefrl label {shown}, or in the browser: "
        f"prefrl serve {shown}"
    )


def tell(*, record: str, data: str, annotator: str) -> None:
    """Put what a person wrote about responses into a record: edits and critiques.

    Args:
        record: the record: a file ending in .sqlite, the folder of a run, or the address of a database.
        data: a JSONL or Parquet file with prompt, response, and edited (the response as it should read), critique or
            both.
        annotator: name of who wrote it.
    """
    remarks = sources.read_remarks(data)
    record_remarks(record, remarks, annotator)
    Console(stderr=True).print(f"{len(remarks)} remarks of {annotator} are in {record}")


def _drawn(
    model: str, data: str, prompts: int, responses: int, max_tokens: int, seed: int, device: str, fewest: int = 2
) -> tuple[list[str], list[list[str]]]:
    """Return prompts and a model's responses to each."""
    if not fewest <= responses <= 9:
        raise UserError(f"responses must be {fewest} to 9. Received {responses}")
    policy, tokens = load_model(model)
    policy.to(Runtime(device).device)
    encoder = Encoder(tokens, context_length(policy), max_tokens)
    reading = Reading(chat=chat_of(tokens.tokenizer))
    asked = fitting(encoder, sources.read_prompts(data, seed=seed, count=prompts, reading=reading))
    say(data, reading)
    sampling = SamplingSettings(max_tokens=max_tokens)
    drawn = draw_responses(policy, encoder, asked, responses, sampling, seed=seed)
    shown = zip(asked, drawn.texts, strict=True)
    return asked, [[text for text in row if encoder.fits(prompt, text)] for prompt, row in shown]


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"The constitution {path} cannot be read: {error.strerror or error}") from None

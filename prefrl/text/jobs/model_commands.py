"""Verbs of `prefrl text` about models and runs: measured, sampled from, drawn."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from prefrl.errors import UserError
from prefrl.files import write_atomically, write_json
from prefrl.runs.metrics import finite
from prefrl.tables import Table
from prefrl.text.data.chat import chat_of
from prefrl.text.data.examples import Encoder
from prefrl.text.data.forms import Reading
from prefrl.text.jobs.answers import describe_answers, read_answers
from prefrl.text.jobs.curve import read_chain, summarise_chain
from prefrl.text.jobs.curve_plot import plot_curves
from prefrl.text.jobs.curve_words import describe
from prefrl.text.jobs.folder import TextFolder
from prefrl.text.jobs.inputs import settings_of
from prefrl.text.jobs.parts import load_proxy, run_of
from prefrl.text.jobs.run_report import describe_run, plot_run, report_of
from prefrl.text.jobs.worlds import prompts_of_run
from prefrl.text.learn.policy_measures import answer_prompts, evaluate_policy
from prefrl.text.learn.runtime import Runtime
from prefrl.text.model.generation import SamplingSettings
from prefrl.text.model.models import context_length, load_model

MOST_SAMPLES = 100_000
SHOWN_PROMPTS = 2
"""Whose answers stand below the curve; the others are in answers.md."""


def evaluate(
    model: tyro.conf.Positional[str], *, data: str | None = None, reference: str | None = None,
    reward: tuple[str, ...] = (), prompts: int = 256, max_tokens: int = 64, temperature: float = 1.0, seed: int = 0,
    device: str = "auto", json: bool = False,
    trust: bool = False,
) -> None:  # fmt: skip
    """Measure a policy: gold reward, proxy, divergence, length, repetition, end rate.

    Args:
        model: a run, a folder or a hub id.
        data: prompts; of a world held-out ones. Default: those of what the run was trained on, else servicedesk.
        reference: what divergence is measured from; default: what the run started from, or the model itself.
        reward: reward models to use as the proxy.
        prompts: how many at most.
        max_tokens: longest response.
        temperature: logits are divided by it.
        seed: of the draws.
        device: auto, cpu or cuda.
        json: print one JSON object.
        trust: the run was made by another user or on another machine: use what its config.json names.
    """
    runtime = Runtime(device)
    folder = run_of(model, trust=trust)
    if folder is not None:
        reference = reference or folder.setting(str, "model", within=settings_of(folder))
    policy, tokens = load_model(model)
    reading = Reading(chat=chat_of(tokens.tokenizer))
    asked, world = prompts_of_run(folder, data, seed=seed, count=prompts, reading=reading)
    base = load_model(reference)[0] if reference else policy
    encoder = Encoder(tokens, context_length(policy), max_tokens)
    proxy = load_proxy(reward, tokens, runtime, 1.0)
    row = evaluate_policy(
        policy.to(runtime.device), base.to(runtime.device), encoder,
        asked, SamplingSettings(max_tokens=max_tokens, temperature=temperature),
        gold=None if world is None else world.gold,
        proxy=proxy, seed=seed,
    )  # fmt: skip
    row.pop("gold_each", None)
    _show(row, json)


def sample(
    model: tyro.conf.Positional[str], *, prompt: tuple[str, ...] = (), samples: int = 1, max_tokens: int = 64,
    temperature: float = 1.0, greedy: bool = False, seed: int = 0, device: str = "auto", json: bool = False,
    trust: bool = False,
) -> None:  # fmt: skip
    """Print responses of a policy.

    Args:
        model: a run, a folder or a hub id.
        prompt: what it is asked; default: a few prompts of what the run was trained on, else of servicedesk.
        samples: responses to each.
        max_tokens: longest response.
        temperature: logits are divided by it.
        greedy: take the likeliest token.
        seed: of the draws.
        device: auto, cpu or cuda.
        json: print one JSON object a line.
        trust: the run was made by another user or on another machine: use what its config.json names.
    """
    if not 1 <= samples <= MOST_SAMPLES:
        raise UserError(f"--samples must be from 1 to {MOST_SAMPLES:,}. Received {samples}")
    policy, tokens = load_model(model)
    policy.to(Runtime(device).device)
    encoder = Encoder(tokens, context_length(policy), max_tokens)
    reading = Reading(chat=chat_of(tokens.tokenizer))
    folder = run_of(model, trust=trust)
    some = list(prompt) or prompts_of_run(folder, None, seed=seed, count=3, reading=reading)[0][:3]
    asked = [text for text in some for _ in range(samples)]
    settings = SamplingSettings(max_tokens=max_tokens, temperature=temperature, greedy=greedy)
    answers = answer_prompts(policy, encoder, asked, settings, seed=seed)
    for text, response, ended in zip(answers.prompts, answers.texts, answers.ended, strict=True):
        if json:
            print(json_module.dumps({"prompt": text, "response": response, "ended": ended}, ensure_ascii=False))
        else:
            print(f"{text}{response}{'' if ended else ' ...'}\n")


def report(chains: tyro.conf.Positional[tuple[Path, ...]], *, out: Path | None = None, json: bool = False) -> None:
    """Draw one run; or gold and proxy reward against sqrt(KL) for all methods of one or more chains (seeds).

    Args:
        chains: one run of prefrl text, or folders that prefrl text demo made.
        out: folder for report.png and report.md, or curve.png, curve.md and curve.json; default: the first folder.
        json: print the figures as one JSON object.
    """
    if not chains:
        raise UserError("Name a run of prefrl text, or at least one folder that prefrl text demo made.")
    place = out or chains[0]
    runs = [path for path in chains if (path / "config.json").is_file()]
    if runs and len(chains) > 1:
        raise UserError(f"One run at a time. {runs[0]} is a run, and {len(chains)} folders were named.")
    if runs:
        folder = TextFolder.open(runs[0], reads_only=True)
        place.mkdir(parents=True, exist_ok=True)
        plot_run(folder, place / "report.png")
        text, table = describe_run(folder), finite(report_of(folder))
        write_atomically(place / "report.md", text)
        written = "report.png and report.md"
    else:
        curves = [curve for chain in chains for curve in read_chain(chain)]
        drawn = next(filter(None, map(read_answers, chains)), None)
        place.mkdir(parents=True, exist_ok=True)
        plot_curves(curves, place / "curve.png")
        text, table = describe(curves), finite(summarise_chain(curves))
        write_json(place / "curve.json", table)
        written = "curve.png, curve.md and curve.json"
        if drawn:
            text += "\n" + describe_answers(drawn, SHOWN_PROMPTS)
            write_atomically(place / "answers.md", describe_answers(drawn))
            written = "curve.png, curve.md, curve.json and answers.md, which has more answers"
        write_atomically(place / "curve.md", text)
    print(json_module.dumps(table) if json else f"{text}\nWrote {place}/{written}")


def _show(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json_module.dumps(finite(row), allow_nan=False))
        return
    table = Table("figure", "value")
    for name, value in row.items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    Console().print(table)

"""`prefrl text`: one verb per job, from pretraining to the curve."""

from __future__ import annotations

import json as json_module
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from prefrl.envs.text_worlds import DEFAULT_WORLD
from prefrl.errors import UserError
from prefrl.files import text_or_file, write_atomically, write_json
from prefrl.runs.metrics import finite
from prefrl.text.data import sources
from prefrl.text.data.annotating import draw_responses, rank_by
from prefrl.text.data.chat import chat_of
from prefrl.text.data.converting import convert as convert_rows
from prefrl.text.data.examples import Encoder, TooLong
from prefrl.text.data.forms import Reading, columns_of
from prefrl.text.data.judge import DEFAULT_CONSTITUTION, ServerJudge, judge_pairs, make_judge
from prefrl.text.data.recorded import ask_people, record_remarks
from prefrl.text.jobs import jobs
from prefrl.text.jobs.bestofn import BestOfNJob
from prefrl.text.jobs.checking import check as check_data
from prefrl.text.jobs.curve import read_chain, summarise_chain
from prefrl.text.jobs.curve_plot import plot_curves
from prefrl.text.jobs.curve_words import describe
from prefrl.text.jobs.demo import Demo, DemoSettings
from prefrl.text.jobs.folder import TextFolder
from prefrl.text.jobs.inputs import settings_of
from prefrl.text.jobs.parts import Place, fitting, load_proxy, run_of, say
from prefrl.text.jobs.run_report import describe_run, plot_run, report_of
from prefrl.text.jobs.worlds import prompts_of_run, world_of
from prefrl.text.learn.policy_measures import answer_prompts, evaluate_policy
from prefrl.text.learn.runtime import Runtime, on_main_process
from prefrl.text.model.generation import SamplingSettings
from prefrl.text.model.models import context_length, load_model
from prefrl.text.model.options import INSTEAD

OLD_PREFIX = "--place."
"""How --device, --seed, --bf16 and --max-tokens of jobs used to begin."""

app = tyro.extras.SubcommandApp()
Folder = tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
Whole = tyro.conf.arg(name="")


@app.command
def pretrain(job: Annotated[jobs.PretrainJob, Whole], *, out: Path, quiet: bool = False) -> None:
    """Train a small language model and its tokenizer from nothing."""
    _train(job, out, quiet)


@app.command
def sft(job: Annotated[jobs.SFTJob, Whole], *, out: Path, quiet: bool = False) -> None:
    """Fine-tune a language model on examples; the loss is on responses only."""
    _train(job, out, quiet)


@app.command
def reward(job: Annotated[jobs.RewardJob, Whole], *, out: Path, members: int = 1, quiet: bool = False) -> None:
    """Fit a reward model to comparisons and rankings, or several that differ in seed and bootstrap.

    Args:
        job: the run.
        out: run folder; with several members their folders out-0, out-1, ...
        members: how many.
        quiet: no progress.
    """
    if members < 1:
        raise UserError(f"members must be at least 1. Received {members}")
    if members == 1:
        _train(job, out, quiet)
        return
    for number in range(members):
        training = replace(job.training, seed=job.place.seed * 100 + number, bootstrap=True)
        _train(replace(job, training=training), out.with_name(f"{out.name}-{number}"), quiet)


@app.command
def ppo(job: Annotated[jobs.PPOJob, Whole], *, out: Path, quiet: bool = False) -> None:
    """Train a policy on a reward by PPO with a KL penalty; PPO-ptx with --pretraining."""
    _train(job, out, quiet)


@app.command
def dpo(job: Annotated[jobs.DPOJob, Whole], *, out: Path, quiet: bool = False) -> None:
    """Train a policy by direct preference optimisation, on pairs or (--training.rankings) whole rankings."""
    _train(job, out, quiet)


@app.command
def ipo(job: Annotated[jobs.IPOJob, Whole], *, out: Path, quiet: bool = False) -> None:
    """Train a policy by identity preference optimisation."""
    _train(job, out, quiet)


@app.command
def kto(job: Annotated[jobs.KTOJob, Whole], *, out: Path, quiet: bool = False) -> None:
    """Train a policy from likes and dislikes (Kahneman-Tversky optimisation)."""
    _train(job, out, quiet)


@app.command
def bestofn(job: Annotated[BestOfNJob, Whole], *, out: Path, quiet: bool = False) -> None:
    """Draw N responses to each prompt and keep the one that a reward likes best."""
    _train(job, out, quiet)


@app.command
def resume(run: Folder, *, quiet: bool = False, trust: bool = False, accept_changed: bool = False) -> None:
    """Go on with a run that was stopped or killed.

    Args:
        run: its folder.
        quiet: no progress.
        trust: it was made by another user or on another machine: use what its config.json names.
        accept_changed: go on with settings, data or models that were changed since.
    """
    _tell(jobs.resume(run, quiet=quiet, trust=trust, accept_changed=accept_changed), quiet)


@app.command
def check(
    *, data: str, model: str, verb: str | None = None, max_tokens: int | None = None, too_long: TooLong = "drop",
    columns: tuple[str, ...] = (), seed: int = 0, json: bool = False,
) -> None:  # fmt: skip
    """Show what would be learned from data with a model: forms, rows, lengths, what is left out or cut, the tokens.

    Args:
        data: a file, a record or a world.
        model: whose tokenizer, chat template and context count; its weights are not read.
        verb: reward, dpo, ipo, kto, sft or ppo; default: what the rows of a file are for.
        max_tokens: longest response, its end included, as for the verb.
        too_long: drop, cut or refuse, as for the verb.
        columns: OURS=THEIRS, as for the verb.
        seed: as for the verb.
        json: print one JSON object, with the ids of the example.
    """
    place = Place(max_tokens=max_tokens, too_long=too_long, columns=columns, seed=seed)
    found = check_data(data, model, verb, place)
    print(json_module.dumps(found.to_json(), ensure_ascii=False) if json else found.to_text())


@app.command
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


@app.command
def compare(
    model: str, *, out: Path, data: str = DEFAULT_WORLD, prompts: int = 1000, responses: int = 4,
    temperature: float = 0.5, max_tokens: int = 64, seed: int = 1, device: str = "auto",
) -> None:  # fmt: skip
    """Have a model answer customers, and rank its answers as an annotator would who feels the gold reward.

    Args:
        model: who answers.
        out: the JSONL file of rankings to write.
        data: servicedesk, a world of your own as module:Name, or prompts of one. For others see judge and ask.
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


@app.command
def judge(
    *, out: Path, judge: str = "rule", data: str = DEFAULT_WORLD, model: str | None = None, prompts: int = 500,
    constitution: Path | None = None, max_tokens: int = 64, seed: int = 1, device: str = "auto", timeout: float = 60.0,
) -> None:  # fmt: skip
    """Have a judge say, in both orders, which of two responses is better under a written constitution.

    Args:
        out: the JSONL file of comparisons to write.
        judge: rule (that of servicedesk), a folder or hub id of a causal language model, or the address of an
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
        odd = judge_pairs(asker, [prompt for prompt, _ in pairs], [pair for _, pair in pairs], rows)
    except (UserError, KeyboardInterrupt):
        if rows:
            sources.write_rows(out, rows)
            again = " The same command goes on from there." if isinstance(asker, ServerJudge) else ""
            console.print(f"Wrote {len(rows)} judged pairs to {out} so far.{again}")
        raise
    if odd and not rows:
        raise UserError(
            f"The judge {asker.name} answered all {odd} pairs with neither A nor B. Take another judge or constitution."
        )
    sources.write_rows(out, rows)
    console.print(f"Wrote {len(rows)} judged pairs to {out}")
    if odd:
        console.print(f"{odd} of {len(pairs)} pairs are left out: the judge answered neither A nor B.")


@app.command
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


@app.command
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


@app.command
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


@app.command
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


@app.command
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
    place.mkdir(parents=True, exist_ok=True)
    if runs:
        folder = TextFolder.open(runs[0], reads_only=True)
        plot_run(folder, place / "report.png")
        text, table = describe_run(folder), finite(report_of(folder))
        write_atomically(place / "report.md", text)
        written = "report.png and report.md"
    else:
        curves = [curve for chain in chains for curve in read_chain(chain)]
        plot_curves(curves, place / "curve.png")
        text, table = describe(curves), finite(summarise_chain(curves))
        write_atomically(place / "curve.md", text)
        write_json(place / "curve.json", table)
        written = "curve.png, curve.md and curve.json"
    print(json_module.dumps(table) if json else f"{text}\nWrote {place}/{written}")


@app.command
def demo(settings: Annotated[DemoSettings, Whole], *, out: Path = Path("runs/text-demo"), quiet: bool = False) -> None:
    """Make the whole chain from nothing, with every method, and draw the curve; it goes on where it stopped."""
    out.mkdir(parents=True, exist_ok=True)
    Demo(settings, out, quiet=quiet).run()
    report((out,))


def main(arguments: Sequence[str]) -> None:
    """Run `prefrl text`."""
    for given in arguments:
        if given.startswith(OLD_PREFIX):
            new = "--" + given.removeprefix(OLD_PREFIX)
            raise UserError(f"{given.partition('=')[0]} is called {new.partition('=')[0]} now, as in every command.")
        option = given.partition("=")[0].replace("_", "-")
        if option in INSTEAD:
            raise UserError(f"There is no option {option}. {INSTEAD[option]}")
    quieten_libraries()
    app.cli(prog="prefrl text", description="Language models from preferences.", args=list(arguments))


def quieten_libraries() -> None:
    """Silence what the libraries of language models say beside the work."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in ("transformers", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import transformers

    transformers.utils.logging.disable_progress_bar()


def _train(job: Any, out: Path, quiet: bool) -> None:
    _tell(jobs.start(job, out, quiet=quiet), quiet)


def _tell(folder: TextFolder, quiet: bool) -> None:
    if not quiet and on_main_process():
        figures = {key: value for key, value in folder.read_summary().items() if isinstance(value, int | float)}
        rows = folder.read_evaluations()
        if rows:
            figures |= {key: rows[-1][key] for key in ("gold", "proxy", "kl_nats", "length") if key in rows[-1]}
        print(f"{folder.path}: " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()))


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


def _show(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json_module.dumps(finite(row), allow_nan=False))
        return
    table = Table("figure", "value")
    for name, value in row.items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    Console().print(table)

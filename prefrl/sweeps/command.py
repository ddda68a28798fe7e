"""`prefrl sweep`: many runs of one question, from the command line or from a file."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from prefrl.control.pairs import pairs
from prefrl.control.settings import TrainSettings
from prefrl.errors import UserError, refuse_unused
from prefrl.files import parse_json
from prefrl.offline.settings import OfflineSettings
from prefrl.runs import tracking
from prefrl.runs.codec import to_json
from prefrl.runs.metrics import finite
from prefrl.sweeps.engine import Resources
from prefrl.sweeps.kinds import Kind, TextKind, kind_named
from prefrl.sweeps.naming import option_paths, place_of
from prefrl.sweeps.plan import Sweep, parse_value, read_sweep
from prefrl.sweeps.ranges import parse_range
from prefrl.sweeps.run import refuse_failed, run_sweep, show_swept
from prefrl.sweeps.search import SearchSettings
from prefrl.sweeps.searched import run_search, show_searched

USAGE = """usage: prefrl sweep train ENV [--vary NAME=VALUE,VALUE ...] [--seeds N] [OPTIONS] [options of prefrl train]
       prefrl sweep train ENV --one-at-a-time NAME=VALUE NAME=VALUE ... [--seeds N] ...
       prefrl sweep train ENV --search NAME=LOW..HIGH ... [--trials N] [--seeds N] ...
       prefrl sweep offline DATASET ...
       prefrl sweep text VERB ...
       prefrl sweep image VERB ...
       prefrl sweep FILE.toml [OPTIONS]

Make every combination of what is varied, once for each seed, on this machine or on a cluster of Ray; called again, it
goes on where it stopped. Values of --vary are separated by commas, or one JSON list: 'panel=[["oracle", "coin"]]'.
With --one-at-a-time each value is tried alone, beside the runs without any of them.

With --search it looks for the best values instead: NAME=LOW..HIGH, NAME=LOW..HIGH:log where a range spans magnitudes,
or NAME=A,B,C. Each trial is one combination, made once for each seed.
"""
Whole = tyro.conf.arg(name="")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Of the sweep itself."""

    seeds: int = 5
    """Runs of each kind, their seeds counted from --seed on."""
    out: Path | None = None
    """Folder of the sweep, on storage that all machines share; default: a name made of it, under runs/sweeps/."""
    address: str | None = None
    """Of a cluster of Ray: auto, or HOST:PORT; default: this machine alone."""
    cpus: float = 1.0
    """Processors of each run."""
    gpus: float = 0.0
    """GPUs of each run; 0.5: two runs share one."""
    memory_gb: float = 0.0
    """Memory that each run is counted for; 0: it is not."""
    retries: int = 20
    """How often a run goes on elsewhere after its process or its machine died."""
    measure: str | None = None
    """Figure of summary.json to compare or to search by; default: the one that says how good such runs are."""
    trials: int = 20
    """Combinations that a search tries."""
    minimise: bool = False
    """The best of a search is the least."""
    stop_early: str | None = None
    """A figure of metrics.jsonl by which a search stops what falls behind (ASHA); default: it makes each run whole."""
    quiet: bool = False
    """No progress."""
    json: bool = False
    """Print the results as one JSON object."""


def main(arguments: Sequence[str]) -> None:
    """Run `prefrl sweep`."""
    arguments = list(arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        tyro.cli(Options, prog="prefrl sweep", args=["--help"])
    what, rest = arguments[0], arguments[1:]
    vary, rest = _split(rest, "--vary")
    alone, rest = _split(rest, "--one-at-a-time")
    search, rest = _split(rest, "--search")
    if Path(what).suffix in (".toml", ".yaml", ".yml", ".json"):
        options = tyro.cli(Options, prog=f"prefrl sweep {what}", args=rest)
        sweep, name = read_sweep(Path(what)), Path(what).stem
        if vary or alone or search:
            raise UserError(
                f"What is varied or searched stands in {what}. Leave --vary, --one-at-a-time and --search out."
            )
        given = {word.partition("=")[0] for word in rest}
        for option in ("seeds", "trials"):
            if f"--{option}" in given:
                sweep = replace(sweep, **{option: getattr(options, option)})
        again = [what]
    else:
        if what in ("text", "image") and rest and not rest[0].startswith("-"):
            what, rest = f"{what} {rest[0]}", rest[1:]
        kind = kind_named(what)
        if {"-h", "--help"} & set(rest):
            print(USAGE)
            print(f"Options of each run are those of prefrl {what}; of the sweep they are:\n")
            tyro.cli(Options, prog=f"prefrl sweep {what}", args=["--help"])
        options, rest = tyro.cli(Options, prog=f"prefrl sweep {what}", args=rest, return_unknown_args=True)
        varied, changes, ranges = _varied(kind, vary), _varied(kind, alone), _ranges(kind, search)
        first = varied or {name: [one["low"]] if isinstance(one, dict) else one for name, one in ranges.items()}
        sweep = replace(
            _sweep(kind, rest, first, options.seeds), vary=varied, one_at_a_time=changes, search=ranges,
            trials=options.trials,
        )  # fmt: skip
        task = [one for one in rest[:1] if not one.startswith("-")]
        name = "-".join([what.replace(" ", "-"), *task, *(["search"] if ranges else []), *first, *changes])
        again = [what, *rest]
    out = options.out or Path("runs/sweeps") / "".join(c if c.isalnum() or c in "._-" else "-" for c in name)[:100]
    resources = Resources(
        address=options.address, cpus=options.cpus, gpus=options.gpus, memory_gb=options.memory_gb,
        retries=options.retries,
    )  # fmt: skip
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # a scheduler that takes the machine away stops it as Ctrl-C
    if not sweep.search:
        searching = {
            "--trials": options.trials != Options.trials, "--minimise": options.minimise,
            "--stop-early": options.stop_early,
        }  # fmt: skip
        refuse_unused(searching, "--search")
    try:
        if sweep.search:
            _search(sweep, out, options, resources, again)
            return
        swept = run_sweep(sweep, out, resources=resources, measure=options.measure, quiet=options.quiet or options.json)
    except KeyboardInterrupt:
        print("\nprefrl: Stopped; every run is saved. Call the same command again to go on.", file=sys.stderr)
        raise
    if options.json:
        found = {} if swept.results is None else swept.results.to_json()
        print(json.dumps(finite({**found, "failed": swept.failed, "restarts": swept.restarts}), allow_nan=False))
    else:
        show_swept(swept, out, Console())
        if swept.results is not None:
            print(f"Wrote {', '.join(str(out / f'results.{kind}') for kind in ('png', 'csv', 'json'))}")
    refuse_failed(swept)


def _search(sweep: Sweep, out: Path, options: Options, resources: Resources, again: Sequence[str]) -> None:
    """Search, and print what was found."""
    settings = SearchSettings(minimise=options.minimise, stop_early=options.stop_early)
    quiet = options.quiet or options.json
    found = run_search(sweep, out, settings, resources=resources, measure=options.measure, quiet=quiet)
    if options.json:
        print(json.dumps(finite(found.to_json()), allow_nan=False))
    else:
        show_searched(found, again, Console())
        print(f"Wrote {', '.join(str(out / f'results.{kind}') for kind in ('png', 'csv', 'json'))}")
    if found.failed:
        raise UserError(
            f"{len(found.failed)} of {len(found.trials)} trials failed, e.g. trial {found.failed[0].number}: "
            f"{found.failed[0].reason}"
        )


def _split(arguments: Sequence[str], option: str) -> tuple[list[str], list[str]]:
    """Return what an option is given, and the other words: those that follow it without = are none of its own.

    Raises:
        UserError: it is given nothing.
    """
    own, rest, within = [], [], False
    for number, word in enumerate(arguments):
        if word == option:
            within = True
            following = arguments[number + 1] if number + 1 < len(arguments) else ""
            if "=" not in following or following.startswith("-"):
                raise UserError(f"{option} is followed by NAME=VALUE,VALUE, e.g. labels=50,100. Received {following!r}")
        elif word.startswith(f"{option}="):
            own.append(word.removeprefix(f"{option}="))
        elif within and "=" in word and not word.startswith("-"):
            own.append(word)
        else:
            within = False
            rest.append(word)
    return own, rest


def _ranges(kind: Kind, words: Sequence[str]) -> dict[str, Any]:
    """Return the range of each setting that is searched, from `NAME=LOW..HIGH` or `NAME=VALUE,VALUE`."""
    ranges: dict[str, Any] = {}
    for word in words:
        name, _, text = word.partition("=")
        if name in ranges:
            raise UserError(f"{name} is searched twice. Give its range once.")
        between = parse_range(name, text)
        ranges |= _varied(kind, [word]) if between is None else {name: between}
    return ranges


def _varied(kind: Kind, words: Sequence[str]) -> dict[str, list[Any]]:
    """Return the values of each setting that is varied, from `NAME=VALUE,VALUE`."""
    varied: dict[str, list[Any]] = {}
    for word in words:
        name, _, text = word.partition("=")
        if not name or not text:
            raise UserError(f"Expected what is varied as NAME=VALUE,VALUE, e.g. labels=50,100. Received {word!r}")
        if name in varied:
            raise UserError(f"{name} is varied twice. Give all its values at once: {name}=A,B,C")
        if text.startswith("["):
            try:
                values = parse_json(text)
            except ValueError:
                raise UserError(f"The values of {name} are no JSON list: {text[:80]}") from None
        else:
            values = [parse_value(kind, name, one) for one in text.split(",")]
        varied[name] = values
    return varied


def _sweep(kind: Kind, arguments: list[str], varied: dict[str, list[Any]], seeds: int) -> Sweep:
    """Read the options of runs, as their own command reads them."""
    prog = f"prefrl sweep {kind.name}"
    arguments = [*_stand_ins(kind, arguments, varied), *arguments]
    settings: Any
    options: dict[str, Any]
    if kind.name == "train":
        settings, options = tyro.cli(_train, prog=prog, args=arguments)
    elif kind.name == "offline":
        settings, options = tyro.cli(_offline, prog=prog, args=arguments)
    else:
        settings, options = tyro.cli(_job_of(kind), prog=prog, args=arguments)
    values = to_json(settings)
    if isinstance(kind, TextKind):
        values = kind.as_given(values)
    return Sweep(command=kind.name, settings=values, vary=varied, seeds=seeds, options=options)


def _stand_ins(kind: Kind, arguments: Sequence[str], varied: dict[str, list[Any]]) -> list[str]:
    """Return the first value of each setting that must be given and is varied, for the command to read."""
    paths = option_paths(kind.settings)
    needed = {one.name for one in fields(kind.settings) if one.default is MISSING and one.default_factory is MISSING}
    found: list[str] = []
    for name, values in varied.items():
        place = place_of(name, paths, kind.aliases)
        if len(place) > 1 or place[0] not in needed or not values:
            continue
        words = [str(value) for value in (values[0] if isinstance(values[0], list) else [values[0]])]
        if place[0] in ("env_id", "dataset"):  # by their place, not by an option
            found = [*words, *found] if not (arguments and not arguments[0].startswith("-")) else found
        elif f"--{place[0]}" not in arguments:
            found += [f"--{place[0]}", *words]
    return found


def _train(
    settings: Annotated[TrainSettings, Whole], *, hyper: tuple[str, ...] = (), env: tuple[str, ...] = (),
    baseline: bool = False, baseline_only: bool = False, track: tuple[str, ...] = (),
    project: str = tracking.PROJECT,
) -> tuple[TrainSettings, dict[str, Any]]:  # fmt: skip
    settings = replace(
        settings,
        hyperparameters={**settings.hyperparameters, **pairs(hyper, "hyper-parameters", "learning_rate=0.001")},
        env_options={**settings.env_options, **pairs(env, "options of the environment", "hide_life_loss=false")},
    )
    return settings, {"baseline": baseline, "baseline_only": baseline_only, "track": track, "project": project}


def _offline(
    settings: Annotated[OfflineSettings, Whole], *, controls: tuple[str, ...] = (), track: tuple[str, ...] = (),
    project: str = tracking.PROJECT,
) -> tuple[OfflineSettings, dict[str, Any]]:  # fmt: skip
    return settings, {"controls": controls, "track": track, "project": project}


def _job_of(kind: Kind) -> Any:
    job_kind = kind.settings

    def tracked(job: Annotated[job_kind, Whole], *, track: tuple[str, ...] = ()) -> tuple[Any, dict[str, Any]]:  # type: ignore[valid-type]
        return job, {"track": track}

    def plain(job: Annotated[job_kind, Whole]) -> tuple[Any, dict[str, Any]]:  # type: ignore[valid-type]
        return job, {}

    read = tracked if "track" in kind.options else plain
    read.__annotations__["job"] = Annotated[job_kind, Whole]
    return read

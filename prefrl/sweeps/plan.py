"""Which runs a sweep is of: the settings, what is varied over them, the seeds, and a folder for each run."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefrl.errors import UserError, near_names, require
from prefrl.files import parse_json, read_json, read_plain, write_json
from prefrl.runs.codec import merged, to_json
from prefrl.runs.folder import installed_versions
from prefrl.runs.streams import check_seed
from prefrl.sweeps.kinds import ControlKind, Kind, kind_named
from prefrl.sweeps.machine import described_machine
from prefrl.sweeps.naming import default_values, get, option_paths, place_of, put
from prefrl.sweeps.ranges import Range, range_of

FORMAT, NAME = "prefrl.sweep", "sweep.json"
MOST_RUNS = 100_000
AS_GIVEN = "as given"
"""What runs are called in which nothing is varied."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Many runs of one question: every combination of what is varied, once for each seed."""

    command: str = "train"
    """train, offline, text VERB or image VERB."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of all runs, as `config.json` has them or by the names of options; the rest has its defaults."""
    vary: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Values of settings, by the names of options, e.g. `{"labels": [50, 100], "reward.num-members": [1, 3]}`."""
    one_at_a_time: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Values that settings have in turn, each alone, beside the runs without any of them, within each combination of
    what is varied: what does a part bring? E.g. `{"fit.crop": [0.3], "reward.network": ["dynamics"]}`."""
    seeds: int = 5
    """How many, counted from the seed in the settings."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What runs are told beside their settings, e.g. `{"baseline": True}`."""
    search: Mapping[str, Any] = field(default_factory=dict)
    """Instead of `vary`: ranges in which the best values are looked for, as `prefrl.sweeps.ranges` reads them, e.g.
    `{"hyper.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "reward.num-members": [1, 3]}`."""
    trials: int = 20
    """How many combinations are tried in a search."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a sweep."""

    name: str
    """Of its folder within the sweep's."""
    variant: str
    """What is varied, e.g. `labels=50, teacher=oracle`."""
    varied: dict[str, Any]
    seed: int
    settings: dict[str, Any]
    expected: dict[str, Any]
    """Settings as `config.json` of its folder will hold them; empty where only the run can tell."""
    baseline_of: str | None = None
    """The run whose baseline would be this one's as well and is not trained again; None: its own, where it has one."""


@dataclass(frozen=True, kw_only=True)
class CellMaker:
    """Makes the runs of one combination of values, checked."""

    kind: Kind
    options: Mapping[str, Any]
    base: dict[str, Any]
    """Settings of all runs."""
    places: Mapping[str, tuple[str, ...]]
    """Where the settings lie that are varied."""
    seed_place: tuple[str, ...]
    seeds: range

    def of(self, varied: dict[str, Any], folder: str) -> list[Cell]:
        """Return a run for each seed.

        Args:
            varied: values, by the names of settings.
            folder: of these runs, within the sweep's.

        Raises:
            UserError: runs with these values would be refused.
        """
        given = self.base
        for name, value in varied.items():
            given = put(given, self.places[name], value)
        variant = ", ".join(f"{name}={shown(value)}" for name, value in varied.items())
        resolved = _checked(self.kind, given, self.options, variant)
        return [
            Cell(
                name=f"{folder}/seed-{seed}",
                variant=variant or AS_GIVEN,
                varied=varied,
                seed=seed,
                settings=put(given, self.seed_place, seed),
                expected=put(resolved, self.seed_place, seed) if resolved else {},
            )
            for seed in self.seeds
        ]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All runs of a sweep, checked; of a search those at the ends of its ranges are, and the runs come later."""

    kind: Kind
    maker: CellMaker
    cells: tuple[Cell, ...]
    """Of a search: none."""
    search: dict[str, Range]
    trials: int
    options: dict[str, Any]
    described: dict[str, Any]
    """As `sweep.json` holds it."""

    @classmethod
    def of(cls, sweep: Sweep) -> Plan:
        """Work out and check every run.

        Raises:
            UserError: a setting that there is not, a value that its setting refuses, or nothing to do.
        """
        kind = kind_named(sweep.command)
        for name, value in (("seeds", sweep.seeds), ("trials", sweep.trials)):
            if type(value) is not int or value < 1:
                raise UserError(f"{name} must be a whole number of at least 1. Received {value!r}")
        if sweep.search and (sweep.vary or sweep.one_at_a_time):
            raise UserError(
                "Vary settings, or search for their best values: not both. Leave --search out, or --vary and "
                "--one-at-a-time."
            )
        options = _options(kind, sweep.options)
        paths = option_paths(kind.settings)
        base = merged(default_values(kind.settings), _placed(sweep.settings, paths, kind))
        asked = [*sweep.search, *sweep.vary, *sweep.one_at_a_time]
        places = [(name, place_of(name, paths, kind.aliases)) for name in asked]
        seed_place = paths["seed"]
        _check_places(places, seed_place)
        if any(name in sweep.one_at_a_time and place == (kind.task,) for name, place in places):
            task = kind.task.replace("_", "-")
            raise UserError(f"What is changed one at a time is changed in each task. Give tasks with --vary {task}=A,B")
        first = get(base, seed_place)
        if type(first) is not int:
            raise UserError(f"seed must be a whole number of at least 0. Received {first!r}")
        check_seed(first)
        seeds = range(first, first + sweep.seeds)
        if sweep.search and sweep.seeds * sweep.trials > MOST_RUNS:
            raise UserError(f"That would be {sweep.seeds * sweep.trials:,} runs; at most {MOST_RUNS:,} are made.")
        maker = CellMaker(
            kind=kind, options=options, base=base, places=dict(places), seed_place=seed_place, seeds=seeds
        )
        search = {name: range_of(name, given) for name, given in sweep.search.items()}
        described: dict[str, Any] = {
            "format": FORMAT, "version": 1, "made_by": "prefrl sweep", "command": kind.name,
            "settings": put(base, seed_place, first), "vary": {name: list(of) for name, of in sweep.vary.items()},
            "seeds": sweep.seeds, "options": to_json(options),
        }  # fmt: skip
        if sweep.one_at_a_time:
            described["one_at_a_time"] = {name: list(of) for name, of in sweep.one_at_a_time.items()}
        if search:
            described["search"] = {name: one.to_json() for name, one in search.items()}
            _check_ends(maker, search)
        cells = () if search else _with_baselines(maker, _every_cell(maker, sweep))
        return cls(
            kind=kind, maker=maker, cells=cells, search=search,
            trials=sweep.trials, options=options, described=json.loads(json.dumps(described)),
        )  # fmt: skip

    def options_of(self, cell: Cell) -> dict[str, Any]:
        """Return what a run is told beside its settings."""
        return self.options if cell.baseline_of is None else {**self.options, "baseline": False}

    def begin(self, out: Path) -> None:
        """Write down what the sweep is, or check that the folder is of this one.

        Raises:
            UserError: the folder holds another sweep, or something else.
        """
        path = out / NAME
        if not path.is_file():
            if out.exists() and (not out.is_dir() or any(out.iterdir())):
                raise UserError(f"{out} exists already and is not the folder of a sweep. Choose another --out.")
            write_json(path, {**self.described, "versions": installed_versions(), "machine": described_machine()})
            return
        found = read_described(path)
        # What an older version did not know yet has its default; `check_cell` looks at the runs themselves.
        known_now = {
            "settings": json.loads(json.dumps(default_values(self.kind.settings))),
            "options": self.kind.options,
        }
        for name, defaults in known_now.items():
            if isinstance(found.get(name), dict):
                found[name] = json.loads(json.dumps(merged(defaults, found[name])))
        differs = [
            name
            for name in ("command", "settings", "vary", "one_at_a_time", "options", "search")
            if found.get(name) != self.described.get(name)
        ]
        if differs:
            what = _difference(found, self.described, differs[0])
            raise UserError(
                f"{out} holds another sweep: {what}. Choose another --out, or call it as it was called to go on "
                "(with the version that it was begun with, if it is a default that is another now)."
            )
        known = found.get("seeds")
        if type(known) is not int or known < self.described["seeds"]:  # more seeds: the same sweep goes on
            write_json(path, {**found, "seeds": self.described["seeds"]})


def read_described(path: Path) -> dict[str, Any]:
    """Return what `sweep.json` says.

    Raises:
        UserError: it is none, or of a newer version.
    """
    found = read_json(path)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UserError(f"{path} was not written by prefrl sweep.")
    if found.get("version") != 1:
        raise UserError(f"{path} was written by a newer prefrl (format {found.get('version')}). Upgrade prefrl.")
    return found


def read_sweep(path: Path) -> Sweep:
    """Read a sweep from a TOML, YAML or JSON file.

    Its keys are the fields of `Sweep`.

    Raises:
        UserError: there is no such file, or it does not say what a sweep is.
    """
    try:
        text = read_plain(path).decode("utf-8-sig")
        if path.suffix == ".toml":
            found: Any = tomllib.loads(text)
        elif path.suffix in (".yaml", ".yml"):
            found = _read_yaml(text)
        elif path.suffix == ".json":
            found = parse_json(text)
        else:
            raise UserError(f"A sweep is read from .toml, .yaml or .json. Received {path}")
    except UserError:
        raise
    except Exception as error:  # each library has its own
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from error
    known = {
        "command": str, "settings": dict, "vary": dict, "one_at_a_time": dict, "seeds": int, "options": dict,
        "search": dict, "trials": int,
    }  # fmt: skip
    if not isinstance(found, dict):
        raise UserError(f"{path} should hold {', '.join(known)} by name. Received a {type(found).__name__}.")
    for name, value in found.items():
        if name not in known:
            raise UserError(f"{path}: there is no key {name!r}; known are {', '.join(known)}.{near_names(name, known)}")
        if type(value) is not known[name]:
            raise UserError(f"{path}: {name} should be of type {known[name].__name__}. Received {str(value)[:60]!r}")
    for part in ("vary", "one_at_a_time"):
        for name, values in found.get(part, {}).items():
            if not isinstance(values, list):
                raise UserError(f"{path}: {part}.{name} should be a list of values. Received {str(values)[:60]!r}")
    return Sweep(**found)


def _read_yaml(text: str) -> Any:
    yaml = require("yaml", "sweep")
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
        raise ValueError("a value stands for another (*name): a few of them can stand for billions. Write it out")
    return yaml.safe_load(text)


def _options(kind: Kind, given: Mapping[str, Any]) -> dict[str, Any]:
    options = dict(kind.options)
    for name, value in given.items():
        if name not in options:
            raise UserError(
                f"There is no option {name!r} of prefrl {kind.name} in a sweep; there are {', '.join(options)}."
            )
        known = options[name]
        if isinstance(known, tuple) and isinstance(value, list):
            value = tuple(value)
        if type(value) is not type(known):
            raise UserError(f"The option {name} should be like {known!r}. Received {value!r}")
        options[name] = value
    return options


def _placed(given: Mapping[str, Any], paths: Mapping[str, tuple[str, ...]], kind: Kind) -> dict[str, Any]:
    """Return settings by where they lie, from names as `config.json` or as the options have them."""
    placed: dict[str, Any] = {}
    for name, value in _flat(given):
        placed = put(placed, place_of(name, paths, kind.aliases), value)
    return placed


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _every_cell(maker: CellMaker, sweep: Sweep) -> Iterator[Cell]:
    """Return a run for every combination and seed; after each combination, those with one change more."""
    for name, values in (*sweep.vary.items(), *sweep.one_at_a_time.items()):
        if len(values) == 0:
            raise UserError(f"There is no value of {name} to vary.")
        if any(value in values[:number] for number, value in enumerate(values)):
            raise UserError(f"A value of {name} is given twice: {', '.join(map(shown, values))}.")
    changes = [{name: value} for name, values in sweep.one_at_a_time.items() for value in values]
    num = sweep.seeds * math.prod(map(len, sweep.vary.values())) * (1 + len(changes))
    if num > MOST_RUNS:
        raise UserError(f"That would be {num:,} runs; at most {MOST_RUNS:,} are made. Vary less at a time.")
    names: set[str] = set()
    for values in itertools.product(*sweep.vary.values()):
        varied = dict(zip(sweep.vary, values, strict=True))
        plain = maker.of(varied, _folder_name(varied, names))
        yield from plain
        for change in changes:
            changed = varied | change
            cells = maker.of(changed, _folder_name(changed, names))
            if (cells[0].expected or cells[0].settings) == (plain[0].expected or plain[0].settings):
                raise UserError(f"The runs with {cells[0].variant} are those without: leave that change out.")
            yield from cells


def _with_baselines(maker: CellMaker, cells: Iterator[Cell]) -> tuple[Cell, ...]:
    """Let runs that differ in what is asked alone have the baseline of the first of them, which is the same."""
    if not (isinstance(maker.kind, ControlKind) and maker.options["baseline"]):
        return tuple(cells)
    trained: dict[str, str] = {}
    shared = []
    for cell in cells:
        key = json.dumps(maker.kind.baseline_settings(cell.settings), sort_keys=True)
        first = trained.setdefault(key, cell.name)
        shared.append(cell if first == cell.name else dataclasses.replace(cell, baseline_of=first))
    return tuple(shared)


def _check_ends(maker: CellMaker, search: Mapping[str, Range]) -> None:
    """Check runs at both ends of every range, and with every choice, one setting at a time."""
    first = {name: one.values[0] for name, one in search.items()}
    for name, one in search.items():
        for value in one.values:
            maker.of({**first, name: value}, "")


def _check_places(places: Sequence[tuple[str, tuple[str, ...]]], seed_place: tuple[str, ...]) -> None:
    by_place: dict[tuple[str, ...], str] = {}
    for name, place in places:
        if place == seed_place:
            raise UserError("Seeds are counted by --seeds, from --seed on. Leave seed out of what is varied.")
        if by_place.get(place) == name:
            raise UserError(f"{name} is varied, and changed one at a time as well. Leave one of them out.")
        if place in by_place:
            raise UserError(f"{by_place[place]} and {name} are the same setting. Vary it once.")
        by_place[place] = name


def _checked(kind: Kind, values: dict[str, Any], options: Mapping[str, Any], variant: str) -> dict[str, Any]:
    try:
        return kind.check(values, options)
    except UserError as error:
        raise UserError(f"The runs with {variant} cannot be: {error}" if variant else str(error)) from error


def parse_value(kind: Kind, name: str, text: str) -> Any:
    """Return the value of a setting that a word of the command line stands for: JSON, or where it takes texts the text.

    Raises:
        UserError: there is no such setting.
    """
    kinds = _kinds_of(kind.settings, place_of(name, option_paths(kind.settings), kind.aliases))
    try:
        value = parse_json(text)
    except ValueError:
        return {"True": True, "False": False, "None": None}.get(text, text)
    only_texts = str in kinds and not any(one in kinds for one in (int, float, bool))
    if only_texts and not isinstance(value, str) and not (value is None and type(None) in kinds):
        return text
    return value


def _kinds_of(kind: Any, path: tuple[str, ...]) -> tuple[Any, ...]:
    """Return what kinds of values a setting takes; none where it is one of others by name."""
    for name in path:
        hints = typing.get_type_hints(kind) if dataclasses.is_dataclass(kind) and isinstance(kind, type) else {}
        if name not in hints:
            return ()
        kind = hints[name]
    return typing.get_args(kind) or (kind,)


def shown(value: Any) -> str:
    """Return a value as tables and names of folders show it."""
    return value if isinstance(value, str) else json.dumps(value)


def _folder_name(varied: Mapping[str, Any], taken: set[str]) -> str:
    words = [f"{name}-{shown(value)}" for name, value in varied.items()]
    name = re.sub(r"[^\w.+-]+", "-", "_".join(words)).strip("-.")[:100] or "runs"
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any], name: str) -> str:
    """Return in words the first place where two descriptions differ."""
    old, new, where = found.get(name), wanted.get(name), name
    while isinstance(old, dict) and isinstance(new, dict):
        key = next(key for key in sorted({*old, *new}) if old.get(key) != new.get(key))
        old, new, where = old.get(key), new.get(key), f"{where}.{key}"
    return f"its {where} is {json.dumps(old)[:80]}, and {json.dumps(new)[:80]} is asked for"

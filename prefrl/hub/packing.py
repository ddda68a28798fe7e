"""What of a run is shared: what it learned and its figures, or, asked for by name, its answers; no names of people.

People are known by the run's record: wherever one of them stands in settings and figures, it becomes `person-1` and so
on. Passwords, places of files on the machine where the run was made, trackers and digests of inputs stay behind.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from prefrl.control.folder import ControlFolder
from prefrl.dataset import export_record, import_record
from prefrl.errors import UserError, first_line
from prefrl.feedback import Answer
from prefrl.files import is_inside, parse_json, read_inside, read_json, write_atomically, write_json
from prefrl.image.folder import ImageFolder
from prefrl.offline.folder import OfflineFolder
from prefrl.runs.folder import RunFolder, format_of, record_place
from prefrl.store import PreferenceStore
from prefrl.text.jobs.folder import TextFolder
from prefrl.trust import without_passwords

SHARED = (
    "reward.safetensors", "policies/*.pt", "curves.png", "report.png", "report.json", "report.md",
    "videos/*.mp4", "samples/*.png", "model/*", "model/*/*",
)  # fmt: skip
"""As it is, where there is such a file; `report.json` and rows of figures without names."""
ROWS = ("metrics.jsonl", "evaluations.jsonl")
SHARED_NAMES = ("config.json", "summary.json", "README.md", *ROWS, *SHARED)
"""All that a shared run may hold, and all that is taken from a hub."""
ANSWERS = ("dataset.json", "README.md", "*.parquet", "segments/*.npz", "clips/*", "comparisons.jsonl")
"""All that a data set of answers may hold."""
KINDS: dict[str, type[RunFolder]] = {
    kind.FORMAT: kind for kind in (ControlFolder, OfflineFolder, TextFolder, ImageFolder)
}


@dataclass(frozen=True, kw_only=True)
class AnswersTold:
    """What a card says of a data set of answers."""

    wrote: str
    """How much is in it, in words."""
    environment: str
    """What was asked about; "": unknown."""
    annotators: dict[str, int]
    """How many of each kind."""
    kinds: dict[str, int]
    """Answers that stand, of each kind."""
    instructions: list[str]
    """What the annotators were told to look for."""


def open_finished(path: Path) -> RunFolder:
    """Open a run that is over.

    Raises:
        UserError: there is none, or it is not finished.
    """
    kind = KINDS.get(format_of(path) or "")
    if kind is None:
        raise UserError(f"There is no run in {path}. Give the folder of a run of prefrl train, offline, text or image.")
    folder = kind.open(path, reads_only=True)
    folder.read_summary()  # refuses what is not over
    return folder


def people_of(folder: RunFolder) -> list[str]:
    """Return the people who answered in a run, by name.

    Raises:
        UserError: its record cannot be read.
    """
    if not isinstance(folder, ControlFolder):
        return []
    if folder.config["baseline"] and isinstance(folder.record, Path) and not folder.record.is_file():
        return []  # nobody was asked
    with closing(folder.open_record()) as store:
        return _people_in(store)


def _people_in(store: PreferenceStore) -> list[str]:
    return [name for name, kind in store.annotators().items() if kind == "person"]


def pack_answers(source: str, place: Path, *, names: bool = False) -> tuple[AnswersTold, list[str]]:
    """Write the answers of a run, a record or a data set as a data set that may be shared.

    Args:
        source: folder of the run or of the data set, or a record: a file or the URL of a database.
        place: a folder that is empty or does not exist.
        names: leave people's names, and to what they agreed, in.

    Returns:
        What they are, for their card, and what was taken out, in words.

    Raises:
        UserError: there are none, or they cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="prefrl-answers-") as temporary:
        if (Path(source) / "dataset.json").is_file():
            record: Path | str = Path(temporary) / "record.sqlite"
            import_record(Path(source), record)
        else:
            record = record_place(source)
        if isinstance(record, Path) and not record.is_file():
            raise UserError(f"There are no answers in {source}. Give a run, a record, or a folder that export wrote.")
        with PreferenceStore(record, create=False) as store:
            people, facts = _people_in(store), store.facts()
            annotators = Counter(store.annotators().values())
            kinds = Counter(a.kind for _, a in store.answers(standing=True) if isinstance(a, Answer))
            instructions = sorted({card.instruction for card in store.cards(store.query_ids()) if card.instruction})
        if not kinds:
            raise UserError(f"Nothing was answered in {source}, so there is nothing to share.")
        stand_ins = {} if names else {name: f"person-{number}" for number, name in enumerate(people, 1)}
        rename = partial(_without, stand_ins=stand_ins) if stand_ins else None
        wrote = export_record(record, place, rename=rename)
    told = AnswersTold(
        wrote=wrote,
        environment=_environment(Path(source)) or str(facts.get("env_id") or ""),
        annotators=dict(annotators),
        kinds=dict(kinds),
        instructions=[_without(text, stand_ins) for text in instructions],
    )
    return told, [f"the names of {len(people)} people", "what they agreed to"] if stand_ins else []


def _environment(source: Path) -> str | None:
    """Return what a run is of; None where this is no run of control."""
    if format_of(source) != ControlFolder.FORMAT:
        return None
    return str(ControlFolder.open(source, reads_only=True).config["settings"]["env_id"])


def pack(folder: RunFolder, place: Path, *, names: bool = False) -> list[str]:
    """Copy what is shared of a run.

    Args:
        folder: of the run.
        place: an empty folder.
        names: leave people's names in.

    Returns:
        What was taken out, in words.

    Raises:
        UserError: something cannot be read.
    """
    people = [] if names else people_of(folder)
    stand_ins = {name: f"person-{number}" for number, name in enumerate(people, 1)}
    said = [f"the names of {len(people)} people"] if people else []
    config = dict(folder.config)
    settings = {**config["settings"]}
    if settings.get("record"):
        settings["record"] = None
        said.append("the address of its record")
    shared, places = _without_places(without_passwords(settings))
    if places:
        said.append(f"where {places} files lay on this machine")
    config.pop("begun_in", None)
    write_json(place / "config.json", _renamed({**config, "settings": shared}, stand_ins))
    write_json(place / "summary.json", _renamed(folder.read_summary(), stand_ins))
    for name in ROWS:
        if (folder.path / name).is_file():
            try:
                lines = read_inside(folder.path, name).split(b"\n")
                rows = [json.dumps(_renamed(parse_json(line), stand_ins)) for line in lines if line.strip()]
            except ValueError as error:
                raise UserError(f"{folder.path / name} cannot be shared: {first_line(error)}.") from None
            write_atomically(place / name, "".join(row + "\n" for row in rows))
    for form in SHARED:
        for path in sorted(folder.path.glob(form)):
            if not path.is_file():
                continue
            if not is_inside(folder.path, path):
                raise UserError(
                    f"{path} is a link that leads out of the run, so it is not shared. Put the file itself there."
                )
            target = place / path.relative_to(folder.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.name == "report.json":
                write_json(target, _renamed(read_json(path), stand_ins))
            elif path.suffix == ".md":
                write_atomically(target, _without(path.read_text(encoding="utf-8"), stand_ins))
            else:
                shutil.copyfile(path, target)
    if people and (place / "report.png").is_file():
        (place / "report.png").unlink()  # names may be drawn in it
        said.append("report.png")
    return said


def _renamed(value: Any, stand_ins: Mapping[str, str]) -> Any:
    """Return JSON values with people's names replaced, wherever one stands as a word."""
    if isinstance(value, str):
        return _without(value, stand_ins)
    if isinstance(value, dict):
        return {_without(name, stand_ins): _renamed(item, stand_ins) for name, item in value.items()}
    return [_renamed(item, stand_ins) for item in value] if isinstance(value, list) else value


def _without(text: str, stand_ins: Mapping[str, str]) -> str:
    for name in sorted(stand_ins, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", stand_ins[name], text)
    return text


def _without_places(value: Any) -> tuple[Any, int]:
    """Return settings in which files are named without the folders before them, and how many were."""
    if isinstance(value, dict):
        found = {name: _without_places(item) for name, item in value.items()}
        return {name: item for name, (item, _) in found.items()}, sum(count for _, count in found.values())
    if isinstance(value, list):
        items = [_without_places(item) for item in value]
        return [item for item, _ in items], sum(count for _, count in items)
    if isinstance(value, str) and re.match(r"^(sqlite:)?(/|~|[A-Za-z]:\\)", value):
        return re.split(r"[/\\]", value)[-1], 1
    return value, 0

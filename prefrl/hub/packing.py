"""What of a run is shared: what it learned and its figures, never its record, and no names of people.

People are known by the run's record: wherever one of them stands in settings and figures, it becomes `person-1` and so
on. Passwords, places of files on the machine where the run was made, trackers and digests of inputs stay behind.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from prefrl.control.folder import ControlFolder
from prefrl.errors import UserError, first_line
from prefrl.files import is_inside, parse_json, read_inside, read_json, write_atomically, write_json
from prefrl.offline.folder import OfflineFolder
from prefrl.runs.folder import RunFolder, format_of
from prefrl.text.jobs.folder import TextFolder
from prefrl.trust import without_passwords

SHARED = (
    "reward.safetensors", "policies/*.pt", "curves.png", "report.png", "report.json", "report.md",
    "videos/*.mp4", "model/*",
)  # fmt: skip
"""As it is, where there is such a file; `report.json` and rows of figures without names."""
ROWS = ("metrics.jsonl", "evaluations.jsonl")
SHARED_NAMES = ("config.json", "summary.json", "README.md", *ROWS, *SHARED)
"""All that a shared run may hold, and all that is taken from a hub."""
KINDS: dict[str, type[RunFolder]] = {kind.FORMAT: kind for kind in (ControlFolder, OfflineFolder, TextFolder)}


def open_finished(path: Path) -> RunFolder:
    """Open a run that is over.

    Raises:
        UserError: there is none, or it is not finished.
    """
    kind = KINDS.get(format_of(path) or "")
    if kind is None:
        raise UserError(f"There is no run in {path}. Give the folder of a run of prefrl train, offline or text.")
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
    with closing(folder.open_record()) as store:
        return [name for name, kind in store.annotators().items() if kind == "person"]


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

"""The files and models that a run learns from: found again from another working directory, and held to what they were.

`inputs.json` in the folder of a run says what each was when the run began. A resume compares, since going on with other
rows or weights would be neither the run that was begun nor a new one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefrl.envs.text_worlds import READ_FROM_THE_MACHINE
from prefrl.errors import UserError
from prefrl.files import digest_of_files, read_json, write_json
from prefrl.runs.folder import RESUME, is_record
from prefrl.text.data.recorded import digest_of_answers
from prefrl.text.jobs.folder import TextFolder
from prefrl.text.model.loading import base_of, is_adapter
from prefrl.text.model.models import model_place

DATA, MODELS = ("data", "pretraining", "references"), ("model", "reward", "proxy", "judge")
"""Settings that name data, and models."""


def settings_of(folder: TextFolder) -> dict[str, Any]:
    """Return the settings of a run, relative names of files and folders as they were meant where it was begun."""
    config = folder.config
    begun = config.get("begun_in")
    if not isinstance(begun, str):
        return dict(config["settings"])
    found = dict(config["settings"])
    for key in found.keys() & {*DATA, *MODELS}:
        value = found[key]
        if not isinstance(value, str) and not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
            continue
        there = [_there(name, begun) for name in _names(value)]
        found[key] = there[0] if isinstance(value, str) else (value and there)
    return found


def _there(name: str, begun: str) -> str:
    """Return a name, or where it leads from the directory that a run was begun in."""
    prefix = "sqlite:" if name.startswith("sqlite:") else ""
    rest, places = name.removeprefix(prefix), [name.removeprefix(prefix)]
    for separator in ("@", ":"):  # ADAPTERS@BASE, FILE.py:FUNCTION
        if separator in rest and "://" not in rest:
            places.append(rest.rpartition(separator)[0])
    for place in places:
        path = os.path.join(begun, place)
        if place and not os.path.isabs(place) and os.path.exists(path):
            behind = rest[len(place) :]
            base = behind.removeprefix("@")
            if behind != base and os.path.exists(os.path.join(begun, base)):
                behind = "@" + os.path.join(begun, base)
            return prefix + path + behind
    return name


def digests_of(settings: Mapping[str, Any], begun: str | None = None) -> dict[str, str | None]:
    """Return a digest of each input of a run, by setting and name.

    None for addresses, ids of the hub, and worlds that follow from their seed.

    Args:
        settings: of the run, as they were written.
        begun: the directory that it was begun in; None: the working directory.
    """
    found = {
        f"{key} {name}": _digest(_there(name, begun or os.getcwd()), is_data=key in DATA)
        for key in (*DATA, *MODELS)
        for name in _names(settings.get(key))
    }
    watch = settings.get("watch")
    watched = watch.get("world") if isinstance(watch, Mapping) else None
    if isinstance(watched, str) and watched in READ_FROM_THE_MACHINE:
        found[f"watch.world {watched}"] = READ_FROM_THE_MACHINE[watched]()
    return found


def _names(value: str | Sequence[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def keep_digests(folder: TextFolder, digests: Mapping[str, str | None]) -> None:
    """Write down in the folder of a run what its inputs are."""
    write_json(folder.path / "inputs.json", dict(digests))


def check_inputs(folder: TextFolder) -> None:
    """Compare the files and models of a run with what they were when it began.

    Raises:
        UserError: some are others, or gone, and the user did not say that they accept that; or what they were cannot be
            read.
    """
    path, config = folder.path / "inputs.json", folder.config
    now = digests_of(config["settings"], config.get("begun_in"))
    if not path.is_file():  # not begun yet, or by an earlier version
        keep_digests(folder, now)
        return
    before = _read_digests(path)
    shared = [name for name in before if name in now]  # a name that was changed is one of the settings
    gone = [name for name in shared if before[name] is not None and now[name] is None]
    changed = [name for name in shared if now[name] != before[name] and name not in gone]
    if not changed and not gone:
        return
    if folder.accept_changed and not gone:
        keep_digests(folder, now)
        return
    parts = [
        f"{', '.join(names)} {what}"
        for names, what in ((changed, "changed"), (gone, "cannot be found any more"))
        if names
    ]
    raise UserError(
        f"Since the run in {folder.path} began, {' and '.join(parts)}. Put back what was there"
        + ("." if gone else f", or go on knowingly: {RESUME} {folder.path} --accept-changed")
    )


def _read_digests(path: Path) -> dict[str, str | None]:
    before = read_json(path)
    if not isinstance(before, dict) or not all(isinstance(digest, str | None) for digest in before.values()):
        raise UserError(f"{path} is damaged: it must hold the digest of each input by name. Restore it from a copy.")
    return before


def _digest(name: str, *, is_data: bool) -> str | None:
    if is_data and name in READ_FROM_THE_MACHINE:
        return READ_FROM_THE_MACHINE[name]()
    if is_data and is_record(name):
        return digest_of_answers(name)
    path = Path(name)
    code = Path(name.rpartition(":")[0])
    if path.is_file() or code.is_file():
        return digest_of_files([path if path.is_file() else code])
    if is_data:
        return None
    source = model_place(name)
    places = [Path(source.rpartition("@")[0]) if is_adapter(source) and not Path(source).exists() else Path(source)]
    if is_adapter(source):
        places.append(Path(base_of(source)))
    files = [file for place in places if place.is_dir() for file in sorted(place.iterdir()) if file.is_file()]
    return digest_of_files(files) if files else None

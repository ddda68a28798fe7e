"""Checkpoints: folders that appear whole or not at all, checked when read.

`state.pt` holds tensors and plain values (read with `weights_only=True`), `arrays.safetensors` the large arrays,
`state.json` counters and descriptions, `manifest.json` the checksums of these and the run they belong to.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import torch

from prefrl.errors import UserError, first_line
from prefrl.files import parse_json, write_json
from prefrl.runs.folder import RESUME, RunFolder
from prefrl.runs.tensors import read_tensors
from prefrl.spaces import Array
from prefrl.trust import without_passwords

FORMAT = "prefrl.checkpoint"
FORMAT_VERSION = 2
"""Version 1 named its count "num_env_steps" whatever it counted."""
KEEP = 2
ARRAYS = "arrays.safetensors"
FILES = ("state.pt", ARRAYS, "state.json")


class CheckpointError(UserError):
    """A checkpoint cannot be read here: it is of another run or a newer version, or holds what is not known here."""


class DamagedCheckpoint(CheckpointError):
    """A checkpoint is incomplete, or its content is not what was written."""


@dataclass(frozen=True, kw_only=True)
class State:
    """What a part of a run must hold to go on as if it had not stopped."""

    tensors: dict[str, Any] = field(default_factory=dict)
    """Tensors and plain values, nested."""
    arrays: dict[str, Array] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    """What is neither tensor nor array, as JSON values."""

    @classmethod
    def joined(cls, parts: Mapping[str, State], values: dict[str, Any] | None = None) -> State:
        """Return the state of a whole: that of its parts by name, and values of its own.

        Args:
            parts: the names must not be among those of the values.
            values: what the whole holds beside its parts.
        """
        return cls(
            tensors={name: part.tensors for name, part in parts.items() if part.tensors},
            arrays={f"{name}/{key}": array for name, part in parts.items() for key, array in part.arrays.items()},
            values={name: part.values for name, part in parts.items() if part.values} | (values or {}),
        )

    def part(self, name: str) -> State:
        """Return the state of one part of what `joined` put together; empty where it had none."""
        start = name + "/"
        return State(
            tensors=self.tensors.get(name, {}),
            arrays={key.removeprefix(start): a for key, a in self.arrays.items() if key.startswith(start)},
            values=self.values.get(name, {}),
        )


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The state of a run when it had come so far."""

    count: int
    """Of the counter of the run's kind."""
    state: State
    settings: Any = None
    """Of the run, as its configuration had them; None in checkpoints of earlier versions."""


def save_checkpoint(folder: RunFolder, count: int, state: State) -> Path:
    """Write a checkpoint of a run and drop all but the newest two.

    Args:
        folder: the run.
        count: how far it has come, by its counter.
        state: what it needs to go on.

    Raises:
        UserError: it cannot be written; those there before are untouched.
    """
    buffer = io.BytesIO()
    torch.save(state.tensors, buffer)
    contiguous = {name: np.ascontiguousarray(array) for name, array in state.arrays.items()}
    files = {
        "state.pt": buffer.getvalue(),
        ARRAYS: safetensors.numpy.save(contiguous),
        "state.json": json.dumps(state.values, allow_nan=False).encode(),
    }
    manifest = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "run_id": folder.run_id,
        "counter": folder.COUNTER,
        "count": count,
        "settings": without_passwords(folder.config.get("settings")),
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    files["manifest.json"] = json.dumps(manifest, indent=2).encode()
    place = folder.checkpoints
    target = place / f"{count:012d}"
    partial = place / f".{target.name}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name, content in files.items():
            with open(partial / name, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        if target.exists():  # the same steps again, after a resume
            shutil.rmtree(target)
        os.replace(partial, target)
        _sync_folder(place)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise UserError(
            f"Could not write the checkpoint {target}: {error.strerror or error}. Those before it are untouched; "
            f"free some space and resume with: {RESUME} {folder.path}"
        ) from error
    older = [path for path in _folders(place) if path.name <= target.name]
    for old in older[:-KEEP]:  # a newer one is of no concern to this run, and not its to remove
        shutil.rmtree(old, ignore_errors=True)
    return target


def load_checkpoint(path: Path, run_id: str, with_arrays: bool = True) -> Checkpoint:
    """Read a checkpoint; its tensors come on the CPU, wherever they were.

    Args:
        path: its folder.
        run_id: of the run that it must belong to.
        with_arrays: without them, which are most of it where observations are images, that file is not read at all.

    Raises:
        DamagedCheckpoint: it is incomplete or damaged.
        CheckpointError: it is of another run or of a newer version, or this machine or these libraries cannot read it.
    """
    manifest, files = _checked_files(path, FILES if with_arrays else [name for name in FILES if name != ARRAYS])
    if manifest["run_id"] != run_id:
        raise CheckpointError(f"{path} belongs to another run ({manifest['run_id']}, not {run_id}).")
    try:
        state = State(  # the bytes of a file are given up as soon as it is read: each may take hundreds of MB
            tensors=read_tensors(files.pop("state.pt")),
            arrays=safetensors.numpy.load(files.pop(ARRAYS)) if with_arrays else {},
            values=json.loads(files.pop("state.json")),
        )
        count = manifest["num_env_steps" if manifest["version"] == 1 else "count"]
        return Checkpoint(count=count, state=state, settings=manifest.get("settings"))
    except Exception as error:  # it is what was written; unpickling may raise anything
        raise CheckpointError(
            f"{path} is undamaged but cannot be read here: {first_line(error)} Use the versions of prefrl and torch "
            "that wrote it; config.json of the run names them."
        ) from error


def _checked_files(path: Path, names: Sequence[str]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the manifest of a checkpoint and these of its files by name, which are as they were written."""
    try:
        manifest = parse_json(_read(path, "manifest.json"))
        if manifest.get("format") != FORMAT:
            raise CheckpointError(f"{path} is not a checkpoint of prefrl.")
        if manifest["version"] > FORMAT_VERSION:
            raise CheckpointError(
                f"{path} was written by a newer prefrl (format {manifest['version']}). Upgrade prefrl."
            )
        files = {name: _read(path, name) for name in names}
        for name in files:
            if hashlib.sha256(files[name]).hexdigest() != manifest["sha256"][name]:
                raise DamagedCheckpoint(f"{path / name} is damaged: its content does not match its checksum.")
        count = manifest["num_env_steps" if manifest["version"] == 1 else "count"]
        if not isinstance(manifest["run_id"], str) or type(count) is not int or f"{count:012d}" != path.name:
            raise ValueError(f"its count is {str(count)[:40]}")
    except FileNotFoundError as error:
        raise DamagedCheckpoint(f"{path} is damaged: {Path(error.filename).name} is missing.") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedCheckpoint(f"{path} is damaged: its manifest.json is not one ({first_line(error)}).") from error
    return manifest, files


def _read(path: Path, name: str) -> bytes:
    """Return a file of a checkpoint, which may be of any size, but no pipe, and no device that has no end."""
    file = path / name
    if file.exists() and not file.is_file():
        raise DamagedCheckpoint(f"{file} is damaged: it is no plain file.")
    return file.read_bytes()


def newest_checkpoint(folder: RunFolder, with_arrays: bool = True) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest checkpoint of a run that can be read, and why each newer one was refused.

    Args:
        folder: the run.
        with_arrays: as of `load_checkpoint`.
    """
    refused: list[str] = []
    run_id = folder.run_id
    for path in reversed(_folders(folder.checkpoints)):
        try:
            return load_checkpoint(path, run_id, with_arrays), refused
        except CheckpointError as error:
            refused.append(str(error))
    return None, refused


def checkpoint_to_go_on_from(folder: RunFolder) -> Checkpoint | None:
    """Return the checkpoint that a run goes on from; None where it has none, as before its first.

    That is the newest, or where it is damaged the one before it, with a warning: the damaged one is kept under another
    name. What cannot be read is never taken for absent, since going on would overwrite what it led to.

    Raises:
        UserError: the settings in the configuration are not those that it was written with.
        CheckpointError: the newest is not damaged and cannot be read here, or all are damaged; nothing was changed.
    """
    damaged: list[tuple[Path, str]] = []
    found, run_id = None, folder.run_id
    for path in reversed(_folders(folder.checkpoints)):
        try:
            found = load_checkpoint(path, run_id)
            break
        except DamagedCheckpoint as error:
            damaged.append((path, str(error)))
        except CheckpointError as error:
            raise CheckpointError(f"{error} Nothing was changed.") from error
    if damaged and found is None:
        raise CheckpointError(
            f"{' '.join(reason for _, reason in damaged)} No other checkpoint is left to go on from. Nothing was "
            f"changed. Put back a copy, or to begin the run again move {folder.checkpoints} away."
        )
    if found is not None:
        _refuse_changed(folder, found)
    for path, reason in damaged:
        aside = path.with_name(f"{path.name}.damaged")
        shutil.rmtree(aside, ignore_errors=True)  # of the same steps, from an earlier resume
        os.replace(path, aside)
        warnings.warn(f"{reason} Going on from the checkpoint before it; it is kept as {aside.name}.", stacklevel=2)
    return found


def check_unchanged(folder: RunFolder) -> None:
    """Check, before anything is done, that the settings of a run are those of its newest checkpoint, if it has one.

    Raises:
        UserError: they were changed, and the user did not say that they accept that.
    """
    found, _ = newest_checkpoint(folder, with_arrays=False)
    if found is not None:
        _refuse_changed(folder, found)


def _refuse_changed(folder: RunFolder, found: Checkpoint) -> None:
    if found.settings is None or folder.accept_changed:
        return
    changed = _changes(found.settings, without_passwords(folder.config.get("settings")))
    if changed:
        raise UserError(
            f"{folder.config_path} was changed since the last checkpoint: {'; '.join(changed[:5])}. Put back what "
            f"was there, or go on knowingly: {RESUME} {folder.whole} --accept-changed"
        )


def change_settings(folder: RunFolder, changes: Mapping[str, Any]) -> None:
    """Note in the checkpoints of a run that its settings were changed knowingly, by a command."""
    for path in _folders(folder.checkpoints):
        try:
            manifest = parse_json(_read(path, "manifest.json"))
            manifest["settings"] = {**manifest["settings"], **changes}
        except (OSError, ValueError, KeyError, TypeError, DamagedCheckpoint):
            continue  # it is damaged, which is said when it is read
        write_json(path / "manifest.json", manifest)


def _changes(before: Any, now: Any, name: str = "") -> list[str]:
    """Return which settings differ, in words."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            change
            for key in dict.fromkeys([*before, *now])
            for change in _changes(before.get(key), now.get(key), f"{name}.{key}" if name else key)
        ]
    return [] if before == now else [f"{name} was {before!r} and is {now!r}"]


def _folders(place: Path) -> list[Path]:
    if not place.is_dir():
        return []
    return sorted(path for path in place.iterdir() if path.is_dir() and path.name.isdigit())


def _sync_folder(place: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there, and need not be
        return
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

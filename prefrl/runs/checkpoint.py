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
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import torch

from prefrl.errors import UserError
from prefrl.runs.folder import RESUME, RunFolder
from prefrl.spaces import Array
from prefrl.trust import without_passwords

FORMAT = "prefrl.checkpoint"
FORMAT_VERSION = 2
"""Version 1 named its count "num_env_steps" whatever it counted."""
KEEP = 2


class CheckpointError(UserError):
    """A checkpoint is damaged, or of another run."""


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
        "arrays.safetensors": safetensors.numpy.save(contiguous),
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
    for old in _folders(place)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def load_checkpoint(path: Path, run_id: str) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: it is incomplete, damaged, of another run or of a newer version.
    """
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        if manifest.get("format") != FORMAT:
            raise CheckpointError(f"{path} is not a checkpoint of prefrl.")
        if manifest["version"] > FORMAT_VERSION:
            raise CheckpointError(
                f"{path} was written by a newer prefrl (format {manifest['version']}). Upgrade prefrl."
            )
        if manifest["run_id"] != run_id:
            raise CheckpointError(f"{path} belongs to another run ({manifest['run_id']}, not {run_id}).")
        files = {name: (path / name).read_bytes() for name in manifest["sha256"]}
        for name, content in files.items():
            if hashlib.sha256(content).hexdigest() != manifest["sha256"][name]:
                raise CheckpointError(f"{path / name} is damaged: its content does not match its checksum.")
        state = State(
            tensors=torch.load(io.BytesIO(files["state.pt"]), weights_only=True),
            arrays=safetensors.numpy.load(files["arrays.safetensors"]),
            values=json.loads(files["state.json"]),
        )
        count = manifest["num_env_steps" if manifest["version"] == 1 else "count"]
        return Checkpoint(count=count, state=state, settings=manifest.get("settings"))
    except CheckpointError:
        raise
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
        safetensors.SafetensorError,
    ) as error:
        raise CheckpointError(f"{path} is not a readable checkpoint: {error}") from error


def newest_checkpoint(folder: RunFolder) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest checkpoint of a run that can be read, and why each newer one was refused."""
    refused: list[str] = []
    run_id = folder.run_id
    for path in reversed(_folders(folder.checkpoints)):
        try:
            return load_checkpoint(path, run_id), refused
        except CheckpointError as error:
            refused.append(str(error))
    return None, refused


def checkpoint_to_go_on_from(folder: RunFolder) -> Checkpoint | None:
    """Return the newest checkpoint of a run that can be read, with a warning for each newer one that cannot.

    Raises:
        UserError: the settings in the configuration are not those that it was written with.
    """
    checkpoint, refused = newest_checkpoint(folder)
    if checkpoint is not None and checkpoint.settings is not None and not folder.accept_changed:
        changed = _changes(checkpoint.settings, without_passwords(folder.config.get("settings")))
        if changed:
            raise UserError(
                f"{folder.config_path} was changed since the last checkpoint: {'; '.join(changed[:5])}. Put back what "
                f"was there, or go on knowingly: {RESUME} {folder.path} --accept-changed"
            )
    then = "from the checkpoint before it" if checkpoint is not None else "from the beginning of the run"
    for reason in refused:
        warnings.warn(f"{reason} Going on {then}.", stacklevel=2)
    return checkpoint


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

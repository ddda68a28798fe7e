"""Checkpoints: folders that appear whole or not at all, checked when read.

`state.pt` holds tensors and plain values (read with `weights_only=True`), `arrays.safetensors` the large arrays,
`state.json` counters and descriptions, `manifest.json` the checksums of these and the run they belong to.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import torch

from prefrl.errors import UserError
from prefrl.spaces import Array

FORMAT = "prefrl.checkpoint"
FORMAT_VERSION = 1
KEEP = 2


class CheckpointError(UserError):
    """A checkpoint is damaged, or of another run."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Everything a run needs to go on."""

    num_env_steps: int
    tensors: dict[str, Any]
    """Tensors and plain values, nested."""
    arrays: dict[str, Array]
    values: dict[str, Any]
    """JSON."""

    def arrays_of(self, part: str) -> dict[str, Array]:
        """Return the arrays of one part of the run, saved as `PART/NAME`, by their names."""
        start = part + "/"
        return {name.removeprefix(start): a for name, a in self.arrays.items() if name.startswith(start)}


def save_checkpoint(folder: Path, run_id: str, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint under `folder` and drop all but the newest two.

    Raises:
        UserError: it cannot be written; those there before are untouched.
    """
    buffer = io.BytesIO()
    torch.save(checkpoint.tensors, buffer)
    contiguous = {name: np.ascontiguousarray(array) for name, array in checkpoint.arrays.items()}
    files = {
        "state.pt": buffer.getvalue(),
        "arrays.safetensors": safetensors.numpy.save(contiguous),
        "state.json": json.dumps(checkpoint.values, allow_nan=False).encode(),
    }
    manifest = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "run_id": run_id,
        "num_env_steps": checkpoint.num_env_steps,
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    files["manifest.json"] = json.dumps(manifest, indent=2).encode()
    target = folder / f"{checkpoint.num_env_steps:012d}"
    partial = folder / f".{target.name}.partial"
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
        _sync_folder(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise UserError(
            f"Could not write the checkpoint {target}: {error.strerror or error}. Those before it are untouched; "
            "free some space and go on with: prefrl resume"
        ) from error
    for old in _folders(folder)[:-KEEP]:
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
        return Checkpoint(
            num_env_steps=manifest["num_env_steps"],
            tensors=torch.load(io.BytesIO(files["state.pt"]), weights_only=True),
            arrays=safetensors.numpy.load(files["arrays.safetensors"]),
            values=json.loads(files["state.json"]),
        )
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


def newest_checkpoint(folder: Path, run_id: str) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest checkpoint that can be read, and why each newer one was refused."""
    refused: list[str] = []
    for path in reversed(_folders(folder)):
        try:
            return load_checkpoint(path, run_id), refused
        except CheckpointError as error:
            refused.append(str(error))
    return None, refused


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name.isdigit())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def seed_global_random(seed: int) -> None:
    """Seed the global random streams."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def global_random_state() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the states of the global random streams (the agents' libraries draw from them): tensors, and JSON."""
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    python_version, python_keys, python_gauss = random.getstate()
    tensors = {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": torch.from_numpy(np.asarray(keys, np.int64)),
    }
    values = {
        "numpy": [kind, position, has_gauss, cached],
        "python": [python_version, list(python_keys), python_gauss],
    }
    return tensors, values


def restore_global_random_state(tensors: dict[str, Any], values: dict[str, Any]) -> None:
    """Put back what `global_random_state` gave."""
    torch.set_rng_state(tensors["torch"])
    if tensors["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(tensors["cuda"])
    kind, position, has_gauss, cached = values["numpy"]
    np.random.set_state((kind, tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, cached))
    version, keys, gauss = values["python"]
    random.setstate((version, tuple(keys), gauss))

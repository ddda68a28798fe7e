"""The file of a reward: its tensors, and what they belong to, in one `.safetensors` file with a checksum."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from prefrl.errors import UserError
from prefrl.files import parse_json, write_atomically

FORMAT = "prefrl.reward"
FORMAT_VERSION = 1


def write_reward(path: str | Path, description: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write a reward; the file appears whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    described = {"format": FORMAT, "version": FORMAT_VERSION, **description, "sha256": _checksum(tensors)}
    write_atomically(Path(path), safetensors.torch.save(tensors, {"prefrl": json.dumps(described)}))


def read_reward(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the description and the tensors that `write_reward` was given.

    Raises:
        UserError: it is no reward, a newer one, or damaged. What was made by hand may raise anything else.
    """
    with safetensors.safe_open(path, "pt") as file:
        description = parse_json((file.metadata() or {}).get("prefrl", "{}"))
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dictionary)
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise UserError(f"{path} is not a reward saved by prefrl.")
    if description["version"] > FORMAT_VERSION:
        raise UserError(
            f"{path} was saved in format {description['version']}; this prefrl reads up to {FORMAT_VERSION}. "
            "Upgrade prefrl."
        )
    if description.get("sha256", _checksum(tensors)) != _checksum(tensors):
        raise UserError(f"{path} is damaged: its weights do not match their checksum. Restore it from a copy.")
    if any(tensor.is_floating_point() and tensor.isnan().any() for tensor in tensors.values()):
        raise UserError(f"{path} holds weights that are not numbers (NaN), so it cannot be used.")
    return description, tensors


def _checksum(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()

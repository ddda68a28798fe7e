"""The run folder: where everything about a run lies."""

from __future__ import annotations

import io
import json
import math
import os
import platform
import uuid
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from prefrl.errors import UserError
from prefrl.files import write_atomically, write_json
from prefrl.store import PreferenceStore
from prefrl.training.settings import TrainSettings

FORMAT = "prefrl.run"
FORMAT_VERSION = 1
PACKAGES = (
    "prefrl",
    "torch",
    "numpy",
    "gymnasium",
    "stable-baselines3",
    "mujoco",
    "ale-py",
    "transformers",
    "tokenizers",
)


class RunFolder:
    """Paths of a run, its configuration and its metrics.

    Args:
        path: the folder. Use `create` for a new run and `open` for one that is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_path = path / "config.json"
        self.record_path = path / "record.sqlite"
        self.metrics_path = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.policies = path / "policies"
        self.reward_path = path / "reward.safetensors"
        self.summary_path = path / "summary.json"
        self.tensorboard = path / "tensorboard"
        self.videos = path / "videos"

    @classmethod
    def create(cls, path: Path, settings: TrainSettings, *, baseline: bool) -> RunFolder:
        """Make the folder and write its configuration.

        Args:
            path: where; it must not exist, or be empty.
            settings: resolved settings.
            baseline: the run trains on the environment's own reward.

        Raises:
            UserError: there is something at `path` already, or it cannot be written.
        """
        if path.is_dir() and (path / "config.json").is_file():
            raise UserError(
                f"There is a run in {path} already. Go on with it by: prefrl resume {path} - or choose another --out."
            )
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"{path} exists already and is not a run folder. Choose another --out.")
        folder = cls(path)
        config = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "run_id": uuid.uuid4().hex,
            "baseline": baseline,
            "settings": settings.to_json(),
            "versions": installed_versions(),
        }
        write_json(folder.config_path, config)
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open the folder of a run.

        Raises:
            UserError: there is no run, or its configuration cannot be read.
        """
        folder = cls(path)
        if not folder.config_path.is_file():
            raise UserError(
                f"There is no run in {path}: it has no config.json. Give the folder of a run made by prefrl train."
            )
        config = folder.config
        if config.get("format") != FORMAT:
            raise UserError(f"{folder.config_path} was not written by prefrl train.")
        if config["version"] > FORMAT_VERSION:
            raise UserError(f"{path} was written by a newer prefrl (format {config['version']}). Upgrade prefrl.")
        return folder

    @property
    def config(self) -> dict[str, Any]:
        """The configuration as it was written."""
        try:
            config: dict[str, Any] = json.loads(self.config_path.read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise UserError(f"{self.config_path} cannot be read: {error}") from None
        return config

    @property
    def settings(self) -> TrainSettings:
        """The resolved settings of the run."""
        return TrainSettings.from_json(self.config["settings"])

    @property
    def record(self) -> Path | str:
        """Where the record of the run lies: a file in the folder, or the URL that the settings name."""
        return self.settings.record or self.record_path

    def open_record(self) -> PreferenceStore:
        """Open the record of the run.

        Raises:
            UserError: a database on a server that holds the record of another run.
        """
        store, run_id = PreferenceStore(self.record), self.config["run_id"]
        if isinstance(self.record, str):  # a file in the folder can only be its own
            owner = store.facts().get("run_id")
            if owner not in (None, run_id):
                store.close()
                raise UserError(f"The database {store.name} holds the record of another run. Create one for this run.")
            store.set_facts({"run_id": run_id})
        return store

    @property
    def baseline(self) -> RunFolder | None:
        """The run on the true reward beside this one, if there is one."""
        path = self.path / "baseline"
        return RunFolder(path) if (path / "config.json").is_file() else None

    def read_summary(self) -> dict[str, Any]:
        """Return what `train` summed up at its end.

        Raises:
            UserError: the run is not finished.
        """
        if not self.summary_path.is_file():
            raise UserError(f"The run in {self.path} is not finished. Go on with: prefrl resume {self.path}")
        summary: dict[str, Any] = json.loads(self.summary_path.read_text())
        return summary

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the rows of metrics; a last line that a kill cut short is left out."""
        if not self.metrics_path.is_file():
            return []
        rows = []
        for line in self.metrics_path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows

    def save_policy(self, name: str, state: dict[str, Any]) -> None:
        """Keep a policy under `policies/NAME.pt`."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(self.policies / f"{name}.pt", buffer.getvalue())

    def load_policy(self, name: str) -> dict[str, Any]:
        """Read a policy that `save_policy` kept.

        Raises:
            UserError: there is none of that name.
        """
        path = self.policies / f"{name}.pt"
        if not path.is_file():
            kept = ", ".join(sorted(p.stem for p in self.policies.glob("*.pt"))) or "none"
            raise UserError(f"The run in {self.path} has no policy {name!r}; it has: {kept}.")
        state: dict[str, Any] = torch.load(path, weights_only=True)
        return state


class MetricsPlace(Protocol):
    """Where metrics are written: a run folder of any kind."""

    path: Path
    metrics_path: Path
    tensorboard: Path


class MetricsWriter:
    """Appends rows to `metrics.jsonl` and to TensorBoard.

    Args:
        folder: the run folder.
        size: bytes of the file to keep: rows written after the checkpoint that a run goes on from are cut off.
        num_env_steps: steps at that checkpoint.
        counter: the figure of a row that counts steps.
    """

    def __init__(
        self, folder: MetricsPlace, size: int = 0, num_env_steps: int = 0, counter: str = "num_env_steps"
    ) -> None:
        from prefrl.errors import require

        tensorboard = require("torch.utils.tensorboard", "train")
        self._counter = counter
        folder.path.mkdir(parents=True, exist_ok=True)
        self._file = open(folder.metrics_path, "ab")  # noqa: SIM115  (lives as long as the writer)
        self._file.truncate(size)
        self._tensorboard = tensorboard.SummaryWriter(
            str(folder.tensorboard), purge_step=num_env_steps + 1 if size else None
        )

    def write(self, row: dict[str, Any]) -> None:
        """Append a row; numbers that are not finite become null."""
        clean = finite(row)
        self._file.write(json.dumps(clean, allow_nan=False).encode() + b"\n")
        self._file.flush()
        for name, value in _numbers(clean):
            if name != self._counter:
                self._tensorboard.add_scalar(name, value, row[self._counter])

    def sync(self) -> int:
        """Flush to disk; return the size of the file in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._tensorboard.flush()
        return self._file.tell()

    def close(self) -> None:
        """Flush and close."""
        self.sync()
        self._file.close()
        self._tensorboard.close()


def finite(value: Any) -> Any:
    """Return `value` ready for JSON: NumPy numbers as plain ones, and None for NaN and infinity."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _numbers(row: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    out: list[tuple[str, float]] = []
    for key, value in row.items():
        if isinstance(value, dict):
            out += _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, int | float):
            out.append((prefix + key, value))
    return out


def installed_versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found

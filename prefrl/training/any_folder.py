"""What run folders of every kind share: the configuration, the metrics, the figures at the end."""

from __future__ import annotations

import json
import platform
import uuid
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Self

from prefrl.errors import UserError
from prefrl.files import write_json
from prefrl.training.metrics import read_rows

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


class AnyRunFolder:
    """Paths and files of one run.

    Args:
        path: the folder. `create` makes a new one, `open` takes one that is there.
    """

    FORMAT: ClassVar[str]
    FORMAT_VERSION: ClassVar[int] = 1
    COMMAND: ClassVar[str]
    """What makes such folders."""
    RESUME: ClassVar[str]
    """What goes on with one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_path = path / "config.json"
        self.metrics_path = path / "metrics.jsonl"
        self.tensorboard = path / "tensorboard"
        self.checkpoints = path / "checkpoints"
        self.summary_path = path / "summary.json"

    @classmethod
    def _create(cls, path: Path, **described: Any) -> Self:
        """Make the folder and write its configuration.

        Raises:
            UserError: there is something already, or it cannot be written.
        """
        folder = cls(path)
        if folder.config_path.is_file():
            raise UserError(
                f"There is a run in {path} already. Go on with it by: {cls.RESUME} {path} - or choose another --out."
            )
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"{path} exists already and is not a run folder. Choose another --out.")
        config = {
            "format": cls.FORMAT,
            "version": cls.FORMAT_VERSION,
            "run_id": uuid.uuid4().hex,
            **described,
            "versions": installed_versions(),
        }
        write_json(folder.config_path, config)
        return folder

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the folder of a run.

        Raises:
            UserError: there is no run of this kind, or its configuration cannot be read.
        """
        folder = cls(path)
        if not folder.config_path.is_file():
            raise UserError(
                f"There is no run in {path}: it has no config.json. Give the folder of a run made by {cls.COMMAND}."
            )
        config = folder.config
        if config.get("format") != cls.FORMAT:
            raise UserError(f"{folder.config_path} was not written by {cls.COMMAND}.")
        if config["version"] > cls.FORMAT_VERSION:
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
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.summary_path.is_file()

    def read_summary(self) -> dict[str, Any]:
        """Return the figures at the end.

        Raises:
            UserError: the run is not finished.
        """
        if not self.finished:
            raise UserError(f"The run in {self.path} is not finished. Go on with: {self.RESUME} {self.path}")
        summary: dict[str, Any] = json.loads(self.summary_path.read_text())
        return summary

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the rows of metrics; a last line that a kill cut short is left out."""
        return read_rows(self.metrics_path)


def installed_versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found

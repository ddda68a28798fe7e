"""The folder of a text run: settings with versions, metrics, evaluations, checkpoints, and the model at its end.

config.json        what was asked for, with versions
metrics.jsonl      one row for each step, also in tensorboard/
evaluations.jsonl  one row for each evaluation on held-out prompts
checkpoints/       the newest two
model/             the result, as `transformers` loads it
summary.json       figures at the end; a run that has it is finished
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from prefrl.errors import UserError
from prefrl.files import write_atomically, write_json
from prefrl.training.folder import finite, installed_versions

FORMAT, FORMAT_VERSION = "prefrl.text_run", 1


class TextRunFolder:
    """Paths and files of one text run.

    Args:
        path: the folder. `create` makes a new one, `open` takes one that is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_path = path / "config.json"
        self.metrics_path = path / "metrics.jsonl"
        self.evaluations_path = path / "evaluations.jsonl"
        self.tensorboard = path / "tensorboard"
        self.checkpoints = path / "checkpoints"
        self.model_path = path / "model"
        self.summary_path = path / "summary.json"

    @classmethod
    def create(cls, path: Path, command: str, settings: dict[str, Any]) -> TextRunFolder:
        """Make the folder and write its configuration.

        Raises:
            UserError: there is something already, or it cannot be written.
        """
        folder = cls(path)
        if folder.config_path.is_file():
            raise UserError(
                f"There is a run in {path} already. Go on with it by: prefrl text resume {path} - or choose another "
                "--out."
            )
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"{path} exists already and is not a run folder. Choose another --out.")
        config = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "run_id": uuid.uuid4().hex,
            "command": command,
            "settings": settings,
            "versions": installed_versions(),
        }
        write_json(folder.config_path, finite(config))
        return folder

    @classmethod
    def open(cls, path: Path) -> TextRunFolder:
        """Open the folder of a run.

        Raises:
            UserError: there is none, or it cannot be read.
        """
        folder = cls(path)
        if not folder.config_path.is_file():
            raise UserError(f"There is no run in {path}: it has no config.json. Give a folder that prefrl text made.")
        config = folder.config
        if config.get("format") != FORMAT:
            raise UserError(f"{folder.config_path} was not written by prefrl text.")
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
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.summary_path.is_file()

    @property
    def summary(self) -> dict[str, Any]:
        """The figures at the end.

        Raises:
            UserError: the run is not finished.
        """
        if not self.finished:
            raise UserError(f"The run in {self.path} is not finished. Go on with: prefrl text resume {self.path}")
        summary: dict[str, Any] = json.loads(self.summary_path.read_text())
        return summary

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the rows of metrics; a last line that a kill cut short is left out."""
        return _read_rows(self.metrics_path)

    def read_evaluations(self) -> list[dict[str, Any]]:
        """Return the evaluations in the order of their steps; of two of one step the later."""
        by_step = {row["step"]: row for row in _read_rows(self.evaluations_path)}
        return [by_step[step] for step in sorted(by_step)]

    def add_evaluation(self, row: dict[str, Any]) -> None:
        """Keep a row of figures; `step` says when."""
        rows = [*_read_rows(self.evaluations_path), finite(row)]
        write_atomically(self.evaluations_path, "".join(json.dumps(r, allow_nan=False) + "\n" for r in rows))


def _read_rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    rows: list[dict[str, Any]] = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows

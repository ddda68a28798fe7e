"""The folder of a text run: settings with versions, metrics, evaluations, checkpoints, and the model at its end.

config.json        what was asked for, with versions
inputs.json        digests of the files and models that it learns from
metrics.jsonl      one row for each step, also in tensorboard/
evaluations.jsonl  one row for each evaluation: on held-out prompts of a world, or on a data set's own
checkpoints/       the newest two
model/             the result, as `transformers` loads it
summary.json       figures at the end; a run that has it is finished
digests.json       of the files of figures, as they were then
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from prefrl.errors import UserError
from prefrl.files import write_atomically
from prefrl.runs import RunFolder
from prefrl.runs.metrics import finite, read_rows

_Value = TypeVar("_Value")


class TextFolder(RunFolder):
    """Paths and files of one text run.

    Args:
        path: the folder. `create` makes a new one, `open` takes one that is there.
    """

    FORMAT, COMMAND, COUNTER = "prefrl.text_run", "prefrl text", "step"
    FIELDS = {"command": str}  # noqa: RUF012  (as the class has them)
    ROWS = (*RunFolder.ROWS, "evaluations.jsonl")

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.evaluations_path = path / "evaluations.jsonl"
        self.model_path = path / "model"

    @classmethod
    def create(cls, path: Path, command: str, settings: dict[str, Any]) -> TextFolder:
        """Make the folder and write its configuration.

        Raises:
            UserError: there is something already, or it cannot be written.
        """
        return cls._create(path, command=command, settings=finite(settings), begun_in=os.getcwd())

    def setting(self, kind: type[_Value], *names: str, within: Mapping[str, Any] | None = None) -> _Value | None:
        """Return a value within the settings, found by the names on the way to it; None where there is none.

        Args:
            kind: of the value.
            names: on the way to it.
            within: other settings than those of the configuration.

        Raises:
            UserError: it is of another kind.
        """
        value: Any = self.config["settings"] if within is None else within
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None and type(value) is not kind:
            raise UserError(
                f"{self.config_path} is damaged: its setting {'.'.join(names)} should be of type {kind.__name__}. "
                f"Received {str(value)[:60]!r}. Restore it from a copy."
            )
        return value

    def read_evaluations(self) -> list[dict[str, Any]]:
        """Return the evaluations in the order of their steps; of two of one step the later."""
        self.tell_changed_rows(self.evaluations_path)
        by_step = {row["step"]: row for row in read_rows(self.evaluations_path, self.COUNTER)}
        return [by_step[step] for step in sorted(by_step)]

    def add_evaluation(self, row: dict[str, Any]) -> None:
        """Keep a row of figures; `step` says when."""
        rows = [*read_rows(self.evaluations_path, self.COUNTER), finite(row)]
        write_atomically(self.evaluations_path, "".join(json.dumps(r, allow_nan=False) + "\n" for r in rows))

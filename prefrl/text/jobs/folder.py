"""The folder of a text run: settings with versions, metrics, evaluations, checkpoints, and the model at its end.

config.json        what was asked for, with versions
inputs.json        digests of the files and models that it learns from
metrics.jsonl      one row for each step, also in tensorboard/
evaluations.jsonl  one row for each evaluation: on held-out prompts of a world, or on a data set's own
checkpoints/       the newest two
model/             the result, as `transformers` loads it
summary.json       figures at the end; a run that has it is finished
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from prefrl.files import write_atomically
from prefrl.runs import RunFolder
from prefrl.runs.metrics import finite, read_rows


class TextFolder(RunFolder):
    """Paths and files of one text run.

    Args:
        path: the folder. `create` makes a new one, `open` takes one that is there.
    """

    FORMAT, COMMAND, COUNTER = "prefrl.text_run", "prefrl text", "step"

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

    def read_evaluations(self) -> list[dict[str, Any]]:
        """Return the evaluations in the order of their steps; of two of one step the later."""
        by_step = {row["step"]: row for row in read_rows(self.evaluations_path)}
        return [by_step[step] for step in sorted(by_step)]

    def add_evaluation(self, row: dict[str, Any]) -> None:
        """Keep a row of figures; `step` says when."""
        rows = [*read_rows(self.evaluations_path), finite(row)]
        write_atomically(self.evaluations_path, "".join(json.dumps(r, allow_nan=False) + "\n" for r in rows))

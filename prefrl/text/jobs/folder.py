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

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from prefrl.errors import UserError
from prefrl.runs.metrics import finite
from prefrl.runs.running import StepFolder

_Value = TypeVar("_Value")


class TextFolder(StepFolder):
    """Paths and files of one text run.

    Args:
        path: the folder. `create` makes a new one, `open` takes one that is there.
    """

    FORMAT, COMMAND, COUNTER = "prefrl.text_run", "prefrl text", "step"
    FIELDS = {"command": str}  # noqa: RUF012  (as the class has them)

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

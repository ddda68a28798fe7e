"""The folder of an image run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from prefrl.runs.metrics import finite
from prefrl.runs.running import StepFolder


class ImageFolder(StepFolder):
    """The folder of an image run: settings, metrics, evaluations, grids of samples, checkpoints, the model."""

    FORMAT, COMMAND = "prefrl.image_run", "prefrl image"
    FIELDS = {"command": str}  # noqa: RUF012  (as the class has them)

    @classmethod
    def create(cls, path: Path, command: str, settings: dict[str, Any]) -> ImageFolder:
        """Make the folder and write its configuration."""
        return cls._create(path, command=command, settings=finite(settings), begun_in=os.getcwd())

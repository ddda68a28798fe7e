"""Experiment trackers: each takes a run's figures, settings, pictures and films, by its own library.

Addresses, accounts and offline modes are each library's own, by its environment variables (`WANDB_MODE=offline`,
`MLFLOW_TRACKING_URI`, `TRACKIO_DIR`, ...). A library is imported when it is asked for, and not before.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Protocol

from prefrl.errors import UserError, first_line
from prefrl.seams import Registry

LONGEST_PARAMETER = 500  # characters that MLflow takes
MLFLOW_AT_ONCE = 1_000  # figures that it takes at once
FILMS = (".mp4", ".gif")


class Tracker(Protocol):
    """Where the figures of one run go."""

    def log(self, figures: Mapping[str, float], count: int) -> None:
        """Take the figures of one row, by name, at a count of steps."""

    def finish(self, figures: Mapping[str, float], files: Sequence[Path]) -> None:
        """Take the figures that the run came to, its pictures and films."""

    def close(self) -> None:
        """Bring everything where it belongs."""


class MakeTracker(Protocol):
    """What opens a tracker."""

    def __call__(
        self, *, path: Path, run_id: str, project: str, settings: Mapping[str, Any], own: dict[str, Any]
    ) -> Tracker:
        """Begin to track a run, or go on.

        Args:
            path: the run folder, by whose name the run is known.
            run_id: of the run, the same whenever it goes on.
            project: in which runs are seen side by side.
            settings: of the run, flat: `fit.num_steps` and the like.
            own: whatever the tracker must know to go on; what it puts there is kept.
        """


class WandbTracker:
    """Weights & Biases."""

    def __init__(
        self, *, path: Path, run_id: str, project: str, settings: Mapping[str, Any], own: dict[str, Any]
    ) -> None:
        self._wandb = _library("wandb")
        self._run = self._wandb.init(
            project=project, id=run_id, name=path.name, resume="allow", config=dict(settings), dir=str(path),
            settings=self._wandb.Settings(silent=True, console="off"),
        )  # fmt: skip

    def log(self, figures: Mapping[str, float], count: int) -> None:
        """Log a row at its count."""
        self._run.log(dict(figures), step=count)

    def finish(self, figures: Mapping[str, float], files: Sequence[Path]) -> None:
        """Update the summary, and log pictures and films."""
        self._run.summary.update(dict(figures))
        media = {
            path.stem: self._wandb.Video(str(path)) if path.suffix in FILMS else self._wandb.Image(str(path))
            for path in files
        }
        if media:
            self._run.log(media)

    def close(self) -> None:
        """Finish the run; it may be gone on with."""
        self._run.finish()


class MlflowTracker:
    """MLflow."""

    def __init__(
        self, *, path: Path, run_id: str, project: str, settings: Mapping[str, Any], own: dict[str, Any]
    ) -> None:
        self._entities = _library("mlflow.entities")
        self._client = client = _library("mlflow").MlflowClient()
        if "run" not in own:
            experiment = client.get_experiment_by_name(project)
            number = client.create_experiment(project) if experiment is None else experiment.experiment_id
            run = client.create_run(number, run_name=path.name, tags={"prefrl.run_id": run_id})
            own["run"] = run.info.run_id
            for name, value in settings.items():
                client.log_param(own["run"], name, str(value)[:LONGEST_PARAMETER])
        self._run = own["run"]
        client.update_run(self._run, status="RUNNING")

    def log(self, figures: Mapping[str, float], count: int) -> None:
        """Log a row at its count."""
        now = int(1000 * time.time())
        metrics = [self._entities.Metric(name, value, now, count) for name, value in figures.items()]
        for begin in range(0, len(metrics), MLFLOW_AT_ONCE):
            self._client.log_batch(self._run, metrics=metrics[begin : begin + MLFLOW_AT_ONCE])

    def finish(self, figures: Mapping[str, float], files: Sequence[Path]) -> None:
        """Log what it came to as figures named `final/...`, and files as artifacts."""
        self.log({f"final/{name}": value for name, value in figures.items()}, 0)
        for path in files:
            self._client.log_artifact(self._run, str(path))

    def close(self) -> None:
        """Note that the run has ended; it may be gone on with."""
        self._client.set_terminated(self._run)


class TrackioTracker:
    """Trackio."""

    def __init__(
        self, *, path: Path, run_id: str, project: str, settings: Mapping[str, Any], own: dict[str, Any]
    ) -> None:
        self._trackio = _library("trackio")
        with redirect_stdout(sys.stderr):  # it speaks, and what a command prints may be JSON
            self._run = self._trackio.init(
                project=project, name=f"{path.name}-{run_id[:8]}", config=dict(settings), resume="allow", embed=False
            )

    def log(self, figures: Mapping[str, float], count: int) -> None:
        """Log a row at its count."""
        self._run.log(dict(figures), step=count)

    def finish(self, figures: Mapping[str, float], files: Sequence[Path]) -> None:
        """Log what it came to as figures named `final/...`, and pictures and films."""
        self._run.log({f"final/{name}": value for name, value in figures.items()})
        for path in files:
            kind = self._trackio.Video if path.suffix in FILMS else self._trackio.Image
            self._run.log({path.stem: kind(str(path))})

    def close(self) -> None:
        """Finish the run; it may be gone on with."""
        with redirect_stdout(sys.stderr):
            self._run.finish()


class AimTracker:
    """Aim."""

    def __init__(
        self, *, path: Path, run_id: str, project: str, settings: Mapping[str, Any], own: dict[str, Any]
    ) -> None:
        self._aim = _library("aim")
        self._run = self._aim.Run(
            run_hash=own.get("run"), experiment=project, system_tracking_interval=None, log_system_params=False
        )
        own["run"] = self._run.hash
        self._run.name = path.name
        self._run["settings"] = {name: value if _is_plain(value) else str(value) for name, value in settings.items()}

    def log(self, figures: Mapping[str, float], count: int) -> None:
        """Track a row at its count."""
        for name, value in figures.items():
            self._run.track(value, name=name, step=count)

    def finish(self, figures: Mapping[str, float], files: Sequence[Path]) -> None:
        """Keep what it came to as `final`, and its pictures."""
        self._run["final"] = dict(figures)
        for path in files:
            if path.suffix not in FILMS:
                self._run.track(self._aim.Image(str(path)), name=path.stem)

    def close(self) -> None:
        """Close the run; it may be gone on with."""
        self._run.close()


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        reason = "" if package in str(error) else f" ({first_line(error)})"
        raise UserError(f"Tracking needs the package {package}{reason}: pip install {package}") from error


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _adopt(thing: Any, where: str) -> Callable[..., Tracker]:
    if not callable(thing):
        raise UserError(f"{where} is to open a tracker, and cannot be called.")
    made: Callable[..., Tracker] = thing
    return made


TRACKERS: Registry[Callable[..., Tracker]] = Registry(
    "tracker",
    {"wandb": WandbTracker, "mlflow": MlflowTracker, "trackio": TrackioTracker, "aim": AimTracker},
    _adopt,
)
"""Every tracker by name."""

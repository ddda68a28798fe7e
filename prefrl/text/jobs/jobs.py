"""Runs of `prefrl text`: each kind of job by its name, begun, gone on with, taken back."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from prefrl.errors import UserError
from prefrl.runs import tracking
from prefrl.runs.codec import to_json
from prefrl.text.jobs.direct import DPOJob, IPOJob, KTOJob, SimPOJob
from prefrl.text.jobs.folder import TextFolder
from prefrl.text.jobs.inputs import check_inputs, digests_of, keep_digests, settings_of
from prefrl.text.jobs.policies import (
    EstimatorJob,
    GRPOJob,
    OnlineDPOJob,
    OnlineIPOJob,
    PPOJob,
    ReinforceJob,
    RLOOJob,
)
from prefrl.text.jobs.supervised import PretrainJob, RewardJob, SFTJob
from prefrl.text.learn.runtime import Runtime, on_main_process

Job = PretrainJob | SFTJob | RewardJob | PPOJob | DPOJob
JOBS: dict[str, type[Any]] = {
    kind.verb: kind
    for kind in (
        PretrainJob,
        SFTJob,
        RewardJob,
        PPOJob,
        RLOOJob,
        GRPOJob,
        ReinforceJob,
        EstimatorJob,
        OnlineDPOJob,
        OnlineIPOJob,
        DPOJob,
        IPOJob,
        SimPOJob,
        KTOJob,
    )
}


def start(job: Job, out: Path, *, trackers: Sequence[str] = (), quiet: bool = False) -> TextFolder:
    """Run a job in a new folder; one that was refused before anything happened leaves none behind.

    Of several processes the main one makes the folder, and takes it back.

    Args:
        job: what to do.
        out: the folder.
        trackers: experiment trackers that take its figures, by name (`prefrl.runs.trackers`).
        quiet: no progress.

    Raises:
        UserError: the job cannot be done.
        Interrupted: the user stopped it; `resume` goes on.
    """
    runtime, folder, settings = job.place.runtime(), TextFolder(out), to_json(job)

    def begin() -> None:
        digests = digests_of(settings)
        keep_digests(made := TextFolder.create(out, job.verb, settings), digests)
        if trackers:
            tracking.track(made, trackers)

    runtime.on_main(begin)
    try:
        _run(job, folder, quiet)
    except Exception:
        trained = folder.metrics_path.exists() and folder.metrics_path.stat().st_size
        if not trained and not (folder.path / "record.sqlite").exists():  # in which people's answers may be
            remove_untouched(folder, runtime)
        raise
    return folder


def resume(path: Path, *, quiet: bool = False, trust: bool = False, accept_changed: bool = False) -> TextFolder:
    """Go on with a job that was stopped or killed, from whatever working directory.

    Raises:
        UserError: there is none, it is finished, or what it learns from is not what it was.
        Interrupted: the user stopped it again.
    """
    folder = TextFolder.open(path, trust=trust)
    folder.accept_changed = accept_changed
    folder.refuse_if_finished()
    job = folder.read_settings(job_of(folder), settings_of(folder))
    job.place.runtime().on_main(lambda: check_inputs(folder))
    _run(job, folder, quiet)
    return folder


def _run(job: Job, folder: TextFolder, quiet: bool) -> None:
    with tracking.followed(folder) if on_main_process() else nullcontext():
        job.run(folder, quiet=quiet)


def job_of(folder: TextFolder) -> type[Any]:
    """Return the kind of job that a folder is of.

    Raises:
        UserError: none that is known here.
    """
    verb = folder.config["command"]
    if verb not in JOBS:
        raise UserError(f"{folder.config_path} names a command that is not one of {', '.join(JOBS)}: {verb[:60]!r}.")
    return JOBS[verb]


def remove_untouched(folder: TextFolder, runtime: Runtime) -> None:
    """Take back the folder of a run in which nothing was trained."""
    if runtime.is_main:
        shutil.rmtree(folder.path, ignore_errors=True)

"""Demonstrations for a run of `prefrl train`: read, cloned, and put into its folder, before it begins."""

from __future__ import annotations

import sys

from prefrl.control.demonstrations import CLONED, HIDDEN, check_length, keep_segments
from prefrl.control.folder import ControlFolder
from prefrl.errors import UserError
from prefrl.offline.data import OfflineData, World
from prefrl.offline.folder import OfflineFolder
from prefrl.offline.run import go_on
from prefrl.offline.settings import LearnerSettings, OfflineSettings
from prefrl.offline.sources import read_data
from prefrl.runs.folder import RESUME, format_of
from prefrl.runs.guard import Interrupted

UPDATES = 5_000  # of the clone, of 256 steps each: some seconds
PLAYED = 5  # episodes by which it is judged
MEND = "Give --demonstrations of the environment that is trained in."


def demonstrate(folder: ControlFolder, quiet: bool) -> None:
    """Put a policy cloned from demonstrations and segments of them into the folder of a run; again, it goes on.

    The clone is an offline run of its own in the folder `demonstrations`; its policy is that named `cloned` of the run.

    Args:
        folder: of the run, its configuration written.
        quiet: no progress.

    Raises:
        UserError: the demonstrations cannot be read, are of another environment, or are shorter than a segment.
        Interrupted: the user stopped it; it can be gone on with.
    """
    settings = folder.settings
    assert settings.demonstrations is not None
    data = read_data(settings.demonstrations, World.of(settings), mend=MEND)
    check_length(data.history, settings)
    if settings.clone_demonstrations:
        try:
            _clone(folder, data, quiet)
        except Interrupted:
            raise Interrupted(f"Stopped; everything is saved. Resume with: {RESUME} {folder.path}") from None
    keep_segments(folder, data.history)


def _clone(folder: ControlFolder, data: OfflineData, quiet: bool) -> None:
    settings, path = folder.settings, folder.path / "demonstrations"
    if format_of(path) == OfflineFolder.FORMAT:
        cloned = OfflineFolder.open(path)
        if cloned.settings.fingerprint != data.fingerprint:
            raise UserError(
                f"The demonstrations in {settings.demonstrations} are not those that the run in {folder.path} was "
                "begun with. Put them back, or begin another run: --out."
            )
    else:
        asked = OfflineSettings(
            dataset=str(settings.demonstrations),
            method="cloning",
            steps=UPDATES,
            seed=settings.seed,
            segment_length=settings.segment_length,
            learner=LearnerSettings(hidden=tuple(HIDDEN)),
            eval_episodes=PLAYED,
            eval_minutes=settings.eval_minutes,
            num_checkpoints=2,
        )
        cloned = OfflineFolder.create(path, asked.resolve(data), baseline=False)
    if not cloned.finished:
        go_on(cloned, data, quiet=quiet, annotator=None)
    folder.save_policy(CLONED, cloned.load_policy("last"))
    if not quiet:
        print(_told(cloned, settings.shows_true_reward), file=sys.stderr)  # noqa: T201


def _told(cloned: OfflineFolder, with_returns: bool) -> str:
    """Say what was cloned, and how well the clone does where that is known and may be said."""
    summary = cloned.read_summary()
    data = summary["data"] or {}
    told = f"Cloned from {data.get('episodes', '?')} demonstrations"
    own, theirs = summary["true_return_mean"], data.get("true_return_mean")
    if not with_returns or own is None:
        return f"{told}."
    theirs_told = "" if theirs is None else f", theirs {theirs:.5g}"
    return f"{told}: true return of the clone {own:.5g}{theirs_told}."

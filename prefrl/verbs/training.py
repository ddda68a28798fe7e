"""Verbs that train: `train`, `offline`, `resume`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from prefrl.control import run as runs
from prefrl.control.folder import ControlFolder
from prefrl.control.pairs import pairs
from prefrl.control.settings import TrainSettings
from prefrl.errors import UserError
from prefrl.offline import run as offline_runs
from prefrl.offline.demonstrations import demonstrate
from prefrl.offline.folder import OfflineFolder
from prefrl.offline.settings import OfflineSettings
from prefrl.runs import tracking
from prefrl.studies import text_runs
from prefrl.studies.film import record_video
from prefrl.studies.own_measure import against_of
from prefrl.studies.report import report_run
from prefrl.studies.tables import show_offline
from prefrl.verbs.common import RunPath, image_jobs, is_image, is_offline, is_text, or_warn, other_kind, print_json
from prefrl.verbs.summary import show_summary


def train(
    settings: Annotated[TrainSettings, tyro.conf.arg(name="")],
    *,
    hyper: tuple[str, ...] = (),
    env: tuple[str, ...] = (),
    out: Path | None = None,
    baseline: bool = False,
    baseline_only: bool = False,
    viewer: bool = True,
    serve: bool = False,
    video: bool = True,
    track: tuple[str, ...] = (),
    project: str = tracking.PROJECT,
    quiet: bool = False,
    json: bool = False,
) -> None:
    """Train an agent from comparisons of clips.

    Args:
        settings: the run.
        hyper: hyper-parameters of the agent, as NAME=VALUE ... (of stable-baselines3, by its names).
        env: options of the environment's constructor, as NAME=VALUE ..., e.g. hide_life_loss=false of an Atari game.
        out: folder of the run; default: a name made of the settings, under runs/.
        baseline: also train on the environment's own reward with the same settings, and draw both curves.
        baseline_only: train on the environment's own reward alone: nothing is asked and no reward learned.
        viewer: where people are asked, open the viewer if there is a screen.
        serve: where people are asked, also serve the questions to browsers; links for them are made by prefrl invite.
        video: record the agent before, during and after training.
        track: experiment trackers that take its figures, pictures and films too: wandb, mlflow, trackio, aim.
        project: in which these show it.
        quiet: no progress.
        json: print the result as one JSON object.
    """
    settings = replace(
        settings,
        hyperparameters={**settings.hyperparameters, **pairs(hyper, "hyper-parameters", "learning_rate=0.001")},
        env_options={**settings.env_options, **pairs(env, "options of the environment", "hide_life_loss=false")},
    )
    if baseline_only:
        if baseline or serve:
            raise UserError(f"--baseline-only is a run in itself: leave out {'--baseline' if baseline else '--serve'}.")
        folder = runs.train_baseline(settings, out, quiet=quiet, trackers=track, project=project)
    else:
        folder = runs.train(
            settings, out, baseline=baseline, quiet=quiet, viewer=viewer, serve=serve, trackers=track, project=project,
            demonstrate=demonstrate,
        )  # fmt: skip
    _after_training(folder, video=video, quiet=quiet, as_json=json)


def offline(
    settings: Annotated[OfflineSettings, tyro.conf.arg(name="")],
    *,
    controls: tuple[Literal["true", "zero", "random", "cloning"], ...] = (),
    out: Path | None = None,
    video: bool = True,
    track: tuple[str, ...] = (),
    project: str = tracking.PROJECT,
    quiet: bool = False,
    json: bool = False,
) -> None:
    """Learn a policy from data that are given and answers about them; called again with the same --out, it goes on.

    Args:
        settings: the run.
        controls: what is to stand beside it: iql on the true reward, on zero and on random numbers, and cloning.
        out: folder of the run; default: a name made of the settings, under runs/.
        video: record the policy before, during and after training.
        track: experiment trackers that take its figures, pictures and films too: wandb, mlflow, trackio, aim.
        project: in which these show it.
        quiet: no progress.
        json: print the result as one JSON object.
    """
    folder = offline_runs.offline(settings, out, controls=controls, quiet=quiet, trackers=track, project=project)
    _show_offline(folder, video=video, quiet=quiet, as_json=json)


def _show_offline(folder: OfflineFolder, *, video: bool, quiet: bool, as_json: bool) -> None:
    """Judge and film what was learned, and show the figures; where people are to answer first, there is nothing yet."""
    if not folder.finished:
        return
    if folder.settings.learns_reward:
        or_warn("No report", lambda: report_run(folder))
    if video and folder.has_environment:
        or_warn("No video", lambda: record_video(folder))
    or_warn("Nothing is tracked", lambda: tracking.finish(folder))
    summary = folder.read_summary()
    if as_json:
        print_json(summary)
        return
    show_offline(summary, Console())
    if not quiet:
        names = [name for name in ("curves.png", "report.png", "videos/training.mp4") if (folder.path / name).exists()]
        print("Look at: " + ", ".join(str(folder.path / name) for name in names))


def resume(
    run: RunPath, *, viewer: bool = True, serve: bool = False, video: bool = True, quiet: bool = False,
    json: bool = False, trust: bool = False, accept_lost: bool = False, accept_changed: bool = False,
    labels: str | None = None, steps: str | None = None,
) -> None:  # fmt: skip
    """Go on with a run of any kind that was stopped or killed, or with more labels with one that is over.

    Args:
        run: folder of the run.
        labels: of a control run: +200 for so many more than it was to have, or how many in all, e.g. to end early.
        steps: of its training, likewise, with --labels; default: with more labels, more steps in proportion.
        viewer: where people are asked, open the viewer if there is a screen and none is open.
        serve: where people are asked, also serve the questions to browsers.
        video: record the agent before, during and after training.
        quiet: no progress.
        json: print the result as one JSON object.
        trust: this run was made by another user or on another machine: use what its config.json names, code among it.
        accept_lost: go on without what the record has lost since the last checkpoint.
        accept_changed: go on with settings that were changed in config.json since then; of text, also with data and
            models that were.
    """
    if (kind := other_kind(run)) and (labels is not None or steps is not None):
        raise UserError(f"--labels and --steps are for control runs, but the run in {run} is one of {kind}.")
    if is_offline(run):
        _show_offline(
            offline_runs.resume(
                run, quiet=quiet or json, trust=trust, accept_lost=accept_lost, accept_changed=accept_changed
            ),
            video=video,
            quiet=quiet,
            as_json=json,
        )
        return
    if is_image(run):
        done = image_jobs().resume(run, quiet=quiet or json, trust=trust, accept_changed=accept_changed)
        if json:
            print_json(done.read_summary())
        return
    if is_text(run):
        summary = text_runs.resume(run, quiet=quiet or json, trust=trust, accept_changed=accept_changed)
        if json:
            print_json(summary)
        return
    folder = runs.resume(
        run, quiet=quiet, viewer=viewer, serve=serve, trust=trust, accept_lost=accept_lost,
        accept_changed=accept_changed, labels=labels, steps=steps, demonstrate=demonstrate,
    )  # fmt: skip
    _after_training(folder, video=video, quiet=quiet, as_json=json)


def _after_training(folder: ControlFolder, *, video: bool, quiet: bool, as_json: bool) -> None:
    """Judge and film what was learned, and show the figures; a failure in one leaves the others."""
    card = or_warn("No report", lambda: report_run(folder)) if folder.learns_reward else None
    if video:
        or_warn("No video", lambda: record_video(folder))
    or_warn("Nothing is tracked", lambda: tracking.finish(folder))
    summary = folder.read_summary()
    show_summary(folder, summary, as_json=as_json)
    if not as_json and not quiet:
        if card is not None and folder.settings.shows_true_reward:
            print(card.to_text(against_of(folder.settings)))
        names = [name for name in ("curves.png", "report.png", "videos/training.mp4") if (folder.path / name).exists()]
        print("Look at: " + ", ".join(str(folder.path / name) for name in names))

"""Verbs that look at runs: `evaluate`, `report`, `track`, `quality`, `fit`, `video`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from prefrl.control import run as runs
from prefrl.control.folder import ControlFolder
from prefrl.errors import UserError
from prefrl.image.folder import ImageFolder
from prefrl.offline import run as offline_runs
from prefrl.offline.folder import OfflineFolder
from prefrl.runs import tracking
from prefrl.runs.folder import RunFolder, record_place
from prefrl.runs.trackers import TRACKERS
from prefrl.seams import trust_data
from prefrl.studies import text_runs
from prefrl.studies.film import record_video
from prefrl.studies.own_measure import against_of, print_own_measure
from prefrl.studies.refit import refit
from prefrl.studies.report import report_run
from prefrl.studies.run_quality import record_quality, run_quality
from prefrl.studies.tables import show_fit, show_offline, show_quality, show_text_report
from prefrl.text.jobs.folder import TextFolder
from prefrl.verbs.common import RecordPlace, RunPath, image_jobs, is_image, is_text, open_run, print_json, words_apart
from prefrl.verbs.summary import show_summary


def evaluate(
    run: RunPath, *, episodes: int | None = None, max_episode_steps: int | None = None, minutes: float | None = None,
    policy: str | None = None, seed: int | None = None, json: bool = False, trust: bool = False,
) -> None:  # fmt: skip
    """Measure what a run learned: the true return over whole episodes, or the figures of a language model.

    Args:
        run: folder of the run, of any kind.
        episodes: of a control run: how many; default: as many as when it was trained, 20.
        max_episode_steps: of a control run: steps after which an episode is stopped; default: the run's, or 10,000
            where the environment has no end.
        minutes: of a control run: longest that the evaluation of one policy may take; default: the run's, 30.
        policy: of a control run: last, best, during or before; default: last.
        seed: seed of the environments or of the draws; default: the run's own seed for evaluation.
        json: print one JSON object.
        trust: this run was made by another user or on another machine: use what its config.json names, code among it.
    """
    if is_image(run):
        raise UserError(f"The run in {run} is one of prefrl image. Measure it with: prefrl image evaluate {run}")
    if is_text(run):
        for name, value in (
            ("--episodes", episodes),
            ("--max-episode-steps", max_episode_steps),
            ("--minutes", minutes),
            ("--policy", policy),
        ):
            if value is not None:
                raise UserError(
                    f"{name} is for control runs, but the run in {run} is one of prefrl text. Its own options are "
                    f"those of: prefrl text evaluate {run} --help"
                )
        text_runs.evaluate(run, seed=seed, as_json=json, trust=trust)
        return
    with words_apart(json):
        folder = open_run(run, trust=trust)
    if isinstance(folder, OfflineFolder) and not folder.has_environment:
        raise UserError(
            f"The data of the run in {run} name no environment, so there is nothing to play in. Give it to a new run: "
            "prefrl offline DATASET --env ENV"
        )
    own = runs.Bounds.of(folder.settings)
    bounds = runs.Bounds(
        num_episodes=own.num_episodes if episodes is None else episodes,
        max_steps=own.max_steps if max_episode_steps is None else max_episode_steps,
        max_minutes=own.max_minutes if minutes is None else minutes,
    )
    if isinstance(folder, OfflineFolder):
        with words_apart(json):
            figures = offline_runs.summarise(folder, seed=seed, policy=policy or "last", bounds=bounds, quiet=False)
        if json:
            print_json(figures)
        else:
            show_offline(figures, Console())
        return
    with words_apart(json):
        summary = runs.summarise(folder, seed=seed, policy=policy or "last", bounds=bounds, quiet=False)
    failed = summary["failures"].get(summary["policy"])
    others = 2 if folder.learns_reward else 1  # without a reward no policy is best by it
    if failed is not None and len(summary["failures"]) > others:  # not only this policy: nothing can be told
        raise UserError(f"The run in {run} cannot be evaluated: {failed}")
    show_summary(folder, summary, as_json=json)


def report(run: RunPath, *, json: bool = False, trust: bool = False) -> None:
    """Judge a run's learned reward on segments it was not fitted on; of a text run: its figures along the way.

    Of a control run it writes report.png and report.json.

    Args:
        run: folder of the run, of any kind.
        json: print one JSON object: the report card with the figures of the run.
        trust: this run was made by another user or on another machine: use what its config.json names, code among it.
    """
    if is_image(run):
        image_jobs()
        from prefrl.image.commands import report as image_report

        image_report(run, json=json)
        return
    if is_text(run):
        figures = text_runs.report(run)
        if json:
            print_json(figures)
        else:
            show_text_report(figures, run, Console())
        return
    with words_apart(json):
        folder = open_run(run, trust=trust)
        card = report_run(folder)
    if json:
        with words_apart(json):
            figures = folder.read_summary() if isinstance(folder, OfflineFolder) else runs.summarise(folder)
        print_json({**figures, **card.to_json()})
    else:
        found = run_quality(folder)
        print_own_measure(folder, found.held_out_agreement, Console())
        if folder.settings.shows_true_reward:
            print(card.to_text(against_of(folder.settings)))
        show_quality(found, Console())
        print(f"Wrote {folder.path / 'report.png'} and {folder.path / 'report.json'}")


def track(run: RunPath, *, to: tuple[str, ...] = (), project: str = tracking.PROJECT, trust: bool = False) -> None:
    """Send a run's figures, pictures and films to experiment trackers: what they have not seen yet.

    A run that goes on later sends what comes then, too.

    Args:
        run: folder of the run, of any kind.
        to: wandb, mlflow, trackio, aim; default: those that the run is sent to already.
        project: in which they show it.
        trust: this run was made by another user or on another machine: use what its config.json names.
    """
    folder: RunFolder
    if is_image(run):
        folder = ImageFolder.open(run, trust=trust)
    else:
        folder = TextFolder.open(run, trust=trust) if is_text(run) else open_run(run, trust=trust)
    if not to and not tracking.is_tracked(run):
        raise UserError(f"The run in {run} goes to no tracker yet. Name one: --to {' | '.join(TRACKERS)}")
    tracking.track(folder, to, project)
    num_rows, stopped = tracking.finish(folder)
    print(f"Sent {num_rows:,} rows.")
    if stopped:
        raise UserError(f"Not everything was sent to {' and '.join(stopped)}: see above.")


def quality(run: RecordPlace, *, surprises: int = 10, json: bool = False, trust: bool = False) -> None:
    """Tell how good the answers of a run are, by annotator; writes quality.png and quality.json into a run's folder.

    Args:
        run: folder of the run, which may still be training; or a record: a file or the URL of a database.
        surprises: answers that the reward expected least to list, for a second look.
        json: print one JSON object.
        trust: this run was made by another user or on another machine: use what its config.json names, code among it.
    """
    is_run = "://" not in run and (Path(run).is_dir() or not Path(run).is_file())
    if trust and not is_run:
        trust_data()
    with words_apart(json):
        found = (
            run_quality(open_run(Path(run), trust=trust), surprises) if is_run else record_quality(record_place(run))
        )
    if json:
        print_json(found.to_json())
    else:
        show_quality(found, Console())
    if is_run and not json:
        print(f"Wrote {Path(run) / 'quality.png'} and {Path(run) / 'quality.json'}")


def fit(
    run: RunPath, *, without: tuple[str, ...] = (), reliability: bool = False, out: Path | None = None,
    json: bool = False, trust: bool = False,
) -> None:  # fmt: skip
    """Fit a reward anew to all answers of a run, e.g. without one of its annotators.

    Args:
        run: folder of the run; it may still be training.
        without: annotators whose answers are left out.
        reliability: estimate along what share of each annotator's answers is not random.
        out: write the reward to this file (.safetensors).
        json: print one JSON object.
        trust: this run was made by another user or on another machine: use what its config.json names, code among it.
    """
    reward, report = refit(ControlFolder.open(run, trust=trust), without=without, estimate_reliability=reliability)
    if out is not None:
        reward.save(out)
    if json:
        print_json(report.to_json())
    else:
        show_fit(report, Console())


def video(run: RunPath, *, steps: int = 200, out: Path | None = None, trust: bool = False) -> None:
    """Record the agent before, during and after training, with learned and true reward as curves.

    Args:
        run: folder of the run.
        steps: steps of each clip.
        out: the file (.mp4 or .gif); default: videos/training.mp4 in the run folder.
        trust: this run was made by another user or on another machine: use what its config.json names, code among it.
    """
    if is_image(run):
        raise UserError(f"There is nothing to film in {run}: look at the pictures in {run / 'samples'}.")
    if is_text(run):
        raise UserError(
            f"There is nothing to film in {run}: it is a run of prefrl text. Read what it says with: "
            f"prefrl text sample {run}"
        )
    path = record_video(open_run(run, trust=trust), out, num_steps=steps)
    print(f"Wrote {path}")

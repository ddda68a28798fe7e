"""The `prefrl` command: one verb per job."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO, TypeVar

from prefrl.errors import INTERRUPTED, USER_ERROR, UserError, first_line, require

require("tyro", "train")
require("rich", "train")
import tyro  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Column, Table  # noqa: E402

from prefrl.annotators import Annotator, make_teacher  # noqa: E402
from prefrl.control import run as runs  # noqa: E402
from prefrl.control.folder import ControlFolder  # noqa: E402
from prefrl.control.rendering import choose_gl_backend  # noqa: E402
from prefrl.control.settings import TrainSettings  # noqa: E402
from prefrl.dataset import export_record, import_record  # noqa: E402
from prefrl.envs import list_envs  # noqa: E402
from prefrl.envs.measures import known_measures  # noqa: E402
from prefrl.files import text_or_file, write_atomically  # noqa: E402
from prefrl.human_ui.command import main as viewer_command  # noqa: E402
from prefrl.human_ui.page import command as page_command  # noqa: E402
from prefrl.human_ui.page.gallery_command import main as gallery_command  # noqa: E402
from prefrl.human_ui.show import main as show_command  # noqa: E402
from prefrl.offline import run as offline_runs  # noqa: E402
from prefrl.offline.folder import OfflineFolder  # noqa: E402
from prefrl.offline.settings import OfflineSettings  # noqa: E402
from prefrl.runs import tracking  # noqa: E402
from prefrl.runs.folder import RESUME, format_of, record_place  # noqa: E402
from prefrl.runs.guard import Interrupted  # noqa: E402
from prefrl.runs.trackers import TRACKERS  # noqa: E402
from prefrl.seams import trust_data  # noqa: E402
from prefrl.shares import Share  # noqa: E402
from prefrl.store import PreferenceStore  # noqa: E402
from prefrl.store.engine import shown_address  # noqa: E402
from prefrl.studies import asking, media, text_runs  # noqa: E402
from prefrl.studies.contestants import judge_of, models_of, policies_of  # noqa: E402
from prefrl.studies.film import record_video  # noqa: E402
from prefrl.studies.own_measure import against_of, print_own_measure  # noqa: E402
from prefrl.studies.refit import refit  # noqa: E402
from prefrl.studies.report import report_run  # noqa: E402
from prefrl.studies.run_quality import record_quality, run_quality  # noqa: E402
from prefrl.studies.tables import (  # noqa: E402
    show_finding,
    show_fit,
    show_groups,
    show_offline,
    show_quality,
    show_standing,
    show_text_report,
)
from prefrl.studies.tournament import Tournament  # noqa: E402
from prefrl.studies.tournament_plot import plot_standing  # noqa: E402
from prefrl.text.jobs.folder import TextFolder  # noqa: E402
from prefrl.theory.catalogue import STUDIES, run_study  # noqa: E402

T = TypeVar("T")
app = tyro.extras.SubcommandApp()
RunPath = tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
RecordPlace = tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="RUN")]]
"""A run folder, a file or a URL: a `Path` would make one slash of the two."""


@app.command
def train(
    settings: Annotated[TrainSettings, tyro.conf.arg(name="")],
    *,
    hyper: tuple[str, ...] = (),
    env: tuple[str, ...] = (),
    out: Path | None = None,
    baseline: bool = False,
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
        hyperparameters={**settings.hyperparameters, **_pairs(hyper, "hyper-parameters", "learning_rate=0.001")},
        env_options={**settings.env_options, **_pairs(env, "options of the environment", "hide_life_loss=false")},
    )
    folder = runs.train(
        settings, out, baseline=baseline, quiet=quiet, viewer=viewer, serve=serve, trackers=track, project=project
    )
    _after_training(folder, video=video, quiet=quiet, as_json=json)


@app.command
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
        _or_warn("No report", lambda: report_run(folder))
    if video and folder.has_environment:
        _or_warn("No video", lambda: record_video(folder))
    _or_warn("Nothing is tracked", lambda: tracking.finish(folder))
    summary = folder.read_summary()
    if as_json:
        _print_json(summary)
        return
    show_offline(summary, Console())
    if not quiet:
        names = [name for name in ("curves.png", "report.png", "videos/training.mp4") if (folder.path / name).exists()]
        print("Look at: " + ", ".join(str(folder.path / name) for name in names))


@app.command
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
    if (kind := _other_kind(run)) and (labels is not None or steps is not None):
        raise UserError(f"--labels and --steps are for control runs, but the run in {run} is one of {kind}.")
    if _is_offline(run):
        _show_offline(
            offline_runs.resume(
                run, quiet=quiet or json, trust=trust, accept_lost=accept_lost, accept_changed=accept_changed
            ),
            video=video,
            quiet=quiet,
            as_json=json,
        )
        return
    if _is_text(run):
        summary = text_runs.resume(run, quiet=quiet or json, trust=trust, accept_changed=accept_changed)
        if json:
            _print_json(summary)
        return
    folder = runs.resume(
        run, quiet=quiet, viewer=viewer, serve=serve, trust=trust, accept_lost=accept_lost,
        accept_changed=accept_changed, labels=labels, steps=steps,
    )  # fmt: skip
    _after_training(folder, video=video, quiet=quiet, as_json=json)


@app.command
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
    if _is_text(run):
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
    folder = _open_run(run, trust=trust)
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
        figures = offline_runs.summarise(folder, seed=seed, policy=policy or "last", bounds=bounds, quiet=False)
        if json:
            _print_json(figures)
        else:
            show_offline(figures, Console())
        return
    summary = runs.summarise(folder, seed=seed, policy=policy or "last", bounds=bounds, quiet=False)
    failed = summary["failures"].get(summary["policy"])
    if failed is not None and len(summary["failures"]) > 2:  # not only this policy: nothing can be told
        raise UserError(f"The run in {run} cannot be evaluated: {failed}")
    _show_summary(folder, summary, as_json=json)


@app.command
def report(run: RunPath, *, json: bool = False, trust: bool = False) -> None:
    """Judge a run's learned reward on segments it was not fitted on; of a text run: its figures along the way.

    Of a control run it writes report.png and report.json.

    Args:
        run: folder of the run, of any kind.
        json: print one JSON object: the report card with the figures of the run.
        trust: this run was made by another user or on another machine: use what its config.json names, code among it.
    """
    if _is_text(run):
        figures = text_runs.report(run)
        if json:
            _print_json(figures)
        else:
            show_text_report(figures, run, Console())
        return
    folder = _open_run(run, trust=trust)
    card = report_run(folder)
    if json:
        figures = folder.read_summary() if isinstance(folder, OfflineFolder) else runs.summarise(folder)
        _print_json({**figures, **card.to_json()})
    else:
        found = run_quality(folder)
        print_own_measure(folder, found.held_out_agreement, Console())
        if folder.settings.shows_true_reward:
            print(card.to_text(against_of(folder.settings)))
        show_quality(found, Console())
        print(f"Wrote {folder.path / 'report.png'} and {folder.path / 'report.json'}")


@app.command
def track(run: RunPath, *, to: tuple[str, ...] = (), project: str = tracking.PROJECT, trust: bool = False) -> None:
    """Send a run's figures, pictures and films to experiment trackers: what they have not seen yet.

    A run that goes on later sends what comes then, too.

    Args:
        run: folder of the run, of any kind.
        to: wandb, mlflow, trackio, aim; default: those that the run is sent to already.
        project: in which they show it.
        trust: this run was made by another user or on another machine: use what its config.json names.
    """
    folder = TextFolder.open(run, trust=trust) if _is_text(run) else _open_run(run, trust=trust)
    if not to and not tracking.is_tracked(run):
        raise UserError(f"The run in {run} goes to no tracker yet. Name one: --to {' | '.join(TRACKERS)}")
    tracking.track(folder, to, project)
    print(f"Sent {tracking.finish(folder):,} rows.")


@app.command
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
    found = run_quality(_open_run(Path(run), trust=trust), surprises) if is_run else record_quality(record_place(run))
    if json:
        _print_json(found.to_json())
    else:
        show_quality(found, Console())
    if is_run and not json:
        print(f"Wrote {Path(run) / 'quality.png'} and {Path(run) / 'quality.json'}")


@app.command
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
        _print_json(report.to_json())
    else:
        show_fit(report, Console())


@app.command
def export(run: RecordPlace, *, to: Path, trust: bool = False) -> None:
    """Write the queries, answers, segments and clips of a run as a portable data set (docs/dataset.md).

    Args:
        run: folder of the run, or a record: a file or the URL of a database.
        to: the folder to write; it must not exist, or be empty.
        trust: let what is read name code of a user, e.g. a kind of answer.
    """
    if trust:
        trust_data()
    print(f"Wrote {export_record(record_place(run), to)} to {to}")


@app.command(name="import")
def import_(
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")], *, to: str,
    trust: bool = False,
) -> None:  # fmt: skip
    """Add a data set that `prefrl export` wrote to a record; what is there already is not added twice.

    Args:
        folder: the data set.
        to: a run folder, the file of a record, or the URL of a database; a file is made if there is none.
        trust: let what is read name code of a user, e.g. a kind of answer.
    """
    if trust:
        trust_data()
    print(f"Read {import_record(folder, record_place(to))} into {shown_address(to)}")


@app.command
def video(run: RunPath, *, steps: int = 200, out: Path | None = None, trust: bool = False) -> None:
    """Record the agent before, during and after training, with learned and true reward as curves.

    Args:
        run: folder of the run.
        steps: steps of each clip.
        out: the file (.mp4 or .gif); default: videos/training.mp4 in the run folder.
        trust: this run was made by another user or on another machine: use what its config.json names, code among it.
    """
    if _is_text(run):
        raise UserError(
            f"There is nothing to film in {run}: it is a run of prefrl text. Read what it says with: "
            f"prefrl text sample {run}"
        )
    path = record_video(_open_run(run, trust=trust), out, num_steps=steps)
    print(f"Wrote {path}")


@app.command
def label(run: RunPath) -> None:
    """Compare clips in a window, while a run trains or after; more with: prefrl label --help.

    Args:
        run: folder of the run.
    """
    viewer_command([str(run)])


@app.command
def serve(run: RunPath) -> None:
    """Let people compare clips in any browser, while a run trains or after; more with: prefrl serve --help.

    Args:
        run: folder of the run.
    """
    page_command.serve([str(run)])


@app.command
def gallery(run: RunPath) -> None:
    """Look at all answers of a run with their clips, and give some again; more with: prefrl gallery --help.

    Args:
        run: folder of the run.
    """
    gallery_command([str(run)])


@app.command
def ask(
    record: RecordPlace, *, of: Path | None = None, prepare: int = 0, num: int = 50, table: Path | None = None,
    kind: str = "comparison", num_ranked: int = 4, scale: int = 5, instruction: str = "", overlap: int = 1,
    length: int = 25, seed: int = 0, trust: bool = False,
) -> None:  # fmt: skip
    """Put questions into a record without training: of a stopped run, of any run, of saved episodes or of files.

    Args:
        record: run folder whose record it is, or a record: a file, made if there is none, or the URL of a database.
        of: what to ask about: a run folder, an episode .npz or a folder of them (observations, actions, frames), or a
            folder of videos or images; default: what the run in RUN would ask next, with --prepare.
        prepare: questions that the stopped training in RUN would ask next, with their clips, to be answered before it
            goes on; 0: only draw the clips of those that it left open.
        num: questions to put, with --of.
        table: of a folder of files: CSV with a column "file"; its columns of numbers are what a reward can see.
        kind: comparison, ranking or rating, with --of.
        num_ranked: items of a ranking.
        scale: grades of a rating.
        instruction: what to look for: a text, or a file that holds it.
        overlap: people to ask each question of.
        length: steps of a segment of saved episodes.
        seed: of what is drawn at random.
        trust: the run was made by another user or on another machine: use what it names, code among it.
    """
    require("av", "ui")
    with contextlib.suppress(UserError):  # said again where something cannot be drawn
        choose_gl_backend()
    if of is None:
        folder = ControlFolder.open(Path(record), trust=trust)
        added, open_now = asking.prepare(folder, prepare)
        print(
            f"Added {added} questions; {open_now} are open, with their clips. Answer them with: prefrl label {record}"
        )
        print(f"Then train on: prefrl resume {record}{f' --labels +{added}' if folder.finished else ''}")
        return
    wanted = asking.Asking(
        num=num, kind=kind, num_ranked=num_ranked, scale=scale, instruction=instruction, overlap=overlap, seed=seed
    )
    remarks: list[str] = []
    if format_of(of) == ControlFolder.FORMAT:
        shown = asking.of_run(ControlFolder.open(of, trust=trust), wanted)
    elif of.suffix == ".npz" or (of.is_dir() and any(of.glob("*.npz"))):
        shown = asking.of_rollouts(of, length, wanted)
    elif of.is_dir():
        shown, remarks = media.of_media(media.find_media(of, table))
    else:
        raise UserError(f"There is nothing to ask about at {of}: expected a run, an .npz, or a folder of files.")
    for remark in remarks:
        print(f"prefrl: {remark}", file=sys.stderr)
    with PreferenceStore(record_place(record)) as store:
        added = asking.put(store, shown, wanted)
        name = store.name
    short = f" ({num} were wanted: there are no more)" if added < num else ""
    print(
        f"Added {added} questions{short} to {name}. Answer them with: prefrl serve {record}, or prefrl label {record}"
    )


@app.command
def invite(run: RunPath, *, name: str) -> None:
    """Make a link by which somebody may answer in the browser; more with: prefrl invite --help.

    Args:
        run: folder of the run.
        name: of the person.
    """
    page_command.invite([str(run), "--name", name])


@app.command
def forget(run: RunPath, *, annotator: str) -> None:
    """Remove everything that a person said from a run.

    Args:
        run: folder of the run.
        annotator: who withdraws.
    """
    page_command.forget([str(run), "--annotator", annotator])


@app.command
def pin(run: RunPath, query: tyro.conf.Positional[str], item: tyro.conf.Positional[int], *, good: bool) -> None:
    """Pin something that a question shows as a good or bad example; more with: prefrl pin --help.

    Args:
        run: folder of the run.
        query: name of the question.
        item: number of what it shows, from 1.
        good: it is one of what is wanted.
    """
    page_command.pin([str(run), query, str(item), "--good" if good else "--bad"])


@app.command
def show(run: RunPath, query: tyro.conf.Positional[str]) -> None:
    """Show one question with its answers, and write its clips; more with: prefrl show --help.

    Args:
        run: folder of the run.
        query: its name, or the beginning of it.
    """
    show_command([str(run), query])


@app.command
def envs() -> None:
    """List environments with settings known to work; any other Gymnasium environment can be named too."""
    table = Table(
        Column("environment", no_wrap=True),
        "needs",
        "installed",
        "note",
        title="Environments with settings of their own",
    )
    for row in list_envs():
        table.add_row(row.env_id, row.extra or "-", "yes" if row.installed else "no", row.note)
    Console().print(table)


@app.command
def tournament(
    runs: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="RUN")]] = (), *, out: Path,
    games: int = 100, policies: tuple[str, ...] = ("last",), annotator: Literal["teacher", "human"] = "teacher",
    teacher: str = "oracle", judge: str | None = None, constitution: Path | None = None, data: str | None = None,
    max_tokens: int = 64, instruction: str = "", seed: int = 0, json: bool = False, trust: bool = False,
) -> None:  # fmt: skip
    """Compare what several runs do, pair by pair, and rate them; again with the same --out, it goes on.

    Args:
        runs: of one environment, or text runs and language models; without any, the standing of --out is shown.
        out: folder of the tournament.
        games: questions to put in all.
        policies: of control runs: last, best, during or before; each of each run is a player.
        annotator: who compares: a program, or people in window or browser.
        teacher: of control runs: the program, one of those of prefrl train.
        judge: of text: rule, a language model, or URL#MODEL; default: rule.
        constitution: of text: file with what the judge is to go by.
        data: of text: prompts; default: what the first run was trained on.
        max_tokens: of text: longest response.
        instruction: what people are told to look for: a text, or a file that holds it.
        seed: of pairs, starts and draws.
        json: print one JSON object.
        trust: the runs were made by another user or on another machine: use what they name, code among it.
    """
    if games < 1:
        raise UserError(f"--games must be at least 1. Received {games}")
    if seed < 0:
        raise UserError(f"--seed must be at least 0. Received {seed}")
    if not runs:
        if not (out / "tournament.json").is_file():
            raise UserError(
                f"There is no tournament in {out}. Name the runs that are to play: prefrl tournament RUN RUN"
            )
        _show_standing(Tournament(out), as_json=json)
        return
    by_people = annotator == "human"
    kinds = {format_of(Path(run)) == ControlFolder.FORMAT for run in runs}
    if kinds == {True, False}:
        raise UserError("Some of these are control runs and some are not; what they do cannot be compared.")
    who: Annotator | None
    if kinds == {True}:
        paths = [Path(run) for run in runs]
        players = policies_of(paths, policies, seed=seed, drawn=by_people, trust=trust)
        who = None if by_people else make_teacher(teacher, seed=seed)
    else:
        players = models_of(runs, data, max_tokens=max_tokens, seed=seed, trust=trust)
        law = None if constitution is None else text_or_file(str(constitution))
        who = None if by_people else judge_of(judge or "rule", law)
    contest = Tournament(out, [player.name for player in players], {"instruction": text_or_file(instruction)})
    contest.play(players, games, who, seed=seed)
    _show_standing(contest, as_json=json)


def _show_standing(contest: Tournament, *, as_json: bool) -> None:
    standing = contest.standing()
    found = standing.to_json()
    write_atomically(contest.path / "ratings.json", json.dumps(found, indent=1).encode())
    if standing.ratings is not None:
        plot_standing(standing, contest.path / "ratings.png")
    if as_json:
        _print_json(found)
        return
    if standing.ratings is not None:
        show_standing(standing, Console())
        print(f"Wrote {contest.path / 'ratings.png'} and {contest.path / 'ratings.json'}")
    if standing.num_open:
        print(
            f"{standing.num_open} questions wait. Answer them with: prefrl label {contest.record}, or prefrl serve "
            f"{contest.record}; then call prefrl tournament again."
        )


@app.command
def study(
    name: Annotated[str | None, tyro.conf.Positional] = None, *, out: Path | None = None,
    repetitions: int | None = None, seed: int = 0, json: bool = False,
) -> None:  # fmt: skip
    """Put a claim of the theory to the test on a small exact problem: a table, a picture, and whether it holds.

    Args:
        name: of the study, or module:Name of your own; without one they are listed.
        out: folder for figure.png and finding.json; default: runs/studies/NAME.
        repetitions: how often everything is drawn anew; default: what takes two minutes at most.
        seed: of everything drawn.
        json: print one JSON object.
    """
    if name is None:
        table = Table(Column("study", no_wrap=True), "question", "source", title="Studies")
        for one in STUDIES.values():
            table.add_row(one.name, one.question, one.source)
        Console().print(table)
        return
    chosen = STUDIES.find(name)
    folder = Path("runs/studies") / chosen.name if out is None else out
    finding = run_study(chosen, folder, repetitions=repetitions, seed=seed)
    if json:
        print((folder / "finding.json").read_text())
        return
    show_finding(chosen, finding, Console())
    print(f"Wrote {folder / 'figure.png'} and {folder / 'finding.json'}")


@app.command
def text() -> None:
    """Language models: fine-tuning, reward models, PPO, DPO, IPO, KTO, the curve; see prefrl text --help."""
    _text(["--help"])


def _text(arguments: Sequence[str]) -> None:
    """Run `prefrl text`, whose packages are imported for it alone."""
    require("transformers", "text")
    from prefrl.text.jobs.commands import main as text_main

    text_main(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    warnings.showwarning = _show_warning
    with contextlib.suppress(UserError):  # said again when a video is asked for
        choose_gl_backend()  # before MuJoCo is imported
    try:
        if arguments[:1] == ["text"]:
            _text(arguments[1:])
        else:
            app.cli(prog="prefrl", description="Reinforcement learning from preferences.", args=arguments)
    except UserError as error:
        print(f"prefrl: {error}", file=sys.stderr)
        return USER_ERROR
    except Interrupted as stopped:
        print(f"\nprefrl: {stopped}", file=sys.stderr)
        return INTERRUPTED
    except KeyboardInterrupt:
        print("\nprefrl: interrupted; what the last checkpoint holds is saved.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError as error:
        print(f"prefrl: There is too little memory: {first_line(error)}.", file=sys.stderr)
        return USER_ERROR
    except OSError as error:
        print(f"prefrl: {error}. What was saved before is untouched; resume with: {RESUME} RUN", file=sys.stderr)
        return 1
    return 0


def _after_training(folder: ControlFolder, *, video: bool, quiet: bool, as_json: bool) -> None:
    """Judge and film what was learned, and show the figures; a failure in one leaves the others."""
    card = _or_warn("No report", lambda: report_run(folder))
    if video:
        _or_warn("No video", lambda: record_video(folder))
    _or_warn("Nothing is tracked", lambda: tracking.finish(folder))
    summary = folder.read_summary()
    _show_summary(folder, summary, as_json=as_json)
    if not as_json and not quiet:
        if card is not None and folder.settings.shows_true_reward:
            print(card.to_text(against_of(folder.settings)))
        names = [name for name in ("curves.png", "report.png", "videos/training.mp4") if (folder.path / name).exists()]
        print("Look at: " + ", ".join(str(folder.path / name) for name in names))


def _or_warn(what: str, make: Callable[[], T]) -> T | None:
    """Return what a function makes; where it fails, for a user's environment may raise anything, warn and go on."""
    try:
        return make()
    except UserError as error:
        warnings.warn(f"{what}: {error}", stacklevel=2)
    except Exception as error:
        warnings.warn(f"{what}: {type(error).__name__}: {first_line(error)}", stacklevel=2)
    return None


def _show_summary(folder: ControlFolder, summary: dict[str, Any], *, as_json: bool) -> None:
    for name, reason in summary.get("failures", {}).items():  # not in summaries of earlier versions
        warnings.warn(f"The evaluation of {name} failed: {reason}", stacklevel=2)
    if as_json:
        _print_json(summary)
        return
    settings = folder.settings
    own = settings.by_own_measure and not folder.config["baseline"]
    title = f"{summary['env_id']}, {summary['num_episodes']} episodes each"
    measures = [one for one in known_measures(summary["env_id"]) if one.name in summary.get("measures", {})]
    true_name = "environment's own reward" if own else "true return"
    columns = [*(["learned return"] if own else []), *([true_name] if settings.shows_true_reward else [])]
    table = Table("policy", *columns, *(measure.name for measure in measures), title=title)

    def figure(prefix: str, name: str) -> str:
        mean, spread = summary.get(f"{prefix}{name}_mean"), summary.get(f"{prefix}{name}_std")
        text = "unknown" if mean is None else f"{mean:.5g}"
        return f"{text} (spread {spread:.3g})" if prefix == "" and spread is not None and mean is not None else text

    def add(policy: str, prefix: str) -> None:
        measured = summary.get(f"{prefix}measures", {})
        cells = [measure.text(measured[measure.name]) if measure.name in measured else "-" for measure in measures]
        shown = [*(["learned_return"] if own else []), *(["true_return"] if settings.shows_true_reward else [])]
        table.add_row(policy, *(figure(prefix, name) for name in shown), *cells)

    add("random actions", "random_")
    labels = summary["labels"]  # None: the metrics are gone
    whose = "environment's own" if own else "true"
    taught = "trained on the true reward" if labels == 0 else f"from {labels or 'an unknown number of'} answers"
    add(f"{summary['policy']}, {taught}", "")
    add("best learned return", "best_")
    if "baseline_true_return_mean" in summary:
        add(f"trained on the {whose} reward", "baseline_")
    console = Console()
    agreement = summary.get("held_out_agreement")
    print_own_measure(folder, None if agreement is None else Share(**agreement), console)
    console.print(table)
    if summary.get("groups"):
        show_groups(summary["groups"], console)
    for remark, names in _by_remark(summary.get("remarks", {})).items():
        print(f"{', '.join(names)}: {remark}")
    if summary.get("update"):  # not in summaries of earlier versions
        print("Last updates: " + ", ".join(f"{n.replace('_', ' ')} {v:g}" for n, v in summary["update"].items()))


def _by_remark(remarks: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return for each remark the names of the policies that it is about."""
    named: dict[str, list[str]] = {}
    for name, said in remarks.items():
        for remark in said:
            named.setdefault(remark, []).append(name)
    return named


def _is_text(path: Path) -> bool:
    return format_of(path) == TextFolder.FORMAT


def _is_offline(path: Path) -> bool:
    return format_of(path) == OfflineFolder.FORMAT


def _other_kind(path: Path) -> str | None:
    """Return what made a run that is not a control run; None where it is one, or none is there."""
    return {folder.FORMAT: folder.COMMAND for folder in (TextFolder, OfflineFolder)}.get(format_of(path) or "")


def _open_run(path: Path, *, trust: bool) -> ControlFolder:
    """Open a control run or an offline one."""
    return (OfflineFolder if _is_offline(path) else ControlFolder).open(path, trust=trust)


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, allow_nan=False))


_SPELT_AS_IN_PYTHON = {"True": True, "False": False, "None": None}


def _pairs(pairs: Sequence[str], what: str, example: str) -> dict[str, Any]:
    values = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise UserError(f"Expected {what} as NAME=VALUE, e.g. {example}. Received {pair!r}")
        try:
            values[name] = json.loads(text, parse_float=_finite, parse_constant=_finite)
        except json.JSONDecodeError:
            values[name] = _SPELT_AS_IN_PYTHON.get(text, text)
    return values


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise UserError(f"Expected a finite number. Received {text}")
    return number


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show the package's own warnings as a line, and none of those of other packages."""
    if category is UserWarning and f"{os.sep}prefrl{os.sep}" in filename:
        print(f"prefrl: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

"""A whole offline run: begun or gone on with, its controls beside it, and the figures at its end."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from prefrl.annotators import Annotator
from prefrl.control.evaluation import Evaluation
from prefrl.control.run import Bounds, evaluate_random, evaluate_run, judge_name
from prefrl.errors import ANYTHING, UserError, first_line
from prefrl.offline.data import OfflineData, World
from prefrl.offline.folder import OfflineFolder
from prefrl.offline.pictures import shown_history
from prefrl.offline.plot import plot_returns
from prefrl.offline.settings import CONTROLS, OfflineRunSettings, OfflineSettings
from prefrl.offline.sources import read_data
from prefrl.offline.trainer import OfflineTrainer, Outcome
from prefrl.runs.codec import to_json
from prefrl.runs.folder import RESUME, format_of
from prefrl.runs.guard import Interrupted, enough_memory, locked, stopping
from prefrl.runs.metrics import finite
from prefrl.runs.progress import ProgressDisplay
from prefrl.runs.streams import stream_seed
from prefrl.runs.tracking import PROJECT, followed, track
from prefrl.threads import one_thread

LESS_MEMORY = "Use less data, a smaller --learner.batch-size, or smaller --learner.hidden."


def default_out(settings: OfflineSettings) -> Path:
    """Return the folder of a run for which none was named."""
    data = re.sub(r"\W+", "-", settings.dataset.strip("/")).strip("-")[-60:]
    name = f"offline-{data}-{settings.method}"
    if settings.asks:
        name += f"-{settings.teacher if settings.annotator == 'teacher' else 'people'}-{settings.labels}"
    elif settings.method == "iql":
        name += f"-{settings.reward_from}"
    name += f"-seed{settings.seed}"
    return Path("runs") / name.replace("/", "-").replace(":", "-")


def offline(
    settings: OfflineSettings,
    out: Path | None = None,
    *,
    controls: Sequence[str] = (),
    quiet: bool = False,
    annotator: Annotator | None = None,
    trackers: Sequence[str] = (),
    project: str = PROJECT,
) -> OfflineFolder:
    """Learn a policy from data that are given, in a run folder; called again, it goes on where it stopped.

    Args:
        settings: the run.
        out: the folder; None: a name made of the settings, under `runs/`.
        controls: of `CONTROLS`: what is to stand beside it, learned from the same data.
        quiet: no progress.
        annotator: who answers, instead of the teacher that the settings name.
        trackers: experiment trackers that take its figures, by name (`prefrl.runs.trackers`).
        project: in which these show it.

    Returns:
        the run; it is not finished where questions wait for people.

    Raises:
        UserError: the settings cannot work with these data, or the folder is that of another run.
        Interrupted: the user stopped it; it can be gone on with.
    """
    for name in controls:
        if name not in CONTROLS:
            raise UserError(f"There is no control {name!r}; choose from {', '.join(CONTROLS)}.")
    path = out or default_out(settings)
    if Path(settings.dataset).exists():  # so that it is found from anywhere
        settings = replace(settings, dataset=str(Path(settings.dataset).resolve()))
    data = read_data(settings.dataset, None if settings.env is None else World(env_id=settings.env))
    resolved = settings.resolve(data)
    if format_of(path) == OfflineFolder.FORMAT:
        folder = OfflineFolder.open(path)
        _refuse_others(folder, resolved)
        folder.refuse_if_finished()
    else:
        if resolved.asks and resolved.asks_people:
            shown_history(data)  # refused before anything is written
        folder = OfflineFolder.create(path, resolved, baseline=False)
    if trackers:
        track(folder, trackers, project)
    for name in controls:
        if not folder.control_path(name).exists():
            OfflineFolder.create(folder.control_path(name), settings.beside(name).resolve(data), baseline=False)
    go_on(folder, data, quiet=quiet, annotator=annotator)
    return folder


def _refuse_others(folder: OfflineFolder, wanted: OfflineRunSettings) -> None:
    there, asked = folder.config["settings"], to_json(wanted)
    changed = [f"{name} is {there.get(name)!r} there" for name in asked if asked[name] != there.get(name)]
    if changed:
        raise UserError(
            f"The run in {folder.path} was begun with other settings: {'; '.join(changed[:3])}. Go on with it: "
            f"{RESUME} {folder.path}; or choose another --out."
        )


def resume(
    path: Path, *, quiet: bool = False, trust: bool = False, accept_lost: bool = False, accept_changed: bool = False
) -> OfflineFolder:
    """Go on with an offline run that was stopped or killed, or whose questions people have answered.

    Args:
        path: the folder of the run.
        quiet: no progress.
        trust: as of `ControlFolder.open`.
        accept_lost: as of `RunFolder`.
        accept_changed: likewise.

    Raises:
        UserError: there is no run, it is finished, or its data are others now.
        Interrupted: the user stopped it again.
    """
    folder = OfflineFolder.open(path, trust=trust)
    folder.accept_lost, folder.accept_changed = accept_lost, accept_changed
    folder.refuse_if_finished()
    go_on(folder, data_of(folder), quiet=quiet, annotator=None)
    return folder


def data_of(folder: OfflineFolder) -> OfflineData:
    """Return the data that a run was given.

    Raises:
        UserError: they are gone, or others now.
    """
    settings = folder.settings
    data = read_data(settings.dataset, World.of(settings))
    if data.fingerprint != settings.fingerprint:
        raise UserError(
            f"The data in {settings.dataset} are not those that the run in {folder.path} was begun with. Put them "
            "back, or begin another run: --out."
        )
    return data


def go_on(folder: OfflineFolder, data: OfflineData, *, quiet: bool, annotator: Annotator | None) -> None:
    """Bring a run and its controls to their end, as far as that goes.

    Args:
        folder: the run.
        data: that it was made for.
        quiet: no progress.
        annotator: who answers, instead of the teacher that the settings name.

    Raises:
        Interrupted: the user stopped it; it can be gone on with.
    """
    with locked(folder.path), followed(folder), enough_memory(LESS_MEMORY):
        outcome = _learn(folder, data, quiet, annotator)
        for control in folder.controls.values():
            if outcome == "finished":
                outcome = _learn(control, data, quiet, None)
        if outcome == "stopped":
            raise Interrupted(f"Stopped; everything is saved. Resume with: {RESUME} {folder.path}")
        if outcome == "finished":
            folder.finish(summarise(folder, data=data, quiet=quiet))
            plot_returns(folder, folder.path / "curves.png")


def _learn(folder: OfflineFolder, data: OfflineData, quiet: bool, annotator: Annotator | None) -> Outcome:
    """Bring a run or a control to its end, if it is not there yet."""
    if (folder.policies / "last.pt").is_file():
        return "finished"
    with ExitStack() as stack:
        display = stack.enter_context(ProgressDisplay(title_of(folder.settings), quiet=quiet))
        all_threads = stack.enter_context(one_thread())
        trainer = OfflineTrainer(folder, data, annotator=annotator, on_progress=display.show, fit_threads=all_threads)
        stack.callback(trainer.close)
        stack.enter_context(stopping(trainer.stop))
        outcome = trainer.run()
    if outcome == "waits":
        with folder.open_record() as store:
            num_open = store.num_open()
        print(  # noqa: T201
            f"{num_open} questions wait. Answer them with: prefrl label {folder.path}, or prefrl serve {folder.path}; "
            f"then call the same command again, or {RESUME} {folder.path}.",
            file=sys.stderr,
        )
    return outcome


def title_of(settings: OfflineRunSettings) -> str:
    """Return what a run is, in a few words."""
    method = {"iql": "IQL", "ipl": "IPL", "cpl": "CPL", "cloning": "Cloning"}[settings.method]
    if settings.method == "cloning":
        return method
    source = {"true": "the true reward", "zero": "no reward", "random": "random rewards"}
    return f"{method} on {source.get(settings.reward_from) or f'{settings.labels} answers'}"


# ------------------------------------------------------------------------------------------------ after training


def summarise(
    folder: OfflineFolder,
    *,
    data: OfflineData | None = None,
    seed: int | None = None,
    bounds: Bounds | None = None,
    policy: str = "last",
    quiet: bool = True,
) -> dict[str, Any]:
    """Play the policies of a run and its controls; return its figures as one JSON-ready dictionary.

    A figure that is not known is None; why a policy could not be played stands under `failures`.

    Args:
        folder: the run.
        data: given; None: they are read, and left out of the figures where that fails.
        seed: of the environments; None: the run's own for evaluation.
        bounds: how much an evaluation may take; None: the run's own.
        policy: last, during or before.
        quiet: no progress.

    Raises:
        UserError: there is no policy of that name.
    """
    settings, rows = folder.settings, folder.read_metrics()
    folder.load_policy(policy)
    seed = stream_seed(settings.seed, "evaluation") if seed is None else seed
    failures: dict[str, str] = {}
    remarks: dict[str, list[str]] = {}

    def figures(name: str, evaluation: Callable[[], Evaluation]) -> dict[str, Any]:
        unknown = {"true_return_mean": None, "true_return_std": None}
        if not folder.has_environment:
            return unknown
        try:
            result = evaluation()
        except UserError as error:
            failures[name] = str(error)
        except ANYTHING as error:  # of an environment, in whatever way it fails
            failures[name] = f"{type(error).__name__}: {first_line(error)}"
        else:
            if said := result.remarks():
                remarks[name] = said
            return {"true_return_mean": result.mean, "true_return_std": result.std}
        return unknown

    if folder.has_environment:
        bounds = bounds or Bounds.of(settings)
    reward = folder.load_reward()
    own = figures(policy, lambda: evaluate_run(folder, policy, seed=seed, bounds=bounds, quiet=quiet))
    drawn = figures("random", lambda: evaluate_random(settings, seed=seed, bounds=bounds, quiet=quiet))
    summary: dict[str, Any] = {
        "dataset": settings.dataset,
        "env_id": settings.env_id,
        "method": settings.method,
        "reward_from": settings.reward_from,
        "title": title_of(settings),
        "teacher": judge_name(settings) if settings.asks else None,
        "ends": settings.ends,
        "seed": settings.seed,
        "policy": policy,
        "num_episodes": bounds.num_episodes if bounds is not None else None,
        **own,
        "random_true_return_mean": drawn["true_return_mean"],
        "labels": rows[-1].get("labels") if rows else None,
        "steps": rows[-1].get(folder.COUNTER) if rows else None,
        "seconds": sum(sum(v for v in row.get("seconds", {}).values() if v is not None) for row in rows),
        "data": _figures_of(folder, data),
        "held_out_agreement": None,
    }
    if settings.asks:
        with folder.open_record() as store:
            summary["held_out_agreement"] = None if reward is None else store.facts().get("held_out_agreement")
    controls = {}
    for name, control in folder.controls.items():
        if (control.policies / "last.pt").is_file():
            played = partial(evaluate_run, control, "last", seed=seed, bounds=bounds, quiet=quiet)
            controls[name] = {"title": title_of(control.settings), **figures(name, played)}
    summary |= {"controls": controls, "remarks": remarks, "failures": failures}
    return {key: _rounded(value) for key, value in finite(summary).items()}


def _figures_of(folder: OfflineFolder, data: OfflineData | None) -> dict[str, Any] | None:
    if data is None:
        try:
            data = data_of(folder)
        except UserError:
            return None
    return data.figures()


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return round(value, 4) if isinstance(value, float) else value

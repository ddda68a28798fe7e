"""A whole run: train, its baseline on the true reward, and the figures at its end."""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import torch

from prefrl.agents.figures import last_figures
from prefrl.annotators import Annotator
from prefrl.control.clip_worker import clip_worker
from prefrl.control.curves import plot_learning_curves, plot_own_curves
from prefrl.control.demonstrations import segments_path, with_demonstrations
from prefrl.control.duels import ask_duels
from prefrl.control.earlier import check_earlier
from prefrl.control.evaluation import MAX_MINUTES, MAX_STEPS, Evaluation, evaluate
from prefrl.control.extend import extend
from prefrl.control.folder import ControlFolder
from prefrl.control.loop import Progress, Trainer, TrueRewardUnknown
from prefrl.control.offline_start import with_start
from prefrl.control.policies import KeptPolicy, make_run_env
from prefrl.control.settings import EVALUATION_EPISODES, RunSettings, TrainSettings
from prefrl.control.viewer import open_viewer, serve_page
from prefrl.envs import episode_length
from prefrl.envs.measures import measures_of
from prefrl.errors import ANYTHING, UserError, first_line, require
from prefrl.quality import duels
from prefrl.rewards import RewardEnsemble
from prefrl.rewards.function import RewardFunction
from prefrl.runs.checkpoint import check_unchanged, newest_checkpoint
from prefrl.runs.folder import RESUME
from prefrl.runs.guard import Interrupted, locked, stopping
from prefrl.runs.metrics import finite
from prefrl.runs.progress import ProgressDisplay
from prefrl.runs.streams import stream_seed
from prefrl.runs.tracking import PROJECT, followed, track
from prefrl.spaces import Array, Batch
from prefrl.threads import one_thread

Demonstrate = Callable[[ControlFolder, bool], None]
"""Puts what a run needs of its demonstrations into its folder, quietly or not: `prefrl.offline.demonstrations`."""


def judge_name(settings: TrainSettings) -> str:
    """Return who judges in a run: `people`, `people+oracle`, the name of a reward function, or the teacher."""
    if settings.panel:
        return "panel"
    teacher = settings.teacher.rpartition(":")[2]  # of module:Name the name
    if settings.reward_function is not None:
        function = settings.reward_function.rpartition(":")[2]
        teacher = function if teacher == "oracle" else f"{teacher}-{function}"
    return {"teacher": teacher, "human": "people", "both": f"people+{teacher}"}[settings.annotator]


def default_out(settings: TrainSettings) -> Path:
    """Return the folder of a run for which none was named."""
    return _out_of(settings, f"{judge_name(settings)}-{settings.labels}")


def _out_of(settings: TrainSettings, taught: str) -> Path:
    name = f"{settings.env_id}-{settings.agent}-{taught}-seed{settings.seed}"
    return Path("runs") / name.replace("/", "-").replace(":", "-")


def settle(settings: TrainSettings) -> RunSettings:
    """Return the settings of a run with all filled in, also what an offline run or demonstrations decide.

    Raises:
        UserError: they cannot work.
    """
    return with_demonstrations(with_start(settings).resolve(), settings.hyperparameters)


def train(
    settings: TrainSettings,
    out: Path | None = None,
    *,
    baseline: bool = False,
    quiet: bool = False,
    annotator: Annotator | None = None,
    viewer: bool = False,
    serve: bool = False,
    trackers: Sequence[str] = (),
    project: str = PROJECT,
    demonstrate: Demonstrate | None = None,
) -> ControlFolder:
    """Train an agent from comparisons, into a new run folder.

    Args:
        settings: the run; fields that are None are filled in.
        out: the folder; None: a name made of the settings, under `runs/`.
        baseline: also train on the environment's own reward with the same settings, in the folder `baseline` within.
        quiet: no progress.
        annotator: who answers, instead of the teacher that the settings name.
        viewer: where people are asked, open the viewer if there is a screen, else print the command for it.
        serve: where people are asked, serve the questions to browsers as well.
        trackers: experiment trackers that take its figures, by name (`prefrl.runs.trackers`).
        project: in which these show it.
        demonstrate: reads demonstrations: `prefrl.offline.demonstrations.demonstrate`; needed where there are any.

    Raises:
        UserError: the settings cannot work here, or the folder is taken.
        Interrupted: the user stopped it; it can be resumed.
    """
    resolved = settle(settings)
    _check_demonstrate(demonstrate, resolved)
    _check_serve(serve, resolved)
    if resolved.from_run is not None:
        with closing(make_run_env(resolved)) as env:
            check_earlier(Path(resolved.from_run), (env.observation_space, env.action_space), resolved.segment_length)
    folder = ControlFolder.create(out or default_out(resolved), resolved, baseline=False, beside=baseline)
    with _taken_back(folder):
        if trackers:
            track(folder, trackers, project)
        _go_on(folder, quiet=quiet, annotator=annotator, viewer=viewer, serve=serve, demonstrate=demonstrate)
    return folder


@contextmanager
def _taken_back(folder: ControlFolder) -> Iterator[None]:
    """Within it a run begins; one that is refused before anything happened leaves no folder."""
    try:
        yield
    except Interrupted:
        raise
    except Exception:
        _remove_if_nothing_happened(folder)
        raise


def train_baseline(
    settings: TrainSettings,
    out: Path | None = None,
    *,
    quiet: bool = False,
    trackers: Sequence[str] = (),
    project: str = PROJECT,
) -> ControlFolder:
    """Train an agent on the environment's own reward alone, into a new run folder.

    Args:
        settings: the run; what it says of answers must be as it is by default.
        out: the folder; None: a name made of the settings, under `runs/`.
        quiet: no progress.
        trackers: as of `train`.
        project: as of `train`.

    Raises:
        UserError: the settings cannot work here, that reward is not a number, or the folder is taken.
        Interrupted: the user stopped it; it can be resumed.
    """
    settings.refuse_answers()
    folder = ControlFolder.create(out or _out_of(settings, "true-reward"), settings.resolve(), baseline=True)
    with _taken_back(folder):
        if trackers:
            track(folder, trackers, project)
        _go_on_alone(folder, quiet=quiet)
    return folder


def _go_on_alone(folder: ControlFolder, *, quiet: bool) -> None:
    with locked(folder.path), followed(folder):
        if not _train_one(folder, f"{folder.settings.env_id} on the true reward", quiet, None):
            raise _stopped(folder)
        folder.finish(summarise(folder, quiet=quiet))
        plot_curves(folder)


def resume(
    path: Path,
    *,
    quiet: bool = False,
    annotator: Annotator | None = None,
    viewer: bool = False,
    serve: bool = False,
    trust: bool = False,
    accept_lost: bool = False,
    accept_changed: bool = False,
    labels: str | None = None,
    steps: str | None = None,
    demonstrate: Demonstrate | None = None,
) -> ControlFolder:
    """Go on with a run that was stopped or killed, or that is over, with more labels.

    Args:
        path: the folder of the run.
        quiet: no progress.
        annotator: who answers, instead of the teacher that the settings name.
        viewer: as of `train`.
        serve: as of `train`.
        trust: as of `ControlFolder.open`.
        accept_lost: as of `ControlFolder`.
        accept_changed: as of `ControlFolder`.
        labels: "+200" for so many more than it was to have, or how many in all; a run that is over goes on then.
        steps: of the whole training, likewise; None: with more labels, more steps in proportion.
        demonstrate: as of `train`.

    Raises:
        UserError: there is no run, it is finished, or it is the baseline of another.
        Interrupted: the user stopped it again.
    """
    folder = ControlFolder.open(path, trust=trust)
    folder.accept_lost, folder.accept_changed = accept_lost, accept_changed
    main = path.resolve().parent
    if folder.config["baseline"] and path.resolve().name == "baseline" and (main / "config.json").is_file():
        raise UserError(f"{path} is the baseline of the run in {main}. Resume both with: {RESUME} {main}")
    if folder.config["baseline"]:
        if labels is not None or steps is not None:
            raise UserError(
                f"The run in {path} trains on the environment's own reward; --labels has no meaning for it."
            )
        folder.refuse_if_finished()
        _check_serve(serve, folder.settings)
        _go_on_alone(folder, quiet=quiet)
        return folder
    if steps is not None and labels is None:
        raise UserError("--steps goes with --labels, e.g. --labels +200 --steps +50000.")
    if labels is not None:
        planned = extend(folder, labels, steps)
        if not quiet:
            print(f"The run in {path} is planned for {planned} now.", file=sys.stderr)  # noqa: T201
    folder.refuse_if_finished()
    _check_serve(serve, folder.settings)
    _check_demonstrate(demonstrate, folder.settings)
    _go_on(folder, quiet=quiet, annotator=annotator, viewer=viewer, serve=serve, demonstrate=demonstrate)
    return folder


def _check_demonstrate(demonstrate: Demonstrate | None, settings: RunSettings) -> None:
    """Refuse demonstrations that nobody would read."""
    if settings.demonstrations is not None and demonstrate is None:
        raise UserError(
            "Demonstrations are read by another part of prefrl: give train and resume "
            "demonstrate=prefrl.offline.demonstrations.demonstrate."
        )


def _check_serve(serve: bool, settings: RunSettings) -> None:
    """Refuse to serve what nobody is asked, before anything is done."""
    if serve and not settings.asks_people:
        raise UserError("--serve is for runs that people teach. Train with: --annotator human --serve")
    if serve:
        require("uvicorn", "serve")


def _go_on(
    folder: ControlFolder, *, quiet: bool, annotator: Annotator | None, viewer: bool, serve: bool,
    demonstrate: Demonstrate | None,
) -> None:  # fmt: skip
    settings, baseline = folder.settings, folder.baseline
    if baseline is None and folder.config.get("with_baseline"):  # also where the run was killed before it was made
        ControlFolder.create(folder.path / "baseline", settings, baseline=True)
        baseline = folder.baseline
    if baseline is not None:
        _ = baseline.settings  # refused where they cannot be read, before anything is done
        check_unchanged(baseline)
    with locked(folder.path), followed(folder):
        if demonstrate is not None and settings.demonstrations is not None and not segments_path(folder).is_file():
            demonstrate(folder, quiet)
        title = f"{settings.env_id} from {settings.labels} answers"
        over = _train_one(folder, title, quiet, annotator, viewer, serve)
        if over and baseline is not None:
            try:
                over = _train_one(baseline, f"{settings.env_id} on the true reward", quiet, None)
            except TrueRewardUnknown as error:
                warnings.warn(f"No baseline: {error}", stacklevel=2)
        if not over:
            raise _stopped(folder)
        if settings.by_own_measure:
            _ask_duels(folder)
        folder.finish(summarise(folder, quiet=quiet))
        plot_curves(folder)


def _stopped(folder: ControlFolder) -> Interrupted:
    return Interrupted(f"Stopped; everything is saved. Resume with: {RESUME} {folder.path}")


def _ask_duels(folder: ControlFolder) -> None:
    """Put duels of before against after to whoever taught; a failure in this leaves what was learned."""
    try:
        with folder.open_record() as store:
            ask_duels(folder, store)
    except UserError as error:
        warnings.warn(f"No duels of before training against after: {error}", stacklevel=2)
    except ANYTHING as error:  # of an environment, in whatever way it fails
        warnings.warn(f"No duels: {type(error).__name__}: {first_line(error)}", stacklevel=2)


def _train_one(
    folder: ControlFolder,
    title: str,
    quiet: bool,
    annotator: Annotator | None,
    viewer: bool = False,
    serve: bool = False,
) -> bool:
    """Train a run or a baseline to its end, if it is not there yet; return False if the user stopped it."""
    if (folder.policies / "last.pt").is_file():
        return True
    with ExitStack() as stack:
        display = stack.enter_context(ProgressDisplay(title, quiet=quiet))
        all_threads = stack.enter_context(one_thread())

        def show(now: Progress) -> None:
            display.show(now.num_env_steps, now.total_env_steps, now.facts())

        trainer = Trainer(folder, annotator=annotator, on_progress=show, fit_threads=all_threads)
        stack.callback(trainer.close)
        if folder.settings.asks_people and not trainer.is_baseline:
            stack.enter_context(clip_worker(folder))
            open_viewer(folder, wanted=viewer)
            if serve:
                serve_page(folder)
        stack.enter_context(stopping(trainer.stop))
        return trainer.run()


def _remove_if_nothing_happened(folder: ControlFolder) -> None:
    """Take back the folder of a run that was refused before it began."""
    for run in (folder.baseline, folder):
        if run is None or run.record_path.exists() or (run.metrics_path.exists() and run.read_metrics()):
            continue
        for name in (".lock", "config.json", "tracking.json", run.metrics_path.name):
            (run.path / name).unlink(missing_ok=True)
        for written in (run.path / "tensorboard", run.policies):
            shutil.rmtree(written, ignore_errors=True)
        if run.path.is_dir() and not any(run.path.iterdir()):
            run.path.rmdir()


# ------------------------------------------------------------------------------------------------ after training


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How much an evaluation may take."""

    num_episodes: int = EVALUATION_EPISODES
    max_steps: int = MAX_STEPS
    """Of each episode."""
    max_minutes: float = MAX_MINUTES
    """For all episodes of one policy."""

    @classmethod
    def of(cls, settings: RunSettings) -> Bounds:
        """Return the bounds of a run."""
        limit = settings.max_episode_steps or settings.fixed_horizon or episode_length(settings.env_id) or MAX_STEPS
        return cls(num_episodes=settings.eval_episodes, max_steps=limit, max_minutes=settings.eval_minutes)


def evaluate_run(
    folder: ControlFolder,
    policy: str,
    num_episodes: int | None = None,
    seed: int | None = None,
    *,
    bounds: Bounds | None = None,
    quiet: bool = True,
    reward: RewardFunction | None = None,
) -> Evaluation:
    """Run episodes with a policy of a run, in environments of a seed of their own.

    Continuous actions are taken without noise; discrete ones are sampled as in training, since the most likely action
    alone can trap a policy in a loop that its chances would break.

    Args:
        folder: the run.
        policy: "before", "during", "last" or "best".
        num_episodes: how many; None: as many as the bounds say.
        seed: of the environments; None: the run's own for evaluation.
        bounds: how much it may take; None: the run's own.
        quiet: no progress.
        reward: a learned reward, whose return is measured as well.
    """
    settings = folder.settings
    seed = stream_seed(settings.seed, "evaluation") if seed is None else seed
    bounds = bounds or Bounds.of(settings)
    if num_episodes is not None:
        bounds = replace(bounds, num_episodes=num_episodes)
    title = "the baseline" if folder.config["baseline"] else f"the policy {policy}"
    with closing(KeptPolicy(folder, policy)) as kept, torch.random.fork_rng(devices=[]):
        kept.seed(seed)
        return _evaluate(settings, kept.act, seed, bounds, f"Evaluating {title}", quiet, reward)


def _evaluate(
    settings: RunSettings,
    act: Callable[[Batch], Array],
    seed: int,
    bounds: Bounds,
    title: str,
    quiet: bool,
    reward: RewardFunction | None = None,
) -> Evaluation:
    with closing(make_run_env(settings)) as probe:
        measures = measures_of(settings.env_id, probe.observation_space)
    with ProgressDisplay(title, quiet=quiet) as display:

        def show(steps: int, num_over: int) -> None:
            display.show(steps, bounds.max_steps, f"{num_over} of {bounds.num_episodes} episodes over")

        return evaluate(
            partial(make_run_env, settings),
            act,
            num_episodes=bounds.num_episodes,
            seed=seed,
            measures=measures,
            reward=reward,
            max_steps=bounds.max_steps,
            max_minutes=bounds.max_minutes,
            on_step=show,
        )


def evaluate_random(
    settings: RunSettings,
    num_episodes: int | None = None,
    seed: int | None = None,
    *,
    bounds: Bounds | None = None,
    quiet: bool = True,
    reward: RewardFunction | None = None,
) -> Evaluation:
    """Run episodes with uniformly random actions, in the environments that `evaluate_run` takes; arguments as there."""
    seed = stream_seed(settings.seed, "evaluation") if seed is None else seed
    bounds = bounds or Bounds.of(settings)
    if num_episodes is not None:
        bounds = replace(bounds, num_episodes=num_episodes)
    probe = make_run_env(settings)
    space = gymnasium.vector.utils.batch_space(probe.action_space, bounds.num_episodes)
    probe.close()
    space.seed(seed)
    return _evaluate(settings, lambda _: space.sample(), seed, bounds, "Evaluating random actions", quiet, reward)


def summarise(
    folder: ControlFolder,
    num_episodes: int | None = None,
    seed: int | None = None,
    policy: str = "last",
    *,
    bounds: Bounds | None = None,
    quiet: bool = True,
) -> dict[str, Any]:
    """Evaluate the policies of a run and its baseline; return the figures of a run as one JSON-ready dictionary.

    A figure that is not known is None. What must be said beside the figures stands under `remarks`, why a policy could
    not be evaluated under `failures`: a failure in one leaves the others.

    Raises:
        UserError: there is no policy of that name.
    """
    settings, rows = folder.settings, folder.read_metrics()
    folder.load_policy(policy)
    bounds = bounds or Bounds.of(settings)
    if num_episodes is not None:
        bounds = replace(bounds, num_episodes=num_episodes)
    remarks: dict[str, list[str]] = {}
    failures: dict[str, str] = {}

    def figures(prefix: str, name: str, evaluation: Callable[[], Evaluation], spread: bool) -> dict[str, Any]:
        try:
            result = evaluation()
        except UserError as error:
            failures[name] = str(error)
        except ANYTHING as error:  # of an environment, in whatever way it fails
            failures[name] = f"{type(error).__name__}: {first_line(error)}"
        else:
            if said := result.remarks():
                remarks[name] = said
            known: dict[str, Any] = {f"{prefix}true_return_mean": result.mean, f"{prefix}measures": result.measures}
            if reward is not None:
                known[f"{prefix}learned_return_mean"] = result.learned_mean
            if result.group_means is not None:
                known[f"{prefix}group_returns"] = result.group_means
            return known | ({f"{prefix}true_return_std": result.std} if spread else {})
        unknown: dict[str, Any] = {f"{prefix}true_return_mean": None, f"{prefix}measures": {}}
        return unknown | ({f"{prefix}true_return_std": None} if spread else {})

    reward = folder.load_reward()
    run = partial(evaluate_run, seed=seed, bounds=bounds, quiet=quiet, reward=reward)
    best = (
        {} if folder.config["baseline"] else figures("best_", "best learned return", lambda: run(folder, "best"), False)
    )
    summary: dict[str, Any] = {
        "env_id": settings.env_id,
        "agent": settings.agent,
        "teacher": None if folder.config["baseline"] else judge_name(settings),
        "seed": settings.seed,
        "policy": policy,
        "num_episodes": bounds.num_episodes,
        **figures("", policy, lambda: run(folder, policy), True),
        **best,
        **figures(
            "random_",
            "random actions",
            lambda: evaluate_random(settings, seed=seed, bounds=bounds, quiet=quiet, reward=reward),
            False,
        ),
        "labels": rows[-1].get("labels") if rows else (0 if folder.config["baseline"] else None),
        "steps": rows[-1].get("num_env_steps") if rows else None,
        "seconds": _seconds(rows),
        "update": last_figures(rows),
    }
    baseline = folder.baseline
    if baseline is not None and (baseline.policies / "last.pt").is_file():  # not while it trains
        summary |= figures("baseline_", "baseline", lambda: run(baseline, "last"), True)
        summary["baseline_seconds"] = _seconds(baseline.read_metrics())
    if reward is not None and reward.num_groups > 1:
        summary["groups"] = groups_of(folder, reward, summary)
    summary |= {"remarks": remarks, "failures": failures, **_by_answers(folder)}
    return {key: _rounded(value) for key, value in finite(summary).items()}


def groups_of(folder: ControlFolder, reward: RewardEnsemble, summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Return of each group of annotators who is in it, what share it has, and what it got by its own learned reward."""
    checkpoint, _ = newest_checkpoint(folder, with_arrays=False)
    belongs: dict[str, list[float]] = {}
    if checkpoint is not None:
        report = checkpoint.state.part("learner").values.get("fit_report") or {}
        belongs = report.get("groups") or {}
    names: list[list[str]] = [[] for _ in range(reward.num_groups)]
    for name, row in belongs.items():
        names[max(range(len(row)), key=row.__getitem__)].append(name)
    returns = {prefix: summary.get(f"{prefix}group_returns") for prefix in ("", "best_", "random_")}
    return [
        {
            "annotators": names[number],
            "share": sum(row[number] for row in belongs.values()) / len(belongs) if belongs else None,
            "weight": float(reward.group_weights[number]),
            **{f"{prefix}learned_return": found and found[number] for prefix, found in returns.items()},
        }
        for number in range(reward.num_groups)
    ]


def _by_answers(folder: ControlFolder) -> dict[str, Any]:
    """Return how well a run does by the answers: held-out agreement and duels, None where there are none."""
    if folder.config["baseline"]:
        return {}
    if isinstance(folder.record, Path) and not folder.record.is_file():
        if folder.metrics_path.exists():
            warnings.warn(f"{folder.record} is missing: what the answers say is left out.", stacklevel=2)
        return {}
    with folder.open_record() as store:
        judged = duels(store)
        agreement = store.facts().get("held_out_agreement")
    return {"held_out_agreement": agreement, "duels": None if judged is None else judged.to_json()}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value


def _seconds(rows: list[dict[str, Any]]) -> float:
    parts = [row["seconds"] for row in rows if isinstance(row.get("seconds"), dict)]
    return float(sum(sum(value for value in part.values() if value is not None) for part in parts))


def plot_curves(folder: ControlFolder) -> Path:
    """Draw the true return over training, the baseline's beside it; return the picture's path.

    Where people or a function teach: the learned return and the held-out agreement, the environment's reward below.
    """
    settings = folder.settings
    path = folder.path / "curves.png"
    if folder.config["baseline"]:
        title = f"{settings.env_id}, seed {settings.seed}"
        plot_learning_curves({"trained on the true reward": folder.read_metrics()}, path, title)
        return path
    title = f"{settings.env_id}, taught by {judge_name(settings)}, seed {settings.seed}"
    if settings.by_own_measure:
        beside = () if folder.baseline is None else folder.baseline.read_metrics()
        plot_own_curves(folder.read_metrics(), path, title, true_reward=settings.shows_true_reward, baseline=beside)
        return path
    curves = {f"learned from {settings.labels} answers": folder.read_metrics()}
    if folder.baseline is not None:
        curves["trained on the true reward"] = folder.baseline.read_metrics()
    plot_learning_curves(curves, path, title)
    return path

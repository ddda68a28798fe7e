"""A whole run: train, its baseline on the true reward, and what is made of them afterwards."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from prefrl.agents.figures import last_figures
from prefrl.annotators import Annotator, load_reward_function
from prefrl.errors import UserError
from prefrl.files import write_json
from prefrl.history import History
from prefrl.rewards import RewardEnsemble
from prefrl.rewards.report import ReportCard, report_card
from prefrl.segments import Segment
from prefrl.spaces import map_batch
from prefrl.store import PreferenceStore
from prefrl.training.checkpoint import newest_checkpoint
from prefrl.training.clip_worker import clip_worker
from prefrl.training.earlier import check_earlier
from prefrl.training.evaluation import Evaluation, evaluate
from prefrl.training.folder import RunFolder
from prefrl.training.guard import Interrupted, locked, stopping
from prefrl.training.loop import Trainer
from prefrl.training.metrics import finite
from prefrl.training.plots import plot_learning_curves
from prefrl.training.policies import KeptPolicy, make_run_env
from prefrl.training.progress import ProgressDisplay
from prefrl.training.quality import run_quality
from prefrl.training.report_plot import plot_report
from prefrl.training.settings import TrainSettings
from prefrl.training.streams import stream, stream_seed
from prefrl.training.threads import torch_threads
from prefrl.training.video import (
    choose_gl_backend,
    fast_rendering,
    follow_agent,
    record_episode,
    write_gif,
    write_video,
)
from prefrl.training.viewer import open_viewer

EVALUATION_EPISODES = 20
REPORT_SEGMENTS = 600


def judge_name(settings: TrainSettings) -> str:
    """Return who judges in a run: `people`, `people+oracle`, the name of a reward function, or the teacher."""
    teacher = settings.teacher.rpartition(":")[2]  # of module:Name the name
    if settings.reward_function is not None:
        function = settings.reward_function.rpartition(":")[2]
        teacher = function if teacher == "oracle" else f"{teacher}-{function}"
    return {"teacher": teacher, "human": "people", "both": f"people+{teacher}"}[settings.annotator]


def default_out(settings: TrainSettings) -> Path:
    """Return the folder of a run for which none was named."""
    name = f"{settings.env_id}-{settings.agent}-{judge_name(settings)}-{settings.labels}-seed{settings.seed}"
    return Path("runs") / name.replace("/", "-").replace(":", "-")


def train(
    settings: TrainSettings,
    out: Path | None = None,
    *,
    baseline: bool = False,
    quiet: bool = False,
    annotator: Annotator | None = None,
    viewer: bool = False,
) -> RunFolder:
    """Train an agent from comparisons, into a new run folder.

    Args:
        settings: the run; fields that are None are filled in.
        out: the folder; None: a name made of the settings, under `runs/`.
        baseline: also train on the environment's own reward with the same settings, in the folder `baseline` within.
        quiet: no progress.
        annotator: who answers, instead of the teacher that the settings name.
        viewer: where people are asked, open the viewer if there is a screen, else print the command for it.

    Raises:
        UserError: the settings cannot work here, or the folder is taken.
        Interrupted: the user stopped it; it can be resumed.
    """
    settings = settings.resolve()
    if settings.from_run is not None:
        assert settings.segment_length is not None
        with closing(make_run_env(settings)) as env:
            check_earlier(Path(settings.from_run), env.observation_space, settings.segment_length)
    folder = RunFolder.create(out or default_out(settings), settings, baseline=False)
    try:
        if baseline:
            RunFolder.create(folder.path / "baseline", settings, baseline=True)
        _go_on(folder, quiet=quiet, annotator=annotator, viewer=viewer)
    except Interrupted:
        raise
    except Exception:
        _remove_if_nothing_happened(folder)
        raise
    return folder


def resume(path: Path, *, quiet: bool = False, annotator: Annotator | None = None, viewer: bool = False) -> RunFolder:
    """Go on with a run that was stopped or killed; the arguments are those of `train`.

    Raises:
        UserError: there is no run, it is finished, or it is the baseline of another.
        Interrupted: the user stopped it again.
    """
    folder = RunFolder.open(path)
    if folder.config["baseline"]:
        main = path.resolve().parent
        raise UserError(f"{path} is the baseline of the run in {main}. Go on with both by: prefrl resume {main}")
    if folder.summary_path.is_file():
        raise UserError(f"The run in {path} is finished; look at it with: prefrl evaluate {path}")
    _go_on(folder, quiet=quiet, annotator=annotator, viewer=viewer)
    return folder


def _go_on(folder: RunFolder, *, quiet: bool, annotator: Annotator | None, viewer: bool) -> None:
    settings = folder.settings
    with locked(folder.path):
        over = _train_one(folder, f"{settings.env_id} from {settings.labels} comparisons", quiet, annotator, viewer)
        if over and folder.baseline is not None:
            over = _train_one(folder.baseline, f"{settings.env_id} on the true reward", quiet, None)
        if not over:
            raise Interrupted(f"Stopped; everything is saved. Go on with: prefrl resume {folder.path}")
        write_json(folder.summary_path, summarise(folder))
        plot_curves(folder)


def _train_one(folder: RunFolder, title: str, quiet: bool, annotator: Annotator | None, viewer: bool = False) -> bool:
    """Train a run or a baseline to its end, if it is not there yet; return False if the user stopped it."""
    if (folder.policies / "last.pt").is_file():
        return True
    with ExitStack() as stack:
        display = stack.enter_context(ProgressDisplay(title, quiet=quiet))
        all_threads = stack.enter_context(torch_threads(1))  # networks this small lose by more
        trainer = Trainer(folder, annotator=annotator, on_progress=display, fit_threads=all_threads)
        stack.callback(trainer.close)
        if trainer.learner is not None and folder.settings.asks_people:
            stack.enter_context(clip_worker(folder))
            open_viewer(folder, wanted=viewer)
        stack.enter_context(stopping(trainer.stop))
        return trainer.run()


def _remove_if_nothing_happened(folder: RunFolder) -> None:
    """Take back the folder of a run that was refused before it began."""
    for run in (folder.baseline, folder):
        if run is None or run.metrics_path.exists() or run.record_path.exists():
            continue
        for name in (".lock", "config.json"):
            (run.path / name).unlink(missing_ok=True)
        if run.path.is_dir() and not any(run.path.iterdir()):
            run.path.rmdir()


# ------------------------------------------------------------------------------------------------ after training


def evaluate_run(
    folder: RunFolder, policy: str, num_episodes: int = EVALUATION_EPISODES, seed: int | None = None
) -> Evaluation:
    """Run whole episodes with a policy of a run, in environments of a seed of their own.

    Continuous actions are taken without noise; discrete ones are sampled as in training, since the most likely action
    alone can trap a policy in a loop that its chances would break.
    """
    settings = folder.settings
    seed = stream_seed(settings.seed, "evaluation") if seed is None else seed
    with closing(KeptPolicy(folder, policy)) as kept, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return evaluate(lambda: make_run_env(settings), kept.act, num_episodes=num_episodes, seed=seed)


def evaluate_random(settings: TrainSettings, num_episodes: int, seed: int | None = None) -> Evaluation:
    """Run whole episodes with uniformly random actions, in the environments that `evaluate_run` takes."""
    seed = stream_seed(settings.seed, "evaluation") if seed is None else seed
    probe = make_run_env(settings)
    space = gymnasium.vector.utils.batch_space(probe.action_space, num_episodes)
    probe.close()
    space.seed(seed)
    return evaluate(lambda: make_run_env(settings), lambda _: space.sample(), num_episodes=num_episodes, seed=seed)


def summarise(
    folder: RunFolder, num_episodes: int = EVALUATION_EPISODES, seed: int | None = None, policy: str = "last"
) -> dict[str, Any]:
    """Evaluate the policies of a run and its baseline; return the figures of a run as one JSON-ready dictionary."""
    rows = folder.read_metrics()
    result = evaluate_run(folder, policy, num_episodes, seed)
    best = evaluate_run(folder, "best", num_episodes, seed)
    settings = folder.settings
    summary: dict[str, Any] = {
        "env_id": settings.env_id,
        "agent": settings.agent,
        "teacher": judge_name(settings),
        "seed": settings.seed,
        "policy": policy,
        "true_return_mean": result.mean,
        "true_return_std": result.std,
        "num_episodes": num_episodes,
        "best_true_return_mean": best.mean,
        "random_true_return_mean": evaluate_random(settings, num_episodes, seed).mean,
        "labels": rows[-1]["labels"] if rows else 0,
        "steps": rows[-1]["num_env_steps"] if rows else 0,
        "seconds": _seconds(rows),
        "update": last_figures(rows),
    }
    if folder.baseline is not None and (folder.baseline.policies / "last.pt").is_file():  # not while it trains
        baseline = evaluate_run(folder.baseline, "last", num_episodes, seed)
        summary["baseline_true_return_mean"] = baseline.mean
        summary["baseline_true_return_std"] = baseline.std
        summary["baseline_seconds"] = _seconds(folder.baseline.read_metrics())
    return {key: round(v, 4) if isinstance(v, float) else v for key, v in finite(summary).items()}


def _seconds(rows: list[dict[str, Any]]) -> float:
    return float(sum(sum(row["seconds"].values()) for row in rows))


def plot_curves(folder: RunFolder) -> Path:
    """Draw the true return over training, the baseline's beside it; return the picture's path."""
    settings = folder.settings
    curves = {f"learned from {settings.labels} comparisons": folder.read_metrics()}
    if folder.baseline is not None:
        curves["trained on the true reward"] = folder.baseline.read_metrics()
    path = folder.path / "curves.png"
    plot_learning_curves(curves, path, f"{settings.env_id}, taught by {judge_name(settings)}, seed {settings.seed}")
    return path


def report(folder: RunFolder) -> ReportCard:
    """Judge the learned reward on segments it was not fitted on; write `report.json` and `report.png`.

    The answers it was learned from are judged too, see `prefrl.training.quality`.

    The segments are windows of the run's own history that overlap none that was asked about.

    Raises:
        UserError: the run has no reward or no readable checkpoint yet.
    """
    settings = folder.settings
    checkpoint, refused = newest_checkpoint(folder.checkpoints, folder.config["run_id"])
    if checkpoint is None:
        raise UserError(" ".join([f"The run in {folder.path} has no readable checkpoint yet.", *refused]))
    reward = RewardEnsemble.load(folder.reward_path)
    history = History.restore(checkpoint.arrays_of("history"), checkpoint.values["history"])
    rng = stream(settings.seed, "report")
    segments = _held_out_segments(folder, history, rng)
    if settings.reward_function is not None:
        segments = [_judged_by(load_reward_function(settings.reward_function), segment) for segment in segments]
    card = report_card(reward, segments, rng=rng)
    answers = run_quality(folder)
    write_json(folder.path / "report.json", {**finite(card.to_json()), "answers": answers.to_json()})
    path = folder.path / "report.png"
    shown = answers.quality if answers.quality.anything_known else None  # not of a teacher that was asked once
    plot_report(card, folder.read_metrics(), path, answers=shown, reliability=answers.reliability)
    return card


def _held_out_segments(folder: RunFolder, history: History, rng: np.random.Generator) -> list[Segment]:
    length = folder.settings.segment_length
    assert length is not None
    with PreferenceStore(folder.record) as store:
        asked = store.asked_windows()
    kept: list[Segment] = []
    for _ in range(20):
        for segment in history.sample(REPORT_SEGMENTS, length, rng):
            if all(abs(segment.start - begin) >= length for begin in asked.get(segment.episode, ())):
                kept.append(segment)
        if len(kept) >= REPORT_SEGMENTS:
            return kept[:REPORT_SEGMENTS]
    if len(kept) < 10:
        raise UserError("The run's history holds too few segments that were not asked about for a report.")
    return kept


def _judged_by(function: Callable[[Segment], Any], segment: Segment) -> Segment:
    """Put the values of the teacher's own function in place of the environment's rewards, for a report against it."""
    values = np.asarray(function(segment), np.float64)
    if values.ndim == 0:  # one number for the whole segment
        values = np.full(len(segment), values / len(segment))
    return replace(segment, true_rewards=values)


def record_video(folder: RunFolder, out: Path | None = None, *, num_steps: int = 200, seed: int | None = None) -> Path:
    """Film the agent before, during and after training, side by side; return the file's path.

    Args:
        folder: a finished run.
        out: a file ending in `.mp4` or `.gif`; None: `videos/training.mp4` in the run folder.
        num_steps: steps of each clip.
        seed: seed of the environment.

    Raises:
        UserError: the run is not finished, or nothing can be drawn on this machine.
    """
    path = out or folder.videos / "training.mp4"
    if path.suffix not in (".mp4", ".gif"):
        raise UserError(f"A video must end in .mp4 or .gif. Received {path}")
    choose_gl_backend()
    settings = folder.settings
    seed = stream_seed(settings.seed, "video") if seed is None else seed
    reward = RewardEnsemble.load(folder.reward_path)
    env = make_run_env(settings, render_mode="rgb_array")
    try:
        fast_rendering(env)
        follow_agent(env)
        clips = []
        for name, title in (("before", "before training"), ("during", "halfway"), ("last", "after training")):
            with closing(KeptPolicy(folder, name)) as kept:

                def act(observation: Any, kept: KeptPolicy = kept) -> Any:
                    return kept.act(map_batch(lambda x: np.asarray(x)[None], observation))[0]

                clips.append((title, record_episode(env, act, reward, num_steps=num_steps, seed=seed)))
        fps = float(env.metadata.get("render_fps") or 30)
    finally:
        env.close()
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gif":
        write_gif(path, clips, fps, side_by_side=True, max_width=720, num_colours=128)
    else:
        write_video(path, clips, fps, side_by_side=True, max_width=1200)
    return path

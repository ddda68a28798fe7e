"""Driving a text trainer: progress, metrics, evaluations, checkpoints, stopping and going on."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from prefrl.runs.checkpoint import checkpoint_to_go_on_from, save_checkpoint
from prefrl.runs.folder import RESUME
from prefrl.runs.guard import Interrupted, enough_memory, locked, stopping
from prefrl.runs.metrics import MetricsWriter
from prefrl.runs.progress import ProgressDisplay
from prefrl.text.jobs.folder import TextFolder
from prefrl.text.learn.runtime import Runtime
from prefrl.text.learn.trainer import SECONDS_BETWEEN_LOOKS, Metrics, TextTrainer

SHOWN = ("loss", "objective", "score", "kl_nats", "length", "accuracy")
SECONDS_BETWEEN_CHECKPOINTS = 60.0
LESS_MEMORY = (
    "Use a smaller --training.micro-batch-size, --training.batch-size or --max-tokens; for ppo and its "
    "like a smaller --training.minibatch-size."
)

Evaluation = Callable[[], dict[str, Any]]


def run_trainer(
    trainer: TextTrainer,
    folder: TextFolder,
    runtime: Runtime,
    *,
    save: Callable[[], None],
    evaluation: Evaluation | None = None,
    evaluate_at: Collection[int] = (),
    summary: Callable[[], dict[str, Any]] | None = None,
    quiet: bool = False,
) -> None:
    """Train to the end, going on from the newest checkpoint if there is one, and save the model and a summary.

    Args:
        trainer: at its start; its state is replaced by that of a checkpoint.
        folder: where everything goes.
        runtime: only its main process writes.
        save: writes the result into the folder.
        evaluation: gives a row of figures of the policy as it is.
        evaluate_at: steps after which to evaluate; one more comes before the first step and one at the end.
        summary: figures for `summary.json`, after saving.
        quiet: no progress.

    Raises:
        UserError: something went wrong; the newest checkpoint is whole.
        Interrupted: the user stopped it; it can be resumed.
    """
    folder.refuse_if_finished()
    with ExitStack() as stack:
        if runtime.is_main:
            stack.enter_context(locked(folder.path))
        size, seconds_before = _restore(trainer, folder)
        writer = MetricsWriter(folder, size, trainer.num_steps) if runtime.is_main else None
        if writer is not None:
            stack.callback(writer.close)
        display = stack.enter_context(ProgressDisplay(trainer.name, quiet=quiet or not runtime.is_main))
        asked = [False]
        stack.enter_context(stopping(lambda: asked.__setitem__(0, True)))
        begun = saved = time.monotonic()
        if evaluation is not None and trainer.num_steps == 0:
            _evaluate(trainer, folder, runtime, evaluation)
        while trainer.num_steps < trainer.total_steps:
            if not trainer.ready():
                seconds = seconds_before + time.monotonic() - begun
                if trainer.num_steps:  # nobody knows how long it waits
                    _checkpoint(trainer, folder, writer, seconds)
                while not asked[0] and not trainer.ready():
                    display.show(trainer.num_steps, trainer.total_steps, f"waits for {trainer.waits_for()}")
                    time.sleep(SECONDS_BETWEEN_LOOKS)
                if asked[0]:
                    raise Interrupted(f"Stopped; everything is saved. Resume with: {RESUME} {folder.path}")
            with enough_memory(LESS_MEMORY):
                metrics = trainer.step()
            step, now = trainer.num_steps, time.monotonic()
            last = step == trainer.total_steps
            if evaluation is not None and (last or step in evaluate_at):
                _evaluate(trainer, folder, runtime, evaluation)
            seconds = seconds_before + now - begun
            if writer is not None:
                writer.write({"step": step, "examples": trainer.num_examples, "seconds": round(seconds, 2), **metrics})
            display.show(step, trainer.total_steps, facts(metrics))
            if asked[0] or (now - saved > SECONDS_BETWEEN_CHECKPOINTS and not last):
                _checkpoint(trainer, folder, writer, seconds)
                saved = now
            if asked[0]:
                raise Interrupted(f"Stopped; everything is saved. Resume with: {RESUME} {folder.path}")
        if runtime.is_main:
            save()
            figures = {} if summary is None else summary()
            seconds = round(seconds_before + time.monotonic() - begun, 1)
            folder.finish({"steps": trainer.num_steps, "seconds": seconds, **figures})
            shutil.rmtree(folder.checkpoints, ignore_errors=True)
        runtime.wait()


def _evaluate(trainer: TextTrainer, folder: TextFolder, runtime: Runtime, evaluation: Evaluation) -> None:
    if runtime.is_main:
        row = evaluation()
        folder.add_evaluation({"step": trainer.num_steps, "examples": trainer.num_examples, **row})
    runtime.wait()


def _checkpoint(trainer: TextTrainer, folder: TextFolder, writer: MetricsWriter | None, seconds: float) -> None:
    if writer is not None:
        values = {"metrics_bytes": writer.sync(), "seconds": seconds}
        save_checkpoint(folder, trainer.num_steps, replace(trainer.state(), values=values))


def _restore(trainer: TextTrainer, folder: TextFolder) -> tuple[int, float]:
    """Take over the newest checkpoint; return the bytes of metrics to keep and the seconds spent before."""
    checkpoint = checkpoint_to_go_on_from(folder)
    if checkpoint is None:
        return 0, 0.0
    trainer.restore(checkpoint.state)
    values = checkpoint.state.values
    return int(values["metrics_bytes"]), float(values["seconds"])


def facts(metrics: Metrics) -> str:
    """Return the figures of a step in a few words, for the terminal."""
    return ", ".join(f"{name} {metrics[name]:.3g}" for name in SHOWN if name in metrics)

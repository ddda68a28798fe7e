"""Driving a text trainer: progress, metrics, evaluations, checkpoints, stopping and going on."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from typing import Any

from rich import progress as rich_progress
from rich.console import Console

from prefrl.errors import UserError
from prefrl.files import write_json
from prefrl.gpu import enough_gpu_memory
from prefrl.text.folder import TextRunFolder
from prefrl.text.runtime import Runtime
from prefrl.text.trainer import Metrics, TextTrainer
from prefrl.training.checkpoint import Checkpoint, newest_checkpoint, save_checkpoint
from prefrl.training.guard import Interrupted, locked, stopping
from prefrl.training.metrics import MetricsWriter, finite

SHOWN = ("loss", "objective", "score", "kl_nats", "length", "accuracy")
SECONDS_BETWEEN_CHECKPOINTS = 60.0
LESS_MEMORY = (
    "Use a smaller --training.batch-size or --place.max-tokens; for ppo a smaller --training.minibatch-size or "
    "--training.sampling.max-tokens."
)
LINES = 5  # without a terminal, a line after each fifth of the run

Evaluation = Callable[[], dict[str, Any]]


class StepDisplay:
    """A bar where there is a terminal, a line now and then where there is none.

    Args:
        title: what is being trained.
        total: steps.
        quiet: show nothing.
    """

    def __init__(self, title: str, total: int, *, quiet: bool) -> None:
        self.title, self.total, self.quiet = title, total, quiet
        self.console = Console(stderr=True)
        self._live = not quiet and self.console.is_terminal
        self._last: tuple[float, int] | None = None
        self._bar = rich_progress.Progress(
            rich_progress.TextColumn("[bold]{task.description}"),
            rich_progress.BarColumn(bar_width=20),
            rich_progress.TextColumn("{task.completed}/{task.total}"),
            rich_progress.TextColumn("{task.fields[facts]}"),
            rich_progress.TimeRemainingColumn(),
            console=self.console,
            disable=not self._live,
        )
        self._task = self._bar.add_task(title, total=total, facts="")

    def __enter__(self) -> StepDisplay:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def show(self, step: int, metrics: Metrics) -> None:
        """Show where the run stands."""
        if self.quiet:
            return
        facts = ", ".join(f"{name} {metrics[name]:.3g}" for name in SHOWN if name in metrics)
        if self._live:
            self._bar.update(self._task, completed=step, facts=facts)
        elif step == self.total or LINES * step // self.total > LINES * (step - 1) // self.total:
            self.console.print(f"{self.title}: {step} of {self.total} steps, {facts}", highlight=False)


def run_trainer(
    trainer: TextTrainer,
    folder: TextRunFolder,
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
    if folder.finished:
        raise UserError(f"The run in {folder.path} is finished; look at it with: prefrl text evaluate {folder.path}")
    with ExitStack() as stack:
        if runtime.is_main:
            stack.enter_context(locked(folder.path))
        size, seconds_before = _restore(trainer, folder)
        writer = MetricsWriter(folder, size, trainer.num_steps, counter="step") if runtime.is_main else None
        if writer is not None:
            stack.callback(writer.close)
        display = stack.enter_context(
            StepDisplay(trainer.name, trainer.total_steps, quiet=quiet or not runtime.is_main)
        )
        asked = [False]
        stack.enter_context(stopping(lambda: asked.__setitem__(0, True)))
        begun = saved = time.monotonic()
        if evaluation is not None and trainer.num_steps == 0:
            _evaluate(trainer, folder, runtime, evaluation)
        while trainer.num_steps < trainer.total_steps:
            with enough_gpu_memory(LESS_MEMORY):
                metrics = trainer.step()
            step, now = trainer.num_steps, time.monotonic()
            last = step == trainer.total_steps
            if evaluation is not None and (last or step in evaluate_at):
                _evaluate(trainer, folder, runtime, evaluation)
            seconds = seconds_before + now - begun
            if writer is not None:
                writer.write({"step": step, "examples": trainer.num_examples, "seconds": round(seconds, 2), **metrics})
            display.show(step, metrics)
            if asked[0] or (now - saved > SECONDS_BETWEEN_CHECKPOINTS and not last):
                _checkpoint(trainer, folder, writer, seconds)
                saved = now
            if asked[0]:
                raise Interrupted(f"Stopped; everything is saved. Go on with: prefrl text resume {folder.path}")
        if runtime.is_main:
            save()
            figures = {} if summary is None else summary()
            seconds = round(seconds_before + time.monotonic() - begun, 1)
            write_json(folder.summary_path, finite({"steps": trainer.num_steps, "seconds": seconds, **figures}))
            shutil.rmtree(folder.checkpoints, ignore_errors=True)
        runtime.wait()


def _evaluate(trainer: TextTrainer, folder: TextRunFolder, runtime: Runtime, evaluation: Evaluation) -> None:
    if runtime.is_main:
        row = evaluation()
        folder.add_evaluation({"step": trainer.num_steps, "examples": trainer.num_examples, **row})
    runtime.wait()


def _checkpoint(trainer: TextTrainer, folder: TextRunFolder, writer: MetricsWriter | None, seconds: float) -> None:
    if writer is not None:
        values = {"metrics_bytes": writer.sync(), "seconds": seconds}
        checkpoint = Checkpoint(num_env_steps=trainer.num_steps, tensors=trainer.state(), arrays={}, values=values)
        save_checkpoint(folder.checkpoints, folder.config["run_id"], checkpoint)


def _restore(trainer: TextTrainer, folder: TextRunFolder) -> tuple[int, float]:
    """Take over the newest checkpoint; return the bytes of metrics to keep and the seconds spent before."""
    checkpoint, _ = newest_checkpoint(folder.checkpoints, folder.config["run_id"])
    if checkpoint is None:
        return 0, 0.0
    trainer.restore(checkpoint.tensors)
    return int(checkpoint.values["metrics_bytes"]), float(checkpoint.values["seconds"])

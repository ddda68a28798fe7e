"""Driving a trainer of a model: progress, metrics, evaluations, checkpoints, stopping and going on."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch

from prefrl.errors import UserError
from prefrl.files import write_atomically
from prefrl.runs.checkpoint import checkpoint_to_go_on_from, save_checkpoint
from prefrl.runs.folder import RESUME, RunFolder
from prefrl.runs.guard import Interrupted, enough_memory, locked, stopping
from prefrl.runs.metrics import MetricsWriter, finite, read_rows
from prefrl.runs.progress import ProgressDisplay
from prefrl.runs.trainer import SECONDS_BETWEEN_LOOKS, Metrics, ModelTrainer

SHOWN = ("loss", "objective", "score", "kl_nats", "length", "accuracy")
SECONDS_BETWEEN_CHECKPOINTS = 60.0
Evaluation = Callable[[], dict[str, Any]]


class StepFolder(RunFolder):
    """The folder of a run that trains a model step by step and evaluates it along the way.

    Args:
        path: the folder.
    """

    COUNTER = "step"
    ROWS = (*RunFolder.ROWS, "evaluations.jsonl")

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.evaluations_path = path / "evaluations.jsonl"
        self.model_path = path / "model"

    def read_evaluations(self) -> list[dict[str, Any]]:
        """Return the evaluations in the order of their steps; of two of one step, in older files, the later."""
        self.tell_changed_rows(self.evaluations_path)
        by_step = {row["step"]: row for row in read_rows(self.evaluations_path, self.COUNTER)}
        return [by_step[step] for step in sorted(by_step)]

    def add_evaluation(self, row: dict[str, Any]) -> None:
        """Keep a row of figures; `step` says when. It takes the place of one of that step, from before a kill."""
        by_step = {one["step"]: one for one in read_rows(self.evaluations_path, self.COUNTER)} | {row["step"]: row}
        rows = [finite(by_step[step]) for step in sorted(by_step)]
        write_atomically(self.evaluations_path, "".join(json.dumps(r, allow_nan=False) + "\n" for r in rows))


def evaluation_steps(total_steps: int, times: int) -> set[int]:
    """Return after which steps to evaluate: (i / times)^2 of them, since a policy goes farthest at first."""
    return {max(1, round(total_steps * (i / times) ** 2)) for i in range(1, times + 1)}


class Processes(Protocol):
    """The processes that train together; a process of its own has none."""

    @property
    def is_main(self) -> bool:
        """Whether this one writes files and talks."""

    @property
    def num_processes(self) -> int:
        """How many there are."""

    def wait(self) -> None:
        """Wait for the others."""

    def any(self, *facts: bool) -> list[bool]:
        """Return of each fact whether it holds in some process."""

    def whole(self, model: Any) -> AbstractContextManager[None]:
        """Return the context in which every process holds the model whole, if they share it."""


class Alone:
    """One process."""

    is_main = True
    num_processes = 1

    def wait(self) -> None:
        """There is nobody to wait for."""

    def any(self, *facts: bool) -> list[bool]:
        """Return the facts."""
        return list(facts)

    def whole(self, model: Any) -> AbstractContextManager[None]:
        """Return a context in which nothing changes."""
        return nullcontext()


@contextmanager
def ended_with_others(runtime: Processes, path: Path) -> Iterator[None]:
    """Say that another process of a training has gone, where a message to it fails.

    Raises:
        UserError: it has; nothing that was saved is lost.
    """
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
        if runtime.num_processes == 1 or not lost:
            raise
        raise UserError(
            "Another process of this training has ended or cannot be reached, so this one ends too; what it said "
            f"stands above. What the last checkpoint holds is saved: {RESUME} {path}, in the same way as it was begun."
        ) from error


def run_trainer(
    trainer: ModelTrainer,
    folder: StepFolder,
    runtime: Processes,
    *,
    save: Callable[[], None],
    evaluation: Evaluation | None = None,
    evaluate_at: Collection[int] = (),
    summary: Callable[[], dict[str, Any]] | None = None,
    less_memory: str,
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
        less_memory: what to do where there is too little.
        quiet: no progress.

    Raises:
        UserError: something went wrong; the newest checkpoint is whole.
        Interrupted: the user stopped it; it can be resumed.
    """
    folder.refuse_if_finished()
    with ExitStack() as stack:
        stack.enter_context(ended_with_others(runtime, folder.path))
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
            with enough_memory(less_memory):
                metrics = trainer.step()
            step, now = trainer.num_steps, time.monotonic()
            last = step == trainer.total_steps
            if evaluation is not None and (last or step in evaluate_at):
                _evaluate(trainer, folder, runtime, evaluation)
            seconds = seconds_before + now - begun
            if writer is not None:
                writer.write({"step": step, "examples": trainer.num_examples, "seconds": round(seconds, 2), **metrics})
            display.show(step, trainer.total_steps, facts(metrics))
            # Each process has a clock of its own, and a signal may reach one alone: they stop and save together.
            stop, due = runtime.any(asked[0], now - saved > SECONDS_BETWEEN_CHECKPOINTS and not last)
            if stop or due:
                _checkpoint(trainer, folder, writer, seconds)
                saved = now
            if stop:
                raise Interrupted(f"Stopped; everything is saved. Resume with: {RESUME} {folder.path}")
        with runtime.whole(trainer.model):
            if runtime.is_main:
                save()
                figures = {} if summary is None else summary()
                seconds = round(seconds_before + time.monotonic() - begun, 1)
                folder.finish({"steps": trainer.num_steps, "seconds": seconds, **figures})
                shutil.rmtree(folder.checkpoints, ignore_errors=True)
            runtime.wait()


def _evaluate(trainer: ModelTrainer, folder: StepFolder, runtime: Processes, evaluation: Evaluation) -> None:
    with runtime.whole(trainer.model):
        if runtime.is_main:
            row = evaluation()
            folder.add_evaluation({"step": trainer.num_steps, "examples": trainer.num_examples, **row})
        runtime.wait()


def _checkpoint(trainer: ModelTrainer, folder: StepFolder, writer: MetricsWriter | None, seconds: float) -> None:
    state = trainer.state()  # all processes together, where they share the weights
    if writer is not None:
        values = {"metrics_bytes": writer.sync(), "seconds": seconds}
        save_checkpoint(folder, trainer.num_steps, replace(state, values=values))


def _restore(trainer: ModelTrainer, folder: StepFolder) -> tuple[int, float]:
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

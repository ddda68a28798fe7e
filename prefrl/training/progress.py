"""Progress on the terminal: a bar where there is one, a line now and then where there is none."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from prefrl.errors import require
from prefrl.training.loop import Progress

require("rich", "train")
from rich import progress as rich_progress  # noqa: E402
from rich.console import Console  # noqa: E402

LINES = 10  # without a terminal, a line after each tenth of the run


class ProgressDisplay:
    """Shows steps, labels, returns, speed and time left of one training.

    Args:
        title: what is being trained.
        quiet: show nothing.
    """

    def __init__(self, title: str, *, quiet: bool = False) -> None:
        self.title, self.quiet = title, quiet
        self.console = Console(stderr=True)
        self._live = not quiet and self.console.is_terminal
        self._lines_shown: int | None = None
        self._bar = rich_progress.Progress(
            rich_progress.TextColumn("[bold]{task.description}"),
            rich_progress.BarColumn(bar_width=20),
            rich_progress.TextColumn("{task.percentage:3.0f}%"),
            rich_progress.TextColumn("{task.fields[facts]}"),
            rich_progress.TimeRemainingColumn(),
            console=self.console,
            disable=not self._live,
        )
        self._task: rich_progress.TaskID | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, now: Progress) -> None:
        """Show where the run stands."""
        if self.quiet:
            return
        facts = self._facts(now)
        if not self._live:
            line = LINES * now.num_env_steps // now.total_env_steps
            if self._lines_shown is not None and line > self._lines_shown:
                self.console.print(f"{self.title}: {_steps(now)}, {facts}")
            self._lines_shown = line
            return
        if self._task is None:
            self._task = self._bar.add_task(self.title, total=now.total_env_steps, facts="")
        self._bar.update(self._task, completed=min(now.num_env_steps, now.total_env_steps), facts=facts)

    @staticmethod
    def _facts(now: Progress) -> str:
        parts = [f"{now.labels}/{now.total_labels} labels"] if now.total_labels else []
        if now.true_return is not None:
            parts.append(f"true return {now.true_return:.5g}")
        if now.learned_return is not None and now.total_labels:
            parts.append(f"learned {now.learned_return:.4g}")
        parts.append(f"{now.steps_per_second:,.0f} steps/s")
        return ", ".join(parts)


def _steps(now: Progress) -> str:
    if now.num_env_steps > now.total_env_steps:  # people have not given all their answers yet
        return f"{now.num_env_steps:,} steps"
    return f"{now.num_env_steps:,} of {now.total_env_steps:,} steps"

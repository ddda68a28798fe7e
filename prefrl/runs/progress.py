"""Progress on the terminal: a bar where there is one, a line now and then where there is none."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

from prefrl.errors import require

LINES = 10  # without a terminal, a line after each tenth of the run
LINE_SECONDS = 60.0  # and where a tenth takes longer, one after so long


class ProgressDisplay:
    """Shows how far one training has come, its figures, and the time left.

    Args:
        title: what is being trained.
        quiet: show nothing.

    Raises:
        MissingExtraError: rich is not installed.
    """

    def __init__(self, title: str, *, quiet: bool = False) -> None:
        rich_progress, console = require("rich.progress", "train"), require("rich.console", "train")
        self.title, self.quiet = title, quiet
        self.console = console.Console(stderr=True)
        self._live = not quiet and self.console.is_terminal
        self._lines_shown: int | None = None
        self._shown_at = time.monotonic()
        self._bar: Any = rich_progress.Progress(
            rich_progress.TextColumn("[bold]{task.description}"),
            rich_progress.BarColumn(bar_width=20),
            rich_progress.TextColumn("{task.percentage:3.0f}%"),
            rich_progress.TextColumn("{task.fields[facts]}"),
            rich_progress.TimeRemainingColumn(),
            console=self.console,
            disable=not self._live,
        )
        self._task: Any = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, num_steps: int, total_steps: int, facts: str) -> None:
        """Show where the run stands.

        Args:
            num_steps: steps made; more than there should be where the run waits for something else.
            total_steps: steps of the whole run.
            facts: its figures, in a few words.
        """
        if self.quiet:
            return
        if self._live:
            if self._task is None:
                self._task = self._bar.add_task(self.title, total=total_steps, facts="")
            self._bar.update(self._task, completed=min(num_steps, total_steps), facts=facts)
            return
        line = LINES * num_steps // total_steps
        shown, self._lines_shown = self._lines_shown, line
        late = time.monotonic() - self._shown_at > LINE_SECONDS
        if late or (shown is None and num_steps >= total_steps) or (shown is not None and line > shown):
            self._shown_at = time.monotonic()
            of = f" of {total_steps:,}" if num_steps <= total_steps else ""
            self.console.print(f"{self.title}: {num_steps:,}{of} steps, {facts}", highlight=False)

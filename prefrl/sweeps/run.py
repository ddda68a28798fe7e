"""A whole sweep: the runs that are missing, a live table meanwhile, and the results."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from prefrl.errors import UserError
from prefrl.runs.guard import locked
from prefrl.sweeps.cells import Outcome, attempts, check_cell, steps_so_far
from prefrl.sweeps.engine import Resources, log_of, run_cells
from prefrl.sweeps.picture import plot_results
from prefrl.sweeps.plan import Plan, Sweep
from prefrl.sweeps.results import Results, check_measure, results_of, rows_of
from prefrl.tables import Table

SECONDS_BETWEEN_TABLES = 2.0


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What a sweep came to."""

    rows: list[dict[str, Any]]
    """One for each run."""
    results: Results | None
    """Over seeds; None where no run is done."""
    failed: dict[str, str]
    """Why runs failed, by name."""
    restarts: int
    """How often runs went on after their process or node had died, or after the sweep was stopped."""


def run_sweep(
    sweep: Sweep, out: Path, *, resources: Resources | None = None, measure: str | None = None, quiet: bool = False
) -> Swept:
    """Make the runs of a sweep that are not over yet, and tell what all came to; called again, it goes on.

    Args:
        sweep: which runs.
        out: its folder, on storage that all machines of a cluster share.
        resources: of each run; None: one processor each, on this machine.
        measure: figure at the end of runs to compare by; None: the one that says how good such runs are.
        quiet: no table meanwhile.

    Raises:
        UserError: a setting is refused, the folder holds another sweep, or there is no cluster.
        KeyboardInterrupt: the user stopped it; all runs are saved.
    """
    plan = Plan.of(sweep)
    check_measure(plan, measure)
    plan.begin(out)
    with locked(out):
        missing = []
        for cell in plan.cells:
            folder = plan.kind.folder(out / cell.name)
            if folder.config_path.is_file():
                check_cell(plan.kind, folder.path, cell.expected)
            if not folder.finished:
                missing.append(cell)
        outcomes: dict[str, Outcome] = {}
        if missing:
            board = _Board(plan, out, quiet=quiet)
            with board:
                outcomes = run_cells(plan, missing, out, resources or Resources(), board.show)
                board.show(outcomes, last=True)
        failed = {name: why for name, (how, why) in outcomes.items() if how == "failed"}
        rows = rows_of(plan, out, failed)
        results = None
        try:
            results = results_of(plan, rows, measure)
        finally:
            restarts = sum(max(0, attempts(log_of(out, cell)) - 1) for cell in plan.cells)
        if results is not None:
            results.write(out)
            plot_results(results, out / "results.png")
        return Swept(rows=rows, results=results, failed=failed, restarts=restarts)


class _Board:
    """A table of how far the runs are, drawn again and again in a terminal, else a line for each that is over."""

    def __init__(self, plan: Plan, out: Path, *, quiet: bool) -> None:
        self._plan, self._out, self._quiet = plan, out, quiet
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._shown, self._said, self._begun = 0.0, set[str](), time.monotonic()

    def __enter__(self) -> _Board:
        if self._live is not None and not self._quiet:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None and not self._quiet:
            self._live.stop()

    def show(self, outcomes: Mapping[str, Outcome], *, last: bool = False) -> None:
        """Show how far the runs are."""
        if self._quiet:
            return
        if self._live is None:
            for name in outcomes.keys() - self._said:
                how, why = outcomes[name]
                self._said.add(name)
                seconds = time.monotonic() - self._begun
                self._console.print(
                    f"{seconds:6.0f} s  {len(self._said)} of {len(self._plan.cells)}  {name}: {how}"
                    + (f": {why}" if why else ""),
                    highlight=False, soft_wrap=True, markup=False,
                )  # fmt: skip
        elif last or time.monotonic() - self._shown > SECONDS_BETWEEN_TABLES:
            self._live.update(self._table(outcomes), refresh=True)
            self._shown = time.monotonic()

    def _table(self, outcomes: Mapping[str, Outcome]) -> Table:
        table = Table("runs", "waiting", "running", "done", "failed", "begun again", "steps so far")
        by_variant: dict[str, list[Any]] = {}
        for cell in self._plan.cells:
            by_variant.setdefault(cell.variant, []).append(cell)
        for variant, cells in by_variant.items():
            count = dict.fromkeys(("waiting", "running", "done", "failed", "again", "steps"), 0)
            for cell in cells:
                path, log = self._out / cell.name, log_of(self._out, cell)
                begun = attempts(log)
                how = outcomes.get(cell.name, ("", ""))[0]
                if how == "" and self._plan.kind.folder(path).finished:
                    how = "done"
                count[{"done": "done", "failed": "failed"}.get(how, "running" if begun else "waiting")] += 1
                count["again"] += max(0, begun - 1)
                count["steps"] += steps_so_far(self._plan.kind, path)
            table.add_row(variant, *(f"{value:,}" if value else "" for value in count.values()))
        return table


def show_swept(swept: Swept, out: Path, console: Console) -> None:
    """Print what a sweep came to."""
    results = swept.results
    if results is not None:
        several = len({line.task for line in results.lines}) > 1
        table = Table(
            *(["task"] if several else []), "runs", f"{results.measure.replace('_', ' ')} [95 % interval]",
            "least to most", "runs done", title="Interquartile means over seeds",
        )  # fmt: skip
        for line in results.lines:
            value = "-" if line.value is None else line.value.text()
            ends = "-" if line.least is None else f"{line.least:.4g} to {line.most:.4g}"
            table.add_row(*([line.task] if several else []), line.variant, value, ends, f"{line.num} of {line.wanted}")
        console.print(table)
        if results.comparisons:
            above = Table("runs", "probability [95 % interval]", title=f"A run is above {results.one_of_first}")
            for one in results.comparisons:
                above.add_row(one.variant, one.above.text("{:.2f}"))
            console.print(above)
    said = [path for path in sorted((out / "logs").glob("*.log")) if "\nprefrl: " in path.read_text(errors="replace")]
    if said:
        warnings.warn(f"{len(said)} runs gave warnings, e.g. in {said[0]}.", stacklevel=2)
    if swept.restarts:
        console.print(f"Runs went on after an interruption: {swept.restarts} times.", highlight=False)


def refuse_failed(swept: Swept) -> None:
    """Refuse to call a sweep done in which runs failed.

    Raises:
        UserError: some did.
    """
    if swept.failed:
        name, why = next(iter(swept.failed.items()))
        raise UserError(
            f"{len(swept.failed)} of {len(swept.rows)} runs failed, e.g. {name}: {why} Call the same command again to "
            "try those again."
        )

"""A whole search: its trials, a line for each meanwhile, and what was found, as a table, files and a picture."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from prefrl.errors import UserError
from prefrl.files import write_atomically
from prefrl.runs.guard import locked
from prefrl.runs.metrics import finite
from prefrl.runs.plotting import BLUE, GREY, ORANGE, make_figure, save_figure, set_style
from prefrl.sweeps.cells import attempts, steps_so_far
from prefrl.sweeps.engine import Resources, log_of
from prefrl.sweeps.plan import Plan, Sweep, shown
from prefrl.sweeps.results import check_measure, rows_of
from prefrl.sweeps.search import DONE, FAILED, OPEN, STOPPED, Search, SearchSettings, Trial
from prefrl.tables import Table

MOST_LINES = 10  # of the table
MOST_PANELS = 8
COLOURS = {DONE: BLUE, STOPPED: ORANGE}


@dataclass(frozen=True, kw_only=True)
class Searched:
    """What a search came to."""

    measure: str
    """The figure that was searched by."""
    trials: list[Trial]
    best: Trial | None
    """Of those that were made whole; None where there is none."""
    minimise: bool
    rows: list[dict[str, Any]]
    """One for each run."""
    restarts: int
    """How often runs went on after their process or node had died, or after the search was stopped."""

    @property
    def failed(self) -> list[Trial]:
        """Trials that failed."""
        return [one for one in self.trials if one.state == FAILED]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "measure": self.measure,
            "best": None if self.best is None else asdict(self.best),
            "trials": [asdict(one) for one in self.trials],
            "runs": self.rows,
            "restarts": self.restarts,
        }

    def write(self, out: Path) -> None:
        """Write `results.json` and, a line for each trial, `results.csv`."""
        write_atomically(out / "results.json", json.dumps(finite(self.to_json()), indent=1, allow_nan=False))
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        names = list(self.trials[0].varied) if self.trials else []
        writer.writerow(["trial", *names, "state", self.measure, "reason"])
        for one in self.trials:
            values = [shown(one.varied.get(name)) for name in names]
            writer.writerow([one.number, *values, one.state, "" if one.value is None else one.value, one.reason])
        write_atomically(out / "results.csv", table.getvalue())


def run_search(
    sweep: Sweep, out: Path, settings: SearchSettings, *, resources: Resources | None = None,
    measure: str | None = None, quiet: bool = False,
) -> Searched:  # fmt: skip
    """Look for the best values of settings; called again, it goes on, and with more trials it looks further.

    Args:
        sweep: the runs, with ranges in `search`.
        out: its folder, on storage that all machines of a cluster share.
        settings: how the search goes.
        resources: of each run; None: one processor each, on this machine.
        measure: figure at the end of runs to search by; None: the one that says how good such runs are.
        quiet: no lines meanwhile.

    Raises:
        UserError: a setting is refused, the folder holds another sweep, there is no cluster, or no trial came to
            an end.
        KeyboardInterrupt: the user stopped it; all runs are saved.
    """
    plan = Plan.of(sweep)
    check_measure(plan, measure)
    plan.begin(out)
    with locked(out):
        search = Search(plan, out, settings, measure)
        with _Board(search, quiet=quiet) as board:
            search.run(resources or Resources(), board.show)
        trials, cells = search.trials(), search.cells()
        if all(one.state in (FAILED, OPEN) for one in trials):
            reason = next((one.reason for one in trials if one.reason), "none was made")
            raise UserError(f"No trial came to an end: {reason} What runs say is in {out / 'logs'}.")
        found = Searched(
            measure=search.measure, trials=trials, best=search.best(), minimise=settings.minimise,
            rows=rows_of(plan, out, {}, cells),
            restarts=sum(max(0, attempts(log_of(out, cell)) - 1) for cell in cells),
        )  # fmt: skip
        found.write(out)
        plot_search(found, plan, out / "results.png")
    return found


class _Board:
    """A line for each trial that is over; in a terminal one of those that are not, below."""

    def __init__(self, search: Search, *, quiet: bool) -> None:
        self._search, self._quiet = search, quiet
        self._console, self._begun = Console(stderr=True), time.monotonic()
        self._said = {one.number for one in search.trials() if one.state != OPEN}
        self._status = self._console.status("") if self._console.is_terminal and not quiet else None

    def __enter__(self) -> _Board:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def show(self) -> None:
        """Tell of the trials that are over since."""
        if self._quiet:
            return
        trials, search = self._search.trials(), self._search
        if self._status is not None:
            open_now = [one for one in trials if one.state == OPEN]
            cells = [cell for one in open_now for cell in search.cells_of(one)]
            steps = sum(steps_so_far(search.plan.kind, search.out / cell.name) for cell in cells)
            self._status.update(
                f"{len(trials) - len(open_now)} of {search.plan.trials} trials over, {len(open_now)} open with "
                f"{len(cells)} runs and {steps:,} steps so far"
            )
        for one in trials:
            if one.state == OPEN or one.number in self._said:
                continue
            self._said.add(one.number)
            came = "" if one.value is None else f" {one.value:.5g}"
            self._console.print(
                f"{time.monotonic() - self._begun:6.0f} s  trial {one.number}: {one.state}{came}  {variant_of(one)}"
                + (f": {one.reason}" if one.reason else ""),
                highlight=False, soft_wrap=True, markup=False,
            )  # fmt: skip


def variant_of(trial: Trial) -> str:
    """Return the values of a trial as a line shows them."""
    return ", ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={shown(value)}"
        for name, value in trial.varied.items()
    )


def show_searched(found: Searched, words: Sequence[str], console: Console) -> None:
    """Print the best trials, and how the best is measured on seeds that it was not chosen on.

    Args:
        found: what came out.
        words: of the command for runs like these, without what was searched.
        console: printed to.
    """
    sign = 1.0 if found.minimise else -1.0
    with_value = [one for one in found.trials if one.state in (DONE, STOPPED) and one.value is not None]
    order = sorted(with_value, key=lambda one: (one.state != DONE, sign * (one.value or 0.0)))
    counts = {state: sum(one.state == state for one in found.trials) for state in (DONE, STOPPED, FAILED)}
    said = ", ".join(f"{num} {state}" for state, num in counts.items() if num)
    table = Table("trial", found.measure.replace("_", " "), "values", title=f"{len(found.trials)} trials: {said}")
    for one in order[:MOST_LINES]:
        value = f"{one.value:.5g}" + ("" if one.state == DONE else f" ({one.state})")
        table.add_row(str(one.number), value, variant_of(one))
    console.print(table)
    if found.best is not None:
        values = [f"{name}={json.dumps(value)}" for name, value in found.best.varied.items()]
        told = " ".join(word if word.replace("-", "").replace(".", "").isalnum() else f"'{word}'" for word in values)
        console.print(
            f"The best of {counts[DONE]} looks better than it is: it was chosen by these figures. Measure it on other "
            f"seeds with: prefrl sweep {' '.join(words)} --vary {told} --seed 1000 --seeds 10",
            highlight=False, soft_wrap=True, markup=False,
        )  # fmt: skip


def plot_search(found: Searched, plan: Plan, path: Path) -> None:
    """Draw what trials came to, in their order and against each setting.

    Raises:
        UserError: the picture cannot be written.
    """
    names = list(plan.search)[: MOST_PANELS - 1]
    told = [one for one in found.trials if one.state in COLOURS and one.value is not None]
    columns = min(4, 1 + len(names))
    rows = -(-(1 + len(names)) // columns)
    figure = make_figure(1.0 + 3.4 * columns, 0.6 + 2.8 * rows)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    label = found.measure.replace("_", " ")
    for panel, name in zip(axes.flat, ["", *names], strict=False):
        for one in told:
            place: Any = one.number if not name else _place(plan, name, one.varied[name])
            is_best = found.best is not None and one.number == found.best.number
            panel.plot([place], [one.value], "*" if is_best else "o", color=COLOURS[one.state],
                       markersize=13 if is_best else 5, zorder=3 if is_best else 2)  # fmt: skip
        if not name:
            done = [one for one in told if one.state == DONE]
            worth = np.array([one.value for one in done] or [math.nan], np.float64)
            best = (np.minimum if found.minimise else np.maximum).accumulate(worth)
            panel.step([one.number for one in done] or [0], best, where="post", color=GREY, linewidth=1)
        elif plan.search[name].log:
            panel.set_xscale("log")
        elif not plan.search[name].between:
            values = [shown(value) for value in plan.search[name].values]
            panel.set_xticks(range(len(values)), [value[:14] for value in values])
        set_style(panel, name or "in their order", "" if name else "trial", label if panel in axes[:, 0] else "")
    for panel in list(axes.flat)[1 + len(names) :]:
        panel.set_visible(False)
    figure.text(0.99, 0.01, "blue: made whole; orange: stopped early; star: the best; line: the best so far",
                ha="right", fontsize=8, color=GREY)  # fmt: skip
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    save_figure(figure, path)


def _place(plan: Plan, name: str, value: Any) -> float:
    one = plan.search[name]
    return float(value) if one.between else float(one.values.index(value))

"""The best values of settings, looked for: trials proposed by Optuna, made as the runs of every sweep are.

The engine is the sweep's own, so that a trial goes on from its checkpoints when a machine is lost and every run is an
ordinary run folder; Optuna proposes (its tree-structured Parzen estimator; Bergstra et al. 2011), keeps the trials in a
file beside the runs, and stops early what falls behind (successive halving without waiting; Li et al. 2020, ASHA).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from prefrl.aggregate import interquartile_mean
from prefrl.errors import UserError, near_names, require
from prefrl.sweeps.cells import Outcome, last_row
from prefrl.sweeps.engine import Resources, Runs, runs_of
from prefrl.sweeps.plan import Cell, Plan
from prefrl.sweeps.ranges import Range
from prefrl.sweeps.results import measure_of, rows_of

JOURNAL, REASON, BY = "trials.journal", "reason", "by"
FIRST_AT_RANDOM = 10  # trials before anything is known; Optuna's own default
REDUCTION, RATE = 4, 2  # of every four the best goes on, first after 4^2 % of what the first trial took, then 4^3 %
DONE, FAILED, STOPPED, OPEN = "done", "failed", "stopped early", "open"


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How a search goes."""

    minimise: bool = False
    """The best is the least."""
    stop_early: str | None = None
    """A figure of `metrics.jsonl` by which trials that fall behind are stopped; None: every trial is made whole."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One combination of values, and what came of it."""

    number: int
    varied: dict[str, Any]
    state: str
    """done, failed, stopped early or open."""
    value: float | None
    """Interquartile mean over its seeds of the figure searched by; of one that was stopped what it had come to."""
    reason: str = ""
    """Why it failed."""


@dataclass
class _Open:
    """A trial whose runs are being made."""

    cells: list[Cell]
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    reported: int = 0
    pruned: bool = False


class Search:
    """The trials of a sweep that searches, those of earlier calls among them.

    Args:
        plan: of the sweep.
        out: its folder.
        settings: how it goes.
        measure: figure at the end of runs to search by; None: the one that says how good such runs are.

    Raises:
        UserError: the earlier calls searched by something else.
    """

    def __init__(self, plan: Plan, out: Path, settings: SearchSettings, measure: str | None) -> None:
        self._optuna = require("optuna", "sweep")
        self._optuna.logging.set_verbosity(self._optuna.logging.ERROR)
        self.plan, self.out, self._settings, self._measure = plan, out, settings, measure
        journal = require("optuna.storages.journal", "sweep")
        backend = journal.JournalFileBackend(str(out / JOURNAL))
        pruner: Any = self._optuna.pruners.NopPruner()
        if settings.stop_early is not None:
            pruner = self._optuna.pruners.SuccessiveHalvingPruner(
                reduction_factor=REDUCTION, min_early_stopping_rate=RATE
            )
        self._study = self._optuna.create_study(
            storage=self._optuna.storages.JournalStorage(backend),
            sampler=self._optuna.samplers.TPESampler(
                seed=plan.maker.seeds.start, n_startup_trials=FIRST_AT_RANDOM, constant_liar=True
            ),
            pruner=pruner,
            study_name="sweep",
            direction="minimize" if settings.minimise else "maximize",
            load_if_exists=True,
        )
        by = {"seeds": len(plan.maker.seeds), "measure": measure, **asdict(settings)}
        before = self._study.user_attrs.get(BY, by)
        if differs := [name for name, value in by.items() if before.get(name) != value]:
            asked = "; ".join(f"{name} was {before.get(name)}, and {by[name]} is asked for" for name in differs)
            raise UserError(f"{out} holds a search that went by something else: {asked}. Choose another --out.")
        self._study.set_user_attr(BY, by)
        self._open: dict[int, _Open] = {}

    def run(self, resources: Resources, on_look: Any) -> None:
        """Make trials until there are as many as the plan wants; those that were interrupted go on.

        Args:
            resources: of each run.
            on_look: called again and again, without arguments.

        Raises:
            UserError: there is no cluster, or runs have no such figure.
            KeyboardInterrupt: the user stopped it, and all runs have saved what they came to.
        """
        if self._num_left == 0 and not self._interrupted():
            return
        with runs_of(self.plan, self.out, resources) as runs:
            for frozen in self._interrupted():
                self._begin(runs, frozen.number, frozen.params)
            while self._open or self._num_left:
                while self._num_left and self._has_room(runs):
                    trial = self._study.ask(self._distributions())
                    self._begin(runs, trial.number, trial.params)
                for name, outcome in runs.collect().items():
                    self._open[_number(name)].outcomes[name] = outcome
                for number in list(self._open):
                    self._look(runs, number)
                on_look()

    def trials(self) -> list[Trial]:
        """Return all trials so far, in their order."""
        return [self._told(frozen) for frozen in self._study.get_trials(deepcopy=False)]

    def best(self) -> Trial | None:
        """Return the best of the trials that were made whole; None where there is none."""
        done = [one for one in self.trials() if one.state == DONE and one.value is not None]
        sign = -1.0 if self._settings.minimise else 1.0
        return max(done, key=lambda one: sign * (one.value or 0.0), default=None)

    def cells(self) -> list[Cell]:
        """Return the runs of all trials so far."""
        return [cell for one in self.trials() for cell in self.cells_of(one)]

    def cells_of(self, trial: Trial) -> list[Cell]:
        """Return the runs of a trial, a seed each; none of one whose values cannot be."""
        try:
            return self._cells(trial.number, trial.varied)
        except UserError:
            return []

    @property
    def measure(self) -> str:
        """The figure that is searched by.

        Raises:
            UserError: no run that is over has it, or none is over.
        """
        return measure_of(self.plan, self._known(), self._measure)

    # --------------------------------------------------------------------------------------------------------------

    @property
    def _num_left(self) -> int:
        return max(0, self.plan.trials - len(self._study.get_trials(deepcopy=False)))

    def _interrupted(self) -> list[Any]:
        state = self._optuna.trial.TrialState.RUNNING
        return list(self._study.get_trials(deepcopy=False, states=(state,)))

    def _has_room(self, runs: Runs) -> bool:
        """Tell whether another trial can begin at once: what is proposed later is proposed knowing more."""
        return runs.num_open == 0 or runs.num_open + len(self.plan.maker.seeds) <= runs.at_once

    def _distributions(self) -> dict[str, Any]:
        kinds = self._optuna.distributions

        def of(one: Range) -> Any:
            if not one.between:
                # Optuna keeps choices that are no plain values, such as lists, by their JSON only.
                return kinds.CategoricalDistribution(tuple(range(len(one.values))))
            low, high = one.values
            whole = type(low) is int and type(high) is int
            kind = kinds.IntDistribution if whole else kinds.FloatDistribution
            return kind(low, high, log=one.log)

        return {name: of(one) for name, one in self.plan.search.items()}

    def _varied(self, params: Mapping[str, Any]) -> dict[str, Any]:
        search = self.plan.search
        return {name: one if search[name].between else search[name].values[one] for name, one in params.items()}

    def _cells(self, number: int, varied: dict[str, Any]) -> list[Cell]:
        return self.plan.maker.of(varied, f"trial-{number:04d}")

    def _begin(self, runs: Runs, number: int, params: Mapping[str, Any]) -> None:
        try:
            cells = self._cells(number, self._varied(params))
        except UserError as error:  # values that do not go together, each of which could be
            self._end(number, None, str(error))
            return
        self._open[number] = _Open(cells)
        for cell in cells:
            if self.plan.kind.folder(self.out / cell.name).finished:
                self._open[number].outcomes[cell.name] = "done", ""
            else:
                runs.start(cell)

    def _look(self, runs: Runs, number: int) -> None:
        """Tell Optuna of a trial that is over, and stop one that has fallen behind."""
        one = self._open[number]
        if len(one.outcomes) == len(one.cells):
            del self._open[number]
            failed = [f"{name}: {why}" for name, (how, why) in one.outcomes.items() if how == "failed"]
            stopped = any(how == "stopped" for how, _ in one.outcomes.values())
            if failed:
                self._end(number, None, failed[0])
            elif one.pruned and stopped:
                self._study.tell(number, state=self._optuna.trial.TrialState.PRUNED)
            elif not stopped:  # else the whole search is being stopped
                self._falls_behind(number, one)  # whoever comes later is held against all of it
                self._end(number, self._value(one.cells), "")
            return
        if not one.pruned and self._falls_behind(number, one):
            one.pruned = True
            runs.stop({cell.name for cell in one.cells})

    def _falls_behind(self, number: int, one: _Open) -> bool:
        """Report how far a trial has come, and tell whether it should be stopped."""
        if self._settings.stop_early is None:
            return False
        count, value = self._so_far(one.cells)
        if value is None or count <= one.reported:
            return False
        one.reported = count
        trial = self._optuna.trial.Trial(self._study, self._id(number))
        trial.report(value, count)
        return bool(trial.should_prune())

    def _end(self, number: int, value: float | None, reason: str) -> None:
        state = self._optuna.trial.TrialState
        if value is not None and math.isfinite(value):
            self._study.tell(number, value)
        else:
            trial = self._optuna.trial.Trial(self._study, self._id(number))
            trial.set_user_attr(REASON, reason or "its runs have no such figure, or it is not a number")
            self._study.tell(number, state=state.FAIL)

    def _id(self, number: int) -> int:
        return int(self._study.get_trials(deepcopy=False)[number]._trial_id)

    def _value(self, cells: list[Cell]) -> float | None:
        rows = [row["figures"] for row in rows_of(self.plan, self.out, {}, cells)]
        measure = measure_of(self.plan, list(dict.fromkeys(name for row in rows for name in row)), self._measure)
        found = [row[measure] for row in rows if row.get(measure) is not None]
        return interquartile_mean(np.array([found])) if len(found) == len(cells) else None

    def _known(self) -> list[str]:
        rows = rows_of(self.plan, self.out, {}, self.cells())
        return list(dict.fromkeys(name for row in rows for name in row["figures"]))

    def _so_far(self, cells: list[Cell]) -> tuple[int, float | None]:
        """Return how far all runs of a trial have come, by their counter, and the mean of the figure there."""
        figure, kind = str(self._settings.stop_early), self.plan.kind
        counts, values = [], []
        for cell in cells:
            row = last_row(kind, self.out / cell.name)
            if not row:
                return 0, None
            if figure not in row:
                known = [name for name, value in row.items() if isinstance(value, int | float | None)]
                raise UserError(
                    f"Runs tell no figure {figure!r} along the way; they tell {', '.join(known)}."
                    f"{near_names(figure, known)}"
                )
            counts.append(int(row[kind.folder.COUNTER]))
            values.append(row[figure])
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
            return 0, None
        return min(counts), float(np.mean(values))

    def _told(self, frozen: Any) -> Trial:
        state = self._optuna.trial.TrialState
        names = {state.COMPLETE: DONE, state.FAIL: FAILED, state.PRUNED: STOPPED}
        value = frozen.value
        if frozen.state == state.PRUNED and frozen.intermediate_values:
            value = frozen.intermediate_values[max(frozen.intermediate_values)]
        return Trial(
            number=frozen.number, varied=self._varied(frozen.params), state=names.get(frozen.state, OPEN), value=value,
            reason=frozen.user_attrs.get(REASON, ""),
        )  # fmt: skip


def _number(name: str) -> int:
    """Return the number of the trial that a run belongs to."""
    return int(name.partition("/")[0].removeprefix("trial-"))

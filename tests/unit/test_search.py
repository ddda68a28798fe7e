"""A search: which ranges it takes, what it proposes, stops and finds, with runs that are made in no time."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefrl.cli import main
from prefrl.errors import UserError
from prefrl.sweeps import search as searching
from prefrl.sweeps.cells import Outcome
from prefrl.sweeps.command import _ranges
from prefrl.sweeps.engine import Resources
from prefrl.sweeps.kinds import kind_named
from prefrl.sweeps.plan import Cell, Plan, Sweep, read_sweep
from prefrl.sweeps.ranges import Range, parse_range, range_of
from prefrl.sweeps.search import SearchSettings
from prefrl.sweeps.searched import Searched, run_search, show_searched

pytest.importorskip("optuna")
SETTINGS: dict[str, Any] = {"env_id": "Pendulum-v1", "labels": 6, "steps": 1600, "num_envs": 2, "segment_length": 10}
SEARCH: dict[str, Any] = {
    "hyper.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "labels": {"low": 6, "high": 60},
    "teacher": ["oracle", "noisy"],
}


def rate_of(cell: Cell) -> float:
    return float(cell.varied["hyper.learning_rate"])


class MadeAtOnce:
    """In place of Ray: runs whose figures follow from their settings, a row of metrics at each look.

    Args:
        out: folder of the sweep.
        figure: what a run comes to; it may raise, and the run fails.
        rows: of metrics in a run.
    """

    at_once = 2

    def __init__(self, plan: Plan, out: Path, figure: Callable[[Cell], float], rows: int) -> None:
        self.plan, self.out, self.figure, self.rows = plan, out, figure, rows
        self.open: dict[str, Cell] = {}
        self.stopped: set[str] = set()
        self.looks = 0

    @property
    def num_open(self) -> int:
        return len(self.open)

    def start(self, cell: Cell) -> None:
        self.open[cell.name] = cell
        (self.out / cell.name).mkdir(parents=True, exist_ok=True)

    def stop(self, names: set[str]) -> None:
        self.stopped |= names

    def collect(self) -> dict[str, Outcome]:
        self.looks += 1
        found: dict[str, Outcome] = {}
        for name, cell in list(self.open.items()):
            folder = self.out / name
            if name in self.stopped:
                found[name] = "stopped", ""
            else:
                try:
                    value = self.figure(cell)
                except ValueError as error:
                    found[name] = "failed", str(error)
                else:
                    with (folder / "metrics.jsonl").open("a") as file:
                        count = sum(1 for _ in (folder / "metrics.jsonl").open()) + 1
                        file.write(json.dumps({"num_env_steps": 100 * count, "labels": 6, "true_return": value}) + "\n")
                    if count == self.rows:
                        (folder / "config.json").write_text(
                            json.dumps({"format": "prefrl.run", "version": 2, "settings": cell.expected})
                        )
                        (folder / "summary.json").write_text(json.dumps({"true_return_mean": value}))
                        found[name] = "done", ""
            if name in found:
                del self.open[name]
        return found


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Searched]:
    """Search with such runs."""

    def run(
        figure: Callable[[Cell], float], *, trials: int = 20, seeds: int = 2, rows: int = 1,
        stop_early: str | None = None, minimise: bool = False, interrupt_after: int | None = None,
        ranges: dict[str, Any] = SEARCH,
    ) -> Searched:  # fmt: skip
        @contextmanager
        def runs_of(plan: Plan, out: Path, _: Resources) -> Iterator[MadeAtOnce]:
            made = MadeAtOnce(plan, out, figure, rows)
            collect = made.collect

            def collect_or_stop() -> dict[str, Outcome]:
                if made.looks == interrupt_after:
                    raise KeyboardInterrupt
                return collect()

            made.collect = collect_or_stop  # type: ignore[method-assign]
            yield made

        monkeypatch.setattr(searching, "runs_of", runs_of)
        sweep = Sweep(settings=SETTINGS, search=ranges, trials=trials, seeds=seeds)
        settings = SearchSettings(minimise=minimise, stop_early=stop_early)
        return run_search(sweep, tmp_path / "sweep", settings, quiet=True)

    return run


# ----------------------------------------------------------------------------------------------------------- ranges


def test_ranges_are_read_from_words_and_files(tmp_path: Path) -> None:
    words = ["hyper.learning_rate=1e-4..1e-2:log", "labels=6..60", "teacher=oracle,noisy", "from=../a,../b"]
    ranges = _ranges(kind_named("train"), words)
    assert ranges == {**SEARCH, "from": ["../a", "../b"]}
    (tmp_path / "s.json").write_text(json.dumps({"settings": SETTINGS, "search": SEARCH, "trials": 7}))
    sweep = read_sweep(tmp_path / "s.json")
    assert (sweep.search, sweep.trials) == (SEARCH, 7)
    assert range_of("a", {"low": 1, "high": 2}) == Range(values=(1, 2), between=True)
    assert parse_range("a", "-2..-0.5") == {"low": -2, "high": -0.5}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"low": 2, "high": 1}, "low below high"), ({"low": 1}, "list of choices"), ("1..2", "list of choices"),
        ([], "list of choices"), ({"low": 0, "high": 1, "log": True}, "no logarithm"), ([1, 1], "given twice"),
        ({"low": 0, "high": float("inf")}, "low below high"), ({"low": 0, "high": 1, "step": 1}, "list of choices"),
        ({"low": True, "high": 3}, "low below high"),
    ],
)  # fmt: skip
def test_what_is_no_range_is_refused(given: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        range_of("labels", given)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vary": {"labels": [6]}}, "not both"),
        ({"search": {"labelz": [1, 2]}}, "There is no setting 'labelz'.*labels"),
        ({"search": {"labels": {"low": 0, "high": 6}}}, "with labels=0.* cannot be"),
        ({"search": {"teacher": ["oracle", "nobody"]}}, "with teacher=nobody cannot be"),
        ({"search": {"seed": [1, 2]}}, "Seeds are counted"),
        ({"trials": 0}, "trials must be a whole number"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_starts(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Plan.of(Sweep(**{"settings": SETTINGS, "search": SEARCH, **change}))


@pytest.mark.parametrize("words", [["labels=6..60:linear"], ["labels=6..6.6.6"], ["labels=1,2", "labels=3..4"]])
def test_words_that_are_no_ranges_are_refused(words: list[str]) -> None:
    with pytest.raises(UserError):
        _ranges(kind_named("train"), words)


# ----------------------------------------------------------------------------------------------------------- search


def closeness(cell: Cell) -> float:
    """Best at a learning rate of 1e-3, in the middle of the range; by chance -1/2 in the mean."""
    return -abs(math.log10(rate_of(cell) / 1e-3))


@pytest.mark.slow
def test_it_comes_nearer_to_the_best_than_chance_does(search: Callable[..., Searched]) -> None:
    found = search(closeness, trials=40, seeds=1)
    values = [one.value for one in found.trials]
    assert len(values) == 40 and all(one.state == "done" for one in found.trials)
    chance, error = -0.5, math.sqrt(1 / 12 / 20)
    assert np.mean(values[20:]) > chance + 2 * error
    assert found.best is not None and found.best.value == max(values)
    assert found.measure == "true_return_mean" and len(found.rows) == 40


def test_the_least_is_the_best_where_that_is_asked_for(search: Callable[..., Searched]) -> None:
    found = search(closeness, trials=6, minimise=True)
    assert found.best is not None and found.best.value == min(one.value for one in found.trials)


def test_whole_numbers_and_choices_stay_within_their_ranges(search: Callable[..., Searched]) -> None:
    lists = {**SEARCH, "hyper.policy_kwargs": [{"net_arch": [8]}, {"net_arch": [16, 16]}]}
    for one in search(closeness, trials=8, seeds=1, ranges=lists).trials:
        assert type(one.varied["labels"]) is int and 6 <= one.varied["labels"] <= 60
        assert one.varied["teacher"] in ("oracle", "noisy") and 1e-4 <= one.varied["hyper.learning_rate"] <= 1e-2
        assert one.varied["hyper.policy_kwargs"] in lists["hyper.policy_kwargs"]


@pytest.mark.slow
def test_trials_that_fail_are_told_and_the_others_count(search: Callable[..., Searched], tmp_path: Path) -> None:
    def figure(cell: Cell) -> float:
        if rate_of(cell) > 1e-3:
            raise ValueError("weights became NaN")
        return rate_of(cell)

    found = search(figure, trials=12)
    assert 0 < len(found.failed) < 12
    assert all("weights became NaN" in one.reason and rate > 1e-3 for one in found.failed
               for rate in [one.varied["hyper.learning_rate"]])  # fmt: skip
    again = search(figure, trials=12)
    assert again.trials == found.trials, "called again, it tells the same, and why trials failed"
    table = (tmp_path / "sweep" / "results.csv").read_text().splitlines()
    assert len(table) == 13 and table[0] == "trial,hyper.learning_rate,labels,teacher,state,true_return_mean,reason"


def test_where_every_trial_fails_it_is_said(search: Callable[..., Searched]) -> None:
    def figure(_: Cell) -> float:
        raise ValueError("no such thing")

    with pytest.raises(UserError, match=r"No trial came to an end: .*no such thing"):
        search(figure, trials=3)


@pytest.mark.slow
def test_a_search_that_was_interrupted_goes_on_with_the_trials_it_had_begun(search: Callable[..., Searched]) -> None:
    with pytest.raises(KeyboardInterrupt):
        search(closeness, trials=8, rows=3, interrupt_after=4)
    found = search(closeness, trials=8, rows=3)
    assert [one.number for one in found.trials] == list(range(8)) and {one.state for one in found.trials} == {"done"}
    more = search(closeness, trials=11, rows=3)
    assert more.trials[:8] == found.trials and len(more.trials) == 11


@pytest.mark.slow
def test_trials_that_fall_behind_are_stopped_by_the_figure_that_is_named(search: Callable[..., Searched]) -> None:
    whole = search(closeness, trials=30, seeds=1, rows=50, stop_early="true_return")
    stopped = [one for one in whole.trials if one.state == "stopped early"]
    assert len(stopped) >= 8 and whole.best is not None and whole.best.state == "done"
    assert max(one.value for one in stopped) < whole.best.value
    lengths = {one.number: 0 for one in whole.trials}
    for one in stopped:
        path = next(row["run"] for row in whole.rows if row["run"].startswith(f"trial-{one.number:04d}/"))
        assert path
        lengths[one.number] += 1
    assert sum(lengths.values()) == len(stopped)


def test_a_figure_that_runs_do_not_tell_is_refused(search: Callable[..., Searched]) -> None:
    with pytest.raises(UserError, match=r"no figure 'true_retrun' along the way; they tell .*true_return"):
        search(closeness, trials=3, rows=3, stop_early="true_retrun")


def test_another_search_in_the_folder_is_refused(search: Callable[..., Searched]) -> None:
    search(closeness, trials=2)
    with pytest.raises(UserError, match=r"holds another sweep: its search\.labels\.high is 60, and 70 is asked for"):
        search(closeness, trials=2, ranges={**SEARCH, "labels": {"low": 6, "high": 70}})


@pytest.mark.parametrize("change", [{"minimise": True}, {"seeds": 3}, {"stop_early": "true_return"}])
def test_a_search_that_went_by_something_else_is_not_gone_on_with(
    search: Callable[..., Searched], change: dict[str, Any]
) -> None:
    search(closeness, trials=2)
    with pytest.raises(UserError, match=f"went by something else: {next(iter(change))} was"):
        search(closeness, trials=3, **change)


@pytest.mark.parametrize("option", [["--trials", "3"], ["--minimise"], ["--stop-early", "loss"]])
def test_options_of_a_search_are_refused_without_one(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "train", "Pendulum-v1", "--labels", "6", *option]) == 2
    assert f"{option[0]} would do nothing here" in capsys.readouterr().err


def test_the_best_is_shown_with_the_command_that_measures_it_on_other_seeds(
    search: Callable[..., Searched], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from rich.console import Console

    found = search(closeness, trials=5)
    show_searched(found, ["train", "Pendulum-v1"], Console(width=200))
    said = capsys.readouterr().out
    assert "5 trials: 5 done" in said and "looks better than it is" in said
    assert "prefrl sweep train Pendulum-v1 --vary" in said and "--seed 1000 --seeds 10" in said
    assert (tmp_path / "sweep" / "results.png").read_bytes().startswith(b"\x89PNG")

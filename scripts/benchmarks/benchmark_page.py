r"""A page of what sweeps came to, with the files that make them again, the commit and the machine.

    prefrl sweep train --vary env-id=Pendulum-v1,CartPole-v1,Reacher-v5 labels=50,200 --seeds 10 --seed 300 --baseline \
        --measure share --out runs/sweeps/control
    python scripts/benchmarks/benchmark_page.py runs/sweeps/control > page.md

Over seeds: the interquartile mean with a 95 % bootstrap interval (Agarwal et al. 2021), the least and the most. A share
is that of the gain of the agent on the true reward over random actions. Variants are held against the first on the same
seeds: the difference of interquartile means, and the probability that a run is above one of the first. How large a
difference must be to be told from chance is said as well: in 95 of 100 draws the first differs by less from itself.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from prefrl.aggregate import Scores, better, drawn_seeds, interquartile_mean, interval_of
from prefrl.envs.measures import known_measures
from prefrl.errors import UserError
from prefrl.sweeps.kinds import kind_named
from prefrl.sweeps.naming import default_values
from prefrl.sweeps.plan import read_described
from prefrl.sweeps.results import SHARE

Rows = list[dict[str, Any]]


def section(folder: Path) -> str:
    """Return what a sweep came to.

    Raises:
        UserError: it is none, or has no results.
    """
    described = read_described(folder / "sweep.json")
    path = folder / "results.json"
    if not path.is_file():
        raise UserError(f"{folder} has no results yet. Call its sweep again, until its runs are done.")
    found = json.loads(path.read_text())
    rows: Rows = found["runs"]
    parts = [f"## {folder.name}", _file(described), _made(described, rows)]
    parts += [_table(found["measure"], rows), _measures(rows), _differences(rows)]
    return "\n\n".join(part for part in parts if part)


def _file(described: Mapping[str, Any]) -> str:
    """Return the file that makes the sweep again: what differs from the defaults."""
    defaults = default_values(kind_named(described["command"]).settings)
    lines = [f"command = {json.dumps(described['command'])}", f"seeds = {described['seeds']}", "[settings]"]
    lines += [f"{name} = {json.dumps(value)}" for name, value in _changed(described["settings"], defaults)]
    for part in ("vary", "one_at_a_time", "search", "options"):
        given = {name: value for name, value in described.get(part, {}).items() if value not in (None, False, [])}
        if given:
            lines += [f"[{part}]", *(f"{json.dumps(name)} = {json.dumps(value)}" for name, value in given.items())]
    return "\n".join(f"    {line}" for line in lines)


def _changed(given: Mapping[str, Any], default: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in given.items():
        known = default.get(name)
        if isinstance(value, dict) and isinstance(known, dict) and known:
            yield from _changed(value, known, f"{before}{name}.")
        elif value != known:
            yield before + name, value


def _made(described: Mapping[str, Any], rows: Rows) -> str:
    machine, versions = described.get("machine", {}), described.get("versions", {})
    done = sum(row["state"] == "done" for row in rows)
    steps = [row["figures"].get("seconds", 0.0) + row["figures"].get("baseline_seconds", 0.0) for row in rows]
    said = [f"{name} {versions[name]}" for name in ("prefrl", "python", "torch", "mujoco") if name in versions]
    return (
        f"{done} of {len(rows)} runs done, {sum(steps) / 3600:.1f} hours of training, begun on "
        f"{machine.get('processors', '?')} processors ({machine.get('processor', 'not known')}), commit "
        f"{machine.get('commit') or 'not known'}; {', '.join(said)}."
    )


def _table(measure: str, rows: Rows) -> str:
    """Return a table of the measure; of runs with one on the true reward beside them, of all returns."""
    with_baseline = any(SHARE in row["figures"] for row in rows)
    names = ["random", "true reward", "from comparisons", "share of the gain"] if with_baseline else [measure]
    lines = ["| task | runs | " + " | ".join(names) + " |", "|---" * (2 + len(names)) + "|"]
    for task, variant, own in _groups(rows):
        steps = next((f"{row['figures']['steps']:,.0f} steps" for row in own if "steps" in row["figures"]), "")
        cells = [show(_figures(own, measure))]
        if with_baseline:
            true = _figures(own, "baseline_true_return_mean")
            if not true.size:  # it stands beside another variant
                true = _figures([row for row in rows if row["task"] == task], "baseline_true_return_mean")
            cells = [f"{_figures(own, 'random_true_return_mean').mean():.4g}", show(true)]
            cells += [show(_figures(own, "true_return_mean")), show(_figures(own, SHARE), "{:.0%}")]
        lines.append(f"| {task}{f' ({steps})' * bool(steps)} | {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _measures(rows: Rows) -> str:
    """Return a table of what returns hide, one figure a seed."""
    lines = []
    for task, variant, own in _groups(rows):
        for measure in known_measures(task):
            found = [_figures(own, f"{part}measures/{measure.name}") for part in ("random_", "baseline_", "")]
            texts = [" ".join(measure.text(float(value)) for value in np.sort(values)) for values in found]
            texts[0] = measure.text(float(found[0].mean())) if found[0].size else ""
            lines.append(f"| {task} | {variant} | {measure.name} | {' | '.join(texts)} |")
    head = ["| task | runs | | random | true reward | from comparisons |", "|---" * 6 + "|"]
    return "\n".join(["What returns hide, one figure a seed in order of size:", "", *head, *lines] if lines else [])


def _differences(rows: Rows) -> str:
    """Return the table of variants against the first, by shares."""
    if not any(SHARE in row["figures"] for row in rows) or len({row["variant"] for row in rows}) < 2:
        return ""
    tasks, seeds = (list(dict.fromkeys(row[name] for row in rows)) for name in ("task", "seed"))
    found: dict[str, Scores] = {}
    for row in rows:
        scores = found.setdefault(row["variant"], np.full((len(tasks), len(seeds)), np.nan))
        scores[tasks.index(row["task"]), seeds.index(row["seed"])] = row["figures"].get(SHARE, np.nan)
    return differences(found)


def differences(found: Mapping[str, Scores]) -> str:
    """Return a table of all variants against the first, and what could be told from chance.

    Args:
        found: shares `(tasks, seeds)`, NaN where a run is missing, by variant.
    """
    (first, base), *_ = found.items()
    rows = ["| runs | interquartile mean of shares | difference | above the first with probability | runs of both |"]
    rows.append("|---" * 5 + "|")
    for name, values in found.items():
        both = np.isfinite(values) & np.isfinite(base)
        if not both.any(1).all():
            rows.append(f"| {name} | | | | {int(np.isfinite(values).sum())} |")
            continue
        ours, theirs = np.where(both, values, np.nan), np.where(both, base, np.nan)
        cells = [interval_of(interquartile_mean, ours).text("{:.0%}"), "", ""]
        if name != first:
            by = interval_of(lambda a, b: interquartile_mean(a) - interquartile_mean(b), ours, theirs)
            cells[1:] = by.text("{:+.0%}"), interval_of(better, ours, theirs).text("{:.2f}")
        rows.append(f"| {name} | {' | '.join(cells)} | {int(both.sum())} |")
    num = base.shape[1]
    halves = [
        interquartile_mean(drawn)
        for draw in drawn_seeds(len(base), num)
        if np.isfinite(drawn := np.take_along_axis(base, draw, 1)).any()
    ]
    pairs = len(halves) // 2
    apart = np.abs(np.array(halves[:pairs]) - np.array(halves[pairs : 2 * pairs]))
    return "\n".join(
        [*rows, "", f"Told from chance: differences above {np.percentile(apart, 95):.0%} with {num} seeds a task."]
    )


def _groups(rows: Rows) -> Iterator[tuple[str, str, Rows]]:
    for task, variant in dict.fromkeys((row["task"], row["variant"]) for row in rows):
        yield task, variant, [row for row in rows if (row["task"], row["variant"]) == (task, variant)]


def _figures(rows: Rows, name: str) -> np.ndarray:
    return np.array([row["figures"][name] for row in rows if row["figures"].get(name) is not None], np.float64)


def show(values: np.ndarray, form: str = "{:.4g}") -> str:
    """Return the interquartile mean with its interval, the least, the most, and of how many."""
    if len(values) < 2:
        return form.format(values[0]) if len(values) else ""
    middle = interval_of(interquartile_mean, values[None])
    several = len(values) > 3 and np.ptp(values) > 0
    text = middle.text(form) if several else form.format(middle.value)
    return f"{text} ({form.format(values.min())} to {form.format(values.max())}; {len(values)})"


def main(sweeps: tyro.conf.Positional[tuple[Path, ...]]) -> None:
    """Print the page.

    Args:
        sweeps: folders.
    """
    try:
        print("\n\n".join(["# Results of sweeps", *map(section, sweeps)]))
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

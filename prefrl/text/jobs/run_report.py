"""One text run drawn and told: its figures step by step, its evaluations, and what its end says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefrl.errors import UserError
from prefrl.runs.plotting import BLUE, ORANGE, make_figure, save_figure, set_style
from prefrl.text.jobs.folder import TextFolder

COUNTERS = ("step", "examples", "seconds")
PART = 0.1
"""Of the steps: their first and last tenth are compared."""
COLUMNS = 3
Series = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
"""By name the steps and the values of a figure."""


def plot_run(folder: TextFolder, path: Path) -> None:
    """Draw every figure of a run against its steps: those of each step, and those of evaluations with marks.

    Args:
        folder: the run, finished or not.
        path: the PNG to write.

    Raises:
        UserError: nothing was written down yet.
        MissingExtraError: matplotlib is not installed.
    """
    steps, evaluations = _series(folder.read_metrics()), _series(folder.read_evaluations())
    bins = folder.read_summary().get("bins") if folder.finished else None
    panels = [*steps, *(f"{name}, evaluated" for name in evaluations), *(["calibration"] if bins else [])]
    if not panels:
        raise UserError(f"The run in {folder.path} has no figures yet. Wait for its first step.")
    rows = math.ceil(len(panels) / COLUMNS)
    figure = make_figure(15, 3.4 * rows)
    figure.set_layout_engine("constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for place, (name, (at, values)) in zip(axes, steps.items(), strict=False):
        place.plot(at, values, color=BLUE, linewidth=0.6, alpha=0.4)
        place.plot(at, _smoothed(values), color=BLUE, linewidth=1.8)
        set_style(place, name.replace("_", " "), "step", "")
    for place, (name, (at, values)) in zip(axes[len(steps) :], evaluations.items(), strict=False):
        place.plot(at, values, color=ORANGE, marker="o", markersize=4, linewidth=1.5)
        set_style(place, f"{name.replace('_', ' ')}, evaluated", "step", "")
    if bins:
        place = axes[len(panels) - 1]
        place.plot([0, 1], [0, 1], color="#767676", linestyle=":")
        place.plot([row[0] for row in bins], [row[1] for row in bins], color=ORANGE, marker="o")
        set_style(place, "calibration", "predicted probability", "share of answers")
    for place in axes[len(panels) :]:
        place.set_axis_off()
    save_figure(figure, path)


def describe_run(folder: TextFolder) -> str:
    """Return one page of plain words about a run, as Markdown; each sentence follows from its figures."""
    config, metrics, evaluations = folder.config, folder.read_metrics(), folder.read_evaluations()
    state = "finished" if folder.finished else "not finished"
    lines = [f"# {config['command']}, {folder.path.name}", "", f"{_counts(metrics)} The run is {state}.", ""]
    for title, rows in (("figure of a step", metrics), ("figure of an evaluation", evaluations)):
        if series := _series(rows):
            lines += [f"| {title} | first | last | least | most |", "|---|---|---|---|---|"]
            lines += [f"| {name} | {_cells(values)} |" for name, (_, values) in series.items()]
            lines.append("")
    summary = folder.read_summary() if folder.finished else {}
    said = [*_course(_series(metrics)), *_both_fell(_series(metrics)), *_moved(evaluations), *_held_out(summary)]
    return "\n".join([*lines, *(f"- {sentence}" for sentence in said)]).rstrip() + "\n"


def report_of(folder: TextFolder) -> dict[str, Any]:
    """Return the first and last values of all figures, and those at the end."""
    return {
        "command": folder.config["command"],
        "finished": folder.finished,
        **{
            kind: {name: {"first": values[0], "last": values[-1]} for name, (_, values) in _series(rows).items()}
            for kind, rows in (("steps", folder.read_metrics()), ("evaluations", folder.read_evaluations()))
        },
        "summary": folder.read_summary() if folder.finished else None,
    }


def _series(rows: Sequence[Mapping[str, Any]]) -> Series:
    """Return the figures that are numbers, by name, each with the steps at which it was one."""
    names = [name for name in dict.fromkeys(key for row in rows for key in row) if name not in COUNTERS]
    found = {}
    for name in names:
        pairs = [(row["step"], row[name]) for row in rows if _is_number(row.get(name))]
        if pairs:
            found[name] = (np.array([at for at, _ in pairs], float), np.array([value for _, value in pairs], float))
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return running means over a twentieth of the values."""
    width = max(1, len(values) // 20)
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - width)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _counts(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "No step has been made yet."
    last = rows[-1]
    return f"{last['step']:,} steps, {last.get('examples', 0):,} examples, {last.get('seconds', 0):,.0f} seconds."


def _cells(values: NDArray[np.float64]) -> str:
    return " | ".join(f"{value:.4g}" for value in (values[0], values[-1], values.min(), values.max()))


def _course(series: Series) -> list[str]:
    """Say whether the loss or the objective moved by more than its noise, from the first to the last tenth."""
    said = []
    for name in ("loss", "objective"):
        if name not in series or len(values := series[name][1]) < 20:
            continue
        count = max(2, int(len(values) * PART))
        first, last = values[:count], values[-count:]
        change = float(last.mean() - first.mean())
        error = math.sqrt(float(first.var(ddof=1) + last.var(ddof=1)) / count)
        moved = "did not move by more than twice its noise" if abs(change) <= 2 * error else _direction(change)
        said.append(
            f"The {name} {moved}: {first.mean():.4g} over the first tenth of the steps, {last.mean():.4g} over the "
            "last."
        )
    return said


def _direction(change: float) -> str:
    return "rose" if change > 0 else "fell"


def _both_fell(series: Series) -> list[str]:
    """Say where the log-probabilities of what was chosen and what was not have gone from the reference's.

    Those of batches would differ by what is in them; implied rewards, beta times the difference, do not.
    """
    names = ("chosen_reward", "rejected_reward")
    if not all(name in series for name in names):
        return []
    ends = [float(values[-max(1, int(len(values) * PART)) :].mean()) for values in (series[name][1] for name in names)]
    told = (
        f"beta times the difference in nats is {ends[0]:+.3g} for the chosen and {ends[1]:+.3g} for the rejected ones"
    )
    if max(ends) < 0:
        return [f"Both log-probabilities fell below the reference's ({told}): they went to responses that are neither."]
    return [f"Log-probabilities against the reference's, over the last tenth of the steps: {told}."]


def _moved(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say how far the policy is from its start, and what changed in its responses."""
    if len(rows) < 2:
        return []
    first, last = rows[0], rows[-1]
    said = [f"It ended {last['kl_nats']:.3g} nats from where it began."] if _is_number(last.get("kl_nats")) else []
    both = [
        f"{name.replace('_', ' ')} {first[name]:.3g} to {last[name]:.3g}"
        for name in ("gold", "proxy", "length", "repetition", "end_rate")
        if _is_number(first.get(name)) and _is_number(last.get(name))
    ]
    if both:
        said.append(f"From the first evaluation to the last: {', '.join(both)}.")
    gold = [row for row in rows if _is_number(row.get("gold"))]
    if gold and (best := max(gold, key=lambda row: row["gold"]))["gold"] > gold[-1]["gold"]:
        said.append(
            f"Gold was best at step {best['step']:,} ({best['gold']:.3g}), {best['gold'] - gold[-1]['gold']:.3g} above "
            "the end."
        )
    if _is_number(last.get("end_rate")) and _is_number(first.get("end_rate")) and last["end_rate"] < first["end_rate"]:
        said.append(f"Fewer responses come to their end: {first['end_rate']:.0%} before, {last['end_rate']:.0%} now.")
    return said


def _held_out(summary: Mapping[str, Any]) -> list[str]:
    """Say how well held-out answers are told apart, with an interval of Wilson's."""
    prefix = "held_out_" if "held_out_accuracy" in summary else ""
    share, count = summary.get(f"{prefix}accuracy"), summary.get(f"{prefix}pairs", summary.get("num_pairs"))
    if not _is_number(share) or not count:
        loss = summary.get("held_out_loss")
        return [f"The loss on what was held out is {loss:.4g}."] if _is_number(loss) else []
    assert share is not None
    low, high = _wilson(float(share), int(count))
    against = "better than a coin" if low > 0.5 else "worse than a coin" if high < 0.5 else "not told from a coin"
    said = (
        f"Of {count:,} held-out pairs {share:.0%} are in order ({low:.0%} to {high:.0%} if they are independent): "
        f"{against}."
    )
    if _is_number(margin := summary.get("held_out_margin")):
        said += f" The mean margin of the implied reward is {margin:.3g}."
    return [said]


def _wilson(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """Return the interval of Wilson 1927 for a share of independent trials."""
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)

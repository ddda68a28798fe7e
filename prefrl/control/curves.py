"""Learning curves of control runs as PNG files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prefrl.runs.plotting import (
    CURVE_COLOURS,
    GREY,
    LINE_STYLES,
    format_steps,
    make_figure,
    save_figure,
    say,
    second_axis,
    set_style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, Any]
"""One row of metrics: `num_env_steps`, `labels`, `true_return`, `learned_return`; any may be missing, None or NaN."""


def plot_learning_curves(curves: Mapping[str, Sequence[Row]], path: str | Path, title: str) -> None:
    """Draw the true return over environment steps of several runs into one PNG.

    The labels asked so far stand on a second axis where a run asked for any.

    Args:
        curves: rows of metrics by name, e.g. `{"learned from 300 comparisons": rows, "true reward": baseline_rows}`.
        path: the PNG to write.
        title: the title, e.g. `"HalfCheetah-v5"`.

    Raises:
        MissingExtraError: matplotlib is not installed.
        UserError: the file cannot be written.
    """
    figure = make_figure(8.0, 4.5)
    axes = figure.add_axes((0.1, 0.13, 0.79, 0.75))
    asked: Axes | None = None
    most = 0.0
    for index, (name, rows) in enumerate(curves.items()):
        colour = CURVE_COLOURS[index % len(CURVE_COLOURS)]
        steps, returns = series(rows, "true_return")
        style = LINE_STYLES[index % len(LINE_STYLES)]
        marker = "o" if len(steps) == 1 else None
        axes.plot(steps, returns, color=colour, linestyle=style, marker=marker, linewidth=2.2, label=name, zorder=3)
        label_steps, labels = series(rows, "labels")
        if len(labels) and labels.max() > 0:
            if asked is None:
                asked = second_axis(axes, "labels asked", GREY)
            asked.fill_between(label_steps, labels, step="post", color=colour, alpha=0.13, linewidth=0)
            most = max(most, float(labels.max()))
    set_style(axes, title, "environment steps", "true return per episode")
    format_steps(axes)
    if axes.lines:
        handles, names = axes.get_legend_handles_labels()
        if asked is not None:
            handles, names = [*handles, asked.collections[0]], [*names, "labels asked (right axis)"]
            asked.set_ylim(0, 3 * most)  # low, so that the curves stay clear of it
            asked.set_yticks([0, most])
            asked.yaxis.label.set(y=1 / 6)
            axes.set_zorder(asked.get_zorder() + 1)
            axes.patch.set_visible(False)
        axes.legend(handles, names, loc="best", frameon=True, framealpha=0.9, edgecolor="none", fontsize=10)
    if not any(len(line.get_xdata()) for line in axes.lines):  # type: ignore[arg-type]
        say(axes, "no returns were recorded")
    save_figure(figure, Path(path))


def plot_own_curves(
    rows: Sequence[Row], path: str | Path, title: str, *, true_reward: bool, baseline: Sequence[Row] = ()
) -> None:
    """Draw a run that is judged by what was asked for: learned return and held-out agreement, into one PNG.

    Args:
        rows: of metrics.
        path: the PNG to write.
        title: the title.
        true_reward: draw the environment's own reward below, as what it is.
        baseline: rows of a run that was trained on that reward, to draw beside it.

    Raises:
        MissingExtraError: matplotlib is not installed.
        UserError: the file cannot be written.
    """
    figure = make_figure(8.0, 6.6 if true_reward else 4.5)
    above = figure.add_axes((0.1, 0.47, 0.79, 0.46) if true_reward else (0.1, 0.13, 0.79, 0.75))
    steps, learned = series(rows, "learned_return")
    above.plot(steps, learned, color=CURVE_COLOURS[0], linewidth=2.2, label="learned return", zorder=3)
    set_style(above, title, "environment steps", "learned return per episode")
    agreed_steps, agreed = series(rows, "held_out_agreement")
    lines, other = list(above.lines), second_axis(above, "agreement with answers held out", GREY)
    other.plot(agreed_steps, agreed, color=GREY, linestyle="--", linewidth=1.8, label="held-out agreement (right)")
    other.set_ylim(0, 1)
    lines += list(other.lines)
    above.legend(lines, [str(line.get_label()) for line in lines], loc="lower right", framealpha=0.9, fontsize=10)
    if len(steps) == 0:
        say(above, "no learned returns were recorded")
    format_steps(above)
    if true_reward:
        below = figure.add_axes((0.1, 0.09, 0.79, 0.26))
        true_steps, true = series(rows, "true_return")
        below.plot(true_steps, true, color=CURVE_COLOURS[0], linewidth=1.8, label="this run")
        other_steps, other_returns = series(baseline, "true_return")
        if len(other_steps):
            below.plot(other_steps, other_returns, color=CURVE_COLOURS[1], linewidth=1.8, label="trained on it")
            below.legend(loc="lower right", framealpha=0.9, fontsize=9)
        set_style(below, "", "environment steps", "environment's own reward")
        if len(true_steps) == 0:
            say(below, "unknown")
        format_steps(below)
    save_figure(figure, Path(path))


def series(rows: Sequence[Row], key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return environment steps and values `(n,)` of the rows that have both as finite numbers."""
    pairs = [(_number(row.get("num_env_steps")), _number(row.get(key))) for row in rows]
    kept = np.array([pair for pair in pairs if not math.isnan(pair[0]) and not math.isnan(pair[1])]).reshape(-1, 2)
    return kept[:, 0], kept[:, 1]


def _number(value: Any) -> float:
    number = math.nan if value is None else float(value)
    return number if math.isfinite(number) else math.nan

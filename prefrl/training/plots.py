"""Learning curves as PNG files, and what all pictures of a run share.

Colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart. Figures are drawn without pyplot,
so that no window system or global state is touched.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prefrl.errors import require
from prefrl.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE, SKY, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#767676"
CURVE_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY)
LINE_STYLES = ("-", "--", "-.", ":")
DOTS_PER_INCH = 110
PAPER = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 2.0}

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


def make_figure(width_inches: float, height_inches: float) -> Figure:
    """Return an empty figure that needs no window system.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figures = require("matplotlib.figure", "train")
    agg = require("matplotlib.backends.backend_agg", "train")
    figure: Figure = figures.Figure(figsize=(width_inches, height_inches), dpi=DOTS_PER_INCH, facecolor="white")
    agg.FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG; the file appears whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    write_atomically(path, picture.getvalue())


def series(rows: Sequence[Row], key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return environment steps and values `(n,)` of the rows that have both as finite numbers."""
    pairs = [(_number(row.get("num_env_steps")), _number(row.get(key))) for row in rows]
    kept = np.array([pair for pair in pairs if not math.isnan(pair[0]) and not math.isnan(pair[1])]).reshape(-1, 2)
    return kept[:, 0], kept[:, 1]


def _number(value: Any) -> float:
    number = math.nan if value is None else float(value)
    return number if math.isfinite(number) else math.nan


def set_style(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    """Give a panel its title, its labels and the quiet frame of all panels."""
    axes.set_title(title, loc="left", fontsize=11.5, weight="bold")
    axes.set_xlabel(x_label, fontsize=10)
    axes.set_ylabel(y_label, fontsize=10)
    axes.tick_params(labelsize=9, length=0)
    axes.grid(color="#E3E3E3", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#BBBBBB")


def second_axis(axes: Axes, label: str, colour: str) -> Axes:
    """Return an axis on the right in a colour of its own."""
    other: Axes = axes.twinx()
    other.set_ylabel(label, color=colour, fontsize=10)
    other.tick_params(axis="y", colors=colour, labelsize=9, length=0)
    for spine in other.spines.values():
        spine.set_visible(False)
    return other


def format_steps(axes: Axes) -> None:
    """Label environment steps in thousands and millions, from 0."""
    ticker = require("matplotlib.ticker", "train")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(9, steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    axes.set_xlim(0, max(axes.get_xlim()[1], 1.0))


def say(axes: Axes, text: str) -> None:
    """Write into the middle of a panel."""
    text = textwrap.fill(text, 38)
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=10, color=GREY, bbox=PAPER)


def note(axes: Axes, text: str, *, right: bool = False) -> None:
    """Write into an upper corner of a panel."""
    text = "\n".join(textwrap.fill(line, 38) for line in text.splitlines())
    place, side = (0.97, "right") if right else (0.03, "left")
    axes.text(place, 0.97, text, transform=axes.transAxes, va="top", ha=side, fontsize=9, bbox=PAPER, zorder=4)

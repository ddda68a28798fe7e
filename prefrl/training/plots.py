"""Plots of a run as PNG files: the report card of a reward, and learning curves.

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
from prefrl.rewards.report import ReportCard

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


def plot_report(card: ReportCard, metrics: Sequence[Row], path: str | Path) -> None:
    """Draw the report card of a learned reward into one PNG.

    Panels: calibration, learned against true return per segment, both returns over training, agreement by tercile, and
    correlations. What cannot be told is said in words.

    Args:
        card: the report card.
        metrics: rows of the run, in order; the third panel is empty without them.
        path: the PNG to write.

    Raises:
        MissingExtraError: matplotlib is not installed.
        UserError: the file cannot be written.
    """
    figure = _figure(12.5, 7.2)
    _draw_calibration(figure.add_axes((0.055, 0.535, 0.25, 0.315)), card)
    _draw_segments(figure.add_axes((0.37, 0.535, 0.235, 0.315)), card)
    _draw_correlations(figure.add_axes((0.76, 0.535, 0.225, 0.315)), card)
    _draw_training(figure.add_axes((0.055, 0.085, 0.55, 0.315)), metrics)
    _draw_terciles(figure.add_axes((0.76, 0.085, 0.225, 0.315)), card)
    figure.text(0.015, 0.955, "Report card of the learned reward", fontsize=15, weight="bold", va="center")
    figure.text(0.015, 0.912, _summary(card), fontsize=10.5, color="#333333", va="center")
    _save(figure, Path(path))


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
    figure = _figure(8.0, 4.5)
    axes = figure.add_axes((0.1, 0.13, 0.79, 0.75))
    asked: Axes | None = None
    most = 0.0
    for index, (name, rows) in enumerate(curves.items()):
        colour = CURVE_COLOURS[index % len(CURVE_COLOURS)]
        steps, returns = _series(rows, "true_return")
        style = LINE_STYLES[index % len(LINE_STYLES)]
        marker = "o" if len(steps) == 1 else None
        axes.plot(steps, returns, color=colour, linestyle=style, marker=marker, linewidth=2.2, label=name, zorder=3)
        label_steps, labels = _series(rows, "labels")
        if len(labels) and labels.max() > 0:
            if asked is None:
                asked = _second_axis(axes, "labels asked", GREY)
            asked.fill_between(label_steps, labels, step="post", color=colour, alpha=0.13, linewidth=0)
            most = max(most, float(labels.max()))
    _style(axes, title, "environment steps", "true return per episode")
    _format_steps(axes)
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
        _say(axes, "no returns were recorded")
    _save(figure, Path(path))


def _figure(width_inches: float, height_inches: float) -> Figure:
    figures = require("matplotlib.figure", "train")
    agg = require("matplotlib.backends.backend_agg", "train")
    figure: Figure = figures.Figure(figsize=(width_inches, height_inches), dpi=DOTS_PER_INCH, facecolor="white")
    agg.FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    write_atomically(path, picture.getvalue())


def _series(rows: Sequence[Row], key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return environment steps and values `(n,)` of the rows that have both as finite numbers."""
    pairs = [(_number(row.get("num_env_steps")), _number(row.get(key))) for row in rows]
    kept = np.array([pair for pair in pairs if not math.isnan(pair[0]) and not math.isnan(pair[1])]).reshape(-1, 2)
    return kept[:, 0], kept[:, 1]


def _number(value: Any) -> float:
    number = math.nan if value is None else float(value)
    return number if math.isfinite(number) else math.nan


def _summary(card: ReportCard) -> str:
    parts = [f"{card.num_segments} held-out segments of {card.segment_length} steps"]
    if card.epic_distance is not None:
        r2 = "" if card.true_reward_r2 is None else f" (stand-in for the true reward: R² {card.true_reward_r2:.2f})"
        parts.append(f"EPIC distance {card.epic_distance:.2f}{r2}")
    else:
        parts.append("no EPIC distance: " + card.missing.get("epic_distance", "not known"))
    if card.direct_distance is not None:
        parts.append(f"Pearson distance {card.direct_distance:.2f}")
    return "   ·   ".join(parts)


def _draw_calibration(axes: Axes, card: ReportCard) -> None:
    _style(axes, "Calibration", "predicted preference for the first", "share in which the first was better")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", zorder=1)
    curve = card.calibration
    if curve is None:
        _say(axes, card.missing.get("calibration", "not known"))
        return
    counts = np.array(curve.counts)
    centres = np.array(curve.bin_edges[:-1]) + 0.5 / len(counts)
    axes.bar(centres, 0.25 * counts / counts.max(), width=0.9 / len(counts), color=SKY, alpha=0.35, zorder=0)
    full = counts > 0
    x, y = (np.array(values, np.float64)[full] for values in (curve.predicted, curve.observed))
    axes.plot(x, y, color=BLUE, marker="o", markersize=5, linewidth=2, zorder=3, clip_on=False)
    loss = "" if card.log_loss is None else f"\nlog-loss {card.log_loss:.2f} nats"
    text = f"calibration error {curve.expected_error:.3f}{loss}\nbars: share of {counts.sum()} pairs"
    _note(axes, text, right=bool(y[0] > y[-1]))


def _draw_segments(axes: Axes, card: ReportCard) -> None:
    _style(axes, "Return of each segment", "true return", "learned return (normalised)")
    axes.scatter(card.true_returns, card.learned_returns, s=14, color=BLUE, alpha=0.55, linewidths=0)
    if card.pearson_per_segment is None:
        _note(axes, card.missing.get("pearson_per_segment", "not known"))
    else:
        text = f"Pearson {card.pearson_per_segment:.2f}\nSpearman {card.spearman_per_segment:.2f}"
        _note(axes, text, right=card.pearson_per_segment < 0)


def _draw_correlations(axes: Axes, card: ReportCard) -> None:
    bars = (
        ("accuracy on pairs", card.accuracy, GREEN),
        ("Pearson, per step", card.pearson_per_step, BLUE),
        ("Spearman, per step", card.spearman_per_step, BLUE),
        ("Pearson, per segment", card.pearson_per_segment, ORANGE),
        ("Spearman, per segment", card.spearman_per_segment, ORANGE),
    )
    lowest = min([value for _, value, _ in bars if value is not None and value < 0], default=0.0)
    _style(axes, "Agreement with the truth", "1 is full agreement", "")
    axes.set(xlim=(0 if lowest == 0 else -1.2, 1.2), ylim=(len(bars) - 0.4, -0.6))
    axes.set_yticks(range(len(bars)), [name for name, _, _ in bars], fontsize=9)
    axes.axvline(0, color="#333333", linewidth=0.8)
    axes.grid(axis="y", visible=False)
    for row, (_, value, colour) in enumerate(bars):
        if value is None:
            axes.text(0.02, row, "cannot be told", va="center", fontsize=9, color=GREY)
            continue
        axes.barh(row, value, height=0.62, color=colour)
        axes.text(max(value, 0) + 0.03, row, f"{value:.2f}", va="center", fontsize=9)


def _draw_terciles(axes: Axes, card: ReportCard) -> None:
    _style(axes, "Accuracy within each third", "segments, by learned return", "accuracy on pairs (a coin: 0.5)")
    axes.set(ylim=(0, 1.1))
    axes.axhline(0.5, color=GREY, linewidth=1, linestyle="--", zorder=3)
    if not card.terciles:
        _say(axes, card.missing.get("terciles", "not known"))
        return
    axes.set_xticks(range(3), ["lowest", "middle", "highest"])
    axes.grid(axis="x", visible=False)
    for place, third in enumerate(card.terciles):
        if third.accuracy is None:
            axes.text(place, 0.03, "only ties", ha="center", fontsize=9, color=GREY)
            continue
        axes.bar(place, third.accuracy, width=0.62, color=GREEN)
        axes.text(place, third.accuracy + 0.02, f"{third.accuracy:.2f}", ha="center", fontsize=9)


def _draw_training(axes: Axes, metrics: Sequence[Row]) -> None:
    _style(axes, "Returns over training", "environment steps", "true return per episode")
    steps, true = _series(metrics, "true_return")
    learned_steps, learned = _series(metrics, "learned_return")
    if len(steps) == 0 and len(learned_steps) == 0:
        _say(axes, "no metrics of a training run")
        return
    marker = "o" if max(len(steps), len(learned_steps)) == 1 else None
    axes.plot(steps, true, color=ORANGE, linewidth=2, marker=marker, label="true return (left)")
    axes.tick_params(axis="y", colors=ORANGE)
    axes.yaxis.label.set_color(ORANGE)
    other = _second_axis(axes, "learned return per episode", BLUE)
    other.plot(
        learned_steps, learned, color=BLUE, linewidth=2, linestyle="--", marker=marker, label="learned return (right)"
    )
    lines = [*axes.lines, *other.lines]
    other.legend(lines, [str(line.get_label()) for line in lines], loc="lower right", frameon=False, fontsize=9)
    _format_steps(axes)


def _second_axis(axes: Axes, label: str, colour: str) -> Axes:
    other: Axes = axes.twinx()
    other.set_ylabel(label, color=colour, fontsize=10)
    other.tick_params(axis="y", colors=colour, labelsize=9, length=0)
    for spine in other.spines.values():
        spine.set_visible(False)
    return other


def _style(axes: Axes, title: str, x_label: str, y_label: str) -> None:
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


def _format_steps(axes: Axes) -> None:
    ticker = require("matplotlib.ticker", "train")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(9, steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    axes.set_xlim(0, max(axes.get_xlim()[1], 1.0))


def _say(axes: Axes, text: str) -> None:
    text = textwrap.fill(text, 38)
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=10, color=GREY, bbox=PAPER)


def _note(axes: Axes, text: str, *, right: bool = False) -> None:
    text = "\n".join(textwrap.fill(line, 38) for line in text.splitlines())
    place, side = (0.97, "right") if right else (0.03, "left")
    axes.text(place, 0.97, text, transform=axes.transAxes, va="top", ha=side, fontsize=9, bbox=PAPER, zorder=4)

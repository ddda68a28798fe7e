"""Drawing the curve of alignment as one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prefrl.runs.plotting import make_figure, save_figure
from prefrl.text.jobs.curve import MethodCurve, fit_curve, median_curve, probes_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#767676", "#E69F00", "#000000", "#8C510A", "#5E3C99")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")


PANELS = (
    ("length", "tokens", "Length of responses"),
    ("repetition", "share of repeated 3-grams", "Repetition"),
    ("end_rate", "share", "Responses that came to their end"),
    ("language_loss", "nats per token", "Language-model loss on pretraining text"),
)


def plot_curves(curves: Sequence[MethodCurve], path: Path) -> None:
    """Draw gold (solid) and proxy (dashed) against sqrt(KL), gold against proxy, and what else went with it.

    Args:
        curves: of one or several seeds; of several, the median evaluation by evaluation, and gold of each faintly.
        path: the PNG to write.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    probes = probes_of([row for curve in curves for row in curve.rows])[:1]  # there is room for one
    panels = [*PANELS, *((name, "accuracy", f"{name.capitalize()} that was pretrained") for name in probes)]
    figure = make_figure(15, 13.5)
    figure.set_layout_engine("constrained")
    axes = figure.subplot_mosaic(
        [
            ["curve", "curve", "curve"],
            ["against", "length", "repetition"],
            ["end_rate", *(probes or ["."]), "language_loss"],
        ],
        height_ratios=[1.5, 1, 1],
    )
    names = list(dict.fromkeys(curve.name for curve in curves))
    style = {
        name: (COLOURS[i % len(COLOURS)], MARKS[(i + i // len(COLOURS)) % len(MARKS)]) for i, name in enumerate(names)
    }
    for name, (colour, mark) in style.items():
        own = [curve for curve in curves if curve.name == name]
        middle = median_curve(own)
        for curve in own if len(own) > 1 else []:
            gold = [row["gold"] for row in curve.rows]
            axes["curve"].plot(curve.distances(), gold, color=colour, linewidth=0.7, alpha=0.3)
        _draw_curve(axes["curve"], middle, colour, mark)
        small: dict[str, Any] = {"color": colour, "marker": mark, "markersize": 3, "linewidth": 1}
        rows = [row for row in middle.rows if "proxy" in row]
        axes["against"].plot([row["proxy"] for row in rows], [row["gold"] for row in rows], **small)
        for key, _, _ in panels:
            shown = [(d, row[key]) for d, row in zip(middle.distances(), middle.rows, strict=True) if key in row]
            axes[key].plot([d for d, _ in shown], [value for _, value in shown], **small)
    _label(axes["curve"], "sqrt(KL) from the fine-tuned model, nats", "reward", "Gold (solid) and proxy (dashed)")
    _label(axes["against"], "proxy reward", "gold reward", "Gold against proxy")
    for key, unit, title in panels:
        _label(axes[key], "sqrt(KL)", unit, title)
    handles = [
        axes["curve"].plot([], [], color=colour, marker=mark, label=name)[0] for name, (colour, mark) in style.items()
    ]
    axes["curve"].legend(handles=handles, fontsize=9, ncols=2, framealpha=0.85, loc="lower left")
    save_figure(figure, path)


def _draw_curve(axes: Axes, curve: MethodCurve, colour: str, mark: str) -> None:
    d = curve.distances()
    start = curve.rows[0]["gold"]
    axes.plot(d, [row["gold"] for row in curve.rows], color=colour, marker=mark, markersize=5, linewidth=1.8)
    if all("proxy" in row for row in curve.rows):
        offset = start - curve.rows[0]["proxy"]  # both begin at one point
        axes.plot(d, [row["proxy"] + offset for row in curve.rows], color=colour, linestyle="--", linewidth=0.9)
    fit = fit_curve(d, [row["gold"] - start for row in curve.rows], best_of_n=curve.is_best_of_n)
    if fit is not None:
        grid = np.linspace(1e-3, max(d), 60)
        axes.plot(grid, [start + fit.gold(float(x)) for x in grid], color=colour, linewidth=0.9, linestyle=":")
        if fit.peak is not None and fit.peak <= max(d):
            axes.plot([fit.peak], [start + fit.gold(fit.peak)], marker="|", color=colour, markersize=14)


def _label(axes: Axes, x: str, y: str, title: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(alpha=0.25, linewidth=0.5)

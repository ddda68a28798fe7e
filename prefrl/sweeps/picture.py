"""A picture of a sweep: interquartile means with intervals, and how often each variant is above the first."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prefrl.aggregate import Interval
from prefrl.runs.plotting import BLUE, GREY, ORANGE, make_figure, save_figure, set_style
from prefrl.sweeps.results import Results

MOST_TASKS = 12


def plot_results(results: Results, path: Path) -> None:
    """Draw results.

    Raises:
        UserError: the picture cannot be written.
    """
    tasks = list(dict.fromkeys(line.task for line in results.lines))[:MOST_TASKS]
    variants = list(dict.fromkeys(line.variant for line in results.lines))
    panels = len(tasks) + bool(results.comparisons)
    columns = min(4, panels)
    rows = -(-panels // columns)
    figure = make_figure(2.6 + 3.6 * columns, rows * (1.5 + 0.34 * max(3, len(variants))))
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    places = {variant: number for number, variant in enumerate(variants)}
    for task, panel in zip(tasks, axes.flat, strict=False):
        for line in results.lines:
            if line.task != task or line.value is None:
                continue
            panel.plot([line.least, line.most], [places[line.variant]] * 2, color="#D8D8D8", linewidth=6, zorder=1)
            _draw(panel, line.value, places[line.variant], BLUE)
        set_style(panel, _short(task, 32), results.measure.replace("_", " "), "")
    if results.comparisons:
        panel = axes.flat[len(tasks)]
        for one in results.comparisons:
            _draw(panel, one.above, places[one.variant], ORANGE)
        panel.axvline(0.5, color=GREY, linewidth=1, linestyle=":")
        panel.set_xlim(-0.02, 1.02)
        set_style(panel, f"Above {_short(results.one_of_first, 32)}", "probability", "")
    for panel in list(axes.flat)[panels:]:
        panel.set_visible(False)
    for panel in axes[:, 0]:
        panel.set_yticks(np.arange(len(variants)), [_short(variant, 30) for variant in variants])
        panel.set_ylim(len(variants) - 0.5, -0.5)
    figure.text(
        0.99,
        0.01,
        "interquartile mean, 95 % bootstrap interval over seeds; grey: least to most",
        ha="right",
        fontsize=8,
        color=GREY,
    )
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    save_figure(figure, path)


def _draw(panel: object, value: Interval, place: int, colour: str) -> None:
    low = value.value if value.low is None else value.low
    high = value.value if value.high is None else value.high
    panel.plot([low, high], [place, place], color=colour, linewidth=2.5, zorder=2)  # type: ignore[attr-defined]
    panel.plot([value.value], [place], "o", color=colour, markersize=6, zorder=3)  # type: ignore[attr-defined]


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"

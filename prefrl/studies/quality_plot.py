"""The picture of `prefrl quality`: consistency, agreement and position bias with their intervals, and times."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prefrl.quality import Quality
from prefrl.runs.plotting import BLUE, GREEN, GREY, ORANGE, PURPLE, make_figure, save_figure
from prefrl.shares import Share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

MOST_SHOWN = 12  # annotators


def plot_quality(quality: Quality, reliability: dict[str, float] | None, path: Path) -> None:
    """Draw the quality of answers into one PNG, an annotator a row; what cannot be told is said in words.

    Raises:
        MissingExtraError: matplotlib is not installed.
        UserError: the file cannot be written.
    """
    figure = make_figure(12.5, quality_height(quality))
    draw_quality(figure, quality, reliability)
    save_figure(figure, path)


def quality_height(quality: Quality) -> float:
    """Return the height in inches that `draw_quality` needs."""
    return 2.4 + 0.32 * max(3, min(MOST_SHOWN, len(quality.annotators)))


def draw_quality(figure: Figure | SubFigure, quality: Quality, reliability: dict[str, float] | None) -> None:
    """Draw the quality of answers into a figure of its own, or into a part of one."""
    height = quality_height(quality)
    shown = sorted(quality.annotators, key=lambda one: -one.num_answers)[:MOST_SHOWN]
    names = [f"{one.name if len(one.name) <= 16 else one.name[:15] + '…'} ({one.num_answers})" for one in shown]
    axes = figure.subplots(1, 4, sharey=True)
    figure.subplots_adjust(left=0.15, right=0.985, top=1 - 0.95 / height, bottom=0.75 / height, wspace=0.12)
    _shares(axes[0], [one.consistency for one in shown], "same answer when asked again", BLUE, None)
    _shares(axes[1], [one.agreement for one in shown], "same answer as others", GREEN, None)
    _shares(axes[2], [one.chose_left for one in shown], "chose the left", PURPLE, 0.5)
    _times(axes[3], [quality.seconds[one.name] for one in shown])
    if reliability is not None:
        rows = [row for row, one in enumerate(shown) if one.name in reliability]
        values = [reliability[shown[row].name] for row in rows]
        axes[0].plot(values, rows, "D", color=ORANGE, markersize=5, label="reliability in the fit")
        figure.legend(loc="upper right", fontsize=9, frameon=False)
    axes[0].set_yticks(range(len(shown)), names)
    axes[0].set_ylim(len(shown) - 0.4, -0.6)
    alpha = "needs two annotators" if quality.alpha_comparisons is None else f"{quality.alpha_comparisons:.2f}"
    title = f"Answers by annotator; agreement on comparisons (Krippendorff's alpha): {alpha}"
    figure.text(0.015, 1 - 0.32 / height, title, fontsize=13, weight="bold", va="center")


def _shares(axes: Axes, shares: Sequence[Share | None], title: str, colour: str, fair: float | None) -> None:
    axes.set_title(title, fontsize=10.5)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.8)
    if fair is not None:
        axes.axvline(fair, color=GREY, linestyle="--", linewidth=1)
    for row, share in enumerate(shares):
        if share is None:
            axes.text(0.5, row, "not known yet", ha="center", va="center", fontsize=8.5, color=GREY)
            continue
        axes.plot([share.low, share.high], [row, row], color=colour, linewidth=2)
        axes.plot(share.share, row, "o", color=colour, markersize=6)
    axes.set_xlabel("share, with its 95 % interval", fontsize=9)


def _times(axes: Axes, seconds: Sequence[Sequence[float]]) -> None:
    axes.set_title("seconds per answer", fontsize=10.5)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.8)
    timed = [[value for value in values if value > 0] for values in seconds]
    if any(timed):
        axes.set_xscale("log")
        everything = np.concatenate([values for values in timed if values])
        axes.set_xlim(float(everything.min()) / 1.5, float(everything.max()) * 1.5)
    else:
        axes.set_xticks([])
    for row, values in enumerate(timed):
        if values:
            low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
            axes.plot(values, np.full(len(values), row), "|", color=ORANGE, alpha=0.35, markersize=9)
            axes.plot([low, high], [row, row], color=GREY, linewidth=3, alpha=0.6)
            axes.plot(middle, row, "o", color="black", markersize=5)
        else:
            axes.text(0.5, row, "not timed", ha="center", va="center", fontsize=8.5, color=GREY,
                      transform=axes.get_yaxis_transform())  # fmt: skip
    axes.set_xlabel("each answer; quartiles and median", fontsize=9)

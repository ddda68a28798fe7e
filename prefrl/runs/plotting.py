"""What all pictures of runs share.

Colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart. Figures are drawn without pyplot,
so that no window system or global state is touched.
"""

from __future__ import annotations

import io
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

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

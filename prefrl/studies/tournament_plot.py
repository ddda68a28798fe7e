"""The picture of a tournament: ratings with intervals, Elo beside them, and who beat whom."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prefrl.runs.plotting import BLUE, GREY, ORANGE, make_figure, save_figure, set_style
from prefrl.studies.tournament import Standing, on_scale

MOST_CELLS = 12  # players whose cells have room for numbers


def plot_standing(standing: Standing, path: Path) -> None:
    """Draw how a tournament stands into one PNG.

    Raises:
        UserError: it cannot be written.
    """
    assert standing.ratings is not None, "there is nothing to draw before the first answer"
    order = standing.order()
    figure = make_figure(12.0, 2.2 + 0.42 * max(4, len(order)))
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [3, 2]})
    figure.subplots_adjust(left=0.2, right=0.98, bottom=0.16, top=0.9, wspace=0.12)
    rows = np.arange(len(order))
    values, low, high = (
        np.array([on_scale(float(one[player])) for player in order])
        for one in (standing.ratings.ratings, standing.ratings.low, standing.ratings.high)
    )
    ends = np.abs(np.stack([values - low, high - values]))
    left.errorbar(values, rows, xerr=ends, fmt="o", color=BLUE, capsize=3, label="Bradley-Terry, 95 % interval")
    left.plot(standing.elo()[order], rows, "D", color=ORANGE, markersize=5, label="Elo: the last games weigh most")
    left.set_yticks(rows, [_short(standing.names[player]) for player in order])
    left.set_ylim(len(order) - 0.5, -0.5)
    set_style(left, f"Ratings after {len(standing.games)} answers", "400 points: odds of ten to one", "")
    left.legend(fontsize=8, frameon=False, loc="best")
    wins = standing.wins()[np.ix_(order, order)]
    played = wins + wins.T
    shares = np.divide(wins, played, out=np.full_like(wins, np.nan), where=played > 0)
    right.imshow(shares, cmap="RdBu", vmin=0, vmax=1, aspect="auto")
    if len(order) <= MOST_CELLS:
        for row, column in np.argwhere(played > 0):
            text = f"{shares[row, column]:.0%}\n{played[row, column]:g}"
            dark = abs(shares[row, column] - 0.5) > 0.3
            right.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    right.set_xticks(rows, [str(place + 1) for place in rows])
    right.set_yticks(rows, [str(place + 1) for place in rows])
    right.set_facecolor("#EEEEEE")
    right.set_title("Games won by the row, and how many", loc="left", fontsize=11.5, weight="bold")
    right.set_xlabel("against, by place", fontsize=10, color=GREY)
    save_figure(figure, path)


def _short(name: str) -> str:
    return name if len(name) <= 26 else "…" + name[-25:]

"""The true return of an offline run's policy over its updates, its controls and the data beside it."""

from __future__ import annotations

from pathlib import Path

from prefrl.offline.folder import OfflineFolder
from prefrl.runs.plotting import (
    CURVE_COLOURS,
    GREY,
    LINE_STYLES,
    format_steps,
    make_figure,
    save_figure,
    say,
    set_style,
)


def plot_returns(folder: OfflineFolder, path: Path) -> None:
    """Draw a finished run.

    Args:
        folder: the run.
        path: the PNG to write.

    Raises:
        MissingExtraError: matplotlib is not installed.
        UserError: the file cannot be written.
    """
    summary = folder.read_summary()
    figure = make_figure(8.0, 4.5)
    axes = figure.add_axes((0.1, 0.13, 0.86, 0.75))
    runs = {summary["title"]: folder} | {one["title"]: folder.controls[n] for n, one in summary["controls"].items()}
    for index, (title, run) in enumerate(runs.items()):
        known = [row for row in run.read_metrics() if row.get("true_return") is not None]
        style = LINE_STYLES[index % len(LINE_STYLES)]
        axes.plot(
            [row[run.COUNTER] for row in known],
            [row["true_return"] for row in known],
            color=CURVE_COLOURS[index % len(CURVE_COLOURS)],
            linestyle=style,
            linewidth=2.6 if index == 0 else 1.6,
            label=title,
        )
    mean = (summary["data"] or {}).get("true_return_mean")
    if mean is not None and folder.has_environment:
        axes.axhline(mean, color=GREY, linewidth=1, linestyle=":", label="mean of the data")
    set_style(axes, f"{summary['env_id']}, seed {summary['seed']}", "updates", "true return per episode")
    format_steps(axes)
    if any(len(line.get_xdata()) for line in axes.lines):  # type: ignore[arg-type]
        axes.legend(loc="best", framealpha=0.9, edgecolor="none", fontsize=9)
    else:
        say(axes, "There is no environment in which a return could be measured.")
    save_figure(figure, path)

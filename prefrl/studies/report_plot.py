"""The picture of `prefrl report`: how good a learned reward is, and the answers it was learned from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prefrl.control.curves import Row, series
from prefrl.quality import Quality
from prefrl.rewards.report import ReportCard
from prefrl.runs.plotting import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SKY,
    format_steps,
    make_figure,
    note,
    save_figure,
    say,
    second_axis,
    set_style,
)
from prefrl.shares import Share
from prefrl.studies.quality_plot import draw_quality, quality_height

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

CARD_INCHES = 7.2
TRUE = "the true reward"


def plot_report(
    card: ReportCard,
    metrics: Sequence[Row],
    path: str | Path,
    *,
    answers: Quality | None = None,
    reliability: dict[str, float] | None = None,
    against: str | None = TRUE,
    agreement: Share | None = None,
) -> None:
    """Draw the report card of a learned reward into one PNG.

    Panels: calibration, learned against true return per segment, both returns over training, agreement by tercile, and
    correlations; below, the answers by annotator. What cannot be told is said in words.

    Args:
        card: the report card.
        metrics: rows of the run, in order; the third panel is empty without them.
        path: the PNG to write.
        answers: quality of the answers that the reward was learned from; None leaves that section out.
        reliability: of each annotator as estimated by the fit, if it was.
        against: what the card holds the learned reward against, in words; None: nothing of the card is shown.
        agreement: of the learned reward with answers held out, which is told first; None: not known.

    Raises:
        MissingExtraError: matplotlib is not installed.
        UserError: the file cannot be written.
    """
    below = 0.0 if answers is None else quality_height(answers)
    figure = make_figure(12.5, CARD_INCHES + below)
    above: Figure | SubFigure = figure
    if answers is not None:
        above, part = np.asarray(figure.subfigures(2, 1, height_ratios=[CARD_INCHES, below]))
        draw_quality(part, answers, reliability)
    if against is None:
        _draw_training(above.add_axes((0.065, 0.085, 0.86, 0.765)), metrics, None)
    else:
        _draw_calibration(above.add_axes((0.065, 0.535, 0.24, 0.315)), card)
        _draw_segments(above.add_axes((0.37, 0.535, 0.235, 0.315)), card, against)
        _draw_correlations(above.add_axes((0.76, 0.535, 0.225, 0.315)), card, against)
        _draw_training(above.add_axes((0.065, 0.085, 0.54, 0.315)), metrics, against)
        _draw_terciles(above.add_axes((0.76, 0.085, 0.225, 0.315)), card)
    above.text(0.015, 0.955, "Report card of the learned reward", fontsize=15, weight="bold", va="center")
    told = f"agrees with answers held out of its fit: {agreement}" if agreement is not None else ""
    summary = "   ·   ".join(part for part in (told, _summary(card) if against is not None else "") if part)
    above.text(0.015, 0.912, summary, fontsize=10.5, color="#333333", va="center")
    save_figure(figure, Path(path))


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
    set_style(axes, "Calibration", "predicted preference for the first", "share in which the first was better")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", zorder=1)
    curve = card.calibration
    if curve is None:
        say(axes, card.missing.get("calibration", "not known"))
        return
    counts = np.array(curve.counts)
    centres = np.array(curve.bin_edges[:-1]) + 0.5 / len(counts)
    axes.bar(centres, 0.25 * counts / counts.max(), width=0.9 / len(counts), color=SKY, alpha=0.35, zorder=0)
    full = counts > 0
    x, y = (np.array(values, np.float64)[full] for values in (curve.predicted, curve.observed))
    axes.plot(x, y, color=BLUE, marker="o", markersize=5, linewidth=2, zorder=3, clip_on=False)
    loss = "" if card.log_loss is None else f"\nlog-loss {card.log_loss:.2f} nats"
    text = f"calibration error {curve.expected_error:.3f}{loss}\nbars: share of {counts.sum()} pairs"
    note(axes, text, right=bool(y[0] > y[-1]))


def _draw_segments(axes: Axes, card: ReportCard, against: str) -> None:
    true = "true return" if against == TRUE else f"by {against}"
    set_style(axes, "Return of each segment", true, "learned return (normalised)")
    axes.scatter(card.true_returns, card.learned_returns, s=14, color=BLUE, alpha=0.55, linewidths=0)
    if card.pearson_per_segment is None:
        note(axes, card.missing.get("pearson_per_segment", "not known"))
    else:
        text = f"Pearson {card.pearson_per_segment:.2f}\nSpearman {card.spearman_per_segment:.2f}"
        note(axes, text, right=card.pearson_per_segment < 0)


def _draw_correlations(axes: Axes, card: ReportCard, against: str) -> None:
    bars = (
        ("accuracy on pairs", card.accuracy, GREEN),
        ("Pearson, per step", card.pearson_per_step, BLUE),
        ("Spearman, per step", card.spearman_per_step, BLUE),
        ("Pearson, per segment", card.pearson_per_segment, ORANGE),
        ("Spearman, per segment", card.spearman_per_segment, ORANGE),
    )
    lowest = min([value for _, value, _ in bars if value is not None and value < 0], default=0.0)
    set_style(axes, f"Agreement with {against}", "1 is full agreement", "")
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
    set_style(axes, "Accuracy within each third", "segments, by learned return", "accuracy on pairs (a coin: 0.5)")
    axes.set(xlim=(-0.5, 2.5), ylim=(0, 1.1))
    axes.axhline(0.5, color=GREY, linewidth=1, linestyle="--", zorder=3)
    if not card.terciles:
        say(axes, card.missing.get("terciles", "not known"))
        return
    axes.set_xticks(range(3), ["lowest", "middle", "highest"])
    axes.grid(axis="x", visible=False)
    for place, third in enumerate(card.terciles):
        if third.accuracy is None:
            axes.text(place, 0.03, "only ties", ha="center", fontsize=9, color=GREY)
            continue
        axes.bar(place, third.accuracy, width=0.62, color=GREEN)
        axes.text(place, third.accuracy + 0.02, f"{third.accuracy:.2f}", ha="center", fontsize=9)


def _draw_training(axes: Axes, metrics: Sequence[Row], against: str | None) -> None:
    name = "true return" if against == TRUE else "environment's own reward"
    set_style(axes, "Returns over training", "environment steps", f"{name} per episode")
    steps, true = series(metrics, "true_return")
    learned_steps, learned = series(metrics, "learned_return")
    if against is None:
        axes.plot(learned_steps, learned, color=BLUE, linewidth=2)
        set_style(axes, "Learned return over training", "environment steps", "learned return per episode")
        format_steps(axes)
        return
    if len(steps) == 0 and len(learned_steps) == 0:
        say(axes, "no metrics of a training run")
        return
    marker = "o" if max(len(steps), len(learned_steps)) == 1 else None
    axes.plot(steps, true, color=ORANGE, linewidth=2, marker=marker)
    axes.tick_params(axis="y", colors=ORANGE)
    axes.yaxis.label.set_color(ORANGE)
    other = second_axis(axes, "learned return per episode (dashed)", BLUE)
    other.plot(learned_steps, learned, color=BLUE, linewidth=2, linestyle="--", marker=marker)
    format_steps(axes)

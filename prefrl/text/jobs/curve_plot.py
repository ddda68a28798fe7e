"""Drawing the curve of alignment as one PNG, and its conclusions in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from prefrl.runs.plotting import make_figure, save_figure
from prefrl.text.jobs.curve import MethodCurve, fit_curve, median_curve, over_optimisation, probes_of, summarise_chain

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
    style = {name: (COLOURS[i % len(COLOURS)], MARKS[i % len(MARKS)]) for i, name in enumerate(names)}
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


def describe(curves: Sequence[MethodCurve]) -> str:
    """Return one page of plain words: what the curves say, as Markdown."""
    rows = summarise_chain(curves)
    names = list(dict.fromkeys(row["method"] for row in rows))
    seeds = sorted({curve.seed for curve in curves})
    lines = [
        "# What the curve says",
        "",
        f"Seeds: {', '.join(map(str, seeds))}. Figures are medians over them. Gold is the true reward, unseen; "
        "sqrt(KL) is how far a policy is from the fine-tuned model.",
        "",
        "| method | gold at start | best gold | at sqrt(KL) | wins over start | last gold | at sqrt(KL) | peak |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        own = [row for row in rows if row["method"] == name]
        lines.append(
            f"| {name} | {_median(own, 'start_gold')} | {_median(own, 'best_gold')} | {_median(own, 'best_sqrt_kl')} | "
            f"{_wins(own)} | {_median(own, 'last_gold')} | {_median(own, 'last_sqrt_kl')} | {_peak(own)} |"
        )
    lines += ["", *_conclusions(curves, rows)]
    return "\n".join(lines) + "\n"


def _median(rows: Sequence[dict[str, Any]], key: str) -> str:
    values = [row[key] for row in rows if row.get(key) is not None]
    return f"{median(values):.2f}" if values else ""


def _wins(rows: Sequence[dict[str, Any]]) -> str:
    each = [row["best_win_rate"] for row in rows if "best_win_rate" in row]
    if not each:
        return ""
    share, low, high = (median(values) for values in zip(*each, strict=True))
    return f"{share:.0%} ({low:.0%} to {high:.0%})"


def _peak(rows: Sequence[dict[str, Any]]) -> str:
    peaks = [row["fit"]["peak_sqrt_kl"] for row in rows if "fit" in row]
    found = [peak for row, peak in zip([r for r in rows if "fit" in r], peaks, strict=True)
             if peak is not None and peak <= row["last_sqrt_kl"]]  # fmt: skip
    return f"{median(found):.2f}" if found else "not reached"


def _conclusions(curves: Sequence[MethodCurve], rows: Sequence[dict[str, Any]]) -> list[str]:
    said = []
    risen = sorted({row["method"] for row in rows if row["best_gold"] <= row["start_gold"]})
    if risen:
        said.append(f"- Never better than the start, on some seed: {', '.join(risen)}.")
    else:
        said.append("- Every method was better than the fine-tuned model at its best point.")
    fallen = {curve.name: over_optimisation(curve) for curve in curves}
    fallen = {name: lost for name, lost in fallen.items() if lost > 0.1}
    if fallen:
        each = ", ".join(f"{name} lost {lost:.2f}" for name, lost in sorted(fallen.items(), key=lambda item: -item[1]))
        said.append(
            f"- Over-optimisation: {each} of gold after the best point while the proxy did not fall. Trusting the "
            "proxy further than it was taught makes answers worse: stop where gold (or people) say so."
        )
    else:
        said.append("- No method fell by more than 0.1 gold after its best point: none was driven far enough.")
    said += _kept(rows, probes_of([curve.rows[-1] for curve in curves]))
    long = [row for row in rows if row.get("last_length") and row["last_length"] > 1.3 * row["start_length"]]
    if long:
        names = sorted({row["method"] for row in long})
        said.append(f"- Longer answers looked better to the reward model: {', '.join(names)} write a third more.")
    said.append(
        "- Best of n goes least far for what it gains and needs no training, but n draws an answer. A larger beta "
        "keeps a policy nearer: less to gain, less to lose. DPO, IPO and KTO have the same hump without a reward model."
    )
    return said


def _kept(rows: Sequence[dict[str, Any]], probes: Sequence[str]) -> list[str]:
    mixed = [row for row in rows if row["method"] == "ppo-ptx" and "last_language_loss" in row]
    plain = [row for row in rows if row["method"].startswith("ppo-beta") and "last_language_loss" in row]
    if not mixed or not plain:
        return []
    said = []
    for name in probes:
        worst = min(plain, key=lambda row: row[f"last_{name}"])
        said.append(
            f"- {name.capitalize()}, which has nothing to do with the task: {worst[f'start_{name}']:.0%} right before, "
            f"{worst[f'last_{name}']:.0%} after {worst['method']}, {median(r[f'last_{name}'] for r in mixed):.0%} "
            "after PPO-ptx, whose updates mix in pretraining text (loss of the language model "
            f"{worst['last_language_loss']:.2f} and {median(r['last_language_loss'] for r in mixed):.2f})."
        )
    return said

"""The curve of alignment in plain words: a page of which each sentence is computed from the curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from prefrl.text.jobs.curve import MethodCurve, over_optimisation, probes_of, summarise_chain

FALLEN = 0.1
"""Gold that a method must lose after its best point to be named for it."""
LONGER = 1.3
"""Times as long that responses must become."""
PPO = "ppo-beta"
FALLS = {
    "held": "Over-optimisation, after the best point and while the proxy did not fall",
    "fell": "After the best point, and the proxy fell too",
    "unknown": "After the best point",
}
"""What is said of methods that lost gold, by what the proxy did meanwhile."""


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
    """Return sentences, each computed from the figures that it names."""
    by_name = {
        name: [row for row in rows if row["method"] == name] for name in dict.fromkeys(r["method"] for r in rows)
    }
    said = []
    never = sorted({row["method"] for row in rows if row["best_gold"] <= row["start_gold"]})
    unsure = sorted({r["method"] for r in rows if "best_win_rate" in r and r["best_win_rate"][1] <= 0.5} - set(never))
    if never:
        said.append(f"- Never better than the start, on some seed: {', '.join(never)}.")
    else:
        said.append("- Every method was better than the fine-tuned model at its best point.")
    if unsure:
        said.append(
            f"- On some seed its wins over the start may be chance (interval down to one half): {', '.join(unsure)}."
        )
    said += [*_most(by_name), *_falls(curves), *_nearer(by_name), *_kept(rows, probes_of([c.rows[-1] for c in curves]))]
    for name, own in by_name.items():
        lengths = [(r["start_length"], r["last_length"]) for r in own if r.get("last_length") and r.get("start_length")]
        if lengths and (grown := median(last / first for first, last in lengths)) > LONGER:
            first, last = (median(values) for values in zip(*lengths, strict=True))
            said.append(
                f"- {name} ends with responses {grown - 1:.0%} longer: {last:.0f} tokens, {first:.0f} at the start."
            )
    return said


def _middle(rows: Sequence[dict[str, Any]], key: str) -> float:
    return median(float(row[key]) for row in rows)


def _most(by_name: Mapping[str, Sequence[dict[str, Any]]]) -> list[str]:
    """Say which method gained most, and which went least far for its best."""
    if len(by_name) < 2:
        return []
    gains = {name: _middle(own, "best_gold") - _middle(own, "start_gold") for name, own in by_name.items()}
    distances = {name: _middle(own, "best_sqrt_kl") for name, own in by_name.items()}
    most = max(gains, key=lambda name: gains[name])
    said = f"- The most gold: {most}, {gains[most]:+.2f} at sqrt(KL) {distances[most]:.2f}."
    near = [name for name in gains if gains[name] > 0 and distances[name] > 0]
    if near:
        best = max(near, key=lambda name: gains[name] / distances[name])
        said += f" The most for its distance: {best}, {gains[best]:+.2f} at {distances[best]:.2f}."
    return [said]


def _falls(curves: Sequence[MethodCurve]) -> list[str]:
    """Say which methods fell after their best point, while the proxy rose or held, while it fell, or without one."""
    kinds: dict[str, dict[str, float]] = {kind: {} for kind in FALLS}
    for name in dict.fromkeys(curve.name for curve in curves):
        own = [curve for curve in curves if curve.name == name]
        lost = median(float(curve.best()["gold"]) - float(curve.rows[-1]["gold"]) for curve in own)
        if lost <= FALLEN:
            continue
        known = all("proxy" in row for curve in own for row in (curve.best(), curve.rows[-1]))
        held = known and median(over_optimisation(curve) for curve in own) > FALLEN
        kinds["held" if held else "fell" if known else "unknown"][name] = lost
    said = []
    for kind, fallen in kinds.items():
        if fallen:
            each = ", ".join(f"{n} lost {lost:.2f}" for n, lost in sorted(fallen.items(), key=lambda item: -item[1]))
            said.append(f"- {FALLS[kind]}: {each} of gold.")
    return said or [f"- No method ended more than {FALLEN} gold below its best point."]


def _nearer(by_name: Mapping[str, Sequence[dict[str, Any]]]) -> list[str]:
    """Compare PPO under the smallest and the largest beta."""
    betas = {float(name.removeprefix(PPO)): own for name, own in by_name.items() if name.startswith(PPO)}
    if len(betas) < 2:
        return []
    low, high = min(betas), max(betas)
    ends = [
        f"{_middle(betas[beta], 'best_gold'):.2f} at best and {_middle(betas[beta], 'last_gold'):.2f} at the end, at "
        f"sqrt(KL) {_middle(betas[beta], 'last_sqrt_kl'):.2f}"
        for beta in (low, high)
    ]
    return [f"- PPO with beta {low:g}: gold {ends[0]}; with beta {high:g}: {ends[1]}."]


def _kept(rows: Sequence[dict[str, Any]], probes: Sequence[str]) -> list[str]:
    mixed = [row for row in rows if row["method"] == "ppo-ptx" and "last_language_loss" in row]
    plain = [row for row in rows if row["method"].startswith(PPO) and "last_language_loss" in row]
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

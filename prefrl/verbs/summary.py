"""The table at the end of a control run: what each policy came to."""

from __future__ import annotations

import warnings
from typing import Any

from rich.console import Console

from prefrl.control.folder import ControlFolder
from prefrl.envs.measures import known_measures
from prefrl.shares import Share
from prefrl.studies.own_measure import print_own_measure
from prefrl.studies.tables import show_groups
from prefrl.tables import Table
from prefrl.verbs.common import print_json


def show_summary(folder: ControlFolder, summary: dict[str, Any], *, as_json: bool) -> None:
    for name, reason in summary.get("failures", {}).items():  # not in summaries of earlier versions
        warnings.warn(f"The evaluation of {name} failed: {reason}", stacklevel=2)
    if as_json:
        print_json(summary)
        return
    settings = folder.settings
    own = settings.by_own_measure and not folder.config["baseline"]
    title = f"{summary['env_id']}, {summary['num_episodes']} episodes each"
    measures = [one for one in known_measures(summary["env_id"]) if one.name in summary.get("measures", {})]
    true_name = "environment's own reward" if own else "true return"
    columns = [*(["learned return"] if own else []), *([true_name] if settings.shows_true_reward else [])]
    table = Table("policy", *columns, *(measure.name for measure in measures), title=title)

    def figure(prefix: str, name: str) -> str:
        mean, spread = summary.get(f"{prefix}{name}_mean"), summary.get(f"{prefix}{name}_std")
        text = "unknown" if mean is None else f"{mean:.5g}"
        return f"{text} (spread {spread:.3g})" if prefix == "" and spread is not None and mean is not None else text

    def add(policy: str, prefix: str) -> None:
        measured = summary.get(f"{prefix}measures", {})
        cells = [measure.text(measured[measure.name]) if measure.name in measured else "-" for measure in measures]
        shown = [*(["learned_return"] if own else []), *(["true_return"] if settings.shows_true_reward else [])]
        table.add_row(policy, *(figure(prefix, name) for name in shown), *cells)

    add("random actions", "random_")
    labels = summary["labels"]  # None: the metrics are gone
    whose = "environment's own" if own else "true"
    answers = "an unknown number of" if labels is None else labels
    taught = "trained on the true reward" if folder.config["baseline"] else f"from {answers} answers"
    add(f"{summary['policy']}, {taught}", "")
    if "best_true_return_mean" in summary:
        add("best learned return", "best_")
    if "baseline_true_return_mean" in summary:
        add(f"trained on the {whose} reward", "baseline_")
    console = Console()
    agreement = summary.get("held_out_agreement")
    print_own_measure(folder, None if agreement is None else Share(**agreement), console)
    console.print(table)
    if summary.get("groups"):
        show_groups(summary["groups"], console)
    for remark, names in _by_remark(summary.get("remarks", {})).items():
        print(f"{', '.join(names)}: {remark}")
    if summary.get("update"):  # not in summaries of earlier versions
        print("Last updates: " + ", ".join(f"{n.replace('_', ' ')} {v:g}" for n, v in summary["update"].items()))


def _by_remark(remarks: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return for each remark the names of the policies that it is about."""
    named: dict[str, list[str]] = {}
    for name, said in remarks.items():
        for remark in said:
            named.setdefault(remark, []).append(name)
    return named

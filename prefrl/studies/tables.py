"""Tables for the terminal: the quality of answers, a fit, and what a study of theory found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from prefrl.quality import AnnotatorQuality
from prefrl.rewards import FitReport
from prefrl.shares import Share
from prefrl.studies.run_quality import RunQuality
from prefrl.theory.study import Finding, Study


def show_quality(found: RunQuality, console: Console) -> None:
    """Print how good the answers of a run are."""
    columns = (
        Column("annotator", overflow="fold", min_width=12),
        "answers",
        "ties",
        "can't tell",
        "same when asked again",
        "chose left",
        "same as others",
    )
    has_gold = any(one.gold for one in found.quality.annotators)
    more = [name for name, there in (("known answers", has_gold), ("reliability", found.reliability)) if there]
    table = Table(*columns, "seconds", *more, title="Answers by annotator")
    for one in found.quality.annotators:
        left = _share(one.chose_left) + (" [bold]prefers a side[/bold]" if one.prefers_a_side else "")
        row = [
            f"{one.name} ({one.kind})" if one.kind != "unknown" else one.name,
            str(one.num_answers),
            str(one.num_ties),
            str(one.num_cannot_tell),
            _share(one.consistency),
            left,
            _share(one.agreement),
            _seconds(one),
        ]
        if has_gold:
            row.append(_share(one.gold))
        if found.reliability:
            row.append(_number(found.reliability.get(one.name)))
        table.add_row(*row)
    console.print(table)
    if found.quality.pairs:
        table = Table("annotators", "same answer", "Krippendorff's alpha", title="Agreement between annotators")
        for pair in found.quality.pairs:
            table.add_row(f"{pair.first}, {pair.second}", _share(pair.agreement), _number(pair.alpha))
        console.print(table)
    console.print(f"The learned reward agrees with {told_agreement(found.held_out_agreement)}.")
    if found.surprises:
        table = Table("row", "annotator", "answer", "probability", "query", title="Expected least: a second look")
        for surprise in found.surprises:
            probability = f"{surprise.probability:.1%}"
            table.add_row(str(surprise.row), surprise.annotator, str(surprise.value), probability, surprise.query_id)
        console.print(table)


def told_agreement(share: Share | None) -> str:
    """Return the share of answers held out with which a reward agrees, in words."""
    if share is None:
        return "an unknown share of the answers: none was held out of its fit, or that was not noted yet"
    interval = f"95 % interval {share.low:.0%} to {share.high:.0%}"
    return f"{share.share:.0%} of the {share.num} answers held out of its fit ({interval})"


def _seconds(one: AnnotatorQuality) -> str:
    """Return the time of an annotator's answers, and how many took too little where that is many."""
    told = "-" if one.median_seconds is None else f"{one.median_seconds:.1f}"
    return told + (f" [bold]too fast: {one.too_fast.share:.0%}[/bold]" if one.is_too_fast and one.too_fast else "")


def show_fit(report: FitReport, console: Console) -> None:
    """Print what a fit came to."""
    told = told_agreement(report.held_out_agreement)
    console.print(f"Fitted to {report.num_comparisons} answers in {report.num_steps} steps; it agrees with {told}.")
    if report.reliability is not None:
        table = Table("annotator", "share not random", title="Reliability, estimated along with the reward")
        for name, share in report.reliability.items():
            table.add_row(name, f"{share:.0%}")
        console.print(table)


def show_text_report(figures: Mapping[str, Any], path: Path, console: Console) -> None:
    """Print the figures of a text run, and its evaluations along the way.

    Args:
        figures: what `prefrl.studies.text_runs.report` gives.
        path: folder of the run.
        console: where to.
    """
    rows = figures["evaluations"]
    plain = {name: value for name, value in figures.items() if isinstance(value, int | float | str)}
    table = Table("figure", "value", title=f"{path}, made by prefrl text {figures['verb']}")
    for name, value in plain.items():
        if name != "verb":
            table.add_row(name, _figure(value))
    console.print(table)
    if rows:
        names = [name for name in rows[0] if all(isinstance(row.get(name), int | float | None) for row in rows)]
        table = Table(*names, title="Evaluations along the way")
        for row in rows:
            table.add_row(*(_figure(row.get(name)) for name in names))
        console.print(table)


def _figure(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _share(share: Share | None) -> str:
    return "-" if share is None else str(share)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def show_finding(study: Study, finding: Finding, console: Console) -> None:
    """Print the table of a study, then each claim beside what was measured."""
    table = Table(*finding.columns, title=study.question)
    for row in finding.rows:
        table.add_row(*(str(cell) for cell in row))
    console.print(table)
    claims = Table("holds", "claim", "measured", title=study.source)
    for check in finding.checks:
        claims.add_row("yes" if check.holds else "NO", check.claim, check.measured)
    console.print(claims)
    for note in finding.notes:
        console.print(note)

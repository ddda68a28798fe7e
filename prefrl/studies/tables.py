"""Tables for the terminal: the quality of answers, a fit, and what a study of theory found."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column

from prefrl.quality import AnnotatorQuality
from prefrl.rewards import FitReport
from prefrl.shares import Share
from prefrl.studies.run_quality import MOST_EXPECTED, RunQuality
from prefrl.studies.tournament import Standing
from prefrl.tables import Table
from prefrl.theory.study import Finding, Study

QUERY_LETTERS = 12  # of a name, which are its own


def show_quality(found: RunQuality, console: Console) -> None:
    """Print how good the answers of a run are, in lines of at most 80 letters where names are short."""
    people = found.quality.annotators
    table = Table(_names(), "answers", "ties", "can't tell", "seconds", title="Answers by annotator")
    if found.reliability:
        table.add_column("reliability")
    for one in people:
        seconds = "-" if one.median_seconds is None else f"{one.median_seconds:.1f}"
        row = [_called(one), str(one.num_answers), str(one.num_ties), str(one.num_cannot_tell), seconds]
        if found.reliability:
            row.append(_number(found.reliability.get(one.name)))
        table.add_row(*row)
    console.print(table)
    has_gold = any(one.gold for one in people)
    table = Table(_names(), "same again", "chose left", "same as others", title="How good they are (95 % interval, n)")
    if has_gold:
        table.add_column("as is known")
    for one in people:
        shares = [one.consistency, one.chose_left, one.agreement, *([one.gold] if has_gold else [])]
        table.add_row(_called(one), *map(_share, shares))
    console.print(table)
    for one in people:
        if warnings := found.warnings_of(one):
            console.print(f"Look at {plain(one.name)}: [bold]{'; '.join(warnings)}[/bold]")
    if found.quality.pairs:
        table = Table("annotators", "same answer", "Krippendorff's alpha", title="Agreement between annotators")
        for pair in found.quality.pairs:
            table.add_row(f"{plain(pair.first)}, {plain(pair.second)}", _share(pair.agreement), _number(pair.alpha))
        console.print(table)
    if found.wishes is not None:
        console.print(found.wishes.sentence())
    console.print(f"The learned reward agrees with {told_agreement(found.held_out_agreement)}.")
    if found.surprises:
        drawn = f", of {found.num_expected:,} drawn at random" if found.num_expected >= MOST_EXPECTED else ""
        title = f"Expected least{drawn}: a second look"
        table = Table("row", _names(), "answer", "probability", "query", title=title)
        for surprise in found.surprises:
            said = (surprise.annotator, str(surprise.value), f"{surprise.probability:.1%}")
            table.add_row(str(surprise.row), *map(plain, said), surprise.query_id[:QUERY_LETTERS])
        console.print(table)
        console.print("See one of them with: prefrl show RUN QUERY")


def _names() -> Column:
    return Column("annotator", overflow="fold", min_width=8)


def _called(one: AnnotatorQuality) -> str:
    return plain(one.name) if one.kind in ("unknown", "person") else f"{plain(one.name)} ({one.kind})"


def told_agreement(share: Share | None) -> str:
    """Return the share of answers held out with which a reward agrees, in words."""
    if share is None:
        return "an unknown share of the answers: none was held out of its fit, or that was not noted yet"
    interval = f"95 % interval {share.low:.0%} to {share.high:.0%}"
    return f"{share.share:.0%} of the {share.num} answers held out of its fit ({interval})"


def plain(text: str) -> str:
    """Return what strangers wrote as a table shows it: no markup, no codes that a terminal obeys."""
    return escape("".join(letter if letter.isprintable() else "?" for letter in text))


def show_fit(report: FitReport, console: Console) -> None:
    """Print what a fit came to."""
    told = told_agreement(report.held_out_agreement)
    console.print(f"Fitted to {report.num_comparisons} answers in {report.num_steps} steps; it agrees with {told}.")
    if report.reliability is not None:
        table = Table("annotator", "share not random", title="Reliability, estimated along with the reward")
        for name, share in report.reliability.items():
            table.add_row(name, f"{share:.0%}")
        console.print(table)
    if report.groups is not None:
        numbers = range(1, 1 + max(map(len, report.groups.values()), default=0))
        table = Table("annotator", *(f"group {n}" for n in numbers), title="Groups of annotators")
        for name, belongs in report.groups.items():
            table.add_row(plain(name), *(f"{share:.0%}" for share in belongs))
        console.print(table)


def show_groups(groups: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print of each group of annotators who is in it and what the agent's last policy gave it.

    Args:
        groups: `groups` of a run's summary.
        console: where to.
    """
    columns = ("group", "annotators", "share", "weight", "learned return", "of random actions")
    table = Table(*columns, title="By their own learned rewards")
    for number, group in enumerate(groups, start=1):
        names = ", ".join(map(plain, group["annotators"])) or "nobody"
        share = "-" if group["share"] is None else f"{group['share']:.0%}"
        returns = (_figure(group[name]) for name in ("learned_return", "random_learned_return"))
        table.add_row(str(number), names, share, f"{group['weight']:.0%}", *returns)
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


def show_offline(summary: Mapping[str, Any], console: Console) -> None:
    """Print the figures of an offline run: what its policy and those of its controls earn, and what the data hold.

    Args:
        summary: what `prefrl.offline.run.summarise` gives.
        console: where to.
    """
    data = summary["data"]
    if data is not None:
        ended = f", {data['ends']:,} of them end" if data["ends"] else ""
        console.print(f"{plain(summary['dataset'])}: {data['episodes']:,} episodes of {data['steps']:,} steps{ended}.")
    if summary["held_out_agreement"] is not None:
        console.print(f"The learned reward agrees with {told_agreement(Share(**summary['held_out_agreement']))}.")
    if summary["num_episodes"] is None:
        console.print("The data name no environment, so that no return can be measured: --env ENV names one.")
        return
    table = Table("policy", "true return", title=f"{summary['env_id']}, {summary['num_episodes']} episodes each")

    def add(name: str, mean: float | None, std: float | None = None) -> None:
        spread = "" if std is None else f" (spread {std:.3g})"
        table.add_row(plain(name), "unknown" if mean is None else f"{mean:.5g}{spread}")

    add("random actions", summary["random_true_return_mean"])
    if data is not None and data["true_return_mean"] is not None:
        few = f"{data['true_return_least']:.4g} to {data['true_return_most']:.4g}"
        table.add_row("the data", f"{data['true_return_mean']:.5g} ({few})")
    for one in (summary, *summary["controls"].values()):
        add(one["title"], one["true_return_mean"], one["true_return_std"])
    console.print(table)
    for name, said in summary["remarks"].items():
        console.print(f"{name}: {' '.join(said)}")
    for name, reason in summary["failures"].items():
        console.print(f"The policy {name} could not be played: {plain(reason)}")


def _figure(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _share(share: Share | None) -> str:
    """Return a share with its interval, short enough for three beside each other."""
    return (
        "-"
        if share is None
        else f"{share.share:.0%} ({share.low:.0%}-{share.high:.0%}, {share.num})".replace("%-", "-")
    )


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


def show_standing(standing: Standing, console: Console) -> None:
    """Print how a tournament stands, the best first."""
    table = Table(
        "place", Column("player", overflow="fold"), "rating", "95 % interval", "Elo", "games", title="Standing"
    )
    for place, row in enumerate(standing.to_json()["players"], start=1):
        interval = f"{row['low']:.0f} to {row['high']:.0f}"
        table.add_row(
            str(place), row["name"], f"{row['rating']:.0f}", interval, f"{row['elo']:.0f}", f"{row['games']:g}"
        )
    console.print(table)
    console.print(
        f"From {len(standing.games)} answers; {standing.num_cannot_tell} could not be told, {standing.num_open} wait. "
        "Ratings are Bradley-Terry's on Elo's scale (400 points: odds of ten to one). Elo looks at one game after the "
        "other, so that the last weigh most."
    )
    if standing.ratings is not None:
        doubts, order = standing.ratings.doubt(), standing.order()
        for better, worse in itertools.pairwise(order):
            if doubts[better, worse] > 0.05:
                console.print(
                    f"{standing.names[better]} before {standing.names[worse]}: in doubt, the other way round with "
                    f"probability {doubts[better, worse]:.2f}."
                )

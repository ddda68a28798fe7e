"""`prefrl show RUN QUERY`: one question with its answers, and its clips as files. Neither torch nor simulators."""

from __future__ import annotations

import argparse
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

from prefrl.errors import UserError, printable
from prefrl.feedback import REASONS, Answer, Edit, Undo
from prefrl.files import write_atomically
from prefrl.human_ui.command import find_record
from prefrl.store import PreferenceStore, QueryCard

DESCRIPTION = """\
Show one question: what it asks, what it shows, and who said what. Clips are written as files that any player plays.

QUERY is its name as prefrl quality prints it, or the beginning of it, or the number of an answer's row.
"""
WIDTH = 80


def main(arguments: Sequence[str]) -> int:
    """Print a question and write its clips; return the exit status.

    Raises:
        UserError: no such run or question.
    """
    parser = argparse.ArgumentParser(
        prog="prefrl show", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="RUN", help="folder of a run, or a record: a file, postgresql://...")
    parser.add_argument("query", metavar="QUERY", help="name of a question, its beginning, or a row")
    parser.add_argument(
        "--to",
        type=Path,
        default=None,
        metavar="FOLDER",
        help="for the clips; default: shown/ in the run's folder",
    )
    parser.add_argument("--trust", action="store_true", help="the run was made elsewhere: use what it names")
    given = parser.parse_args(arguments)
    where, run, _ = find_record(given.run, trust=given.trust)
    with PreferenceStore(where, patience_seconds=5.0, create=False) as store:
        query_id = find_query(store, given.query)
        (card,) = store.cards([query_id])
        folder = given.to or (Path(given.run) / "shown" if Path(given.run).is_dir() else Path("shown"))
        lines = describe(store, card) + write_clips(store, card, folder)
    print("\n".join(map(printable, [f"{run}: {card.kind} {card.id}", *lines])))  # noqa: T201
    return 0


def find_query(store: PreferenceStore, asked: str) -> str:
    """Return the name of a question from its beginning, or from the row of an answer to it.

    Raises:
        UserError: there is none, or there are several.
    """
    if asked.isascii() and asked.isdigit() and len(asked) < 16:
        answer = store.answer(int(asked))
        if answer is not None:
            return answer.query_id
    found = [name for name in store.query_ids() if asked and name.startswith(asked)]
    if len(found) != 1:
        told = f"{len(found)} questions begin" if found else "No question begins"
        raise UserError(f"{told} with {asked!r} in the record {store.name}. Names are printed by: prefrl quality RUN")
    return found[0]


def describe(store: PreferenceStore, card: QueryCard) -> list[str]:
    """Return what a question asks and who said what, in lines of at most 80 letters; items count from 1."""
    lines = [f"  asked in session {card.session}, after {card.num_env_steps:,} steps, of {card.overlap}"]
    if card.instruction:
        lines += _wrapped(f"look for: {card.instruction}")
    if card.repeat_of:
        lines.append(f"  asks {card.repeat_of} again, of {card.reserved_for}: it teaches nothing")
    if card.responses:
        lines += _wrapped(f"prompt: {card.responses[0].prompt}")
    for number, response in enumerate(card.responses, 1):
        lines += [f"  {number}.", *(_wrapped(response.text, "     "))]
    answers = [(row, entry) for row, entry in store.answers() if entry.query_id == card.id]
    undone = {entry.undoes for _, entry in answers if isinstance(entry, Undo)}
    lines.append("answers:" if answers else "Nobody has answered it yet.")
    for row, entry in answers:
        if isinstance(entry, Undo):
            continue
        said = in_words(entry) if isinstance(entry, Answer) else ""
        if isinstance(entry, Edit):
            said = f"would have item {entry.item + 1} read:"
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.answered_at)) if entry.answered_at else ""
        notes = [
            "taken back" if row in undone else "",
            "settles it" if entry.adjudicates else "",
            "flagged" if entry.flagged else "",
            REASONS.get(entry.reason, ""),
        ]
        told = ", ".join(part for part in (f"{entry.seconds:.1f} s", when, *notes) if part)
        lines.append(f"  row {row}: {entry.annotator}: {said} ({told})")
        if isinstance(entry, Edit):
            lines += _wrapped(entry.text, "     ")
        if entry.comment:
            lines += _wrapped(f"note: {entry.comment}", "     ")
    return lines


def write_clips(store: PreferenceStore, card: QueryCard, folder: Path) -> list[str]:
    """Write the clips of a question; return where they are, or why they are not, in words."""
    clips, failures, lines = store.clips(card.segment_ids), store.render_failures(card.segment_ids), []
    for number, name in enumerate(card.segment_ids, 1):
        if name not in clips:
            lines.append(f"  {number}. {failures.get(name, 'its clip was not drawn yet')}")
            continue
        path = folder / f"{card.id[:8]}-{number}.{clips[name].format}"
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, clips[name].data)
        lines.append(f"  {number}. {path}")
    return lines


def _wrapped(text: str, indent: str = "  ") -> list[str]:
    lines = [textwrap.wrap(line, WIDTH - len(indent), break_long_words=False) or [""] for line in text.split("\n")]
    return [indent + line for part in lines for line in part]


def in_words(answer: Answer) -> str:
    """Return what an answer says, of items numbered from 1 in the order of the query."""
    if answer.value is None:
        return "can't tell"
    order = answer.order
    if order is None:
        return str(answer.value)
    if len(set(order)) == 1:
        return "equal"
    groups = [[str(i + 1) for i, rank in enumerate(order) if rank == place] for place in sorted(set(order))]
    said = " > ".join(" = ".join(group) for group in groups)
    return f"{said} (by {abs(answer.value)} of 3)" if answer.kind == "strength" else said

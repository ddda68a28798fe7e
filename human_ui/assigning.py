"""`prefrl assign`: who is asked which open question. Neither torch nor simulators."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from prefrl.errors import UserError
from prefrl.human_ui.command import find_record
from prefrl.human_ui.show import find_query
from prefrl.store import PreferenceStore

DESCRIPTION = """\
Reserve open questions for somebody: nobody else is asked them from then on. Several people get them turn by turn.

Questions are named as prefrl quality and prefrl show print them; without names, those that are reserved for nobody.
"""


def main(arguments: Sequence[str]) -> int:
    """Assign questions, free them, or tell whose they are; return the exit status.

    Raises:
        UserError: no such run or question, or people who cannot be asked.
    """
    parser = argparse.ArgumentParser(
        prog="prefrl assign", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="RUN", help="folder of a run, or a record: a file, postgresql://...")
    parser.add_argument("queries", metavar="QUERY", nargs="*", help="questions, by their names or beginnings")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--to", action="append", metavar="NAME", help="who is to answer them; several: --to A --to B")
    what.add_argument("--free", nargs="*", metavar="NAME", help="let everybody answer those of these people, or of any")
    what.add_argument("--list", action="store_true", help="tell how many are reserved for whom")
    parser.add_argument("--questions", type=int, default=None, metavar="N", help="with --to: so many at most")
    parser.add_argument("--trust", action="store_true", help="the run was made elsewhere: use what it names")
    given = parser.parse_intermixed_args(arguments)
    if given.queries and given.to is None:
        raise UserError("Questions are named together with whoever is to answer them: --to NAME")
    if given.questions is not None and (given.to is None or given.questions < 1):
        raise UserError(f"--questions is a number, at least 1, and goes with --to. Received {given.questions}")
    where, _, _ = find_record(given.run, trust=given.trust)
    with PreferenceStore(where, patience_seconds=5.0, create=False) as store:
        if given.to is not None:
            _assign(store, given.to, given.queries, given.questions)
        elif given.free is not None:
            _say(f"{_questions(store.unassign(given.free or None))} free for everybody.")
        _tell(store)
    return 0


def _assign(store: PreferenceStore, people: Sequence[str], queries: Sequence[str], at_most: int | None) -> None:
    people = [name.strip() for name in people]
    kinds = store.annotators()
    machines = [name for name in people if kinds.get(name) in ("teacher", "model")]
    if not all(people) or len(set(people)) < len(people) or machines:
        raise UserError(f"--to names people, each once. Received {', '.join(machines or people)}")
    strangers = set(people) - kinds.keys() - {link.annotator for link in store.links.all()}
    assigned = store.assign(people, [find_query(store, one) for one in queries] if queries else None, at_most)
    for name, num in assigned.given.items():
        _say(f"{_questions(num)} given to {name}.")
    for num, why in (
        (assigned.settled, "answered already (prefrl gallery has them asked again)"),
        (assigned.several, "for several people, so that one alone cannot settle them"),
        (assigned.answered, "answered by all of these people already"),
    ):
        if num:
            _say(f"Left as they are: {num} {why}.")
    for name in sorted(strangers):
        _say(f"{name} has neither a link nor answers here; make one with: prefrl invite RUN --name {name}")


def _tell(store: PreferenceStore) -> None:
    """Say whose the open questions are."""
    reserved = store.num_assigned()
    everybody = store.num_open() - sum(reserved.values())
    told = ", ".join([f"{num} for {name}" for name, num in reserved.items()] + [f"{everybody} for everybody"])
    _say(f"Open questions: {told}.")


def _questions(num: int) -> str:
    return f"{num} {'question is' if num == 1 else 'questions are'}"


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201

"""Answers of an earlier run, for a later one to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium

from prefrl.control.folder import ControlFolder
from prefrl.control.offline_start import open_earlier
from prefrl.errors import UserError
from prefrl.feedback import Answer, Query
from prefrl.spaces import misfit
from prefrl.store import Addition, PreferenceStore

AT_ONCE = 100
Spaces = tuple[gymnasium.Space[Any], gymnasium.Space[Any]]


def check_earlier(earlier: Path, spaces: Spaces, segment_length: int) -> None:
    """Check, before a run begins, that `copy_answers` will work; arguments and errors are the same."""
    with _open(earlier).open_record() as there:
        for name in {answer.query_id for _, answer in _answered(there, earlier)}:
            _check(there.query(name), earlier, spaces, segment_length)


def copy_answers(earlier: Path, store: PreferenceStore, spaces: Spaces, segment_length: int) -> int:
    """Copy what stands answered in an earlier run into the record of a new one, as its session 0.

    Returns how many answers teach something: "can't tell" is copied too.

    Doing it again, after a kill, does no harm.

    Args:
        earlier: folder of the earlier run.
        store: the new record.
        spaces: of the observations and of the actions of the new run.
        segment_length: of the new run.

    Raises:
        UserError: no such run, nothing was answered in it, or its segments are of another length or environment.
    """
    folder = _open(earlier)
    run_id = folder.config["run_id"]
    with folder.open_record() as there:
        rows = _answered(there, earlier)
        for name, kind in there.annotators().items():
            store.add_annotator(name, kind)
        for begin in range(0, len(rows), AT_ONCE):
            part = rows[begin : begin + AT_ONCE]
            queries = {a.query_id: _closed(there.query(a.query_id), rows) for _, a in part}
            for query in queries.values():
                _check(query, earlier, spaces, segment_length)
            answers = [replace(a, query_id=queries[a.query_id].id, claim=f"{run_id} {row}") for row, a in part]
            store.add_together(partial(_add, queries=list(queries.values()), answers=answers))
    return sum(answer.value is not None for _, answer in rows)


def _add(addition: Addition, *, queries: Sequence[Query], answers: Sequence[Answer]) -> None:
    """Add queries with the answers that close them, so that nobody is asked in between."""
    addition.add_queries(queries)
    addition.add_answers(answers)


def _open(earlier: Path) -> ControlFolder:
    folder = open_earlier(earlier)
    if not isinstance(folder.record, str) and not folder.record.is_file():
        raise UserError(f"The run in {earlier} has no record of answers to start from.")
    return folder


def _answered(store: PreferenceStore, earlier: Path) -> list[tuple[int, Answer]]:
    rows = [(row, a) for row, a in store.answers(standing=True, repeats=False) if isinstance(a, Answer)]
    if not rows:
        raise UserError(f"Nothing was answered in the run in {earlier}, so there is nothing to start from.")
    return rows


def _closed(query: Query, rows: Sequence[tuple[int, Answer]]) -> Query:
    """Return a query of session 0 that wants no more answers than it has."""
    names = {answer.annotator for _, answer in rows if answer.query_id == query.id}
    return replace(query, session=0, reserved_for=None, overlap=len(names))


def _check(query: Query, earlier: Path, spaces: Spaces, segment_length: int) -> None:
    for segment in query.segments:
        if len(segment) != segment_length:
            raise UserError(
                f"The run in {earlier} asked about segments of {len(segment)} steps, this one of {segment_length}. "
                f"Use --segment-length {len(segment)}."
            )
        for what, space, values in zip(
            ("observations", "actions"), spaces, (segment.observations, segment.actions), strict=True
        ):
            if reason := misfit(space, values):
                raise UserError(
                    f"The run in {earlier} was of another environment: its {what} have {reason}. "
                    "Give --from a run of this environment."
                )

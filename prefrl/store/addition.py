"""Adding much at once: all of it is recorded, or nothing."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from prefrl.errors import UserError
from prefrl.feedback import Entry, Query
from prefrl.segments import Segment
from prefrl.spaces import to_arrays
from prefrl.store import clips, reading, tables, writing
from prefrl.store.clips import Clip
from prefrl.store.participants import add_consent

_Form = dict[str, tuple[tuple[int, ...], str]]


def _form(segment: Segment) -> _Form:
    """Return the shape of a step and the kind of number of each array of a segment."""
    arrays = to_arrays("observations", segment.observations) | {"actions": segment.actions}
    return {name: (array.shape[1:], array.dtype.kind) for name, array in arrays.items()}


def _in_words(form: _Form) -> str:
    kinds = {"f": "real", "i": "whole", "u": "whole", "b": "true or false"}
    return ", ".join(f"{name} of shape {shape} ({kinds.get(kind, kind)})" for name, (shape, kind) in form.items())


class Addition:
    """What is added to a record in one transaction; the methods are those of `PreferenceStore`.

    Args:
        connection: within a transaction that writes.
        name: of the record, for messages.
    """

    def __init__(self, connection: sa.Connection, name: str) -> None:
        self._connection, self._name = connection, name
        self._segments: _Form | None = None  # what those of the record are like

    def add_queries(self, queries: Sequence[Query]) -> None:
        """Record queries; those already recorded stay as they are.

        Raises:
            UserError: their segments are of another environment than those of the record.
        """
        for query in queries:
            for segment in query.segments:
                self._check_same_environment(segment)
        writing.add_queries(self._connection, queries)

    def _check_same_environment(self, segment: Segment) -> None:
        """Check that observations and actions have the entries, shapes and kinds of those in the record."""
        form = _form(segment)
        if self._segments is None:
            first = self._connection.execute(sa.select(tables.segments.c.id).limit(1)).scalar()
            known = {} if first is None else reading.segments(self._connection, [first], self._name)
            self._segments = _form(known[first]) if first is not None else form
        if form != self._segments:
            raise UserError(
                f"The segments are of another environment than those in {self._name}: {_in_words(form)} where there "
                f"are {_in_words(self._segments)}. Import them into a record of their own."
            )

    def add_answers(self, answers: Sequence[Entry]) -> list[int]:
        """Record answers, each of which names its claim; return their rows.

        Raises:
            UserError: an answer belongs to no query of this record or does not fit it.
        """
        tokens = [answer.claim for answer in answers if answer.claim is not None]
        assert len(tokens) == len(answers), "without a name it would be recorded twice where the transaction is"
        return writing.add_answers(self._connection, answers, tokens, self._name)

    def add_annotator(self, name: str, kind: str) -> None:
        """Note what an annotator is.

        Raises:
            UserError: an unknown kind.
        """
        writing.add_annotator(self._connection, name, kind)

    def add_consent(self, annotator: str, text: str, agreed_at: float) -> None:
        """Note that somebody agreed to a text, unless that is noted."""
        add_consent(self._connection, annotator, text, agreed_at)

    def add_clip(self, segment_id: str, clip: Clip) -> None:
        """Keep the clip of a segment, unless there is one already."""
        clips.add_clip(self._connection, segment_id, clip)

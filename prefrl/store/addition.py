"""Adding much at once: all of it is recorded, or nothing."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from prefrl.feedback import Entry, Query
from prefrl.store import clips, writing
from prefrl.store.clips import Clip


class Addition:
    """What is added to a record in one transaction; the methods are those of `PreferenceStore`.

    Args:
        connection: within a transaction that writes.
        name: of the record, for messages.
    """

    def __init__(self, connection: sa.Connection, name: str) -> None:
        self._connection, self._name = connection, name

    def add_queries(self, queries: Sequence[Query]) -> None:
        """Record queries; those already recorded stay as they are."""
        writing.add_queries(self._connection, queries)

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

    def add_clip(self, segment_id: str, clip: Clip) -> None:
        """Keep the clip of a segment, unless there is one already."""
        clips.add_clip(self._connection, segment_id, clip)

"""The queries of a record one after the other, without the segments of all of them in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prefrl.feedback import Query
from prefrl.spaces import num_bytes
from prefrl.store import PreferenceStore

AT_ONCE = 200  # queries in memory
MOST_BYTES = 64_000_000  # of their observations; fewer queries where they are large


def in_turn(store: PreferenceStore, query_ids: Sequence[str]) -> Iterator[Query]:
    """Yield the query of each name, in the order given; a name may come several times."""
    begin, size = 0, 1
    while begin < len(query_ids):
        part = query_ids[begin : begin + size]
        queries = {query.id: query for query in store.queries(part)}
        for name in part:
            yield queries[name]
        begin += size
        held = sum(num_bytes(segment.observations) for query in queries.values() for segment in query.segments)
        size = max(1, min(AT_ONCE, MOST_BYTES * len(queries) // max(1, held)))

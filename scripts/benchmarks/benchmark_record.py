"""Milliseconds that the next query and a new answer take in a record of 100,000 comparisons, on SQLite and PostgreSQL.

    python scripts/benchmarks/benchmark_record.py
    python scripts/benchmarks/benchmark_record.py --postgres postgresql://user@host/empty_database

Fills a record with 100,000 answered comparisons of 5-step segments and a few hundred open ones, then, 300 times: claim
a query and answer it, each in a transaction that is on the disk when it returns. On SQLite, or on a PostgreSQL server,
such as the one that `scripts/tools/postgres.py` starts.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import tyro

from prefrl.feedback import Comparison, Query
from prefrl.segments import Segment
from prefrl.store import PreferenceStore


def fill(store: PreferenceStore, comparisons: int, still_open: int) -> None:
    rng = np.random.default_rng(0)
    arrays = zip(rng.normal(size=(1000, 6, 3)), rng.normal(size=(1000, 5, 1)), strict=True)
    pool = [Segment(observations=seen, actions=done, true_rewards=np.zeros(5)) for seen, done in arrays]
    for session in range(0, comparisons + still_open, 500):
        numbers = range(session, min(session + 500, comparisons + still_open))
        asked = [Query(segments=(pool[n % 1000], pool[(n + 1 + n // 1000) % 1000]), session=session) for n in numbers]
        store.add_queries(asked)
        given = [q for n, q in zip(numbers, asked, strict=True) if n < comparisons]
        shown = (0, 1)
        store.add_answers([Comparison(query_id=q.id, preference=1.0, annotator="anna", shown=shown) for q in given])


def measure(where: Path | str, comparisons: int, rounds: int) -> None:
    with PreferenceStore(where) as store:
        fill(store, comparisons, still_open=200 + rounds)
        claiming, answering = [], []
        for _ in range(rounds):
            begin = time.perf_counter()
            (claim,) = store.claim("anna")
            between = time.perf_counter()
            given = {"query_id": claim.query.id, "annotator": "anna", "shown": claim.shown, "claim": claim.token}
            store.add_answers([Comparison(preference=0.0, **given)])
            claiming.append(1000 * (between - begin))
            answering.append(1000 * (time.perf_counter() - between))
    for what, times in (("next query", claiming), ("new answer", answering)):
        name = "SQLite" if isinstance(where, Path) else "PostgreSQL"
        print(f"| {name}, {what} | {np.median(times):.1f} | {np.quantile(times, 0.99):.1f} | {max(times):.1f} |")


def main(comparisons: int = 100_000, rounds: int = 300, postgres: str | None = None) -> None:
    print(f"| {comparisons:,} comparisons, ms | median | 99 % | most |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        measure(postgres or Path(folder) / "record.sqlite", comparisons, rounds)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

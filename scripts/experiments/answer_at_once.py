"""Two people and a teacher answer 1,000 queries at once: no query is answered twice, none is lost.

    python scripts/experiments/answer_at_once.py
    python scripts/experiments/answer_at_once.py --postgres postgresql://user@host/empty_database

Three processes share a record, each claiming and answering as fast as it can, the teacher ten at a time: on SQLite, or
on a PostgreSQL server, such as the one that `scripts/tools/postgres.py` starts.
"""

import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import tyro
from kill_writers import queries

from prefrl.store import PreferenceStore

ANSWER = """
import sys
from prefrl.feedback import Comparison
from prefrl.store import PreferenceStore
store, name, at_once = PreferenceStore(sys.argv[1]), sys.argv[2], int(sys.argv[3])
while claims := store.claim(name, at_once, repeat_share=0):
    store.add_answers([Comparison(query_id=c.query.id, preference=1.0, annotator=name, claim=c.token) for c in claims])
"""


def prove(where: str, num: int) -> None:
    begin = time.perf_counter()
    with PreferenceStore(where) as store:
        store.add_queries(queries(np.random.default_rng(0), 0, num))
        who = (("anna", "1"), ("ben", "1"), ("teacher", "10"))
        processes = [subprocess.Popen([sys.executable, "-c", ANSWER, where, *arguments]) for arguments in who]
        assert [process.wait(timeout=3600) for process in processes] == [0, 0, 0]
        answers = [answer for _, answer in store.answers()]
    twice = len(answers) - len({answer.query_id for answer in answers})
    shares = ", ".join(f"{name} {count}" for name, count in sorted(Counter(a.annotator for a in answers).items()))
    seconds = time.perf_counter() - begin
    name = "PostgreSQL" if "://" in where else "SQLite"
    print(f"{name}: {num} queries, {len(answers)} answers ({shares}), {twice} twice, {num - len(answers)} lost, "
          f"{seconds:.1f} s", flush=True)  # fmt: skip


def main(num_queries: int = 1000, postgres: str | None = None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        prove(postgres or str(Path(folder) / "record.sqlite"), num_queries)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

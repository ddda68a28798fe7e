"""Two people and a teacher answer 1,000 queries at once: no query is answered twice, none is lost.

    python scripts/answer_at_once.py

Three processes share a record, each claiming and answering as fast as it can, the teacher ten at a time, on SQLite and
on the PostgreSQL that the tests start (the extra dev).
"""

import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import tyro

from prefrl.feedback import Query
from prefrl.segments import Segment
from prefrl.store import PreferenceStore

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from postgres import PostgresServer

ANSWER = """
import sys
from prefrl.feedback import Comparison
from prefrl.store import PreferenceStore
store, name, at_once = PreferenceStore(sys.argv[1]), sys.argv[2], int(sys.argv[3])
while claims := store.claim(name, at_once, repeat_share=0):
    store.add_answers([Comparison(query_id=c.query.id, preference=1.0, annotator=name, claim=c.token) for c in claims])
"""


def prove(where: str, num: int) -> None:
    rng, begin = np.random.default_rng(0), time.perf_counter()
    arrays = zip(rng.normal(size=(2 * num, 6, 3)), rng.normal(size=(2 * num, 5, 1)), strict=True)
    pool = [Segment(observations=seen, actions=done, true_rewards=np.zeros(5)) for seen, done in arrays]
    with PreferenceStore(where) as store:
        store.add_queries([Query(segments=(a, b)) for a, b in zip(pool[::2], pool[1::2], strict=True)])
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


def main(queries: int = 1000) -> None:
    with tempfile.TemporaryDirectory() as folder, PostgresServer() as server:
        prove(str(Path(folder) / "record.sqlite"), queries)
        prove(server.new_database("record"), queries)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

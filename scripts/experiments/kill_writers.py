"""SIGKILL at random instants, 50 times: no answer that was acknowledged is lost, none is there twice.

    python scripts/experiments/kill_writers.py

A process claims and answers queries, now and then takes an answer back, and prints each answer's claim once that is
recorded. It is killed at a random instant and started again, on one record.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tyro

from prefrl.feedback import KINDS, Query
from prefrl.segments import Segment
from prefrl.store import PreferenceStore

WORK = """
import sys
from prefrl.feedback import Comparison
from prefrl.store import PreferenceStore
store, name = PreferenceStore(sys.argv[1]), sys.argv[2]
for number in range(10**9):
    for claim in store.claim(name, 2, lease_seconds=5):
        common = dict(query_id=claim.query.id, annotator=name, shown=claim.shown)
        (row,) = store.add_answers([Comparison(preference=1.0, claim=claim.token, **common)])
        print(claim.token, flush=True)
        if number % 5 == 0:
            claim = store.undo(row, name)
            store.add_answers([Comparison(preference=0.0, claim=claim.token, **common)])
            print(claim.token, flush=True)
"""


def queries(rng: np.random.Generator, session: int, num: int) -> list[Query]:
    rows = zip(rng.normal(size=(2 * num, 3, 1)), rng.normal(size=(2 * num, 2, 1)), strict=True)
    pool = [Segment(observations=seen, actions=done, true_rewards=np.ones(2)) for seen, done in rows]
    return [Query(segments=pair, session=session) for pair in zip(pool[::2], pool[1::2], strict=True)]


def main(kills: int = 50) -> None:
    rng, told = np.random.default_rng(0), []
    with tempfile.TemporaryDirectory() as folder, PreferenceStore(path := Path(folder) / "record.sqlite") as store:
        for trial in range(kills):
            store.add_queries(queries(rng, trial, 200))
            command = [sys.executable, "-c", WORK, str(path), f"anna{trial % 3}"]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            told += [process.stdout.readline().strip() for _ in range(int(rng.integers(1, 40)))]
            time.sleep(float(rng.uniform(0, 0.05)))
            process.kill()
            told += [line.strip() for line in process.communicate()[0].splitlines(keepends=True) if line.endswith("\n")]
        there = [answer for _, answer in store.answers() if answer.kind in KINDS]
        standing = [(a.query_id, a.annotator) for _, a in store.answers(standing=True) if a.kind in KINDS]
    lost = set(told) - {answer.claim for answer in there}
    doubled = len(there) - len({answer.claim for answer in there}) + len(standing) - len(set(standing))
    print(f"{kills} kills: {len(told)} answers told, {len(lost)} lost; {len(there)} recorded, {doubled} doubled")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

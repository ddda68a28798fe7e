"""The record under several processes, and under kills at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from prefrl.feedback import Comparison, Query
from prefrl.segments import Segment
from prefrl.store import PreferenceStore

ROOT = Path(__file__).parents[2]

ANSWERER = """
import sys
from pathlib import Path
from prefrl.feedback import Comparison
from prefrl.store import PreferenceStore

store, name = PreferenceStore(Path(sys.argv[1])), sys.argv[2]
names = [query.id for query in store.session_queries(0)]
print("ready", flush=True)
for number in range(1_000_000):
    answers = [
        Comparison(query_id=names[(number + i) % len(names)], preference=1.0, annotator=f"{name}-{number}-{i}")
        for i in range(1 + number % 3)
    ]
    store.add_answers(answers)
    for answer in answers:
        print(answer.annotator, flush=True)
"""


def query(number: int, session: int = 0) -> Query:
    rng = np.random.default_rng(number)

    def one() -> Segment:
        return Segment(observations=rng.normal(size=(6, 3)), actions=rng.normal(size=(5, 1)), true_rewards=np.ones(5))

    return Query(segments=(one(), one()), session=session)


def answerer(path: Path, name: str, out: Path) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with out.open("wb") as file:
        return subprocess.Popen([sys.executable, "-c", ANSWERER, str(path), name], stdout=file, env=env)


def wait_until_ready(out: Path, process: subprocess.Popen[bytes], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while b"ready\n" not in out.read_bytes():
        assert process.poll() is None, "the answerer died"
        assert time.monotonic() < deadline, "the answerer did not start"
        time.sleep(0.01)


def whole_lines(out: Path) -> list[str]:
    return [line.decode().strip() for line in out.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")][1:]


def test_every_answer_that_was_recorded_survives_a_kill(tmp_path: Path) -> None:
    path, rng = tmp_path / "r.sqlite", np.random.default_rng(0)
    with PreferenceStore(path) as store:
        store.add_queries([query(n) for n in range(5)])
    printed: list[str] = []
    for trial in range(4):
        out = tmp_path / f"{trial}.txt"
        process = answerer(path, f"p{trial}", out)
        try:
            wait_until_ready(out, process)
            wanted, deadline = int(rng.integers(4, 40)), time.monotonic() + 60
            while len(whole_lines(out)) < wanted and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(float(rng.uniform(0.0, 0.05)))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=30)
        printed += whole_lines(out)
        with PreferenceStore(path) as store:
            there = [comparison.annotator for _, comparison in store.answers()]
        assert set(printed) <= set(there)
        assert len(there) == len(set(there))
        # All of a transaction or nothing: of each batch that is there, every answer is there.
        batches: dict[str, int] = {}
        for name in there:
            batches[name.rpartition("-")[0]] = batches.get(name.rpartition("-")[0], 0) + 1
        assert all(size == 1 + int(batch.rpartition("-")[2]) % 3 for batch, size in batches.items())
    assert len(printed) > 10


def test_two_processes_may_be_killed_while_both_write(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    with PreferenceStore(path) as store:
        store.add_queries([query(n) for n in range(5)])
    outs = [tmp_path / "a.txt", tmp_path / "b.txt"]
    processes = [answerer(path, out.stem, out) for out in outs]
    try:
        for out, process in zip(outs, processes, strict=True):
            wait_until_ready(out, process)
        time.sleep(0.5)
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=30)
    printed = [line for out in outs for line in whole_lines(out)]
    with PreferenceStore(path) as store:
        there = [comparison.annotator for _, comparison in store.answers()]
    assert set(printed) <= set(there)
    assert len(there) == len(set(there))


def write(path: Path, worker: int) -> int:
    """Ask 20 queries, 10 of them the same as every other worker's, and answer them one by one."""
    asked = [query(n) for n in range(10)] + [query(1_000 * (worker + 1) + n) for n in range(10)]
    with PreferenceStore(path) as store:
        for one in asked:
            store.add_queries([one])
            store.add_answers([Comparison(query_id=one.id, preference=0.5, annotator=f"w{worker}")])
        return len([row for row in store.answers() if row[1].annotator == f"w{worker}"])


def test_processes_that_create_and_fill_one_record_at_once_lose_and_double_nothing(tmp_path: Path) -> None:
    path, num_workers = tmp_path / "r.sqlite", 3
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(write, path, worker) for worker in range(num_workers)]
        assert [future.result(timeout=120) for future in futures] == [20] * num_workers
    with PreferenceStore(path) as store:
        assert len(store.answers()) == 20 * num_workers
        queries = store.session_queries(0)
        assert len(queries) == len({q.id for q in queries}) == 10 + 10 * num_workers
        assert [number for number, _ in store.answers()] == list(range(1, 20 * num_workers + 1))


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are POSIX")
def test_a_write_that_the_system_refuses_is_explained_and_harms_nothing(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    script = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from prefrl.errors import UserError\n"
        "from prefrl.feedback import Comparison, Query\n"
        "from prefrl.segments import Segment\n"
        "from prefrl.store import PreferenceStore\n"
        "def query(n, k):\n"
        "    rng = np.random.default_rng(n)\n"
        "    one = lambda: Segment(observations=rng.normal(size=(k + 1, 9)), actions=rng.normal(size=(k, 1)),\n"
        "        true_rewards=np.ones(k))\n"
        "    return Query(segments=(one(), one()))\n"
        "store = PreferenceStore(Path(sys.argv[1]))\n"
        "store.add_queries([query(0, 5)])\n"
        "store.add_answers([Comparison(query_id=query(0, 5).id, preference=1.0, annotator='a')])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "try:\n"
        "    store.add_queries([query(1, 20_000)])\n"
        "except UserError as error:\n"
        "    print(error)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=120, env=env, check=False
    )
    assert "Nothing recorded before was lost" in done.stdout, done.stderr
    with PreferenceStore(path) as store:
        assert len(store.answers()) == 1
        assert len(store.session_queries(0)) == 1


CLAIMER = """
import sys
from prefrl.feedback import Comparison
from prefrl.store import PreferenceStore

store, name, at_once = PreferenceStore(sys.argv[1]), sys.argv[2], int(sys.argv[3])
while claims := store.claim(name, at_once, repeat_share=0):
    store.add_answers([Comparison(query_id=c.query.id, preference=1.0, annotator=name, claim=c.token) for c in claims])
"""


def test_two_people_and_a_teacher_answer_at_once_and_no_query_twice(where: Path | str) -> None:
    num = 90
    with PreferenceStore(where) as store:
        store.add_queries([query(n) for n in range(num)])
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        processes = [
            subprocess.Popen([sys.executable, "-c", CLAIMER, str(where), name, at_once], env=env)
            for name, at_once in (("anna", "1"), ("ben", "1"), ("teacher", "4"))
        ]
        assert [process.wait(timeout=240) for process in processes] == [0, 0, 0]
        answered = [answer.query_id for _, answer in store.answers()]
    assert len(answered) == len(set(answered)) == num

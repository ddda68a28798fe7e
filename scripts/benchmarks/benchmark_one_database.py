"""Many people and several trainings in one database: is an answer lost, or there twice, and how long do people wait?

    python scripts/benchmarks/benchmark_one_database.py postgresql://me@localhost/an_empty_database --minutes 10

The server may be that of `scripts/tools/postgres.py`.

Each training is a run that people teach, with a page of its own and its record in a schema of its own; the people are
programs, shared out among the pages, who do what a browser does and answer by the true returns. One training is killed
halfway, with its page, and goes on with `prefrl resume`. At the end what the schemas hold is compared with what was
acknowledged. The time from an answer to the next question is that of the two requests together.
"""

import json
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import tyro
from benchmark_many_people import Judge, Visitor

from prefrl.feedback import Answer
from prefrl.store import PreferenceStore


class Training:
    """A run that people teach by a page of its own.

    Args:
        env: trained in.
        number: of the run, which is its seed as well.
        record: address of its record.
        out: its folder.
    """

    def __init__(self, env: str, number: int, record: str, out: Path) -> None:
        self.out = out
        options = ["--labels", "5000", "--seed", str(number), "--record", record, "--out", str(out), "--no-video"]
        self.start("train", env, "--annotator", "human", "--steps", "10000000", *options)
        self.store = self._opened(record)

    def start(self, *words: str) -> None:
        """Start it, or go on with it."""
        command = [sys.executable, "-m", "prefrl", *words, "--serve", "--no-viewer"]
        with self.out.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def _opened(self, record: str) -> PreferenceStore:
        while True:
            try:
                store = PreferenceStore(record, create=False)
            except Exception:
                if self.process.poll() is not None:
                    sys.exit(self.out.with_suffix(".log").read_text())
                time.sleep(0.5)
            else:
                return store

    def page(self) -> int:
        """Wait until people can come; return the port of the page."""
        while not (served_at := self.store.facts().get("served_at")):
            if self.process.poll() is not None:
                sys.exit(self.out.with_suffix(".log").read_text())
            time.sleep(0.5)
        return int(served_at.rstrip("/").rpartition(":")[2])


def main(
    database: tyro.conf.Positional[str],
    env: str = "Pendulum-v1",
    trainings: int = 4,
    people: int = 50,
    minutes: float = 10.0,
    think_seconds: float = 12.0,
    out: Path | None = None,
) -> None:
    """Teach them all at once, and count.

    Args:
        database: URL of an empty one.
        env: trained in.
        trainings: at once.
        people: in all.
        minutes: that they answer for.
        think_seconds: that each looks at a question for, about.
        out: folder of the runs; None: a temporary one.
    """
    with tempfile.TemporaryDirectory() as folder:
        where = out or Path(folder)
        runs = [
            Training(env, number, f"{database}?schema=run_{number}", where / f"run_{number}")
            for number in range(trainings)
        ]
        ports = [run.page() for run in runs]
        judges: list[list[Judge]] = [[] for _ in runs]
        for person in range(people):
            number = person % trainings
            token = runs[number].store.links.make(f"person {person}")
            judges[number].append(Judge(ports[number], token, think_seconds, runs[number].store, person))
        threads = [threading.Thread(target=judge.work, daemon=True) for own in judges for judge in own]
        for thread in threads:
            thread.start()
        time.sleep(30 * minutes)
        runs[0].process.kill()
        runs[0].process.wait()
        runs[0].store.set_facts({"served_at": None})
        print("killed one training and its page", flush=True)
        runs[0].start("resume", str(runs[0].out))
        port = runs[0].page()
        for judge in judges[0]:
            judge.port = port
        time.sleep(30 * minutes)
        Visitor.over.set()
        for thread in threads:
            thread.join(120)
        for number, (run, own) in enumerate(zip(runs, judges, strict=True)):
            run.process.send_signal(signal.SIGINT)
            status = run.process.wait(120)
            print(json.dumps({"run": number, **counted(run, own), "status when stopped": status}), flush=True)
        waited = [one for own in judges for judge in own for one in judge.seconds]
        middle, most = statistics.median(waited), max(waited)
        print(
            f"{people} people, {trainings} trainings, {len(waited)} answers in {minutes:g} minutes; answer and next "
            f"question: {middle:.2f} s in the middle, {np.percentile(waited, 95):.2f} s at the 95th percentile, "
            f"{most:.1f} s at most"
        )


def counted(run: Training, judges: list[Judge]) -> dict[str, object]:
    """Return what one run's people were told, and what its record holds."""
    held = [answer.query_id for _, answer in run.store.answers(standing=True) if isinstance(answer, Answer)]
    acknowledged = sum(len(judge.acknowledged) for judge in judges)
    asked_again = len(held) - len(set(held))
    rows = [json.loads(line) for line in (run.out / "metrics.jsonl").read_text().splitlines()]
    return {
        "people": len(judges),
        "acknowledged": acknowledged,
        "in the record": len(held),
        "lost": max(0, acknowledged - len(held)),
        "more than acknowledged": max(0, len(held) - acknowledged),
        "about a question answered before": asked_again,
        "errors": [judge.error for judge in judges if judge.error],
        "still open": run.store.num_open(),
        "environment steps": rows[-1]["num_env_steps"] if rows else 0,
    }


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

"""What reading all of a record costs as it grows, at 2,000 to 200,000 answers: seconds of the processor and megabytes.

    python scripts/benchmarks/benchmark_growth.py
    python scripts/benchmarks/benchmark_growth.py --sizes 2000 20000 --postgres postgresql://user@host/empty_database

Each record holds comparisons of a thousand 5-step segments; each figure is of a process of its own, less what it takes
before it begins.
"""

import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import tyro
from benchmark_record import fill

from prefrl.dataset import export_record
from prefrl.quality import measure_quality
from prefrl.store import PreferenceStore


def pairs(where: Path | str, _: Path) -> None:
    with PreferenceStore(where) as store:
        store.asked_pairs()


def answers(where: Path | str, _: Path) -> None:
    with PreferenceStore(where) as store:
        store.answers()


def quality(where: Path | str, _: Path) -> None:
    with PreferenceStore(where) as store:
        measure_quality(store)


def export(where: Path | str, folder: Path) -> None:
    export_record(where, folder)


def check(where: Path | str, _: Path) -> None:
    with PreferenceStore(where) as store:
        store.check()


WORK: dict[str, Callable[[Path | str, Path], None]] = {
    "pairs asked before (at each resume)": pairs,
    "all answers (at each resume)": answers,
    "is it whole (export, quality, fit, resume)": check,
    "quality": quality,
    "export": export,
}


def _measured(name: str, where: Path | str, folder: Path, out: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    WORK[name](where, folder)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    out.put((time.process_time() - began, used / 1024))


def measure(name: str, where: Path | str, folder: Path) -> tuple[float, float]:
    """Return the seconds and megabytes that a job takes."""
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    process = context.Process(target=_measured, args=(name, where, folder, out))
    process.start()
    found: tuple[float, float] = out.get()
    process.join()
    return found


def main(sizes: tuple[int, ...] = (2_000, 20_000, 200_000), postgres: str | None = None) -> None:
    with tempfile.TemporaryDirectory() as place:
        table: dict[str, list[str]] = {name: [] for name in WORK}
        for size in sizes:
            where: Path | str = postgres or Path(place) / f"record{size}.sqlite"
            with PreferenceStore(where) as store:
                fill(store, size, still_open=0)
            for number, name in enumerate(WORK):
                seconds, megabytes = measure(name, where, Path(place) / f"out{size}-{number}")
                table[name].append(f"{seconds:.2f} s, {megabytes:.0f} MB")
    print("| answers | " + " | ".join(f"{size:,}" for size in sizes) + " |\n" + "|---" * (1 + len(sizes)) + "|")
    for name, cells in table.items():
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

"""What a sweep costs beside its runs: the same runs as plain commands, as many at a time, in turn.

    python scripts/benchmarks/benchmark_sweep.py --seeds 4 --repeats 2

Both make whole runs with the report of their reward, without a video, a thread each, on this machine alone. A sweep's
time includes its own start, that of Ray, and its tables.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import tyro

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}  # as a sweep gives a run with one processor


def prefrl(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "prefrl", *words], check=True, env=ONE_THREAD, stdout=subprocess.DEVNULL)


def plain(options: list[str], seeds: int, at_once: int, out: Path) -> None:
    """Train one run for each seed by plain commands."""
    with ThreadPoolExecutor(at_once) as pool:
        for made in [
            pool.submit(
                prefrl, "train", *options, "--seed", str(seed), "--quiet", "--no-video", "--out", f"{out}/{seed}"
            )
            for seed in range(seeds)
        ]:
            made.result()


def swept(options: list[str], seeds: int, at_once: int, out: Path) -> None:
    """Train the same runs by one sweep."""
    prefrl("sweep", "train", *options, "--seeds", str(seeds), "--out", str(out), "--cpus", "1")


def main(
    env: str = "HalfCheetah-v5", labels: int = 300, steps: int | None = None, seeds: int = 4, repeats: int = 2
) -> None:
    """Print a table.

    Args:
        env: trained in.
        labels: of each run.
        steps: of each run; None: the environment's.
        seeds: runs, each with the next seed.
        repeats: turns.
    """
    at_once = len(os.sched_getaffinity(0))
    options = [env, "--labels", str(labels), *(["--steps", str(steps)] if steps else [])]
    ways: dict[str, Callable[[Path], None]] = {
        "plain commands": partial(plain, options, seeds, at_once),
        "a sweep": partial(swept, options, seeds, at_once),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, make in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                make(Path(folder) / "out")
                taken[name].append(time.perf_counter() - began)
            print(f"{name}: {taken[name][-1]:.1f} s", flush=True)
    extra = [b / a - 1 for a, b in zip(*taken.values(), strict=True)]
    print(
        f"{seeds} runs of {env}, {at_once} at a time: a sweep takes {statistics.median(extra):+.1%} "
        f"({min(extra):+.1%} to {max(extra):+.1%}) in {repeats} turns"
    )


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

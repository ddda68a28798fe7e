"""Resident memory of 10,000 comparisons: into the record, into the data of a fit, through a fit, and back from the record.

    python scripts/benchmark_memory.py

Segments of 50 steps shaped as HalfCheetah's (17 float64 observations, 6 float32 actions) come in sessions of 500 pairs, as
in a run: recorded, answered, recorded again, taken in, forgotten. Random numbers do not compress, so the file is as large
as it can be.
"""

import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch
import tyro
from gymnasium.spaces import Box

from prefrl.feedback import Comparison, Query
from prefrl.rewards import ComparisonData, Fitter, RewardEnsemble
from prefrl.segments import Segment
from prefrl.store import PreferenceStore

SESSION = 500


def show(what: str, begin: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    resident = psutil.Process().memory_info().rss / 1e6
    print(f"| {what} | {resident:.0f} | {peak:.0f} | {time.perf_counter() - begin:.1f} |", flush=True)


def session(number: int, size: int, rng: np.random.Generator) -> list[Query]:
    def segment() -> Segment:
        actions = rng.uniform(-1, 1, (50, 6)).astype(np.float32)
        return Segment(observations=rng.normal(size=(51, 17)), actions=actions, true_rewards=rng.normal(size=50))

    return [Query(segments=(segment(), segment()), session=number) for _ in range(size)]


def main(comparisons: int = 10_000) -> None:
    torch.set_num_threads(1)
    rng, ensemble = np.random.default_rng(0), RewardEnsemble(Box(-np.inf, np.inf, (17,)), Box(-1, 1, (6,)))
    data = ComparisonData(ensemble, 50, capacity=comparisons)
    print("| | resident MB | highest so far, MB | seconds |\n|---|---|---|---|")
    show("before", time.perf_counter())
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, PreferenceStore(Path(folder) / "record.sqlite") as store:
        for number, first in enumerate(range(0, comparisons, SESSION)):
            queries = session(number, min(SESSION, comparisons - first), rng)
            store.add_queries(queries)
            answers = [Comparison(query_id=q.id, preference=float(rng.integers(2)), annotator="coin") for q in queries]
            store.add_answers(answers)
            data.add([q.segments for q in queries], [a.preference for a in answers], rng)
        show("recorded and encoded", begin)
        begin = time.perf_counter()
        Fitter(ensemble).fit(data, torch.Generator().manual_seed(0))
        show("after a fit", begin)
        size = store.path.stat().st_size / 1e6
    print(f"\nThe record is a file of {size:.0f} MB.")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

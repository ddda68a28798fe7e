"""Memory of 10,000 comparisons: through the record, into the tensors of a fit, through one fit.

    python scripts/benchmarks/benchmark_memory.py

Segments of 50 steps shaped as HalfCheetah's (17 float64 observations, 6 float32 actions) come in sessions of 500 pairs:
recorded, answered, encoded, forgotten, as in a run. "Resident" is what the process holds at that moment, "highest" the
most it ever held, libraries included. Random numbers hardly compress, so the file is as large as it can get.
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
from prefrl.rewards import ComparisonData, Fitter, RewardEnsemble, RewardSettings
from prefrl.segments import Segment
from prefrl.store import PreferenceStore


def show(what: str, begin: float) -> None:
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts it in KiB
    resident = psutil.Process().memory_info().rss
    print(f"| {what} | {resident / 1e6:.0f} | {highest / 1e6:.0f} | {time.perf_counter() - begin:.1f} |", flush=True)


def segment(rng: np.random.Generator) -> Segment:
    actions = rng.uniform(-1, 1, (50, 6)).astype(np.float32)
    return Segment(observations=rng.normal(size=(51, 17)), actions=actions, true_rewards=rng.normal(size=50))


def main(sessions: int = 20) -> None:
    torch.set_num_threads(1)
    begin, rng = time.perf_counter(), np.random.default_rng(0)
    ensemble = RewardEnsemble(Box(-np.inf, np.inf, (17,)), Box(-1, 1, (6,)), RewardSettings(num_members=3))
    fitter, data = Fitter(ensemble), ComparisonData(ensemble, 50, capacity=sessions * 500)
    print("| | resident, MB | highest, MB | seconds |\n|---|---|---|---|")
    show("libraries alone", begin)
    with tempfile.TemporaryDirectory() as folder, PreferenceStore(record := Path(folder) / "record.sqlite") as store:
        for number in range(sessions):
            queries = [Query(segments=(segment(rng), segment(rng)), session=number) for _ in range(500)]
            store.add_queries(queries)
            preferences = rng.integers(2, size=500).astype(float).tolist()
            pairs = zip(queries, preferences, strict=True)
            store.add_answers([Comparison(query_id=q.id, preference=p, annotator="coin") for q, p in pairs])
            data.add([query.segments for query in queries], preferences, rng)
        show(f"{len(data)} comparisons recorded and encoded", begin)
        fitter.fit(data, torch.Generator().manual_seed(0))
        show("fitted once", begin)
        print(f"\nThe record is a file of {record.stat().st_size / 1e6:.0f} MB.")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

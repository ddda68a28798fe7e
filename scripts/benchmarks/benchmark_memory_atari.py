"""Memory of 5,500 comparisons of 25 steps of Atari: through the record and into the data of a fit.

    python scripts/benchmarks/benchmark_memory_atari.py

Played at random; pairs of segments drawn from the history, under its cap, in 11 sessions: recorded, answered, encoded.
"Resident" is what the process holds then, "highest" the most it ever held, libraries and emulators included.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import tyro
from benchmark_memory import show

from prefrl.agents.stepping import Stepper
from prefrl.envs import make_vector_env
from prefrl.feedback import Comparison, Query
from prefrl.history import History
from prefrl.rewards import ComparisonData, RewardEnsemble, RewardSettings
from prefrl.store import PreferenceStore


def main(game: str = "Seaquest", sessions: int = 11, steps: int = 300, num_envs: int = 8) -> None:
    torch.set_num_threads(1)
    begin, rng = time.perf_counter(), np.random.default_rng(0)
    stepper, history = Stepper(make_vector_env(f"prefrl/Atari-{game}-v0", num_envs)), History()
    stepper.reset(0)
    envs = stepper.envs
    data = ComparisonData(
        RewardEnsemble(envs.single_observation_space, envs.single_action_space, RewardSettings(num_members=3)), 25
    )
    print("| | resident, MB | highest, MB | seconds |\n|---|---|---|---|")
    show("libraries and emulators", begin)
    with tempfile.TemporaryDirectory() as folder, PreferenceStore(record := Path(folder) / "record.sqlite") as store:
        for number in range(sessions):
            stepper.begin(steps)
            for _ in range(steps):
                stepper.step(rng.integers(envs.single_action_space.n, size=num_envs))
            history.add(stepper.take())
            drawn = history.sample(1000, 25, rng)
            queries = [Query(segments=(a, b), session=number) for a, b in zip(drawn[::2], drawn[1::2], strict=True)]
            store.add_queries(queries)
            answers = rng.integers(2, size=len(queries)).astype(float).tolist()
            pairs = zip(queries, answers, strict=True)
            store.add_answers([Comparison(query_id=q.id, preference=p, annotator="coin") for q, p in pairs])
            data.add([query.segments for query in queries], answers, rng)
        show(f"{len(data)} comparisons of {game} recorded and encoded", begin)
        start = time.perf_counter()
        data.features(torch.arange(128))
        seconds, on_disk = time.perf_counter() - start, record.stat().st_size / 1e6
    print(f"\nThe record is a file of {on_disk:.0f} MB. Images in memory: {data.images.nbytes / 1e6:.0f} MB; ", end="")
    print(f"those of 128 segments are unpacked in {seconds:.3f} s.")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

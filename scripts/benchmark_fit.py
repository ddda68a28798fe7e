"""Comparisons per second that a reward ensemble is fitted on: ours, and that of imitation 1.0.1 in the same run.

    python scripts/benchmark_fit.py --repeats 3 --imitation-python peer/bin/python

Three members of 2 x 32 units, segments of 100 steps shaped as HalfCheetah's (17 float observations, 6 actions), batches of
32, one thread; the two take turns. A comparison counts once when it has been through the forward and backward pass of
all members. Our time includes encoding the segments, the held-out losses that steer the l2 coefficient, and the report;
imitation's is one call of its `EnsembleTrainer`, without true rewards in the segments, regulariser or input normalisation.
"""

import subprocess
import time
from pathlib import Path

import numpy as np
import torch
import tyro
from gymnasium.spaces import Box

from prefrl.rewards import ComparisonData, FitSettings, Fitter, RewardEnsemble, RewardSettings
from prefrl.segments import Segment

PEER = Path(__file__).with_name("benchmark_fit_imitation.py")
HINT = """imitation needs older packages than ours, hence an environment of its own:
    python -m venv peer && peer/bin/pip install imitation==1.0.1 "setuptools<81" torch==2.13.0
    python scripts/benchmark_fit.py --imitation-python peer/bin/python"""


def ours(comparisons: int, epochs: int) -> float:
    rng = np.random.default_rng(0)
    segments = [
        Segment(observations=rng.normal(size=(101, 17)), actions=rng.uniform(-1, 1, (100, 6)), true_rewards=np.zeros(100))
        for _ in range(2 * comparisons)
    ]
    pairs = list(zip(segments[::2], segments[1::2], strict=True))
    ensemble = RewardEnsemble(Box(-np.inf, np.inf, (17,)), Box(-1, 1, (6,)), RewardSettings(hidden=(32, 32)))
    steps = epochs * -(-comparisons // 32)
    fitter = Fitter(ensemble, FitSettings(batch_size=32, num_steps=steps, first_steps=steps, patience=0))
    begin = time.perf_counter()
    data = ComparisonData(ensemble, 100)
    data.add(pairs, rng.integers(2, size=comparisons).tolist(), rng)
    fitter.fit(data, torch.Generator().manual_seed(0))
    return epochs * comparisons / (time.perf_counter() - begin)


def main(comparisons: int = 320, epochs: int = 5, repeats: int = 3, imitation_python: Path | None = None) -> None:
    torch.set_num_threads(1)
    speeds: dict[str, list[float]] = {"prefrl": []} | ({} if imitation_python is None else {"imitation 1.0.1": []})
    for _ in range(repeats):
        speeds["prefrl"].append(ours(comparisons, epochs))
        if imitation_python is not None:
            command = [str(imitation_python), str(PEER), str(comparisons), str(epochs)]
            speeds["imitation 1.0.1"].append(float(subprocess.check_output(command, text=True).split()[-1]))
    print("| comparisons per second | median | least | most |\n|---|---|---|---|")
    if imitation_python is not None:
        speeds["ratio"] = (np.array(speeds["prefrl"]) / speeds["imitation 1.0.1"]).tolist()
    for name, row in speeds.items():
        print(f"| {name} | {np.median(row):.4g} | {min(row):.4g} | {max(row):.4g} |")
    if imitation_python is None:
        print(HINT)


if __name__ == "__main__":
    tyro.cli(main)

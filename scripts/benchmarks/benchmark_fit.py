"""Comparisons per second that a reward ensemble is fitted on: ours, and imitation 1.0.1's in the same run.

    python scripts/benchmarks/benchmark_fit.py --imitation-python peer/bin/python

Three members of 2 x 32 units, segments of 100 steps shaped as HalfCheetah's (17 float observations, 6 actions), batches
of 32, one thread; the two take turns. A comparison counts once per epoch, in which it goes forward and backward through
all members. Our time includes encoding the segments, watching held-out losses, adapting the l2 coefficient and the
report. imitation's is one call of its `EnsembleTrainer`, with neither regulariser nor true rewards, which only slow it.
"""

import os
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
NAMES = ("prefrl", "imitation 1.0.1", "prefrl / imitation")
INSTALL = 'python -m venv peer && peer/bin/pip install imitation==1.0.1 "setuptools<81" torch==2.13.0 tyro'


def ours(comparisons: int, epochs: int) -> float:
    rng, num = np.random.default_rng(0), 2 * comparisons
    arrays = zip(rng.normal(size=(num, 101, 17)), rng.uniform(-1, 1, (num, 100, 6)).astype(np.float32), strict=True)
    segments = [Segment(observations=seen, actions=done, true_rewards=np.zeros(100)) for seen, done in arrays]
    ensemble = RewardEnsemble(
        Box(-np.inf, np.inf, (17,)), Box(-1, 1, (6,)), RewardSettings(num_members=3, hidden=(32, 32))
    )
    steps = epochs * -(-comparisons // 32)
    fitter = Fitter(ensemble, FitSettings(batch_size=32, num_steps=steps, first_steps=steps, patience=0))
    begin = time.perf_counter()
    data = ComparisonData(ensemble, 100)
    data.add(list(zip(segments[::2], segments[1::2], strict=True)), rng.integers(2, size=comparisons).tolist(), rng)
    fitter.fit(data, torch.Generator().manual_seed(0))
    return epochs * comparisons / (time.perf_counter() - begin)


def main(comparisons: int = 320, epochs: int = 6, repeats: int = 5, imitation_python: Path | None = None) -> None:
    torch.set_num_threads(1)
    pairs = []
    for _ in range(repeats):
        pairs.append([ours(comparisons, epochs)])
        if imitation_python is not None:
            command = [str(imitation_python), str(PEER), "--comparisons", str(comparisons), "--epochs", str(epochs)]
            theirs = subprocess.check_output(command, text=True, env={**os.environ, "TQDM_DISABLE": "1"})
            pairs[-1] += [float(theirs), pairs[-1][0] / float(theirs)]
    print("| comparisons per second | median | least | most |\n|---|---|---|---|")
    for name, row in zip(NAMES, np.transpose(pairs), strict=False):
        print(f"| {name} | {np.median(row):.4g} | {row.min():.4g} | {row.max():.4g} |")
    print("" if imitation_python else f"\nFor imitation beside it: {INSTALL}; then --imitation-python peer/bin/python")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

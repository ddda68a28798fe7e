"""imitation's part of `benchmark_fit.py`, for an interpreter that has imitation 1.0.1; prints comparisons per second.

peer/bin/python scripts/benchmarks/benchmark_fit_imitation.py --comparisons 320 --epochs 6
"""

import tempfile
import time

import numpy as np
import torch
import tyro
from gymnasium.spaces import Box
from imitation.algorithms import preference_comparisons as peer
from imitation.data.types import Trajectory
from imitation.rewards.reward_nets import BasicRewardNet, RewardEnsemble
from imitation.util import logger


def main(comparisons: int, epochs: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    num = 2 * comparisons
    observations, actions = rng.normal(size=(num, 101, 17)), rng.uniform(-1, 1, (num, 100, 6)).astype(np.float32)
    segments = [
        Trajectory(obs=o, acts=a, infos=None, terminal=False) for o, a in zip(observations, actions, strict=True)
    ]
    data = peer.PreferenceDataset()
    answers = rng.integers(2, size=comparisons).astype(np.float32)
    data.push(list(zip(segments[::2], segments[1::2], strict=True)), answers)
    spaces = Box(-np.inf, np.inf, (17,)), Box(-1, 1, (6,))
    ensemble = RewardEnsemble(*spaces, [BasicRewardNet(*spaces, hid_sizes=(32, 32)) for _ in range(3)])
    model = peer.PreferenceModel(ensemble)
    with tempfile.TemporaryDirectory() as folder:
        quiet = logger.configure(folder, [])
        trainer = peer.EnsembleTrainer(
            model, peer.CrossEntropyRewardLoss(), rng, batch_size=32, epochs=epochs, custom_logger=quiet
        )
        begin = time.perf_counter()
        trainer.train(data)
        print(epochs * comparisons / (time.perf_counter() - begin))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

"""How many threads are used where: one in a training, one by a fit of perceptrons, all by one of images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from threadpoolctl import threadpool_info

from prefrl.rewards import FitSettings, RewardEnsemble, RewardSettings
from prefrl.rewards.data import ComparisonData
from prefrl.rewards.fit import Fitter
from prefrl.segments import Segment
from prefrl.threads import one_thread, torch_threads


def blas_threads() -> set[int]:
    return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}


def test_a_training_uses_one_thread_of_both_libraries_and_gives_them_back() -> None:
    before = blas_threads()
    assert before, "numpy brings a library for its products"
    with torch_threads(2):
        with one_thread() as given:
            assert (given, torch.get_num_threads(), blas_threads()) == (2, 1, {1})
        assert torch.get_num_threads() == 2 and blas_threads() == before


@pytest.mark.parametrize(
    ("space", "threads"),
    [(spaces.Box(-1, 1, (3,)), 1), (spaces.Box(0, 255, (36, 36, 1), np.uint8), 2)],
    ids=["numbers", "images"],
)
def test_a_fit_of_perceptrons_uses_one_thread(space: spaces.Box, threads: int, monkeypatch: Any) -> None:
    actions = spaces.Box(-1, 1, (2,))
    reward = RewardEnsemble(space, actions, RewardSettings(), seed=0)
    data = ComparisonData(reward, 4, bootstrap=True)
    segments = []
    for seed in (0, 1):
        space.seed(seed)
        seen = np.stack([space.sample() for _ in range(5)])
        segments.append(Segment(observations=seen, actions=np.zeros((4, 2), np.float32), true_rewards=np.ones(4)))
    data.add([segments], [1.0], np.random.default_rng(0))
    used = set()
    with torch_threads(2):
        Fitter(reward, FitSettings(num_steps=2, first_steps=2)).fit(
            data, torch.Generator().manual_seed(0), lambda _: used.add(torch.get_num_threads())
        )
        assert torch.get_num_threads() == 2
    assert used == {threads}

"""How many threads are used where: one in a training, one by a fit of perceptrons, all by one of images."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
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
from prefrl.threads import TIMES_ALONE, SideBySide, one_thread, torch_threads


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


@pytest.fixture
def side_by_side() -> Iterator[SideBySide]:
    made = SideBySide()
    yield made
    made.close()


def test_two_things_are_done_at_once_only_where_a_thread_is_held_back(side_by_side: SideBySide) -> None:
    meeting, here = threading.Barrier(2, timeout=20), threading.get_ident()
    who: list[int] = []
    with torch_threads(2), one_thread():
        side_by_side(meeting.wait, lambda: (who.append(threading.get_ident()), meeting.wait()))
    assert who != [here]
    side_by_side(lambda: who.append(threading.get_ident()), lambda: who.append(threading.get_ident()))
    with torch_threads(1), one_thread():
        side_by_side(lambda: who.append(threading.get_ident()), lambda: who.append(threading.get_ident()))
    assert who[1:] == [here] * 4


def test_what_the_second_thread_has_not_begun_is_done_here(side_by_side: SideBySide) -> None:
    here, free, who = threading.get_ident(), threading.Event(), []
    with torch_threads(2), one_thread():
        busy = side_by_side._worker.submit(free.wait, 20)
        side_by_side(lambda: None, lambda: who.append(threading.get_ident()))
        assert who == [here] and not busy.done()
        free.set()


@pytest.mark.parametrize(("waited", "alone"), [(0.002, 0), (0.003, TIMES_ALONE)])
def test_a_second_thread_that_keeps_the_first_waiting_is_left_alone_for_a_while(
    waited: float, alone: int, side_by_side: SideBySide, monkeypatch: pytest.MonkeyPatch
) -> None:
    who: list[int] = []
    begun = threading.Event()
    clock = iter([0.0, 0.001, 0.001 + waited])  # at the start, when the first is done, and the second
    with torch_threads(2), one_thread():
        monkeypatch.setattr("prefrl.threads.time", SimpleNamespace(perf_counter=lambda: next(clock)))
        side_by_side(lambda: begun.wait(20), lambda: (begun.set(), time.sleep(0.05)))
        assert side_by_side._alone == alone
        side_by_side._alone = 1
        side_by_side(lambda: None, lambda: who.append(threading.get_ident()))
        assert who == [threading.get_ident()] and side_by_side._alone == 0


def test_what_either_of_two_things_raises_is_raised_when_both_are_over(side_by_side: SideBySide) -> None:
    done = []

    def fail() -> None:
        raise ZeroDivisionError

    with torch_threads(2), one_thread():
        begun = threading.Event()
        with pytest.raises(ZeroDivisionError):
            side_by_side(lambda: begun.wait(20), lambda: (begun.set(), fail()))
        side_by_side._alone = 0
        begun.clear()

        def fails_later() -> None:
            begun.wait(20)
            fail()

        with pytest.raises(ZeroDivisionError):
            side_by_side(fails_later, lambda: (begun.set(), time.sleep(0.05), done.append(1)))
    assert done == [1]

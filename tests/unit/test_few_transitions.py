"""A small reward evaluated by NumPy: what torch says, at every size, and of the weights as they are now."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from prefrl.rewards.ensemble import FEW, RewardEnsemble
from prefrl.rewards.settings import RewardSettings
from prefrl.spaces import Batch, all_finite
from prefrl.wrappers import LearnedReward

OBSERVATIONS = spaces.Box(-np.inf, np.inf, (4,), np.float32)
ACTIONS = spaces.Discrete(3, start=-1)


def fitted(hidden: tuple[int, ...] = (64, 64), num_members: int = 3, clip_inputs: float = 10.0) -> RewardEnsemble:
    settings = RewardSettings(hidden=hidden, num_members=num_members, clip_inputs=clip_inputs)
    reward = RewardEnsemble(OBSERVATIONS, ACTIONS, settings, seed=1)
    reference = transitions(200, seed=5)
    reward.set_input_statistics(*reference)
    reward.normalise(*reference)
    return reward


def transitions(num: int, seed: int = 0) -> tuple[Batch, NDArray[np.int64], Batch]:
    rng = np.random.default_rng(seed)
    observations = rng.normal(size=(num + 1, 4)).astype(np.float32) * [1.0, 100.0, 1e-3, 1.0]
    return observations[:-1], rng.integers(-1, 2, num), observations[1:]


@pytest.mark.parametrize("hidden", [(), (8,), (64, 64), (5, 7, 3)])
@pytest.mark.parametrize("num_members", [1, 3])
@pytest.mark.parametrize("num", [1, 2, 64, FEW])
def test_it_is_what_torch_says_to_the_sixth_digit(hidden: tuple[int, ...], num_members: int, num: int) -> None:
    reward = fitted(hidden, num_members)
    batch = transitions(num)
    found = reward.of_few(*batch)
    assert found.shape == (num,) and found.dtype == np.float32
    shift = float((reward.reward_mean / reward.reward_std).abs().max())  # what is subtracted takes digits along
    np.testing.assert_allclose(found, reward(*batch), rtol=1e-6, atol=1e-6 * (1 + shift))


def test_inputs_far_out_are_clipped_alike() -> None:
    reward = fitted(clip_inputs=0.5)
    batch = transitions(32)
    np.testing.assert_allclose(reward.of_few(*batch), reward(*batch), rtol=1e-6, atol=1e-6)


def test_weights_and_statistics_that_change_are_followed() -> None:
    reward, batch = fitted(), transitions(4)
    before = reward.of_few(*batch)
    with torch.no_grad():
        reward.network.weights[1].mul_(1.5)  # as an optimiser does: in place
    changed = reward.of_few(*batch)
    assert not np.allclose(before, changed)
    np.testing.assert_allclose(changed, reward(*batch), rtol=1e-6, atol=1e-6)
    reward.normalise(*transitions(50, seed=9))
    np.testing.assert_allclose(reward.of_few(*batch), reward(*batch), rtol=1e-6, atol=1e-6)
    reward.input_mean += 0.25
    np.testing.assert_allclose(reward.of_few(*batch), reward(*batch), rtol=1e-6, atol=1e-6)
    reward.load_state_dict(fitted(num_members=3).state_dict())
    np.testing.assert_allclose(reward.of_few(*batch), before, rtol=1e-6, atol=1e-6)


def test_threads_do_not_disturb_each_other() -> None:
    reward = fitted()
    batches = [transitions(3, seed) for seed in range(8)]
    expected = [reward(*batch) for batch in batches]

    def work(index: int) -> bool:
        return all(np.allclose(reward.of_few(*batches[index]), expected[index], atol=1e-6) for _ in range(50))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(8)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_batch_with_one_value_that_is_no_number_is_found_and_large_ones_are_not(value: float) -> None:
    for dtype in (np.float16, np.float32, np.float64):
        values = np.zeros((3, 5), dtype)
        values[1, 2] = np.finfo(dtype).max  # its square overflows
        assert all_finite(values) and all_finite(values.T) and all_finite(np.array(2.0, dtype))
        values[2, 4] = value
        assert not all_finite(values) and not all_finite(values.T)


def test_a_saved_reward_scores_the_same_in_gymnasiums_environment() -> None:
    env = gymnasium.make("CartPole-v1")
    reward = RewardEnsemble(env.observation_space, env.action_space, seed=2)
    wrapped = LearnedReward(env, reward)
    before, _ = wrapped.reset(seed=0)
    for _ in range(8):
        after, found, *_ = wrapped.step(1)
        expected = reward(before[None], np.array([1]), after[None])[0]
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)
        before = after

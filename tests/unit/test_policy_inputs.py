"""What a policy sees of observations in any units."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from prefrl.agents.inputs import CLIP, PolicyInputs
from prefrl.agents.moments import EPSILON, RunningMoments, sampled_variance


def seen(values: np.ndarray) -> np.ndarray:
    """Return what a policy sees of samples `(B, D)` once it knows them, batch by batch."""
    inputs = PolicyInputs(spaces.Box(-np.inf, np.inf, values.shape[1:], np.float64), None, torch.device("cpu"))
    for part in np.split(values, 10):
        inputs.learn(part)
    return inputs.encode(values).numpy()


def samples(num: int = 4000) -> np.ndarray:
    return np.random.default_rng(0).normal([0.5, -2.0, 0.0], [1.0, 0.3, 2.0], (num, 3))


@pytest.mark.parametrize("unit", [1e-5, 1e-7, 1e-9])
def test_observations_are_seen_alike_in_any_unit(unit: float) -> None:
    np.testing.assert_allclose(seen(samples() * unit), seen(samples()), atol=1e-2)
    np.testing.assert_allclose(seen(samples() * unit).std(0), 1, atol=1e-2)


@pytest.mark.parametrize("unit", np.geomspace(1e-10, 1e3, 40))
def test_no_unit_hides_observations(unit: float) -> None:
    deviations = seen(samples() * unit).std(0)
    assert (deviations > 0.4).all() and (deviations < 1.01).all()


def test_one_entry_in_small_units_is_seen_beside_others() -> None:
    values = samples()
    values[:, 1] *= 1e-5  # standard deviation 3e-6
    np.testing.assert_allclose(seen(values)[:, 1], seen(samples())[:, 1], atol=1e-3)


@pytest.mark.parametrize("constant", [0.0, 1.0, 0.1, -3e4, 1.76e9])
def test_what_does_not_vary_but_by_rounding_is_seen_as_it_was(constant: float) -> None:
    values = samples()
    values[:, 1] = constant * (1 + 1e-8 * values[:, 1])
    assert np.abs(seen(values)[:, 1]).max() < 0.5 * CLIP
    inputs = PolicyInputs(spaces.Box(-np.inf, np.inf, (3,), np.float64), None, torch.device("cpu"))
    inputs.learn(values)
    assert inputs.moments is not None
    plain = 1 / np.sqrt(inputs.moments.variance + EPSILON)  # as in stable-baselines3
    np.testing.assert_array_equal(inputs._scale, plain.astype(np.float32))


def test_the_variance_of_what_was_seen_is_that_of_numpy() -> None:
    values = samples() * [1.0, 1e-4, 1e-8] + [0.0, 1e-4, 3e-8]
    moments = RunningMoments((3,))
    np.testing.assert_array_equal(sampled_variance(moments.mean, moments.variance, moments.count), 0)
    for part in np.split(values, 8):
        moments.update(part)
    found = sampled_variance(moments.mean, moments.variance, moments.count)
    np.testing.assert_allclose(found, values.var(0), rtol=1e-6)


@pytest.mark.parametrize("unit", [1.0, 1e-7])
def test_agents_of_stable_baselines3_see_small_units_too(unit: float) -> None:
    pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.running_mean_std import RunningMeanStd

    from prefrl.agents.sb3_envs import Normalized

    values = samples() * unit
    envs, statistics = Normalized.__new__(Normalized), RunningMeanStd(shape=(3,))
    envs.clip_obs = CLIP
    for part in np.split(values, 10):
        statistics.update(part)
    found = envs._normalize_obs(values, statistics)
    np.testing.assert_allclose(found, seen(values), atol=1e-4)
    if unit == 1:
        plain = (values - statistics.mean) / np.sqrt(statistics.var + EPSILON)
        np.testing.assert_array_equal(found, np.clip(plain, -CLIP, CLIP))

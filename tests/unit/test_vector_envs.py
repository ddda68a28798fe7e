"""Copies of an environment: in a loop, and the fixed-horizon form of those that are stepped all at once."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from prefrl.envs import EnvLoop, VectorFixedHorizon, make_env, make_vector_env, task
from prefrl.errors import UserError

pytestmark = pytest.mark.lowest


def test_the_loop_steps_as_gymnasiums_own_vector_environment() -> None:
    makes = [lambda: gymnasium.make("CartPole-v1", max_episode_steps=9)] * 3
    ours, theirs = EnvLoop(makes), SyncVectorEnv(makes, autoreset_mode=AutoresetMode.SAME_STEP)
    assert np.array_equal(ours.reset(seed=4)[0], theirs.reset(seed=4)[0])
    random = np.random.default_rng(0)
    ends = 0
    for _ in range(40):
        actions = random.integers(2, size=3)
        seen, expected = ours.step(actions), theirs.step(actions)
        for mine, other in zip(seen[:4], expected[:4], strict=True):
            assert np.array_equal(mine, other)
        ended = seen[2] | seen[3]
        assert ended.any() == ("final_obs" in seen[4])
        for place, env in enumerate(np.flatnonzero(ended)):
            assert np.array_equal(seen[4]["final_obs"][place], expected[4]["final_obs"][env])
            ends += 1
    assert ends > 6
    ours.close()


HORIZON, HOLD = 120, task("Hopper-v5").hold


@pytest.fixture(scope="module")
def hopper() -> tuple[list[Any], list[list[Any]]]:
    """Steps of three hoppers at once and of three alone, the same actions."""
    many = make_vector_env("Hopper-v5", 3, fixed_horizon=HORIZON)
    assert isinstance(many, VectorFixedHorizon)
    alone = [make_env("Hopper-v5", fixed_horizon=HORIZON) for _ in range(3)]
    starts = [env.reset(seed=7 + i)[0] for i, env in enumerate(alone)]
    assert np.array_equal(many.reset(seed=7)[0], starts)
    random = np.random.default_rng(0)
    together, apart = [], []
    for _ in range(2 * HORIZON):
        actions = random.uniform(-1, 1, (3, 3)).astype(np.float32)
        together.append(many.step(actions))
        apart.append([env.step(actions[i]) for i, env in enumerate(alone)])
        if apart[-1][0][3]:
            apart[-1] = [
                (*step[:4], {**step[4], "next": env.reset()[0]}) for step, env in zip(apart[-1], alone, strict=True)
            ]
    return together, apart


def test_bulk_fixed_horizon_agrees_with_the_single_form_up_to_the_first_restart(
    hopper: tuple[list[Any], list[list[Any]]],
) -> None:
    together, apart = hopper
    for env in range(3):
        restart = next(t for t, step in enumerate(apart) if step[env][4].get("restarted"))
        for t in range(restart):
            assert np.array_equal(together[t][0][env], apart[t][env][0])
            assert together[t][1][env] == apart[t][env][1]
            assert together[t][4]["hidden_terminated"][env] == apart[t][env][4].get("hidden_terminated", False)
        assert together[restart][4]["restarted"][env]


def test_bulk_fixed_horizon_holds_ends_and_never_terminates(hopper: tuple[list[Any], list[list[Any]]]) -> None:
    together, _ = hopper
    assert not any(step[2].any() for step in together)
    assert [t for t, step in enumerate(together) if step[3].any()] == [HORIZON - 1, 2 * HORIZON - 1]
    assert all(step[3].all() for step in together[HORIZON - 1 :: HORIZON])
    holds = 0
    for env in range(3):
        for t in range(HORIZON - HOLD - 1):
            if not together[t][4]["hidden_terminated"][env]:
                continue
            held = together[t + 1 : t + 1 + HOLD]
            assert all(step[1][env] == -1.0 for step in held)
            assert all(np.array_equal(step[0][env], together[t][0][env]) for step in held[:-1])
            assert held[-1][4]["restarted"][env]
            assert not np.array_equal(held[-1][0][env], together[t][0][env])
            assert not any(step[4]["hidden_terminated"][env] for step in held)
            holds += 1
    assert holds >= 3


def test_the_last_observation_of_an_episode_is_kept(hopper: tuple[list[Any], list[list[Any]]]) -> None:
    together, _ = hopper
    last = together[HORIZON - 1]
    assert last[4]["final_obs"].shape == last[0].shape
    assert not np.array_equal(last[4]["final_obs"], last[0])


def test_plain_form_keeps_the_time_limit() -> None:
    envs = make_vector_env("Reacher-v5", 2)
    envs.reset(seed=0)
    truncated = [envs.step(np.zeros((2, 2)))[3].all() for _ in range(100)]
    assert np.flatnonzero(truncated).tolist() == [49, 99]


def test_other_environments_are_stepped_in_a_loop() -> None:
    envs = make_vector_env("CartPole-v1", 2, fixed_horizon=50)
    assert isinstance(envs, EnvLoop)
    envs.close()


@pytest.mark.parametrize("arguments", [{"horizon": 0}, {"horizon": 5, "hold": 0}])
def test_a_horizon_below_one_is_refused(arguments: dict[str, int]) -> None:
    inner = gymnasium.make_vec("prefrl/Hopper-v5", 1, autoreset_mode=AutoresetMode.DISABLED)
    with pytest.raises(UserError, match="at least 1 step"):
        VectorFixedHorizon(inner, terminal_reward=0.0, **arguments)


def test_an_inner_environment_that_resets_itself_is_refused() -> None:
    inner = gymnasium.make_vec("prefrl/Hopper-v5", 1, autoreset_mode=AutoresetMode.SAME_STEP)
    with pytest.raises(UserError, match="DISABLED"):
        VectorFixedHorizon(inner, 5, 0.0)

"""The paper's eight MuJoCo tasks: their rewards, worked out from Gymnasium's own environments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from prefrl.envs import TASKS, episode_length, make_env
from prefrl.envs.christiano import PAPER_TASKS
from prefrl.envs.registration import PAPER_SIZES
from prefrl.errors import UserError


def _torque_free(env: Any, reward: float, info: dict[str, Any]) -> float:
    return reward - info["reward_ctrl"] - info["reward_survive"]


# The authors' bonus is added to Gym's old reward, whose bonus for staying alive was the same in every state.
BY_HAND: dict[str, tuple[str, Callable[[Any, float, dict[str, Any]], float]]] = {
    "Hopper": ("Hopper-v5", lambda env, r, i: _torque_free(env, r, i) + 1 + (env.data.qpos[1] - 1)),
    "Walker": ("Walker2d-v5", lambda env, r, i: _torque_free(env, r, i) + 1 + (env.data.qpos[1] - 2)),
    "Ant": ("Ant-v5", lambda env, r, i: _torque_free(env, r, i) - i["reward_contact"] + env.data.qpos[2] - 1.2),
    "Cheetah": ("HalfCheetah-v5", lambda env, r, i: r - i["reward_ctrl"]),
    "Swimmer": ("Swimmer-v5", lambda env, r, i: r - i["reward_ctrl"]),
    "Reacher": ("Reacher-v5", lambda env, r, i: r - i["reward_ctrl"]),
    "Pendulum": ("InvertedPendulum-v5", lambda env, r, i: 1 - env.data.qpos[1] ** 2),
    "DoublePendulum": (
        "InvertedDoublePendulum-v5",
        lambda env, r, i: r - i["reward_survive"] + 10 + 10 * (env.data.site_xpos[0][2] - 1),
    ),
}


@pytest.mark.parametrize("name", PAPER_TASKS)
def test_rewards_are_the_papers_whatever_the_robot_does(name: str) -> None:
    peer_id, by_hand = BY_HAND[name]
    env = gymnasium.make_vec(f"prefrl/Christiano-{name}-v0", num_envs=1)
    peer = gymnasium.make(peer_id).unwrapped  # unwrapped, it goes on after a fall
    observations, _ = env.reset(seed=4)
    assert np.array_equal(observations[0], peer.reset(seed=4)[0])
    random, space = np.random.default_rng(0), env.single_action_space
    num_fallen, falls, was_down = 0, [], False
    for step in range(PAPER_SIZES[name].horizon - 1):
        action = random.uniform(space.low, space.high).astype(np.float32)
        observations, rewards, terminated, truncated, info = env.step(action[None])
        seen, reward, down, _, terms = peer.step(action)
        assert np.array_equal(observations[0], seen)
        assert rewards[0] == pytest.approx(by_hand(peer, reward, terms), abs=1e-9)
        assert not terminated.any()
        assert not truncated.any()
        num_fallen += down
        falls += [step] * (down and not was_down)
        assert info.get("hidden_terminated", [False])[0] == (down and not was_down)
        was_down = down
        if step == 300:
            break
    assert bool(falls) == (name in ("Hopper", "Walker", "Ant", "Pendulum", "DoublePendulum"))
    assert num_fallen >= len(falls)


@pytest.mark.parametrize("name", PAPER_TASKS)
def test_episodes_last_as_long_as_in_the_paper_and_clips_a_second_and_a_half(name: str) -> None:
    env_id, size = f"prefrl/Christiano-{name}-v0", PAPER_SIZES[name]
    assert episode_length(env_id) == size.horizon
    assert TASKS[env_id].segment_length == 1.5 * size.clip_fps
    assert 15 <= TASKS[env_id].segment_length <= 60
    if size.horizon < 100:
        one = make_env(env_id)
        many = gymnasium.make_vec(env_id, num_envs=2, autoreset_mode=AutoresetMode.SAME_STEP)
        assert np.array_equal(one.reset(seed=2)[0], many.reset(seed=2)[0][0])
        space = many.single_action_space
        for step in range(1, size.horizon + 1):
            action = np.full(space.shape, 0.1 * space.high, np.float32)
            single, several = one.step(action), many.step(np.stack([action, action]))
            assert single[3] == several[3].all() == (step == size.horizon)
            assert single[1] == several[1][0]


def test_a_fall_is_marked_once_and_again_after_a_reset() -> None:
    env = gymnasium.make_vec("prefrl/Christiano-Pendulum-v0", num_envs=2, reset_noise_scale=0.19)
    env.reset(seed=0)
    falls = np.zeros(2, int)
    for _ in range(3 * 26):
        info = env.step(np.zeros((2, 1), np.float32))[4]
        falls += info.get("hidden_terminated", np.zeros(2, bool))
    assert (falls == 3).all()  # three episodes, each with one fall


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("Hoper", {}, "no task 'Hoper' in the paper. Did you mean 'Hopper'"),
        ("Hopper", {"ctrl_cost_weight": 0.1}, r"ctrl_cost_weight has no effect .* fixed: v \+ 1 \+ \(z - 1\)"),
        ("Ant", {"terminate_when_unhealthy": True}, "terminate_when_unhealthy has no effect"),
        ("Cheetah", {"colour": "red"}, "HalfCheetahEnv has no option 'colour'"),
    ],
)
def test_what_makes_no_sense_is_refused(task: str, options: dict[str, Any], message: str) -> None:
    from prefrl.envs.christiano import christiano_vector

    with pytest.raises(UserError, match=message):
        christiano_vector(task, 1, **options)

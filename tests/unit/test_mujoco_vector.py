"""MuJoCo in bulk against Gymnasium's own environments, number by number."""

from __future__ import annotations

import subprocess
import sys
from typing import Any
from unittest.mock import Mock

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from prefrl.envs import memory
from prefrl.envs.mujoco_tasks import MUJOCO_TASKS
from prefrl.envs.mujoco_template import stepped_model
from prefrl.envs.mujoco_vector import MujocoVectorEnv
from prefrl.errors import UserError

pytestmark = pytest.mark.lowest

LAST_BIT = {"InvertedDoublePendulum"}
"""Gymnasium squares single numbers there, with `pow`: it and a product may differ in the last bit."""


def make(task: str, num_envs: int, **options: Any) -> MujocoVectorEnv:
    return gymnasium.make_vec(f"prefrl/{task}-v5", num_envs=num_envs, **options)  # type: ignore[return-value]


def theirs(task: str, num_envs: int, mode: AutoresetMode = AutoresetMode.NEXT_STEP, **options: Any) -> Any:
    vector_kwargs = {"autoreset_mode": mode}
    return gymnasium.make_vec(
        f"{task}-v5", num_envs=num_envs, vectorization_mode="sync", vector_kwargs=vector_kwargs, **options
    )


def actions_for(env: Any, num_steps: int, seed: int = 0) -> np.ndarray:
    space = env.action_space
    random = np.random.default_rng(seed)
    return random.uniform(space.low, space.high, (num_steps, *space.shape)).astype(np.float32)


def assert_same(ours: Any, expected: Any, *, last_bit: bool, where: str) -> None:
    if isinstance(expected, dict):
        assert ours.keys() == expected.keys(), where
        for key in expected:
            assert_same(ours[key], expected[key], last_bit=last_bit, where=f"{where} {key}")
    elif expected.dtype == object:
        for one, other in zip(ours, expected, strict=True):
            assert (one is None) == (other is None), where
            if one is not None:
                assert_same(one, other, last_bit=last_bit, where=where)
    else:
        assert ours.dtype == expected.dtype, where
        if last_bit and ours.dtype.kind == "f":
            np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-9, err_msg=where)
        else:
            np.testing.assert_array_equal(ours, expected, err_msg=where)


def compare(task: str, num_steps: int, mode: AutoresetMode, num_envs: int = 2, **options: Any) -> int:
    """Step both with the same actions; return how many episodes ended."""
    ours = make(task, num_envs, autoreset_mode=mode, **options)
    expected = theirs(task, num_envs, mode, **options)
    assert ours.observation_space == expected.observation_space
    assert ours.action_space == expected.action_space
    exact = {"last_bit": task in LAST_BIT}
    for name, one, other in zip(("observations", "info"), ours.reset(seed=5), expected.reset(seed=5), strict=True):
        assert_same(one, other, where=f"reset {name}", **exact)
    ends = 0
    for number, actions in enumerate(actions_for(ours, num_steps)):
        results = ours.step(actions), expected.step(actions)
        names = ("observations", "rewards", "terminated", "truncated", "info")
        for name, one, other in zip(names, *results, strict=True):
            assert_same(one, other, where=f"step {number} {name}", **exact)
        ends += int((results[0][2] | results[0][3]).sum())
    ours.close()
    expected.close()
    return ends


@pytest.mark.slow
@pytest.mark.parametrize("task", MUJOCO_TASKS)
def test_a_thousand_random_steps_are_gymnasiums_own(task: str) -> None:
    assert compare(task, 1000, AutoresetMode.NEXT_STEP, num_envs=1, max_episode_steps=300) >= 3


@pytest.mark.parametrize("task", ["Hopper", "Ant", "InvertedDoublePendulum"])
def test_restarting_in_the_same_step_is_gymnasiums_own_too(task: str) -> None:
    assert compare(task, 200, AutoresetMode.SAME_STEP, max_episode_steps=60) >= 6


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("HalfCheetah", {"frame_skip": 3, "forward_reward_weight": 2.0, "ctrl_cost_weight": 0.5}),
        ("HalfCheetah", {"exclude_current_positions_from_observation": False, "reset_noise_scale": 0.3}),
        ("Hopper", {"healthy_state_range": (-1.0, 1.0), "healthy_z_range": (1.0, 1.3), "healthy_reward": 0.25}),
        ("Hopper", {"terminate_when_unhealthy": False, "healthy_angle_range": (-0.1, 0.1)}),
        ("Walker2d", {"exclude_current_positions_from_observation": False, "healthy_z_range": (1.0, 1.5)}),
        ("Swimmer", {"exclude_current_positions_from_observation": False, "ctrl_cost_weight": 0.1}),
        ("Ant", {"include_cfrc_ext_in_observation": False, "main_body": "aux_1", "contact_cost_weight": 0.1}),
        ("Ant", {"contact_force_range": (-5.0, 5.0), "healthy_z_range": (0.5, 0.8)}),
        ("Humanoid", {"include_cinert_in_observation": False, "include_cvel_in_observation": False}),
        ("Humanoid", {"include_qfrc_actuator_in_observation": False, "contact_cost_range": (0.001, 0.002)}),
        ("Reacher", {"reward_dist_weight": 3, "reward_control_weight": 0.1}),
        ("Pusher", {"reward_near_weight": 0.1, "xml_file": "pusher_v5.xml"}),
        ("InvertedPendulum", {"reset_noise_scale": 0.1, "frame_skip": 1}),
        ("InvertedDoublePendulum", {"healthy_reward": 1.5}),
    ],
)
def test_options_mean_what_they_mean_to_gymnasium(task: str, options: dict[str, Any]) -> None:
    compare(task, 60, AutoresetMode.NEXT_STEP, max_episode_steps=40, **options)


@pytest.mark.parametrize("task", ["HalfCheetah", "Ant"])
def test_results_do_not_depend_on_where_actions_lie_in_memory(task: str) -> None:
    ours, other = make(task, 3), make(task, 3)
    ours.reset(seed=5)
    other.reset(seed=5)
    for actions in actions_for(ours, 10):
        for one, same in zip(ours.step(actions)[:2], other.step(np.asfortranarray(actions))[:2], strict=True):
            assert np.array_equal(one, same)


@pytest.mark.parametrize("task", ["Walker2d", "Humanoid"])
def test_results_do_not_depend_on_the_number_of_threads(task: str) -> None:
    one, two = make(task, 5, num_threads=1), make(task, 5, num_threads=2)
    assert np.array_equal(one.reset(seed=1)[0], two.reset(seed=1)[0])
    for actions in actions_for(one, 40):
        first, second = one.step(actions), two.step(actions)
        assert np.array_equal(first[0], second[0])
        assert np.array_equal(first[1], second[1])


@pytest.mark.parametrize("task", MUJOCO_TASKS)
def test_a_given_state_is_gymnasiums_after_set_state(task: str) -> None:
    ours = make(task, 3)
    ours.reset(seed=2)
    for actions in actions_for(ours, 12):
        ours.step(actions)
    states = ours.states()
    assert np.array_equal(states, np.concatenate([ours.qpos, ours.qvel], axis=1))
    peer = gymnasium.make(f"{task}-v5").unwrapped
    peer.reset(seed=0)
    mujoco = pytest.importorskip("mujoco")
    other = make(task, 3)
    observations = other.set_states(states)
    actions = actions_for(other, 1, seed=9)[0]
    after = other.step(actions)
    for env, state in enumerate(states):
        mujoco.mj_resetData(peer.model, peer.data)
        peer.set_state(state[: ours.model.nq], state[ours.model.nq :])
        assert np.array_equal(observations[env], peer._get_obs())
        expected = peer.step(actions[env])
        np.testing.assert_allclose(after[0][env], expected[0], rtol=0, atol=0)
        np.testing.assert_allclose(after[1][env], expected[1], rtol=0, atol=1e-9 if task in LAST_BIT else 0)


def test_only_the_environments_that_are_named_are_put_into_a_state_or_reset() -> None:
    env = make("HalfCheetah", 3)
    env.reset(seed=0)
    for actions in actions_for(env, 3):
        env.step(actions)
    before = env.states()
    mask = np.array([False, True, False])
    env.set_states(np.zeros_like(before), mask)
    assert np.array_equal(env.states()[[0, 2]], before[[0, 2]])
    assert not env.states()[1].any()
    env.reset(seed=4, options={"reset_mask": mask})
    fresh = make("HalfCheetah", 3)
    fresh.reset(seed=4)
    assert np.array_equal(env.states()[1], fresh.states()[1])
    assert np.array_equal(env.states()[[0, 2]], before[[0, 2]])


def test_the_live_views_cannot_be_written_to_and_outlive_the_environment() -> None:
    env = make("Ant", 2)
    env.reset(seed=0)
    positions = env.qpos
    with pytest.raises(ValueError, match="read-only"):
        positions[0, 0] = 1.0
    before = positions.copy()
    env.close()
    del env
    assert np.array_equal(positions, before)


def test_islands_are_looked_for_only_where_there_can_be_several() -> None:
    """Left out for a robot alone, which changes no number (compared above); the pusher's object is a second tree."""
    for task, leaves_out in (("Walker2d", True), ("Pusher", False)):
        model = make(task, 1).model
        assert stepped_model(model).opt.disableflags == (int(mujoco.mjtDisableBit.mjDSBL_ISLAND) if leaves_out else 0)
        assert model.opt.disableflags == 0, "what is drawn from stays as it was"


def test_one_seed_fixes_everything_and_no_seed_goes_on() -> None:
    def play(env: MujocoVectorEnv, seed: Any) -> np.ndarray:
        seen = [env.reset(seed=seed)[0]]
        seen += [env.step(actions)[0] for actions in actions_for(env, 60)]
        return np.stack(seen)

    env = make("InvertedPendulum", 3)
    first = play(env, 3)
    second = play(env, None)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, play(env, [3, 4, 5]))
    assert np.array_equal(second, play(env, None))


PICTURES = """
import sys
from prefrl.control.rendering import choose_gl_backend
from prefrl.errors import UserError
try:
    choose_gl_backend()
except UserError as error:
    print(error)
    sys.exit(77)
import gymnasium, numpy as np, prefrl.envs
for task in ("Hopper", "Reacher"):
    size = dict(width=96, height=80, render_mode="rgb_array")
    many = gymnasium.make_vec(f"prefrl/{task}-v5", num_envs=2, **size)
    many.reset(seed=0)
    for _ in range(5):
        many.step(many.action_space.sample())
    states = many.states()
    pictures = many.render_states(states)
    one = gymnasium.make(f"{task}-v5", **size).unwrapped
    one.reset(seed=0)
    one.set_state(many.init_qpos, many.init_qvel)
    one.render()  # aims the camera
    for state, picture, now in zip(states, pictures, many.render()):
        one.set_state(state[: one.model.nq], state[one.model.nq :])
        expected = one.render()
        assert picture.shape == (80, 96, 3) and picture.max() > 50
        assert np.array_equal(picture, expected) and np.array_equal(now, expected)
    assert not np.array_equal(*pictures)
"""


@pytest.mark.slow
def test_a_picture_of_a_state_is_gymnasiums() -> None:
    outcome = subprocess.run([sys.executable, "-c", PICTURES], capture_output=True, text=True, timeout=240, check=False)
    if outcome.returncode == 77:
        pytest.skip(outcome.stdout)
    assert outcome.returncode == 0, outcome.stderr


def test_the_disabled_mode_waits_for_a_reset() -> None:
    env = make("Reacher", 2, autoreset_mode=AutoresetMode.DISABLED, max_episode_steps=3)
    env.reset(seed=0)
    actions = actions_for(env, 1)[0]
    for _ in range(3):
        truncated = env.step(actions)[3]
    assert truncated.all()
    with pytest.raises(UserError, match=r"environments \[0, 1\] have ended. Reset them first"):
        env.step(actions)
    env.reset(options={"reset_mask": truncated})
    assert not env.step(actions)[3].any()


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("Hopper", {"helthy_reward": 1.0}, "no option 'helthy_reward'. Did you mean 'healthy_reward'"),
        ("HalfCheetah", {"healthy_reward": 1.0}, "no option 'healthy_reward'"),
        ("HalfCheetah", {"xml_file": "/nowhere/robot.xml"}, "refuses xml_file='/nowhere/robot.xml'.*does not exist"),
        ("HalfCheetah", {"frame_skip": 0}, "frame_skip must be a whole number of at least 1. Received 0"),
        ("HalfCheetah", {"ctrl_cost_weight": "abc"}, "ctrl_cost_weight must be a finite number. Received 'abc'"),
        ("Hopper", {"terminate_when_unhealthy": "no"}, "terminate_when_unhealthy must be true or false. Received 'no'"),
        ("Hopper", {"reset_noise_scale": -0.1}, "reset_noise_scale must be a finite number, at least 0"),
        ("Hopper", {"healthy_z_range": "abc"}, "healthy_z_range must be a range of two numbers.*Received 'abc'"),
        ("Hopper", {"healthy_z_range": [1.0]}, "healthy_z_range must be a range of two numbers"),
        ("Ant", {"contact_force_range": 5}, "contact_force_range must be a range of two numbers"),
        ("Humanoid", {"contact_cost_range": [3, 1]}, "contact_cost_range must be a range of two numbers"),
        ("Reacher", {"reward_dist_weight": "abc"}, "reward_dist_weight must be a finite number. Received 'abc'"),
        ("Hopper", {"max_episode_steps": 2.5}, "max_episode_steps must be a whole number"),
        ("Ant", {"main_body": "tail"}, "main_body='tail' is not a body"),
        ("Hopper", {"camera_id": 0, "camera_name": "track"}, "Both `camera_id` and `camera_name`"),
        ("Hopper", {"render_mode": "human"}, "render_mode must be one of rgb_array"),
        ("Hopper", {"max_episode_steps": 0}, "max_episode_steps must be a whole number, at least 1. Received 0"),
        ("Hopper", {"num_threads": -1}, "num_threads must be a whole number, at least 0"),
        ("Hopper", {"autoreset_mode": "sometimes"}, "autoreset_mode must be one of 'NextStep'"),
    ],
)
def test_what_gymnasiums_class_refuses_is_refused(task: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(task, 2, **options)


def test_options_may_be_numpys_numbers_and_ranges_lists() -> None:
    env = make("Hopper", 2, ctrl_cost_weight=np.float32(0.5), frame_skip=np.int64(2), healthy_z_range=[0.5, 2])
    assert env.options["ctrl_cost_weight"] == 0.5 and env.frame_skip == 2


def test_a_model_that_cannot_be_stepped_in_bulk_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mujoco.batch.Batch", Mock(side_effect=ValueError("sleep needs persistent simulations")))
    with pytest.raises(UserError, match="cannot step this model many at once: sleep"):
        make("Hopper", 2)


def test_more_environments_than_memory_allows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda extra: 2_000_000_000)
    with pytest.raises(UserError, match=r"100000 environments of AntVectorEnv take about \d+.\d GB; 2.0 GB are free"):
        make("Ant", 100_000)
    with pytest.raises(UserError, match="1000000000000 environments of HopperVectorEnv"):
        make("Hopper", 10**12)  # not even the bounds of their spaces fit
    make("Hopper", 100)
    with pytest.raises(UserError, match=r"num_envs must be at least 1\. Received 0"):
        make("Hopper", 0)


def test_free_memory_is_that_of_the_container_where_it_is_less(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    whole = memory.free_memory("mujoco")
    assert whole > 1_000_000
    (tmp_path / "memory.max").write_text("5000")
    (tmp_path / "memory.current").write_text("2000\n")
    assert memory.free_memory("mujoco") == 3000
    (tmp_path / "memory.max").write_text("max")
    assert memory.free_memory("mujoco") > 1_000_000


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a: a * np.nan, r"action of environment 0 is \[nan nan nan\]; expected finite values from -1.0 to 1.0"),
        (lambda a: np.where(np.arange(2)[:, None] == 1, 1.5, a), "action of environment 1 is"),
        (lambda a: a[:1], r"Expected actions \(2, 3\) for 2 environments; got \(1, 3\)"),
        (lambda a: a.astype(str), "Expected actions"),
    ],
)
def test_actions_that_make_no_sense_are_refused_and_change_nothing(spoil: Any, message: str) -> None:
    env = make("Hopper", 2)
    with pytest.raises(UserError, match="have to be reset before the first step"):
        env.step(np.zeros((2, 3), np.float32))
    env.reset(seed=0)
    before = env.states()
    with pytest.raises(UserError, match=message):
        env.step(spoil(np.zeros((2, 3), np.float32)))
    assert np.array_equal(env.states(), before)


def test_resets_and_states_that_make_no_sense_are_refused() -> None:
    env = make("Hopper", 2)
    with pytest.raises(UserError, match="first reset has to be of all"):
        env.reset(options={"reset_mask": np.array([True, False])})
    env.reset(seed=0)
    for mask in (np.array([False, False]), np.array([1, 0]), np.array([True])):
        with pytest.raises(UserError, match="reset_mask must be an array"):
            env.reset(options={"reset_mask": mask})
    with pytest.raises(UserError, match="one seed for each of 2 environments; got 3"):
        env.reset(seed=[1, 2, 3])
    with pytest.raises(UserError, match="seed must be a whole number, at least 0"):
        env.reset(seed=-1)
    with pytest.raises(UserError, match=r"seed must be a whole number, at least 0. Received 1.5"):
        env.reset(seed=[1.5, 2])  # type: ignore[list-item]
    with pytest.raises(UserError, match=r"Expected finite states \(n, 12\)"):
        env.set_states(np.zeros((2, 11)))
    with pytest.raises(UserError, match="Expected 2 states"):
        env.set_states(np.zeros((3, 12)))
    with pytest.raises(UserError, match="render needs a render_mode"):
        env.render()


def test_a_single_environment_is_gymnasiums_class() -> None:
    env = gymnasium.make("prefrl/Pusher-v5")
    assert type(env.unwrapped).__module__ == "gymnasium.envs.mujoco.pusher_v5"
    assert env.spec is not None
    assert env.spec.max_episode_steps == gymnasium.spec("Pusher-v5").max_episode_steps

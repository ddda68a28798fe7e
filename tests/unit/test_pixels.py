"""Observations of pixel tasks are the pictures of their states, stacked, and nothing else."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from prefrl.clips.worlds import find_world
from prefrl.control import TrainSettings
from prefrl.control.defaults import PIXELS, agent_defaults
from prefrl.control.rendering import choose_gl_backend
from prefrl.envs import pixels, task
from prefrl.envs.catalogue import make_env, make_vector_env
from prefrl.envs.pixels import Shrink, grey
from prefrl.errors import UserError
from prefrl.rewards import ComparisonData, FitSettings, Fitter, RewardEnsemble
from prefrl.segments import Segment

try:
    choose_gl_backend()
    import mujoco  # noqa: F401
except (UserError, ImportError):
    DRAWS = False
else:
    DRAWS = True
drawn_by_mujoco = pytest.mark.skipif(not DRAWS, reason="MuJoCo cannot draw here")
POLE, PENDULUM = "prefrl/Pixels-InvertedPendulum-v5", "prefrl/Pixels-Pendulum-v1"
NAMES = [pytest.param(POLE, marks=drawn_by_mujoco), PENDULUM]


@drawn_by_mujoco
@pytest.mark.parametrize("task", ["InvertedPendulum-v5", "HalfCheetah-v5"])  # a free camera, and one that follows
def test_a_picture_is_what_gymnasium_draws_of_the_state(task: str) -> None:
    env = make_env(f"prefrl/Pixels-{task}")
    theirs: Any = gymnasium.make(task, render_mode="rgb_array", width=64, height=64).unwrapped
    theirs.model.vis.quality.shadowsize = theirs.model.vis.quality.offsamples = 0
    theirs.set_state(theirs.init_qpos, theirs.init_qvel)
    theirs.render()  # the camera is aimed
    base: Any = env.unwrapped
    observation, _ = env.reset(seed=1)
    env.action_space.seed(0)
    different = set()
    for _ in range(12):
        theirs.set_state(base.data.qpos.copy(), base.data.qvel.copy())
        assert np.array_equal(observation[-1], grey(theirs.render()))
        different.add(observation[-1].tobytes())
        observation = env.step(env.action_space.sample())[0]
    assert len(different) > 6


@drawn_by_mujoco
def test_several_renderers_draw_in_turn_whichever_was_made_or_freed_last() -> None:
    """Each has a context of its own: those that were not current gave black pictures, and said nothing."""

    def bright(env: Any) -> bool:
        return bool(env.reset(seed=0)[0].max() > 30)

    first = make_env("prefrl/Pixels-Reacher-v5", render_mode="rgb_array")
    assert bright(first)
    alone = first.reset(seed=0)[0]
    second = make_env("prefrl/Pixels-Hopper-v5")
    assert bright(second) and bright(first) and bright(second)
    assert np.asarray(first.render()).max() > 30  # for people, between two observations
    assert np.array_equal(first.reset(seed=0)[0], alone)
    assert np.asarray(first.render()).max() > 30
    del second
    gc.collect()
    assert bright(first) and np.asarray(first.render()).max() > 30
    third = make_env("prefrl/Pixels-Swimmer-v5")
    first.close()
    del first
    gc.collect()
    assert bright(third)
    fourth = make_env("prefrl/Pixels-Hopper-v5")
    del third  # and is not closed before
    gc.collect()
    assert bright(fourth)


def test_a_picture_of_classic_control_is_the_one_for_people_averaged_down() -> None:
    env: Any = make_env(PENDULUM, options={"size": 50})
    observation, _ = env.reset(seed=1)
    large = grey(env.unwrapped.render()).astype(np.float64)
    assert large.shape == (500, 500)
    wanted = large.reshape(50, 10, 50, 10).mean((1, 3))
    assert np.abs(observation[-1] - wanted).max() <= 0.51
    assert observation.max() - observation.min() > 60


def test_areas_are_averaged_where_sizes_do_not_divide() -> None:
    assert np.array_equal(Shrink(2)(np.array([[0, 90, 240]] * 3, np.uint8)), [[30, 190]] * 2)
    constant = np.full((401, 599), 200, np.uint8)
    assert (Shrink(64)(constant) == 200).all()


@pytest.mark.parametrize("name", NAMES)
def test_pictures_are_stacked_the_newest_last_and_begin_anew_with_an_episode(name: str) -> None:
    env = make_env(name, options={"depth": 3}, max_episode_steps=6)
    env.action_space.seed(0)
    for seed in (0, None, None):
        observation, _ = env.reset(seed=seed)
        assert observation.shape == (3, 64, 64) and observation.dtype == np.uint8
        assert (observation == observation[-1]).all()  # nothing of the episode before
        pictures, truncated = [observation[0]] * 3, False
        while not truncated:
            observation, _, _, truncated, _ = env.step(env.action_space.sample())
            assert np.array_equal(observation[:2], pictures[-2:])
            pictures.append(observation[-1])


@pytest.mark.parametrize("name", NAMES)
def test_rewards_ends_and_pictures_depend_on_the_seed_alone(name: str) -> None:
    """A run that is resumed makes its environments anew, and those of a run that was not were used before."""
    used, new = make_env(name), make_env(name)
    played(used, seed=9)
    for ours, theirs in zip(played(used, seed=5), played(new, seed=5), strict=True):
        assert np.array_equal(ours, theirs)


def played(env: Any, seed: int) -> list[Any]:
    env.action_space.seed(1)
    seen: list[Any] = [env.reset(seed=seed)[0]]
    for _ in range(8):
        seen += env.step(env.action_space.sample())[:3]
    return seen


@drawn_by_mujoco
def test_the_physics_is_gymnasiums_own() -> None:
    env, theirs = make_env("prefrl/Pixels-Reacher-v5"), gymnasium.make("Reacher-v5")
    env.reset(seed=2)
    theirs.reset(seed=2)
    theirs.action_space.seed(3)
    for _ in range(20):
        action = theirs.action_space.sample()
        assert env.step(action)[1] == theirs.step(action)[1]


@drawn_by_mujoco
def test_one_renderer_draws_for_all_copies_and_goes_with_the_last() -> None:
    gc.collect()
    before = len(pixels._PAINTERS)
    envs: Any = make_vector_env(POLE, 3)
    observations, _ = envs.reset(seed=0)
    assert observations.shape == (3, 4, 64, 64) and len(pixels._PAINTERS) == before + 1
    assert len({observation.tobytes() for observation in observations}) == 3
    envs.close()
    del envs
    gc.collect()
    assert len(pixels._PAINTERS) == before


@drawn_by_mujoco
def test_people_are_shown_the_environment_in_colour_and_full_size() -> None:
    env = make_env(POLE, render_mode="rgb_array")
    env.reset(seed=0)
    world = find_world(env, segment_length=5)
    assert world.kind == "mujoco"
    assert np.asarray(env.render()).shape == (480, 480, 3)


def test_a_reward_is_fitted_to_pictures() -> None:
    """Pendulum to the right of the middle, or to the left: a reward that reads pictures tells which."""
    env: Any = make_env(PENDULUM, options={"size": 44})
    ensemble = RewardEnsemble(env.observation_space, env.action_space)
    assert ensemble.images and ensemble.inputs == "s"
    rng = np.random.default_rng(0)
    segments, sums = [], []
    for _ in range(40):
        env.reset(seed=int(rng.integers(1000)))
        env.unwrapped.state = np.array([rng.uniform(-2, 2), 0.0])
        observations, right = [env.step(np.zeros(1, np.float32))[0]], []
        for _ in range(3):
            observations.append(env.step(np.zeros(1, np.float32))[0])
            right.append(np.sin(env.unwrapped.state[0]))
        segments.append(
            Segment(observations=np.array(observations), actions=np.zeros((3, 1), np.float32), true_rewards=right)
        )
        sums.append(sum(right))
    data = ComparisonData(ensemble, 3)
    pairs = [(segments[i], segments[i + 20]) for i in range(20)]
    data.add(pairs, [float(sums[i] > sums[i + 20]) for i in range(20)], rng)
    settings = FitSettings(first_steps=60, batch_size=20, patience=0)
    report = Fitter(ensemble, settings).fit(data, torch.Generator().manual_seed(0))
    assert all(accuracy is not None and accuracy > 0.85 for accuracy in report.train_accuracy)


def test_settings_are_those_for_pictures_and_what_is_known_of_the_task_stays() -> None:
    assert agent_defaults("ppo", POLE) is PIXELS
    assert task(POLE) == replace(task("InvertedPendulum-v5"), env_id=POLE, num_members=3)


@pytest.mark.parametrize("options", [{"size": 0}, {"size": 64.0}, {"depth": 99}, {"depth": True}])
def test_sizes_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="must be a whole number from 1 to"):
        make_env(PENDULUM, options=options)


@pytest.mark.parametrize(("env_id", "horizon"), [("prefrl/Pixels-CartPole-v1", 500), ("prefrl/Pixels-Pusher-v5", 0)])
def test_agents_have_the_settings_for_pictures_and_the_task_its_own(env_id: str, horizon: int) -> None:
    settings = TrainSettings(env_id=env_id).resolve()
    assert settings.steps == PIXELS.steps and settings.hyperparameters == PIXELS.hyperparameters
    assert settings.fixed_horizon == horizon
    assert task(env_id).env_id == env_id and task("prefrl/CartPole-v1").env_id == "CartPole-v1"

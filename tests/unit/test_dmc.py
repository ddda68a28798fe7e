"""Tasks of the DeepMind Control Suite against what dm_control's own did, as `scripts/tools/record_dmc.py` has it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from prefrl.clips import worlds
from prefrl.clips.saver import SavesClips
from prefrl.clips.trail import ClipSource
from prefrl.control.rendering import choose_gl_backend, prepare_pictures
from prefrl.envs import TASKS, catalogue, dmc_models, episode_length, list_envs, make_env, make_vector_env, registration
from prefrl.envs.dmc_rewards import tolerance
from prefrl.envs.dmc_tasks import DMC_TASKS, dmc_vector
from prefrl.envs.measures import MEASURES
from prefrl.errors import MissingExtraError, UserError

pytestmark = pytest.mark.lowest
with_models = pytest.mark.skipif(
    importlib.util.find_spec("dm_control") is None, reason="dm_control, whose models are read, is not installed"
)

RECORDED = np.load(Path(__file__).parents[1] / "data" / "dmc.npz")
ABOUT = json.loads(str(RECORDED["about"]))
SAME = 300  # steps for which a body that is thrown about is where dm_control's is, to a millionth
FREELY = {"walker": 90, "humanoid": 60}
"""Steps for the others, which fall on several limbs at once: what differs in the last bit then grows by the step."""


def recorded(task: str, what: str) -> Any:
    return RECORDED[f"{task}/{what}"]


def assert_close(ours: Any, theirs: Any, tolerance: float, where: str = "") -> None:
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance, err_msg=where)


def random_actions(env: Any, num_steps: int, seed: int = 0) -> np.ndarray:
    space = env.single_action_space
    random = np.random.default_rng(seed)
    return random.uniform(space.low, space.high, (num_steps, env.num_envs, *space.shape)).astype(np.float32)


def test_what_is_registered_is_what_there_is() -> None:
    assert tuple(DMC_TASKS) == registration.DMC_TASKS
    for name in DMC_TASKS:
        env_id = f"prefrl/DMC-{name}-v0"
        assert env_id in TASKS and env_id in MEASURES
        assert recorded(name, "times")[2] == episode_length(env_id) == 1000


@pytest.mark.parametrize("shape", ["gaussian", "linear", "quadratic"])
def test_a_reward_is_whole_within_bounds_and_what_was_asked_for_at_the_margin(shape: Any) -> None:
    values = np.array([-2.0, 0.5, 1.0, 2.0, 3.0, 4.0, 100.0])
    got = tolerance(values, 1, 2, margin=1.5, at_margin=0.25, shape=shape)
    assert got[2:4].tolist() == [1, 1]
    assert tolerance(np.array([-0.5, 3.5]), 1, 2, margin=1.5, at_margin=0.25, shape=shape) == pytest.approx(0.25)
    by_hand = {
        "gaussian": lambda d: 0.25 ** (d**2),
        "linear": lambda d: max(0, 1 - 0.75 * d),
        "quadratic": lambda d: max(0, 1 - 0.75 * d**2),
    }[shape]
    assert got == pytest.approx([by_hand(d / 1.5) for d in (3, 0.5, 0, 0, 1, 2, 98)])
    assert tolerance(values, 1, 2).tolist() == [0, 0, 1, 1, 0, 0, 0]
    assert tolerance(values, 3).tolist() == [0, 0, 0, 0, 1, 1, 1]


@with_models
@pytest.mark.parametrize("task", DMC_TASKS)
def test_one_step_from_a_given_state_is_dm_controls(task: str) -> None:
    """Several times 1e-13 was seen between MuJoCo 3.17 and 4.0."""
    states = recorded(task, "states")
    env = dmc_vector(task, len(states))
    env.reset(seed=0)
    assert_close(env.set_states(states), recorded(task, "observations_before"), 1e-9)
    observations, rewards, terminated, truncated, info = env.step(recorded(task, "step_actions") / 128)
    assert_close(observations, recorded(task, "observations_after"), 1e-9)
    assert_close(rewards, recorded(task, "step_rewards"), 1e-9)
    assert_close(env.states(), recorded(task, "states_after"), 1e-9)
    assert np.ptp(rewards) > 0.3, "they show too little"
    assert observations.dtype == np.float64 and not terminated.any() and not truncated.any() and info == {}


@with_models
@pytest.mark.parametrize("task", DMC_TASKS)
def test_an_episode_is_dm_controls_for_as_long_as_rounding_lets_it(task: str) -> None:
    """Up to 3e-11 was seen until then."""
    num_steps, every = FREELY.get(task.split("-")[0], SAME), ABOUT["observed_every"]
    env = dmc_vector(task, 1)
    env.reset(seed=0)
    env.set_states(recorded(task, "starts")[:1])
    for number, action in enumerate(recorded(task, "actions")[:num_steps]):
        observations, rewards, *_ = env.step(action[None] / 128)
        assert_close(rewards[0], recorded(task, "rewards")[number], 1e-6, f"reward of step {number}")
        if (number + 1) % every == 0:
            assert_close(observations[0], recorded(task, "observations")[number // every], 1e-6, f"step {number}")


@with_models
@pytest.mark.parametrize("task", DMC_TASKS)
def test_episodes_begin_where_dm_controls_begin_given_the_same_numbers(task: str) -> None:
    """A `RandomState` and a `Generator` draw the same uniform numbers from one stream of bits."""
    env = dmc_vector(task, 1)
    env.reset(seed=0)
    for seed, expected in enumerate(recorded(task, "starts")):
        if task.startswith("quadruped"):  # normal numbers differ: they are given
            ours = env.at_rest(env.lowest(expected[3:7]))  # type: ignore[attr-defined]
        else:
            ours = env.draw_state(np.random.Generator(np.random.RandomState(seed)._bit_generator))  # type: ignore[attr-defined]
        assert_close(ours, expected, 1e-9)
        assert_close(env.set_states(ours[None])[0], recorded(task, "first_observations")[seed], 1e-9)


@with_models
def test_a_quadruped_begins_turned_any_way() -> None:
    env = dmc_vector("quadruped-walk", 200)
    env.reset(seed=0)
    turned = env.qpos[:, 3:7]
    assert_close((turned**2).sum(axis=1), 1.0, 1e-12)
    assert np.abs(turned.mean(axis=0)).max() < 0.15
    assert np.abs((turned**2).mean(axis=0) - 0.25).max() < 0.06
    assert not env.qvel.any() and env.qpos[:, 2].min() > 0.1


@with_models
@pytest.mark.parametrize("task", ["walker-stand", "cheetah-run", "hopper-stand", "quadruped-walk", "humanoid-stand"])
def test_models_are_those_that_dm_control_makes_of_its_files(task: str) -> None:
    env = dmc_vector(task, 1)
    fields = [key for key in RECORDED if key.startswith(f"{task}/model_")]
    assert len(fields) > 15
    for key in fields:
        ours, theirs = getattr(env.model, key.partition("model_")[2]), RECORDED[key]
        if key.endswith(("gainprm", "biasprm", "geom_friction", "geom_solref", "geom_solimp")):  # rows may be longer
            ours, theirs = ours[..., :3], theirs[..., :3]
        assert_close(ours, theirs, 1e-12, key)
    assert [env.model.opt.timestep, env.dt] == pytest.approx(recorded(task, "times")[:2])


@with_models
def test_the_floor_of_a_quadruped_is_as_long_as_its_way() -> None:
    for task, metres in (("quadruped-walk", 10), ("quadruped-run", 100)):
        assert dmc_vector(task, 1).model.geom("floor").size[:2].tolist() == [metres, metres]


@with_models
def test_an_episode_is_cut_after_a_thousand_steps_and_one_copy_is_one_of_many() -> None:
    many = make_vector_env("prefrl/DMC-cheetah-run-v0", 2)
    one = gymnasium.make("prefrl/DMC-cheetah-run-v0")
    assert np.array_equal(many.reset(seed=[5, 6])[0][1], one.reset(seed=6)[0])
    for number, actions in enumerate(random_actions(many, 1000)):
        observations, rewards, terminated, truncated, info = many.step(actions)
        seen, reward, ended, cut, _ = one.step(actions[1])
        assert not terminated.any() and not ended
        assert truncated.tolist() == [number == 999] * 2 and cut == (number == 999)
        last = info["final_obs"][1] if cut else observations[1]
        assert np.array_equal(last, seen) and rewards[1] == reward and 0 <= reward <= 1
    assert one.spec is not None and one.spec.max_episode_steps == 1000


@with_models
@pytest.mark.parametrize("task", ["walker-walk", "quadruped-run"])
def test_results_do_not_depend_on_the_number_of_threads(task: str) -> None:
    one, two = dmc_vector(task, 5, num_threads=1), dmc_vector(task, 5, num_threads=2)
    assert np.array_equal(one.reset(seed=1)[0], two.reset(seed=1)[0])
    for actions in random_actions(one, 40):
        for ours, other in zip(one.step(actions)[:2], two.step(actions)[:2], strict=True):
            assert np.array_equal(ours, other)


@with_models
@pytest.mark.parametrize("task", ["cheetah-run", "hopper-stand", "quadruped-walk"])
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_nothing_of_an_episode_is_left_in_the_next(task: str, mode: AutoresetMode) -> None:
    """The simulations keep their data from step to step: a restart and a state that is put must not show it."""
    env = dmc_vector(task, 3, max_episode_steps=20, autoreset_mode=mode)
    env.reset(seed=1)
    *actions, further = random_actions(env, 21)
    for one in actions:
        observations, _, _, truncated, _ = env.step(one)
    assert truncated.all()
    if mode == AutoresetMode.DISABLED:
        observations, _ = env.reset(options={"reset_mask": truncated})
    elif mode == AutoresetMode.NEXT_STEP:
        observations, *_ = env.step(further)
    fresh = dmc_vector(task, 3)
    fresh.reset(seed=9)
    assert np.array_equal(fresh.set_states(env.states()), observations)
    for one in actions[:10]:
        for ours, other in zip(env.step(one)[:2], fresh.step(one)[:2], strict=True):
            assert np.array_equal(ours, other)


@with_models
def test_one_seed_fixes_everything_and_no_seed_goes_on() -> None:
    def play(env: Any, seed: Any) -> np.ndarray:
        seen = [env.reset(seed=seed)[0]]
        return np.stack(seen + [env.step(actions)[0] for actions in random_actions(env, 20)])

    env = dmc_vector("quadruped-walk", 3, max_episode_steps=8)
    first = play(env, 3)
    second = play(env, None)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, play(env, [3, 4, 5])) and np.array_equal(second, play(env, None))


@with_models
@pytest.mark.slow
@pytest.mark.parametrize("task", ["walker-walk", "cheetah-run", "hopper-hop", "quadruped-walk", "humanoid-stand"])
def test_a_clip_drawn_again_shows_each_step_as_the_environment_drew_it(task: str) -> None:
    try:
        choose_gl_backend()
    except UserError as error:
        pytest.skip(str(error))

    def make() -> Any:
        env = make_env(f"prefrl/DMC-{task}-v0", render_mode="rgb_array", options={"width": 96, "height": 80})
        prepare_pictures(env)
        return env

    saving = SavesClips(make(), segment_length=10)
    saving.reset(seed=3)
    saving.action_space.seed(3)
    pictures = []
    for _ in range(12):
        saving.step(saving.action_space.sample())
        pictures.append(np.array(saving.render()))
    source = ClipSource(kind="mujoco", rows=saving.world.take()[0])
    again = make()
    again.reset(seed=11)
    for drawn, original in zip(worlds.find_world(again, segment_length=10).draw(source), pictures, strict=True):
        np.testing.assert_array_equal(drawn, original)
    assert drawn.shape == (80, 96, 3) and drawn.max() > 50 and len({picture.tobytes() for picture in pictures}) > 5


@with_models
@pytest.mark.slow
def test_clips_of_many_stepped_at_once_show_what_the_agent_saw() -> None:
    envs: Any = make_vector_env("prefrl/DMC-quadruped-walk-v0", 3, max_episode_steps=30)
    envs.save_clips()
    envs.reset(seed=3)
    seen, rows = [], []
    for number, actions in enumerate(random_actions(envs, 50)):
        _, _, _, truncated, _ = envs.step(actions)
        seen.append(envs.qpos.copy() if not truncated.any() else None)
        if number % 7 == 3 or number == 49:
            rows.append(envs.take_marks().rows)
    template = envs.template
    template.render = lambda: np.zeros((8, 8, 3), np.uint8)  # where it is, not what it looks like
    world = worlds.Mujoco(template)
    for copy in range(3):
        source = ClipSource(kind="mujoco", rows=np.concatenate(rows)[:, copy])
        for positions, _ in zip(seen, world.draw(source), strict=True):
            if positions is not None:
                np.testing.assert_array_equal(template.data.qpos, positions[copy])


@with_models
def test_a_state_has_the_muscles_in_it_too() -> None:
    env = dmc_vector("quadruped-walk", 2)
    env.reset(seed=0)
    for actions in random_actions(env, 5):
        env.step(actions)
    states = env.states()
    assert states.shape == (2, env.model.nq + env.model.nv + 12) and np.abs(states[:, -12:]).min() > 0
    assert env.set_states(states[::-1]).shape == (2, 78)
    assert np.array_equal(env.states(), states[::-1])


@with_models
def test_what_a_hopper_shows_tells_how_high_it_stands() -> None:
    env = dmc_vector("hopper-hop", 20)
    observations, _ = env.reset(seed=0)
    heights = env._xipos[:, env.model.body("torso").id, 2] - env._xipos[:, env.model.body("foot").id, 2]  # type: ignore[attr-defined]
    standing, speed = MEASURES["prefrl/DMC-hopper-hop-v0"]
    assert np.array_equal(standing.of(observations), (heights > 0.6) & (heights < 2))
    assert 0 < standing.of_episode(observations) < 1
    states = env.states()
    states[:, env.model.nq] = np.arange(20)
    assert np.array_equal(speed.of(env.set_states(states)), np.arange(20))


@with_models
@pytest.mark.parametrize(
    ("task", "upright", "speed"),
    [("walker-walk", [0], 1), ("cheetah-run", [0], 0), ("quadruped-run", [0], 0), ("humanoid-run", [0], 0)],
)
def test_measures_tell_standing_from_lying_and_how_fast(task: str, upright: list[int], speed: int) -> None:
    env = dmc_vector(task, 2)
    env.reset(seed=0)
    states = np.zeros_like(env.states())
    states[:, : env.model.nq] = env.init_qpos
    states[:, env.model.nq + speed] = 2.0
    if env.model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE:
        states[1, 2:7] = 0.4, 0, 1, 0, 0  # on its head, or back
    else:
        states[1, 2] = np.pi
        states[1, 0 if task.startswith("walker") else 1] = -0.8
    stands, forward = MEASURES[f"prefrl/DMC-{task}-v0"]
    seen = env.set_states(states)
    assert stands.of(seen).tolist() == [True, False]
    assert forward.of(seen)[0] == pytest.approx(2.0, abs=0.2)


@with_models
@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("walker-hop", {}, "no task 'walker-hop' of the DeepMind Control Suite here. Did you mean 'walker-run'"),
        ("walker-walk", {"cammera_id": 1}, "no option 'cammera_id'. Did you mean 'camera_id'"),
        ("walker-walk", {"camera_id": 9}, "camera_id must be less than 2. Received 9"),
        ("walker-walk", {"camera_name": "sides"}, "no camera 'sides'. Did you mean 'side'"),
        ("walker-walk", {"camera_name": "side", "camera_id": 0}, "not by both"),
        ("walker-walk", {"width": 0}, "width must be a whole number, at least 1"),
        ("walker-walk", {"render_mode": "human"}, "render_mode must be one of rgb_array"),
        ("walker-walk", {"num_threads": -1}, "num_threads must be a whole number"),
    ],
)
def test_what_makes_no_sense_is_refused(task: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        dmc_vector(task, 1, **options)


@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        ("prefrl/DMC-walker-walk-v0", {"task": "cheetah-run"}, "The task of prefrl/DMC-walker-walk-v0 is in its name"),
        ("prefrl/Christiano-Hopper-v0", {"task": "Ant"}, "The task of prefrl/Christiano-Hopper-v0 is in its name"),
    ],
)
def test_no_other_task_goes_by_the_name_of_one(env_id: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_env(env_id, options=options)


@with_models
def test_actions_out_of_bounds_are_refused_and_bounds_are_the_models() -> None:
    env = dmc_vector("quadruped-walk", 1)
    env.reset(seed=0)
    assert env.single_action_space.high[:3] == pytest.approx([1, 1.1, 0.8])
    with pytest.raises(UserError, match="action of environment 0"):
        env.step(np.full((1, 12), 0.9))
    env.step(env.single_action_space.high[None])


def test_missing_models_are_named_with_what_installs_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        dmc_models.importlib.util, "find_spec", lambda name: None if name == "dm_control" else real(name)
    )
    expected = r"pip install \"prefrl\[dmc\]\".*pip install --no-deps dm_control"
    with pytest.raises(MissingExtraError, match=expected):
        make_env("prefrl/DMC-walker-walk-v0")
    row = {row.env_id: row for row in list_envs()}["prefrl/DMC-walker-walk-v0"]
    assert (row.extra, row.installed) == ("dmc", False)


def test_files_that_mujoco_cannot_read_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(dmc_models, "models_folder", lambda: tmp_path)
    with pytest.raises(UserError, match=r"cannot read dm_control's model .*walker\.xml"):
        dmc_vector("walker-walk")
    (tmp_path / "quadruped.xml").write_text("<mujoco/>")
    with pytest.raises(UserError, match=r"cannot read dm_control's model .*quadruped\.xml"):
        dmc_vector("quadruped-walk")


def test_an_older_mujoco_is_told_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "_has_batches", lambda: False)
    with pytest.raises(UserError, match="'mujoco>=4'"):
        make_env("prefrl/DMC-walker-walk-v0")


@with_models
def test_nothing_of_dm_control_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [name for name in sys.modules if name.partition(".")[0] == "dm_control"]:
        monkeypatch.delitem(sys.modules, name)
    make_env("prefrl/DMC-walker-walk-v0").reset(seed=0)
    assert not [name for name in sys.modules if name.partition(".")[0] == "dm_control"]

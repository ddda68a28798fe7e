"""Environments by name: what can be made, and what is said when it cannot."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from prefrl.control import TrainSettings
from prefrl.envs import (
    TASKS,
    FixedHorizon,
    Task,
    catalogue,
    episode_length,
    list_envs,
    make_env,
    make_vector_env,
    memory,
    task,
)
from prefrl.errors import MissingExtraError, UserError

CLASSIC = [name for name in TASKS if not name.endswith("-v5") and not name.startswith("prefrl/")]


def test_the_plain_form_keeps_the_environments_own_time_limit() -> None:
    env = make_env("CartPole-v1")
    assert not isinstance(env, FixedHorizon)
    assert env.spec is not None
    assert env.spec.max_episode_steps == 500


def test_the_fixed_horizon_form_takes_the_tasks_terminal_reward_unless_told_otherwise() -> None:
    env = make_env("CartPole-v1", fixed_horizon=30)
    assert isinstance(env, FixedHorizon)
    assert (env.horizon, env.terminal_reward) == (30, TASKS["CartPole-v1"].terminal_reward)
    other = make_env("CartPole-v1", fixed_horizon=30, terminal_reward=-2.5)
    assert isinstance(other, FixedHorizon)
    assert other.terminal_reward == -2.5


def test_no_inner_time_limit_strikes_before_the_horizon() -> None:
    env = make_env("Pendulum-v1", fixed_horizon=450)  # its own limit is 200
    env.reset(seed=0)
    steps = [env.step(env.action_space.sample()) for _ in range(450)]
    assert not any("restarted" in step[4] for step in steps)
    assert [t for t, step in enumerate(steps) if step[3]] == [449]


@pytest.mark.parametrize("name", CLASSIC)
def test_every_task_without_a_simulator_can_be_made_in_its_recommended_form(name: str) -> None:
    row = TASKS[name]
    env = make_env(name, fixed_horizon=row.fixed_horizon)
    env.reset(seed=0)
    env.step(env.action_space.sample())
    env.close()


def test_tasks_are_listed_under_their_own_names_and_segments_fit_in_an_episode() -> None:
    for name, row in TASKS.items():
        assert row.env_id == name
        length = row.fixed_horizon or episode_length(name)
        assert length is not None
        whole_clip = name in ("prefrl/Christiano-Pendulum-v0",)  # 15 of 25 steps, as in the paper
        assert row.segment_length <= (length if whole_clip else length / 2)


def test_tasks_whose_end_tells_how_it_went_have_a_fixed_horizon() -> None:
    never_end = {"HalfCheetah-v5", "Swimmer-v5", "Reacher-v5", "Pendulum-v1"}
    never_end |= {name for name in TASKS if name.startswith(("prefrl/Christiano-", "prefrl/DMC-", "prefrl/Atari-"))}
    end_well_or_badly = {"LunarLander-v3", "LunarLanderContinuous-v3", "BipedalWalker-v3"}
    assert {name for name, row in TASKS.items() if row.fixed_horizon is None} == never_end | end_well_or_badly


def test_an_environment_without_an_entry_gets_the_defaults() -> None:
    assert task("Somebody/Else-v3") == Task(env_id="Somebody/Else-v3")
    assert task("Hopper-v5") is TASKS["Hopper-v5"]


def test_an_unknown_name_offers_near_ones() -> None:
    with pytest.raises(UserError, match=r"no environment named 'cartpole-v1'.*Did you mean 'CartPole-v1'"):
        make_env("cartpole-v1")
    with pytest.raises(UserError, match=r"no environment named 'prefrl/Christiano-Hoper-v0'.*Christiano-Hopper-v0'"):
        make_env("prefrl/Christiano-Hoper-v0")
    with pytest.raises(UserError, match=r"no environment named 'prefrl/Atari-Pog-v0'.*'prefrl/Atari-Pong-v0'"):
        make_env("prefrl/Atari-Pog-v0")
    with pytest.raises(UserError, match="no environment named 'Nothing-v0'"):
        episode_length("Nothing-v0")


def test_an_unsupported_space_is_named() -> None:
    with pytest.raises(UserError, match=r"Tuple.*not supported"):
        make_env("Blackjack-v1")


def test_a_task_stepped_in_bulk_by_name_is_the_same_task() -> None:
    assert task("prefrl/Hopper-v5") is task("Hopper-v5")
    bulk, plain = (TrainSettings(env_id=name).resolve() for name in ("prefrl/Hopper-v5", "Hopper-v5"))
    assert replace(bulk, env_id="Hopper-v5") == plain


def test_options_reach_one_environment_and_many() -> None:
    env: Any = make_env("Pendulum-v1", options={"g": 2.5})
    assert env.unwrapped.g == 2.5
    for horizon in (None, 50):
        envs: Any = make_vector_env("Pendulum-v1", 2, fixed_horizon=horizon, options={"g": 2.5})
        assert [one.unwrapped.g for one in envs.envs] == [2.5, 2.5]
        bulk: Any = make_vector_env("Hopper-v5", 2, fixed_horizon=horizon, options={"frame_skip": 2})
        assert bulk.unwrapped.frame_skip == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gravity": 2.5}, r"cannot be made with gravity=2\.5"),
        ({"max_episode_steps": 9}, "max_episode_steps is not an option"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_env("Pendulum-v1", options=options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frame_skip": 0}, "frame_skip must be a whole number of at least 1"),
        ({"helthy_reward": 1}, "Did you mean 'healthy_reward'"),
        ({"xml_file": "/nowhere.xml"}, "cannot be made: .*/nowhere.xml does not exist"),
    ],
)
def test_options_that_a_robot_cannot_have_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_env("Hopper-v5", options=options)


def test_more_copies_than_memory_allows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda extra: 1_000_000_000)
    with pytest.raises(UserError, match=r"10000000 environments of CartPole-v1 take about 100\.0 GB"):
        make_vector_env("CartPole-v1", 10_000_000)


def test_an_environment_whose_package_is_gone_says_why() -> None:
    with pytest.raises(UserError, match=r"'Hopper-v3' cannot be made: .*mujoco"):
        make_env("Hopper-v3")


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("Hopper-v5", "mujoco", "mujoco"),
        ("prefrl/Christiano-Hopper-v0", "mujoco", "mujoco"),
        ("LunarLander-v3", "Box2D", "box2d"),
        ("ALE/Pong-v5", "ale_py", "atari"),
        ("prefrl/Atari-Pong-v0", "ale_py", "atari"),
    ],
)
def test_a_missing_simulator_names_its_extra(
    name: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.import_module

    def without(wanted: str, package: str | None = None) -> object:
        if wanted.split(".")[0] == module:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
        return real(wanted, package)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(MissingExtraError, match=rf'pip install "prefrl\[{extra}\]"'):
        make_env(name)


def test_an_environment_of_ones_own_is_found_through_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_own_envs.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('Mine-v0', 'gymnasium.envs.classic_control.cartpole:CartPoleEnv', max_episode_steps=40)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert episode_length("my_own_envs:Mine-v0") == 40
    env = make_env("my_own_envs:Mine-v0", fixed_horizon=12)
    assert isinstance(env, FixedHorizon)
    gymnasium.registry.pop("Mine-v0")
    sys.modules.pop("my_own_envs")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("assert 1 > 2", r"cannot be made: AssertionError\(\) at .*robots_of_mine\.py:4, assert 1 > 2$"),
        ("{}['arm']", r"cannot be made: KeyError\('arm'\) at .*robots_of_mine\.py:4, {}\['arm'\]$"),
        ("raise Exception('no licence here')", "cannot be made: no licence here$"),
        ("raise Exception", r"cannot be made: Exception\(\) at .*robots_of_mine\.py:4, raise Exception$"),
        ("raise RuntimeError('no screen here')", "cannot be made: no screen here$"),
        ("raise ValueError('no such arm')", "cannot be made: no such arm$"),
        ("import sys; sys.exit('no display')", "cannot be made: no display$"),
        ("import sys; sys.exit()", r"cannot be made: SystemExit\(\) at .*robots_of_mine\.py:4, "),
    ],
)
def test_a_constructor_that_fails_is_a_sentence_that_says_where_if_it_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, message: str
) -> None:
    (tmp_path / "robots_of_mine.py").write_text(
        f"import gymnasium\nclass Robot(gymnasium.Env):\n    def __init__(self):\n        {line}\n"
        "gymnasium.register('Robot-v0', Robot)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=message):
        make_env("robots_of_mine:Robot-v0")
    gymnasium.registry.pop("Robot-v0")
    sys.modules.pop("robots_of_mine")


@pytest.mark.parametrize(
    ("folder", "line", "ending"),
    [
        ("dm_control", "raise AttributeError(\"'MjModel' object has no attribute 'flex_vertedge'\")", "'mujoco<4'"),
        ("dm_control", "raise ValueError('no such task: fly')", "no such task: fly"),
    ],
)
def test_packages_that_need_an_older_mujoco_are_told_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, line: str, ending: str
) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "robot_of_theirs.py").write_text(
        f"import gymnasium\nclass Robot(gymnasium.Env):\n    def __init__(self):\n        {line}\n"
        "gymnasium.register('Theirs-v0', Robot)\n"
    )
    monkeypatch.syspath_prepend(tmp_path / folder)
    monkeypatch.setattr(catalogue, "_has_batches", lambda: True)
    with pytest.raises(UserError, match=f"{ending}$"):
        make_env("robot_of_theirs:Theirs-v0")
    gymnasium.registry.pop("Theirs-v0")
    sys.modules.pop("robot_of_theirs")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (None, r"cannot be made: walls must be a list of lists\. Set it by --env walls=VALUE$"),
        ({"walls": [[1]]}, r"walls=\[\[1\]\]: start must be a dictionary\. Set it by --env start=VALUE$"),
    ],
)
def test_a_constructor_that_refuses_an_option_names_how_to_set_it(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any] | None, message: str
) -> None:
    class Maze(gymnasium.Env[Any, Any]):
        def __init__(self, walls: Any = None, start: Any = None) -> None:
            if not isinstance(walls, list):
                raise ValueError("walls must be a list of lists")
            if not isinstance(start, dict):
                raise TypeError("start must be a dictionary")

    monkeypatch.setitem(gymnasium.registry, "Maze-v0", gymnasium.envs.registration.EnvSpec("Maze-v0", Maze))
    with pytest.raises(UserError, match=message):
        make_env("Maze-v0", options=options)


@pytest.mark.parametrize("leaves", ["import sys\nsys.exit('no licence')", "raise SystemExit(0)"])
@pytest.mark.parametrize("by_entry_point", [False, True])
def test_a_module_that_leaves_the_program_when_it_is_imported_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leaves: str, by_entry_point: bool
) -> None:
    (tmp_path / "leaving_envs.py").write_text(leaves)
    (tmp_path / "lazy_envs.py").write_text("import gymnasium\ngymnasium.register('Lazy-v0', 'leaving_envs:Lazy')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"no licence|SystemExit"):
        make_env("lazy_envs:Lazy-v0" if by_entry_point else "leaving_envs:Gone-v0")
    gymnasium.registry.pop("Lazy-v0", None)
    sys.modules.pop("lazy_envs", None)


def test_a_package_of_robots_that_does_not_work_with_mujoco_4_names_the_one_that_it_works_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "gymnasium_robotics"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import gymnasium\nclass Reach(gymnasium.Env):\n    def __init__(self):\n        assert 0 in ()\n"
        "gymnasium.register('Reach-v0', Reach)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(catalogue, "_has_batches", lambda: True)
    with pytest.raises(UserError, match=r"AssertionError\(\) at .*: pip install 'mujoco<3\.4'"):
        make_env("gymnasium_robotics:Reach-v0")
    gymnasium.registry.pop("Reach-v0")
    sys.modules.pop("gymnasium_robotics")


@pytest.mark.parametrize(("version", "at_once"), [("3.3.7", False), ("3.10.0", False), ("4.0.0", True), ("10.1", True)])
def test_the_version_of_mujoco_says_whether_copies_are_stepped_at_once(
    version: str, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(
        catalogue.importlib.metadata, "version", lambda name: version if name == "mujoco" else real(name)
    )
    if at_once:
        make_env("prefrl/HalfCheetah-v5").close()
    else:
        with pytest.raises(UserError, match="'mujoco>=4'"):
            make_env("prefrl/HalfCheetah-v5")


def test_a_module_that_cannot_be_imported_is_named() -> None:
    with pytest.raises(UserError, match="asks for the module 'no_such_module_here'"):
        make_env("no_such_module_here:Mine-v0")


def test_a_terminal_reward_without_a_horizon_is_refused() -> None:
    with pytest.raises(UserError, match="only in the fixed-horizon form"):
        make_env("CartPole-v1", terminal_reward=-1.0)


def test_a_horizon_below_one_is_refused() -> None:
    with pytest.raises(UserError, match=r"fixed_horizon must be at least 1 step\. Received -3"):
        make_env("CartPole-v1", fixed_horizon=-3)


def test_the_list_names_what_each_environment_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {row.env_id: row for row in list_envs()}
    assert rows.keys() >= TASKS.keys()
    assert (rows["CartPole-v1"].extra, rows["CartPole-v1"].installed) == (None, True)
    assert rows["Hopper-v5"].extra == "mujoco"
    assert rows["ALE/Pong-v5"].extra == rows["prefrl/Atari-Seaquest-v0"].extra == "atari"
    assert rows["prefrl/Christiano-Ant-v0"].extra == "mujoco"
    monkeypatch.setattr(catalogue.importlib.util, "find_spec", lambda name: None)
    assert not {row.env_id: row for row in list_envs()}["Hopper-v5"].installed

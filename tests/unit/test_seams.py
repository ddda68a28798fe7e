"""Objects by name, and a user's wrong ones: refused in a sentence that says what was expected."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn

from prefrl.agents import AGENTS
from prefrl.annotators import TEACHERS, make_teacher
from prefrl.control import QuerySettings, TrainSettings
from prefrl.control.run import default_out
from prefrl.envs import TASKS, Task, episode_length, make_env, make_vector_env, task
from prefrl.errors import UserError
from prefrl.queries import METHODS, SCHEDULES, LabelSchedule
from prefrl.rewards import NETWORKS, NetworkInputs, RewardEnsemble, RewardSettings
from prefrl.runs.codec import from_json, to_json
from prefrl.seams import consent, load_object, place_of

BOX, ACTION = gymnasium.spaces.Box(-1, 1, (3,)), gymnasium.spaces.Box(-1, 1, (1,))

SOURCE = """
import gymnasium
from torch import nn
from prefrl.envs import Task

class Judge:
    def __init__(self, *, seed): self.seed = seed

class Walker:
    def __init__(self, envs, *, total_env_steps, hyperparameters, seed, device, pass_true_reward): pass

def rising(part): return part ** 3
def linear(inputs): return nn.Linear(inputs.num_inputs, 1)
limit = 3
gymnasium.register("SeamPole-v0", "gymnasium.envs.classic_control.cartpole:CartPoleEnv", max_episode_steps=40)
POLE = Task(env_id="SeamPole-v0", fixed_horizon=30, terminal_reward=-2.0, hold=4, segment_length=5)
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "seam_things.py").write_text(SOURCE)
    yield tmp_path / "seam_things.py"
    sys.modules.pop("seam_things", None)
    gymnasium.registry.pop("SeamPole-v0", None)


def test_modules_in_the_working_directory_are_found(mine: Path) -> None:
    judge = load_object("seam_things:Judge", "teacher")
    assert place_of(judge, "teacher") == "seam_things:Judge"
    assert load_object(f"{mine}:limit", "number") == 3


def test_objects_of_a_file_share_one_module_until_it_changes(mine: Path) -> None:
    first = load_object("seam_things.py:Judge", "teacher")
    assert load_object(str(mine) + ":Judge", "teacher") is first
    assert load_object(place_of(first, "teacher"), "teacher") is first
    mine.write_text(SOURCE + "\n# changed\n")
    assert load_object("seam_things.py:Judge", "teacher") is not first


def test_objects_are_turned_into_the_names_under_which_they_are_found_again(mine: Path) -> None:
    things: Any = load_object("seam_things:Judge", "teacher") and sys.modules["seam_things"]
    settings = TrainSettings(
        env_id=things.POLE,
        agent=things.Walker,
        teacher=things.Judge,
        queries=QuerySettings(schedule=things.rising),
        reward=RewardSettings(network=things.linear),
    )
    names = (settings.env_id, settings.agent, settings.teacher, settings.queries.schedule, settings.reward.network)
    assert names == tuple(f"seam_things:{name}" for name in ("POLE", "Walker", "Judge", "rising", "linear"))
    assert from_json(TrainSettings, to_json(settings)) == settings
    assert default_out(settings).name == "seam_things-POLE-seam_things-Walker-Judge-300-seed0"


@pytest.mark.parametrize("where", ["function", "lambda"])
def test_an_object_that_nobody_finds_again_is_refused(where: str) -> None:
    def inside(part: float) -> float:
        return part

    with pytest.raises(UserError, match=r"is in no module: define it at the top level of a \.py file"):
        QuerySettings(schedule=inside if where == "function" else lambda part: part)


@pytest.mark.parametrize(
    ("seam", "name", "message"),
    [
        (AGENTS, "pqo", r"There is no agent 'pqo'; choose one of ppo, .*module:Name. Did you mean 'ppo'"),
        (TEACHERS, "orakle", r"There is no teacher 'orakle'.*Did you mean 'oracle'"),
        (METHODS, "unform", r"There is no query method 'unform'.*Did you mean 'uniform'"),
        (SCHEDULES, "liner", r"There is no label schedule 'liner'.*Did you mean 'linear'"),
        (NETWORKS, "mpl", r"There is no reward network 'mpl'.*Did you mean 'mlp'"),
    ],
)
def test_unknown_names_offer_near_ones_in_every_seam(seam: Any, name: str, message: str) -> None:
    for ask in (seam.find, seam.name):
        with pytest.raises(UserError, match=message):
            ask(name)


@pytest.mark.parametrize("seam", [AGENTS, TEACHERS, METHODS, SCHEDULES, NETWORKS, TASKS])
def test_what_was_found_by_name_is_found_again_as_itself(seam: Any) -> None:
    for name in seam:
        assert seam.find(seam.find(name)) is seam[name]


# --- tasks ---


def test_a_task_of_ones_own_says_how_its_environment_is_made(mine: Path) -> None:
    for name in ("seam_things:POLE", "seam_things.py:POLE"):
        known = task(name)
        assert known.segment_length == 5 and episode_length(name) == 40
        one: Any = make_env(name, fixed_horizon=30)
        many: Any = make_vector_env(name, 2, fixed_horizon=30)
        for env in (one, many.envs[0]):
            assert (env.horizon, env.terminal_reward, env.hold) == (30, -2.0, 4)
    resolved = TrainSettings(env_id="seam_things:POLE", steps=4_000).resolve()
    assert (resolved.env_id, resolved.fixed_horizon, resolved.segment_length) == ("seam_things:POLE", 30, 5)


def test_a_task_must_be_one() -> None:
    assert TASKS.find(TASKS["CartPole-v1"]) == Task(**vars(TASKS["CartPole-v1"]))
    with pytest.raises(UserError, match=r"The task 'Linear' is a type; expected a prefrl.envs.Task, or the name"):
        TrainSettings(env_id=nn.Linear)


# --- agents and teachers ---


def test_what_makes_no_agent_is_refused(mine: Path) -> None:
    with pytest.raises(UserError, match=r"The agent 'seam_things:limit' must be something to call with \(envs, "):
        AGENTS.find("seam_things:limit")
    with pytest.raises(UserError, match=r"The agent 'seam_things:Judge' must take \(envs, .*: too many positional"):
        AGENTS.find("seam_things:Judge")
    kind = AGENTS.find("seam_things:Walker")
    options: dict[str, Any] = {"total_env_steps": 9, "hyperparameters": None, "seed": 0, "device": "cpu"}
    with pytest.raises(UserError, match=r"gives a Walker without .*improve.*; expected what prefrl.agents.protocol"):
        kind.make(make_vector_env("CartPole-v1", 1), pass_true_reward=False, **options)


def test_what_makes_no_teacher_is_refused(mine: Path) -> None:
    with pytest.raises(UserError, match=r"'seam_things:rising' must take \(seed=...\)"):
        make_teacher("seam_things:rising", seed=0)
    with pytest.raises(UserError, match=r"gives a Judge without observe, answer, .*name; expected what"):
        make_teacher("seam_things:Judge", seed=0)
    with pytest.raises(UserError, match="judges by itself: leave the reward function"):
        make_teacher("seam_things:Judge", seed=0, reward_function=lambda segment: 0.0)


# --- query methods and schedules ---


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ([0], r"returned int64 of shape \(1,\); expected 2 different indices below 3"),
        ([0.0, 1.0], "returned float64"),
        ([1, 1], r"returned \[1, 1\]; expected 2 different"),
        ([0, 3], r"returned \[0, 3\]"),
        ([-1, 0], r"returned \[-1, 0\]"),
    ],
)
def test_a_method_that_chooses_no_pairs_is_refused(chosen: list[Any], message: str) -> None:
    method = METHODS.find(lambda pairs, ensemble, num, asked: chosen)
    pairs: Any = [(None, None)] * 3
    with pytest.raises(UserError, match=message):
        method(pairs, None, 2, None)  # type: ignore[arg-type]


def test_a_schedule_of_ones_own_spreads_the_labels(mine: Path) -> None:
    plan: dict[str, Any] = {"total_labels": 64, "total_steps": 400, "initial_share": 0, "num_sessions": 4}
    schedule = LabelSchedule(kind="seam_things:rising", last_session_at=1, **plan)
    assert schedule.sessions() == [(100, 1), (200, 7), (300, 19), (400, 37)]


@pytest.mark.parametrize(
    "wrong", [lambda part: 1 - part, lambda part: part / 2, lambda part: "x", lambda part: part - 0.1 * (part < 1)]
)
def test_a_schedule_must_rise_from_0_to_1(wrong: Any) -> None:
    with pytest.raises(UserError, match="must give numbers that never fall, from 0 or more at part 0 to 1 at part 1"):
        SCHEDULES.find(wrong)


# --- reward networks ---


def test_a_network_of_ones_own_is_saved_and_loaded_by_its_name(mine: Path) -> None:
    reward = RewardEnsemble(BOX, ACTION, RewardSettings(network="seam_things:linear"), seed=3)
    given = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    actions = given[:, :1].copy()
    reward.save(mine.parent / "reward.safetensors")
    again = RewardEnsemble.load(mine.parent / "reward.safetensors")
    np.testing.assert_array_equal(again(given, actions, given), reward(given, actions, given))
    mine.write_text(SOURCE.replace("nn.Linear(inputs.num_inputs, 1)", "nn.Linear(inputs.num_inputs, 1, bias=False)"))
    sys.modules.pop("seam_things")
    consent(["seam_things:linear"])  # as one's own run does, that names it
    with pytest.raises(UserError, match=r"(?s)do not fit.*seam_things:linear makes another network now"):
        RewardEnsemble.load(mine.parent / "reward.safetensors")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda inputs: nn.Linear(7, 1), r"cannot read inputs \(3, 4\): RuntimeError"),
        (lambda inputs: nn.Linear(4, 2), r"must return \(B,\) or \(B, 1\) values"),
        (lambda inputs: nn.Sequential(nn.Linear(4, 1), nn.Flatten(0), nn.Unflatten(0, (3, 1, 1))), r"got \(3, 1, 1\)"),
        (lambda inputs: 3, "must return a torch.nn.Module. Received int"),
        (lambda: nn.Linear(4, 1), r"must take \(inputs\)"),
    ],
)
def test_a_network_that_gives_no_rewards_is_refused(wrong: Any, message: str) -> None:

    inputs = NetworkInputs(num_inputs=4, image_shape=None, hidden=())
    with pytest.raises(UserError, match=message):
        NETWORKS.find(wrong)(inputs, 2, torch.Generator().manual_seed(0))


def test_networks_for_vectors_and_for_images_are_not_mixed_up() -> None:
    with pytest.raises(UserError, match="'cnn' reads images"):
        RewardEnsemble(BOX, ACTION, RewardSettings(network="cnn"))
    pixels = gymnasium.spaces.Box(0, 255, (50, 50, 3), np.uint8)
    with pytest.raises(UserError, match="'mlp' reads vectors"):
        RewardEnsemble(pixels, ACTION, RewardSettings(network="mlp"))


@pytest.mark.parametrize(("name", "use"), [("Sb3Agent", r"AGENTS\['sb3-ppo'\]\.make"), ("check_agent", "AGENTS.find")])
def test_names_that_older_programs_import_are_told_what_to_use(name: str, use: str) -> None:
    with pytest.raises(ImportError, match=use):
        importlib.import_module("prefrl.agents").__getattr__(name)
    with pytest.raises(AttributeError, match="has no attribute 'Sb4Agent'"):
        importlib.import_module("prefrl.agents").__getattr__("Sb4Agent")

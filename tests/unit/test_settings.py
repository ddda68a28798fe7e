"""What a run is made of: defaults by environment, and configurations of earlier versions."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from stable_baselines3 import DQN, SAC, TD3

from prefrl.agents.sac_settings import SacSettings
from prefrl.agents.td3_settings import Td3Settings
from prefrl.control.defaults import OTHERS, PPO, agent_defaults
from prefrl.control.folder import ControlFolder
from prefrl.control.settings import QuerySettings, RunSettings, TrainSettings
from prefrl.errors import UserError
from prefrl.offline.folder import OfflineFolder
from prefrl.offline.settings import OfflineRunSettings
from prefrl.rewards import RewardSettings
from prefrl.runs.codec import from_json, to_json
from prefrl.runs.folder import format_of


def resolved(env_id: str = "HalfCheetah-v5", **given: Any) -> RunSettings:
    return TrainSettings(env_id=env_id, **given).resolve()


def test_agents_explore_a_little_at_first_in_units_of_the_actions_range() -> None:
    for env_id in ("HalfCheetah-v5", "Pendulum-v1", "SomebodyElses-v0"):
        hyper = agent_defaults("ppo", env_id).hyperparameters
        assert hyper["scale_actions"] is True and hyper["policy_kwargs"] == {"log_std_init": -1.0}


@pytest.mark.parametrize("agent", ["ppo", "sb3-ppo", "a2c"])
def test_every_agent_that_learns_from_its_own_steps_acts_in_units_of_the_range(agent: str) -> None:
    assert agent_defaults(agent, "Somebodys-v0").hyperparameters["scale_actions"] is True


def test_what_belongs_to_a_task_is_the_same_for_every_agent_that_reuses_its_steps() -> None:
    for agent in ("sac", "sb3-sac", "td3", "sb3-td3"):
        swing = agent_defaults(agent, "Pendulum-v1")
        assert (swing.steps, swing.hyperparameters["learning_rate"]) == (20_000, 1e-3)
        cheetah = [agent_defaults(agent, name) for name in ("HalfCheetah-v5", "prefrl/Christiano-Cheetah-v0")]
        assert {(one.steps, one.hyperparameters["learning_rate"]) for one in cheetah} == {(100_000, 1e-3)}
        assert agent_defaults(agent, "Swimmer-v5").hyperparameters["gamma"] == 0.9999
        assert "gamma" not in agent_defaults(agent, "Somebodys-v0").hyperparameters
    for defaults in OTHERS["sac"].values():
        SacSettings.of(defaults.hyperparameters)
    for defaults in OTHERS["td3"].values():
        Td3Settings.of(defaults.hyperparameters)
    for agent, algorithm in (("sb3-sac", SAC), ("sb3-td3", TD3), ("dqn", DQN)):
        known = {*inspect.signature(algorithm).parameters, "action_noise_std"}
        assert all(defaults.hyperparameters.keys() <= known for defaults in OTHERS[agent].values())


def test_one_hyper_parameter_of_the_network_leaves_the_others_as_they_are() -> None:
    changed = resolved(hyperparameters={"policy_kwargs": {"net_arch": [32]}, "gamma": 0.9}).hyperparameters
    assert changed["policy_kwargs"] == {"net_arch": [32], "log_std_init": -1.0}
    assert changed["gamma"] == 0.9 and changed["gae_lambda"] == 0.95
    assert PPO["HalfCheetah-v5"].hyperparameters["policy_kwargs"] == {"log_std_init": -1.0}


@pytest.mark.parametrize(("agent", "warmup"), [("ppo", "policy"), ("sb3-ppo", "policy"), ("a2c", "policy")])
def test_on_policy_agents_warm_up_as_their_policy_does(agent: str, warmup: str) -> None:
    assert resolved(agent=agent).warmup == warmup
    assert resolved(agent=agent, warmup="uniform").warmup == "uniform"


@pytest.mark.parametrize("agent", ["sac", "sb3-sac", "td3", "sb3-td3", "dqn"])
def test_off_policy_agents_warm_up_uniformly(agent: str) -> None:
    assert resolved(agent=agent).warmup == "uniform"


def test_a_configuration_from_before_there_was_a_choice_warms_up_uniformly() -> None:
    old = to_json(resolved())
    del old["warmup"], old["wait"]
    assert from_json(RunSettings, old).warmup == "uniform"


def test_settings_come_back_from_json_as_they_were() -> None:
    given = resolved(without=("ben",), hyperparameters={"gamma": 0.5}, env_options={"a": [1, None]}, from_run="runs/a")
    assert from_json(RunSettings, json.loads(json.dumps(to_json(given)))) == given


def test_a_configuration_of_another_version_says_what_is_unknown_or_missing() -> None:
    values = to_json(resolved())
    with pytest.raises(UserError, match="RunSettings has no setting colour; another version"):
        from_json(RunSettings, {**values, "colour": "red"})
    with pytest.raises(UserError, match="QuerySettings has no setting colour"):
        from_json(RunSettings, {**values, "queries": {"colour": "red"}})
    del values["steps"]
    with pytest.raises(UserError, match="RunSettings needs steps"):
        from_json(RunSettings, values)


def test_what_is_resolved_holds_everything_and_resolves_to_itself() -> None:
    made = resolved()
    assert None not in (made.steps, made.num_envs, made.segment_length, made.warmup_steps, made.wait, made.warmup)
    assert made.resolve() == made


def test_members_left_out_are_those_that_suit_the_environment() -> None:
    def members(env_id: str, **changes: Any) -> int | None:
        return TrainSettings(env_id=env_id, **changes).resolve().reward.num_members

    assert (members("Pendulum-v1"), members("Swimmer-v5"), members("prefrl/Swimmer-v5")) == (5, 10, 10)
    pictures = ("prefrl/Atari-Pong-v0", "prefrl/MinAtar-Breakout-v1", "prefrl/Pixels-Pendulum-v1")
    assert [members(env_id) for env_id in pictures] == [3, 3, 3]
    assert members("Swimmer-v5", reward=RewardSettings(num_members=2)) == 2


def test_questions_about_a_goal_are_about_the_newest_steps_unless_it_is_said_otherwise() -> None:
    def share(env_id: str, **changes: Any) -> float | None:
        return TrainSettings(env_id=env_id, **changes).resolve().queries.recent_share

    assert [share(name) for name in ("Acrobot-v1", "MountainCar-v0", "Pendulum-v1", "FrozenLake-v1")] == [
        0.5,
        0.5,
        0,
        0,
    ]
    assert share("Acrobot-v1", queries=QuerySettings(recent_share=0.0)) == 0
    assert share("Pendulum-v1", queries=QuerySettings(recent_share=0.25)) == 0.25
    with pytest.raises(UserError, match=r"queries.recent_share must be in \[0, 1\]. Received 2"):
        QuerySettings(recent_share=2)


def test_kinds_of_answers_that_there_are_not_are_refused_before_anything_is_written() -> None:
    with pytest.raises(
        UserError, match=r"queries.feedback must be comparison, ranking, rating, strength, mixed, or mod"
    ):
        QuerySettings(feedback="rankin")
    for name, what in (("feedback", "kind of answer"), ("method", "query method")):
        queries: Any = {name: "nowhere:Thing"}
        settings = TrainSettings(env_id="Pendulum-v1", queries=QuerySettings(**queries))
        with pytest.raises(UserError, match=f"There is no module 'nowhere' to load the {what} from"):
            settings.resolve()


@pytest.mark.parametrize(("agent", "last"), [("sac", 1), ("td3", 2)])
def test_an_old_run_of_an_agent_that_was_stable_baselines3s_is_read_as_that(
    agent: str, last: int, tmp_path: Path
) -> None:
    folder = ControlFolder.create(tmp_path / "run", resolved(agent=agent), baseline=False)
    assert folder.settings.agent == agent
    config = json.loads(folder.config_path.read_text())
    for version in (last, last + 1):
        folder.config_path.write_text(json.dumps({**config, "version": version}))
        read = ControlFolder.open(tmp_path / "run", trust=True).settings.agent
        assert read == (f"sb3-{agent}" if version == last else agent)


@pytest.mark.parametrize(
    ("fit", "bootstrap", "held_out"),
    [
        ({}, True, None),
        ({"bootstrap": True}, True, None),
        ({"bootstrap": True, "held_out": 0.0}, True, None),
        ({"bootstrap": False}, False, 0.0),
        ({"bootstrap": False, "held_out": 0.1}, False, 0.1),
    ],
)
@pytest.mark.parametrize("kind", [ControlFolder, OfflineFolder])
def test_an_old_run_holds_out_what_it_did(
    kind: type[ControlFolder], fit: dict[str, Any], bootstrap: bool, held_out: float | None, tmp_path: Path
) -> None:
    settings = resolved()
    if kind is OfflineFolder:
        settings = from_json(OfflineRunSettings, {**to_json(settings), "dataset": "there", "fingerprint": "0"})
    folder = kind.create(tmp_path / "run", settings, baseline=False)
    assert (folder.settings.fit.bootstrap, folder.settings.fit.held_out) == (False, None)
    config = json.loads(folder.config_path.read_text())
    rest = {name: value for name, value in config["settings"]["fit"].items() if name not in ("bootstrap", "held_out")}
    config["settings"]["fit"], config["version"] = {**rest, **fit}, 3
    folder.config_path.write_text(json.dumps(config))
    read = kind.open(tmp_path / "run", trust=True).settings.fit
    assert (read.bootstrap, read.held_out) == (bootstrap, held_out)


@pytest.mark.parametrize(("name", "value"), [("segment_length", 10**30), ("labels", 2**63), ("steps", 1e19)])
def test_numbers_that_no_array_holds_are_refused_in_a_configuration(tmp_path: Path, name: str, value: float) -> None:
    folder = ControlFolder.create(tmp_path / "run", resolved(), baseline=False)
    config = json.loads(folder.config_path.read_text())
    config["settings"][name] = value
    folder.config_path.write_text(json.dumps(config))
    with pytest.raises(UserError, match=rf"{name} should be a whole number below 2\^63"):
        _ = ControlFolder.open(tmp_path / "run", trust=True).settings


@pytest.mark.parametrize("kind", [ControlFolder, OfflineFolder])
def test_a_configuration_without_settings_is_told_in_a_sentence(kind: type[ControlFolder], tmp_path: Path) -> None:
    folder = kind.create(tmp_path / "run", resolved(), baseline=False)
    config = json.loads(folder.config_path.read_text())
    del config["settings"]
    folder.config_path.write_text(json.dumps(config))
    with pytest.raises(UserError, match="its settings should be an object"):
        kind.open(tmp_path / "run", trust=True)
    with pytest.raises(UserError, match="cannot be read"):
        _ = folder.settings  # spoilt since it was opened


def test_a_configuration_of_no_format_is_that_of_no_run(tmp_path: Path) -> None:
    folder = ControlFolder.create(tmp_path / "run", resolved(), baseline=False)
    config = json.loads(folder.config_path.read_text())
    folder.config_path.write_text(json.dumps({**config, "format": {"": {}}}))
    assert format_of(folder.path) is None
    with pytest.raises(UserError):
        ControlFolder.open(folder.path)

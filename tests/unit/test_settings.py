"""What a run is made of: defaults by environment, and configurations of earlier versions."""

from __future__ import annotations

from typing import Any

import pytest

from prefrl.training import TrainSettings
from prefrl.training.defaults import PPO, agent_defaults


def resolved(env_id: str = "HalfCheetah-v5", **given: Any) -> TrainSettings:
    return TrainSettings(env_id=env_id, **given).resolve()


def test_agents_explore_a_little_at_first_in_units_of_the_actions_range() -> None:
    for env_id in ("HalfCheetah-v5", "Pendulum-v1", "SomebodyElses-v0"):
        hyper = agent_defaults("ppo", env_id).hyperparameters
        assert hyper["scale_actions"] is True and hyper["policy_kwargs"] == {"log_std_init": -1.0}


def test_one_hyper_parameter_of_the_network_leaves_the_others_as_they_are() -> None:
    changed = resolved(hyperparameters={"policy_kwargs": {"net_arch": [32]}, "gamma": 0.9}).hyperparameters
    assert changed["policy_kwargs"] == {"net_arch": [32], "log_std_init": -1.0}
    assert changed["gamma"] == 0.9 and changed["gae_lambda"] == 0.95
    assert PPO["HalfCheetah-v5"].hyperparameters["policy_kwargs"] == {"log_std_init": -1.0}


@pytest.mark.parametrize(("agent", "warmup"), [("ppo", "policy"), ("sb3-ppo", "policy"), ("a2c", "policy")])
def test_on_policy_agents_warm_up_as_their_policy_does(agent: str, warmup: str) -> None:
    assert resolved(agent=agent).warmup == warmup
    assert resolved(agent=agent, warmup="uniform").warmup == "uniform"


@pytest.mark.parametrize("agent", ["sac", "td3", "dqn"])
def test_off_policy_agents_warm_up_uniformly(agent: str) -> None:
    assert resolved(agent=agent).warmup == "uniform"


def test_a_configuration_from_before_there_was_a_choice_warms_up_uniformly() -> None:
    old = resolved().to_json()
    del old["warmup"]
    assert TrainSettings.from_json(old).warmup == "uniform"
    assert TrainSettings.from_json(resolved().to_json()) == resolved()

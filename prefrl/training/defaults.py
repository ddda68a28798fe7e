"""Hyper-parameters of the agents, by environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class AgentDefaults:
    """What suits an agent in an environment."""

    steps: int = 400_000
    """Environment steps of a whole run."""
    num_envs: int = 8
    """Copies of the environment."""
    warmup_steps: int = 8_192
    """Random steps at the start."""
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the stable-baselines3 algorithm, and `normalize_*` of `Sb3Agent`."""


_PPO: dict[str, Any] = {"n_steps": 512, "batch_size": 256, "n_epochs": 10, "gae_lambda": 0.95, "ent_coef": 0.0}

PPO: dict[str, AgentDefaults] = {
    "HalfCheetah-v5": AgentDefaults(
        hyperparameters={**_PPO, "learning_rate": 1e-3, "gamma": 0.99},
    ),
    "Pendulum-v1": AgentDefaults(
        steps=200_000,
        hyperparameters={
            **_PPO, "n_steps": 256, "learning_rate": "linear:2e-3", "gamma": 0.97, "policy_kwargs": {"log_std_init": -0.5},
        },
    ),
}  # fmt: skip


def agent_defaults(agent: str, env_id: str) -> AgentDefaults:
    """Return the hyper-parameters known to suit `agent` in `env_id`, or those of the algorithm's own paper."""
    if agent == "ppo":
        return PPO.get(env_id, AgentDefaults(hyperparameters=_PPO))
    return AgentDefaults()

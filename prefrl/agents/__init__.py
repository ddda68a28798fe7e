"""Agents: the protocol, our PPO, stable-baselines3's algorithms, and all of them by name."""

from typing import Any

from prefrl.agents.ppo import PpoAgent as PpoAgent
from prefrl.agents.protocol import Agent as Agent
from prefrl.agents.protocol import Improvement as Improvement
from prefrl.agents.registry import AGENTS as AGENTS
from prefrl.agents.registry import AgentKind as AgentKind
from prefrl.agents.registry import MakeAgent as MakeAgent

_GONE = {
    "Sb3Agent": (
        "it was split in 0.2.0 and is made by name: AGENTS['sb3-ppo'].make(make_vector_env(ENV, num_envs), "
        "total_env_steps=..., hyperparameters=..., seed=0, device='cpu', pass_true_reward=False), with AGENTS of "
        "prefrl.agents and make_vector_env of prefrl.envs"
    ),
    "check_agent": "AGENTS.find(name) finds an agent, or says what is wrong with its name",
}
"""What 0.1.0 had here, and what to use instead."""


def __getattr__(name: str) -> Any:
    if name in _GONE:  # of an AttributeError, `from prefrl.agents import ...` would show nothing
        raise ImportError(f"prefrl.agents has no {name} any more: {_GONE[name]}.", name=__name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

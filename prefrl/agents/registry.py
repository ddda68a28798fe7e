"""Agents by name: what they are, how they are made, and whose hyper-parameters suit them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from gymnasium.vector import VectorEnv

from prefrl.agents.ppo import PpoAgent
from prefrl.agents.protocol import Agent
from prefrl.agents.sac import SacAgent
from prefrl.agents.td3 import Td3Agent
from prefrl.errors import require
from prefrl.seams import Registry, check_call, check_members

OPTIONS = ("total_env_steps", "hyperparameters", "seed", "device", "pass_true_reward")


class MakeAgent(Protocol):
    """A class or function that makes an agent."""

    def __call__(
        self,
        envs: VectorEnv,
        *,
        total_env_steps: int,
        hyperparameters: dict[str, Any] | None,
        seed: int,
        device: str,
        pass_true_reward: bool,
    ) -> Agent:
        """Return an untrained agent.

        Args:
            envs: E environments that restart in the step in which they end; the agent resets, steps and closes them.
            total_env_steps: length of the whole training, for schedules.
            hyperparameters: by name, as `--hyper` gives them.
            seed: of the starting weights and everything drawn; the environments get theirs by `reset_environments`.
            device: where networks live, e.g. "cpu".
            pass_true_reward: learn from the environments' own reward where `improve` is given none (a baseline).
        """


@dataclass(frozen=True, kw_only=True)
class AgentKind:
    """One kind of agent."""

    about: str
    """What it is, in a line."""
    make: MakeAgent
    tuned_as: str | None = None
    """The agent whose hyper-parameters suit it (`prefrl.control.defaults`); None: it has defaults of its own."""
    in_bulk: bool = True
    """It takes environments that are stepped all at once where there are such; else they are stepped in a loop."""


def _stable_baselines3(algorithm: str, *, on_policy: bool) -> MakeAgent:
    """Return what makes an agent of stable-baselines3, which is imported only then."""

    def make(envs: VectorEnv, **options: Any) -> Agent:
        found = getattr(require("stable_baselines3", "train"), algorithm)
        if on_policy:
            from prefrl.agents.sb3_on_policy import OnPolicyAgent

            return OnPolicyAgent(found, envs, **options)
        from prefrl.agents.sb3_off_policy import OffPolicyAgent

        return OffPolicyAgent(found, envs, **options)

    return make


def _sb3(algorithm: str, *, on_policy: bool, tuned_as: str) -> AgentKind:
    make = _stable_baselines3(algorithm, on_policy=on_policy)
    return AgentKind(about=f"{algorithm} of stable-baselines3", make=make, tuned_as=tuned_as, in_bulk=False)


def _adopt(thing: Any, where: str) -> AgentKind:
    check_call(thing, where, ("envs",), OPTIONS)

    def make(envs: VectorEnv, **options: Any) -> Agent:
        agent: Agent = thing(envs, **options)
        check_members(agent, where, Agent)
        return agent

    return AgentKind(about=where, make=make)


AGENTS: Registry[AgentKind] = Registry(
    "agent",
    {
        "ppo": AgentKind(about="PPO (Schulman et al. 2017), ours", make=PpoAgent, tuned_as="ppo"),
        "sb3-ppo": _sb3("PPO", on_policy=True, tuned_as="ppo"),
        "a2c": _sb3("A2C", on_policy=True, tuned_as="a2c"),
        "sac": AgentKind(about="SAC (Haarnoja et al. 2018), ours", make=SacAgent, tuned_as="sac"),
        "sb3-sac": _sb3("SAC", on_policy=False, tuned_as="sb3-sac"),
        "td3": AgentKind(about="TD3 (Fujimoto et al. 2018), ours", make=Td3Agent, tuned_as="td3"),
        "sb3-td3": _sb3("TD3", on_policy=False, tuned_as="sb3-td3"),
        "dqn": _sb3("DQN", on_policy=False, tuned_as="dqn"),
    },
    _adopt,
)
"""Every agent that settings can name."""

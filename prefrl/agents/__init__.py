"""Agents: the protocol, our PPO, stable-baselines3's algorithms, and all of them by name."""

from prefrl.agents.ppo import PpoAgent as PpoAgent
from prefrl.agents.protocol import Agent as Agent
from prefrl.agents.protocol import Improvement as Improvement
from prefrl.agents.registry import AGENTS as AGENTS
from prefrl.agents.registry import AgentKind as AgentKind
from prefrl.agents.registry import MakeAgent as MakeAgent

"""Agents: the protocol, our PPO, and stable-baselines3's algorithms."""

from prefrl.agents.names import AGENTS as AGENTS
from prefrl.agents.names import check_agent as check_agent
from prefrl.agents.ppo import PpoAgent as PpoAgent
from prefrl.agents.protocol import Agent as Agent
from prefrl.agents.protocol import Improvement as Improvement
from prefrl.agents.sb3 import Sb3Agent as Sb3Agent

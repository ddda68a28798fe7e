"""Agents: the protocol, and stable-baselines3 behind it."""

from prefrl.agents.protocol import Agent as Agent
from prefrl.agents.protocol import Improvement as Improvement
from prefrl.agents.sb3 import ALGORITHMS as ALGORITHMS
from prefrl.agents.sb3 import Sb3Agent as Sb3Agent

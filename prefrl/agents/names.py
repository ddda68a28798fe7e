"""Agents by the names that settings give them."""

from __future__ import annotations

from prefrl.errors import UserError, near_names

AGENTS = {
    "ppo": "PPO (Schulman et al. 2017), ours",
    "sb3-ppo": "PPO of stable-baselines3",
    "a2c": "A2C of stable-baselines3",
    "sac": "SAC of stable-baselines3",
    "td3": "TD3 of stable-baselines3",
    "dqn": "DQN of stable-baselines3",
}


def check_agent(name: str) -> None:
    """Raise `UserError` unless there is an agent of this name."""
    if name not in AGENTS:
        raise UserError(f"Unknown agent {name!r}; expected one of {', '.join(AGENTS)}.{near_names(name, AGENTS)}")

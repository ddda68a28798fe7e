"""Acting with a policy that a run kept."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium

from prefrl.agents import Agent, PpoAgent, Sb3Agent, check_agent
from prefrl.envs import make_env, make_vector_env
from prefrl.spaces import Array, Batch
from prefrl.training.folder import RunFolder
from prefrl.training.settings import TrainSettings


def make_run_env(settings: TrainSettings, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
    """Make one environment as the run with these resolved settings uses it."""
    return make_env(settings.env_id, render_mode=render_mode, **_form(settings))


def _form(settings: TrainSettings) -> dict[str, Any]:
    """Return the arguments for the fixed-horizon form, or for the plain one."""
    if not settings.fixed_horizon:
        return {}
    return {"fixed_horizon": settings.fixed_horizon, "terminal_reward": settings.terminal_reward}


def make_run_agent(
    settings: TrainSettings, *, seed: int, device: str, pass_true_reward: bool = False, num_envs: int | None = None
) -> Agent:
    """Make the untrained agent that these resolved settings name."""

    assert settings.num_envs is not None and settings.steps is not None
    check_agent(settings.agent)
    num_envs = num_envs or settings.num_envs
    options: dict[str, Any] = {
        "total_env_steps": settings.steps,
        "hyperparameters": settings.hyperparameters,
        "seed": seed,
        "device": device,
        "pass_true_reward": pass_true_reward,
    }
    if settings.agent == "ppo":
        return PpoAgent(make_vector_env(settings.env_id, num_envs, **_form(settings)), **options)
    name = settings.agent.removeprefix("sb3-")
    return Sb3Agent(name, lambda: make_run_env(settings), num_envs=num_envs, **options)


class KeptPolicy:
    """A policy of a run, to act with.

    Args:
        folder: the run.
        name: "before", "during", "last" or "best".

    Raises:
        UserError: the run has no such policy.
    """

    def __init__(self, folder: RunFolder, name: str) -> None:
        state = folder.load_policy(name)
        with warnings.catch_warnings(
            action="ignore"
        ):  # minibatches do not fit one environment: nothing is learned here
            self._agent = make_run_agent(folder.settings, seed=0, device="cpu", num_envs=1)
        self._agent.load_policy_state(state)
        self._deterministic = isinstance(self._agent.action_space, gymnasium.spaces.Box)

    def act(self, observations: Batch) -> Array:
        """Return actions for observations `(B, ...)`: without noise where continuous, sampled where discrete."""
        return self._agent.act(observations, deterministic=self._deterministic)

    def close(self) -> None:
        """Close the environment that came with it."""
        self._agent.close()

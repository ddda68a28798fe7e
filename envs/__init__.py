"""Environments: making them by name, and their fixed-horizon form."""

from prefrl.envs.catalogue import TASKS, EnvListing, Task, episode_length, list_envs, make_env, task
from prefrl.envs.fixed_horizon import FixedHorizon

__all__ = ["TASKS", "EnvListing", "FixedHorizon", "Task", "episode_length", "list_envs", "make_env", "task"]

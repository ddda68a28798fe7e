"""Environments: making them by name, their fixed-horizon form, and the paper's worlds, many at once."""

from prefrl.envs.catalogue import TASKS, EnvListing, Task, episode_length, list_envs, make_env, task
from prefrl.envs.fixed_horizon import FixedHorizon
from prefrl.envs.registration import register_all

register_all()

__all__ = ["TASKS", "EnvListing", "FixedHorizon", "Task", "episode_length", "list_envs", "make_env", "task"]

"""Environments: making them by name, their fixed-horizon form, and the paper's worlds, many at once."""

from prefrl.envs.catalogue import TASKS, EnvListing, Task, episode_length, list_envs, make_env, make_vector_env, task
from prefrl.envs.fixed_horizon import FixedHorizon
from prefrl.envs.loop import EnvLoop
from prefrl.envs.registration import register_all
from prefrl.envs.vector_fixed_horizon import VectorFixedHorizon

register_all()

__all__ = [
    "TASKS",
    "EnvListing",
    "EnvLoop",
    "FixedHorizon",
    "Task",
    "VectorFixedHorizon",
    "episode_length",
    "list_envs",
    "make_env",
    "make_vector_env",
    "task",
]

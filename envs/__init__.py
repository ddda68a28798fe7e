"""Environments: by name, their fixed-horizon form, the paper's worlds, text and images as one-step games."""

from prefrl.envs.catalogue import TASKS, EnvListing, Task, episode_length, list_envs, make_env, make_vector_env, task
from prefrl.envs.enumerable_text import EnumerableText
from prefrl.envs.fixed_horizon import FixedHorizon
from prefrl.envs.loop import EnvLoop
from prefrl.envs.registration import register_all
from prefrl.envs.text_game import StringResponses, TextGame, TextGameVector
from prefrl.envs.vector_fixed_horizon import VectorFixedHorizon

register_all()

__all__ = [
    "TASKS",
    "EnumerableText",
    "EnvListing",
    "EnvLoop",
    "FixedHorizon",
    "StringResponses",
    "Task",
    "TextGame",
    "TextGameVector",
    "VectorFixedHorizon",
    "episode_length",
    "list_envs",
    "make_env",
    "make_vector_env",
    "task",
]

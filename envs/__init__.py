"""Environments: making them by name, their fixed-horizon form, and text as a one-step game."""

import gymnasium

from prefrl.envs.catalogue import TASKS, EnvListing, Task, episode_length, list_envs, make_env, task
from prefrl.envs.enumerable_text import EnumerableText
from prefrl.envs.fixed_horizon import FixedHorizon
from prefrl.envs.text_game import StringResponses, TextGame, TextGameVector

gymnasium.register(
    "prefrl/TextGame-v0",
    entry_point="prefrl.envs.text_game:TextGame",
    vector_entry_point="prefrl.envs.text_game:TextGameVector",
)
gymnasium.register("prefrl/EnumerableText-v0", entry_point="prefrl.envs.enumerable_text:EnumerableText")

__all__ = [
    "TASKS",
    "EnumerableText",
    "EnvListing",
    "FixedHorizon",
    "StringResponses",
    "Task",
    "TextGame",
    "TextGameVector",
    "episode_length",
    "list_envs",
    "make_env",
    "task",
]

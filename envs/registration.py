"""The environments of this package under Gymnasium's roof: importing `prefrl.envs` registers them.

`gymnasium.make_vec` gives many at once, `gymnasium.make` one. Nothing is imported before an environment is made.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import gymnasium

PAPER_GAMES = ("beam_rider", "breakout", "enduro", "pong", "qbert", "seaquest", "space_invaders")
"""The games of Christiano et al. 2017, as ALE names them."""

_MUJOCO = {
    "HalfCheetah": "half_cheetah_v5:HalfCheetahEnv",
    "Hopper": "hopper_v5:HopperEnv",
    "Walker2d": "walker2d_v5:Walker2dEnv",
    "Ant": "ant_v5:AntEnv",
    "Humanoid": "humanoid_v5:HumanoidEnv",
    "Swimmer": "swimmer_v5:SwimmerEnv",
    "Reacher": "reacher_v5:ReacherEnv",
    "Pusher": "pusher_v5:PusherEnv",
    "InvertedPendulum": "inverted_pendulum_v5:InvertedPendulumEnv",
    "InvertedDoublePendulum": "inverted_double_pendulum_v5:InvertedDoublePendulumEnv",
}
_CHRISTIANO = {
    "Hopper": 1000,
    "Walker": 1000,
    "Ant": 1000,
    "Cheetah": 1000,
    "Swimmer": 1000,
    "Reacher": 50,
    "Pendulum": 25,
    "DoublePendulum": 50,
}  # steps of an episode
ATARI_HORIZON = 2_000  # steps after which the stream of a game is cut; the game itself goes on


def register_all() -> None:
    """Register every environment that is not registered yet."""
    for name, entry_point in _MUJOCO.items():
        _register(
            f"prefrl/{name}-v5",
            f"gymnasium.envs.mujoco.{entry_point}",
            f"prefrl.envs.mujoco_tasks:{name}VectorEnv",
            gymnasium.spec(f"{name}-v5").max_episode_steps,
        )
    for name, horizon in _CHRISTIANO.items():
        module = "prefrl.envs.christiano"
        _register(
            f"prefrl/Christiano-{name}-v0",
            f"{module}:christiano_single",
            f"{module}:christiano_vector",
            horizon,
            task=name,
        )
    for game in games():
        module = "prefrl.envs.atari"
        _register(
            f"prefrl/Atari-{camel_case(game)}-v0", f"{module}:atari_single", f"{module}:AtariVectorEnv", None, game=game
        )


def _register(name: str, single: str, vector: str, max_episode_steps: int | None, **options: object) -> None:
    if name not in gymnasium.registry:
        gymnasium.register(
            name, single, vector_entry_point=vector, max_episode_steps=max_episode_steps, kwargs=dict(options)
        )


def games() -> tuple[str, ...]:
    """Return ALE's names of all games that it can play; those of the paper where ale-py is not installed."""
    found = importlib.util.find_spec("ale_py")  # finds it without importing it
    if found is None or found.origin is None:
        return PAPER_GAMES
    listed = Path(found.origin).parent / "roms" / "md5.json"
    if not listed.is_file():
        return PAPER_GAMES
    return tuple(sorted({name.removesuffix(".bin") for name in json.loads(listed.read_text())} | set(PAPER_GAMES)))


def camel_case(game: str) -> str:
    """Return a game's name as Gymnasium writes it: "space_invaders" is "SpaceInvaders"."""
    return "".join(part[:1].upper() + part[1:] for part in game.split("_"))

"""The environments of this package under Gymnasium's roof: importing `prefrl.envs` registers them.

`gymnasium.make_vec` gives many at once, `gymnasium.make` one. Nothing is imported before an environment is made.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
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


@dataclass(frozen=True)
class PaperSize:
    """How long episodes and clips are in a MuJoCo task of Christiano et al. 2017."""

    horizon: int
    """Steps of every episode."""
    clip_fps: int
    """Steps per second at which the authors' viewer plays a clip."""

    @property
    def segment_length(self) -> int:
        """Steps of a clip of 1.5 seconds: 15 to 60, as the paper says."""
        return round(1.5 * self.clip_fps)


PAPER_SIZES = {
    "Hopper": PaperSize(1000, 40),
    "Walker": PaperSize(1000, 30),
    "Ant": PaperSize(1000, 20),
    "Cheetah": PaperSize(1000, 20),
    "Swimmer": PaperSize(1000, 40),
    "Reacher": PaperSize(50, 10),
    "Pendulum": PaperSize(25, 10),
    "DoublePendulum": PaperSize(50, 10),
}
"""By name, as in `prefrl/Christiano-<name>-v0` (the authors' `rl_teacher/envs.py`)."""

DMC_TASKS = (
    "walker-stand",
    "walker-walk",
    "walker-run",
    "cheetah-run",
    "hopper-stand",
    "hopper-hop",
    "quadruped-walk",
    "quadruped-run",
    "humanoid-stand",
    "humanoid-walk",
    "humanoid-run",
)
"""Tasks of the DeepMind Control Suite, as in `prefrl/DMC-<name>-v0`: domain and task."""

DMC_HORIZON = 1000
"""Steps of every episode: 10, 20 or 25 seconds."""

MINATAR_GAMES = ("asterix", "breakout", "freeway", "seaquest", "space_invaders")
"""As MinAtar names them."""
MINATAR_LIMIT = 5_000
"""Steps after which a game of MinAtar is cut off; Freeway ends after 2,500."""
PIXELS_PREFIX = "prefrl/Pixels-"
"""Beginning of the names of tasks that are seen in pictures alone."""
CLASSIC = ("CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0")
"""Tasks of classic control that are seen in pictures as `prefrl/Pixels-<name>`, as MuJoCo's are."""
ATARI_HORIZON = 2_000
"""Steps after which the stream of an Atari game is cut; the game itself goes on."""


def register_all() -> None:
    """Register every environment that is not registered yet."""
    text = "prefrl.envs.text_game"
    image = "prefrl.envs.image_game"
    _register("prefrl/ImageGame-v0", f"{image}:ImageGame", None, None)
    _register("prefrl/DenoisingGame-v0", f"{image}:DenoisingGame", None, None)
    _register("prefrl/TextGame-v0", f"{text}:TextGame", f"{text}:TextGameVector", None)
    _register("prefrl/EnumerableText-v0", "prefrl.envs.enumerable_text:EnumerableText", None, None)
    for name, entry_point in _MUJOCO.items():
        _register(
            f"prefrl/{name}-v5",
            f"gymnasium.envs.mujoco.{entry_point}",
            f"prefrl.envs.mujoco_tasks:{name}VectorEnv",
            gymnasium.spec(f"{name}-v5").max_episode_steps,
        )
    for name, size in PAPER_SIZES.items():
        module = "prefrl.envs.christiano"
        _register(
            f"prefrl/Christiano-{name}-v0",
            f"{module}:christiano_single",
            f"{module}:christiano_vector",
            size.horizon,
            task=name,
        )
    module = "prefrl.envs.dmc_tasks"
    for name in DMC_TASKS:
        _register(f"prefrl/DMC-{name}-v0", f"{module}:dmc_single", f"{module}:dmc_vector", DMC_HORIZON, task=name)
    module = "prefrl.envs.atari"
    for game in games():
        name = f"prefrl/Atari-{camel_case(game)}-v0"
        _register(name, f"{module}:atari_single", f"{module}:AtariVectorEnv", ATARI_HORIZON, game=game)
    for maker, tasks in (("mujoco", [f"{name}-v5" for name in _MUJOCO]), ("classic", CLASSIC)):
        for task in tasks:
            limit = gymnasium.spec(task).max_episode_steps
            _register(f"{PIXELS_PREFIX}{task}", f"prefrl.envs.pixels:{maker}_pixels", None, limit, task=task)
    for game in MINATAR_GAMES:
        for version, minimal in enumerate((False, True)):  # numbered as the package minatar does
            name = f"prefrl/MinAtar-{camel_case(game)}-v{version}"
            _register(name, "prefrl.envs.minatar:MinAtar", None, MINATAR_LIMIT, game=game, minimal_actions=minimal)


def _register(name: str, single: str, vector: str | None, max_episode_steps: int | None, **options: object) -> None:
    if name not in gymnasium.registry:
        gymnasium.register(
            name, single, vector_entry_point=vector, max_episode_steps=max_episode_steps, kwargs=dict(options)
        )


def own_name(env_id: str) -> str:
    """Return the name of our version of MinAtar's games: those of the package are no pictures to anyone."""
    return env_id.replace("MinAtar/", "prefrl/MinAtar-", 1) if env_id.startswith("MinAtar/") else env_id


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

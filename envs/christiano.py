"""The eight MuJoCo tasks of Christiano et al. 2017, on Gymnasium's v5 robots, many at once.

App. A of the paper: no episode may end early, since that tells what the task is; a term of the reward that has to be
learned, such as the height of the torso, takes the place of each termination, and the cost of torques, which no one can
see in a clip, is left out. The rewards are those of the authors' published code (rl-teacher, `envs.py`), all terms
added up; `docs/environments.md` lists them and what differs from the paper's robots.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from prefrl.envs.mujoco_robots import (
    AntVectorEnv,
    HalfCheetahVectorEnv,
    HopperVectorEnv,
    SwimmerVectorEnv,
    Walker2dVectorEnv,
)
from prefrl.envs.mujoco_tasks import (
    InvertedDoublePendulumVectorEnv,
    InvertedPendulumVectorEnv,
    ReacherVectorEnv,
)
from prefrl.envs.mujoco_vector import Floats, MujocoVectorEnv, Outcome
from prefrl.envs.single import SingleEnv
from prefrl.errors import UserError, near_names


@dataclass(frozen=True, kw_only=True)
class PaperTask:
    """One of the eight tasks."""

    base: type[MujocoVectorEnv]
    """The robot."""
    reward: Callable[[Any, dict[str, Any]], Floats]
    """The whole reward of a step, from the environment after it and Gymnasium's terms of the reward."""
    formula: str
    """The reward in words of mathematics."""


def _forward(env: Any, info: dict[str, Any]) -> Floats:
    velocity: Floats = info["x_velocity"]
    return velocity


def _height(env: Any) -> Floats:
    heights: Floats = env.qpos[:, 1]
    return heights


def _double_pendulum(env: Any, info: dict[str, Any]) -> Floats:
    tip_height = env.tip_heights()
    total: Floats = 10 + info["distance_penalty"] + info["velocity_penalty"] + 10 * (tip_height - 1)
    return total


PAPER_TASKS: dict[str, PaperTask] = {
    "Hopper": PaperTask(
        base=HopperVectorEnv,
        reward=lambda env, info: _forward(env, info) + 1 + (_height(env) - 1),
        formula="v + 1 + (z - 1)",
    ),
    "Walker": PaperTask(
        base=Walker2dVectorEnv,
        reward=lambda env, info: _forward(env, info) + 1 + (_height(env) - 2),
        formula="v + 1 + (z - 2)",
    ),
    "Ant": PaperTask(
        base=AntVectorEnv,
        reward=lambda env, info: _forward(env, info) + (env.qpos[:, 2] - 1.2),
        formula="v + (z - 1.2)",
    ),
    "Cheetah": PaperTask(base=HalfCheetahVectorEnv, reward=_forward, formula="v"),
    "Swimmer": PaperTask(base=SwimmerVectorEnv, reward=_forward, formula="v"),
    "Reacher": PaperTask(
        base=ReacherVectorEnv,
        reward=lambda env, info: info["reward_dist"],
        formula="-|fingertip - target|",
    ),
    "Pendulum": PaperTask(
        base=InvertedPendulumVectorEnv,
        reward=lambda env, info: 1 - np.square(env.qpos[:, 1]),
        formula="1 - angle^2",
    ),
    "DoublePendulum": PaperTask(
        base=InvertedDoublePendulumVectorEnv,
        reward=_double_pendulum,
        formula="10 - 0.01 x^2 - (y - 2)^2 - 0.001 w1^2 - 0.005 w2^2 + 10 (y - 1)",
    ),
}
"""By name, as registered: `prefrl/Christiano-<name>-v0`."""

_REWARD_OPTIONS = ("weight", "healthy_reward", "terminate_when_unhealthy")


def christiano_vector(task: str, num_envs: int = 1, **options: Any) -> MujocoVectorEnv:
    """Make E copies of one of the paper's tasks.

    Every step's reward is the task's; the terms of Gymnasium's own reward stay in the info. No step terminates: a
    robot that falls lies there, or gets up. `info["hidden_terminated"]` is True on the step on which it fell.

    Args:
        task: a name of `PAPER_TASKS`.
        num_envs: E.
        options: those of `MujocoVectorEnv` and of Gymnasium's class, less the ones that make up its reward.

    Raises:
        UserError: there is no such task, or an option that has no meaning here or is refused by Gymnasium's class.
    """
    if task not in PAPER_TASKS:
        raise UserError(
            f"There is no task {task!r} in the paper.{near_names(task, PAPER_TASKS)} It has: {', '.join(PAPER_TASKS)}."
        )
    for name in options:
        if name.endswith(_REWARD_OPTIONS):
            raise UserError(
                f"{name} has no effect in prefrl/Christiano-{task}-v0, whose reward is fixed: "
                f"{PAPER_TASKS[task].formula}. Leave it out, or use Gymnasium's own task."
            )
    return _task_class(task)(num_envs, **options)


def christiano_single(task: str, **options: Any) -> SingleEnv:
    """Make one environment of a task of the paper."""
    return SingleEnv(christiano_vector(task, 1, autoreset_mode=AutoresetMode.DISABLED, num_threads=1, **options))


def _task_class(name: str) -> type[MujocoVectorEnv]:
    task = PAPER_TASKS[name]

    class ChristianoVectorEnv(task.base):  # type: ignore[name-defined, misc]
        def prepare(self) -> None:
            super().prepare()
            self._down = np.zeros(self.num_envs, np.bool_)

        def outcome(self, before: Any, actions: NDArray[Any]) -> Outcome:
            _, self._down, info = super().outcome(before, actions)
            return np.array(task.reward(self, info), np.float64), np.zeros(self.num_envs, np.bool_), info

        def step(self, actions: NDArray[Any]) -> Any:
            was_reset, was_down = self._ended.copy(), self._down & (self._num_steps > 0)
            result = super().step(actions)
            fell = self._down & ~was_down & ~was_reset
            if fell.any():
                result[4].update({"hidden_terminated": fell, "_hidden_terminated": fell})
            return result

    ChristianoVectorEnv.__name__ = ChristianoVectorEnv.__qualname__ = f"Christiano{name}VectorEnv"
    return ChristianoVectorEnv

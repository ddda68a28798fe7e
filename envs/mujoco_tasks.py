"""The ten MuJoCo tasks of Gymnasium v5 in bulk: what each observes, is rewarded for, ends at and starts from.

The formulas are those of `gymnasium.envs.mujoco.*_v5`, in the same order of operations, so that numbers agree. Here are
arms and pendulums, and the list of all; `prefrl.envs.mujoco_robots` has the rest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefrl.envs.mujoco_robots import (
    AntVectorEnv,
    HalfCheetahVectorEnv,
    HopperVectorEnv,
    HumanoidVectorEnv,
    RobotVectorEnv,
    SwimmerVectorEnv,
    Walker2dVectorEnv,
)
from prefrl.envs.mujoco_vector import Floats, MujocoVectorEnv, Outcome
from prefrl.envs.vector_tools import norms, weighted


class _WithBodies(MujocoVectorEnv):
    """Reacher and Pusher: rewards are distances between bodies; never ends early."""

    def prepare(self) -> None:
        self._xpos = self.derived("xpos")

    def body(self, name: str) -> Floats:
        """Return where a body is, `(E, 3)`."""
        return self._xpos[:, self.model.body(name).id]

    def distance_cost(self, first: str, second: str, weight: float) -> Floats:
        """Return the weighted distance between two bodies, negative, `(E,)`."""
        return -norms(self.body(first) - self.body(second)) * weight

    def control_reward(self, actions: NDArray[Any]) -> NDArray[Any]:
        """Return the weighted squared torques, negative, `(E,)`."""
        return weighted(-np.square(actions).sum(axis=1), self.options["reward_control_weight"])


class ReacherVectorEnv(_WithBodies):
    """`Reacher-v5`."""

    gymnasium_class = "gymnasium.envs.mujoco.reacher_v5:ReacherEnv"

    def observe(self) -> Floats:
        angles, apart = self._qpos[:, :2], self.body("fingertip") - self.body("target")
        parts = [np.cos(angles), np.sin(angles), self._qpos[:, 2:], self._qvel[:, :2], apart[:, :2]]
        return np.concatenate(parts, axis=1)

    def outcome(self, before: Any, actions: NDArray[Any]) -> Outcome:
        distance = self.distance_cost("fingertip", "target", self.options["reward_dist_weight"])
        control = self.control_reward(actions)
        info = {"reward_dist": distance, "reward_ctrl": control}
        return distance + control, np.zeros(self.num_envs, np.bool_), info

    def draw_state(self, generator: np.random.Generator) -> Floats:
        qpos = generator.uniform(low=-0.1, high=0.1, size=self.model.nq) + self.init_qpos
        goal = generator.uniform(low=-0.2, high=0.2, size=2)
        while np.linalg.norm(goal) >= 0.2:
            goal = generator.uniform(low=-0.2, high=0.2, size=2)
        qpos[-2:] = goal
        qvel = self.init_qvel + generator.uniform(low=-0.005, high=0.005, size=self.model.nv)
        qvel[-2:] = 0
        return np.concatenate([qpos, qvel])


class PusherVectorEnv(_WithBodies):
    """`Pusher-v5`."""

    gymnasium_class = "gymnasium.envs.mujoco.pusher_v5:PusherEnv"

    def observe(self) -> Floats:
        bodies = [self.body(name) for name in ("tips_arm", "object", "goal")]
        return np.concatenate([self._qpos[:, :7], self._qvel[:, :7], *bodies], axis=1)

    def outcome(self, before: Any, actions: NDArray[Any]) -> Outcome:
        near = self.distance_cost("object", "tips_arm", self.options["reward_near_weight"])
        distance = self.distance_cost("object", "goal", self.options["reward_dist_weight"])
        control = self.control_reward(actions)
        info = {"reward_dist": distance, "reward_ctrl": control, "reward_near": near}
        return distance + control + near, np.zeros(self.num_envs, np.bool_), info

    def draw_state(self, generator: np.random.Generator) -> Floats:
        def draw() -> Floats:
            low = generator.uniform(low=-0.3, high=0, size=1)
            return np.concatenate([low, generator.uniform(low=-0.2, high=0.2, size=1)])

        cylinder = draw()
        while np.linalg.norm(cylinder) <= 0.17:  # from the goal, at the origin
            cylinder = draw()
        qpos = self.init_qpos.copy()
        qpos[-4:-2], qpos[-2:] = cylinder, 0
        qvel = self.init_qvel + generator.uniform(low=-0.005, high=0.005, size=self.model.nv)
        qvel[-4:] = 0
        return np.concatenate([qpos, qvel])


class InvertedPendulumVectorEnv(RobotVectorEnv):
    """`InvertedPendulum-v5`: 1 for each step in which the pole is up; ends when it is not."""

    gymnasium_class = "gymnasium.envs.mujoco.inverted_pendulum_v5:InvertedPendulumEnv"

    def observe(self) -> Floats:
        return np.concatenate([self._qpos, self._qvel], axis=1)

    def outcome(self, before: Any, actions: NDArray[Any]) -> Outcome:
        fallen = ~np.isfinite(self.observe()).all(axis=1) | (np.abs(self._qpos[:, 1]) > 0.2)
        survive = (~fallen).astype(np.int64)
        return survive.astype(np.float64), fallen, {"reward_survive": survive}


class InvertedDoublePendulumVectorEnv(RobotVectorEnv):
    """`InvertedDoublePendulum-v5`: 10 for each step, less the tip's distance and speeds; ends when the tip is low."""

    gymnasium_class = "gymnasium.envs.mujoco.inverted_double_pendulum_v5:InvertedDoublePendulumEnv"

    def prepare(self) -> None:
        self._sites, self._constraint = self.derived("site_xpos"), self.derived("qfrc_constraint")

    def observe(self) -> Floats:
        angles = self._qpos[:, 1:]
        force = np.clip(self._constraint[:, :1], -10, 10)
        parts = [self._qpos[:, :1], np.sin(angles), np.cos(angles), np.clip(self._qvel, -10, 10), force]
        return np.concatenate(parts, axis=1)

    def tip_heights(self) -> Floats:
        """Return how high the tip is, `(E,)`."""
        return self._sites[:, 0, 2]

    def outcome(self, before: Any, actions: NDArray[Any]) -> Outcome:
        x, y = self._sites[:, 0, 0], self.tip_heights()
        first, second = self._qvel[:, 1], self._qvel[:, 2]
        distance = 0.01 * x**2 + (y - 2) ** 2
        velocity = 1e-3 * first**2 + 5e-3 * second**2
        fallen = y <= 1
        survive = self.options["healthy_reward"] * (~fallen).astype(np.int64)
        info = {"reward_survive": survive, "distance_penalty": -distance, "velocity_penalty": -velocity}
        return survive - distance - velocity, fallen, info

    def draw_state(self, generator: np.random.Generator) -> Floats:
        return self.normal_velocities(generator)


MUJOCO_TASKS = {
    "HalfCheetah": HalfCheetahVectorEnv,
    "Hopper": HopperVectorEnv,
    "Walker2d": Walker2dVectorEnv,
    "Ant": AntVectorEnv,
    "Humanoid": HumanoidVectorEnv,
    "Swimmer": SwimmerVectorEnv,
    "Reacher": ReacherVectorEnv,
    "Pusher": PusherVectorEnv,
    "InvertedPendulum": InvertedPendulumVectorEnv,
    "InvertedDoublePendulum": InvertedDoublePendulumVectorEnv,
}
"""By the name in front of Gymnasium's "-v5"."""

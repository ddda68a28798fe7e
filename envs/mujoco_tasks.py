"""The ten MuJoCo tasks of Gymnasium v5 in bulk: what each observes, is rewarded for, ends at and starts from.

The formulas are those of `gymnasium.envs.mujoco.*_v5`, in the same order of operations, so that numbers agree.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefrl.envs.mujoco_vector import Flags, Floats, MujocoVectorEnv, Outcome
from prefrl.errors import UserError


class _Task(MujocoVectorEnv):
    """What several tasks share."""

    def control_cost(self, actions: NDArray[Any]) -> NDArray[Any]:
        """Return the weighted squared torques `(E,)`, in the actions' own precision."""
        cost: NDArray[Any] = self.options["ctrl_cost_weight"] * np.sum(np.square(actions), axis=1)
        return cost

    def positions_and_velocities(self, hidden: int, speed_limit: float | None = None) -> list[Floats]:
        """Return positions, the first `hidden` left out unless the options show them, and clipped velocities."""
        skipped = hidden if self.options["exclude_current_positions_from_observation"] else 0
        speeds = self._qvel if speed_limit is None else np.clip(self._qvel, -speed_limit, speed_limit)
        return [self._qpos[:, skipped:], speeds]

    def uniform(self, generator: np.random.Generator, initial: Floats) -> Floats:
        """Return a starting position or velocity with uniform noise."""
        scale = self.options["reset_noise_scale"]
        return initial + generator.uniform(low=-scale, high=scale, size=len(initial))

    def normal(self, generator: np.random.Generator, initial: Floats) -> Floats:
        """Return a starting velocity with normal noise."""
        return initial + self.options["reset_noise_scale"] * generator.standard_normal(len(initial))

    def draw_state(self, generator: np.random.Generator) -> tuple[Floats, Floats]:
        return self.uniform(generator, self.init_qpos), self.uniform(generator, self.init_qvel)

    def nobody_ends(self) -> Flags:
        return np.zeros(self.num_envs, np.bool_)


class HalfCheetahVectorEnv(_Task):
    """`HalfCheetah-v5`: forward velocity less the cost of torques; never ends early."""

    gymnasium_class = "gymnasium.envs.mujoco.half_cheetah_v5:HalfCheetahEnv"

    def observe(self) -> Floats:
        return np.concatenate(self.positions_and_velocities(1), axis=1)

    def before(self) -> Floats:
        return self._qpos[:, 0].copy()

    def outcome(self, before: Floats, actions: NDArray[Any]) -> Outcome:
        x = self._qpos[:, 0].copy()
        velocity = (x - before) / self.dt
        forward, cost = self.options["forward_reward_weight"] * velocity, self.control_cost(actions)
        info = {"x_position": x, "x_velocity": velocity, "reward_forward": forward, "reward_ctrl": -cost}
        return forward - cost, self.nobody_ends(), info

    def reset_info(self) -> dict[str, Any]:
        return {"x_position": self._qpos[:, 0].copy()}

    def draw_state(self, generator: np.random.Generator) -> tuple[Floats, Floats]:
        return self.uniform(generator, self.init_qpos), self.normal(generator, self.init_qvel)


class _Hopping(_Task):
    """Hopper and Walker2d: velocity, a bonus for being upright, cost of torques; ends at a fall."""

    def healthy(self) -> Flags:
        """Return which robots are upright, `(E,)`."""
        (low_z, high_z), (low, high) = self.options["healthy_z_range"], self.options["healthy_angle_range"]
        z, angle = self._qpos[:, 1], self._qpos[:, 2]
        return (low_z < z) & (z < high_z) & (low < angle) & (angle < high)

    def observe(self) -> Floats:
        return np.concatenate(self.positions_and_velocities(1, 10), axis=1)

    def before(self) -> Floats:
        return self._qpos[:, 0].copy()

    def outcome(self, before: Floats, actions: NDArray[Any]) -> Outcome:
        x, healthy = self._qpos[:, 0].copy(), self.healthy()
        velocity = (x - before) / self.dt
        forward, cost = self.options["forward_reward_weight"] * velocity, self.control_cost(actions)
        survive = healthy * self.options["healthy_reward"]
        info = {
            **self.reset_info(),
            "x_velocity": velocity,
            "reward_forward": forward,
            "reward_ctrl": -cost,
            "reward_survive": survive,
        }
        return forward + survive - cost, ~healthy & bool(self.options["terminate_when_unhealthy"]), info

    def reset_info(self) -> dict[str, Any]:
        height = self._qpos[:, 1] - self.init_qpos[1]
        return {"x_position": self._qpos[:, 0].copy(), "z_distance_from_origin": height}


class HopperVectorEnv(_Hopping):
    """`Hopper-v5`."""

    gymnasium_class = "gymnasium.envs.mujoco.hopper_v5:HopperEnv"

    def healthy(self) -> Flags:
        low, high = self.options["healthy_state_range"]
        positions, speeds = self._qpos[:, 2:], self._qvel
        within = ((low < positions) & (positions < high)).all(axis=1) & ((low < speeds) & (speeds < high)).all(axis=1)
        return super().healthy() & within


class Walker2dVectorEnv(_Hopping):
    """`Walker2d-v5`."""

    gymnasium_class = "gymnasium.envs.mujoco.walker2d_v5:Walker2dEnv"


class _OnAPlane(_Task):
    """Swimmer, Ant and Humanoid move in two dimensions."""

    def reset_info(self) -> dict[str, Any]:
        x, y = self._qpos[:, 0].copy(), self._qpos[:, 1].copy()
        return {"x_position": x, "y_position": y, "distance_from_origin": norms(self._qpos[:, :2])}


class SwimmerVectorEnv(_OnAPlane):
    """`Swimmer-v5`: forward velocity less the cost of torques; never ends early."""

    gymnasium_class = "gymnasium.envs.mujoco.swimmer_v5:SwimmerEnv"

    def observe(self) -> Floats:
        return np.concatenate(self.positions_and_velocities(2), axis=1)

    def before(self) -> Floats:
        return self._qpos[:, :2].copy()

    def outcome(self, before: Floats, actions: NDArray[Any]) -> Outcome:
        velocity = (self._qpos[:, :2] - before) / self.dt
        forward, cost = self.options["forward_reward_weight"] * velocity[:, 0], self.control_cost(actions)
        info = {**self.reset_info(), "x_velocity": velocity[:, 0], "y_velocity": velocity[:, 1]}
        info |= {"reward_forward": forward, "reward_ctrl": -cost}
        return forward - cost, self.nobody_ends(), info


class AntVectorEnv(_OnAPlane):
    """`Ant-v5`: forward velocity and a bonus for being upright, less the costs of torques and contacts."""

    gymnasium_class = "gymnasium.envs.mujoco.ant_v5:AntEnv"
    needs_forces = True

    def prepare(self) -> None:
        self._xpos, self._forces = self._batch.bind("xpos"), self._batch.bind("cfrc_ext")
        try:
            self._main_body = self.model.body(self.options["main_body"]).id
        except (KeyError, IndexError, TypeError) as error:
            raise UserError(f"main_body={self.options['main_body']!r} is no body of Ant's model: {error}") from error

    def contact_forces(self) -> Floats:
        """Return the clipped forces on each body, `(E, nbody, 6)`."""
        return np.clip(self._forces, *self.options["contact_force_range"])

    def observe(self) -> Floats:
        parts = self.positions_and_velocities(2)
        if self.options["include_cfrc_ext_in_observation"]:
            parts.append(self.contact_forces()[:, 1:].reshape(self.num_envs, -1))
        return np.concatenate(parts, axis=1)

    def before(self) -> Floats:
        return self._xpos[:, self._main_body, :2].copy()

    def healthy(self) -> Flags:
        """Return which robots are upright, `(E,)`."""
        low, high = self.options["healthy_z_range"]
        finite = np.isfinite(self._qpos).all(axis=1) & np.isfinite(self._qvel).all(axis=1)
        return finite & (low <= self._qpos[:, 2]) & (self._qpos[:, 2] <= high)

    def outcome(self, before: Floats, actions: NDArray[Any]) -> Outcome:
        velocity = (self._xpos[:, self._main_body, :2] - before) / self.dt
        forward, healthy = velocity[:, 0] * self.options["forward_reward_weight"], self.healthy()
        survive, control = healthy * self.options["healthy_reward"], self.control_cost(actions)
        squares = np.square(self.contact_forces()).reshape(self.num_envs, -1)
        contact = self.options["contact_cost_weight"] * np.sum(squares, axis=1)
        info = {**self.reset_info(), "x_velocity": velocity[:, 0], "y_velocity": velocity[:, 1]}
        info |= {"reward_forward": forward, "reward_ctrl": -control}
        info |= {"reward_contact": -contact, "reward_survive": survive}
        ended = ~healthy & bool(self.options["terminate_when_unhealthy"])
        return forward + survive - (control + contact), ended, info

    def draw_state(self, generator: np.random.Generator) -> tuple[Floats, Floats]:
        return self.uniform(generator, self.init_qpos), self.normal(generator, self.init_qvel)


class HumanoidVectorEnv(_OnAPlane):
    """`Humanoid-v5`: as Ant, by the velocity of the centre of mass."""

    gymnasium_class = "gymnasium.envs.mujoco.humanoid_v5:HumanoidEnv"
    needs_forces = True

    def prepare(self) -> None:
        names = ("xipos", "cinert", "cvel", "qfrc_actuator", "cfrc_ext", "ten_length", "ten_velocity")
        self._derived = {name: self._batch.bind(name) for name in names}

    def observe(self) -> Floats:
        parts = self.positions_and_velocities(2)
        for name, first in (("cinert", 1), ("cvel", 1), ("qfrc_actuator", 6), ("cfrc_ext", 1)):
            if self.options[f"include_{name}_in_observation"]:
                parts.append(self._derived[name][:, first:].reshape(self.num_envs, -1))
        return np.concatenate(parts, axis=1)

    def before(self) -> Floats:
        return self.mass_centres()

    def mass_centres(self) -> Floats:
        """Return the centres of mass in the plane, `(E, 2)`."""
        total: Floats = np.einsum("b,ebj->ej", self.model.body_mass, self._derived["xipos"])
        return (total / self.model.body_mass.sum())[:, :2]

    def outcome(self, before: Floats, actions: NDArray[Any]) -> Outcome:
        velocity = (self.mass_centres() - before) / self.dt
        forward = self.options["forward_reward_weight"] * velocity[:, 0]
        low_z, high_z = self.options["healthy_z_range"]
        healthy = (low_z < self._qpos[:, 2]) & (self._qpos[:, 2] < high_z)
        survive = healthy * self.options["healthy_reward"]
        control = self.options["ctrl_cost_weight"] * np.sum(np.square(self._ctrl), axis=1)
        squares = np.square(self._derived["cfrc_ext"]).reshape(self.num_envs, -1)
        contact = np.clip(
            self.options["contact_cost_weight"] * np.sum(squares, axis=1), *self.options["contact_cost_range"]
        )
        info = {**self.reset_info(), "x_velocity": velocity[:, 0], "y_velocity": velocity[:, 1]}
        info |= {"reward_survive": survive, "reward_forward": forward}
        info |= {"reward_ctrl": -control, "reward_contact": -contact}
        ended = ~healthy & bool(self.options["terminate_when_unhealthy"])
        return forward + survive - (control + contact), ended, info

    def reset_info(self) -> dict[str, Any]:
        tendons = {f"tendon_{what}": self._derived[f"ten_{what}"].copy() for what in ("length", "velocity")}
        return {**super().reset_info(), **tendons}


class _WithBodies(MujocoVectorEnv):
    """Reacher and Pusher: rewards are distances between bodies; never ends early."""

    def prepare(self) -> None:
        self._xpos = self._batch.bind("xpos")

    def body(self, name: str) -> Floats:
        """Return where a body is, `(E, 3)`."""
        return self._xpos[:, self.model.body(name).id]

    def distance_cost(self, first: str, second: str, weight: float) -> Floats:
        """Return the weighted distance between two bodies, negative, `(E,)`."""
        return -norms(self.body(first) - self.body(second)) * weight

    def control_reward(self, actions: NDArray[Any]) -> NDArray[Any]:
        """Return the weighted squared torques, negative, `(E,)`."""
        reward: NDArray[Any] = -np.square(actions).sum(axis=1) * self.options["reward_control_weight"]
        return reward


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

    def draw_state(self, generator: np.random.Generator) -> tuple[Floats, Floats]:
        qpos = generator.uniform(low=-0.1, high=0.1, size=self.model.nq) + self.init_qpos
        goal = generator.uniform(low=-0.2, high=0.2, size=2)
        while np.linalg.norm(goal) >= 0.2:
            goal = generator.uniform(low=-0.2, high=0.2, size=2)
        qpos[-2:] = goal
        qvel = self.init_qvel + generator.uniform(low=-0.005, high=0.005, size=self.model.nv)
        qvel[-2:] = 0
        return qpos, qvel


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

    def draw_state(self, generator: np.random.Generator) -> tuple[Floats, Floats]:
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
        return qpos, qvel


class InvertedPendulumVectorEnv(_Task):
    """`InvertedPendulum-v5`: 1 for each step in which the pole is up; ends when it is not."""

    gymnasium_class = "gymnasium.envs.mujoco.inverted_pendulum_v5:InvertedPendulumEnv"

    def observe(self) -> Floats:
        return np.concatenate([self._qpos, self._qvel], axis=1)

    def outcome(self, before: Any, actions: NDArray[Any]) -> Outcome:
        fallen = ~np.isfinite(self.observe()).all(axis=1) | (np.abs(self._qpos[:, 1]) > 0.2)
        survive = (~fallen).astype(np.int64)
        return survive.astype(np.float64), fallen, {"reward_survive": survive}


class InvertedDoublePendulumVectorEnv(_Task):
    """`InvertedDoublePendulum-v5`: 10 for each step, less the tip's distance and speeds; ends when the tip is low."""

    gymnasium_class = "gymnasium.envs.mujoco.inverted_double_pendulum_v5:InvertedDoublePendulumEnv"

    def prepare(self) -> None:
        self._sites, self._constraint = self._batch.bind("site_xpos"), self._batch.bind("qfrc_constraint")

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

    def draw_state(self, generator: np.random.Generator) -> tuple[Floats, Floats]:
        return self.uniform(generator, self.init_qpos), self.normal(generator, self.init_qvel)


def norms(vectors: Floats) -> Floats:
    """Return Euclidean lengths `(E,)` of `(E, n)`, rounded as `numpy.linalg.norm` of each row."""
    rows = np.ascontiguousarray(vectors)
    lengths: Floats = np.sqrt(np.matmul(rows[:, None, :], rows[:, :, None])[:, 0, 0])
    return lengths


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

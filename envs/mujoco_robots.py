"""The MuJoCo robots that run, hop, walk and swim (Gymnasium v5) in bulk; `prefrl.envs.mujoco_tasks` has the others.

The formulas are those of `gymnasium.envs.mujoco.*_v5`, in the same order of operations, so that numbers agree.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefrl.envs.mujoco_vector import Flags, Floats, MujocoVectorEnv, Outcome
from prefrl.envs.vector_tools import norms, weighted
from prefrl.errors import UserError


class RobotVectorEnv(MujocoVectorEnv):
    """What several tasks share."""

    def control_cost(self, actions: NDArray[Any]) -> NDArray[Any]:
        """Return the weighted squared torques `(E,)`, in the actions' own precision."""
        return weighted(np.square(actions).sum(axis=1), self.options["ctrl_cost_weight"])

    def positions_and_velocities(self, hidden: int, speed_limit: float | None = None) -> list[Floats]:
        """Return positions, the first `hidden` left out unless the options show them, and clipped velocities."""
        skipped = hidden if self.options["exclude_current_positions_from_observation"] else 0
        speeds = self._qvel
        if speed_limit is not None:
            speeds = np.minimum(np.maximum(speeds, -speed_limit), speed_limit)
        return [self._qpos[:, skipped:], speeds]

    def uniform(self, generator: np.random.Generator, initial: Floats) -> Floats:
        """Return a start with uniform noise."""
        scale = self.options["reset_noise_scale"]
        return initial + generator.uniform(low=-scale, high=scale, size=len(initial))

    def normal_velocities(self, generator: np.random.Generator) -> Floats:
        """Return a starting state whose positions have uniform noise, and its velocities normal noise."""
        positions = self.uniform(generator, self.init_qpos)
        noise = self.options["reset_noise_scale"] * generator.standard_normal(len(self.init_qvel))
        return np.concatenate([positions, self.init_qvel + noise])

    def draw_state(self, generator: np.random.Generator) -> Floats:
        return self.uniform(generator, self.init_state)  # in one draw: the numbers are those of two

    def nobody_ends(self) -> Flags:
        return np.zeros(self.num_envs, np.bool_)


class HalfCheetahVectorEnv(RobotVectorEnv):
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

    def draw_state(self, generator: np.random.Generator) -> Floats:
        return self.normal_velocities(generator)


class _Hopping(RobotVectorEnv):
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


class _OnAPlane(RobotVectorEnv):
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
        self._xpos, self._forces = self.derived("xpos"), self.derived("cfrc_ext")
        try:
            self._main_body = self.model.body(self.options["main_body"]).id
        except (KeyError, IndexError, TypeError) as error:
            raise UserError(f"main_body={self.options['main_body']!r} is not a body of Ant's model: {error}") from error

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

    def draw_state(self, generator: np.random.Generator) -> Floats:
        return self.normal_velocities(generator)


class HumanoidVectorEnv(_OnAPlane):
    """`Humanoid-v5`: as Ant, by the velocity of the centre of mass."""

    gymnasium_class = "gymnasium.envs.mujoco.humanoid_v5:HumanoidEnv"
    needs_forces = True

    def prepare(self) -> None:
        names = ("xipos", "cinert", "cvel", "qfrc_actuator", "cfrc_ext", "ten_length", "ten_velocity")
        self._derived = {name: self.derived(name) for name in names}

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

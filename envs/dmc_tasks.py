"""Tasks of the DeepMind Control Suite in bulk: what each observes, is rewarded for and starts from.

They are those of `dm_control.suite`, observations flattened in its order. The papers on learning from preferences since
PEBBLE (Lee et al. 2021) use most of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from prefrl.envs.dmc_models import Body, BodyTemplate
from prefrl.envs.dmc_rewards import tolerance
from prefrl.envs.dmc_vector import DmcVectorEnv
from prefrl.envs.mujoco_vector import Floats
from prefrl.envs.single import SingleEnv
from prefrl.errors import UserError, near_names


class WalkerDmcVectorEnv(DmcVectorEnv):
    """`walker`: two legs in a plane; stands, and goes forward at a speed."""

    body = Body(file="walker", physics_steps=10, num_observed=24, camera="side")

    def prepare(self) -> None:
        super().prepare()
        self._forward = self.sensor("torso_subtreelinvel")[0]

    def observe(self) -> Floats:
        turned = self._xmat.reshape(self.num_envs, -1, 9)[:, 1:, [0, 2]].reshape(self.num_envs, -1)
        return np.concatenate([turned, self.height(self._torso)[:, None], self._qvel], axis=1)

    def rewards(self) -> Floats:
        standing = tolerance(self.height(self._torso), 1.2, margin=0.6)
        stands = (3 * standing + (1 + self.upright()) / 2) / 4
        if self.speed == 0:
            return stands
        velocity = self._sensors[:, self._forward]
        moves = tolerance(velocity, self.speed, margin=self.speed / 2, at_margin=0.5, shape="linear")
        return stands * (5 * moves + 1) / 6


class CheetahDmcVectorEnv(DmcVectorEnv):
    """`cheetah`: runs in a plane."""

    body = Body(file="cheetah", physics_steps=1, num_observed=17, camera="side")

    def prepare(self) -> None:
        super().prepare()
        self._forward = self.sensor("torso_subtreelinvel")[0]

    def observe(self) -> Floats:
        return np.concatenate([self._qpos[:, 1:], self._qvel], axis=1)

    def rewards(self) -> Floats:
        return tolerance(self._sensors[:, self._forward], self.speed, margin=self.speed, at_margin=0, shape="linear")

    def draw_state(self, generator: np.random.Generator) -> Floats:
        """Draw joints within their limits and let the body come to rest for 200 steps of the physics.

        The first of these computes forces in the model's own pose, as dm_control's does.
        """
        model, data, mujoco = self.model, self._drawn, self._mujoco
        mujoco.mj_resetData(model, data)
        mujoco.mj_forward(model, data)
        limited = model.jnt_limited == 1
        data.qpos[limited] = generator.uniform(*model.jnt_range[limited].T)
        mujoco.mj_step2(model, data)
        mujoco.mj_step(model, data, nstep=199)
        return np.concatenate([data.qpos, data.qvel])


class HopperDmcVectorEnv(DmcVectorEnv):
    """`hopper`: one leg in a plane; stands, or hops forward."""

    body = Body(file="hopper", physics_steps=4, num_observed=15, camera="cam0")

    def prepare(self) -> None:
        super().prepare()
        self._xipos = self.derived("xipos")
        self._foot = self.model.body("foot").id
        self._forward = self.sensor("torso_subtreelinvel")[0]
        self._touch = self.sensor("touch_toe", "touch_heel")

    def observe(self) -> Floats:
        touch = np.log1p(self._sensors[:, self._touch])
        return np.concatenate([self._qpos[:, 1:], self._qvel, touch], axis=1)

    def rewards(self) -> Floats:
        standing = tolerance(self._xipos[:, self._torso, 2] - self._xipos[:, self._foot, 2], 0.6, 2)
        if self.speed == 0:
            controls = tolerance(self._ctrl, 0, 0, margin=1, at_margin=0, shape="quadratic")
            return standing * self.small_controls(controls)
        velocity = self._sensors[:, self._forward]
        return standing * tolerance(velocity, self.speed, margin=self.speed / 2, at_margin=0.5, shape="linear")


class QuadrupedDmcVectorEnv(DmcVectorEnv):
    """`quadruped`: four legs; walks or runs whichever way it faces, on a floor as large as the way is long."""

    _EXTRAS = (
        *(("geom", f"wall_{side}") for side in ("px", "py", "nx", "ny")),
        ("geom", "terrain"),
        ("site", "target"),
        ("body", "ball"),
    )
    body = Body(
        file="quadruped",
        physics_steps=4,
        num_observed=78,
        camera="y",
        left_out=_EXTRAS,
        sensors_left_out="rf_",
    )

    def make_template(self, options: dict[str, Any], render_mode: str) -> tuple[BodyTemplate, dict[str, Any]]:
        template = BodyTemplate(replace(self.body, floor_size=20 * self.speed), options, render_mode)
        return template, template.options

    def prepare(self) -> None:
        super().prepare()
        model, joints = self.model, self._mujoco.mjtJoint
        hinges = model.jnt_type == joints.mjJNT_HINGE
        self._hinge_positions, self._hinge_velocities = model.jnt_qposadr[hinges], model.jnt_dofadr[hinges]
        self._velocity = self.sensor("velocimeter")
        self._imu = self.sensor("imu_accel", "imu_gyro")
        toes = [f"{kind}_toe_{toe}" for kind in ("force", "torque") for toe in _TOES]
        self._forces = self.sensor(*toes)
        self._flags = self._batch.expand("opt.disableflags")
        self._acts = int(self._flags[0])
        self._rests = self._acts | int(self._mujoco.mjtDisableBit.mjDSBL_ACTUATION)

    def derive(self, envs: NDArray[np.int32]) -> None:
        """Leave out what the actuators do, as dm_control: they pull while nobody has acted, and the sensors feel it."""
        self._flags[envs] = self._rests
        self._batch.forward(envs)
        self._flags[envs] = self._acts

    def observe(self) -> Floats:
        sensors = self._sensors
        parts = [self._qpos[:, self._hinge_positions], self._qvel[:, self._hinge_velocities], self._act]
        parts += [sensors[:, self._velocity], self.upright()[:, None], sensors[:, self._imu]]
        return np.concatenate([*parts, np.arcsinh(sensors[:, self._forces])], axis=1)

    def rewards(self) -> Floats:
        velocity = self._sensors[:, self._velocity[0]]
        moves = tolerance(velocity, self.speed, margin=self.speed, at_margin=0.5, shape="linear")
        return tolerance(self.upright(), 1, margin=2, at_margin=0, shape="linear") * moves

    def draw_state(self, generator: np.random.Generator) -> Floats:
        """Draw an orientation, and put the body as low as it can be without touching anything, to a centimetre."""
        turned = generator.standard_normal(4)
        return self.at_rest(self.lowest(turned / np.linalg.norm(turned)))

    def lowest(self, orientation: Floats) -> Floats:
        """Return the positions `(nq,)` of a body that is turned so, a quaternion, and touches nothing."""
        positions: Floats = self.model.qpos0.copy()
        positions[:7] = [0, 0, 0, *orientation]
        while self.touches(positions):
            positions[2] += 0.01
        return positions


_TOES = ("front_left", "front_right", "back_right", "back_left")


class HumanoidDmcVectorEnv(DmcVectorEnv):
    """`humanoid`: stands, or goes whichever way, with little force."""

    body = Body(file="humanoid", physics_steps=5, num_observed=67, camera="side")

    def prepare(self) -> None:
        super().prepare()
        self._head = self.model.body("head").id
        self._limbs = [self.model.body(f"{side}_{limb}").id for side in ("left", "right") for limb in ("hand", "foot")]
        self._velocity = self.sensor("torso_subtreelinvel")

    def observe(self) -> Floats:
        frame = self._xmat[:, self._torso].reshape(self.num_envs, 3, 3)
        limbs = (self._xpos[:, self._limbs] - self._xpos[:, [self._torso]]) @ frame
        parts = [self._qpos[:, 7:], self.height(self._head)[:, None], limbs.reshape(self.num_envs, -1), frame[:, 2]]
        return np.concatenate([*parts, self._sensors[:, self._velocity], self._qvel], axis=1)

    def rewards(self) -> Floats:
        standing = tolerance(self.height(self._head), 1.4, margin=0.35)
        upright = tolerance(self.upright(), 0.9, margin=1.9, at_margin=0, shape="linear")
        controls = tolerance(self._ctrl, 0, 0, margin=1, at_margin=0, shape="quadratic")
        stands, paid = standing * upright, self.small_controls(controls)
        velocity = self._sensors[:, self._velocity[:2]]
        if self.speed == 0:
            return paid * stands * tolerance(velocity, 0, 0, margin=2).mean(axis=1)
        moves = tolerance(
            np.hypot(velocity[:, 0], velocity[:, 1]), self.speed, margin=self.speed, at_margin=0, shape="linear"
        )
        return paid * stands * (5 * moves + 1) / 6

    def draw_state(self, generator: np.random.Generator) -> Floats:
        positions = self.any_pose(generator)
        while self.touches(positions):
            positions = self.any_pose(generator)
        return self.at_rest(positions)


@dataclass(frozen=True, kw_only=True)
class DmcTask:
    """One task of the suite."""

    base: type[DmcVectorEnv]
    """The body."""
    speed: float
    """Metres per second above which moving is worth all it can be worth; 0: to stand."""


DMC_TASKS = {
    "walker-stand": DmcTask(base=WalkerDmcVectorEnv, speed=0),
    "walker-walk": DmcTask(base=WalkerDmcVectorEnv, speed=1),
    "walker-run": DmcTask(base=WalkerDmcVectorEnv, speed=8),
    "cheetah-run": DmcTask(base=CheetahDmcVectorEnv, speed=10),
    "hopper-stand": DmcTask(base=HopperDmcVectorEnv, speed=0),
    "hopper-hop": DmcTask(base=HopperDmcVectorEnv, speed=2),
    "quadruped-walk": DmcTask(base=QuadrupedDmcVectorEnv, speed=0.5),
    "quadruped-run": DmcTask(base=QuadrupedDmcVectorEnv, speed=5),
    "humanoid-stand": DmcTask(base=HumanoidDmcVectorEnv, speed=0),
    "humanoid-walk": DmcTask(base=HumanoidDmcVectorEnv, speed=1),
    "humanoid-run": DmcTask(base=HumanoidDmcVectorEnv, speed=10),
}
"""By name, as registered: `prefrl/DMC-<name>-v0`."""


def dmc_vector(task: str, num_envs: int = 1, **options: Any) -> DmcVectorEnv:
    """Make E copies of a task.

    Args:
        task: a name of `DMC_TASKS`.
        num_envs: E.
        options: those of `DmcVectorEnv`.

    Raises:
        MissingExtraError: MuJoCo or dm_control is not installed.
        UserError: there is no such task or option, or more environments than memory allows.
    """
    if task not in DMC_TASKS:
        raise UserError(
            f"There is no task {task!r} of the DeepMind Control Suite here.{near_names(task, DMC_TASKS)} There are: "
            f"{', '.join(DMC_TASKS)}. Others run through shimmy, with an older MuJoCo: docs/compatibility.md."
        )
    return DMC_TASKS[task].base(num_envs, speed=DMC_TASKS[task].speed, **options)


def dmc_single(task: str, **options: Any) -> SingleEnv:
    """Make one environment of a task."""
    return SingleEnv(dmc_vector(task, 1, autoreset_mode=AutoresetMode.DISABLED, num_threads=1, **options))

"""Many copies of a task of the DeepMind Control Suite (Tassa et al. 2018; dm_control), stepped in one call.

Physics, observations and rewards are dm_control's: `docs/environments.md` says within which tolerances.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from prefrl.envs.dmc_models import Body, BodyTemplate
from prefrl.envs.mujoco_vector import PRIVATE_DATA_BYTES, Floats, MujocoVectorEnv, Outcome
from prefrl.errors import require


class DmcVectorEnv(MujocoVectorEnv):
    """E copies of one task. No episode ends early: its last step is truncated, as dm_control's discount of 1 says.

    Args:
        num_envs: E.
        speed: what the task asks for, in metres per second; 0: to stand.
        options: those of `MujocoVectorEnv`, and `width`, `height`, `camera_name`, `camera_id` of the pictures.

    Raises:
        MissingExtraError: MuJoCo or dm_control is not installed.
        UserError: as `MujocoVectorEnv`.
    """

    body: ClassVar[Body]

    def __init__(self, num_envs: int = 1, *, speed: float, **options: Any) -> None:
        self.speed = speed
        super().__init__(num_envs, **options)

    def make_template(self, options: dict[str, Any], render_mode: str) -> tuple[BodyTemplate, dict[str, Any]]:
        template = BodyTemplate(self.body, options, render_mode)
        return template, template.options

    def make_batch(self, model: Any, num_threads: int) -> Any:
        """Return simulations that keep their data, so that the next step goes on from what `advance` computed last."""
        return require("mujoco.batch", "mujoco").Batch(model, self.num_envs, num_threads, persistent=True)

    def advance(self, envs: NDArray[np.int32] | None) -> None:
        """Step, and bring positions and velocities up to date: dm_control's `legacy_step`.

        Sensors of forces and accelerations stay those of the last step of the physics, there as here.
        """
        self._batch.step(envs, nstep=self.frame_skip, stage=self._up_to_date)

    def prepare(self) -> None:
        mujoco = require("mujoco", "mujoco")
        self._mujoco, self._up_to_date = mujoco, int(mujoco.mjtStage.mjSTAGE_VEL)
        self._drawn = mujoco.MjData(self.model)  # where starting states are looked for
        self._sensors, self._xpos, self._xmat = (self.derived(name) for name in ("sensordata", "xpos", "xmat"))
        self._torso = self.model.body("torso").id

    def sensor(self, *names: str) -> NDArray[np.int64]:
        """Return where the numbers of sensors are in the row of all, one sensor after another."""
        rows = [self.model.sensor(name) for name in names]
        return np.concatenate([np.arange(row.adr[0], row.adr[0] + row.dim[0]) for row in rows])

    def height(self, body: int) -> Floats:
        """Return how high a body is, in metres, `(E,)`."""
        return self._xpos[:, body, 2]

    def upright(self) -> Floats:
        """Return the vertical part of the torso's own upward direction, `(E,)`."""
        return self._xmat[:, self._torso].reshape(self.num_envs, 9)[:, 8]

    def small_controls(self, control: Floats) -> Floats:
        """Return how much of a reward is left after actions are paid for, given what each would leave, `(E, nu)`."""
        return (control.mean(axis=1) + 4) / 5

    @abstractmethod
    def rewards(self) -> Floats:
        """Return the reward of the state after a step, `(E,)`, each in [0, 1]."""

    def outcome(self, before: Any, actions: NDArray[Any]) -> Outcome:
        return self.rewards(), np.zeros(self.num_envs, np.bool_), {}

    def at_rest(self, positions: Floats) -> Floats:
        """Return the state with these positions in which nothing moves."""
        return np.concatenate([positions, np.zeros(self.model.nv + self.model.na)])

    def touches(self, positions: Floats) -> bool:
        """Tell whether anything touches anything in these positions."""
        self._drawn.qpos[:] = positions
        self._mujoco.mj_fwdPosition(self.model, self._drawn)
        return bool(self._drawn.ncon > 0)

    def any_pose(self, generator: np.random.Generator) -> Floats:
        """Draw positions: joints within their limits, or any angle; a free body stays where it is and is turned."""
        model, joints = self.model, self._mujoco.mjtJoint
        positions: Floats = model.qpos0.copy()
        for kind, place, limited, limits in zip(
            model.jnt_type, model.jnt_qposadr, model.jnt_limited, model.jnt_range, strict=True
        ):
            if limited:
                positions[place] = generator.uniform(*limits)
            elif kind == joints.mjJNT_HINGE:
                positions[place] = generator.uniform(-np.pi, np.pi)
            elif kind == joints.mjJNT_FREE:
                turned = generator.random(4)  # dm_control's: not uniform over all orientations
                positions[place + 3 : place + 7] = turned / np.linalg.norm(turned)
        return positions

    def draw_state(self, generator: np.random.Generator) -> Floats:
        return self.at_rest(self.any_pose(generator))

    def _bytes_per_env(self) -> int:
        return super()._bytes_per_env() + PRIVATE_DATA_BYTES + 2 * int(self.template.data.nbuffer)

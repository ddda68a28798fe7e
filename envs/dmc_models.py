"""The models of the DeepMind Control Suite, read from the installed package dm_control, which is not imported.

dm_control 1.0.50 can be installed beside MuJoCo 4 but makes none of its environments there: it looks for a field of
MuJoCo's models that is gone. Its models are files of MuJoCo's own format, which is all that is needed of it here.
"""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from prefrl.envs.mujoco_quiet import quiet_mujoco
from prefrl.envs.mujoco_vector import PICTURES, Floats
from prefrl.envs.vector_tools import check_whole
from prefrl.errors import MissingExtraError, UserError, near_names, require

OPTIONS = ("width", "height", "camera_name", "camera_id")
_SIZE = 480  # pixels, as Gymnasium's pictures
_MAX_GEOMS = 1000  # that are drawn, as Gymnasium's


@dataclass(frozen=True, kw_only=True)
class Body:
    """A body of the suite and how its tasks are stepped."""

    file: str
    """Name of the model's file, without its ending."""
    physics_steps: int
    """Steps of the physics in one step of the environment."""
    num_observed: int
    """Numbers of an observation."""
    camera: str
    """The camera that people look through, unless they ask for another."""
    floor_size: float | None = None
    """Half the floor's side, in metres; None: as in the file."""
    left_out: tuple[tuple[str, str], ...] = ()
    """Kinds and names of what other tasks alone need, such as a ball."""
    sensors_left_out: str | None = None
    """Beginning of the names of sensors that other tasks alone need."""


def models_folder() -> Path:
    """Return the folder of the suite's models.

    Raises:
        MissingExtraError: dm_control is not installed, or lacks them.
    """
    found = importlib.util.find_spec("dm_control")  # finds it without importing it
    for place in [] if found is None else found.submodule_search_locations or []:
        if (folder := Path(place) / "suite").is_dir():
            return folder
    raise MissingExtraError(
        "This needs the models of the package 'dm_control', which is not installed. Install it with: "
        'pip install "prefrl[dmc]". Where not everything that it asks for can be installed, its files alone will do: '
        "pip install --no-deps dm_control"
    )


def load_model(body: Body, width: int, height: int) -> Any:
    """Compile the `mujoco.MjModel` of a body as its tasks have it, with room for pictures of a size in pixels.

    Raises:
        MissingExtraError: MuJoCo or dm_control is not installed.
        UserError: the file is not there, or MuJoCo refuses it.
    """
    mujoco, path = require("mujoco", "mujoco"), models_folder() / f"{body.file}.xml"
    try:
        with quiet_mujoco(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*deprecated")  # what dm_control's files use will do for MuJoCo 4
            spec = mujoco.MjSpec.from_file(str(path))
            for kind, name in body.left_out:
                spec.delete(_element(spec, kind, name))
            if body.sensors_left_out is not None:
                for sensor in [one for one in spec.sensors if one.name.startswith(body.sensors_left_out)]:
                    spec.delete(sensor)
            if body.floor_size is not None:
                floor = _element(spec, "geom", "floor")
                floor.size = [body.floor_size, body.floor_size, floor.size[2]]
            spec.visual.global_.offwidth = max(spec.visual.global_.offwidth, width)
            spec.visual.global_.offheight = max(spec.visual.global_.offheight, height)
            model: Any = spec.compile()
            return model
    except (OSError, ValueError) as error:
        raise UserError(f"MuJoCo cannot read dm_control's model {path}: {error}") from error


def _element(spec: Any, kind: str, name: str) -> Any:
    found = getattr(spec, kind)(name)
    if found is None:
        raise ValueError(f"it has no {kind} {name!r}")
    return found


class BodyTemplate:
    """One body: its model, spaces and renderer, in the form in which Gymnasium's MuJoCo environments have them.

    Args:
        body: which.
        options: size of pictures, and a camera by name or number.
        render_mode: "rgb_array", "depth_array" or "rgbd_tuple".

    Raises:
        MissingExtraError: MuJoCo or dm_control is not installed.
        UserError: there is no such option, or camera, or no picture of this size.
    """

    def __init__(self, body: Body, options: dict[str, Any], render_mode: str) -> None:
        for name in options:
            if name not in OPTIONS:
                raise UserError(
                    f"The tasks of the DeepMind Control Suite have no option {name!r}.{near_names(name, OPTIONS)} "
                    f"They know: {', '.join(OPTIONS)}."
                )
        usual = {"width": _SIZE, "height": _SIZE, "camera_name": None, "camera_id": None}
        self.options: dict[str, Any] = {**usual, **options}
        width, height = self.options["width"], self.options["height"]
        check_whole("width", width, 1)
        check_whole("height", height, 1)
        self._mujoco = require("mujoco", "mujoco")
        self.model = load_model(body, int(width), int(height))
        self.data = self._mujoco.MjData(self.model)
        self.frame_skip, self.render_mode = body.physics_steps, render_mode
        self.dt: float = self.model.opt.timestep * body.physics_steps
        self.init_qpos, self.init_qvel = self.data.qpos.copy(), self.data.qvel.copy()
        self.observation_space = spaces.Box(-np.inf, np.inf, (body.num_observed,), np.float64)
        low, high = self.model.actuator_ctrlrange.astype(np.float32).T
        self.action_space = spaces.Box(low, high, dtype=np.float32)
        self.metadata = {"render_modes": list(PICTURES), "render_fps": round(1 / self.dt)}
        rendering = require("gymnasium.envs.mujoco.mujoco_rendering", "mujoco")
        camera = self._camera(body.camera)
        self.mujoco_renderer = rendering.MujocoRenderer(
            self.model, self.data, None, int(width), int(height), _MAX_GEOMS, camera
        )

    def _camera(self, usual: str) -> int:
        name, number = self.options["camera_name"], self.options["camera_id"]
        names = [self.model.camera(index).name for index in range(self.model.ncam)]
        if name is not None and number is not None:
            raise UserError("Give a camera by camera_name or by camera_id, not by both.")
        if number is not None:
            check_whole("camera_id", number, -1)
            if number >= self.model.ncam:
                raise UserError(f"camera_id must be less than {self.model.ncam}. Received {number}")
            return int(number)
        if name is not None and name not in names:
            near = near_names(str(name), names)
            raise UserError(f"There is no camera {name!r}.{near} There are: {', '.join(names)}.")
        return names.index(usual if name is None else name)

    def set_state(self, positions: Floats, velocities: Floats) -> None:
        """Put the body into a state, `(nq,)` and `(nv,)`, to be drawn."""
        self.data.qpos[:], self.data.qvel[:] = positions, velocities
        self._mujoco.mj_forward(self.model, self.data)

    def _step_mujoco_simulation(self, controls: Floats, num_steps: int) -> None:
        """Step, and bring positions up to date as dm_control does: what is drawn is the state after the step."""
        self.data.ctrl[:] = controls
        self._mujoco.mj_step(self.model, self.data, nstep=num_steps)
        self._mujoco.mj_step1(self.model, self.data)

    def render(self) -> Any:
        """Return a picture in the render mode."""
        return self.mujoco_renderer.render(self.render_mode)

    def close(self) -> None:
        """Give back the renderer."""
        self.mujoco_renderer.close()

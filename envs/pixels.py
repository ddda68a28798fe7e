"""Tasks of MuJoCo and classic control of which agent and reward see pictures alone: `prefrl/Pixels-<name>`.

The observation is the last pictures, grey, the newest last, `(depth, size, size)` uint8: several, because one shows no
velocities. At the start of an episode all of them are its first picture. A picture depends on nothing but the state in
which it is drawn: MuJoCo's are those of Gymnasium's renderer without shadows and antialiasing, drawn from a copy of the
model by one renderer for all copies of an environment in a program, since each takes a context of its own; those of
classic control are drawn as for people and averaged down.

The environment inside is Gymnasium's own. People are shown what it draws, in colour and full size.
"""

from __future__ import annotations

import copy
import functools
import weakref
from collections.abc import Callable
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from prefrl.errors import UserError, require

Picture = NDArray[np.uint8]
SIZE, DEPTH = 64, 4
LARGEST, DEEPEST = 512, 16


class Draw(Protocol):
    """Draws the state that an environment is in."""

    def __call__(self) -> Picture:
        """Return a grey picture `(size, size)`."""


class Pixels(gymnasium.Wrapper[Picture, Any, Any, Any]):
    """Gives the last `depth` pictures in place of what the environment observes.

    Args:
        env: whose pictures they are.
        draw: gives the picture of its state.
        size: of a picture, in pixels.
        depth: pictures in an observation.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], draw: Draw, size: int, depth: int) -> None:
        super().__init__(env)
        self._draw = draw
        self._stack = np.zeros((depth, size, size), np.uint8)
        self.observation_space = spaces.Box(0, 255, (depth, size, size), np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Picture, dict[str, Any]]:
        """Begin a new episode."""
        _, info = self.env.reset(seed=seed, options=options)
        self._stack[:] = self._draw()
        return self._stack.copy(), info

    def step(self, action: Any) -> tuple[Picture, float, bool, bool, dict[str, Any]]:
        """Take one step."""
        _, reward, terminated, truncated, info = self.env.step(action)
        self._stack[:-1] = self._stack[1:]
        self._stack[-1] = self._draw()
        return self._stack.copy(), float(reward), terminated, truncated, info


def mujoco_pixels(
    task: str, *, size: int = SIZE, depth: int = DEPTH, render_mode: str | None = None, **options: Any
) -> gymnasium.Env[Any, Any]:
    """Make one of Gymnasium's MuJoCo tasks, seen in pictures.

    Args:
        task: Gymnasium's name.
        size: of a picture, in pixels.
        depth: pictures in an observation.
        render_mode: of what people see.
        options: of Gymnasium's class.

    Raises:
        MissingExtraError: MuJoCo is not installed.
        UserError: a size or depth that cannot be, or nothing to draw with.
    """
    _check(size, depth)
    require("mujoco", "mujoco")
    base: Any = _inside(task, render_mode, options)
    own = base.mujoco_renderer
    base.mujoco_renderer = _own_context()(
        base.model,
        base.data,
        own.default_cam_config,
        own.width,
        own.height,
        own.max_geom,
        camera_id=own.camera_id,
        visual_options=options.get("visual_options"),
    )
    key = (task, size, repr(sorted(options.items())))
    painter = _PAINTERS.get(key)
    if painter is None:
        painter = _PAINTERS[key] = _Painter(base, size, options)
    return Pixels(base, lambda: painter(base.data.qpos), size, depth)


def classic_pixels(
    task: str, *, size: int = SIZE, depth: int = DEPTH, render_mode: str | None = None, **options: Any
) -> gymnasium.Env[Any, Any]:
    """Make one of Gymnasium's classic-control tasks, seen in pictures; arguments and errors as `mujoco_pixels`."""
    _check(size, depth)
    if render_mode not in (None, "rgb_array"):
        raise UserError(f'render_mode must be "rgb_array" or none. Received {render_mode!r}')
    base = _inside(task, "rgb_array", options)
    shrink = Shrink(size)
    return Pixels(base, lambda: shrink(grey(np.asarray(base.render()))), size, depth)


def _inside(task: str, render_mode: str | None, options: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    env = gymnasium.make(task, disable_env_checker=True, render_mode=render_mode, **options)
    return env.unwrapped  # its limit is ours to set


def _check(size: int, depth: int) -> None:
    for name, value, most in (("size", size, LARGEST), ("depth", depth, DEEPEST)):
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise UserError(f"{name} must be a whole number from 1 to {most}. Received {value!r}")


def grey(picture: Picture) -> Picture:
    """Return a picture `(H, W, 3)` without its colours, `(H, W)`."""
    red, green, blue = (picture[..., colour].astype(np.uint16) for colour in range(3))
    return ((77 * red + 150 * green + 29 * blue) >> 8).astype(np.uint8)  # Rec. 601, in 256ths


class Shrink:
    """Averages pictures down to squares: each new pixel is the mean of the area that it covers.

    Args:
        size: of the squares.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._weights: dict[int, NDArray[np.float32]] = {}

    def __call__(self, picture: Picture) -> Picture:
        """Return a picture `(H, W)` as `(size, size)`."""
        rows, columns = (self._weights_of(side) for side in picture.shape)
        return (rows @ picture.astype(np.float32) @ columns.T + 0.5).astype(np.uint8)

    def _weights_of(self, side: int) -> NDArray[np.float32]:
        """Return how much of each of `side` pixels goes into each of the new ones, `(size, side)`."""
        if side not in self._weights:
            ends = np.arange(self._size + 1)[:, None] * side / self._size
            covered = np.clip(ends - np.arange(side), 0, 1)
            self._weights[side] = (np.diff(covered, axis=0) * (self._size / side)).astype(np.float32)
        return self._weights[side]


@functools.cache
def _own_context() -> Any:
    """Return Gymnasium's renderer, made one that several in a program may use in turn.

    Each has a context of its own, and whichever was made last is the current one: the others would draw nothing. What
    one gives back must be given back in its own too: by the same numbers others know what is theirs.
    """
    from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer

    class OwnContext(MujocoRenderer):
        def render(self, render_mode: str | None) -> Any:
            if self.viewer is not None:
                self.viewer.make_context_current()
            return super().render(render_mode)

        def close(self) -> None:
            if self.viewer is not None:
                self.viewer.make_context_current()
                self.viewer.con.free()
                super().close()
                self.viewer = None

        def __del__(self) -> None:
            self.close()

    return OwnContext


class _Painter:
    """Draws positions of a MuJoCo model.

    Args:
        base: an environment that has it.
        size: of the pictures.
        options: of the environment's class.
    """

    def __init__(self, base: Any, size: int, options: dict[str, Any]) -> None:
        import mujoco

        self._forward: Callable[[Any, Any], None] = mujoco.mj_forward
        self._model = copy.copy(base.model)  # changed here, and that of the environment must not be
        self._model.vis.quality.shadowsize = self._model.vis.quality.offsamples = 0
        self._data = mujoco.MjData(self._model)
        camera = base.mujoco_renderer
        self._renderer = _own_context()(
            self._model,
            self._data,
            camera.default_cam_config,
            size,
            size,
            camera_id=camera.camera_id,
            visual_options=options.get("visual_options"),
        )
        try:
            self(base.init_qpos)  # where the camera is aimed at, now and always
        except Exception as error:
            raise UserError(
                f"MuJoCo cannot draw here ({error}), and these observations are pictures. On Debian or Ubuntu: sudo "
                "apt-get install libegl1 libgl1 (or libosmesa6 libgl1), and MUJOCO_GL=egl (or osmesa)."
            ) from error

    def __call__(self, positions: NDArray[np.float64]) -> Picture:
        """Return the picture of positions `(nq,)`."""
        self._data.qpos[:] = positions
        self._forward(self._model, self._data)
        return grey(self._renderer.render("rgb_array"))


_PAINTERS: weakref.WeakValueDictionary[tuple[str, int, str], _Painter] = weakref.WeakValueDictionary()

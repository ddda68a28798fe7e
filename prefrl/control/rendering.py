"""Pictures of an agent at work: an episode's frames with its learned and true rewards.

Also what MuJoCo needs to draw without a window: `choose_gl_backend` before it is imported, and `fast_rendering`.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from prefrl.clips.pictures import as_picture, check_one_size
from prefrl.errors import ANYTHING, UserError, first_line, require
from prefrl.program import own_folder
from prefrl.rewards.function import RewardFunction
from prefrl.spaces import Batch, map_batch, zip_batches

WIDER = 25.0
DARKEST = 8  # of 255: pictures with nothing brighter are empty
INSTALL = "On Debian or Ubuntu: sudo apt-get install libegl1 libgl1 (or libosmesa6 libgl1)."


@dataclass(frozen=True, kw_only=True)
class EpisodeClip:
    """n steps of one episode, from its start."""

    frames: NDArray[np.uint8]
    """`(n, H, W, 3)`: the picture after each step."""
    true_rewards: NDArray[np.float64]
    """`(n,)`: the environment's own."""
    learned_rewards: NDArray[np.float64] | None = None
    """`(n,)`; None without a learned reward."""

    def __post_init__(self) -> None:
        n = len(self.frames)
        if n == 0 or self.frames.ndim != 4 or self.frames.shape[3] != 3 or self.frames.dtype != np.uint8:
            raise UserError(f"Expected frames (n, H, W, 3) uint8, n > 0; got {self.frames.shape} {self.frames.dtype}.")
        for rewards in (self.true_rewards, self.learned_rewards):
            if rewards is not None and rewards.shape != (n,):
                raise UserError(f"Expected one reward for each of {n} frames; got rewards {rewards.shape}.")


@own_folder()
def record_episode(
    env: gymnasium.Env[Any, Any],
    act: Callable[[Any], Any],
    reward: RewardFunction | None,
    *,
    num_steps: int,
    seed: int,
) -> EpisodeClip:
    """Play one episode, or its first steps, and keep its pictures and rewards.

    Args:
        env: with `render_mode="rgb_array"`.
        act: gives the action for one observation.
        reward: the learned reward, evaluated once for the whole episode; None for none.
        num_steps: the most steps to play, at least 1.
        seed: seed of the environment's reset.

    Raises:
        UserError: another render mode, rendering is impossible on this machine, or its pictures are black.
    """
    if num_steps < 1:
        raise UserError(f"num_steps must be at least 1. Received {num_steps}")
    if env.render_mode != "rgb_array":
        raise UserError(f'Expected an environment with render_mode="rgb_array"; got {env.render_mode!r}.')
    observation, _ = env.reset(seed=seed)
    observations: list[Batch] = [_copied(observation)]
    actions: list[Any] = []
    frames: list[NDArray[np.uint8]] = []
    true_rewards: list[float] = []
    ended = False
    while not ended and len(actions) < num_steps:
        action = act(observation)
        observation, true_reward, terminated, truncated, _ = env.step(action)
        observations.append(_copied(observation))
        actions.append(np.array(action))
        true_rewards.append(float(true_reward))
        frames.append(picture_of(env))
        ended = bool(terminated or truncated)
    check_drawn(env, frames)
    learned = None
    if reward is not None:
        here, there = zip_batches(np.stack, observations[:-1]), zip_batches(np.stack, observations[1:])
        learned = np.asarray(reward(here, np.stack(actions), there), np.float64)
    return EpisodeClip(frames=np.stack(frames), true_rewards=np.array(true_rewards), learned_rewards=learned)


def check_drawn(env: gymnasium.Env[Any, Any], pictures: Sequence[NDArray[np.uint8]]) -> None:
    """Refuse pictures of an environment that make no clip.

    Raises:
        UserError: they are of different sizes, or all black.
    """
    check_one_size(pictures)
    if max(int(picture.max()) for picture in pictures) <= DARKEST:
        raise UserError(f"All pictures of the environment are black. {_why_black(env)}")


def _why_black(env: gymnasium.Env[Any, Any]) -> str:
    """Return what may be the reason why all pictures of an environment are black, as a sentence."""
    if draws_with_opengl(env):
        return f"MuJoCo's renderer does not work here. {INSTALL}"
    driver = os.environ.get("SDL_VIDEODRIVER")
    set_so = f" SDL_VIDEODRIVER is {driver!r}, with which some environments draw nothing: unset it." if driver else ""
    return f'Expected its render() to draw something with render_mode="rgb_array".{set_so}'


def why_not_drawn(env: gymnasium.Env[Any, Any], error: BaseException) -> str:
    """Return what went wrong in drawing, in brackets, and what to install where OpenGL is missing."""
    needs_opengl = draws_with_opengl(env) or re.search(r"\bgl[A-Z]\w+|EGL|OSMesa|OpenGL", str(error))
    return f"({type(error).__name__}: {first_line(error)}).{f' {INSTALL}' if needs_opengl else ''}"


def draws_with_opengl(env: gymnasium.Env[Any, Any]) -> bool:
    """Tell whether an environment draws with MuJoCo, which needs OpenGL."""
    return any("mujoco" in cls.__module__ for cls in type(env.unwrapped).__mro__) or (
        getattr(env.unwrapped, "mujoco_renderer", None) is not None
    )


def _copied(observation: Any) -> Batch:
    if isinstance(observation, dict):
        return map_batch(np.array, observation)
    return np.array(observation)


def picture_of(env: gymnasium.Env[Any, Any]) -> NDArray[np.uint8]:
    """Return what an environment draws now, `(H, W, 3)`.

    Raises:
        UserError: it cannot be drawn on this machine.
    """
    try:
        drawn: Any = env.render()
    except ANYTHING as error:  # OpenGL bindings raise errors of many kinds, from many packages
        raise UserError(f"The environment cannot be drawn here {why_not_drawn(env, error)}") from error
    return as_picture(drawn)


def fast_rendering(env: gymnasium.Env[Any, Any]) -> bool:
    """Switch off shadows and antialiasing of a MuJoCo environment: without a GPU they take most of the time.

    Its floor is drawn wider too: a robot that has learned to run would leave it.

    Returns:
        True if done; False if the environment is not one of MuJoCo's that draws with Gymnasium's renderer.

    Raises:
        UserError: it has drawn already, which fixes these settings.
    """
    unwrapped = env.unwrapped
    model = getattr(unwrapped, "model", None)
    if getattr(unwrapped, "mujoco_renderer", None) is None or not hasattr(model, "vis"):
        return False
    quality = model.vis.quality  # type: ignore[union-attr]
    if getattr(getattr(unwrapped, "mujoco_renderer", None), "_viewers", None):
        raise UserError("fast_rendering came too late: call it before the environment draws its first picture.")
    quality.shadowsize = 0
    quality.offsamples = 0
    _widen_floors(unwrapped.model)  # type: ignore[attr-defined]
    return True


def _widen_floors(model: Any) -> None:
    """Draw planes `WIDER` times as wide, with the same pattern; for the physics they have no end anyway."""
    plane = require("mujoco", "mujoco").mjtGeom.mjGEOM_PLANE
    materials = set()
    for geom in np.flatnonzero(model.geom_type == plane):
        if model.geom_size[geom, :2].all():  # 0: drawn without an end already
            model.geom_size[geom, :2] *= WIDER
            materials.add(int(model.geom_matid[geom]))
    for material in materials - {-1}:
        if not model.mat_texuniform[material]:
            model.mat_texrepeat[material] *= WIDER


def follow_agent(env: gymnasium.Env[Any, Any]) -> bool:
    """Let the camera of a MuJoCo environment follow the robot, where its model has a camera that does.

    Gymnasium 1.4 leaves that camera aside unless it is asked for, and a robot that runs is soon out of the picture.

    Returns:
        True if done; False if the environment is not one of MuJoCo's or its model has no camera named "track".
    """
    renderer = getattr(env.unwrapped, "mujoco_renderer", None)
    if renderer is None:
        return False
    mujoco = require("mujoco", "mujoco")
    camera = mujoco.mj_name2id(renderer.model, mujoco.mjtObj.mjOBJ_CAMERA, "track")
    if camera < 0:
        return False
    renderer.camera_id = camera
    return True


def prepare_pictures(env: gymnasium.Env[Any, Any]) -> None:
    """Set up an environment that has drawn nothing yet so that its pictures are quick, steady and follow the agent.

    Gymnasium points the camera of a MuJoCo environment at what was the middle of the scene at the first picture; here
    it is the middle of the model at rest, so that the same state gives the same picture in every process.

    Raises:
        UserError: it has drawn already.
    """
    quiet_sdl(env)
    if not fast_rendering(env) or follow_agent(env):
        return
    renderer: Any = env.unwrapped.mujoco_renderer  # type: ignore[attr-defined]
    mujoco = require("mujoco", "mujoco")
    data = mujoco.MjData(renderer.model)
    mujoco.mj_forward(renderer.model, data)
    middle = np.median(data.geom_xpos, axis=0)
    renderer.default_cam_config = {"lookat": middle, **(renderer.default_cam_config or {})}


def quiet_sdl(env: gymnasium.Env[Any, Any]) -> None:
    """Keep SDL from looking for a screen, and grumbling, where an environment of Gymnasium's own draws with it.

    Those need none. Others may: some draw nothing when SDL is told that there is no screen.
    """
    own = ("gymnasium.envs.classic_control.", "gymnasium.envs.box2d.", "gymnasium.envs.toy_text.")
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or not sys.platform.startswith("linux")
    if not screen and env.render_mode == "rgb_array" and type(env.unwrapped).__module__.startswith(own):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def choose_gl_backend() -> str | None:
    """Choose how MuJoCo draws on a Linux machine without a screen, and put it into `MUJOCO_GL`.

    Call it before `mujoco` is imported. A choice of the user, in `MUJOCO_GL`, is left as it is.

    Returns:
        "egl" or "osmesa", the user's choice, or None where MuJoCo's own choice will do (a screen, macOS, Windows).

    Raises:
        UserError: nothing to draw with is installed. The caller can go on without pictures.
    """
    chosen = os.environ.get("MUJOCO_GL")
    if chosen:
        return chosen
    if not sys.platform.startswith("linux") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        return None
    bound = os.environ.get("PYOPENGL_PLATFORM", "").lower()  # PyOpenGL can only serve one of them
    for name, works in (("egl", _egl_works), ("osmesa", _osmesa_works)):
        if bound in ("", name) and works():
            os.environ["MUJOCO_GL"] = name
            return name
    raise UserError(f"There is no screen, and neither EGL nor OSMesa works to draw without one. {INSTALL}")


def _load(name: str) -> ctypes.CDLL | None:
    path = ctypes.util.find_library(name)
    try:
        return ctypes.CDLL(path) if path else None
    except OSError:
        return None


def _osmesa_works() -> bool:
    return _load("OSMesa") is not None


def _egl_works() -> bool:
    """Tell whether EGL has a device that can be opened: the library alone may come without any driver."""
    egl = _load("EGL")
    if egl is None or (_load("OpenGL") is None and _load("GL") is None):
        return False
    pointer, integer = ctypes.c_void_p, ctypes.c_int32
    egl.eglGetProcAddress.restype = pointer
    addresses = [egl.eglGetProcAddress(name) for name in (b"eglQueryDevicesEXT", b"eglGetPlatformDisplayEXT")]
    if not all(addresses):
        return False
    query = ctypes.CFUNCTYPE(ctypes.c_uint, integer, ctypes.POINTER(pointer), ctypes.POINTER(integer))(addresses[0])
    get_display = ctypes.CFUNCTYPE(pointer, ctypes.c_uint, pointer, ctypes.POINTER(integer))(addresses[1])
    egl.eglInitialize.argtypes = [pointer, pointer, pointer]
    egl.eglTerminate.argtypes = [pointer]
    devices, found = (pointer * 16)(), integer(0)
    if not query(len(devices), devices, ctypes.byref(found)):
        return False
    for device in devices[: found.value]:
        display = get_display(0x313F, device, None)  # EGL_PLATFORM_DEVICE_EXT
        if display and egl.eglInitialize(display, None, None):
            egl.eglTerminate(display)
            return True
    return False

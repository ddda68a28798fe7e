"""Many copies of a MuJoCo environment as one `gymnasium.vector.VectorEnv`, stepped in one call.

Physics runs in `mujoco.batch.Batch`, on several threads; observation, reward, termination and resets are computed for
all copies at once. From one seed and the same actions, the numbers are those of Gymnasium's own environment in a
`SyncVectorEnv` (`docs/environments.md` says which to the last bit). `prefrl.envs.mujoco_tasks` has Gymnasium's tasks,
`prefrl.envs.dmc_tasks` those of the DeepMind Control Suite, which do without Gymnasium's classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from prefrl.clips.trail import Marks
from prefrl.cpus import available_cpus
from prefrl.envs.memory import check_memory
from prefrl.envs.mujoco_forces import ForceBatch
from prefrl.envs.mujoco_marks import StateMarks
from prefrl.envs.mujoco_template import all_options, make_template, stepped_model, template_class
from prefrl.envs.vector_tools import (
    check_whole,
    checked_actions,
    checked_autoreset_mode,
    expanded,
    masked_info,
    reset_mask,
    restarted_info,
    seeds,
)
from prefrl.errors import UserError, require

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Outcome = tuple[Floats, Flags, dict[str, Any]]
"""Rewards `(E,)`, terminations `(E,)` and the terms of the reward, `(E, ...)` each."""

PICTURES = ("rgb_array", "depth_array", "rgbd_tuple")
PRIVATE_DATA_BYTES = 200_000  # of a simulation that keeps its own data, beside the fields counted by MuJoCo


class MujocoVectorEnv(VectorEnv[Floats, Any, NDArray[Any]], ABC):
    """E copies of one MuJoCo environment: one of Gymnasium's, unless a subclass makes another template.

    The live arrays `qpos` and `qvel`, copied out by `states`, are all that is needed to draw a step again:
    `render_states`.

    Args:
        num_envs: E.
        max_episode_steps: steps after which an episode is truncated; None: never.
        autoreset_mode: when an environment whose episode has ended is reset (Gymnasium's `AutoresetMode`).
        num_threads: threads, at most E are used; 0: one for each CPU that this process may use. Results do not
            depend on it.
        render_mode: "rgb_array", "depth_array" or "rgbd_tuple", for `render`.
        options: all those of Gymnasium's class.

    Raises:
        MissingExtraError: MuJoCo is not installed.
        UserError: an option that Gymnasium's class refuses, or more environments than memory allows.
    """

    gymnasium_class: ClassVar[str]
    """Gymnasium's class, as `"module:Name"`."""
    needs_forces: ClassVar[bool] = False
    """The task reads the contact forces `cfrc_ext`."""

    def __init__(
        self,
        num_envs: int = 1,
        *,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        num_threads: int = 0,
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        if max_episode_steps is not None:
            check_whole("max_episode_steps", max_episode_steps, 1)
        if render_mode not in (None, *PICTURES):
            raise UserError(f"render_mode must be one of {', '.join(PICTURES)}. Received {render_mode!r}")
        check_whole("num_threads", num_threads, 0)
        self.num_envs, self.render_mode, self.max_episode_steps = num_envs, render_mode, max_episode_steps
        self.autoreset_mode = checked_autoreset_mode(autoreset_mode)
        self.template, self.options = self.make_template(options, render_mode or "rgb_array")
        """One environment, Gymnasium's own: its model, spaces and renderer serve all."""
        self.model = self.template.model
        self.metadata = {**self.template.metadata, "autoreset_mode": self.autoreset_mode}
        self.single_observation_space = self.template.observation_space
        self.single_action_space = self.template.action_space
        check_memory(num_envs, self._bytes_per_env(), type(self).__name__, "mujoco")  # before anything as large
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        threads = min(num_threads or available_cpus(), num_envs)
        try:
            self._batch = self.make_batch(stepped_model(self.model), threads)
        except ValueError as error:
            raise UserError(f"MuJoCo cannot step this model many at once: {error}") from error
        self._qpos, self._qvel, self._act, self._ctrl = map(self._batch.bind, ("qpos", "qvel", "act", "ctrl"))
        self._ends = np.cumsum([self.model.nq, self.model.nv])  # of positions and velocities in a row of `states`
        self.init_qpos, self.init_qvel = self.template.init_qpos.copy(), self.template.init_qvel.copy()
        self.init_state = np.concatenate([self.init_qpos, self.init_qvel])
        self._initial_state: Floats = self._batch.state[0].copy()
        self.frame_skip: int = self.template.frame_skip
        self.dt = self.template.dt
        self._generators: list[np.random.Generator | None] = [None] * num_envs
        self._num_steps = np.zeros(num_envs, np.int64)
        self._ended = np.zeros(num_envs, np.bool_)
        self._everywhere = np.ones(num_envs, np.bool_)
        self._everywhere.flags.writeable = False
        self._is_reset = self._camera_aimed = self._has_derived = False
        self.marks: StateMarks | None = None
        """What people can look at later, see `save_clips`."""
        self.prepare()

    # ------------------------------------------------------------------------------------------ what a task fills in

    def make_template(self, options: dict[str, Any], render_mode: str) -> tuple[Any, dict[str, Any]]:
        """Return one environment, as `template`, and all options with their defaults."""
        robot = template_class(self.gymnasium_class)
        every_option = all_options(robot, options)
        return make_template(robot, options, render_mode), every_option

    def make_batch(self, model: Any, num_threads: int) -> Any:
        """Return E simulations of a model, as `mujoco.batch.Batch` has them."""
        batch = ForceBatch if self.needs_forces else require("mujoco.batch", "mujoco").Batch
        return batch(model, self.num_envs, num_threads)

    def advance(self, envs: NDArray[np.int32] | None) -> None:
        """Step some simulations, or all, by their controls; `derived` arrays then are as the task reads them."""
        self._batch.step(envs, nstep=self.frame_skip)

    def derive(self, envs: NDArray[np.int32]) -> None:
        """Compute the `derived` arrays of simulations that were put into a state."""
        self._batch.forward(envs)

    def prepare(self) -> None:
        """Bind what else the task reads, by `derived`; called once."""

    def derived(self, name: str) -> Floats:
        """Return a live array `(E, ...)` of what MuJoCo derives from the state, such as `xpos`."""
        self._has_derived = True
        values: Floats = self._batch.bind(name)
        return values

    @abstractmethod
    def observe(self) -> Floats:
        """Return the observations of all environments, `(E, ...)`: a new array."""

    def before(self) -> Any:
        """Return what `outcome` needs to know of the time before the step."""
        return None

    @abstractmethod
    def outcome(self, before: Any, actions: NDArray[Any]) -> Outcome:
        """Return rewards, terminations and the terms of the reward after a step of all environments."""

    def reset_info(self) -> dict[str, Any]:
        """Return what a reset tells of all environments, `(E, ...)` each."""
        return {}

    @abstractmethod
    def draw_state(self, generator: np.random.Generator) -> Floats:
        """Draw a starting state, as a row of `states`."""

    # ------------------------------------------------------------------------------------------- Gymnasium's methods

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Floats, dict[str, Any]]:
        """Begin new episodes.

        Args:
            seed: environment i is seeded with `seed + i`, or with entry i of a sequence; None: each goes on with its
                own random stream.
            options: `{"reset_mask": (E,) bool}` resets only some; the others stay as they are.

        Returns:
            observations `(E, ...)` and info.
        """
        which = reset_mask(options, self.num_envs, first=not self._is_reset)
        for env, value in enumerate(seeds(seed, self.num_envs)):
            if which[env] and value is not None:
                self._generators[env] = seeding.np_random(value)[0]
        self._is_reset = True
        self._restart(np.flatnonzero(which))
        self._ended[which] = False
        return self.observe(), masked_info(self.reset_info(), which)

    def step(self, actions: NDArray[Any]) -> tuple[Floats, Floats, Flags, Flags, dict[str, Any]]:
        """Take one step in every environment; those that are due for a reset are reset instead (next-step mode).

        Args:
            actions: `(E, ...)`, finite and within the bounds of the action space.

        Raises:
            UserError: actions of another shape, out of bounds or NaN; no reset before; in the disabled mode, an
                environment whose episode has ended was not reset.
        """
        actions = self._checked(actions)
        due = self._ended
        if due.any():
            if self.autoreset_mode == AutoresetMode.DISABLED:
                raise UserError(
                    f"The episodes of environments {np.flatnonzero(due)[:5].tolist()} have ended. Reset them first: "
                    "reset(options={'reset_mask': mask})."
                )
            return self._step_some(actions, due)
        before = self.before()
        self._ctrl[:] = actions
        if self.marks is not None:
            self.marks.mark()
        self.advance(None)
        rewards, terminated, info = self.outcome(before, actions)
        truncated = self._count_steps(self._everywhere)
        self._ended = terminated | truncated
        observations = self.observe()
        if self.autoreset_mode == AutoresetMode.SAME_STEP and self._ended.any():
            return self._reset_ended(observations, rewards, terminated, truncated, info)
        return observations, rewards, terminated, truncated, self._with_masks(info)

    def _step_some(self, actions: NDArray[Any], due: Flags) -> tuple[Floats, Floats, Flags, Flags, dict[str, Any]]:
        """Reset the environments in `due`, step the others."""
        going = ~due
        before = self.before()
        moving = np.flatnonzero(going).astype(np.int32)
        self._ctrl[:] = actions  # a restart sets them back
        if self.marks is not None:
            self.marks.mark()
        if len(moving):
            self.advance(moving)
        rewards, terminated, info = self.outcome(before, actions)
        self._restart(np.flatnonzero(due))
        if self.marks is not None:
            self.marks.show(due)
        rewards[due], terminated[due] = 0.0, False
        truncated = self._count_steps(going)
        self._ended = terminated | truncated
        info = restarted_info(info, self.reset_info(), due)
        return self.observe(), rewards, terminated, truncated, info

    def _reset_ended(
        self, observations: Floats, rewards: Floats, terminated: Flags, truncated: Flags, info: dict[str, Any]
    ) -> tuple[Floats, Floats, Flags, Flags, dict[str, Any]]:
        """Reset what has ended in this step; what was seen last goes into the info, as Gymnasium puts it."""
        ended = self._ended
        last = np.full(self.num_envs, None, dtype=object)
        for env in np.flatnonzero(ended):
            last[env] = observations[env]
        final_info = masked_info(info, ended)
        self._restart(np.flatnonzero(ended))
        observations = np.where(expanded(ended, observations), self.observe(), observations)
        joined = restarted_info(info, self.reset_info(), ended)
        joined |= {"final_obs": last, "_final_obs": ended, "final_info": final_info, "_final_info": ended}
        self._ended = np.zeros(self.num_envs, np.bool_)
        return observations, rewards, terminated, truncated, joined

    def render(self) -> tuple[Any, ...] | None:
        """Return a picture of every environment as it is now."""
        if self.render_mode is None:
            raise UserError('render needs a render_mode: give render_mode="rgb_array" when making the environment.')
        return tuple(self.render_states(self.states()))

    def close_extras(self, **kwargs: Any) -> None:
        """Give back the renderer."""
        self.template.close()

    # ------------------------------------------------------------------------------------------- states and pictures

    @property
    def qpos(self) -> Floats:
        """`(E, nq)`: positions, Reacher's and Pusher's goals among them; a live view, not to be written to."""
        return _read_only(self._qpos)

    @property
    def qvel(self) -> Floats:
        """`(E, nv)`: velocities; a live view, not to be written to."""
        return _read_only(self._qvel)

    @property
    def mujoco_renderer(self) -> Any:
        """Gymnasium's renderer, which draws all environments."""
        return self.template.mujoco_renderer

    can_save_clips: ClassVar[bool] = True

    def save_clips(self) -> None:
        """From now on save what each step can be drawn from (`prefrl.clips.worlds`), until `take_marks` takes it."""
        self.marks = self._state_marks

    def take_marks(self) -> Marks | None:
        """Return what was saved since the last call; None without `save_clips` and where no step was made."""
        return None if self.marks is None else self.marks.take()

    def saved_states(self) -> Floats:
        """Return time, positions, velocities, activations, warm starts and controls, `(E, S)`, as clips need them."""
        return self._state_marks.now()

    @cached_property
    def _state_marks(self) -> StateMarks:
        return StateMarks(self._batch)

    def states(self) -> Floats:
        """Return a copy of all positions, velocities and, where there are any, activations, `(E, nq + nv + na)`."""
        return np.concatenate([self._qpos, self._qvel, self._act], axis=1)

    def set_states(self, states: Floats, mask: Flags | None = None) -> Floats:
        """Put environments into given states, as Gymnasium's `set_state` does after `mj_resetData`.

        Args:
            states: `(E, nq + nv + na)`, as `states` gives them; rows outside of `mask` are not read.
            mask: `(E,)`; None: all. The episodes of these environments begin anew here.

        Returns:
            The observations of all environments.
        """
        if not self._is_reset:
            self.reset()
        states = self._checked_states(states)
        which = reset_mask(None if mask is None else {"reset_mask": mask}, self.num_envs, first=False)
        if len(states) != self.num_envs:
            raise UserError(f"Expected {self.num_envs} states, one for each environment; got {len(states)}.")
        self._put(np.flatnonzero(which), states[which])
        self._ended[which] = False
        return self.observe()

    def render_states(self, states: Floats) -> list[Any]:
        """Draw states `(n, nq + nv + na)`: each picture is that of Gymnasium's environment after `set_state`.

        Gymnasium aims its camera when it draws its first picture. Here that is always one of the model's initial
        state, so that a picture depends on nothing but the state in it.

        Returns:
            n pictures in the render mode, `(H, W, 3)` uint8 for "rgb_array" or without a render mode.
        """
        if not self._camera_aimed:
            self.template.set_state(self.init_qpos, self.init_qvel)
            self.template.render()
            self._camera_aimed = True
        pictures = []
        for state in self._checked_states(states):
            self.template.set_state(*np.split(state, self._ends)[:2])
            picture = self.template.render()
            pictures.append(picture if isinstance(picture, tuple) else np.array(picture))
        return pictures

    def _checked_states(self, states: Floats) -> Floats:
        states = np.asarray(states, np.float64)
        width = self.model.nq + self.model.nv + self.model.na
        if states.ndim != 2 or states.shape[1] != width or not np.isfinite(states).all():
            raise UserError(f"Expected finite states (n, {width}) of this environment; got an array {states.shape}.")
        return states

    # ---------------------------------------------------------------------------------------------------- the inside

    def _restart(self, envs: NDArray[np.int64]) -> None:
        states = []
        for env in envs:
            generator = self._generators[env]
            if generator is None:
                generator = self._generators[env] = seeding.np_random(None)[0]
            states.append(self.draw_state(generator))
        if states:
            self._put(envs, np.array(states))

    def _put(self, envs: NDArray[np.int64], states: Floats) -> None:
        ids = envs.astype(np.int32)
        if self.needs_forces:  # only MuJoCo's own reset takes the last episode's forces away
            self._batch.reset(ids, stage=0)
        else:
            self._batch.state[ids] = self._initial_state
        self._qpos[envs], self._qvel[envs], self._act[envs] = np.split(states, self._ends, axis=1)
        if self._has_derived:  # the state itself stays as it was put
            self.derive(ids)
        self._num_steps[envs] = 0

    def _count_steps(self, stepped: Flags) -> Flags:
        self._num_steps += stepped
        if self.max_episode_steps is None:
            return np.zeros(self.num_envs, np.bool_)
        return (self._num_steps >= self.max_episode_steps) & stepped

    def _with_masks(self, info: dict[str, Any]) -> dict[str, Any]:
        return info | {f"_{key}": self._everywhere for key in info}

    def _checked(self, actions: NDArray[Any]) -> NDArray[Any]:
        if not self._is_reset:
            raise UserError("The environments have to be reset before the first step.")
        return checked_actions(actions, self.single_action_space, self.num_envs)

    def _bytes_per_env(self) -> int:
        observation = self.single_observation_space
        assert observation.shape is not None
        own = 8 * (8 * int(np.prod(observation.shape)) + 4 * (self.model.nq + self.model.nv)) + 4_000
        return own + (PRIVATE_DATA_BYTES + 2 * self.template.data.nbuffer if self.needs_forces else 0)


def _read_only(values: Floats) -> Floats:
    view = values.view()
    view.flags.writeable = False
    return view

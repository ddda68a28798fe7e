"""Environments by name: making them, their fixed-horizon form, and what is known about the benchmark tasks."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import inspect
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.vector import AutoresetMode, VectorEnv

from prefrl.envs.conforming import Conforming, check_modes, torch_modes
from prefrl.envs.fixed_horizon import HOLD, FixedHorizon
from prefrl.envs.loop import EnvLoop
from prefrl.envs.memory import check_memory
from prefrl.envs.mujoco_quiet import quiet_mujoco
from prefrl.envs.mujoco_template import all_options, template_class
from prefrl.envs.registration import (
    DMC_TASKS,
    MINATAR_GAMES,
    PAPER_GAMES,
    PAPER_SIZES,
    PIXELS_PREFIX,
    camel_case,
    own_name,
)
from prefrl.envs.vector_fixed_horizon import VectorFixedHorizon
from prefrl.errors import ANYTHING, UserError, first_line, near_names, require
from prefrl.program import own_program
from prefrl.seams import Registry, load_function, load_module, quoted
from prefrl.spaces import check_action_space, check_observation_space


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is known about an environment before anything is learned."""

    env_id: str
    """Gymnasium's name of the environment."""
    fixed_horizon: int | None = None
    """Steps per episode of the fixed-horizon form; None where no form is recommended."""
    terminal_reward: float = 0.0
    """True reward of each step in which an end is held, in the fixed-horizon form."""
    hold: int = HOLD
    """Steps for which an end is held, in the fixed-horizon form."""
    segment_length: int = 50
    """Steps per segment."""
    num_members: int = 5
    """Members of the reward ensemble; of five each judges another fifth of the answers (Christiano et al. 2017: 3)."""
    recent_share: float = 0.0
    """Share of the segments asked about that are of the newest steps (`queries.recent_share`)."""
    note: str = ""
    """One line for people."""


_OF_PICTURES = 3  # each learns from many more numbers, and costs as much more
_SWIMMERS = 10  # what it gains in a step is a tenth of what it sways: errors that members do not share cancel out
_NEW = 0.5  # of the questions about a goal: else nobody is asked again about what no longer leads to it
FALL_HOLD = 3  # steps for which a fall is held: held longer, it teaches to stand still
_NEVER_ENDS = "never ends early"
_FALLS = "ends when it falls: staying alive alone is rewarded"
_SUCCEEDS = "ends at the goal: short episodes give it away"


class Tasks(Registry[Task]):
    """The benchmark tasks by name. Any other name may be that of an environment, for which the defaults hold.

    `prefrl/Hopper-v5` is `Hopper-v5` in bulk: the same task; `prefrl/Pixels-Hopper-v5` is that in pictures, under its
    own name, since agents need other settings there. `module:NAME` may be a `Task` of a user's own.
    """

    def find(self, given: Any) -> Task:
        """Return what is known about an environment, given by name, or a task of a user's own, by name or itself.

        Raises:
            UserError: it asks for a module that cannot be imported, or is no task.
        """
        if not isinstance(given, str):
            return self._adopt(given, f"{self.what} {quoted(given)}")
        known = self.get(own_name(given)) or self.get(given.removeprefix("prefrl/"))
        seen = self.get(given.removeprefix(PIXELS_PREFIX)) if given.startswith(PIXELS_PREFIX) else None
        if seen is not None:
            return replace(seen, env_id=given, num_members=_OF_PICTURES)
        return known or _own_task(given) or Task(env_id=given)

    def name(self, given: Any) -> str:
        """Return the name by which a run finds an environment or a task again."""
        return given if isinstance(given, str) else super().name(self.find(given))


def _adopt_task(thing: Any, where: str) -> Task:
    if isinstance(thing, Task):
        return thing
    raise UserError(
        f"The {where} is a {type(thing).__name__}; expected a prefrl.envs.Task, or the name of an environment that is "
        "registered with Gymnasium."
    )


def _own_task(env_id: str) -> Task | None:
    """Return the task that a module of the user holds under this name, if it is one."""
    place, colon, name = env_id.rpartition(":")
    found = getattr(_module_of(env_id, place), name, None) if colon else None
    return found if isinstance(found, Task) else None


def _module_of(env_id: str, place: str) -> ModuleType:
    try:
        return load_module(place, "environment")
    except UserError as error:
        raise UserError(f"The environment {env_id!r} asks for the module {place!r}: {error}") from error


_KNOWN: dict[str, Task] = {
    row.env_id: row
    for row in (
        Task(env_id="HalfCheetah-v5", note=_NEVER_ENDS),
        Task(env_id="Swimmer-v5", num_members=_SWIMMERS, note=_NEVER_ENDS),
        Task(env_id="Reacher-v5", segment_length=10, note=f"{_NEVER_ENDS}; 50 steps"),
        Task(env_id="Pendulum-v1", note=f"{_NEVER_ENDS}; 200 steps"),
        Task(
            env_id="Hopper-v5",
            fixed_horizon=1000,
            terminal_reward=-1.0,
            hold=FALL_HOLD,
            segment_length=100,  # 0.8 seconds: a hop or two, so that segments differ by the gait and not by its phase
            note=_FALLS,
        ),
        Task(env_id="Walker2d-v5", fixed_horizon=1000, terminal_reward=-1.0, hold=FALL_HOLD, note=_FALLS),
        Task(env_id="Ant-v5", fixed_horizon=1000, terminal_reward=-1.0, hold=FALL_HOLD, note=_FALLS),
        Task(
            env_id="Humanoid-v5",
            fixed_horizon=1000,
            terminal_reward=-5.0,  # to be upright is worth 5 a step
            hold=FALL_HOLD,
            note=_FALLS,
        ),
        Task(
            env_id="InvertedPendulum-v5",
            fixed_horizon=1000,
            terminal_reward=-1.0,
            hold=FALL_HOLD,
            segment_length=25,
            note=_FALLS,
        ),
        Task(
            env_id="InvertedDoublePendulum-v5",
            fixed_horizon=1000,
            hold=FALL_HOLD,
            terminal_reward=-10.0,  # its steps are worth about 10, those of the others about 1
            segment_length=25,
            note=_FALLS,
        ),
        Task(
            env_id="CartPole-v1",
            fixed_horizon=500,
            terminal_reward=-1.0,
            segment_length=25,
            note=_FALLS,
        ),
        Task(env_id="Acrobot-v1", fixed_horizon=500, terminal_reward=1.0, recent_share=_NEW, note=_SUCCEEDS),
        # Its last step is worth 100 already.
        Task(env_id="MountainCarContinuous-v0", fixed_horizon=999, recent_share=_NEW, note=_SUCCEEDS),
        Task(env_id="MountainCar-v0", fixed_horizon=200, terminal_reward=1.0, recent_share=_NEW, note=_SUCCEEDS),
        # Landing and crashing, falling and arriving all end these: the length alone does not tell which it was.
        Task(env_id="LunarLander-v3", note="ends when it has landed or crashed"),
        Task(env_id="LunarLanderContinuous-v3", note="ends when it has landed or crashed"),
        Task(env_id="BipedalWalker-v3", note="ends when it falls or arrives"),
        *(
            Task(
                env_id=f"prefrl/Christiano-{name}-v0",
                segment_length=paper.segment_length,
                num_members=_SWIMMERS if name == "Swimmer" else Task.num_members,
                note=f"of Christiano et al. 2017; {paper.horizon} steps",
            )
            for name, paper in PAPER_SIZES.items()
        ),
        *(
            Task(
                env_id=f"prefrl/DMC-{name}-v0",
                note=f"of the DeepMind Control Suite; {_NEVER_ENDS}",
            )
            for name in DMC_TASKS
        ),
        *(
            Task(
                env_id=f"prefrl/Atari-{camel_case(game)}-v0",
                segment_length=25,
                num_members=_OF_PICTURES,
                note="as in Christiano et al. 2017: score masked, ends hidden",
            )
            for game in PAPER_GAMES
        ),
        *(
            Task(
                env_id=f"prefrl/MinAtar-{camel_case(game)}-v{version}",
                fixed_horizon=500,
                terminal_reward=-1.0,
                hold=FALL_HOLD,
                segment_length=25,
                num_members=_OF_PICTURES,
                note=f"10 x 10 pictures, {actions}; also as MinAtar/{camel_case(game)}-v{version}",
            )
            for game in MINATAR_GAMES
            for version, actions in enumerate(("all six actions", "the actions that count"))
        ),
    )
}
TASKS = Tasks("task", _KNOWN, _adopt_task)
"""The benchmark tasks by name, with the settings recommended for each."""


def task(env_id: str) -> Task:
    """Return what is known about an environment; for one that is not in `TASKS`, the defaults."""
    return TASKS.find(env_id)


def make_env(
    env_id: str,
    *,
    fixed_horizon: int | None = None,
    terminal_reward: float | None = None,
    max_episode_steps: int | None = None,
    render_mode: str | None = None,
    options: Mapping[str, Any] | None = None,
    wrapper: str | None = None,
) -> gymnasium.Env[Any, Any]:
    """Make an environment whose spaces the rest of the package can handle.

    Args:
        env_id: Gymnasium's name, e.g. `"Hopper-v5"`, `"ALE/Pong-v5"`, or `"module:Name-v0"` for an environment that
            `module` registers when imported, or `"module:NAME"` for a `Task` in it.
        fixed_horizon: steps per episode of the fixed-horizon form (see `FixedHorizon`), None for the plain form.
        terminal_reward: true reward of each step in which an end is held; None takes the task's own (0 if it has
            none). Only with `fixed_horizon`.
        max_episode_steps: steps after which an episode is truncated, instead of the environment's own limit; only
            without `fixed_horizon`.
        render_mode: passed on to Gymnasium.
        options: of the environment's constructor, e.g. `{"hide_life_loss": False}` of an Atari game.
        wrapper: name of what wraps it, e.g. `"gymnasium.wrappers:FlattenObservation"`, or a function of your own.

    Raises:
        MissingExtraError: the environment's simulator is not installed.
        UserError: there is no such environment, it cannot be made, it has no such option, its wrapper fails, or its
            spaces are not supported.
    """
    if fixed_horizon is None and terminal_reward is not None:
        raise UserError(
            f"terminal_reward={terminal_reward} has a meaning only in the fixed-horizon form. "
            "Give fixed_horizon too, or leave terminal_reward out."
        )
    if max_episode_steps is not None and (max_episode_steps < 1 or fixed_horizon is not None):
        raise UserError(
            "max_episode_steps must be at least 1, and is not for the fixed-horizon form, whose episodes have "
            f"{fixed_horizon} steps. Received {max_episode_steps}"
        )
    if fixed_horizon is not None and fixed_horizon < 1:
        raise UserError(f"fixed_horizon must be at least 1 step. Received {fixed_horizon}")
    spec = _find_spec(env_id)
    extra = _extra_needed(spec)
    if extra is not None:
        require(*(_MUJOCO if extra == _DMC else extra))  # dm_control's files are read, it is not imported
    if extra in _ON_MUJOCO and spec.id.startswith("prefrl/") and not _has_batches():
        raise UserError(
            f"{env_id} needs mujoco 4 or newer, which steps many copies at once: pip install 'mujoco>=4'. With an "
            "older one Gymnasium's own environments work, such as HalfCheetah-v5."
        )
    drawn: dict[str, Any] = (
        {} if render_mode is None else {"render_mode": render_mode}
    )  # environments need not know of it
    if options and isinstance(spec.entry_point, str) and spec.entry_point.startswith("gymnasium.envs.mujoco."):
        all_options(template_class(spec.entry_point), dict(options))
    modes = torch_modes()
    try:
        limit = max_episode_steps if fixed_horizon is None else fixed_horizon
        with own_program(), quiet_mujoco() if extra in _ON_MUJOCO else contextlib.nullcontext():
            given = {**drawn, **_checked_options(options, spec)}
            env = gymnasium.make(spec, max_episode_steps=limit, disable_env_checker=True, **given)
    except (UserError, MemoryError):
        raise
    except (gymnasium.error.Error, ImportError) as error:
        raise UserError(f"The environment {env_id!r} cannot be made: {error}") from error
    except OSError as error:  # a ROM or a model that is not there
        mend = "Install its package anew, or mend the path that you gave."
        raise UserError(f"The environment {env_id!r} cannot be made: {error}. {mend}") from error
    except ANYTHING as error:  # constructors raise whatever they like
        with_these = ", ".join(f"{name}={value!r}" for name, value in {**drawn, **(options or {})}.items())
        given_these = f" with {with_these}" if with_these else ""
        why = _why_not(error) + _to_change(spec, error)
        raise UserError(f"The environment {env_id!r} cannot be made{given_these}: {why}") from error
    try:
        with own_program():
            env = _wrapped(env, wrapper)
        check_modes(modes)
        _check_spaces(env)
    except UserError:
        env.close()
        raise
    env = Conforming(env)
    if fixed_horizon is None:
        return env
    known = _task_of(env_id, spec)
    reward = known.terminal_reward if terminal_reward is None else terminal_reward
    return FixedHorizon(env, fixed_horizon, reward, known.hold)


def _check_spaces(env: gymnasium.Env[Any, Any]) -> None:
    try:
        check_observation_space(getattr(env, "observation_space", None))
        check_action_space(getattr(env, "action_space", None))
    except UserError as error:
        hint = (
            "a wrapper by --wrapper file.py:function, a function that is given the environment and returns it wrapped"
        )
        if "FlattenObservation(env)" in str(error):
            hint = "it by --wrapper gymnasium.wrappers:FlattenObservation"
        raise UserError(f"{error} A run takes {hint}.") from None


def _why_not(error: BaseException) -> str:
    """Return what a constructor says, or the line that it fails at if that is no sentence; and what to install."""
    places = traceback.extract_tb(error.__traceback__)
    last = places[-1]
    said = _said(error)
    if " " not in said:
        said = f"{error!r} at {last.filename}:{last.lineno}, {last.line}"
    folders = {part for place in places for part in Path(place.filename).parts}
    for folder, (package, mujoco) in OLDER_MUJOCO.items():
        if folder in folders and _has_batches() and (isinstance(error, AssertionError) or "Mj" in said):
            return f"{said}. {package} does not work with the installed MuJoCo: pip install '{mujoco}'"
    return said


def _said(error: BaseException) -> str:
    """Return what a constructor says, on one line, without what Gymnasium adds to a TypeError."""
    return " ".join(str(error).split()).partition(" was raised from the environment creator for ")[0]


def _to_change(spec: EnvSpec, error: BaseException) -> str:
    """Return how to set the options of the constructor that its error speaks of, as the end of a sentence."""
    try:
        maker: Any = spec.entry_point
        known = inspect.signature(load_env_creator(maker) if isinstance(maker, str) else maker).parameters
    except ANYTHING:  # its module cannot be imported, or it has no parameters that can be read
        return ""
    said = _said(error)
    named = [name for name in known if name != "render_mode" and re.search(rf"\b{re.escape(name)}\b", said)]
    return f". Set it by --env {' '.join(f'{name}=VALUE' for name in named)}" if named else ""


def _wrapped(env: gymnasium.Env[Any, Any], wrapper: str | None) -> gymnasium.Env[Any, Any]:
    if wrapper is None:
        return env
    wrap = load_function(wrapper, "wrapper", "an environment")
    try:
        wrapped = wrap(env)
    except ANYTHING as error:
        raise UserError(f"The wrapper {wrapper} fails: {type(error).__name__}: {first_line(error)}") from error
    if not isinstance(wrapped, gymnasium.Env):
        raise UserError(f"The wrapper {wrapper} must return an environment; it returned {type(wrapped).__name__}.")
    return wrapped


def make_vector_env(
    env_id: str,
    num_envs: int,
    *,
    fixed_horizon: int | None = None,
    terminal_reward: float | None = None,
    max_episode_steps: int | None = None,
    options: Mapping[str, Any] | None = None,
    wrapper: str | None = None,
) -> VectorEnv:
    """Make E copies of what `make_env` makes, restarted in the step in which they end.

    Where this package has a version that steps all copies at once (`prefrl/<env_id>`), that one, else a loop.

    Args:
        env_id: as for `make_env`.
        num_envs: E.
        fixed_horizon: as for `make_env`.
        terminal_reward: as for `make_env`.
        max_episode_steps: as for `make_env`.
        options: as for `make_env`.
        wrapper: as for `make_env`; each copy is wrapped, so that none are stepped at once.

    Raises:
        MissingExtraError, UserError: as `make_env`.
    """

    def make() -> gymnasium.Env[Any, Any]:
        return make_env(
            env_id,
            fixed_horizon=fixed_horizon,
            terminal_reward=terminal_reward,
            max_episode_steps=max_episode_steps,
            options=options,
            wrapper=wrapper,
        )

    probe = make()
    spec = _find_spec(env_id)
    bulk = spec if spec.id.startswith("prefrl/") else gymnasium.registry.get(f"prefrl/{spec.id}")
    stepped_at_once = (
        wrapper is None
        and bulk is not None
        and (bulk is spec or _extra_needed(bulk) not in _ON_MUJOCO or _has_batches())
    )
    if bulk is None or not stepped_at_once or bulk.vector_entry_point is None or spec.kwargs != bulk.kwargs:
        check_memory(num_envs, _LEAST_BYTES_PER_COPY, env_id, "train")
        return EnvLoop([lambda: probe, *[make] * (num_envs - 1)])
    probe.close()
    if fixed_horizon is None:
        wanted: dict[str, Any] = {} if max_episode_steps is None else {"max_episode_steps": max_episode_steps}
        wanted |= options or {}
        return gymnasium.make_vec(bulk, num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **wanted)
    mode = AutoresetMode.DISABLED
    envs = gymnasium.make_vec(bulk, num_envs, autoreset_mode=mode, max_episode_steps=fixed_horizon, **(options or {}))
    known = _task_of(env_id, spec)
    reward = known.terminal_reward if terminal_reward is None else terminal_reward
    return VectorFixedHorizon(envs, fixed_horizon, reward, known.hold)


def _has_batches() -> bool:
    """Tell whether the installed MuJoCo can step many copies at once. Other packages need an older one."""
    try:
        version = importlib.metadata.version("mujoco")
    except importlib.metadata.PackageNotFoundError:
        return False
    return int(version.partition(".")[0]) >= BATCHES_SINCE


def _task_of(env_id: str, spec: EnvSpec) -> Task:
    """Return the task that an environment was named by, or what is known about it under its own name."""
    return _own_task(env_id) or task(spec.id)


def _checked_options(options: Mapping[str, Any] | None, spec: EnvSpec) -> Mapping[str, Any]:
    for name in ("max_episode_steps", "render_mode"):
        if options and name in options:
            raise UserError(f"{name} is not an option of an environment here: the run sets it.")
    for name in spec.kwargs if spec.id.startswith("prefrl/") else ():  # another task would go by this one's name
        if options and name in options:
            raise UserError(f"The {name} of {spec.id} is in its name: name the environment of the one that you want.")
    return options or {}


def episode_length(env_id: str) -> int | None:
    """Return the time limit of an environment in steps, None if it has none.

    Raises:
        MissingExtraError: the package that registers the environment is not installed.
        UserError: there is no such environment.
    """
    return _find_spec(env_id).max_episode_steps


@dataclass(frozen=True, kw_only=True)
class EnvListing:
    """A line of the list of environments."""

    env_id: str
    extra: str | None
    """The extra of this package that brings its simulator; None if nothing is needed."""
    installed: bool
    """The simulator is there."""
    note: str


def list_envs() -> list[EnvListing]:
    """Return the benchmark tasks and whether each can be made here; any other Gymnasium name works as well."""
    rows = []
    for entry in TASKS.values():
        needed = _extra_needed(gymnasium.spec(entry.env_id))
        rows.append(_listing(entry.env_id, needed, entry.note))
    rows.append(_listing("prefrl/Atari-MsPacman-v0", _ATARI, "ends hidden; and every other ALE game"))
    rows.append(_listing("ALE/Pong-v5", _ATARI, "ale-py's own form; and every other ALE game"))
    return rows


_LEAST_BYTES_PER_COPY = 10_000  # of any environment with its wrappers
_ATARI = ("ale_py", "atari")
_MINATAR = ("minatar", "minatar")
_MUJOCO = ("mujoco", "mujoco")
_DMC = ("dm_control", "dmc")
_ON_MUJOCO = (_MUJOCO, _DMC)
BATCHES_SINCE = 4  # major version of MuJoCo
OLDER_MUJOCO = {"gymnasium_robotics": ("gymnasium-robotics", "mujoco<3.4"), "dm_control": ("dm_control", "mujoco<4")}
"""Packages, by their folders, that name what MuJoCo 4 no longer has, and what they need in its place."""
_BOX2D = ("Box2D", "box2d")


def _listing(env_id: str, needed: tuple[str, str] | None, note: str) -> EnvListing:
    installed = needed is None or importlib.util.find_spec(needed[0]) is not None
    return EnvListing(env_id=env_id, extra=needed[1] if needed else None, installed=installed, note=note)


def _extra_needed(spec: EnvSpec) -> tuple[str, str] | None:
    """Return the module that an environment runs on and the extra that brings it, for those we have extras for."""
    entry_point = spec.entry_point if isinstance(spec.entry_point, str) else ""
    if entry_point.startswith(("gymnasium.envs.mujoco", "prefrl.envs.christiano", "prefrl.envs.pixels:mujoco")):
        return _MUJOCO
    if entry_point.startswith("prefrl.envs.dmc_tasks"):
        return _DMC
    if entry_point.startswith("gymnasium.envs.box2d"):
        return _BOX2D
    if entry_point.startswith("prefrl.envs.minatar"):
        return _MINATAR
    return _ATARI if entry_point.startswith("prefrl.envs.atari") else None


def _find_spec(env_id: str) -> EnvSpec:
    place, colon, name = own_name(env_id).rpartition(":")
    if colon:
        found = getattr(_module_of(env_id, place), name, None)
        if isinstance(found, Task):
            return _find_spec(found.env_id)
    elif name.startswith("ALE/") or "NoFrameskip" in name:
        gymnasium.register_envs(require(*_ATARI))  # importing it registers the games
    try:
        return gymnasium.spec(name)
    except gymnasium.error.Error as error:
        near = near_names(name, gymnasium.registry)
        raise UserError(
            f"There is no environment named {env_id!r}.{near} `prefrl envs` lists some; an environment of your own is "
            'named "module:Name-v0", where importing the module registers it, or "module:NAME" of a prefrl.envs.Task.'
        ) from error

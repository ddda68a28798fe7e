"""Worlds that can be looked at again: what to save of a step, and its picture from what was saved.

- MuJoCo (Gymnasium's environments): the state before the step and the controls. The step is done again, since what
  Gymnasium draws after a step are the positions of its last substep, which the state after it does not tell.
- Classic control: the attributes that are drawn.
- The Arcade Learning Environment: the emulator's state at every sixteenth step, and the actions.
- Atari games of this package: the actions since the game began, which is played again.
- Anything else keeps the frames of windows that were drawn beforehand (`Film`).

Each gives bit for bit what the environment's own `render` gave, in an environment made and set up the same way.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

from prefrl.clips.pictures import as_picture
from prefrl.clips.trail import ClipSource
from prefrl.errors import UserError
from prefrl.spaces import Array

Picture = NDArray[np.uint8]

KEYFRAME_EVERY = 16  # steps between two saved states of an emulator: saving one takes some 70 microseconds
FILM_SHARE = 0.03  # of the time that goes by may be spent on drawing windows beforehand
FILM_FIRST = 2  # windows that each environment draws whatever it takes, so that there is something to ask about


class World(Protocol):
    """One environment, whose steps are saved or drawn again."""

    kind: str
    """Goes with what is saved: mujoco, classic, ale, atari or film."""

    def begin(self) -> None:
        """An episode has begun."""

    def mark(self, action: Any) -> None:
        """Save the step that was just made with `action`."""

    def take(self) -> tuple[Array, dict[int, bytes]]:
        """Return what was saved of the n steps since the last call: rows `(n, S)`, and blobs by their number."""

    def draw(self, source: ClipSource) -> Iterator[Picture]:
        """Give the picture after each step of a segment, `(H, W, 3)`; the environment must render "rgb_array"."""


def find_world(env: gymnasium.Env[Any, Any], *, segment_length: int) -> World:
    """Return the way to look at the steps of an environment again.

    Args:
        env: the outermost environment.
        segment_length: steps per segment, for windows that are drawn beforehand.
    """
    base: Any = env.unwrapped
    module = type(base).__module__
    if module.startswith("gymnasium.envs.classic_control.") and type(base).__name__ in _DRAWN:
        return ClassicControl(base)
    if any(cls.__module__ == "gymnasium.envs.mujoco.mujoco_env" for cls in type(base).__mro__):
        return Mujoco(base)
    if hasattr(base, "saved_states"):  # one out of many stepped at once, as `prefrl.envs.single` gives it
        return Mujoco(base.template, lambda: base.saved_states()[0])
    if getattr(base, "can_save_clips", False) and not hasattr(env, "hold"):  # whose held ends no step of the game shows
        return Atari(base)
    if module.startswith("ale_py.") and isinstance(getattr(base, "_frameskip", None), int):
        return Ale(base)
    return Film(env, segment_length)


def needs_pictures(env: gymnasium.Env[Any, Any]) -> bool:
    """Tell whether an environment can only be shown by what it draws while the agent acts."""
    return find_world(env, segment_length=1).kind == "film"


class Mujoco:
    """A MuJoCo environment of Gymnasium, or one derived from `MujocoEnv` that steps as those do.

    Args:
        base: it.
        read: returns state and controls `(S,)` where they are not those in `base.data`.
    """

    kind = "mujoco"

    def __init__(self, base: Any, read: Callable[[], Array] | None = None) -> None:
        import mujoco

        self._mujoco, self._env, self._read = mujoco, base, read
        self._get_state = mujoco.mj_getState
        state = mujoco.mjtState
        self._parts = int(state.mjSTATE_FULLPHYSICS | state.mjSTATE_WARMSTART)
        self._size = mujoco.mj_stateSize(base.model, self._parts)
        self._saved_parts = self._parts | int(state.mjSTATE_CTRL)
        self._saved = np.zeros((1024, self._size + base.model.nu))  # states, the newest last; controls at their end
        self._rows = list(self._saved)
        self._num = 0
        self._resets: list[int] = []  # rows that an episode begins with
        self._last = np.zeros(0)  # what was handed out for the row in front

    def begin(self) -> None:
        self._resets.append(self._num)
        self.mark(None)

    def mark(self, action: Any) -> None:
        if self._num == len(self._rows):
            self._saved = np.concatenate([self._saved, np.empty_like(self._saved)])
            self._rows = list(self._saved)
        if self._read is None:
            env = self._env
            self._get_state(env.model, env.data, self._rows[self._num], self._saved_parts)
        else:
            self._rows[self._num][:] = self._read()
        self._num += 1

    def take(self) -> tuple[Array, dict[int, bytes]]:
        """Return for each step: 0, the state before it and its controls; or 1 and a state that no step led to."""
        states, size = self._saved[: self._num], self._size
        if len(states) == 0:
            return np.zeros((0, 1 + states.shape[1])), {}
        now = states[:, 0]
        begins = np.zeros(len(states), np.bool_)
        begins[self._resets] = True
        moved = np.diff(now, prepend=-1.0) != 0
        as_is = begins | (moved & (now == 0.0))  # or it was reset within
        rows = np.zeros((len(states), 1 + states.shape[1]))
        rows[1:, 1 : 1 + size] = states[:-1, :size]
        rows[:, 1 + size :] = states[:, size:]
        rows[as_is, 0] = 1.0
        rows[as_is, 1 : 1 + size] = states[as_is, :size]
        if len(self._last):
            rows[0] = self._last
        held = ~moved & ~as_is  # an end is held: nothing happens until the restart
        rows = rows[np.maximum.accumulate(np.where(held, 0, np.arange(len(rows))))]
        steps = ~begins
        steps[0] = False
        self._last, self._saved[0], self._num, self._resets = rows[-1].copy(), states[-1], 1, []
        return rows[steps], {}

    def draw(self, source: ClipSource) -> Iterator[Picture]:
        env, mujoco, size = self._env, self._mujoco, self._size
        if source.rows.shape[1] != 1 + size + env.model.nu:
            raise UserError(
                f"The states saved for a clip have {source.rows.shape[1]} numbers, this environment's "
                f"{1 + size + env.model.nu}: it is not the one that they were saved in."
            )
        for row in source.rows:
            mujoco.mj_setState(env.model, env.data, row[1 : 1 + size], self._parts)
            if row[0]:
                env.data.ctrl[:] = row[1 + size :]
                mujoco.mj_forward(env.model, env.data)
            else:
                env._step_mujoco_simulation(row[1 + size :], env.frame_skip)
            yield as_picture(env.render())


_DRAWN = {  # beside the state
    "CartPoleEnv": (),
    "MountainCarEnv": (),
    "Continuous_MountainCarEnv": (),
    "AcrobotEnv": (),
    "PendulumEnv": ("last_u",),
}


class ClassicStates:
    """What is drawn of E classic-control environments of one kind, saved step by step."""

    def __init__(self, bases: Sequence[Any]) -> None:
        self._bases, self.names = bases, _DRAWN[type(bases[0]).__name__]
        self._states: list[Any] = []  # flat lists: containers of their own for each step would busy the collector
        self._drawn: list[Any] = []

    def mark(self) -> None:
        """Save the step that each just made."""
        self._states += [base.state for base in self._bases]
        for name in self.names:
            self._drawn += [getattr(base, name) for base in self._bases]

    def take(self) -> Array:
        """Return the rows of the T steps since the last call, `(T, E, S)`."""
        states, drawn, self._states, self._drawn = self._states, self._drawn, [], []
        num_envs, num_steps = len(self._bases), len(states) // len(self._bases)
        if not states:
            return np.zeros((0, num_envs, 1))
        rows = np.concatenate(states, dtype=np.float64).reshape(num_steps, num_envs, -1)
        if self.names:
            values = np.array(drawn).astype(np.float64).reshape(num_steps, len(self.names), num_envs)
            rows = np.concatenate([rows, values.transpose(0, 2, 1)], axis=2)
        return rows


class ClassicControl:
    """One of Gymnasium's classic-control environments."""

    kind = "classic"

    def __init__(self, base: Any) -> None:
        self.base, self._states = base, ClassicStates([base])

    def begin(self) -> None:
        pass

    def mark(self, action: Any) -> None:
        self._states.mark()

    def take(self) -> tuple[Array, dict[int, bytes]]:
        return self._states.take()[:, 0], {}

    def draw(self, source: ClipSource) -> Iterator[Picture]:
        env = self.base
        num = source.rows.shape[1] - len(self._states.names)
        for row in source.rows:
            env.state = row[:num].copy()
            for name, value in zip(self._states.names, row[num:].tolist(), strict=True):
                setattr(env, name, None if np.isnan(value) else value)
            yield as_picture(env.render())


class Ale:
    """A game of the Arcade Learning Environment; the wrappers around it may repeat an action, but not change it."""

    kind = "ale"

    def __init__(self, base: Any) -> None:
        self._env = base
        self._since = KEYFRAME_EVERY
        self._frames = (0, 0)
        self._next: bytes | None = None  # the emulator's state before the next step
        self._rows: list[tuple[int, int]] = []
        self._blobs: dict[int, bytes] = {}

    def begin(self) -> None:
        self._note()
        self._next = self._state()

    def mark(self, action: Any) -> None:
        frames, before, step = self._frames, self._next, len(self._rows)
        self._note()
        made, made_in_episode = self._frames[0] - frames[0], self._frames[1] - frames[1]
        skip = self._env._frameskip
        if made != made_in_episode or made % skip:  # it was reset within: nothing to do again
            self._next = self._state()
            self._blobs[step] = b"F" + pack_picture(self._env.ale.getScreenRGB())
            self._rows.append((0, 0))
            return
        if before is not None:
            self._blobs[step], self._next, self._since = b"S" + before, None, 0
        self._since += 1
        if self._since >= KEYFRAME_EVERY:
            self._next = self._state()
        self._rows.append((made // skip, int(action)))

    def take(self) -> tuple[Array, dict[int, bytes]]:
        rows, blobs = self._rows, self._blobs
        self._rows, self._blobs = [], {}
        return np.array(rows, np.int64).reshape(-1, 2), blobs

    def _note(self) -> None:
        ale = self._env.ale
        self._frames = ale.getFrameNumber(), ale.getEpisodeFrameNumber()

    def _state(self) -> bytes:
        serialized: bytes = self._env.ale.cloneState(include_rng=True).serialize()
        return serialized

    def draw(self, source: ClipSource) -> Iterator[Picture]:
        import ale_py

        env, last = self._env, None
        for step, (repeats, action) in enumerate(source.rows.tolist()):
            blob = source.blobs.get(step)
            if blob is not None and blob[:1] == b"F":
                last = unpack_picture(blob[1:])
            else:
                if blob is not None:
                    env.ale.restoreState(ale_py.ALEState(blob[1:]))
                elif step == 0:
                    raise UserError("The states saved for a clip lack the emulator's: it cannot be drawn.")
                for _ in range(repeats):
                    env.step(action)
                if repeats or last is None:
                    last = as_picture(env.render())
            if step >= source.lead:
                yield last


class Atari:
    """One of this package's Atari games (`prefrl.envs.atari`), which keep what they can be played again from."""

    kind = "atari"

    def __init__(self, base: Any) -> None:
        self._env = base
        base.save_clips()

    def begin(self) -> None:
        pass

    def mark(self, action: Any) -> None:
        pass

    def take(self) -> tuple[Array, dict[int, bytes]]:
        marks = self._env.take_marks()
        if marks is None:
            return np.zeros((0, 2), np.int32), {}
        return marks.rows[:, 0], {step: blob for (step, _), blob in marks.blobs.items()}

    def draw(self, source: ClipSource) -> Iterator[Picture]:
        yield from self._env.draw_again(source.rows, source.blobs.get(0), source.lead)


class Film:
    """Any other environment: keeps the frames of windows that are drawn beforehand, at random.

    So few windows are drawn that this takes at most `FILM_SHARE` of the time, but for the first two.
    """

    kind = "film"

    def __init__(self, env: gymnasium.Env[Any, Any], segment_length: int) -> None:
        self._env, self._length = env, segment_length
        self._rng = np.random.default_rng()  # which windows can be asked about follows the clock anyway
        self._began = time.perf_counter()
        self._spent, self._num_windows = 0.0, 0
        self._left = self._wait = 0
        self._num = 0
        self._blobs: dict[int, bytes] = {}

    def begin(self) -> None:
        self._left = 0
        self._wait = int(self._rng.integers(self._length)) if self._num_windows >= FILM_FIRST else 0

    def mark(self, action: Any) -> None:
        self._num += 1
        if self._left == 0:
            if self._wait > 0:
                self._wait -= 1
                return
            allowed = FILM_SHARE * (time.perf_counter() - self._began)
            if self._num_windows >= FILM_FIRST and self._spent > allowed:
                return
            self._num_windows += 1
            self._left, self._wait = self._length, int(self._rng.integers(self._length))
        begin = time.perf_counter()
        self._blobs[self._num - 1] = b"F" + pack_picture(as_picture(self._env.render()))
        self._spent += time.perf_counter() - begin
        self._left -= 1

    def take(self) -> tuple[Array, dict[int, bytes]]:
        num, blobs = self._num, self._blobs
        self._num, self._blobs = 0, {}
        return np.zeros((num, 0), np.uint8), blobs

    def draw(self, source: ClipSource) -> Iterator[Picture]:
        for step in range(source.lead, len(source.rows)):
            yield unpack_picture(source.blobs[step][1:])


def pack_picture(picture: Picture) -> bytes:
    """Return a picture `(H, W, 3)` compressed without loss."""
    shape = np.asarray(picture.shape[:2], "<u2").tobytes()
    return shape + zlib.compress(picture.tobytes(), level=1)


def unpack_picture(data: bytes) -> Picture:
    """Rebuild what `pack_picture` gave."""
    height, width = np.frombuffer(data[:4], "<u2").tolist()
    return np.frombuffer(zlib.decompress(data[4:]), np.uint8).reshape(height, width, 3)

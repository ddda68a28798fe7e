"""What happens in a vector environment, kept as a rollout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from prefrl.clips.trail import Marks
from prefrl.envs.memory import check_rollout
from prefrl.errors import UserError
from prefrl.segments import Rollout
from prefrl.spaces import Array, Batch, check_finite, map_batch, num_bytes, take, zip_batches

FIRST_ROOM = 64  # steps, where nobody says how many there will be


class Step(NamedTuple):
    """What one step of E environments came to."""

    observations: Batch
    """`(E, ...)`: what is seen now; where an episode ended, the next one's first."""
    rewards: NDArray[np.float64]
    """`(E,)`: the environments' own."""
    terminated: NDArray[np.bool_]
    """`(E,)`"""
    truncated: NDArray[np.bool_]
    """`(E,)`; True too where both happened."""
    ends: Batch | None
    """`(N, ...)`: the last observations of the N episodes that ended, in the order of the environments."""


class Stepper:
    """Steps a vector environment and keeps what happens: every agent's rollouts are built here.

    Args:
        envs: restarts episodes in the step in which they end (`AutoresetMode.SAME_STEP`).
        reward_dtype: in which the environments' rewards are kept, before they become float64.

    Raises:
        UserError: another autoreset mode.
    """

    def __init__(self, envs: VectorEnv, reward_dtype: type[np.floating] = np.float64) -> None:
        mode = envs.metadata.get("autoreset_mode")
        if mode != AutoresetMode.SAME_STEP:
            raise UserError(
                f"Expected vector environments with autoreset_mode=AutoresetMode.SAME_STEP. Received {mode}. "
                "Make them with gymnasium.make_vec(..., vector_kwargs={'autoreset_mode': AutoresetMode.SAME_STEP})."
            )
        self.envs, self._reward_dtype = envs, reward_dtype
        self.observations: Batch = {}
        """`(E, ...)`: what is seen now."""
        self._rows: Batch = {}
        self._room = 0  # steps that the rows have room for, once there are rows
        self._clear()

    def _clear(self) -> None:
        self._take_marks()
        self._room = 0
        self._actions: list[Array] = []
        self._rewards: list[Array] = []
        self._terminated: list[NDArray[np.bool_]] = []
        self._truncated: list[NDArray[np.bool_]] = []
        self._hidden: list[NDArray[np.bool_]] = []
        self._ends: list[Batch] = []

    def _take_marks(self) -> Marks | None:
        take = getattr(self.envs.unwrapped, "take_marks", None)
        return None if take is None else take()

    def reset(self, seed: int | Sequence[int | None]) -> None:
        """Start new episodes everywhere; what was kept and not taken is dropped.

        Args:
            seed: of the environments: copy i gets `seed + i`, or entry i of a sequence.
        """
        observations, _ = self.envs.reset(seed=seed)  # type: ignore[arg-type]  # a list is Gymnasium's way too
        check_finite(observations, "An observation")
        self.observations = map_batch(np.array, observations)
        self._clear()

    def begin(self, num_steps: int) -> None:
        """Make room for this many steps, in which all that is seen is held once; without it, room is made as they come.

        Raises:
            UserError: there is too little memory for it.
        """
        check_rollout((num_steps + 1) * num_bytes(self.observations))

        def room(now: Array) -> Array:
            rows = np.empty((num_steps + 1, *now.shape), now.dtype)
            rows[0] = now
            return rows

        self._rows, self._room = map_batch(room, self.observations), num_steps

    def _grow(self) -> None:
        """Make room for twice as many steps."""
        self._room *= 2
        check_rollout((self._room + 1) * num_bytes(self.observations))

        def grown(rows: Array) -> Array:
            more = np.empty((self._room + 1, *rows.shape[1:]), rows.dtype)
            more[: len(rows)] = rows
            return more

        self._rows = map_batch(grown, self._rows)

    def step(self, actions: Array) -> Step:
        """Step every environment; `actions` `(E, ...)` are kept as given."""
        if self._room == 0:
            self.begin(FIRST_ROOM)
        elif len(self._actions) == self._room:
            self._grow()
        taken = np.array(actions)  # before the step: environments may write into what they get
        observations, rewards, terminated, truncated, infos = self.envs.step(actions)
        check_finite(observations, "An observation")
        terminated, truncated = np.array(terminated, np.bool_), np.array(truncated, np.bool_)
        ended, ends = terminated | truncated, None
        if ended.any():
            ends = _final_observations(infos["final_obs"], ended, self.observations)
            check_finite(ends, "An observation")
            self._ends.append(ends)
        hidden = infos.get("hidden_terminated")
        self._actions.append(taken)
        self._rewards.append(np.asarray(np.array(rewards, self._reward_dtype), np.float64))
        self._terminated.append(terminated)
        self._truncated.append(truncated)
        self._hidden.append(np.zeros_like(ended) if hidden is None else np.array(hidden, np.bool_))
        made = len(self._actions)

        def keep(pair: list[Array]) -> Array:
            pair[0][made] = pair[1]
            return pair[0][made]

        self.observations = zip_batches(keep, [self._rows, observations])
        return Step(self.observations, self._rewards[-1], terminated, truncated, ends)

    def take(self) -> Rollout:
        """Return what happened since the last call, or since the reset."""
        made = len(self._actions)

        def join(parts: list[Array]) -> Array:
            return np.concatenate(parts)

        no_ends = map_batch(lambda x: x[:0], self.observations)
        rollout = Rollout(
            observations=map_batch(lambda rows: rows[: made + 1], self._rows),
            actions=np.stack(self._actions),
            true_rewards=np.stack(self._rewards),
            terminated=np.stack(self._terminated),
            truncated=np.stack(self._truncated),
            hidden_ends=np.stack(self._hidden),
            last_observations=zip_batches(join, self._ends) if self._ends else no_ends,
            marks=self._take_marks(),
        )
        self._clear()
        return rollout


def _final_observations(given: Any, ended: NDArray[np.bool_], like: Batch) -> Batch:
    """Return the last observations `(N, ...)` of the N episodes that ended.

    Vector environments give them as a batch of the N, as a batch of all E, or as an object array of E.
    """
    where = np.flatnonzero(ended)

    def cast(pair: list[Array]) -> Array:
        return np.array(pair[0], pair[1].dtype)

    if isinstance(given, Mapping) or given.dtype != object:
        batch: Batch = given if isinstance(given, Mapping) else np.asarray(given)
        length = len(next(iter(batch.values())) if isinstance(batch, Mapping) else batch)
        return zip_batches(cast, [batch if length == len(where) else take(batch, where), like])
    chosen = [given[i] for i in where]
    if isinstance(like, Mapping):
        return {key: np.array([one[key] for one in chosen], like[key].dtype) for key in like}
    return np.array(chosen, like.dtype)

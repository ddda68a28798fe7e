"""Rollouts, and the segments cut from them.

A `Rollout` is what an agent did in E environments for T steps, a `Segment` is a window of k steps inside one episode,
never across its end. `prefrl.history` cuts the one from the other.

True rewards travel with segments for simulated teachers and reports; no reward model or agent reads them (a test holds
the list of modules that may).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefrl.clips.trail import Marks
from prefrl.errors import UserError
from prefrl.files import MOST_BYTES
from prefrl.frames import FrameTrack
from prefrl.spaces import (
    Array,
    Batch,
    batch_length,
    from_arrays,
    join_axes,
    map_batch,
    num_bytes,
    take,
    to_arrays,
    zip_batches,
)


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """T consecutive steps of E environments, in the order they happened."""

    observations: Batch
    """`(T + 1, E, ...)`: what was seen before each step, and after the last. After an episode's end, row t + 1 is the
    first observation of the next episode."""
    actions: Array
    """`(T, E, ...)`: what the environment was given."""
    true_rewards: NDArray[np.float64]
    """`(T, E)`: the environment's own rewards; only teachers and reports read them."""
    terminated: NDArray[np.bool_]
    """`(T, E)`"""
    truncated: NDArray[np.bool_]
    """`(T, E)`; True too where both happened."""
    last_observations: Batch
    """`(N, ...)`: the last observation of each of the N episodes that ended, ordered by step, then environment."""
    hidden_ends: NDArray[np.bool_] | None = None
    """`(T, E)`: the environment's fixed-horizon form hid an end here; None: nowhere."""
    marks: Marks | None = None
    """What the steps can be drawn from; None unless a person will look at them."""

    @property
    def num_steps(self) -> int:
        """Steps of all environments together, T x E."""
        return self.true_rewards.size

    @property
    def ended(self) -> NDArray[np.bool_]:
        """`(T, E)`: terminated or truncated."""
        return self.terminated | self.truncated

    def next_observations(self) -> Batch:
        """`(T, E, ...)`: what each step led to; at an episode's end its last observation, not the next one's first."""
        steps, envs = np.nonzero(self.ended)

        def place(pair: list[Array]) -> Array:
            following, last = pair[0][1:].copy(), pair[1]
            following[steps, envs] = last
            return following

        if len(steps) == 0:
            return map_batch(lambda x: x[1:], self.observations)
        return zip_batches(place, [self.observations, self.last_observations])

    def transitions_at(self, steps: Array, envs: Array) -> tuple[Batch, Array, Batch]:
        """Return observations, actions and next observations of N steps, `(N, ...)` each: copies of no more than these.

        Args:
            steps: `(N,)` int: which steps,
            envs: `(N,)` int: of which environments.
        """
        ended = self.ended
        last_of = (np.cumsum(ended) - 1).reshape(ended.shape)[steps, envs]  # row of `last_observations`
        at_end = ended[steps, envs]

        def follow(pair: list[Array]) -> Array:
            following = pair[0][steps + 1, envs]
            following[at_end] = pair[1][last_of[at_end]]
            return following

        return (
            map_batch(lambda x: x[steps, envs], self.observations),
            self.actions[steps, envs],
            zip_batches(follow, [self.observations, self.last_observations]),
        )

    def part(self, begin: int, end: int) -> Rollout:
        """Return the steps from `begin` up to `end`, which is not included, without marks; nothing is copied."""
        first, last = int(self.ended[:begin].sum()), int(self.ended[:end].sum())
        return Rollout(
            observations=map_batch(lambda x: x[begin : end + 1], self.observations),
            actions=self.actions[begin:end],
            true_rewards=self.true_rewards[begin:end],
            terminated=self.terminated[begin:end],
            truncated=self.truncated[begin:end],
            last_observations=map_batch(lambda x: x[first:last], self.last_observations),
            hidden_ends=None if self.hidden_ends is None else self.hidden_ends[begin:end],
        )

    def flat_transitions(self) -> tuple[Batch, Array, Batch]:
        """Return observations, actions and next observations with the axes T and E joined: `(T * E, ...)` each."""
        actions = self.actions.reshape(-1, *self.actions.shape[2:])
        return join_axes(take(self.observations, slice(-1))), actions, join_axes(self.next_observations())


@dataclass(frozen=True, kw_only=True, eq=False)
class Segment:
    """k consecutive steps of one episode."""

    observations: Batch
    """`(k + 1, ...)`: before every step, and after the last."""
    actions: Array
    """`(k, ...)`"""
    true_rewards: NDArray[np.float64]
    """`(k,)`: only teachers and reports read them."""
    terminated: bool = False
    """The episode terminated at the segment's last step."""
    truncated: bool = False
    """The episode was cut off at the segment's last step."""
    episode: int = -1
    """Number of the episode in its run, -1 if unknown."""
    start: int = 0
    """Index of the first step in the episode."""
    replay: Mapping[str, Array] | None = None
    """What is needed to draw its frames again, e.g. simulator states; no part of its name."""

    def __post_init__(self) -> None:
        k = len(self.actions)
        if k == 0:
            raise UserError("A segment needs at least one step; got none.")
        if batch_length(self.observations) != k + 1 or len(self.true_rewards) != k:
            raise UserError(
                f"A segment of {k} actions needs {k + 1} observations and {k} true rewards; got "
                f"{batch_length(self.observations)} and {len(self.true_rewards)}."
            )

    def __len__(self) -> int:
        return len(self.actions)

    @cached_property
    def id(self) -> str:
        """Hash of observations and actions (not of the true rewards): equal content, equal name."""
        digest = hashlib.sha256()
        arrays = {**to_arrays("observations", self.observations), "actions": self.actions}
        for name in sorted(arrays):
            array = arrays[name]
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:32]

    def transitions(self) -> tuple[Batch, Array, Batch]:
        """Return observations, actions, next observations: `(k, ...)` each."""
        return (
            map_batch(lambda x: x[:-1], self.observations),
            self.actions,
            map_batch(lambda x: x[1:], self.observations),
        )


Transitions = tuple[Batch, Array, Batch]
"""Observations, actions and next observations of B steps: `(B, ...)` each."""


def stack_transitions(segments: list[Segment]) -> Transitions:
    """Return observations, actions, next observations of B segments of k steps joined: `(B * k, ...)` each."""
    parts = [segment.transitions() for segment in segments]
    return (
        zip_batches(np.concatenate, [p[0] for p in parts]),
        np.concatenate([p[1] for p in parts]),
        zip_batches(np.concatenate, [p[2] for p in parts]),
    )


def in_parts(segments: Sequence[Segment], most_bytes: int) -> Iterator[list[Segment]]:
    """Yield segments in order, so many at a time that their observations take at most `most_bytes` (one at least)."""
    part: list[Segment] = []
    held = 0
    for segment in segments:
        size = num_bytes(segment.observations)
        if part and held + size > most_bytes:
            yield part
            part, held = [], 0
        part.append(segment)
        held += size
    if part:
        yield part


def transitions_at(segments: Sequence[Segment], steps: NDArray[np.int64]) -> tuple[Batch, Array, Batch]:
    """Return single steps of segments of k steps each, by their numbers among all B * k: `(n, ...)` each.

    The rows `steps` of `stack_transitions`, which puts all of them together.
    """
    length = len(segments[0])
    places = [(segments[step // length], step % length) for step in steps.tolist()]
    return (
        zip_batches(np.stack, [take(segment.observations, step) for segment, step in places]),
        np.stack([segment.actions[step] for segment, step in places]),
        zip_batches(np.stack, [take(segment.observations, step + 1) for segment, step in places]),
    )


def segment_arrays(segment: Segment) -> dict[str, Array]:
    """Return observations and actions as arrays for a file, each image of a stack once.

    `segment_from_arrays` is the inverse.
    """
    arrays: dict[str, Array] = {"actions": segment.actions}
    for name, values in to_arrays("observations", segment.observations).items():
        track = FrameTrack()
        track.append(values)
        arrays[name if track.stack_axis is None else f"stacked@{track.stack_axis}@{name}"] = track.stored()
    return arrays


def segment_from_arrays(arrays: Mapping[str, Array], true_rewards: Array, **where: Any) -> Segment:
    """Rebuild a segment from `segment_arrays`; `where` is passed on (`terminated`, `truncated`, `episode`, `start`)."""
    num_observations = len(arrays["actions"]) + 1
    leaves = {}
    for name, stored in arrays.items():
        if name == "actions":
            continue
        axis: int | None = None
        if name.startswith("stacked@"):
            _, number, name = name.split("@", 2)
            axis = int(number)
        leaves[name] = FrameTrack.restore(stored, num_observations, axis).window(0, num_observations)
    if (size := sum(leaf.nbytes for leaf in leaves.values())) > MOST_BYTES:
        raise UserError(f"A segment must have no more than {MOST_BYTES:,} bytes of observations; got {size:,}.")
    return Segment(
        observations=from_arrays("observations", leaves), actions=arrays["actions"], true_rewards=true_rewards, **where
    )


def segments_to_arrays(segments: Sequence[Segment]) -> dict[str, Array]:
    """Return segments of one length as arrays for a file, their true rewards too; `segments_from_arrays` inverts it.

    Args:
        segments: N of k steps, one or more.

    Returns:
        `observations...` `(N, k + 1, ...)`, `actions` `(N, k, ...)`, `true_rewards` `(N, k)`, and of each segment
        `terminated`, `truncated`, `episode` and `start`, `(N,)`.
    """
    observations = zip_batches(np.stack, [segment.observations for segment in segments])
    arrays: dict[str, Array] = {**to_arrays("observations", observations)}
    arrays["actions"] = np.stack([segment.actions for segment in segments])
    arrays["true_rewards"] = np.stack([segment.true_rewards for segment in segments])
    for name in ("terminated", "truncated", "episode", "start"):
        arrays[name] = np.array([getattr(segment, name) for segment in segments])
    return arrays


def segments_from_arrays(arrays: Mapping[str, Array]) -> list[Segment]:
    """Rebuild the segments of `segments_to_arrays`.

    Raises:
        KeyError: an array is missing.
        UserError: their shapes do not go together.
    """
    observations = from_arrays("observations", arrays)
    return [
        Segment(
            observations=map_batch(lambda x, i=number: x[i], observations),  # type: ignore[misc]
            actions=arrays["actions"][number],
            true_rewards=arrays["true_rewards"][number],
            terminated=bool(arrays["terminated"][number]),
            truncated=bool(arrays["truncated"][number]),
            episode=int(arrays["episode"][number]),
            start=int(arrays["start"][number]),
        )
        for number in range(len(arrays["actions"]))
    ]

"""What an agent did lately: rollouts joined into episodes, under a cap in bytes, and segments drawn from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefrl.clips.trail import ClipSource, Marks, Trail
from prefrl.errors import UserError
from prefrl.frames import FrameTrack
from prefrl.segments import Rollout, Segment
from prefrl.spaces import Array, Batch, map_batch, zip_batches


class Episode:
    """One episode as it grows: n steps, n + 1 observations."""

    def __init__(self, number: int, env_index: int, first_step: int) -> None:
        self.number = number
        self.env_index = env_index
        self.first_step = first_step  # steps that this environment had made before it
        self.observations: dict[str, FrameTrack] = {}  # the key is "" where observations are a single array
        self.actions = FrameTrack()
        self.true_rewards = FrameTrack()
        self.ends: list[int] = []  # steps at which it terminated, or would have but for the fixed-horizon form
        self.terminated = False
        self.truncated = False
        self.trail: Trail | None = None

    @property
    def num_steps(self) -> int:
        return self.actions.length

    @property
    def nbytes(self) -> int:
        tracks = [*self.observations.values(), self.actions, self.true_rewards]
        return sum(track.nbytes for track in tracks) + (0 if self.trail is None else self.trail.nbytes)

    def append(self, observations: Batch, actions: Array, true_rewards: Array) -> None:
        """Add n steps: the n + 1 observations around them (the first is known already unless the episode is new)."""
        leaves = observations if isinstance(observations, Mapping) else {"": observations}
        for key, values in leaves.items():
            if key in self.observations:
                self.observations[key].append(values[1:])
            else:
                self.observations[key] = FrameTrack()
                self.observations[key].append(values)
        self.actions.append(actions)
        self.true_rewards.append(np.asarray(true_rewards, np.float64))

    def mark(self, marks: Marks, env: int, begin: int, stop: int) -> None:
        """Add what steps `begin` to `stop` of a rollout can be drawn from."""
        if self.trail is None:
            self.trail = Trail(marks.kind)
        blobs = {step - begin: marks.blobs[step, env] for step in range(begin, stop) if (step, env) in marks.blobs}
        self.trail.append(marks.rows[begin:stop, env], blobs)

    def close(self, *, terminated: bool, truncated: bool) -> None:
        """Mark the end and give back spare memory."""
        self.terminated, self.truncated = terminated, truncated
        trail = () if self.trail is None else (self.trail.rows,)
        for track in (*self.observations.values(), self.actions, self.true_rewards, *trail):
            track.trim()

    def segment(self, start: int, length: int) -> Segment:
        """Cut out steps `start` to `start + length`."""
        stop = start + length
        leaves = {key: track.window(start, stop + 1) for key, track in self.observations.items()}
        at_end = stop == self.num_steps
        return Segment(
            observations=leaves.get("", leaves),
            actions=self.actions.window(start, stop),
            true_rewards=self.true_rewards.window(start, stop),
            terminated=at_end and self.terminated,
            truncated=at_end and self.truncated,
            episode=self.number,
            start=start,
        )


class History:
    """The newest episodes of a run, up to a cap in bytes; whole old episodes are dropped first.

    Args:
        max_bytes: cap on the memory of what is kept. The episodes still running are kept whatever their size.
    """

    def __init__(self, max_bytes: int = 256_000_000) -> None:
        if max_bytes <= 0:
            raise UserError(f"max_bytes must be positive. Received {max_bytes}")
        self.max_bytes = max_bytes
        self.closed: list[Episode] = []
        self.open: dict[int, Episode] = {}  # by environment
        self.num_env_steps = 0  # of one environment
        self.num_episodes = 0
        self._closed_bytes = 0

    @property
    def episodes(self) -> list[Episode]:
        """All episodes kept, the running ones last."""
        return [*self.closed, *(self.open[env] for env in sorted(self.open))]

    @property
    def num_steps(self) -> int:
        """Steps kept, of all environments together."""
        return sum(episode.num_steps for episode in self.episodes)

    def add(self, rollout: Rollout) -> list[Episode]:
        """Take in what E environments did next; return the episodes that ended, in order of step, then environment."""
        num_steps, num_envs = rollout.true_rewards.shape
        ended = rollout.ended
        step_of_end, env_of_end = np.nonzero(ended)
        ends: dict[int, list[tuple[int, int]]] = {env: [] for env in range(num_envs)}
        for index, (step, env) in enumerate(zip(step_of_end.tolist(), env_of_end.tolist(), strict=True)):
            ends[env].append((step, index))
        finished: list[tuple[int, Episode]] = []
        for env in range(num_envs):
            begin = 0
            for step, index in ends[env]:
                last = map_batch(lambda x, i=index: x[i : i + 1], rollout.last_observations)  # type: ignore[misc]
                episode = self._extend(rollout, env, begin, step + 1, last)
                terminated = bool(rollout.terminated[step, env])
                self._close(episode, terminated=terminated, truncated=bool(rollout.truncated[step, env]))
                finished.append((index, episode))
                begin = step + 1
            if begin < num_steps:
                self._extend(rollout, env, begin, num_steps, None)
        self.num_env_steps += num_steps
        in_order = [episode for _, episode in sorted(finished, key=lambda pair: pair[0])]
        self.closed[len(self.closed) - len(in_order) :] = in_order  # oldest first: they are dropped from the front
        self._drop_oldest()
        return in_order

    def clip_source(self, segment: Segment) -> ClipSource | None:
        """Return what a segment of this history can be drawn from; None: it was not saved, or is dropped already."""
        for episode in self.episodes:
            if episode.number == segment.episode:
                return None if episode.trail is None else episode.trail.source(segment.start, len(segment))
        return None

    def cut(self) -> None:
        """Close the running episodes as truncated: the environments are about to be reset."""
        for env in sorted(self.open):
            self._close(self.open[env], terminated=False, truncated=True)

    def _extend(self, rollout: Rollout, env: int, begin: int, stop: int, last: Batch | None) -> Episode:
        if env not in self.open:
            self.open[env] = Episode(self.num_episodes, env, self.num_env_steps + begin)
            self.num_episodes += 1
        if last is None:
            observations = map_batch(lambda x: x[begin : stop + 1, env], rollout.observations)
        else:
            seen = map_batch(lambda x: x[begin:stop, env], rollout.observations)
            observations = zip_batches(np.concatenate, [seen, last])
        episode = self.open[env]
        ends = rollout.terminated[begin:stop, env]
        if rollout.hidden_ends is not None:
            ends = ends | rollout.hidden_ends[begin:stop, env]
        episode.ends += (np.flatnonzero(ends) + episode.num_steps).tolist()
        episode.append(observations, rollout.actions[begin:stop, env], rollout.true_rewards[begin:stop, env])
        if rollout.marks is not None:
            episode.mark(rollout.marks, env, begin, stop)
        return episode

    def _close(self, episode: Episode, *, terminated: bool, truncated: bool) -> None:
        episode.close(terminated=terminated, truncated=truncated)
        del self.open[episode.env_index]
        self.closed.append(episode)
        self._closed_bytes += episode.nbytes

    def _drop_oldest(self) -> None:
        running = sum(episode.nbytes for episode in self.open.values())
        while self.closed and self._closed_bytes + running > self.max_bytes:
            self._closed_bytes -= self.closed.pop(0).nbytes

    def num_windows(self, length: int, last_steps: int | None = None) -> int:
        """Count the windows of `length` steps that `sample` draws from."""
        _, low, high = _only_drawable(*self._window_ranges(length, last_steps), length)
        return int((high - low).sum())

    def _window_ranges(
        self, length: int, last_steps: int | None
    ) -> tuple[list[Episode], NDArray[np.int64], NDArray[np.int64]]:
        episodes = self.episodes
        high = np.maximum(np.array([e.num_steps for e in episodes], np.int64) - length + 1, 0)
        low = np.zeros_like(high)
        if last_steps is not None and episodes:
            num_envs = max(e.env_index for e in episodes) + 1
            oldest = self.num_env_steps - -(-last_steps // num_envs)  # steps of one environment
            low = np.clip(oldest - np.array([e.first_step for e in episodes], np.int64), 0, high)
        return episodes, low, high

    def sample_steps(self, num_steps: int, rng: np.random.Generator, *, last_steps: int | None = None) -> list[Segment]:
        """Draw single steps uniformly, with replacement, whether they can be shown to a person or not.

        Args:
            num_steps: how many to draw.
            rng: source of randomness.
            last_steps: draw only from this many most recent environment steps.
        """
        episodes, low, high = self._window_ranges(1, last_steps)
        return _draw(episodes, low, high - low, num_steps, 1, rng)

    def sample(
        self, num_segments: int, length: int, rng: np.random.Generator, *, last_steps: int | None = None
    ) -> list[Segment]:
        """Draw windows uniformly, with replacement, from all windows of `length` steps inside one episode.

        Every window is equally likely, whatever the length of its episode. Steps in the middle of an episode are
        therefore covered by more windows than its first and last `length - 1`, and an episode shorter than `length`
        yields none.

        Args:
            num_segments: how many to draw.
            length: steps per segment.
            rng: source of randomness.
            last_steps: draw only from windows that began within this many most recent environment steps.

        Raises:
            UserError: no episode is long enough.
        """
        if length < 1:
            raise UserError(f"A segment needs at least one step. Received length {length}")
        episodes, low, high = _only_drawable(*self._window_ranges(length, last_steps), length)
        ends = np.cumsum(high - low)
        if not episodes or ends[-1] == 0:
            longest = max((e.num_steps for e in episodes), default=0)
            if longest >= length:
                raise UserError(
                    f"No window of {length} steps began within the last {last_steps} environment steps. "
                    "Use shorter segments, or a larger last_steps."
                )
            raise UserError(
                f"No episode is long enough for segments of {length} steps (the longest has {longest}). "
                f"Use shorter ones: --segment-length {max(longest, 1)}. Or, where an agent acts, put episodes "
                f"in a row: --fixed-horizon {10 * length}."
            )
        return _draw(episodes, low, high - low, num_segments, length, rng)

    @property
    def num_ends(self) -> int:
        """Ends of episodes, hidden ones included."""
        return sum(len(episode.ends) for episode in self.episodes)

    def sample_ends(self, num_segments: int, length: int, rng: np.random.Generator) -> list[Segment]:
        """Draw windows as `sample` does, but only from those that show an end, hidden ones included.

        Returns:
            `num_segments` segments, or none where the history shows no end.
        """
        episodes, starts, counts = [], [], []
        for episode in self.episodes:
            free = 0  # first window that was not counted for an earlier end
            for end in episode.ends:
                first, last = max(free, end - length + 1), min(end, episode.num_steps - length)
                if last >= first:
                    episodes.append(episode)
                    starts.append(first)
                    counts.append(last - first + 1)
                    free = last + 1
        episodes, low, high = _only_drawable(episodes, np.array(starts), np.array(starts) + np.array(counts), length)
        if not episodes:
            return []
        return _draw(episodes, low, high - low, num_segments, length, rng)

    def state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Return everything as arrays and JSON; `History.restore` is the inverse."""
        arrays: dict[str, list[Array]] = {}
        episodes = []
        for episode in self.episodes:
            tracks = {f"observations/{key}": track for key, track in episode.observations.items()}
            tracks |= {"actions": episode.actions, "true_rewards": episode.true_rewards}
            described = {}
            for name, track in tracks.items():
                column = f"{name}@{track.stack_axis}"
                arrays.setdefault(column, []).append(track.stored())
                described[name] = [column, len(track.stored()), track.length, track.stack_axis]
            trail = None
            if episode.trail is not None:
                columns, trail = episode.trail.state()
                for name, array in columns.items():
                    arrays.setdefault(f"trail/{name}", []).append(array)
            episodes.append(
                {
                    "number": episode.number,
                    "env_index": episode.env_index,
                    "first_step": episode.first_step,
                    "terminated": episode.terminated,
                    "truncated": episode.truncated,
                    "ends": episode.ends,
                    "open": self.open.get(episode.env_index) is episode,
                    "tracks": described,
                }
                | ({} if trail is None else {"trail": trail})
            )
        meta = {
            "max_bytes": self.max_bytes,
            "num_env_steps": self.num_env_steps,
            "num_episodes": self.num_episodes,
            "episodes": episodes,
        }
        return {name: np.concatenate(parts) for name, parts in arrays.items()}, meta

    @classmethod
    def restore(cls, arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> History:
        """Rebuild the history that `state` described."""
        history = cls(meta["max_bytes"])
        history.num_env_steps, history.num_episodes = meta["num_env_steps"], meta["num_episodes"]
        read: dict[str, int] = {}
        for row in meta["episodes"]:
            episode = Episode(row["number"], row["env_index"], row["first_step"])
            for name, (column, num_rows, length, stack_axis) in row["tracks"].items():
                begin = read.get(column, 0)
                read[column] = begin + num_rows
                track = FrameTrack.restore(arrays[column][begin : begin + num_rows], length, stack_axis)
                if name.startswith("observations/"):
                    episode.observations[name.removeprefix("observations/")] = track
                elif name == "actions":
                    episode.actions = track
                else:
                    episode.true_rewards = track
            if "trail" in row:
                parts = {}
                for name, size in (
                    ("rows", row["trail"]["length"]),
                    ("content", sum(n for _, n in row["trail"]["blobs"])),
                ):
                    begin = read.get(f"trail/{name}", 0)
                    read[f"trail/{name}"] = begin + size
                    parts[name] = arrays[f"trail/{name}"][begin : begin + size]
                episode.trail = Trail.restore(parts["rows"], parts["content"], row["trail"])
            episode.terminated, episode.truncated, episode.ends = row["terminated"], row["truncated"], row["ends"]
            if row["open"]:
                history.open[episode.env_index] = episode
            else:
                history.closed.append(episode)
                history._closed_bytes += episode.nbytes
        return history


def _only_drawable(
    episodes: list[Episode], low: NDArray[np.int64], high: NDArray[np.int64], length: int
) -> tuple[list[Episode], NDArray[np.int64], NDArray[np.int64]]:
    """Narrow ranges of windows down to those that can be shown, where only some were drawn beforehand."""
    if not any(episode.trail is not None and episode.trail.kind == "film" for episode in episodes):
        return episodes, low, high
    kept: list[tuple[Episode, int]] = []
    for episode, first, stop in zip(episodes, low.tolist(), high.tolist(), strict=True):
        starts = None if episode.trail is None else episode.trail.starts(length)
        if starts is not None:
            kept += [(episode, start) for start in starts.tolist() if first <= start < stop]
    begins = np.array([start for _, start in kept], np.int64)
    return [episode for episode, _ in kept], begins, begins + 1


def _draw(
    episodes: list[Episode],
    starts: NDArray[np.int64],
    counts: NDArray[np.int64],
    num_segments: int,
    length: int,
    rng: np.random.Generator,
) -> list[Segment]:
    """Draw uniformly from the windows that begin at `starts[i]` to `starts[i] + counts[i] - 1` of `episodes[i]`."""
    totals = np.cumsum(counts)
    drawn = rng.integers(totals[-1], size=num_segments)
    which = np.searchsorted(totals, drawn, side="right")
    offsets = drawn - (totals[which] - counts[which]) + starts[which]
    return [episodes[e].segment(s, length) for e, s in zip(which.tolist(), offsets.tolist(), strict=True)]

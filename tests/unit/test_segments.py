"""Rollouts, episodes, histories and the segments cut from them."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from prefrl.errors import UserError
from prefrl.files import npz_arrays, npz_bytes
from prefrl.frames import FrameTrack
from prefrl.history import History
from prefrl.segments import (
    Rollout,
    Segment,
    in_parts,
    segment_arrays,
    segment_from_arrays,
    segments_from_arrays,
    segments_to_arrays,
    stack_transitions,
    transitions_at,
)
from prefrl.spaces import Array, Batch, map_batch, to_arrays, zip_batches

pytestmark = pytest.mark.lowest

Observe = Callable[[int, int], Any]
"""Observation number `step` of the episode with a number of its own."""


def plain(episode: int, step: int) -> Array:
    """An observation that says where it is from."""
    return np.array([episode, step], np.float32)


class World:
    """E environments whose episodes have the lengths given; every observation is known from episode and step."""

    def __init__(self, lengths: list[list[int]], observe: Observe = plain, terminate: bool = True) -> None:
        self.lengths, self.observe, self.terminate = lengths, observe, terminate
        self.at = [(0, 0)] * len(lengths)  # which episode of each environment, and which step of it
        self.true_rewards: dict[int, list[float]] = {}

    def number(self, env: int) -> int:
        return 1000 * env + self.at[env][0]

    def now(self) -> Batch:
        return join([self.observe(self.number(env), self.at[env][1]) for env in range(len(self.at))])

    def rollout(self, num_steps: int) -> Rollout:
        observations, actions, rewards, ended, lasts = [self.now()], [], [], [], []
        for _ in range(num_steps):
            row_ended, row_actions, row_rewards = [], [], []
            for env, (episode, step) in enumerate(self.at):
                row_actions.append([self.number(env), step])
                row_rewards.append(self.number(env) + step / 1000)
                over = step + 1 == self.lengths[env][episode]
                if over:
                    lasts.append(self.observe(self.number(env), step + 1))
                row_ended.append(over)
                self.at[env] = (episode + 1, 0) if over else (episode, step + 1)
            observations.append(self.now())
            actions.append(row_actions)
            rewards.append(row_rewards)
            ended.append(row_ended)
        none = np.zeros_like(np.array(ended))
        return Rollout(
            observations=join(observations),
            actions=np.array(actions, np.int64),
            true_rewards=np.array(rewards),
            terminated=np.array(ended) if self.terminate else none,
            truncated=none if self.terminate else np.array(ended),
            last_observations=join(lasts) if lasts else map_batch(lambda x: x[:0], self.now()),
        )


def join(values: list[Any]) -> Batch:
    return zip_batches(np.stack, values)


def assert_equal(first: Batch, second: Batch) -> None:
    ours, theirs = to_arrays("x", first), to_arrays("x", second)
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert value.dtype == theirs[key].dtype
        np.testing.assert_array_equal(value, theirs[key])


def assert_is_what_happened(segment: Segment, observe: Observe, length_of: Callable[[int], int]) -> None:
    """Hold a segment against the world it came from."""
    episode, start = (int(x) for x in segment.actions[0])
    k = len(segment)
    assert start == segment.start
    np.testing.assert_array_equal(segment.actions, [[episode, start + i] for i in range(k)])
    np.testing.assert_array_equal(segment.true_rewards, [episode + (start + i) / 1000 for i in range(k)])
    assert_equal(segment.observations, join([observe(episode, start + i) for i in range(k + 1)]))
    assert start + k <= length_of(episode)


episode_lengths = st.lists(st.integers(1, 9), min_size=30, max_size=30)


# Windows


@settings(max_examples=60)
@given(
    lengths=st.lists(episode_lengths, min_size=1, max_size=3),
    rollouts=st.lists(st.integers(1, 12), min_size=1, max_size=4).filter(lambda r: sum(r) <= 25),
    k=st.integers(1, 5),
    terminate=st.booleans(),
)
def test_windows_never_cross_an_end(lengths: list[list[int]], rollouts: list[int], k: int, terminate: bool) -> None:
    world, history = World(lengths, terminate=terminate), History()
    for num_steps in rollouts:
        history.add(world.rollout(num_steps))
    if history.num_windows(k) == 0:
        with pytest.raises(UserError, match="No episode is long enough"):
            history.sample(1, k, np.random.default_rng(0))
        return
    for segment in history.sample(40, k, np.random.default_rng(0)):
        episode = int(segment.actions[0, 0])
        length = lengths[episode // 1000][episode % 1000]
        assert_is_what_happened(segment, plain, lambda _, length=length: length)  # type: ignore[misc]
        at_end = segment.start + k == length
        assert segment.terminated == (at_end and terminate)
        assert segment.truncated == (at_end and not terminate)


def test_every_window_is_equally_likely_whatever_the_length_of_its_episode() -> None:
    world, history = World([[9, 2, 3, 30], [4, 5, 30]]), History()
    history.add(world.rollout(16))  # the last episodes are still running
    k = 3
    lengths = [9, 2, 3, 16 - 14, 4, 5, 16 - 9]
    expected = sum(max(n - k + 1, 0) for n in lengths)
    assert history.num_windows(k) == expected
    drawn = history.sample(200 * expected, k, np.random.default_rng(7))
    counts = Counter((int(s.actions[0, 0]), s.start) for s in drawn)
    assert len(counts) == expected
    assert chisquare(list(counts.values())).pvalue > 1e-3


def test_the_same_seed_draws_the_same_windows() -> None:
    history = History()
    history.add(World([[7, 30]]).rollout(20))
    names = [[s.id for s in history.sample(10, 4, np.random.default_rng(seed))] for seed in (1, 1, 2)]
    assert names[0] == names[1] != names[2]


def test_only_windows_that_began_lately_are_drawn_if_asked() -> None:
    world, history = World([[8, 30], [30]]), History()
    history.add(world.rollout(20))
    recent = history.sample(300, 3, np.random.default_rng(0), last_steps=14)  # the last 7 steps of each of two
    begun = {(s.episode, s.start) for s in recent}
    first_step = {e.number: e.first_step for e in history.episodes}
    assert {first_step[e] + start for e, start in begun} == {13, 14, 15, 16, 17}
    assert history.num_windows(3, last_steps=14) == 2 * 5
    assert history.num_windows(3, last_steps=10_000) == history.num_windows(3)


def test_single_steps_are_drawn_from_the_newest() -> None:
    world, history = World([[8, 30], [30]]), History()
    history.add(world.rollout(20))
    drawn = history.sample_steps(300, np.random.default_rng(0), last_steps=14)  # the last 7 steps of each of two
    first_step = {e.number: e.first_step for e in history.episodes}
    assert {len(s) for s in drawn} == {1}
    assert {first_step[s.episode] + s.start for s in drawn} == set(range(13, 20))


def test_windows_that_cannot_be_drawn_are_refused_with_a_way_out() -> None:
    history = History()
    with pytest.raises(UserError, match="the longest has 0"):
        history.sample(1, 1, np.random.default_rng(0))
    history.add(World([[4, 4, 30]]).rollout(10))
    with pytest.raises(UserError, match=r"the longest has 4\).*--segment-length 4\. .*--fixed-horizon 50"):
        history.sample(1, 5, np.random.default_rng(0))
    with pytest.raises(UserError, match=r"within the last 2 environment steps.*larger last_steps"):
        history.sample(1, 3, np.random.default_rng(0), last_steps=2)
    with pytest.raises(UserError, match="at least one step"):
        history.sample(1, 0, np.random.default_rng(0))


def test_a_window_may_end_at_a_termination_and_says_so() -> None:
    history = History()
    history.add(World([[4, 30]]).rollout(4))
    ends = {s.start: (s.terminated, s.truncated) for s in history.sample(60, 2, np.random.default_rng(0))}
    assert ends == {0: (False, False), 1: (False, False), 2: (True, False)}


def test_an_end_by_both_termination_and_time_keeps_both() -> None:
    rollout = World([[3, 30]]).rollout(3)
    both = Rollout(**{**vars(rollout), "truncated": rollout.terminated})
    history = History()
    (episode,) = history.add(both)
    assert (episode.terminated, episode.truncated) == (True, True)


# Rollouts and segments


def test_next_observations_at_an_end_are_its_last_not_the_next_ones_first() -> None:
    rollout = World([[2, 30], [30]]).rollout(3)
    following = rollout.next_observations()
    np.testing.assert_array_equal(following, [[[0, 1], [1000, 1]], [[0, 2], [1000, 2]], [[1, 1], [1000, 3]]])
    assert rollout.num_steps == 6


def test_flat_transitions_go_by_step_then_environment() -> None:
    rollout = World([[2, 30], [30]]).rollout(3)
    before, actions, after = rollout.flat_transitions()
    np.testing.assert_array_equal(before, actions)  # both say episode and step
    np.testing.assert_array_equal(np.asarray(after)[:, 1] - np.asarray(before)[:, 1], np.ones(6))
    np.testing.assert_array_equal(actions[:4], [[0, 0], [1000, 0], [0, 1], [1000, 1]])


def test_chosen_transitions_are_those_of_the_whole_and_hold_nothing_else() -> None:
    rollout = World([[2, 30], [30]]).rollout(3)
    chosen = np.array([3, 0, 2, 1])  # one of them an end
    for part, whole in zip(rollout.transitions_at(*np.divmod(chosen, 2)), rollout.flat_transitions(), strict=True):
        assert isinstance(part, np.ndarray) and isinstance(whole, np.ndarray)
        np.testing.assert_array_equal(part, whole[chosen])
        assert part.base is None


def test_a_segment_whose_parts_do_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="2 actions needs 3 observations and 2 true rewards; got 2 and 2"):
        Segment(observations=np.zeros((2, 1)), actions=np.zeros((2, 1)), true_rewards=np.zeros(2))
    with pytest.raises(UserError, match="at least one step"):
        Segment(observations=np.zeros((1, 1)), actions=np.zeros((0, 1)), true_rewards=np.zeros(0))


def test_the_name_of_a_segment_depends_on_what_was_seen_and_done_and_nothing_else() -> None:
    base: dict[str, Any] = {
        "observations": {"a": np.zeros((3, 2)), "b": np.ones(3)},
        "actions": np.zeros(2, np.int64),
        "true_rewards": np.zeros(2),
    }
    name = Segment(**base).id
    assert Segment(**{**base, "true_rewards": np.ones(2)}, episode=4, start=9, terminated=True).id == name
    assert Segment(**{**base, "observations": {"b": np.ones(3), "a": np.zeros((3, 2))}}).id == name
    for other in (
        {"actions": np.array([0, 1])},
        {"actions": np.zeros(2, np.int32)},
        {"observations": {"a": np.ones((3, 2)), "b": np.ones(3)}},
        {"observations": {"a": np.zeros((3, 2)), "c": np.ones(3)}},
        {"observations": {"a": np.zeros((3, 2, 1)), "b": np.ones(3)}},
    ):
        assert Segment(**{**base, **other}).id != name


def test_transitions_of_segments_are_joined_in_order() -> None:
    history = History()
    history.add(World([[30]]).rollout(10))
    episode = history.open[0]
    before, actions, after = stack_transitions([episode.segment(2, 3), episode.segment(6, 3)])
    np.testing.assert_array_equal(np.asarray(before)[:, 1], [2, 3, 4, 6, 7, 8])
    np.testing.assert_array_equal(actions[:, 1], [2, 3, 4, 6, 7, 8])
    np.testing.assert_array_equal(np.asarray(after)[:, 1], [3, 4, 5, 7, 8, 9])


OBSERVE: dict[str, Observe] = {
    "Box": plain,
    "Discrete": lambda episode, step: np.int64((episode + step) % 7),
    "MultiDiscrete": lambda episode, step: np.array([episode % 5, step], np.int64),
    "Dict": lambda episode, step: {
        "where": plain(episode, step),
        "mode": np.int64(step % 3),
        "camera@0": np.full((4, 3, 3), step % 200, np.uint8),
    },
}


@pytest.mark.parametrize("kind", OBSERVE)
def test_observations_of_any_supported_space_come_back_as_they_were(kind: str) -> None:
    world, history = World([[6, 4, 30], [30]], OBSERVE[kind]), History()
    for num_steps in (3, 1, 8):
        history.add(world.rollout(num_steps))
    for segment in history.sample(30, 3, np.random.default_rng(0)):
        assert_is_what_happened(segment, OBSERVE[kind], lambda _: 30)
        assert_equal(segment_from_file(segment).observations, segment.observations)


def segment_from_file(segment: Segment) -> Segment:
    """Write a segment as `.npz` and read it back."""
    with np.load(io.BytesIO(npz_bytes(segment_arrays(segment))), allow_pickle=False) as arrays:
        back = segment_from_arrays(dict(arrays), segment.true_rewards, episode=segment.episode, start=segment.start)
    assert back.id == segment.id
    return back


# Stacks of images


def picture(episode: int, step: int, colour: bool = False) -> Array:
    return np.random.default_rng([episode, step]).integers(0, 256, (6, 5, 3) if colour else (6, 5), dtype=np.uint8)


def stack_of(depth: int, axis: int, colour: bool = False, same_first: int = 0) -> Observe:
    """Stacks of the last `depth` pictures; before an episode's first picture stands the first."""

    def observe(episode: int, step: int) -> Array:
        def one(at: int) -> Array:
            return np.zeros((6, 5), np.uint8) if at < same_first else picture(episode, at, colour)

        return np.stack([one(max(step - depth + 1 + i, 0)) for i in range(depth)], axis=axis)

    return observe


@pytest.mark.parametrize(("axis", "colour"), [(0, False), (-1, False), (0, True), (-1, True)])
def test_images_of_stacks_are_kept_once_and_come_back_bit_for_bit(axis: int, colour: bool) -> None:
    observe = stack_of(4, axis, colour)
    world, history = World([[25, 100]], observe), History()
    for num_steps in (1, 9, 20):
        history.add(world.rollout(num_steps))
    one_image = picture(0, 0, colour).nbytes
    episode = history.closed[0]
    assert sum(track.nbytes for track in episode.observations.values()) == (26 + 3) * one_image
    segment = episode.segment(0, 25)
    assert_is_what_happened(segment, observe, lambda _: 25)
    stored = segment_arrays(segment)
    assert sum(a.nbytes for name, a in stored.items() if name != "actions") == (26 + 3) * one_image
    assert_equal(segment_from_file(segment).observations, segment.observations)


def test_a_segment_of_25_steps_of_stacks_of_four_holds_28_images_before_its_last_step() -> None:
    history = History()
    history.add(World([[100]], stack_of(4, 0)).rollout(60))
    segment = history.open[0].segment(20, 25)
    (stored,) = [a for name, a in segment_arrays(segment).items() if name != "actions"]
    assert len(stored) == 28 + 1  # the last is what the last step led to


def test_a_stack_that_breaks_is_kept_whole_from_then_on() -> None:
    def observe(episode: int, step: int) -> Array:
        values = stack_of(4, 0)(episode, step)
        return values[::-1] if step == 11 else values

    world, history = World([[30]], observe), History()
    for num_steps in (5, 4, 8, 3):
        history.add(world.rollout(num_steps))
    assert_is_what_happened(history.open[0].segment(0, 20), observe, lambda _: 30)
    assert history.open[0].observations[""].stack_axis is None


def test_stacks_are_found_although_the_first_images_are_all_alike() -> None:
    observe = stack_of(4, -1, same_first=3)  # a blank start looks stacked along any axis
    world, history = World([[40, 40]], observe), History()
    for num_steps in (1, 5, 34):
        history.add(world.rollout(num_steps))
    track = history.closed[0].observations[""]
    assert track.nbytes == (41 + 3) * 30
    assert_equal(track.window(0, 41), join([observe(0, step) for step in range(41)]))


@settings(max_examples=80)
@given(
    seed=st.integers(0, 2**16),
    axis=st.sampled_from([0, 2]),
    depth=st.integers(1, 4),
    parts=st.lists(st.integers(0, 5), min_size=1, max_size=6),
    broken=st.sets(st.integers(0, 20), max_size=2),
    values=st.sampled_from([1, 2, 256]),
)
def test_a_track_returns_exactly_what_it_was_given(
    seed: int, axis: int, depth: int, parts: list[int], broken: set[int], values: int
) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, values, (sum(parts) + depth, 3, 3), dtype=np.uint8)
    given_values = np.stack(
        [
            rng.integers(0, 256, np.stack(list(images[i : i + depth]), axis).shape, dtype=np.uint8)
            if i in broken
            else np.stack(list(images[i : i + depth]), axis)
            for i in range(sum(parts))
        ]
        or [np.zeros((depth, 3, 3) if axis == 0 else (3, 3, depth), np.uint8)]
    )[: sum(parts)]
    track, begin = FrameTrack(), 0
    for part in parts:
        track.append(given_values[begin : begin + part])
        begin += part
    assert track.length == begin
    if begin:
        np.testing.assert_array_equal(track.window(0, begin), given_values)
        again = FrameTrack.restore(track.stored(), track.length, track.stack_axis)
        middle = begin // 2
        np.testing.assert_array_equal(again.window(middle, begin), given_values[middle:])


# The cap

BYTES_OF_TEN_STEPS = 10 * (8 + 16 + 8) + 8
"""Observations, actions, true rewards; and the last observation."""


def test_the_oldest_episodes_are_dropped_when_the_cap_is_reached() -> None:
    world, history = World([[10] * 30]), History(max_bytes=3 * BYTES_OF_TEN_STEPS)
    for _ in range(6):
        history.add(world.rollout(10))
        assert sum(e.nbytes for e in history.episodes) <= history.max_bytes
    assert [e.number for e in history.closed] == [3, 4, 5]
    assert history.num_steps == 30
    assert history.num_env_steps == 60
    assert history.num_episodes == 6


def test_what_is_dropped_is_the_oldest_of_all_environments() -> None:
    world, history = World([[10] * 30, [10] * 30]), History(max_bytes=2 * BYTES_OF_TEN_STEPS)
    history.add(world.rollout(30))  # three episodes of each environment at once
    assert sorted((e.env_index, e.first_step) for e in history.closed) == [(0, 20), (1, 20)]


def test_running_episodes_count_towards_the_cap() -> None:
    world, history = World([[10, 100]]), History(max_bytes=2 * BYTES_OF_TEN_STEPS)
    history.add(world.rollout(10 + 9))
    assert [e.number for e in history.closed] == [0]
    history.add(world.rollout(5))  # now the running episode is longer than the one that ended
    assert history.closed == []


def test_running_episodes_are_kept_whatever_their_size() -> None:
    history = History(max_bytes=1)
    history.add(World([[1000]]).rollout(50))
    assert history.num_steps == 50
    assert history.closed == []


def test_a_cap_that_holds_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="max_bytes must be positive"):
        History(max_bytes=0)


def test_episodes_that_ended_are_handed_out_in_the_order_they_ended() -> None:
    history = History()
    done = history.add(World([[5, 4, 30], [2, 30], [5, 30]]).rollout(10))
    assert [(e.env_index, e.first_step + e.num_steps) for e in done] == [(1, 2), (0, 5), (2, 5), (0, 9)]


# Cutting and restoring


def test_cut_closes_running_episodes_as_truncated() -> None:
    world, history = World([[4, 30], [30]]), History()
    history.add(world.rollout(6))
    history.cut()
    assert history.open == {}
    assert [(e.num_steps, e.terminated, e.truncated) for e in history.closed] == [
        (4, True, False),
        (2, False, True),
        (6, False, True),
    ]
    fresh = World([[30], [30]])  # after a reset
    history.add(fresh.rollout(3))
    assert [(e.first_step, e.num_steps) for e in history.open.values()] == [(6, 3), (6, 3)]


@settings(max_examples=40)
@given(
    lengths=st.lists(episode_lengths, min_size=1, max_size=2),
    before=st.lists(st.integers(1, 6), max_size=3),
    after=st.lists(st.integers(1, 6), min_size=1, max_size=2),
    kind=st.sampled_from(["Box", "Dict", "stack"]),
)
def test_a_restored_history_goes_on_as_if_nothing_had_happened(
    lengths: list[list[int]], before: list[int], after: list[int], kind: str
) -> None:
    observe = stack_of(3, 0) if kind == "stack" else OBSERVE[kind]
    world, history = World(lengths, observe), History(max_bytes=6000)
    for num_steps in before:
        history.add(world.rollout(num_steps))
    restored = History.restore(*history.state())
    for num_steps in after:
        rollout = world.rollout(num_steps)
        done, done_again = history.add(rollout), restored.add(rollout)
        assert [e.number for e in done] == [e.number for e in done_again]
    for name in ("num_env_steps", "num_episodes", "num_steps", "max_bytes", "_closed_bytes"):
        assert getattr(restored, name) == getattr(history, name)
    assert restored.num_windows(2) == history.num_windows(2)
    if history.num_windows(2):
        ours, theirs = (h.sample(20, 2, np.random.default_rng(3)) for h in (history, restored))
        assert [vars_of(s) for s in ours] == [vars_of(s) for s in theirs]
    arrays, meta = history.state()
    arrays_again, meta_again = restored.state()
    assert meta == meta_again
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, arrays_again[name])


def vars_of(segment: Segment) -> tuple[Any, ...]:
    return (segment.id, segment.true_rewards.tobytes(), segment.terminated, segment.truncated, segment.episode)


def test_actions_of_any_supported_space_come_back_as_they_were() -> None:
    for space in (spaces.Box(-1, 1, (2,)), spaces.Discrete(4), spaces.MultiDiscrete([2, 5])):
        space.seed(0)
        actions = np.stack([space.sample() for _ in range(12)]).reshape(6, 2, *space.shape)
        history = History()
        history.add(Rollout(**{**vars(World([[30], [30]]).rollout(6)), "actions": actions}))
        for env in (0, 1):
            found = history.open[env].segment(1, 4).actions
            assert found.dtype == actions.dtype
            np.testing.assert_array_equal(found, actions[1:5, env])


def test_objects_are_not_pickled_into_a_file() -> None:
    with pytest.raises(ValueError, match="'actions' holds Python objects"):
        npz_bytes({"actions": np.array([None, {}])})


@pytest.mark.parametrize("dictionary", [False, True])
def test_single_steps_are_rows_of_all_joined(dictionary: bool) -> None:
    rng = np.random.default_rng(0)
    made = []
    for _ in range(5):
        seen = rng.normal(size=(4, 2))
        observations = {"a": seen, "b": np.arange(4)} if dictionary else seen
        made.append(Segment(observations=observations, actions=rng.integers(9, size=3), true_rewards=np.zeros(3)))
    steps = np.array([14, 0, 7, 7, 2])
    for whole, found in zip(stack_transitions(made), transitions_at(made, steps), strict=True):
        for name, values in to_arrays("", whole).items():
            np.testing.assert_array_equal(to_arrays("", found)[name], values[steps])


def test_parts_hold_all_in_order_and_at_most_so_many_bytes_or_one_segment() -> None:
    sizes = [1, 1, 3, 1, 1, 1]
    made = [
        Segment(observations=np.zeros((2, 5 * size)), actions=np.zeros(1), true_rewards=np.zeros(1)) for size in sizes
    ]  # 80 bytes each, or 240
    parts = list(in_parts(made, 160))
    assert [len(part) for part in parts] == [2, 1, 2, 1]
    assert [id(segment) for part in parts for segment in part] == [id(segment) for segment in made]
    assert list(in_parts([], 160)) == []


def test_segments_of_one_length_come_back_from_a_file() -> None:
    history = History()
    history.add(
        World([[7, 30], [30]], lambda episode, step: {"a": plain(episode, step), "b": np.float32(step)}).rollout(20)
    )
    segments = [*history.sample(5, 3, np.random.default_rng(0)), history.closed[0].segment(4, 3)]
    again = segments_from_arrays(npz_arrays(npz_bytes(segments_to_arrays(segments))))
    assert [vars_of(one) for one in again] == [vars_of(one) for one in segments]
    assert [one.start for one in again] == [one.start for one in segments]
    with pytest.raises(KeyError):
        segments_from_arrays({"actions": np.zeros((1, 3))})

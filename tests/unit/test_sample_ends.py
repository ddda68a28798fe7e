"""Drawing clips that show an end."""

from __future__ import annotations

from collections import Counter

import numpy as np

from prefrl.history import History
from prefrl.queries import propose_pairs
from prefrl.segments import Rollout


def history(length: int = 60, hidden: tuple[int, ...] = (20, 24), terminates: bool = True) -> History:
    """One environment whose steps are numbered; ends hidden at some steps, and one real end at the last."""
    steps = np.arange(length)
    ends = np.zeros((length, 1), np.bool_)
    ends[list(hidden)] = True
    last = np.zeros((length, 1), np.bool_)
    last[-1] = terminates
    rollout = Rollout(
        observations=np.arange(length + 1, dtype=np.float64)[:, None, None],
        actions=np.zeros((length, 1), np.int64),
        true_rewards=steps[:, None].astype(np.float64),
        terminated=last,
        truncated=np.zeros_like(last),
        last_observations=np.full((int(terminates), 1), float(length)),
        hidden_ends=ends,
    )
    kept = History()
    kept.add(rollout)
    return kept


def test_every_window_that_shows_an_end_is_equally_likely_and_no_other_is_drawn() -> None:
    drawn = history().sample_ends(20_000, 10, np.random.default_rng(0))
    counts = Counter(segment.start for segment in drawn)
    assert set(counts) == {*range(11, 25), 50}  # 20 or 24 in [s, s + 10), and the window that ends at step 59
    assert max(counts.values()) < 1.25 * min(counts.values())


def test_history_without_an_end_gives_none() -> None:
    assert history(hidden=(), terminates=False).sample_ends(5, 10, np.random.default_rng(0)) == []


def test_ends_survive_saving() -> None:
    kept = history()
    again = History.restore(*kept.state())
    assert [e.ends for e in again.episodes] == [e.ends for e in kept.episodes] == [[20, 24, 59]]


def test_ends_are_counted_from_the_beginning_of_their_episode() -> None:
    kept = history(terminates=False)
    kept.add(
        Rollout(
            observations=np.arange(60, 71, dtype=np.float64)[:, None, None],
            actions=np.zeros((10, 1), np.int64),
            true_rewards=np.zeros((10, 1)),
            terminated=np.zeros((10, 1), np.bool_),
            truncated=np.zeros((10, 1), np.bool_),
            last_observations=np.zeros((0, 1)),
            hidden_ends=(np.arange(10) == 3)[:, None],
        )
    )
    assert kept.episodes[0].ends == [20, 24, 63]


def share_that_shows_an_end(hidden: tuple[int, ...]) -> float:
    pairs = propose_pairs(
        history(length=2000, hidden=hidden, terminates=False),
        None,
        300,
        length=10,
        method="uniform",
        rng=np.random.default_rng(0),
        end_share=0.5,
    )
    return float(np.mean([any(s.start <= end < s.start + 10 for end in hidden) for pair in pairs for s in pair]))


def test_a_share_of_proposed_clips_shows_an_end() -> None:
    assert 0.4 < share_that_shows_an_end(tuple(range(100, 1900, 150))) < 0.65


def test_few_ends_are_not_shown_again_and_again() -> None:
    assert 0.06 < share_that_shows_an_end((500, 1500)) < 0.15

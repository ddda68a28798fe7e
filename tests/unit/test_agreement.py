"""How far a reward agrees with answers it did not learn from, and how much it still changes."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from prefrl.control.steadiness import Steadiness, same_order
from prefrl.rewards import RewardEnsemble, RewardSettings
from prefrl.rewards.fit import _agreed
from prefrl.segments import Segment
from prefrl.shares import Share, share_of, wilson

SPACE = gymnasium.spaces.Box(-1, 1, (2,))


def segments(num: int) -> list[Segment]:
    rng = np.random.default_rng(0)
    return [
        Segment(
            observations=rng.normal(size=(4, 2)).astype(np.float32),
            actions=rng.normal(size=(3, 2)).astype(np.float32),
            true_rewards=np.zeros(3),
        )
        for _ in range(num)
    ]


def test_the_interval_is_wilsons_as_scipy_has_it() -> None:
    for hits, num in [(0, 5), (3, 3), (17, 40), (99, 100)]:
        share = share_of([True] * hits + [False] * (num - hits))
        wanted = binomtest(hits, num).proportion_ci(method="wilson")
        assert share is not None
        np.testing.assert_allclose([share.low, share.high], [wanted.low, wanted.high], atol=1e-9)
        assert Share(**share.to_json()) == share
    assert wilson(0, 0) is None


def test_an_answer_is_judged_by_the_majority_of_the_members_that_did_not_learn_from_it() -> None:
    right = torch.tensor([[1.0, 0, 1, 1, 0.5], [1, 1, 0, 0, 0.5], [0, 1, 0, 1, 1.0]])
    held_out = torch.tensor([[1.0, 0, 1, 0, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
    decided = torch.tensor([1.0, 1, 1, 1, 1])
    agreed, num = _agreed(right, held_out, decided)
    # two of three say so; the only one says so; one of two: half; nobody to judge; half of a ranking is in order
    assert (agreed, num) == (pytest.approx(1 + 1 + 0.5 + 0.5), 4)
    assert _agreed(right, held_out, torch.tensor([0.0, 1, 1, 1, 1])) == (pytest.approx(2.0), 3), "a tie is no judgement"
    assert _agreed(right, torch.zeros(3, 5), decided) == (0.0, 0)


def test_the_share_of_pairs_in_the_same_order() -> None:
    values = np.array([1.0, 2.0, 3.0])
    assert same_order(values, values) == 1.0
    assert same_order(values, -values) == 0.0
    assert same_order(values, np.array([1.0, 3.0, 2.0])) == pytest.approx(2 / 3)
    assert same_order(values, np.ones(3)) == 0.5


def test_a_reward_is_held_against_what_it_was_with_two_thirds_of_the_answers() -> None:
    reward = RewardEnsemble(SPACE, SPACE, RewardSettings(num_members=2), seed=0)
    steadiness, shown = Steadiness(), segments(30)
    assert steadiness.look(reward, 19, lambda: shown) is None
    assert steadiness.look(reward, 20, lambda: shown) is None, "there is nothing to compare with"
    assert steadiness.look(reward, 29, lambda: shown) is None, "too little is new"
    assert steadiness.look(reward, 30, lambda: shown) == {"same_order": 1.0, "from": 20, "to": 30}
    other = RewardEnsemble(SPACE, SPACE, RewardSettings(num_members=2), seed=1)
    found = steadiness.look(other, 45, lambda: shown)
    assert found is not None and found["same_order"] < 0.95 and (found["from"], found["to"]) == (30, 45)
    again = Steadiness()
    again.restore(steadiness.state())
    assert again.look(other, 68, lambda: shown) == {"same_order": 1.0, "from": 45, "to": 68}

"""The Preference Transformer: what a step is worth may depend on those before it, and on nothing after it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from prefrl.errors import UserError
from prefrl.rewards import ComparisonData, FitSettings, Fitter, RewardEnsemble, RewardSettings
from prefrl.rewards.networks import Features
from prefrl.rewards.transformer import EnsembleTransformer, windows
from prefrl.segments import Segment, stack_transitions

SPACES = spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (1,))


def network(seed: int = 0) -> EnsembleTransformer:
    return EnsembleTransformer(2, 3, 16, torch.Generator().manual_seed(seed))


def test_rewards_depend_on_the_steps_before_and_on_none_after() -> None:
    made, vector = network(), torch.randn(10, 3, generator=torch.Generator().manual_seed(1))
    before = made.in_context(Features(None, vector, 5))
    vector[3] += 1.0  # of the first of two segments
    after = made.in_context(Features(None, vector, 5))
    changed = (before - after).abs() > 1e-6
    assert changed.tolist() == [[False, False, False, True, True, *[False] * 5]] * 2


def test_a_step_alone_is_read_as_the_first_of_a_segment() -> None:
    made, vector = network(), torch.randn(6, 3, generator=torch.Generator().manual_seed(2))
    alone = made(Features(None, vector))
    first = made.in_context(Features(None, vector, 3))
    assert torch.allclose(alone[:, ::3], first[:, ::3], atol=1e-6)


def test_weights_of_a_segment_sum_to_its_length() -> None:
    """With a reward of 1 for every step the logit is k, as that of the other networks is."""
    made = network()
    with torch.no_grad():
        made.reward.zero_()
        made.reward_bias.fill_(1.0)
    terms = made(Features(None, torch.randn(12, 3), 4)).detach()
    assert torch.allclose(terms.view(2, 3, 4).sum(-1), torch.full((2, 3), 4.0), atol=1e-5)
    assert terms.std() > 0


def test_members_do_not_see_each_other() -> None:
    made, vector = network(), torch.randn(8, 3)
    before = made(Features(None, vector, 4)).detach()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter[0] += 0.1
    after = made(Features(None, vector, 4)).detach()
    assert not torch.allclose(before[0], after[0]) and torch.equal(before[1], after[1])


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(1, 12))
def test_windows_show_every_step_once_with_half_the_context_before_it(lengths: list[int], context: int) -> None:
    begins = np.concatenate([[0], np.cumsum(lengths)])
    shown: dict[int, int] = {}
    for (steps, new), starts in windows(np.array(lengths), context).items():
        assert steps <= context
        for start in starts:
            episode = int(np.searchsorted(begins, start, side="right")) - 1
            assert start + steps <= begins[episode + 1]
            for row in range(start + new, start + steps):
                assert row not in shown
                shown[row] = row - start
                assert shown[row] >= min(context // 2, row - begins[episode])
    assert sorted(shown) == list(range(sum(lengths)))


def made_segments(num: int, length: int, seed: int) -> list[Segment]:
    """Return segments whose worth is that of the second half alone where it began on the right: not Markovian."""
    rng, found = np.random.default_rng(seed), []
    for number in range(num):
        seen = rng.uniform(-1, 1, (length + 1, 2)).astype(np.float32)
        began_right = 1.0 if seen[0, 0] > 0 else -1.0
        found.append(
            Segment(
                observations=seen,
                actions=rng.uniform(-1, 1, (length, 1)).astype(np.float32),
                true_rewards=began_right * seen[:-1, 1].astype(np.float64),
                episode=number,
            )
        )
    return found


@pytest.mark.slow
def test_it_learns_what_depends_on_how_a_segment_began_and_a_perceptron_does_not() -> None:
    train, test = made_segments(1600, 6, 0), made_segments(400, 6, 1)
    right = {}
    for name in ("mlp", "transformer"):
        ensemble = RewardEnsemble(*SPACES, RewardSettings(network=name, hidden=(32, 32), num_members=2), seed=0)
        ensemble.set_input_statistics(*stack_transitions(train))
        data = ComparisonData(ensemble, 6)
        pairs = [(train[i], train[i + 1]) for i in range(0, 1600, 2)]
        answers = [float(a.true_rewards.sum() > b.true_rewards.sum()) for a, b in pairs]
        data.add(pairs, answers, np.random.default_rng(0))
        Fitter(ensemble, FitSettings(first_steps=1500, patience=0)).fit(data, torch.Generator().manual_seed(0))
        returns = ensemble.segment_returns(test).mean(0)
        true = np.array([segment.true_rewards.sum() for segment in test])
        right[name] = np.mean((returns[::2] > returns[1::2]) == (true[::2] > true[1::2]))
    assert right["mlp"] < 0.65
    assert right["transformer"] > 0.8


def test_a_saved_transformer_comes_back_and_reads_episodes_as_before(tmp_path: Path) -> None:
    ensemble = RewardEnsemble(*SPACES, RewardSettings(network="transformer", hidden=(8,)), seed=3)
    steps = stack_transitions(made_segments(4, 10, 0))
    ensemble.save(tmp_path / "reward.safetensors")
    again = RewardEnsemble.load(tmp_path / "reward.safetensors")
    lengths = np.array([10, 10, 10, 10])
    np.testing.assert_array_equal(ensemble.of_episodes(*steps, lengths, 4), again.of_episodes(*steps, lengths, 4))
    assert not np.allclose(ensemble.of_episodes(*steps, lengths, 4), ensemble(*steps))
    plain = RewardEnsemble(*SPACES, seed=3)
    np.testing.assert_array_equal(plain.of_episodes(*steps, lengths, 4), plain(*steps))


def test_a_width_that_heads_cannot_share_and_images_are_refused() -> None:
    with pytest.raises(UserError, match=r"a multiple of 4\. Received 10"):
        RewardEnsemble(*SPACES, RewardSettings(network="transformer", hidden=(10,)))
    with pytest.raises(UserError, match="'transformer' reads vectors"):
        RewardEnsemble(
            spaces.Box(0, 255, (48, 48, 3), np.uint8), spaces.Discrete(2), RewardSettings(network="transformer")
        )

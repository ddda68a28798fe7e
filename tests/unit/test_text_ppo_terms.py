"""The pieces of PPO for text, with the arithmetic written out."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prefrl.errors import UserError
from prefrl.text.learn import ppo_terms


def mask_of(*lengths: int, width: int = 4) -> torch.Tensor:
    return torch.arange(width) < torch.tensor(lengths)[:, None]


def test_the_score_lands_on_the_last_token_of_the_response_and_nowhere_else() -> None:
    mask = mask_of(1, 3, 4)
    log_ratios = torch.full((3, 4), 0.5)
    rewards = ppo_terms.token_rewards(torch.tensor([10.0, 20.0, 30.0]), log_ratios, mask, beta=0.1)
    expected = [[9.95, 0, 0, 0], [-0.05, -0.05, 19.95, 0], [-0.05, -0.05, -0.05, 29.95]]
    assert torch.allclose(rewards, torch.tensor(expected))


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.floats(0, 1), st.integers(0, 99))
def test_token_rewards_add_up_to_the_objective(lengths: list[int], beta: float, seed: int) -> None:
    torch.manual_seed(seed)
    mask = mask_of(*lengths, width=6)
    scores, log_ratios = torch.randn(len(lengths)).double(), torch.randn(len(lengths), 6).double()
    rewards = ppo_terms.token_rewards(scores, log_ratios, mask, beta)
    assert torch.allclose(rewards.sum(1), scores - beta * (log_ratios * mask).sum(1))


def test_a_response_without_tokens_is_refused() -> None:
    with pytest.raises(UserError, match="without any token"):
        ppo_terms.token_rewards(torch.ones(2), torch.zeros(2, 4), mask_of(0, 2), 0.1)


def test_advantages_by_hand() -> None:
    rewards = torch.tensor([[1.0, 2.0, 0.0]])
    values = torch.tensor([[0.5, 1.0, 99.0]])  # the last lies behind the end
    mask = mask_of(2, width=3)
    advantage, returns = ppo_terms.advantages(rewards, values, mask, gae_lambda=0.95)
    last = 2.0 - 1.0
    first = (1.0 + 1.0 - 0.5) + 0.95 * last
    assert torch.allclose(advantage, torch.tensor([[first, last, 0.0]]))
    assert torch.allclose(returns, torch.tensor([[first + 0.5, last + 1.0, 0.0]]))


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(0, 99))
def test_with_lambda_one_the_returns_are_sums_to_the_end(lengths: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    mask = mask_of(*lengths, width=6)
    rewards = torch.randn(len(lengths), 6).double() * mask
    _, returns = ppo_terms.advantages(rewards, torch.randn(len(lengths), 6).double(), mask, gae_lambda=1.0)
    sums = rewards.flip(1).cumsum(1).flip(1) * mask
    assert torch.allclose(returns, sums)


def test_whitening_uses_the_biased_variance_of_the_tokens_alone() -> None:
    values = torch.tensor([[1.0, 3.0, 77.0], [5.0, 77.0, 77.0]])
    mask = mask_of(2, 1, width=3)
    std = math.sqrt(((1 - 3) ** 2 + 0 + (5 - 3) ** 2) / 3)
    expected = torch.tensor([[-2 / std, 0.0, 0.0], [2 / std, 0.0, 0.0]])
    assert torch.allclose(ppo_terms.whiten(values, mask), expected, atol=1e-6)
    kept = ppo_terms.whiten(values, mask, shift_mean=False)
    assert torch.allclose(kept, (expected + 3.0) * mask, atol=1e-6)


def test_policy_loss_is_the_pessimistic_one() -> None:
    mask = mask_of(2, width=2)
    old = torch.zeros(1, 2)
    new = torch.log(torch.tensor([[1.5, 0.5]]))
    loss = ppo_terms.policy_loss(new, old, torch.tensor([[1.0, -1.0]]), mask, clip=0.2)
    assert loss.item() == pytest.approx(-(1.2 + -0.8) / 2)


def test_clipped_policy_loss_has_no_gradient_where_it_was_clipped() -> None:
    new = torch.log(torch.tensor([[1.5, 1.1]])).requires_grad_()
    ppo_terms.policy_loss(new, torch.zeros(1, 2), torch.ones(1, 2), mask_of(2, width=2), clip=0.2).backward()
    assert new.grad is not None
    assert new.grad[0, 0] == 0
    assert new.grad[0, 1] == pytest.approx(-1.1 / 2)


def test_value_loss_is_half_the_greater_squared_error() -> None:
    loss = ppo_terms.value_loss(
        torch.tensor([[1.0]]), torch.tensor([[0.0]]), torch.tensor([[2.0]]), mask_of(1, width=1), clip=0.2
    )
    assert loss.item() == pytest.approx(0.5 * (0.2 - 2.0) ** 2)


@given(st.integers(0, 99))
def test_full_kl_is_that_of_torch(seed: int) -> None:
    torch.manual_seed(seed)
    p, q = (torch.log_softmax(torch.randn(3, 7).double(), -1) for _ in range(2))
    theirs = torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(-1)
    assert torch.allclose(ppo_terms.full_kl(p, q), theirs)
    assert (ppo_terms.full_kl(p, q) >= 0).all()


def test_the_adaptive_controller_is_zieglers() -> None:
    controller = ppo_terms.AdaptiveKL(beta=0.1, target_nats=6.0, horizon=10_000)
    controller.update(12.0, 100)  # error clipped to 0.2
    assert controller.beta == pytest.approx(0.1 * (1 + 0.2 * 100 / 10_000))
    controller.beta = 0.1
    controller.update(5.4, 100)
    assert controller.beta == pytest.approx(0.1 * (1 - 0.1 * 100 / 10_000))
    fixed = ppo_terms.FixedKL(beta=0.1)
    fixed.update(99.0, 100)
    assert fixed.beta == 0.1


def test_gradients_agree_with_finite_differences() -> None:
    torch.manual_seed(0)
    mask = mask_of(3, 2)
    old, advantage, returns = (torch.randn(2, 4).double() for _ in range(3))
    new = (old + 0.3 * torch.randn(2, 4)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ppo_terms.policy_loss(x, old, advantage, mask, 0.2), new)
    assert torch.autograd.gradcheck(lambda x: ppo_terms.value_loss(x, old, returns, mask, 0.2), new)

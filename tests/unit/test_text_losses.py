"""Losses over responses: against trl's own, against enumeration, and by finite differences."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prefrl.envs.enumerable_text import (
    EnumerableWorld,
    kl_divergence,
    regularised_optimum,
    regularised_value,
)
from prefrl.errors import UserError
from prefrl.text.learn import losses

TOLERANCE = 1e-5


class Spoken:
    """Stands in for a model where trl asks one for log-probabilities."""

    training = True

    def __init__(self, log_probs: torch.Tensor, mismatched: torch.Tensor | None = None) -> None:
        self.log_probs, self.mismatched = log_probs, mismatched

    def __call__(self, **inputs: Any) -> SimpleNamespace:
        zeros = torch.zeros_like(self.log_probs)
        return SimpleNamespace(
            log_probs=self.log_probs, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool(), logits=self.log_probs
        )


def trl_self(**fields: Any) -> SimpleNamespace:
    """Return what trl's loss methods read of their trainer."""
    accelerator = SimpleNamespace(device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x)
    defaults: dict[str, Any] = {
        "model": SimpleNamespace(training=True),
        "accelerator": accelerator, "aux_loss_enabled": False, "ld_alpha": None, "precompute_ref_logps": True,
        "f_divergence_type": "reverse_kl", "loss_weights": [1.0], "label_smoothing": 0.0, "use_weighting": False,
        "_metrics": {"train": defaultdict(list), "eval": defaultdict(list)}, "_total_train_tokens": 0, "_tp_size": 1,
        "args": SimpleNamespace(center_rewards_coefficient=None),
    }  # fmt: skip
    return SimpleNamespace(**(defaults | fields))


def random_pairs(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return per-token log-probabilities `(2 B, S)`, their mask, and reference sums `(2 B,)`: B chosen, then B
    rejected."""
    torch.manual_seed(seed)
    lengths = torch.randint(1, 7, (10,))
    mask = torch.arange(7) < lengths[:, None]
    return -torch.rand(10, 7) * 3 * mask, mask, -torch.rand(10) * 10


def trl_pair_loss(seed: int, loss_type: str, beta: float) -> torch.Tensor:
    from trl import DPOTrainer

    log_probs, mask, reference = random_pairs(seed)
    completion = torch.cat([torch.zeros(10, 1), mask.float()], 1)  # trl's mask has the first, unpredicted token too
    inputs = {
        "input_ids": torch.ones(10, 8, dtype=torch.long), "attention_mask": torch.ones(10, 8),
        "completion_mask": completion, "ref_chosen_logps": reference[:5], "ref_rejected_logps": reference[5:],
    }  # fmt: skip
    trainer = trl_self(loss_types=[loss_type], beta=beta)
    return DPOTrainer._compute_loss(trainer, Spoken(log_probs), inputs, False)


@pytest.mark.parametrize("seed", range(3))
def test_dpo_is_trls(seed: int) -> None:
    log_probs, _, reference = random_pairs(seed)
    rho = log_probs.sum(1) - reference
    ours = losses.dpo_loss(rho[:5], rho[5:], 0.3).mean()
    assert ours.item() == pytest.approx(trl_pair_loss(seed, "sigmoid", 0.3).item(), abs=TOLERANCE)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("loss_type", ["simpo", "sigmoid"])
@pytest.mark.parametrize("seed", range(3))
def test_simpo_and_conservative_dpo_and_their_gradients_are_trls(
    seed: int, loss_type: str, label_smoothing: float
) -> None:
    """Its DPO has no label smoothing any more; its CPO does the same with what it is given, here rho."""
    from trl.experimental.cpo import CPOTrainer

    log_probs, mask, reference = random_pairs(seed)
    log_probs.requires_grad_()
    simpo = loss_type == "simpo"
    compared = log_probs.sum(1) / mask.sum(1) if simpo else log_probs.sum(1) - reference
    trainer = trl_self(alpha=0.0, loss_type=loss_type, beta=2.0, simpo_gamma=1.4, label_smoothing=label_smoothing)
    theirs = CPOTrainer.cpo_loss(trainer, compared[:5], compared[5:])[0]
    pair = compared[:5], compared[5:]
    ours = (
        losses.simpo_loss(*pair, 2.0, 1.4, label_smoothing=label_smoothing)
        if simpo
        else losses.dpo_loss(*pair, 2.0, label_smoothing=label_smoothing)
    )
    assert torch.allclose(ours, theirs, atol=TOLERANCE)
    gradients = [torch.autograd.grad(loss.mean(), log_probs, retain_graph=True)[0] for loss in (ours, theirs)]
    assert torch.allclose(*gradients, atol=TOLERANCE)


def test_simpo_by_hand() -> None:
    chosen, rejected = torch.tensor([-0.5]), torch.tensor([-1.0])  # nats per token
    assert losses.simpo_loss(chosen, rejected, 2.0, 1.0).item() == pytest.approx(math.log(2)), "2 x 0.5 - 1 = 0"
    for wrong in ({"gamma": -0.1}, {"beta": 0.0}, {"label_smoothing": 0.5}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            losses.simpo_loss(chosen, rejected, **({"beta": 2.0, "gamma": 1.0} | wrong))


@pytest.mark.parametrize("seed", range(3))
def test_ipo_with_means_is_trls(seed: int) -> None:
    log_probs, mask, reference = random_pairs(seed)
    mean_rho = (log_probs.sum(1) - reference) / mask.sum(1)
    ours = losses.ipo_loss(mean_rho[:5], mean_rho[5:], 0.3).mean()
    assert ours.item() == pytest.approx(trl_pair_loss(seed, "ipo", 0.3).item(), abs=TOLERANCE)


@pytest.mark.parametrize("seed", range(3))
def test_kto_is_trls(seed: int) -> None:
    from trl import KTOTrainer

    log_probs, mask, reference = random_pairs(seed)
    torch.manual_seed(seed + 100)
    liked = torch.rand(10) < 0.5
    mismatched, mismatched_reference = torch.randn(10) - 2, torch.randn(10) - 2.3
    batch = {
        "label": liked, "input_ids": torch.ones(10, 8, dtype=torch.long), "attention_mask": torch.ones(10, 8),
        "completion_mask": torch.cat([torch.zeros(10, 1), mask.float()], 1), "ref_logps": reference,
        "ref_KL_logps": mismatched_reference,
    }  # fmt: skip
    trainer = trl_self(
        calculate_KL=True, loss_type="kto", beta=0.3, desirable_weight=1.0, undesirable_weight=1.2,
        _compute_kl_logps=lambda model, batch: mismatched,
    )  # fmt: skip
    theirs = KTOTrainer._compute_loss(trainer, Spoken(log_probs), batch, False)
    z0 = losses.kto_reference_point(mismatched - mismatched_reference)
    rho = log_probs.sum(1) - reference
    ours = losses.kto_loss(rho, liked, z0, 0.3, desirable_weight=1.0, undesirable_weight=1.2)
    assert ours.mean().item() == pytest.approx(torch.as_tensor(theirs).mean().item(), abs=TOLERANCE)


@pytest.mark.parametrize("seed", range(3))
def test_the_reward_loss_of_pairs_is_trls(seed: int) -> None:
    from trl import RewardTrainer

    torch.manual_seed(seed)
    scores = torch.randn(5, 2)
    flat = scores.T.reshape(-1, 1)  # chosen, then rejected
    theirs = RewardTrainer.compute_loss(trl_self(), Spoken(flat), {"attention_mask": torch.ones(10, 8)})
    assert losses.pairwise_reward_loss(scores).mean().item() == pytest.approx(theirs.item(), abs=TOLERANCE)


@given(st.integers(2, 9), st.integers(0, 99))
def test_the_reward_loss_averages_over_all_pairs(k: int, seed: int) -> None:
    torch.manual_seed(seed)
    scores = torch.randn(k).double()
    pairs = [-torch.nn.functional.logsigmoid(scores[i] - scores[j]) for i, j in itertools.combinations(range(k), 2)]
    assert torch.allclose(losses.pairwise_reward_loss(scores), torch.stack(pairs).sum() / math.comb(k, 2))


@pytest.mark.slow
@given(st.lists(st.integers(2, 5), min_size=1, max_size=4), st.integers(0, 99))
def test_grouped_rankings_give_what_each_gives_alone(sizes: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    orders = [torch.randperm(k) for k in sizes]
    scores = [torch.randn(k).double() for k in sizes]
    groups = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    for plackett_luce in (False, True):
        ours = losses.grouped_reward_loss(torch.cat(scores), torch.cat(orders), groups, plackett_luce=plackett_luce)
        for loss, own, order in zip(ours, scores, orders, strict=True):
            in_order = own[torch.argsort(order)]
            alone = losses.dpo_ranking_loss(in_order, 1.0) if plackett_luce else losses.pairwise_reward_loss(in_order)
            assert torch.allclose(loss, alone)


def test_ties_count_half_of_each_answer_and_plackett_luce_refuses_them() -> None:
    scores, ranks, groups = torch.tensor([1.0, 0.0]), torch.tensor([0, 0]), torch.tensor([3, 3])
    tie = losses.grouped_reward_loss(scores, ranks, groups)
    expected = -(torch.nn.functional.logsigmoid(scores.diff()) + torch.nn.functional.logsigmoid(-scores.diff())) / 2
    assert torch.allclose(tie, expected)
    with pytest.raises(UserError, match="no ties"):
        losses.grouped_reward_loss(scores, ranks, groups, plackett_luce=True)


@given(st.integers(0, 99))
def test_ranking_dpo_with_two_is_dpo(seed: int) -> None:
    torch.manual_seed(seed)
    rho = torch.randn(6, 2).double()
    assert torch.allclose(losses.dpo_ranking_loss(rho, 0.3), losses.dpo_loss(rho[:, 0], rho[:, 1], 0.3))


def test_ranking_dpo_is_the_enumerated_probability_of_the_order() -> None:
    torch.manual_seed(0)
    rho = torch.randn(4).double()
    total = sum(math.exp(-losses.dpo_ranking_loss(rho[list(order)], 0.7)) for order in itertools.permutations(range(4)))
    assert total == pytest.approx(1.0)
    strength = torch.exp(0.7 * rho)
    by_hand = math.prod((strength[i] / strength[i:].sum()).item() for i in range(4))
    assert math.exp(-losses.dpo_ranking_loss(rho, 0.7)) == pytest.approx(by_hand)


@pytest.mark.slow
def test_every_loss_has_the_gradient_of_finite_differences() -> None:
    torch.manual_seed(0)
    chosen, rejected = (torch.randn(4).double().requires_grad_() for _ in range(2))
    ranked = torch.randn(3, 4).double().requires_grad_()
    liked, z0 = torch.tensor([True, False, True, False]), torch.tensor(0.4).double()
    check = torch.autograd.gradcheck
    assert check(lambda a, b: losses.dpo_loss(a, b, 0.3, label_smoothing=0.1), (chosen, rejected))
    assert check(lambda a, b: losses.simpo_loss(a, b, 2.0, 0.7, label_smoothing=0.1), (chosen, rejected))
    assert check(lambda a, b: losses.ipo_loss(a, b, 0.3), (chosen, rejected))
    assert check(lambda a: losses.dpo_ranking_loss(a, 0.3), (ranked,))
    assert check(lambda a: losses.kto_loss(a, liked, z0, 0.3, undesirable_weight=1.3), (chosen,))
    assert check(losses.pairwise_reward_loss, (ranked,))


@pytest.mark.parametrize("call", [lambda r: losses.dpo_loss(r, r, 0.0), lambda r: losses.ipo_loss(r, r, -1.0)])
def test_a_beta_of_nought_is_refused(call: Any) -> None:
    with pytest.raises(UserError, match="above 0"):
        call(torch.zeros(2))


def test_kto_weights_balance_the_two_kinds() -> None:
    assert losses.kto_weights(30, 10) == (1.0, 3.0)
    assert losses.kto_weights(10, 30) == (3.0, 1.0)
    with pytest.raises(UserError, match="needs both"):
        losses.kto_weights(3, 0)


# ------------------------------------------------------------------------- the world that can be enumerated


@pytest.fixture(scope="module")
def world() -> tuple[torch.Tensor, torch.Tensor]:
    """Return rewards and reference log-probabilities of 781 responses to each of 3 prompts."""
    rewards = torch.as_tensor(EnumerableWorld(0).rewards)
    torch.manual_seed(0)
    return rewards, torch.log_softmax(torch.randn(rewards.shape).double(), -1)


BETA = 0.5


def test_no_policy_beats_the_enumerated_optimum(world: tuple[torch.Tensor, torch.Tensor]) -> None:
    rewards, reference = world
    best, value = regularised_optimum(reference, rewards, BETA)
    assert torch.allclose(regularised_value(best, reference, rewards, BETA), value)
    for seed in range(5):
        torch.manual_seed(seed)
        other = torch.log_softmax(best + 0.3 * torch.randn_like(best), -1)
        assert (regularised_value(other, reference, rewards, BETA) < value).all()
        # and what it loses is beta times its divergence from the optimum
        lost = BETA * kl_divergence(other, best)
        assert torch.allclose(regularised_value(other, reference, rewards, BETA), value - lost)


def minimise(loss: Any, shape: torch.Size, steps: int = 400) -> torch.Tensor:
    """Return the logits `(X, Y)` that minimise a loss of the policy's log-probabilities."""
    logits = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=steps, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(torch.log_softmax(logits, -1))
        value.backward()
        return value

    optimizer.step(closure)
    return torch.log_softmax(logits.detach(), -1)


def dense_pairs(num: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    first, second = torch.randint(781, (2, num), generator=generator)
    return first, second


@pytest.mark.slow
def test_dpo_on_dense_answers_recovers_the_optimum(world: tuple[torch.Tensor, torch.Tensor]) -> None:
    rewards, reference = world
    first, second = dense_pairs(20_000)
    answers = torch.sigmoid(rewards[:, first] - rewards[:, second])  # Bradley-Terry

    def loss(policy: torch.Tensor) -> torch.Tensor:
        rho = policy - reference
        return losses.dpo_loss(rho[:, first], rho[:, second], BETA, preferences=answers).mean()

    found = minimise(loss, reference.shape)
    best, _ = regularised_optimum(reference, rewards, BETA)
    assert kl_divergence(found, best).max() < 1e-4


def test_ipo_reaches_its_own_fixed_point(world: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Azar et al. 2023, Eq. 10: pi_ref exp(E[p(y > y')] / tau) / Z, the mean over what it was compared with."""
    rewards, reference = world
    rewards, reference = rewards[:1, ::10], torch.log_softmax(reference[:1, ::10], -1)
    n = rewards.shape[1]
    first, second = (side.reshape(-1) for side in torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij"))
    answers = torch.sigmoid(rewards[:, first] - rewards[:, second])

    def loss(policy: torch.Tensor) -> torch.Tensor:
        rho = policy - reference
        return losses.ipo_loss(rho[:, first], rho[:, second], BETA, preferences=answers).mean()

    found = minimise(loss, reference.shape)
    wins = answers.reshape(1, n, n).mean(-1)
    expected = torch.log_softmax(reference + wins / BETA, -1)
    assert kl_divergence(found, expected).max() < 1e-6
    best, _ = regularised_optimum(reference, rewards, BETA)
    assert kl_divergence(found, best).max() > 0.01, "it is not the optimum of the rewards: preferences are bounded"


def test_ipo_with_answers_and_with_their_probability_have_one_gradient() -> None:
    torch.manual_seed(0)
    chosen, rejected = (torch.randn(6).double().requires_grad_() for _ in range(2))
    p = torch.rand(6).double()
    soft = torch.autograd.grad(losses.ipo_loss(chosen, rejected, 0.4, preferences=p).sum(), chosen)[0]
    drawn = p * losses.ipo_loss(chosen, rejected, 0.4) + (1 - p) * losses.ipo_loss(rejected, chosen, 0.4)
    assert torch.allclose(soft, torch.autograd.grad(drawn.sum(), chosen)[0])


def test_kto_raises_what_is_liked_and_lowers_what_is_not(world: tuple[torch.Tensor, torch.Tensor]) -> None:
    rewards, reference = world
    liked = rewards > rewards.median(-1, keepdim=True).values
    logits = reference.clone().requires_grad_()
    policy = torch.log_softmax(logits, -1)
    loss = losses.kto_loss((policy - reference).flatten(), liked.flatten(), torch.tensor(0.0), BETA).mean()
    gradient = torch.autograd.grad(loss, logits)[0]
    moved = torch.log_softmax(reference - 50 * gradient, -1)
    share = lambda log_p: (log_p.exp() * liked).sum(-1)  # noqa: E731
    assert (share(moved) > share(reference)).all()
    assert ((moved.exp() * rewards).sum(-1) > (reference.exp() * rewards).sum(-1)).all()
    assert (gradient[liked] < 0).all()
    assert (gradient[~liked] > 0).all()

"""Advantages and losses without a value model: by hand, against trl's own, by finite differences, by enumeration."""

from __future__ import annotations

import inspect
import textwrap
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from prefrl.envs.enumerable_text import EnumerableWorld
from prefrl.errors import UserError
from prefrl.text.learn import estimators
from prefrl.text.learn.estimating import EstimatorSettings, grpo_settings
from prefrl.text.learn.estimators import ESTIMATORS, Episodes, checked_advantages
from prefrl.text.learn.ppo_terms import token_rewards

TOLERANCE = 1e-5


def episodes_of(totals: torch.Tensor, num_samples: int, moving_mean: float | None = None) -> Episodes:
    mask = torch.ones(len(totals), 1, dtype=torch.bool)
    return Episodes(
        rewards=totals[:, None], log_probs=torch.zeros(len(totals), 1), mask=mask, num_samples=num_samples,
        moving_mean=moving_mean,
    )  # fmt: skip


def advantages_of(name: str, totals: list[float], num_samples: int, **options: Any) -> list[float]:
    moving = options.pop("moving_mean", None)
    settings = EstimatorSettings(estimator=name, samples_per_prompt=num_samples, batch_size=len(totals),
                                 minibatch_size=len(totals), **options)  # fmt: skip
    found: list[float] = ESTIMATORS[name](
        episodes_of(torch.tensor(totals).float(), num_samples, moving), settings
    ).tolist()
    return found


def test_a_sample_is_held_against_the_others_of_its_prompt() -> None:
    assert advantages_of("rloo", [1, 2, 6, 5, 5, 5], 3) == pytest.approx([-3, -1.5, 4.5, 0, 0, 0])


def test_a_group_is_centred_and_divided_by_its_deviation_that_of_the_batch_or_nothing() -> None:
    totals = [1.0, 3.0, 10.0, 30.0]
    assert advantages_of("grpo", totals, 2, scale="none") == pytest.approx([-1, 1, -10, 10])
    half = 2**-0.5
    assert advantages_of("grpo", totals, 2, scale="group") == pytest.approx([-half, half, -half, half], abs=1e-4)
    std = torch.tensor(totals).std().item()
    assert advantages_of("grpo", totals, 2, scale="batch") == pytest.approx(
        [-1 / std, 1 / std, -10 / std, 10 / std], abs=1e-4
    )
    assert advantages_of("grpo", [2.0, 2.0], 2, scale="group") == [0, 0], "samples that tie teach nothing"


def test_the_baseline_is_the_mean_of_the_batch_or_of_batches_before() -> None:
    assert advantages_of("reinforce", [1, 2, 6], 1) == pytest.approx([-2, -1, 3])
    assert advantages_of("reinforce", [1, 2, 6], 1, baseline="moving", moving_mean=1.5) == pytest.approx(
        [-0.5, 0.5, 4.5]
    )
    assert advantages_of("reinforce", [1, 2, 6], 1, baseline="moving") == pytest.approx([-2, -1, 3]), "the first batch"


# --------------------------------------------------------------------------------------------------- against trl


class Accelerator:
    device, num_processes, process_index = torch.device("cpu"), 1, 0

    def gather(self, x: Any) -> Any:
        return x

    def reduce(self, x: Any, reduction: str) -> Any:
        return x


def drawn(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    mask = torch.arange(6) < torch.randint(1, 7, (8, 1))
    old = -torch.rand(8, 6) * 3 * mask
    return {
        "mask": mask, "old": old, "now": (old + 0.4 * torch.randn(8, 6)) * mask, "advantages": torch.randn(8),
        "reference": (old + 0.3 * torch.randn(8, 6)) * mask,
    }  # fmt: skip


def trl_self(now: torch.Tensor, **fields: Any) -> SimpleNamespace:
    """Return what trl's losses read of their trainer."""
    arguments = SimpleNamespace(
        delta=None, use_bias_correction_kl=False, steps_per_generation=1, importance_sampling_level="token"
    )
    per_token = (now, torch.zeros_like(now), None)
    defaults: dict[str, Any] = {
        "_get_per_token_logps_and_entropies": lambda *_, **__: per_token, "accelerator": Accelerator(),
        "model": SimpleNamespace(training=True), "args": arguments, "aux_loss_enabled": False, "epsilon_low": 0.2,
        "epsilon_high": 0.28, "_metrics": {"train": defaultdict(list), "eval": defaultdict(list)},
        "top_entropy_quantile": 1.0, "off_policy_mask_threshold": None, "importance_sampling_level": "token",
        "use_vllm": False, "current_gradient_accumulation_steps": 1, "max_completion_length": 9,
        "_entropy_bonus_enabled": False, "beta": 0.04,
    }  # fmt: skip
    return SimpleNamespace(**(defaults | fields))


def trl_inputs(of: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    ids = torch.ones(8, 6, dtype=torch.long)
    return {
        "prompt_ids": ids[:, :2], "prompt_mask": ids[:, :2], "completion_ids": ids,
        "completion_mask": of["mask"].long(),
        "advantages": of["advantages"], "old_per_token_logps": of["old"], "ref_per_token_logps": of["reference"],
        "old_logps": of["old"].sum(1), "num_items_in_batch": of["mask"].sum(),
    }  # fmt: skip


@pytest.mark.parametrize(("theirs", "lengths"), [("grpo", "response"), ("dapo", "token"), ("dr_grpo", "constant")])
@pytest.mark.parametrize("seed", range(3))
def test_the_loss_of_grpo_is_trls(seed: int, theirs: str, lengths: estimators.Lengths) -> None:
    from trl import GRPOTrainer

    of = drawn(seed)
    expected = GRPOTrainer._compute_loss(trl_self(of["now"], loss_type=theirs), None, trl_inputs(of))
    gain, _ = estimators.surrogate(
        of["now"], of["old"], of["advantages"][:, None].expand(8, 6), of["mask"], clip=0.2, clip_high=0.28
    )
    weights = estimators.token_weights(of["mask"], lengths, num_episodes=8, num_tokens=of["mask"].sum(), max_tokens=9)
    kl = estimators.kl_terms(of["now"], of["reference"], of["mask"])
    assert (weights * (0.04 * kl - gain)).sum().item() == pytest.approx(expected.item(), abs=TOLERANCE)


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_of_rloo_is_trls(seed: int) -> None:
    from trl import RLOOTrainer

    of = drawn(seed)
    expected = RLOOTrainer._compute_loss(trl_self(of["now"]), None, trl_inputs(of))
    gain, _ = estimators.surrogate(
        of["now"], of["old"], of["advantages"][:, None], of["mask"], clip=0.2, clip_high=0.28, ratio="response"
    )
    assert -gain.mean().item() == pytest.approx(expected.item(), abs=TOLERANCE)


def trl_advantages(trainer: Any, first: str, rewards: torch.Tensor, **names: Any) -> torch.Tensor:
    """Run the lines of trl's trainer that turn rewards `(8,)` into advantages, from the first of them on.

    They stand in the middle of a method that also generates, so they are cut out of its source.
    """
    module = inspect.getmodule(trainer)
    lines = inspect.getsource(trainer._generate_and_score_completions).splitlines()
    last = "advantages = torch.nan_to_num(advantages, nan=0.0)"
    end = next(i for i, line in enumerate(lines) if line.strip() == last)
    start = max(i for i in range(end) if lines[i].strip() == first)
    names |= {"rewards": rewards, "unscorable_mask": torch.zeros(8, dtype=torch.bool), "gather": lambda x: x}
    exec(textwrap.dedent("\n".join(lines[start:end])), vars(module) | names, names)
    found: torch.Tensor = names["advantages"]
    return found


@pytest.mark.parametrize("num_samples", [2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_the_advantages_of_rloo_with_the_kl_in_the_reward_are_trls(seed: int, num_samples: int) -> None:
    from trl import RLOOTrainer

    of = drawn(seed)
    scores = torch.randn(8)
    expected = trl_advantages(
        RLOOTrainer, "if self.beta != 0.0:", scores, num_generations=num_samples, old_per_token_logps=of["old"],
        ref_per_token_logps=of["reference"], completion_mask=of["mask"].long(),
        self=SimpleNamespace(beta=0.05, normalize_advantages=False),
    )  # fmt: skip
    rewards = token_rewards(scores, of["old"] - of["reference"], of["mask"], 0.05)
    ours = estimators.rloo(
        Episodes(rewards=rewards, log_probs=of["old"], mask=of["mask"], num_samples=num_samples), EstimatorSettings()
    )
    assert torch.allclose(ours, expected, atol=TOLERANCE)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("seed", range(3))
def test_the_advantages_of_grpo_are_trls(seed: int, scale: Any) -> None:
    from trl import GRPOTrainer

    torch.manual_seed(seed)
    rewards = torch.randn(8)
    expected = trl_advantages(
        GRPOTrainer, 'if self.multi_objective_aggregation == "sum_then_normalize":', rewards,
        num_generations=4, rewards_per_func=rewards[:, None], device=torch.device("cpu"),
        self=SimpleNamespace(
            scale_rewards=scale, multi_objective_aggregation="sum_then_normalize", reward_weights=torch.ones(1)
        ),
    )  # fmt: skip
    assert torch.allclose(
        torch.tensor(advantages_of("grpo", rewards.tolist(), 4, scale=scale)), expected, atol=TOLERANCE
    )


# ------------------------------------------------------------------------------------------------- properties


@pytest.mark.parametrize("ratio", ["token", "response"])
def test_the_gradient_of_the_surrogate_is_that_of_finite_differences(ratio: estimators.Ratio) -> None:
    of = {name: value.double() if value.is_floating_point() else value for name, value in drawn(1).items()}
    now = of["now"].requires_grad_()
    advantages = of["advantages"][:, None].expand(8, 6)
    check = torch.autograd.gradcheck
    assert check(
        lambda x: estimators.surrogate(x, of["old"], advantages, of["mask"], clip=0.2, clip_high=0.3, ratio=ratio)[0],
        now,
    )
    assert check(lambda x: estimators.kl_terms(x, of["reference"], of["mask"]), now)


def test_clipping_holds_what_would_gain_more_and_lets_the_rest_go() -> None:
    old, mask = torch.zeros(1, 4), torch.ones(1, 4, dtype=torch.bool)
    now = torch.tensor([[1.5, 1.25, 0.5, 0.5]]).log()
    gain, held = estimators.surrogate(now, old, torch.tensor([[1.0, 1.0, 1.0, -1.0]]), mask, clip=0.2, clip_high=0.28)
    assert gain.tolist()[0] == pytest.approx([1.28, 1.25, 0.5, -0.8])
    assert held.tolist() == [[True, False, False, True]]


def small_policy(seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return torch.log_softmax(torch.randn(40).double(), -1)


@pytest.mark.parametrize("name", ["rloo", "grpo"])
def test_unbiased_estimators_have_the_exact_gradient_in_the_mean_and_the_deviation_has_that_of_wins(name: str) -> None:
    """Two samples of one prompt: all pairs of responses, enumerated."""
    rewards = torch.as_tensor(EnumerableWorld(0).rewards[0, ::20]).double()
    policy = small_policy()[: len(rewards)]
    policy = policy - policy.logsumexp(0)
    n = len(rewards)
    first, second = (side.reshape(-1) for side in torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij"))
    weight = (policy[first] + policy[second]).exp()
    totals = torch.stack([rewards[first], rewards[second]], 1).flatten()

    def direction(scale: Any) -> torch.Tensor:
        """Return the mean of A(y) over all pairs with y first, times pi(y): the gradient by log-probabilities."""
        settings = EstimatorSettings(estimator=name, samples_per_prompt=2, scale=scale)
        given = ESTIMATORS[name](episodes_of(totals, 2), settings).view(-1, 2)[:, 0]
        return torch.zeros(n).double().index_add(0, first, weight * given)

    exact = policy.exp() * (rewards - (policy.exp() * rewards).sum())
    share = 1.0 if name == "rloo" else 0.5  # the mean of GRPO has the sample itself in it: (K - 1) / K
    assert torch.allclose(direction("none"), share * exact, atol=1e-9)
    if name == "grpo":
        wins = torch.sign(rewards[:, None] - rewards) @ policy.exp()
        assert torch.allclose(direction("group"), policy.exp() * wins * 2**-0.5, atol=1e-3)


def test_as_a_loss_the_estimate_of_the_kl_pulls_as_the_other_divergence_does() -> None:
    logits, reference = small_policy().requires_grad_(), small_policy(1)
    policy = torch.log_softmax(logits, -1)
    terms = estimators.kl_terms(policy[:, None], reference[:, None], torch.ones(40, 1, dtype=torch.bool))[:, 0]
    mean = (policy.exp() * terms).sum()
    assert mean.item() == pytest.approx((policy.exp() * (policy - reference)).sum().item())
    ours = torch.autograd.grad((policy.detach().exp() * terms).sum(), logits, retain_graph=True)[0]
    other = torch.autograd.grad((reference.exp() * (reference - policy)).sum(), logits)[0]
    assert torch.allclose(ours, other)


# --------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"samples_per_prompt": 1}, "at least 2 for rloo"),
        ({"samples_per_prompt": 5}, "multiple of samples_per_prompt"),
        ({"lengths": "token"}, "ratios of tokens"),
        ({"scale": "group"}, "scale is for grpo"),
        ({"baseline": "moving"}, "baseline is for reinforce"),
        ({"estimator": "grpoo"}, "no estimator 'grpoo'"),
        ({"clip": 1.0}, "clip must be in"),
        ({"clip_high": 0.0}, "clip_high must be above 0"),
        ({"estimator": "reinforce", "samples_per_prompt": 1, "batch_size": 1, "minibatch_size": 1}, "batch of one"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        EstimatorSettings(**options)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (torch.zeros(3), "shape"),
        ([0.0] * 4, "Received list"),
        (torch.full((4,), float("nan")), "not finite"),
        (torch.zeros(4, 1), "needs ratio token"),
    ],
)
def test_what_an_estimator_must_not_return_is_refused(given: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        checked_advantages(given, episodes_of(torch.zeros(4), 2), EstimatorSettings())


def test_advantages_of_tokens_are_taken_as_they_are() -> None:
    given = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    assert torch.equal(checked_advantages(given, episodes_of(torch.zeros(4), 2), grpo_settings()), given)

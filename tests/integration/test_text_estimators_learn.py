"""RLOO and GRPO on the game that can be enumerated: the unbiased come near its optimum, the biased fall short of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers

from prefrl.envs.enumerable_text import EnumerableWorld, LetterTokenizer, regularised_optimum, regularised_value
from prefrl.runs.optimisation import Optimiser, OptimiserSettings
from prefrl.text.data.examples import Encoder
from prefrl.text.learn import estimators
from prefrl.text.learn.estimating import EstimatorSettings, EstimatorTrainer, grpo_settings
from prefrl.text.learn.runtime import Runtime
from prefrl.text.model.generation import SamplingSettings
from prefrl.text.model.sequences import make_sequences, response_log_probs
from tests.integration.test_text_ppo import small_policy, table

BETA, STEPS, BATCH = 0.3, 100, 128
RATE = OptimiserSettings(learning_rate=6e-3, decay="linear", adam_eps=1e-8)
SHARED: dict[str, Any] = {
    "episodes": STEPS * BATCH, "batch_size": BATCH, "minibatch_size": BATCH, "beta": BETA, "missing_end": "ignore",
    "sampling": SamplingSettings(max_tokens=4), "optimiser": RATE,
}  # fmt: skip
UNBIASED = {
    "rloo": EstimatorSettings(),
    "grpo": replace(grpo_settings(), scale="none", lengths="constant", kl="reward"),
}
BIASED = replace(grpo_settings(), samples_per_prompt=2, lengths="constant")
"""Two samples to a prompt, so that all groups can be enumerated; the deviation, and the KL in the loss."""


def share_reached(policy: torch.nn.Module) -> float:
    """Return how much of the way from the start's value to the optimum's a policy has come."""
    world = EnumerableWorld(0)
    rewards, reference = torch.as_tensor(world.rewards), table(small_policy(), world)
    value = lambda log_policy: regularised_value(log_policy, reference, rewards, BETA).mean()  # noqa: E731
    start, best = value(reference), regularised_optimum(reference, rewards, BETA)[1].mean()
    return float((value(table(policy, world)) - start) / (best - start))


def trained(settings: EstimatorSettings, batch: int = BATCH) -> torch.nn.Module:
    policy, encoder = small_policy(), Encoder(LetterTokenizer(), 8, 4)
    size: dict[str, Any] = {"episodes": STEPS * batch, "batch_size": batch, "minibatch_size": batch}
    wanted = replace(settings, **SHARED | size)
    EstimatorTrainer(
        policy, encoder, list("abc"), EnumerableWorld(0).reward, wanted, runtime=Runtime("cpu")
    ).train()  # fmt: skip
    return policy


@pytest.mark.slow
@pytest.mark.parametrize("name", UNBIASED)
def test_unbiased_estimators_approach_the_enumerated_optimum(name: str) -> None:
    assert share_reached(trained(UNBIASED[name])) > 0.85


def small_llama() -> torch.nn.Module:
    sizes = {"vocab_size": 6, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, num_attention_heads=2)).eval()


@pytest.mark.parametrize("prompts", ["abc", "a"])
def test_an_update_in_two_lanes_is_that_of_one(prompts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(grpo_settings(), **SHARED | {"batch_size": 24, "minibatch_size": 24})
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 0):  # 0: as what must not go through two lanes
        torch.set_num_threads(max(1, threads))
        policy, encoder, reward = small_llama(), Encoder(LetterTokenizer(), 8, 4), EnumerableWorld(0).reward
        if not threads:
            monkeypatch.setattr(EstimatorTrainer, "_side_by_side", False)
        trainer = EstimatorTrainer(policy, encoder, list(prompts), reward, settings, runtime=Runtime("cpu"))
        drawn = trainer._sample([0] * 3).token_lists()
        figures = [trainer.step() for _ in range(2)]
        found.append((drawn, figures, [weight.detach() for weight in policy.parameters()]))
        torch.set_num_threads(before)
    one, two, plain = found
    assert one[:2] == two[:2] and all(map(torch.equal, one[2], two[2]))
    assert one[0] == plain[0] and all(torch.allclose(a, b, atol=1e-5) for a, b in zip(one[2], plain[2], strict=True))


def by_enumeration() -> torch.nn.Module:
    """Return the policy that the mean update of `BIASED` leads to, over all responses and all pairs of them."""
    world, policy = EnumerableWorld(0), small_policy()
    responses = [list(ids) for ids in world.responses]
    batch = make_sequences([[x] for x in range(3) for _ in responses], responses * 3, 0)
    rewards = torch.as_tensor(world.rewards).float()
    higher = torch.sign(rewards[:, :, None] - rewards[:, None])
    weights = estimators.token_weights(batch.response_mask, "constant", num_episodes=1, num_tokens=0, max_tokens=4)
    with torch.no_grad():
        reference = response_log_probs(policy, batch)
    optimiser = Optimiser(policy.parameters(), RATE, STEPS, Runtime("cpu"))
    for _ in range(STEPS):
        now = response_log_probs(policy, batch)
        chance = now.detach().sum(1).exp()
        wins = torch.einsum("xyz,xz->xy", higher, chance.view(3, -1)).flatten() * 2**-0.5  # each over its deviation
        gain, _ = estimators.surrogate(now, now.detach(), wins[:, None].expand_as(now), batch.response_mask, clip=0.2)
        kl = estimators.kl_terms(now, reference, batch.response_mask)
        (chance[:, None] * weights * (BETA * kl - gain)).sum().div(3).backward()
        optimiser.step()
    return policy


@pytest.mark.slow
def test_a_biased_estimator_falls_short_as_its_enumerated_mean_update_does_the_nearer_the_larger_its_batches() -> None:
    """The gradient of k3 in the loss is that of rare tokens, by pi_ref / pi: few samples have it as noise alone."""
    few, many, all_ = (share_reached(p) for p in (trained(BIASED), trained(BIASED, 4 * BATCH), by_enumeration()))
    assert few < many < all_ < 0.7


@pytest.mark.slow
def test_with_the_kl_in_the_reward_instead_the_deviation_costs_little() -> None:
    assert share_reached(trained(replace(BIASED, kl="reward"))) > 0.8

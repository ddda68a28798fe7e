"""Online DPO on the game that can be enumerated: its optimum is reached, and controls that must not reach it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from prefrl.envs.enumerable_text import EnumerableWorld, LetterTokenizer, kl_divergence, regularised_optimum
from prefrl.runs.optimisation import OptimiserSettings
from prefrl.text.data.examples import Encoder
from prefrl.text.learn.online import OnlineSettings, OnlineTrainer
from prefrl.text.learn.runtime import Runtime
from tests.integration.test_text_estimators_learn import BATCH, BETA, SHARED, share_reached
from tests.integration.test_text_ppo import small_policy, table

STEPS = 200
RATE = OptimiserSettings(learning_rate=1e-2, decay="linear", adam_eps=1e-8)
GAME: dict[str, Any] = {**SHARED, "episodes": STEPS * BATCH, "optimiser": RATE, "beta": BETA}
pytestmark = pytest.mark.filterwarnings("ignore:The share of responses that end")


def trained(settings: OnlineSettings, reward: Any = None) -> torch.nn.Module:
    policy, encoder, given = small_policy(), Encoder(LetterTokenizer(), 8, 4), reward or EnumerableWorld(0).reward
    OnlineTrainer(policy, encoder, list("abc"), given, replace(settings, **GAME), runtime=Runtime("cpu")).train()
    return policy


@pytest.mark.slow
@pytest.mark.parametrize(("samples", "least"), [(2, 0.85), (4, 0.75)])
def test_samples_compared_as_their_rewards_say_lead_to_the_enumerated_optimum(samples: int, least: float) -> None:
    """By Bradley-Terry of two, by Plackett-Luce of four, whose orders are drawn and therefore noisier."""
    assert share_reached(trained(OnlineSettings(samples_per_prompt=samples))) > least


@pytest.mark.slow
def test_where_the_higher_reward_always_wins_the_policy_goes_beyond_the_optimum() -> None:
    world, policy = EnumerableWorld(0), trained(OnlineSettings(temperature=0.0))
    reference = table(small_policy(), world)
    best, _ = regularised_optimum(reference, torch.as_tensor(world.rewards), BETA)
    gone, wanted = (kl_divergence(where, reference).mean() for where in (table(policy, world), best))
    assert gone > 1.2 * wanted
    assert share_reached(policy) < 0.75


@pytest.mark.slow
def test_of_a_coin_nothing_is_learned() -> None:
    rng = np.random.default_rng(0)
    assert share_reached(trained(OnlineSettings(), lambda prompts, given: rng.normal(size=len(given)))) < 0.1

"""Our TD3: its update against stable-baselines3's, what it keeps, explores and refuses."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from prefrl.agents import AGENTS
from prefrl.agents.replay import Minibatch
from prefrl.agents.td3 import Td3Agent
from prefrl.envs import make_vector_env
from prefrl.errors import UserError
from tests.unit.test_sac import SMALL, formula, goes_on_alike


def agent_of(env: str = "Pendulum-v1", num_envs: int = 2, seed: int = 0, **options: Any) -> Td3Agent:
    hyper = {**SMALL, **options}
    return Td3Agent(make_vector_env(env, num_envs), total_env_steps=4000, hyperparameters=hyper, seed=seed)


@pytest.fixture(autouse=True)
def short_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefrl.agents.off_policy.ITERATION", 60)


@pytest.mark.parametrize("in_arrays", [True, False], ids=["NumPy", "PyTorch"])
@pytest.mark.parametrize("options", [{}, {"policy_delay": 3, "target_policy_noise": 0.7, "target_noise_clip": 0.3}])
def test_updates_are_those_of_stable_baselines3(
    options: dict[str, Any], in_arrays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stable_baselines3 import TD3
    from stable_baselines3.common.type_aliases import ReplayBufferSamples

    options = {"gamma": 0.9, "tau": 0.02, **options}
    agent = agent_of(**options)
    agent._arrays = agent._arrays if in_arrays else None
    model = TD3("MlpPolicy", gymnasium.make("Pendulum-v1"), device="cpu", **copy.deepcopy({**SMALL, **options}))
    model.learn(1)  # sets it up
    assert (model.learning_rate, model.policy_delay) == (agent.settings.learning_rate, agent.settings.policy_delay)
    for ours, theirs in _pairs(agent, model):
        ours.copy_(theirs)
    begin = [theirs.clone() for _, theirs in _pairs(agent, model)]
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    model._n_updates = 0
    for _ in range(6):
        batch = Minibatch(draw(16, 3), draw(16, 3), draw(16, 1).tanh(), draw(16), (draw(16) < 1).float(), draw(16, 1))
        sample = ReplayBufferSamples(
            observations=batch.inputs,
            actions=batch.actions,
            next_observations=batch.next_inputs,
            dones=1 - batch.going_on[:, None],
            rewards=batch.rewards[:, None],
        )
        monkeypatch.setattr(model.replay_buffer, "sample", lambda *_, sample=sample, **__: sample)
        monkeypatch.setattr(torch.Tensor, "normal_", lambda _, mean, std, noise=batch.noise: mean + std * noise)
        model.train(1, 16)
        monkeypatch.undo()
        with torch.inference_mode():
            agent._learn_from(batch)
    for (ours, theirs), before in zip(_pairs(agent, model), begin, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
        assert not torch.equal(theirs, before)


def _pairs(agent: Td3Agent, model: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return all weights of both, as stable-baselines3 lays them out."""
    found = []
    nets = [(agent._actor, [model.actor.mu]), (agent._actor_target, [model.actor_target.mu])]
    nets += [(agent._critics, model.critic.q_networks), (agent._targets, model.critic_target.q_networks)]
    for ours, theirs in nets:
        for number, net in enumerate(theirs):
            linears = [layer for layer in net if isinstance(layer, torch.nn.Linear)]
            for (weight, bias), linear in zip(ours._layers, linears, strict=True):
                found += [(weight[number].t(), linear.weight), (bias[number, 0], linear.bias)]
    return [(ours.detach(), theirs.detach()) for ours, theirs in found]


def test_figures_are_the_losses() -> None:
    agent = agent_of(action_noise_std=0.1)
    agent.reset_environments(0)
    agent.explore(40, np.random.default_rng(0))
    figures = agent.improve(formula).figures
    assert figures.keys() == {"critic_loss", "actor_loss"} and figures["critic_loss"] > 0


@pytest.mark.parametrize("options", [{}, {"recent_share": 0.5, "gradient_steps": 3, "policy_delay": 4}])
def test_a_restored_agent_goes_on_bit_for_bit(options: dict[str, Any]) -> None:
    """Also between two turns of the actor."""
    options = {"action_noise_std": 0.2, "policy_delay": 7, **options}
    whole, other = agent_of(seed=3, **options), agent_of(seed=5, **options)
    found = goes_on_alike(whole, other, "critics", "targets", "actor_target")
    assert found["begun"] % options["policy_delay"] != 0


def test_it_explores_with_the_noise_that_it_is_given_and_acts_without() -> None:
    seen = np.zeros((2000, 3), np.float32)
    agent, still = agent_of(action_noise_std=0.1), agent_of()
    best = agent.act(seen)
    noisy = agent.act(seen, deterministic=False)
    assert np.ptp(best) == 0 and np.std(noisy - best) == pytest.approx(0.2, rel=0.1)  # a torque of -2 to 2
    assert np.ptp(still.act(seen, deterministic=False)) == 0
    wild = agent_of(action_noise_std=50.0).act(seen, deterministic=False)
    assert wild.min() == -2 and wild.max() == 2


def test_each_step_of_pytorch_is_recorded_for_itself() -> None:
    agent, other = agent_of(), agent_of()
    recorded = []

    def record(function: Any) -> Any:
        recorded.append(function)
        return function

    agent._replay_updates(record)
    for one in (agent, other):
        one.reset_environments(0)
        one.explore(40, np.random.default_rng(0))
        one.improve(formula)
    assert len(recorded) == 2  # the critics', and the actor's every other time
    for name in ("_actor_adam", "_critic_adam"):
        mine, theirs = getattr(agent, name), getattr(other, name)
        torch.testing.assert_close(mine.parameters, theirs.parameters, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_it_learns_from_a_reward_function_alone() -> None:
    agent = agent_of(num_envs=4, gradient_steps=4, gamma=0.9, learning_rate=3e-3, action_noise_std=0.2)
    agent.reset_environments(0)
    agent.explore(400, np.random.default_rng(0))
    for _ in range(30):
        agent.improve(lambda s, a, s2: np.asarray(a, np.float32)[:, 0] * 2)  # push to the right
    probe = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
    assert agent.act(probe).mean() > 1.7


@pytest.mark.parametrize(
    ("hyper", "told"),
    [
        ({"policy_delay": 0}, "policy_delay must be a whole number of at least 1"),
        ({"target_policy_noise": -1}, "target_policy_noise must be a finite number of at least 0"),
        ({"action_noise_std": "much"}, "action_noise_std must be"),
        ({"ent_coef": 0.1}, "This TD3 has no hyper-parameter 'ent_coef'.*--agent sb3-td3"),
    ],
)
def test_odd_hyper_parameters_are_refused(hyper: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        agent_of(**hyper)


def test_it_is_found_by_name() -> None:
    agent = AGENTS.find("td3").make(
        make_vector_env("Pendulum-v1", 1), total_env_steps=10, hyperparameters=None, seed=0, device="cpu",
        pass_true_reward=False,
    )  # fmt: skip
    assert isinstance(agent, Td3Agent)
    assert "stable-baselines3" in AGENTS.find("sb3-td3").about

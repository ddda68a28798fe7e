"""What agents tell of their updates, against answers that are known."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.logger import configure

from prefrl.agents import PpoAgent, sb3_off_policy
from prefrl.agents.figures import FIGURES, explained_variance, last_figures
from prefrl.agents.ppo_losses import update_figures
from prefrl.agents.sb3_off_policy import OffPolicyAgent
from prefrl.agents.sb3_on_policy import OnPolicyAgent
from prefrl.envs import EnvLoop
from tests.unit.test_ppo import Noise, agent_on

BOX = spaces.Box(-1, 1, (3,))


def test_values_that_are_the_returns_explain_all_and_a_constant_explains_nothing() -> None:
    returns = np.random.default_rng(0).normal(size=50)
    assert explained_variance(returns.copy(), returns) == 1.0
    assert explained_variance(np.full(50, 3.0), returns) == pytest.approx(0.0)
    assert explained_variance(-returns, returns) == pytest.approx(-3.0)
    assert math.isnan(explained_variance(returns, np.ones(50)))


def test_a_policy_that_has_not_moved_diverges_by_nothing_and_clips_nothing() -> None:
    advantages, errors = np.random.default_rng(0).normal(size=(2, 9))
    figures = update_figures(np.zeros(9), advantages, errors, 0.2)
    assert figures["approx_kl"] == 0.0 and figures["clip_share"] == 0.0
    assert figures["policy_loss"] == pytest.approx(-advantages.mean())
    assert figures["value_loss"] == pytest.approx((errors**2).mean())


def test_figures_of_ratios_that_are_known() -> None:
    ratios = np.array([0.5, 1.0, 1.1, 2.0])
    figures = update_figures(np.log(ratios), np.array([1.0, 1.0, -1.0, 1.0]), np.full(4, 2.0), 0.2)
    assert figures["policy_loss"] == pytest.approx(-(0.5 + 1.0 - 1.1 + 1.2) / 4)  # of the last only 1.2 counts
    assert figures["value_loss"] == 4.0
    assert figures["approx_kl"] == pytest.approx(sum(r - 1 - math.log(r) for r in ratios) / 4)
    assert figures["clip_share"] == 0.5


@pytest.mark.parametrize("actions", [BOX, spaces.Discrete(4)], ids=["box", "discrete"])
def test_an_update_of_no_length_leaves_entropy_and_policy_as_they_were(actions: Any) -> None:
    kwargs = {"net_arch": [8], "log_std_init": -0.7} if actions is BOX else {"net_arch": [8]}
    agent = agent_on(BOX, actions, learning_rate=0.0, policy_kwargs=kwargs)
    agent.reset_environments(0)
    figures = agent.improve(None).figures
    assert list(figures) == list(FIGURES)[:6]
    expected = 3 * (-0.7 + 0.5 * math.log(2 * math.pi * math.e)) if actions is BOX else math.log(4)
    assert figures["entropy"] == pytest.approx(expected, abs=1e-2 if actions is not BOX else 1e-5)
    assert figures["approx_kl"] == pytest.approx(0.0, abs=1e-6)
    assert figures["clip_share"] == 0.0
    assert figures["policy_loss"] == pytest.approx(0.0, abs=1e-5)  # of advantages of mean 0


def test_a_long_step_is_told() -> None:
    agent = agent_on(BOX, spaces.Discrete(4), learning_rate=0.1)
    agent.reset_environments(0)
    figures = agent.improve(None).figures
    assert figures["approx_kl"] > 0.01 and figures["clip_share"] > 0
    assert 0 < figures["entropy"] < math.log(4)


def test_figures_are_those_of_stable_baselines3_before_its_step() -> None:
    theirs = PPO("MlpPolicy", Noise(BOX, spaces.Discrete(4)), n_steps=32, batch_size=32, n_epochs=1, device="cpu")
    theirs.set_logger(logged := configure(None, []))
    random = np.random.default_rng(0)
    buffer = theirs.rollout_buffer
    buffer.observations[:] = random.normal(size=buffer.observations.shape)
    buffer.actions[:] = random.integers(4, size=buffer.actions.shape)
    for name in ("values", "advantages", "returns"):
        getattr(buffer, name)[:] = random.normal(size=(32, 1))
    columns = {name: torch.tensor(getattr(buffer, name)).squeeze(1) for name in ("observations", "actions")}
    with torch.no_grad():
        values, log_probs, entropy = theirs.policy.evaluate_actions(columns["observations"], columns["actions"][:, 0])
    buffer.log_probs[:] = log_probs[:, None].numpy() + 0.3 * random.normal(size=(32, 1))
    buffer.full = True
    advantages = buffer.advantages[:, 0]
    advantages = (advantages - advantages.mean()) / (advantages.std(ddof=1) + 1e-8)
    log_ratios, errors = log_probs.numpy() - buffer.log_probs[:, 0], values.numpy()[:, 0] - buffer.returns[:, 0]
    ours = update_figures(log_ratios, advantages, errors, 0.2)
    explained = explained_variance(buffer.values[:, 0].copy(), buffer.returns[:, 0].copy())
    theirs.train()
    told = logged.name_to_value
    names = {"policy_loss": "policy_gradient_loss", "clip_share": "clip_fraction"}
    for name, value in ours.items():
        assert value == pytest.approx(told[f"train/{names.get(name, name)}"], rel=1e-5), name
    assert entropy is not None and -told["train/entropy_loss"] == pytest.approx(float(entropy.mean()), rel=1e-5)
    assert explained == pytest.approx(float(told["train/explained_variance"]), rel=1e-5)


ON_POLICY = ["policy_loss", "value_loss", "entropy", "explained_variance"]
TOLD = {
    "PPO": [*ON_POLICY, "approx_kl", "clip_share"],
    "A2C": ON_POLICY,
    "SAC": ["critic_loss", "actor_loss", "alpha"],
    "TD3": ["critic_loss", "actor_loss"],
    "DQN": ["critic_loss"],
}


@pytest.mark.parametrize("algorithm", TOLD)
def test_every_algorithm_of_stable_baselines3_tells_its_figures(
    algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sb3_off_policy, "ITERATION", 40)
    kind: Any = OnPolicyAgent if algorithm in ("PPO", "A2C") else OffPolicyAgent
    envs = EnvLoop([lambda: Noise(BOX, spaces.Discrete(3) if algorithm == "DQN" else BOX)] * 2)
    hyper: dict[str, Any] = (
        {"n_steps": 16} if kind is OnPolicyAgent else {"train_freq": 10, "gradient_steps": 2, "batch_size": 8}
    )
    hyper |= {"batch_size": 8} if algorithm == "PPO" else {}
    agent = kind(getattr(stable_baselines3, algorithm), envs, total_env_steps=1000, hyperparameters=hyper)
    agent.reset_environments(0)
    agent.explore(20, np.random.default_rng(0))
    for _ in range(2):
        figures = agent.improve(lambda s, a, s2: s[:, 0]).figures
        assert set(figures) == set(TOLD[algorithm]) <= set(FIGURES)
        assert all(isinstance(value, float) and math.isfinite(value) for value in figures.values())


def test_a_summary_averages_over_the_last_tenth_and_leaves_out_what_was_not_told() -> None:
    rows: list[dict[str, Any]] = [{"policy_loss": 9.0, "num_env_steps": n} for n in range(27)]
    rows += [{"policy_loss": 1.0, "value_loss": None}, {"policy_loss": 2.0}, {"policy_loss": 6.0}]
    assert last_figures(rows) == {"policy_loss": 3.0}
    assert last_figures([]) == {}


@pytest.mark.slow
def test_our_ppo_works_without_stable_baselines3() -> None:
    program = (
        "import sys; sys.modules['stable_baselines3'] = None\n"
        "from prefrl.agents import AGENTS, PpoAgent\n"
        "from prefrl.envs import make_vector_env\n"
        "agent = PpoAgent(make_vector_env('CartPole-v1', 2), total_env_steps=100, hyperparameters={'n_steps': 8})\n"
        "agent.reset_environments(0); agent.improve(None)\n"
        "try: AGENTS['sb3-sac'].make(make_vector_env('CartPole-v1', 2))\n"
        "except ImportError as error: print(error)\n"
        "assert not [name for name in sys.modules if name.startswith('stable_baselines3.')]\n"
    )
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert outcome.returncode == 0, outcome.stderr
    assert 'pip install "prefrl[train]"' in outcome.stdout


def test_the_same_seed_gives_the_same_policy_whether_figures_are_taken_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for taken in (True, False):
        if not taken:
            monkeypatch.setattr(PpoAgent, "_figures", lambda self, batch: {})
        agent = agent_on(BOX, BOX)
        agent.reset_environments(0)
        for _ in range(3):
            agent.improve(None)
        found.append([tensor.numpy().tobytes() for tensor in agent.policy_state()["network"].values()])
    assert found[0] == found[1]

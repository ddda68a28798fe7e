"""Our SAC: its arithmetic against autograd, its update against stable-baselines3's, what it keeps and refuses."""

from __future__ import annotations

import copy
import io
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from prefrl.agents import AGENTS
from prefrl.agents.networks import flatten_parameters
from prefrl.agents.off_policy import OffPolicyAgent
from prefrl.agents.replay import Minibatch, Replay
from prefrl.agents.sac import SacAgent
from prefrl.agents.sac_networks import SquashedGaussian
from prefrl.agents.towers import Towers
from prefrl.envs import EnvLoop, make_vector_env
from prefrl.errors import UserError
from prefrl.spaces import Array, Batch

SMALL = {"policy_kwargs": {"net_arch": [16, 16]}, "batch_size": 16}


def agent_of(env: str = "Pendulum-v1", num_envs: int = 2, total: int = 4000, **options: Any) -> SacAgent:
    common = {name: options.pop(name) for name in ("seed", "pass_true_reward") if name in options}
    return SacAgent(
        make_vector_env(env, num_envs), total_env_steps=total, hyperparameters={**SMALL, **options}, **common
    )


def formula(observations: Batch, actions: Array, next_observations: Batch) -> NDArray[np.float32]:
    s, s2 = np.asarray(observations), np.asarray(next_observations)
    return np.asarray(s[:, 0] * np.float32(0.5) + s2[:, -1] + np.asarray(actions)[:, 0], np.float32)


# ------------------------------------------------------------------------------------------------ arithmetic


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_gradients_of_towers_are_those_of_autograd(activation: str) -> None:
    torch.manual_seed(0)
    towers = Towers(3, [4, 8, 7, 2], activation, torch.Generator().manual_seed(1))
    flatten_parameters(towers.parameters())
    x, by_outputs = torch.randn(5, 4), torch.randn(3, 5, 2)
    with torch.inference_mode():
        found = towers.forward(x)
        towers.backward(by_outputs)
        by_inputs = towers.by_inputs(by_outputs)
    own = [p.detach().clone().requires_grad_() for p in towers.parameters()]
    weights, biases, given = own[:3], own[3:], x.clone().requires_grad_()
    y = given.expand(3, 5, 4)
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        y = y @ weight + bias
        if layer < 2:
            y = torch.relu(y) if activation == "relu" else torch.tanh(y)
    torch.testing.assert_close(found.clone(), y.detach())
    (y * by_outputs).sum().backward()
    torch.testing.assert_close(by_inputs.clone(), given.grad)
    for parameter, expected in zip(towers.parameters(), own, strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad)


def test_squashed_gaussian_has_the_density_and_gradients_of_a_transformed_normal() -> None:
    torch.manual_seed(0)
    outputs = torch.randn(6, 4, dtype=torch.float64)
    outputs[0, 2], outputs[1, 3] = 5.0, -30.0  # beyond what the standard deviation may be
    noise = torch.randn(6, 2, dtype=torch.float64)
    noise[1, 1] = 0.0
    given = outputs.clone().requires_grad_()
    means, log_stds = given[:, :2], given[:, 2:].clamp(-20, 2)
    inside = means + log_stds.exp() * noise
    actions = torch.tanh(inside)
    normal = torch.distributions.Normal(means, log_stds.exp())
    log_probs = (normal.log_prob(inside) - torch.log(1 - actions**2 + 1e-6)).sum(1)
    by_actions = torch.randn(6, 2, dtype=torch.float64)
    (0.3 * log_probs.sum() + (actions * by_actions).sum()).backward()
    found = SquashedGaussian(outputs, noise)
    torch.testing.assert_close(found.actions, actions.detach())
    torch.testing.assert_close(found.log_probs(), log_probs.detach())
    torch.testing.assert_close(found.by_outputs(0.3, by_actions), given.grad)


@pytest.mark.parametrize("in_arrays", [True, False], ids=["NumPy", "PyTorch"])
@pytest.mark.parametrize("entropy", [{}, {"ent_coef": 0.2}, {"ent_coef": "auto_0.5", "target_entropy": -2.0}])
def test_updates_are_those_of_stable_baselines3(
    entropy: dict[str, Any], in_arrays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stable_baselines3 import SAC
    from stable_baselines3.common.type_aliases import ReplayBufferSamples

    options = {"gamma": 0.9, "tau": 0.02, "target_update_interval": 2, "learning_rate": 1e-3, **entropy}
    agent = agent_of(**options)
    agent._arrays = agent._arrays if in_arrays else None
    model = SAC("MlpPolicy", gymnasium.make("Pendulum-v1"), device="cpu", **copy.deepcopy({**SMALL, **options}))
    model.learn(1)  # sets it up
    _copy(agent, model)
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    num = 5
    batches = [
        Minibatch(draw(16, 3), draw(16, 3), draw(16, 1).tanh(), draw(16), (draw(16) < 1).float(), draw(32, 1))
        for _ in range(num)
    ]
    noises = iter([part for batch in batches for part in batch.noise.chunk(2)])
    monkeypatch.setattr(
        torch.distributions.Normal, "rsample", lambda self, shape=(): self.loc + self.scale * next(noises)
    )
    for batch in batches:
        sample = ReplayBufferSamples(
            observations=batch.inputs,
            actions=batch.actions,
            next_observations=batch.next_inputs,
            dones=1 - batch.going_on[:, None],
            rewards=batch.rewards[:, None],
        )
        monkeypatch.setattr(model.replay_buffer, "sample", lambda *_, sample=sample, **__: sample)
        model._n_updates = agent.num_updates
        _train_once(model)
        with torch.inference_mode():
            agent._learn_from(batch)
    for ours, theirs in _pairs(agent, model):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    if "ent_coef" not in entropy or isinstance(entropy["ent_coef"], str):
        torch.testing.assert_close(agent._weight.parameters, model.log_ent_coef.detach(), atol=1e-5, rtol=1e-5)


def _train_once(model: Any) -> None:
    """One gradient step; the interval of the targets counts within a call there, over all updates here."""
    model.target_update_interval, interval = 1, model.target_update_interval
    tau, model.tau = model.tau, model.tau if (model._n_updates + 1) % interval == 0 else 0.0
    model.train(1, 16)
    model.target_update_interval, model.tau = interval, tau


def _pairs(agent: SacAgent, model: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return all weights of both, as stable-baselines3 lays them out."""

    def linears(net: Any) -> list[Any]:
        return [layer for layer in net if isinstance(layer, torch.nn.Linear)]

    found = []
    actor = [*linears(model.actor.latent_pi)]
    last = len(actor)
    for layer, (weight, bias) in enumerate(agent._actor._layers):
        if layer < last:
            found += [(weight[0].t(), actor[layer].weight), (bias[0, 0], actor[layer].bias)]
        else:
            heads = [model.actor.mu, model.actor.log_std]
            found += [(weight[0].t(), torch.cat([head.weight for head in heads]))]
            found += [(bias[0, 0], torch.cat([head.bias for head in heads]))]
    for ours, theirs in ((agent._critics, model.critic), (agent._targets, model.critic_target)):
        for number, net in enumerate(theirs.q_networks):
            for (weight, bias), linear in zip(ours._layers, linears(net), strict=True):
                found += [(weight[number].t(), linear.weight), (bias[number, 0], linear.bias)]
    return [(ours.detach(), theirs.detach()) for ours, theirs in found]


def _copy(agent: SacAgent, model: Any) -> None:
    for ours, theirs in _pairs(agent, model):
        ours.copy_(theirs)


# ------------------------------------------------------------------------------------------------ experience


def replay_of(size: int = 8) -> Replay:
    return Replay(size, np.zeros((2, 1), np.float32), np.zeros((2, 1), np.float32), np.zeros((2, 1), np.float32))


def put(replay: Replay, value: float) -> None:
    column = np.full((2, 1), value, np.float32)
    replay.add(column, column, column, column + 1, np.full(2, value), np.array([False, True]))


def test_replay_keeps_the_newest_and_scores_each_once_and_all_when_asked() -> None:
    replay, scored = replay_of(), []

    def reward(observations: Batch, actions: Array, next_observations: Batch) -> NDArray[np.float32]:
        scored.extend(np.asarray(observations)[:, 0])
        return np.asarray(observations)[:, 0] * 10

    for value in range(3):
        put(replay, value)
    replay.score(reward)
    assert scored == [0, 0, 1, 1, 2, 2]
    scored.clear()
    for value in (3, 4):
        put(replay, value)
    replay.score(reward)
    assert scored == [3, 3, 4, 4]
    assert sorted(replay.observations[:, 0]) == [1, 1, 2, 2, 3, 3, 4, 4] and len(replay) == 8
    np.testing.assert_array_equal(replay.rewards, replay.observations[:, 0] * 10)
    np.testing.assert_array_equal(replay.next_observations, replay.observations + 1)
    scored.clear()
    replay.score(reward, everything=True)
    assert sorted(scored) == [1, 1, 2, 2, 3, 3, 4, 4]


def test_a_share_of_each_minibatch_is_of_the_newest_steps() -> None:
    replay = replay_of(100)
    for value in range(70):
        put(replay, value)
    rows = replay.draw(50, 10, torch.Generator().manual_seed(0), recent_share=0.5, recent_steps=6)
    values = replay.observations[rows, 0].reshape(50, 10)
    assert set(values[:, :5].ravel()) == {67, 68, 69}
    assert len(set(values[:, 5:].ravel())) > 40 and values.min() >= 20


def test_a_replay_is_taken_up_by_a_larger_one() -> None:
    replay = replay_of(6)
    for value in range(5):
        put(replay, value)
    counters, arrays = replay.state()
    larger = replay_of(10)
    larger.restore(counters, {name: values.copy() for name, values in arrays.items()})
    put(larger, 9)
    assert list(larger.observations[: len(larger), 0]) == [2, 2, 3, 3, 4, 4, 9, 9]


def test_a_replay_that_does_not_fit_names_the_setting() -> None:
    with pytest.raises(UserError, match="buffer_size"):
        replay_of(10**13)


class Ends(gymnasium.Env[Any, Any]):
    """Counts its steps; ends after the third by a script."""

    observation_space, action_space = spaces.Box(-9, 9, (1,)), spaces.Box(np.float32(0), np.float32(1000), (1,))

    def __init__(self, end: str) -> None:
        self.end, self.taken = end, []

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        self.taken.append(float(action[0]))
        over = self.steps == 3
        ends = over and self.end != "truncated", over and self.end != "terminated"
        return np.full(1, self.steps, np.float32), 1.0, *ends, {}


@pytest.mark.parametrize(("end", "goes_on"), [("terminated", False), ("truncated", True), ("both", False)])
def test_what_an_episode_ended_in_is_kept_and_only_termination_ends_the_value(end: str, goes_on: bool) -> None:
    env = Ends(end)
    agent = SacAgent(EnvLoop([lambda: env]), total_env_steps=100, hyperparameters=SMALL)
    agent.reset_environments(0)
    agent.explore(7, np.random.default_rng(0))
    replay = agent._replay
    assert replay is not None
    assert list(replay.observations[:7, 0]) == [0, 1, 2, 0, 1, 2, 0]
    assert list(replay.next_observations[:7, 0]) == [1, 2, 3, 1, 2, 3, 1]
    assert list(np.flatnonzero(replay.terminated)) == ([] if goes_on else [2, 5])
    np.testing.assert_allclose(replay.actions[:7, 0], env.taken)
    np.testing.assert_allclose(replay.actions[:7, 0], 500 + 500 * replay.own_actions[:7, 0], rtol=1e-5)
    assert np.ptp(env.taken) > 300  # in the units of the box


# ------------------------------------------------------------------------------------------------ the agent


def through_a_file(state: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def goes_on_alike(whole: OffPolicyAgent[Any], other: OffPolicyAgent[Any], *parts: str) -> dict[str, Any]:
    """Let an agent learn, and another go on from its state: bit for bit the same; return the state it comes to.

    Args:
        whole: begins here.
        other: is restored.
        parts: of the state, networks.
    """

    def goes_on(agent: OffPolicyAgent[Any]) -> dict[str, Any]:
        agent.reset_environments(7)
        agent.improve(formula)
        agent.relabel(formula)
        agent.improve(formula)
        return agent.state()[0]

    whole.reset_environments(0)
    whole.explore(40, np.random.default_rng(0))
    whole.improve(formula)
    state, arrays = whole.state()
    begun = state["num_updates"]
    state, arrays = through_a_file(state), {name: values.copy() for name, values in arrays.items()}
    other.restore(state, arrays)
    expected, found = goes_on(whole), goes_on(other)
    pairs = [(expected[part], found[part]) for part in parts]
    for one, two in [*pairs, (expected["policy"]["actor"], found["policy"]["actor"])]:
        for name, values in one.items():
            assert torch.equal(values, two[name])
    assert expected["num_updates"] == found["num_updates"]
    return {**found, "begun": begun}


@pytest.mark.parametrize("options", [{}, {"normalize_observations": True, "recent_share": 0.5, "gradient_steps": 2}])
def test_a_restored_agent_goes_on_bit_for_bit(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefrl.agents.off_policy.ITERATION", 60)
    found = goes_on_alike(agent_of(seed=3, **options), agent_of(seed=5, **options), "critics", "targets")
    assert found["num_updates"] >= 90


def test_critics_begin_anew_when_the_reward_first_changes_and_experience_is_scored_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("prefrl.agents.off_policy.ITERATION", 60)
    for wanted, resets in (("never", [False, False]), ("first", [True, False]), ("always", [True, True])):
        agent = agent_of(reset_critics=wanted)
        agent.reset_environments(0)
        agent.explore(40, np.random.default_rng(0))
        agent.relabel(formula)  # nothing was learned yet
        agent._num_resets = 0
        found = []
        for _ in range(2):
            agent.improve(formula)
            before = agent._critic_adam.num_steps
            agent.relabel(lambda *seen: -formula(*seen))
            found.append(agent._critic_adam.num_steps < before)
            replay = agent._replay
            assert replay is not None
            rows = slice(0, len(replay))
            expected = -formula(replay.observations[rows], replay.actions[rows], replay.next_observations[rows])
            np.testing.assert_allclose(replay.rewards[rows], expected, rtol=1e-6)
        assert found == resets


@pytest.mark.slow
def test_it_learns_from_a_reward_function_alone() -> None:
    agent = agent_of(num_envs=4, total=6000, gradient_steps=4, gamma=0.9, learning_rate=3e-3)
    agent.reset_environments(0)
    agent.explore(400, np.random.default_rng(0))
    for _ in range(3):
        improvement = agent.improve(lambda s, a, s2: np.asarray(a, np.float32)[:, 0] * 2)  # push to the right
    assert improvement.learned_rewards.mean() > 2.5
    assert {"critic_loss", "actor_loss", "alpha", "entropy"} == improvement.figures.keys()
    probe = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
    assert agent.act(probe).mean() > 1.7


def test_a_baseline_learns_from_the_environments_own_reward() -> None:
    agent = agent_of(pass_true_reward=True)
    agent.reset_environments(0)
    agent.explore(40, np.random.default_rng(0))
    improvement = agent.improve(None)
    np.testing.assert_allclose(improvement.learned_rewards, improvement.rollout.true_rewards, rtol=1e-6)
    replay = agent._replay
    assert replay is not None and replay.rewards[: len(replay)].max() < 0


@pytest.mark.parametrize(
    ("hyper", "told"),
    [
        ({"batchsize": 3}, "no hyper-parameter 'batchsize'.*batch_size"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1"),
        ({"gradient_steps": -2}, "at least 0, or -1"),
        ({"tau": 2}, r"tau must be in \[0, 1\]"),
        ({"ent_coef": "auto_x"}, "ent_coef must be"),
        ({"ent_coef": "automatic"}, "ent_coef must be"),
        ({"ent_coef": -1}, "ent_coef must be"),
        ({"target_entropy": "low"}, "target_entropy must be"),
        ({"reset_critics": "often"}, "reset_critics must be one of"),
        ({"policy_kwargs": {"net_arc": [3]}}, "no 'net_arc' here"),
        ({"policy_kwargs": {"net_arch": [0]}}, "numbers of units"),
        ({"policy_kwargs": {"activation_fn": "gelu"}}, "activation_fn must be one of"),
        ({"policy_kwargs": {"n_critics": 0}}, "n_critics must be"),
    ],
)
def test_odd_hyper_parameters_are_refused(hyper: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        agent_of(**hyper)


@pytest.mark.parametrize(("env", "told"), [("CartPole-v1", "--agent dqn"), ("Acrobot-v1", "between bounds")])
def test_actions_without_bounds_are_refused(env: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        agent_of(env)


@pytest.mark.parametrize("bound", [np.inf, 1e7])
def test_bounds_that_say_nothing_of_actions_are_refused(bound: float) -> None:
    class Wide(Ends):
        action_space = spaces.Box(-bound, bound, (1,))

    with pytest.raises(UserError, match=r"between bounds.*--agent ppo"):
        SacAgent(EnvLoop([lambda: Wide("truncated")]), total_env_steps=100)


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.uint8, np.int64])
def test_actions_that_are_no_floats_come_as_the_space_has_them(dtype: Any) -> None:
    class Whole(Ends):
        action_space = (
            spaces.Box(0, 1, (2,), dtype)
            if dtype is np.bool_
            else spaces.Box(max(-128, np.iinfo(dtype).min), 127, (2,), dtype)
        )

        def step(self, action: Any) -> Any:
            assert self.action_space.contains(action), action
            return super().step(action)

    agent = SacAgent(EnvLoop([lambda: Whole("truncated")]), total_env_steps=100)
    agent.reset_environments(0)
    rollout = agent.explore(30, np.random.default_rng(0))
    assert rollout.actions.dtype == dtype and len(np.unique(rollout.actions)) > 1


def test_whole_numbers_of_a_wide_range_are_refused_too() -> None:
    class Wide(Ends):
        action_space = spaces.Box(-(2**31), 2**31 - 1, (1,), np.int32)  # the difference has no room in int32

    with pytest.raises(UserError, match=r"between bounds.*--agent ppo"):
        SacAgent(EnvLoop([lambda: Wide("truncated")]), total_env_steps=100)


def test_it_is_found_by_name() -> None:
    agent = AGENTS.find("sac").make(
        make_vector_env("Pendulum-v1", 1), total_env_steps=10, hyperparameters=None, seed=0, device="cpu",
        pass_true_reward=False,
    )  # fmt: skip
    assert isinstance(agent, SacAgent)
    assert "stable-baselines3" in AGENTS.find("sb3-sac").about

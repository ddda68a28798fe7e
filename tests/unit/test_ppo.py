"""Our PPO: distributions, networks and updates against PyTorch and stable-baselines3, and values that are known."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor

from prefrl.agents import ppo
from prefrl.agents.adam import FlatAdam
from prefrl.agents.distributions import Categoricals, DiagonalGaussian
from prefrl.agents.networks import CnnActorCritic, MlpActorCritic, flatten_parameters
from prefrl.agents.ppo import Minibatch, PpoAgent, advantages_of
from prefrl.agents.ppo_settings import PpoSettings
from prefrl.agents.stepping import Stepper
from prefrl.envs import EnvLoop
from prefrl.errors import UserError
from prefrl.spaces import is_image

CPU = torch.device("cpu")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- distributions ---


def test_gaussian_agrees_with_torch_distributions() -> None:
    ours = DiagonalGaussian(spaces.Box(-1, 1, (3,)), -0.3, CPU)
    ours.log_std.data.copy_(drawn(3, seed=5) * 0.5)
    flatten_parameters(ours.parameters())
    outputs, actions = drawn(7, 3).requires_grad_(), drawn(7, 3, seed=1) * 2
    log_std = ours.log_std.detach().clone().requires_grad_()
    theirs = torch.distributions.Normal(outputs, log_std.exp())
    expected = theirs.log_prob(actions).sum(1)
    torch.testing.assert_close(ours.log_prob(outputs.detach(), actions), expected.detach())
    torch.testing.assert_close(ours.entropy(outputs.detach()), theirs.entropy().sum(1).detach())
    weights = drawn(7, seed=2)
    ((expected * weights).sum() + 0.7 * theirs.entropy().sum()).backward()
    torch.testing.assert_close(ours.gradients(weights, 0.7), outputs.grad)
    torch.testing.assert_close(ours.log_std.grad, log_std.grad)


@pytest.mark.parametrize("space", [spaces.Discrete(4, start=2), spaces.MultiDiscrete([3, 2, 4])])
def test_categoricals_agree_with_torch_distributions(space: Any) -> None:
    ours = Categoricals(space)
    outputs = drawn(9, ours.num_outputs).mul_(3).requires_grad_()
    theirs = [torch.distributions.Categorical(logits=part) for part in outputs.split(ours.sizes, 1)]
    actions = torch.stack([d.sample() for d in theirs], 1)
    expected = torch.stack([d.log_prob(actions[:, i]) for i, d in enumerate(theirs)]).sum(0)
    entropy = torch.stack([d.entropy() for d in theirs]).sum(0)
    torch.testing.assert_close(ours.log_prob(outputs.detach(), actions), expected.detach())
    torch.testing.assert_close(ours.entropy(outputs.detach()), entropy.detach())
    weights = drawn(9, seed=2)
    ((expected * weights).sum() + 0.7 * entropy.sum()).backward()
    torch.testing.assert_close(ours.gradients(weights, 0.7), outputs.grad)
    assert all(space.contains(action) for action in ours.to_env(actions))


def test_choices_are_drawn_with_their_probabilities() -> None:
    choices = Categoricals(spaces.Discrete(3))
    probabilities = torch.tensor([0.2, 0.7, 0.1])
    noise = choices.noise((20_000,), torch.Generator().manual_seed(0))
    drawn_actions = choices.sample(probabilities.log().expand(20_000, 3), noise)
    shares = torch.bincount(drawn_actions[:, 0]) / 20_000
    assert (shares - probabilities).abs().max() < 0.015  # about 4 standard errors


# --- networks ---


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_perceptrons_know_their_gradient(activation: str) -> None:
    network = MlpActorCritic(5, 3, torch.Generator().manual_seed(0), ((16, 8), (12,)), activation)
    flatten_parameters(network.parameters())
    x, d_outputs, d_values = drawn(11, 5), drawn(11, 3, seed=1), drawn(11, seed=2)
    outputs, values = network.forward(x)
    network.backward(d_outputs, d_values)
    function = {"tanh": torch.tanh, "relu": torch.relu}[activation]
    for tower, given, upstream in ((network.actor, outputs, d_outputs), (network.critic, values, d_values)):
        copies = [p.detach().clone().requires_grad_() for p in [*tower.weights, *tower.biases]]
        weights, biases = copies[: len(tower.weights)], copies[len(tower.weights) :]
        y = x
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            y = y @ weight + bias
            y = function(y) if layer < len(weights) - 1 else y
        y = y.view_as(given)
        torch.testing.assert_close(given, y.detach())
        (y * upstream).sum().backward()
        for parameter, copy in zip([*tower.weights, *tower.biases], copies, strict=True):
            torch.testing.assert_close(parameter.grad, copy.grad)


def test_convolutional_network_gives_the_gradient_of_autograd() -> None:
    network = CnnActorCritic((2, 40, 36), 3, torch.Generator().manual_seed(0))
    parameters = list(network.parameters())
    images = (drawn(4, 2, 40, 36).abs() * 80).clamp(0, 255).to(torch.uint8)
    d_outputs, d_values = drawn(4, 3, seed=1), drawn(4, seed=2)
    both = network.heads(network.trunk(images.float() / 255))
    loss = (both[:, :3] * d_outputs).sum() + (both[:, 3] * d_values).sum()
    expected = torch.autograd.grad(loss, parameters)
    flatten_parameters(parameters)
    network.train()
    with network.no_graph():
        outputs, values = network.forward(images)
        network.backward(d_outputs, d_values)
    torch.testing.assert_close(torch.cat([outputs, values[:, None]], 1), both.detach())
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_flat_adam_is_adam_with_clipping() -> None:
    start = drawn(50)
    ours, gradient = start.clone(), torch.zeros(50)
    adam = FlatAdam(ours, gradient, max_norm=0.5)
    theirs = torch.nn.Parameter(start.clone())
    optimiser = torch.optim.Adam([theirs], lr=1e-2, eps=1e-5)
    for step in range(20):
        new = drawn(50, seed=step) * (0.01 if step % 2 else 1.0)
        gradient.copy_(new)
        adam.step(1e-2)
        theirs.grad = new.clone()
        torch.nn.utils.clip_grad_norm_([theirs], 0.5)
        optimiser.step()
    torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=1e-6)


# --- against stable-baselines3 ---


def test_advantages_are_those_of_stable_baselines3() -> None:
    random = np.random.default_rng(0)
    shape = (40, 3)
    rewards, values = random.normal(size=shape), random.normal(size=(41, 3))
    terminated = random.random(shape) < 0.1
    truncated = ~terminated & (random.random(shape) < 0.1)
    end_values = random.normal(size=shape)
    buffer = RolloutBuffer(40, spaces.Box(-1, 1, (1,)), spaces.Box(-1, 1, (1,)), gamma=0.9, gae_lambda=0.8, n_envs=3)
    ended = terminated | truncated
    for t in range(40):
        bootstrapped = rewards[t] + 0.9 * end_values[t] * truncated[t]  # what on-policy algorithms there store
        starts = ended[t - 1] if t else np.zeros(3)
        buffer.add(np.zeros((3, 1)), np.zeros((3, 1)), bootstrapped, starts, torch.tensor(values[t]), torch.zeros(3))
    buffer.compute_returns_and_advantage(torch.tensor(values[40]), ended[-1])
    next_values = np.where(truncated, end_values, values[1:])
    ours = advantages_of(rewards, values[:-1], next_values, terminated, truncated, 0.9, 0.8)
    np.testing.assert_allclose(ours, buffer.advantages, atol=1e-6)


def test_a_step_that_terminates_and_is_cut_off_does_not_bootstrap() -> None:
    flag = np.ones((1, 1), np.bool_)
    ours = advantages_of(np.ones((1, 1)), np.zeros((1, 1)), np.full((1, 1), 9.0), flag, flag, 0.9, 0.9)
    assert ours.item() == 1.0


class Noise(gymnasium.Env[Any, Any]):
    """Observations drawn from a space, reward 1, cut off after some steps or terminated."""

    def __init__(self, observations: Any, actions: Any, length: int = 7, terminates: bool = False) -> None:
        self.observation_space, self.action_space = observations, actions
        self.length, self.terminates, self.steps = length, terminates, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        self.steps += 1
        over = self.steps == self.length
        observation = self.observation_space.sample()
        return observation, 1.0, over and self.terminates, over and not self.terminates, {}


def agent_on(observations: Any, actions: Any, *, num_envs: int = 2, total: int = 1000, **hyper: Any) -> PpoAgent:
    settings = {"n_steps": 16, "batch_size": 16, "n_epochs": 2, **hyper}
    if not is_image(observations):
        settings = {"policy_kwargs": {"net_arch": [8]}, **settings}
    envs = EnvLoop([lambda: Noise(observations, actions)] * num_envs)
    return PpoAgent(envs, total_env_steps=total, hyperparameters=settings, seed=3, pass_true_reward=True)


HYPER: dict[str, dict[str, Any]] = {
    "defaults": {},
    "entropy": {"ent_coef": 0.05},
    "values clipped": {"clip_range_vf": 0.1, "vf_coef": 0.7},
    "advantages as they are": {"normalize_advantage": False},
    "long gradients": {"max_grad_norm": 1e-3},
}


@pytest.mark.parametrize("actions", [spaces.Box(-1, 1, (3,)), spaces.Discrete(4), spaces.MultiDiscrete([3, 4])])
@pytest.mark.parametrize("hyper", HYPER.values(), ids=HYPER)
def test_an_update_is_that_of_stable_baselines3(actions: Any, hyper: dict[str, Any]) -> None:
    observations, size = spaces.Box(-1, 1, (5,)), 96
    common = {"n_steps": size // 2, "batch_size": size, "n_epochs": 4, "learning_rate": 3e-3, **hyper}
    ours = agent_on(observations, actions, **common, normalize_observations=False)
    theirs = PPO(
        "MlpPolicy",
        DummyVecEnv([lambda: Noise(observations, actions)] * 2),
        policy_kwargs={"net_arch": [8]},
        device="cpu",
        **common,
    )
    _copy_weights(ours, theirs.policy)
    random = np.random.default_rng(1)
    shape = (size // 2, 2)
    buffer = theirs.rollout_buffer
    buffer.observations[:] = random.normal(size=buffer.observations.shape)
    actions.seed(1)
    chosen = np.stack([actions.sample() for _ in range(size)]).reshape(buffer.actions.shape)
    buffer.actions[:] = chosen
    for name in ("values", "advantages", "returns"):
        getattr(buffer, name)[:] = random.normal(size=shape)
    flat = {name: torch.tensor(buffer.swap_and_flatten(getattr(buffer, name))) for name in ("observations", "actions")}
    kept = flat["actions"] if isinstance(actions, spaces.Box) else flat["actions"].long()
    with torch.no_grad():
        _, log_probs, _ = theirs.policy.evaluate_actions(flat["observations"], kept.squeeze(1))
    buffer.log_probs[:] = (log_probs + 0.3 * drawn(size)).numpy().reshape(2, -1).T
    buffer.full = True
    columns = [
        torch.tensor(buffer.swap_and_flatten(getattr(buffer, name)))[:, 0]
        for name in ("log_probs", "values", "advantages", "returns")
    ]
    theirs.set_logger(configure(None, []))
    theirs.train()
    with torch.no_grad():
        ours._update(Minibatch(flat["observations"], kept, *columns))
    for mine, other in zip(*_weights(ours, theirs.policy), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)


def _weights(ours: PpoAgent, policy: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Return the weights of both in the same order and form."""
    network = ours._network
    assert isinstance(network, MlpActorCritic)
    mine: list[Tensor] = []
    for tower in (network.actor, network.critic):
        mine += [w.t() for w in tower.weights] + list(tower.biases)
    pairs = (
        (policy.mlp_extractor.policy_net[0], policy.action_net),
        (policy.mlp_extractor.value_net[0], policy.value_net),
    )
    other = [getattr(layer, kind).detach() for layers in pairs for kind in ("weight", "bias") for layer in layers]
    own = ours._actions.parameters()
    return mine + [p.data for p in own], other + ([policy.log_std.detach()] if own else [])


def _copy_weights(ours: PpoAgent, policy: Any) -> None:
    for mine, other in zip(*_weights(ours, policy), strict=True):
        other.copy_(mine + 0.3 * drawn(*mine.shape))
        mine.copy_(other)


# --- what is known beforehand ---


def values_after(envs: EnvLoop, gamma: float) -> Tensor:
    hyper = {"n_steps": 64, "batch_size": 64, "gamma": gamma, "learning_rate": 1e-2, "normalize_observations": False}
    agent = PpoAgent(envs, total_env_steps=16_000, hyperparameters=hyper, pass_true_reward=True)
    agent.reset_environments(0)
    for _ in range(40):
        rollout = agent.improve(None).rollout
    return agent._network.forward(agent._inputs.encode(rollout.observations[:-1].reshape(-1, 2)))[1]


@pytest.mark.slow
def test_value_of_an_endless_reward_of_one_is_1_over_1_minus_gamma() -> None:
    space = spaces.Box(-1, 1, (2,))
    values = values_after(EnvLoop([lambda: Noise(space, spaces.Discrete(2), length=10)] * 4), gamma=0.9)
    assert abs(values.mean() - 10.0) < 0.3


@pytest.mark.slow
def test_termination_ends_the_value() -> None:
    space = spaces.Box(-1, 1, (2,))
    envs = EnvLoop([lambda: Noise(space, spaces.Discrete(2), length=1, terminates=True)] * 4)
    assert abs(values_after(envs, gamma=0.9).mean() - 1.0) < 0.05


# --- behind the protocol ---

PIXELS = spaces.Box(0, 255, (40, 44, 3), np.uint8)
SPACES: dict[str, tuple[Any, Any]] = {
    "box": (spaces.Box(-1, 1, (2, 3)), spaces.Box(-2, 2, (2, 2))),
    "dict": (spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Discrete(3)}), spaces.Discrete(2, start=1)),
    "discrete": (spaces.Discrete(5), spaces.MultiDiscrete([2, 3])),
    "images, channels last": (PIXELS, spaces.Discrete(3)),
    "images, channels first": (spaces.Box(0, 255, (3, 40, 44), np.uint8), spaces.Box(-1, 1, (2,))),
}


@pytest.mark.parametrize("given", SPACES.values(), ids=SPACES)
def test_every_space_can_be_learned_in(given: tuple[Any, Any]) -> None:
    agent = agent_on(*given)
    agent.reset_environments(0)
    assert agent.explore(20, np.random.default_rng(0)).num_steps == 20
    before = agent.policy_state()["network"]
    improvement = agent.improve(None)
    rollout = improvement.rollout
    assert rollout.num_steps == 32 and agent.num_env_steps == 52
    assert rollout.truncated.sum() == len(rollout.ended.nonzero()[0])
    assert np.array_equal(improvement.learned_rewards, np.ones((16, 2)))
    after = agent.policy_state()["network"]
    assert not any(torch.equal(before[name], after[name]) for name in before)
    observations, _, _ = rollout.flat_transitions()
    actions = agent.act(observations)
    assert len(actions) == 32 and all(given[1].contains(action) for action in actions)
    assert np.array_equal(actions, agent.act(observations))


def test_images_are_scored_part_by_part_so_that_a_rollout_is_held_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ppo, "IMAGES_AT_ONCE", 6)
    agent = agent_on(*SPACES["images, channels last"])
    agent._on_true_reward = False
    agent.reset_environments(0)
    given: list[Any] = []

    def reward(*transitions: Any) -> Any:
        given.append(transitions)
        return np.asarray(transitions[0], float).mean((1, 2, 3))

    improvement = agent.improve(reward)
    rollout, whole = improvement.rollout, improvement.rollout.flat_transitions()
    assert rollout.truncated.any() and [len(actions) for _, actions, _ in given] == [6, 6, 6, 6, 6, 2]
    for parts, expected in zip(zip(*given, strict=True), whole, strict=True):
        assert np.array_equal(np.concatenate(parts), expected)
    assert all(np.shares_memory(part[0], rollout.observations) for part in given)
    np.testing.assert_allclose(improvement.learned_rewards.ravel(), whole[0].mean((1, 2, 3)), rtol=1e-6)


def test_going_on_from_a_state_is_going_on() -> None:
    def run(agent: PpoAgent, iterations: int) -> None:
        for _ in range(iterations):
            agent.improve(lambda s, a, s2: np.asarray(s)[:, 0])

    _, actions = SPACES["box"]
    whole, first, second = (agent_on(spaces.Box(-1, 1, (3,)), actions, normalize_returns=True) for _ in range(3))
    for agent in (whole, first):
        agent.reset_environments(0)
        run(agent, 2)
    buffer = io.BytesIO()
    torch.save(first.state()[0], buffer)
    buffer.seek(0)
    second.restore(torch.load(buffer, weights_only=True), {})
    for agent in (whole, second):
        agent.reset_environments(1)
        run(agent, 2)
    a, b = whole.state()[0], second.state()[0]
    assert all(torch.equal(a["policy"]["network"][k], b["policy"]["network"][k]) for k in a["policy"]["network"])
    assert torch.equal(a["adam"]["second"], b["adam"]["second"]) and torch.equal(a["random"], b["random"])
    assert torch.equal(a["policy"]["inputs"]["mean"], b["policy"]["inputs"]["mean"])


def test_final_observations_of_gymnasiums_vector_environments_are_understood() -> None:
    makes = [lambda length=length: Noise(spaces.Box(-1, 1, (2,)), spaces.Discrete(2), length) for length in (3, 5)]
    ours = Stepper(EnvLoop(makes))
    theirs = Stepper(SyncVectorEnv(makes, autoreset_mode=AutoresetMode.SAME_STEP))
    for stepper in (ours, theirs):
        stepper.reset(0)
        stepper.begin(20)
        for _ in range(15):
            stepper.step(np.zeros(2, np.int64))
    a, b = ours.take(), theirs.take()
    assert np.array_equal(a.observations, b.observations) and np.array_equal(a.last_observations, b.last_observations)
    assert np.array_equal(a.next_observations(), b.next_observations()) and len(a.last_observations) == 8


def test_a_replayed_update_is_the_same_update() -> None:
    """On a GPU steps are recorded as graphs; here the recording is a function that warms up, as that does."""
    recorded = []

    def record(function: Callable[[], None]) -> Callable[[], None]:
        recorded.append(function)
        for _ in range(3):
            function()
        return function

    clips = {"clip_range": "linear:0.01", "clip_range_vf": "linear:0.01"}
    agents = [agent_on(*SPACES["box"], total=100, n_steps=20, n_epochs=3, **clips) for _ in range(2)]
    agents[0]._arrays = None  # what is recorded is PyTorch's
    agents[1]._replay_updates(record)
    for agent in agents:
        agent.reset_environments(0)
        for _ in range(2):
            agent.improve(None)
    assert torch.equal(agents[0]._adam.parameters, agents[1]._adam.parameters)
    assert len(recorded) == 1  # though the clip ranges have fallen in between


@pytest.mark.parametrize("message", ["operation not permitted when stream is capturing", ""])
def test_an_update_that_cannot_be_recorded_goes_on_with_a_warning(message: str) -> None:
    def fail(function: Callable[[], None]) -> Callable[[], None]:
        function()
        raise RuntimeError(message)

    agents = [agent_on(*SPACES["box"]) for _ in range(2)]
    agents[0]._arrays = None
    agents[1]._replay_updates(fail)
    agents[0].reset_environments(0)
    agents[0].improve(None)
    agents[1].reset_environments(0)
    with pytest.warns(UserWarning, match=f"runs slower: {message or 'RuntimeError'}"):
        agents[1].improve(None)
    assert torch.equal(agents[0]._adam.parameters, agents[1]._adam.parameters)


def test_minibatches_smaller_than_asked_for_are_recorded_too() -> None:
    agent, recorded = agent_on(*SPACES["box"], batch_size=1_000), []

    def record(function: Callable[[], None]) -> Callable[[], None]:
        recorded.append(function)
        return function

    agent._replay_updates(record)
    agent.reset_environments(0)
    agent.improve(None)
    assert len(recorded) == 1


def test_a_policy_that_diverges_says_so() -> None:
    agent = agent_on(*SPACES["box"], learning_rate=1e30)
    agent.reset_environments(0)
    with pytest.raises(UserError, match=r"policy diverged.*smaller learning rate"):  # noqa: PT012  (which one?)
        for _ in range(3):
            agent.improve(None)


def test_a_rollout_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = agent_on(*SPACES["box"], n_steps=10**12)
    agent.reset_environments(0)
    with pytest.raises(UserError, match=r"rollout take about .* are free. Use fewer --num-envs, a smaller --hyper n_s"):
        agent.improve(None)


def test_too_little_memory_of_the_gpu_names_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = agent_on(*SPACES["box"])
    agent.reset_environments(0)

    for error in (
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ):
        monkeypatch.setattr(agent, "_update", Mock(side_effect=error))
        with pytest.raises(UserError, match=r"too little memory: CUDA .* Use fewer --num-envs"):
            agent.improve(None)
    monkeypatch.setattr(agent, "_update", Mock(side_effect=RuntimeError("another mistake")))
    with pytest.raises(RuntimeError, match="another mistake"):
        agent.improve(None)


def test_the_update_stops_at_target_kl() -> None:
    moved = []
    for target in (None, 1e-9):
        agent = agent_on(*SPACES["box"], learning_rate=1e-2, n_epochs=20, target_kl=target)
        agent.reset_environments(0)
        agent.improve(None)
        moved.append(agent._adam.num_steps)
    assert moved[0] == 40 and 1 <= moved[1] <= 3


def test_a_falling_learning_rate_ends_at_zero() -> None:
    agent = agent_on(*SPACES["box"], total=32, learning_rate="linear:0.01")
    agent.reset_environments(0)
    before = agent.policy_state()["network"]
    agent.improve(None)
    assert all(torch.equal(before[name], values) for name, values in agent.policy_state()["network"].items())


def test_observations_are_normalised_until_told() -> None:
    agent = agent_on(*SPACES["box"], total=100, normalize_until=0.5)
    agent.reset_environments(0)
    counts = []
    for _ in range(3):
        agent.improve(None)
        assert agent._inputs.moments is not None
        counts.append(round(agent._inputs.moments.count))
    assert counts == [32, 64, 64]


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"learningrate": 1.0}, "did you mean|Did you mean"),
        ({"use_sde": True}, "no hyper-parameter 'use_sde'"),
        ({"learning_rate": "fast"}, "learning_rate must be a number"),
        ({"clip_range": "linear:x"}, "clip_range must be a number"),
        ({"batch_size": 0}, "at least 1"),
        ({"n_steps": 2.5}, "whole number"),
        ({"gamma": 1.5}, r"in \[0, 1\]"),
        ({"gamma": "abc"}, r"gamma must be in \[0, 1\]"),
        ({"max_grad_norm": 0}, "positive"),
        ({"max_grad_norm": "abc"}, "max_grad_norm must be a finite number"),
        ({"ent_coef": math.nan}, "ent_coef must be a finite number"),
        ({"target_kl": "abc"}, "target_kl must be a finite number"),
        ({"learning_rate": -1}, "at least 0"),
        ({"learning_rate": math.nan}, "at least 0"),
        ({"normalize_returns": "maybe"}, "true or false"),
        ({"policy_kwargs": 3}, "policy_kwargs must name"),
        ({"policy_kwargs": {"net_arch": "abc"}}, "net_arch must be a list"),
        ({"policy_kwargs": {"net_arch": [0]}}, "net_arch must be a list"),
        ({"policy_kwargs": {"log_std_init": "x"}}, "log_std_init"),
        ({"policy_kwargs": {"net_arc": [8]}}, "net_arch"),
        ({"policy_kwargs": {"activation_fn": "gelu"}}, "tanh, relu"),
    ],
)
def test_wrong_hyperparameters_are_refused(hyper: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        agent_on(*SPACES["box"], **hyper)


def test_the_network_for_images_is_not_for_choice() -> None:
    with pytest.raises(UserError, match="activation_fn and net_arch of policy_kwargs"):
        agent_on(*SPACES["images, channels last"], policy_kwargs={"net_arch": [8], "activation_fn": "relu"})


def test_spaces_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="sb3-ppo"):
        agent_on(spaces.Dict({"image": PIXELS, "speed": spaces.Box(-1, 1, (1,))}), spaces.Discrete(2))
    with pytest.raises(UserError, match="all boxes of floats"):
        agent_on(spaces.Discrete(3), spaces.Discrete(2), normalize_observations=True)
    with pytest.raises(UserError, match="SAME_STEP"):
        Stepper(SyncVectorEnv([lambda: Noise(PIXELS, spaces.Discrete(2))]))


def test_settings_have_the_defaults_of_stable_baselines3() -> None:
    import inspect

    theirs = inspect.signature(PPO.__init__).parameters
    for name in PpoSettings.__dataclass_fields__:
        if name in theirs and name != "policy_kwargs":
            assert getattr(PpoSettings(), name) == theirs[name].default, name

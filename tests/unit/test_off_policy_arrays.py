"""Updates of SAC and TD3 in NumPy are those in PyTorch, on the same memory, and the same with one thread or two."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from prefrl.agents.networks import flatten_parameters
from prefrl.agents.off_policy import OffPolicyAgent
from prefrl.agents.sac import SacAgent
from prefrl.agents.sac_arrays import ArraySquashedGaussian
from prefrl.agents.sac_networks import SquashedGaussian
from prefrl.agents.td3 import Td3Agent
from prefrl.agents.tower_arrays import ArrayTower
from prefrl.agents.towers import Towers
from prefrl.envs import make_vector_env
from prefrl.threads import one_thread, torch_threads
from tests.unit.test_sac import SMALL, formula

KINDS: dict[str, type[OffPolicyAgent[Any]]] = {"sac": SacAgent, "td3": Td3Agent}
HYPER: dict[str, dict[str, Any]] = {
    "as it is": {},
    "three critics": {"policy_kwargs": {"net_arch": [9, 7], "n_critics": 3}},
    "one critic": {"policy_kwargs": {"net_arch": [9], "n_critics": 1}},
    "tanh": {"policy_kwargs": {"net_arch": {"pi": [8, 6, 5], "qf": [7, 4, 6]}, "activation_fn": "tanh"}},
    "no hidden layers": {"policy_kwargs": {"net_arch": []}},
    "several updates at once": {"gradient_steps": 3, "train_freq": 2, "normalize_observations": True},
}


@pytest.fixture(autouse=True)
def short_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefrl.agents.off_policy.ITERATION", 40)


@pytest.fixture
def with_a_second_thread() -> Iterator[None]:
    with torch_threads(2), one_thread():
        yield


def agent_of(kind: str, **hyper: Any) -> OffPolicyAgent[Any]:
    settings = copy.deepcopy({**SMALL, "learning_rate": 1e-3, **hyper})
    agent = KINDS[kind](make_vector_env("Pendulum-v1", 2), total_env_steps=1000, hyperparameters=settings, seed=3)
    agent.reset_environments(0)
    agent.explore(40, np.random.default_rng(0))
    return agent


def weights(agent: OffPolicyAgent[Any]) -> dict[str, torch.Tensor]:
    state = agent.state()[0]
    found = {f"{part} {name}": value for part in ("critics", "targets") for name, value in state[part].items()}
    found |= {f"actor {name}": value for name, value in state["policy"]["actor"].items()}
    for number, adam in enumerate(agent._adams):
        found |= {f"Adam {number}, {name}": getattr(adam, name).clone() for name in ("first", "second")}
    return found


@pytest.mark.parametrize("hyper", HYPER.values(), ids=HYPER)
@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_as_pytorch_does(kind: str, hyper: dict[str, Any]) -> None:
    one, other = agent_of(kind, **hyper), agent_of(kind, **hyper)
    assert one._arrays is not None
    other._arrays = None
    before = weights(one)
    for agent in (one, other):
        agent.improve(formula)
    found, expected = weights(one), weights(other)
    assert all((found[name] - before[name]).abs().max() > 1e-5 for name in found if "Adam" not in name)
    for name, values in found.items():
        apart = 2e-5 if "Adam" not in name else 0.02 * float(values.abs().max())  # they grow from step to step
        torch.testing.assert_close(values, expected[name], rtol=1e-3, atol=apart, msg=lambda m, n=name: f"{n}: {m}")
    assert [adam.num_steps for adam in one._adams] == [adam.num_steps for adam in other._adams]
    seen = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_allclose(one.act(seen), other.act(seen), rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("with_a_second_thread")
@pytest.mark.parametrize("kind", KINDS)
def test_two_threads_make_the_same_numbers_as_one(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found, aside = [], []
    monkeypatch.setattr("prefrl.threads.TIMES_ALONE", 0)  # whatever else is at work on this machine
    for held_back in (1, 0):
        monkeypatch.setattr("prefrl.threads._held_back", held_back)
        agent = agent_of(kind)
        submit = agent._side_by_side._worker.submit
        monkeypatch.setattr(agent._side_by_side._worker, "submit", lambda *a, s=submit: (aside.append(1), s(*a))[1])
        agent.improve(formula)
        found.append(weights(agent))
        assert len(aside) > 40
        agent.close()
    for name, values in found[0].items():
        assert torch.equal(values, found[1][name]), name


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("hidden", [[], [6], [8, 7]])
def test_a_tower_in_arrays_has_the_outputs_and_gradients_of_its_tower(hidden: list[int], activation: str) -> None:
    torch.manual_seed(0)
    towers = Towers(3, [4, *hidden, 1], activation, torch.Generator().manual_seed(1))
    _, flat_gradient = flatten_parameters(towers.parameters())
    x, by_outputs = torch.randn(5, 4), torch.randn(3, 5, 1)
    rows = np.array([0, 2, 4])
    with torch.inference_mode():
        outputs = towers.forward(x).clone()
        towers.backward(by_outputs)
        expected = flat_gradient.clone()
        flat_gradient.zero_()
        for number in range(3):
            tower = ArrayTower(towers, number)
            np.testing.assert_allclose(tower.forward(x.numpy()), outputs[number], rtol=1e-5, atol=1e-6)
            tower.backward(by_outputs[number].numpy())
            alone = torch.zeros(3, 5, 1)
            alone[number] = 0.3
            by_inputs = towers.by_inputs(alone)
            np.testing.assert_allclose(tower.by_inputs(0.3, 1), by_inputs[:, 1:], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(tower.by_inputs(0.3, 2, rows), by_inputs[rows, 2:], rtol=1e-5, atol=1e-6)
            assert tower.by_inputs(0.3, 2, rows[:0]).shape == (0, 2)
    torch.testing.assert_close(flat_gradient, expected)


def test_the_squashed_gaussian_in_arrays_is_that_in_tensors() -> None:
    random = np.random.default_rng(0)
    outputs, noise, by_actions = (random.normal(size=(6, n)).astype(np.float32) for n in (4, 2, 2))
    outputs[0, 2], outputs[1, 3] = 5.0, -30.0  # beyond what the standard deviation may be
    noise[0, 0] = 0.05  # where tanh is 1 but for the last bits, so are these all that is left of its slope
    found = ArraySquashedGaussian(outputs, noise)
    expected = SquashedGaussian(torch.from_numpy(outputs), torch.from_numpy(noise))
    np.testing.assert_allclose(found.actions, expected.actions, rtol=1e-5)
    np.testing.assert_allclose(found.log_probs(), expected.log_probs(), rtol=1e-5)
    gradient = expected.by_outputs(0.3, torch.from_numpy(by_actions))
    np.testing.assert_allclose(found.by_outputs(0.3, by_actions), gradient, rtol=1e-4, atol=1e-5)

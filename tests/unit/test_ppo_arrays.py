"""The update in NumPy is that in PyTorch: the same rollouts, losses and steps, up to rounding, on the same memory."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch

from prefrl.agents.ppo import PpoAgent
from prefrl.agents.ppo_arrays import ArrayMinibatch
from tests.unit.test_ppo import HYPER, SPACES, agent_on

VECTORS = {name: given for name, given in SPACES.items() if not name.startswith("images")}
MORE: dict[str, dict[str, Any]] = {
    **HYPER,
    "rectified": {"policy_kwargs": {"net_arch": [8, 5], "activation_fn": "relu"}},
    "no hidden layer": {"policy_kwargs": {"net_arch": {"pi": [], "vf": [4]}}},
    "ends early": {"target_kl": 1e-4, "learning_rate": 3e-3},
    "a last minibatch of one": {"batch_size": 31},
}


def pair(given: tuple[Any, Any], **hyper: Any) -> tuple[PpoAgent, PpoAgent]:
    """Return an agent as it is on the CPU, and one whose networks are left to PyTorch."""
    one, other = (agent_on(*deepcopy(given), **hyper) for _ in range(2))  # what spaces draw is in them
    assert one._arrays is not None
    other._arrays = None
    for agent in (one, other):
        agent.reset_environments(0)
    return one, other


@pytest.mark.parametrize("hyper", MORE.values(), ids=MORE)
@pytest.mark.parametrize("given", VECTORS.values(), ids=VECTORS)
def test_it_learns_as_pytorch_does(given: tuple[Any, Any], hyper: dict[str, Any]) -> None:
    one, other = pair(given, **{"clip_range": "linear:0.3", **hyper})
    for _ in range(4):
        first, second = one.improve(None), other.improve(None)
        np.testing.assert_allclose(first.rollout.actions, second.rollout.actions, rtol=1e-4, atol=1e-5)
        for name, figure in first.figures.items():
            np.testing.assert_allclose(figure, second.figures[name], rtol=1e-3, atol=1e-5, err_msg=name)
    assert one._adam.num_steps == other._adam.num_steps
    for name in ("parameters", "first", "second"):
        mine, theirs = getattr(one._adam, name), getattr(other._adam, name)
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=2e-6, msg=lambda said, name=name: f"{name}: {said}")


@pytest.mark.parametrize("given", VECTORS.values(), ids=VECTORS)
def test_one_gradient_is_that_of_pytorch(given: tuple[Any, Any]) -> None:
    one, other = pair(given, ent_coef=0.01, max_grad_norm=1e9)
    gradients = []
    for agent in (one, other):
        with agent._network.no_graph():
            inputs, actions, rollout = agent._collect()
            learned = np.random.default_rng(0).normal(size=rollout.terminated.shape).astype(np.float32)
            batch = agent._batch(inputs, actions, rollout, learned)
            if agent._arrays is not None:
                agent._arrays.step(ArrayMinibatch.of(batch), 0.0, 0.2, None)
            else:
                agent._set_clips(0.2, None)
                agent._adam.prepare(0.0)
                agent._step(batch)
        gradients.append(agent._adam.gradient.clone())
    assert gradients[0].abs().max() > 1e-3
    torch.testing.assert_close(*gradients, rtol=2e-5, atol=2e-7)


def test_a_state_that_is_taken_over_is_what_it_learns_on_from() -> None:
    one, goes_on = agent_on(*SPACES["box"]), agent_on(*SPACES["box"])
    one.reset_environments(0)
    one.improve(None)
    goes_on.restore(*one.state())
    found = []
    for agent in (one, goes_on):
        agent.reset_environments(1)
        SPACES["box"][0].seed(5)  # which draws what is seen
        agent.improve(None)
        found.append(agent._adam.parameters.clone())
    assert torch.equal(*found)

"""The same results on a GPU as on the CPU; left out where there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from prefrl.agents.ppo import Minibatch, PpoAgent
from prefrl.envs import make_vector_env
from prefrl.envs.service_desk import ServiceDesk
from prefrl.rewards import ComparisonData, FitSettings, Fitter, RewardEnsemble
from prefrl.segments import Segment
from prefrl.text.model.generation import Sampled, SamplingSettings, sample
from prefrl.text.model.models import ARCHITECTURES, PRESETS, build_model
from prefrl.text.model.tokens import Tokens, train_tokenizer

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
    pytest.mark.filterwarnings("error:The update could not be recorded"),
    pytest.mark.filterwarnings("error:A step of sampling could not be recorded"),
]
BATCH = 32


def agent_on(device: str, env_id: str, **hyper: Any) -> PpoAgent:
    settings = {"n_steps": 32, "batch_size": BATCH, "n_epochs": 2, "clip_range": "linear:0.1", **hyper}
    envs = make_vector_env(env_id, 4)
    return PpoAgent(envs, total_env_steps=1000, hyperparameters=settings, seed=3, device=device, pass_true_reward=True)


def minibatches(agent: PpoAgent, num: int) -> list[Minibatch]:
    random = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    shape = agent._inputs.shape
    images = agent._inputs.images
    made = []
    for _ in range(num):
        inputs = torch.randint(256, (BATCH, *shape), generator=random) if images else draw(BATCH, *shape)
        actions = draw(BATCH, 6) if isinstance(agent.action_space, spaces.Box) else torch.zeros(BATCH, 1).long()
        columns = draw(BATCH) - 5, draw(BATCH), draw(BATCH), draw(BATCH)
        made.append(Minibatch(inputs.byte() if images else inputs, actions, *columns))
    return made


@pytest.mark.parametrize(("env_id", "apart"), [("HalfCheetah-v5", 0.01), ("prefrl/Atari-Pong-v0", 0.2)])
def test_updates_replayed_on_a_gpu_are_those_of_the_cpu(env_id: str, apart: float) -> None:
    """Up to a share of what they moved: images go through bfloat16, and Adam makes much of small differences."""
    agents = [agent_on(device, env_id) for device in ("cpu", "cuda")]
    before = agents[0]._adam.parameters.detach().clone()
    for number in range(2):  # the clip range falls in between
        for agent in agents:
            agent._num_env_steps = number * 300
            for part in minibatches(agent, 3):
                with agent._network.no_graph():
                    agent._update(Minibatch(*(values.to(agent._device) for values in part)))
    assert agents[1]._replayed is not None and agents[1]._replayed._replay is not None
    first, second = (agent._adam.parameters.detach().cpu() for agent in agents)
    assert (first - second).abs().mean() < apart * (first - before).abs().mean()


@pytest.mark.parametrize("env_id", ["CartPole-v1", "HalfCheetah-v5", "prefrl/Atari-Pong-v0"])
def test_learning_on_a_gpu_is_recorded_and_can_go_on_from_a_state(env_id: str) -> None:
    agent = agent_on("cuda", env_id)
    agent.reset_environments(0)
    improvement = agent.improve(None)
    assert improvement.rollout.num_steps == 128 and torch.isfinite(agent._adam.parameters).all()
    again = agent_on("cuda", env_id)
    again.restore(*agent.state())
    assert torch.equal(agent._adam.parameters, again._adam.parameters)
    seen = improvement.rollout.observations[0]
    assert np.array_equal(agent.act(seen), again.act(seen))
    again.reset_environments(1)
    again.improve(None)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_responses_sampled_by_recorded_steps_are_those_of_the_cpu(architecture: str) -> None:
    tokens = Tokens(train_tokenizer(ServiceDesk(0).prompts(40), 200))
    model = build_model(PRESETS["tiny"], tokens, architecture=architecture, seed=0).eval()
    prompts = [tokens.encode_prompt(text) for text in ServiceDesk(1).prompts(9)]

    def draw() -> Sampled:
        settings = SamplingSettings(max_tokens=20, greedy=True)
        return sample(model, prompts, settings, end_id=tokens.end_id, pad_id=tokens.pad_id, samples_per_prompt=2)

    on_cpu = draw()
    model.to("cuda")
    on_gpu = draw()
    agree = (on_gpu.sequences.response_ids.cpu() == on_cpu.sequences.response_ids).float().mean()
    assert agree > 0.95, "two tokens may be as likely as each other up to rounding"


@pytest.mark.parametrize("observations", [spaces.Box(-1, 1, (5,)), spaces.Box(0, 255, (4, 84, 84), np.uint8)])
def test_a_reward_is_fitted_on_a_gpu(observations: Any) -> None:
    random, actions = np.random.default_rng(0), spaces.Discrete(3)
    ensemble = RewardEnsemble(observations, actions, device="cuda")
    data = ComparisonData(ensemble, 4)
    pairs = []
    for _ in range(12):
        seen = [np.stack([observations.sample() for _ in range(5)]) for _ in range(2)]
        pairs.append([Segment(observations=s, actions=np.zeros(4, int), true_rewards=np.zeros(4)) for s in seen])
    data.add(pairs, random.integers(2, size=12).astype(float).tolist(), random)
    report = Fitter(ensemble, FitSettings(first_steps=20)).fit(data, torch.Generator().manual_seed(0))
    assert report.num_comparisons == 12
    assert np.isfinite(ensemble(*pairs[0][0].transitions())).all()


def test_an_image_model_trains_on_a_gpu_as_on_the_cpu() -> None:
    pytest.importorskip("diffusers")
    from prefrl.envs.scenes import Scenes
    from prefrl.image.model import SHAPES, ImageModel
    from prefrl.image.model import build_model as build_image_model
    from prefrl.image.policy import PolicySettings, PolicyTrainer

    world = Scenes(0)
    prompts = world.prompts(8)
    settings = PolicySettings(steps=2, prompts=2, images=2, minibatch_size=8, baseline="value", beta=0.01)
    made: list[ImageModel] = []
    scores = []
    for device in ("cpu", "cuda"):
        model = build_image_model(SHAPES["tiny"], prompts, 16, seed=0).to(device)
        trainer = PolicyTrainer(model, prompts, world.gold, settings, 4)
        scores.append([trainer.step()["score"] for _ in range(2)])
        made.append(model)
    assert scores[1] == pytest.approx(scores[0], abs=0.05)
    for one, other in zip(made[0].trained(), made[1].trained(), strict=True):
        assert torch.allclose(one, other.cpu(), atol=1e-3)

"""Losses, gradients and every figure of several processes, and of micro-batches, are those of one process at once."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from tests.unit import text_models

# The fixture trains every method four times: some four minutes on two free cores, more beside other tests.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
METHODS = (
    "sft",
    "reward",
    "dpo",
    "kto",
    "ppo",
    "rloo",
    "grpo",
    "online",
    "online4",
    "reward-lora",
    "dpo-lora",
    "ppo-lora",
)
TRAIN = """
import json, sys
from dataclasses import replace
from pathlib import Path
import torch
from prefrl.text.data.examples import Encoder, Liked, RankedResponses
from prefrl.text.learn.estimating import EstimatorSettings, EstimatorTrainer, grpo_settings
from prefrl.text.learn.online import OnlineSettings, OnlineTrainer
from prefrl.runs.optimisation import OptimiserSettings
from prefrl.text.learn.ppo import PPOTrainer, TextPPOSettings
from prefrl.text.learn.preference import PreferenceSettings, PreferenceTrainer
from prefrl.text.learn.reward_model import ModelReward, RewardModel
from prefrl.text.learn.reward_training import RewardTrainer, RewardTrainingSettings, encode_rankings
from prefrl.text.learn.runtime import Runtime
from prefrl.text.learn.sft import SFTSettings, SFTTrainer, encode_examples
from prefrl.text.data.examples import Example
from prefrl.text.model.generation import SamplingSettings
from prefrl.text.model.lora import LoraSettings, add_lora
from prefrl.text.model.models import load_model

folder, micro, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
runtime = Runtime("cpu")
torch.set_num_threads(1)
rate = OptimiserSettings(learning_rate=1e-3, adam_eps=1e-3)
words = ["yes", "no, never", "perhaps tomorrow", "a", "not at all", "so it is said"]
prompts = [f"{'x' * (i % 5)} {i}?" for i in range(30)]
threes = [(words[i % 6], words[(i + 1 + i % 3) % 6], words[(i + 5) % 6]) for i in range(30)]
rankings = [RankedResponses(prompt=p, responses=three[: 2 + i % 2], ranks=(0, 1, 2)[: 2 + i % 2])
            for i, (p, three) in enumerate(zip(prompts, threes))]
likes = [Liked(prompt=p, response=words[i % 6], liked=i % 3 == 0) for i, p in enumerate(prompts)]
shared = {"optimiser": rate, "seed": 3, "micro_batch_size": micro}
figures = {}
for method in METHODS:
    model, tokens = load_model(folder)
    encoder = Encoder(tokens, 64, 24)
    kind, lora = method.removesuffix("-lora"), LoraSettings(rank=2 if method.endswith("-lora") else 0)
    if kind != "reward":
        model = add_lora(model, lora, 5)
    options = {"runtime": runtime}
    if kind == "sft":
        data = encode_examples(encoder, [Example(prompt=i.prompt, response=i.response) for i in likes])
        settings = SFTSettings(batch_size=7, epochs=4, **shared)
        trainer = SFTTrainer(model, data, settings, pad_id=tokens.pad_id, **options)
    elif kind == "reward":
        settings, data = RewardTrainingSettings(batch_size=7, epochs=4, **shared), encode_rankings(encoder, rankings)
        scorer = RewardModel.from_policy(model, 1)
        scorer.add_lora(lora, 5)
        trainer = RewardTrainer(scorer, data, settings, pad_id=tokens.pad_id, **options)
    elif kind in ("dpo", "kto"):
        settings = PreferenceSettings(method=kind, batch_size=7, epochs=4, **shared)
        trainer = PreferenceTrainer(model, encoder, likes if kind == "kto" else rankings, settings, **options)
    else:
        reward = ModelReward([RewardModel.from_policy(load_model(folder)[0], 2).requires_grad_(False)], tokens)
        online = dict(epochs=2, adaptive_kl_nats=0.1, adaptive_kl_horizon=100, ptx_coefficient=0.1, ptx_batch_size=3,
                      sampling=SamplingSettings(max_tokens=6), **shared)
        of_ten = dict(episodes=20 * 10, batch_size=10, minibatch_size=5, **online)
        of_twelve = dict(episodes=20 * 12, batch_size=12, minibatch_size=4, **online)
        texts = encode_examples(encoder, [Example(prompt="a", response=w) for w in words])
        given = (model, Encoder(tokens, 64, 6), prompts, reward)
        options["pretraining"] = texts
        if kind == "ppo":
            trainer = PPOTrainer(*given, TextPPOSettings(**of_ten), **options)
        elif kind in ("rloo", "grpo"):
            start = EstimatorSettings() if kind == "rloo" else grpo_settings()
            trainer = EstimatorTrainer(*given, replace(start, samples_per_prompt=4, **of_twelve), **options)
        else:
            settings = OnlineSettings(samples_per_prompt=4 if kind == "online4" else 2, **of_twelve)
            trainer = OnlineTrainer(*given, settings, **options)
    rows = []
    trainer.train(rows.append)
    figures[method] = rows[:20]
if runtime.is_main:
    Path(out).write_text(json.dumps(figures))
""".replace("METHODS", repr(METHODS))


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[dict[str, float]]]]:
    """The figures of 20 steps by one process, by two and by three, and by one in micro-batches."""
    place = tmp_path_factory.mktemp("processes")
    text_models.save(place / "model", attention_dropout=0.0)
    (place / "train.py").write_text(TRAIN)
    found = {}
    for name, count, micro in (("one", 1, 0), ("two", 2, 0), ("three", 3, 2), ("micro", 1, 3)):
        command = [*LAUNCH, str(count), str(place / "train.py"), str(place / "model"), str(micro), str(place / name)]
        out = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        assert out.returncode == 0, out.stderr[-3000:]
        found[name] = json.loads((place / name).read_text())
    return found


@pytest.mark.parametrize("other", ["two", "three", "micro"])
@pytest.mark.parametrize("method", METHODS)
def test_every_figure_is_that_of_one_process(
    figures: dict[str, dict[str, list[dict[str, float]]]], method: str, other: str
) -> None:
    ours, theirs = figures["one"][method], figures[other][method]
    assert len(ours) == len(theirs) == 20
    for step, (row, same) in enumerate(zip(ours, theirs, strict=True)):
        assert row == pytest.approx(same, rel=1e-5, abs=1e-5, nan_ok=True), f"step {step}"
    assert ours[0] != ours[-1]
    assert torch.isfinite(torch.tensor([row["grad_norm"] for row in ours])).all()

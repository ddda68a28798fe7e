"""PPO against the enumerated optimum, and several processes against one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

from prefrl.envs.enumerable_text import (
    EnumerableWorld,
    LetterTokenizer,
    kl_divergence,
    regularised_optimum,
    regularised_value,
)
from prefrl.envs.service_desk import ServiceDesk
from prefrl.errors import UserError
from prefrl.runs.optimisation import OptimiserSettings
from prefrl.text.data.examples import Encoder
from prefrl.text.jobs.folder import TextFolder
from prefrl.text.learn.ppo import PPOTrainer, TextPPOSettings
from prefrl.text.learn.preference import PreferenceSettings
from prefrl.text.learn.runtime import Runtime
from prefrl.text.model.generation import SamplingSettings
from prefrl.text.model.models import PRESETS, build_model, save_model
from prefrl.text.model.sequences import sequence_log_probs
from prefrl.text.model.tokens import Tokens, train_tokenizer

BETA = 0.3


def small_policy() -> torch.nn.Module:
    config = transformers.GPT2Config(
        vocab_size=6, n_embd=32, n_layer=1, n_head=2, n_positions=8, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=None, eos_token_id=5,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.GPT2LMHeadModel(config).eval()


def table(policy: torch.nn.Module, world: EnumerableWorld) -> torch.Tensor:
    """Return `(3, 781)` log-probabilities of all responses."""
    responses = [list(ids) for ids in world.responses]
    rows = [
        sequence_log_probs(policy, [[x]] * len(responses), responses, pad_id=0, batch_size=len(responses))
        for x in range(3)
    ]
    return torch.stack(rows).double()


def make_trainer(policy: torch.nn.Module, world: EnumerableWorld, steps: int) -> PPOTrainer:
    settings = TextPPOSettings(
        episodes=128 * steps, batch_size=128, minibatch_size=64, epochs=4, beta=BETA, whiten_rewards=False,
        missing_end="ignore", value_coefficient=0.5, sampling=SamplingSettings(max_tokens=4),
        optimiser=OptimiserSettings(learning_rate=4e-3, decay="linear"),
    )  # fmt: skip
    encoder = Encoder(LetterTokenizer(), 8, 4)
    return PPOTrainer(policy, encoder, list("abc"), world.reward, settings, runtime=Runtime("cpu"))


def test_ppo_approaches_the_enumerated_optimum() -> None:
    world, policy = EnumerableWorld(0), small_policy()
    rewards, reference = torch.as_tensor(world.rewards), table(policy, world)
    assert torch.allclose(reference.exp().sum(1), torch.ones(3).double(), atol=1e-5)
    best, value = regularised_optimum(reference, rewards, BETA)
    at_start = regularised_value(reference, reference, rewards, BETA)
    make_trainer(policy, world, 40).train()
    reached = table(policy, world)
    share = (regularised_value(reached, reference, rewards, BETA) - at_start) / (value - at_start)
    assert share.mean() > 0.85
    assert kl_divergence(reached, best).mean() < 0.35 * kl_divergence(reference, best).mean()


def test_the_first_update_follows_the_exact_gradient() -> None:
    """With a flat value, no clipping and one epoch the expected step of PPO is the gradient of the objective."""
    world, policy = EnumerableWorld(0), small_policy()
    rewards, reference = torch.as_tensor(world.rewards), table(policy, world)
    before = regularised_value(reference, reference, rewards, BETA).mean()
    trainer = make_trainer(policy, world, 1000)
    figures = [trainer.step() for _ in range(3)]
    after = regularised_value(table(policy, world), reference, rewards, BETA).mean()
    assert after > before + 0.05
    assert figures[0]["kl_nats"] == pytest.approx(0.0, abs=1e-5), "the policy starts at the reference"
    assert figures[0]["score"] == pytest.approx(float((reference.exp() * rewards).sum(1).mean()), abs=0.3)


@pytest.mark.parametrize("name", ["adaptive_kl_nats", "adaptive_kl_horizon", "value_clip"])
def test_settings_that_would_divide_by_nought_or_clip_backwards_are_refused(name: str) -> None:
    for value in (0, -1):
        with pytest.raises(UserError, match=f"{name} must be above 0"):
            TextPPOSettings(**{name: value})


def test_a_beta_that_is_no_number_is_refused_by_name() -> None:
    for settings in (TextPPOSettings, PreferenceSettings):
        with pytest.raises(UserError, match="beta must be"):
            settings(beta=float("nan"))


def test_ptx_without_text_is_refused() -> None:
    settings = TextPPOSettings(ptx_coefficient=1.0, sampling=SamplingSettings(max_tokens=4))
    with pytest.raises(UserError, match="needs pretraining text"):
        PPOTrainer(
            small_policy(), Encoder(LetterTokenizer(), 8, 4), ["a"], EnumerableWorld(0).reward, settings,
            runtime=Runtime("cpu"),
        )  # fmt: skip


LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
TWO = """
import torch
from prefrl.errors import UserError
from prefrl.runs.optimisation import Optimiser, OptimiserSettings
from prefrl.text.learn.runtime import Runtime
runtime = Runtime("cpu")
torch.manual_seed(0)
layer = torch.nn.Linear(3, 1)
rows = runtime.share(list(torch.arange(12.0).reshape(4, 3)))
optimiser = Optimiser(layer.parameters(), OptimiserSettings(learning_rate=0.1, max_grad_norm=1e9), 1, runtime)
(layer(torch.stack(rows)).sum() / 4).backward()
optimiser.step()
if runtime.is_main:
    print(runtime.num_processes, layer.weight.flatten().tolist(), round(runtime.means({"x": (1.0, 1)})["x"], 3))
else:
    runtime.means({"x": (9.0, 3)})
def refuse():
    raise UserError("no")
try:
    runtime.on_main(refuse)
    raise SystemExit("a refusal by the main process has to reach the others")
except UserError:
    pass
"""


def test_two_processes_make_the_step_of_one(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO)
    said = []
    for count in ("1", "2"):
        command = [*LAUNCH, count, str(script)]
        out = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        assert out.returncode == 0, out.stderr[-2000:]
        said.append(out.stdout.split("\n")[0].split(" ", 1))
    assert [words[0] for words in said] == ["1", "2"]
    one, two = (json.loads(words[1].rsplit(" ", 1)[0]) for words in said)
    assert one == pytest.approx(two, abs=1e-6)
    assert float(said[1][1].rsplit(" ", 1)[1]) == 2.5, "figures are means over the whole batch"


def test_the_command_trains_in_two_processes(tmp_path: Path) -> None:
    tokens = Tokens(train_tokenizer(ServiceDesk(0).prompts(40), 200))
    save_model(tmp_path / "base", build_model(PRESETS["tiny"], tokens), tokens)
    command = [*LAUNCH, "2", "-m", "prefrl.cli", "text", "ppo", "--model", str(tmp_path / "base"), "--reward", "gold",
               "--prompts", "8", "--device", "cpu", "--watch.times", "0", "--training.episodes", "8",
               "--training.batch-size", "4", "--training.minibatch-size", "4", "--max-tokens", "4",
               "--out", str(tmp_path / "ppo")]  # fmt: skip
    out = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert out.returncode == 0, out.stderr[-2000:]
    assert out.stdout.count("steps 2") == 1, "the main process talks, the others do not"
    folder = TextFolder.open(tmp_path / "ppo")
    assert [row["step"] for row in folder.read_metrics()] == [1, 2]
    assert (folder.model_path / "config.json").is_file()

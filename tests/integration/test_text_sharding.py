"""Weights shared between two processes (FSDP): the weights, files and figures that one process comes to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import safetensors.torch
import transformers

from tests.unit import text_models

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
TEXT = ["-m", "prefrl.cli", "text"]
METHODS = ("sft", "dpo", "kto", "reward", "rloo", "dpo-lora")
TRAIN = """
import json, sys
from pathlib import Path
import safetensors.torch
import torch
from prefrl.text.data.examples import Encoder, Example, Liked, RankedResponses
from prefrl.text.learn.estimating import EstimatorSettings, EstimatorTrainer
from prefrl.runs.optimisation import OptimiserSettings
from prefrl.runs.sharding import is_sharded, plain_copy
from prefrl.text.learn.preference import PreferenceSettings, PreferenceTrainer
from prefrl.text.learn.reward_model import RewardModel
from prefrl.text.learn.reward_training import RewardTrainer, RewardTrainingSettings, encode_rankings
from prefrl.text.learn.runtime import Runtime
from prefrl.text.learn.sft import SFTSettings, SFTTrainer, encode_examples
from prefrl.text.model.generation import SamplingSettings
from prefrl.text.model.lora import LoraSettings, add_lora
from prefrl.text.model.models import load_model

folder, micro, out = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
out.mkdir(exist_ok=True)
runtime = Runtime("cpu", shares=len(sys.argv) > 4)
torch.set_num_threads(1)
words = ["yes", "no, never", "perhaps tomorrow", "a", "not at all", "so it is said"]
prompts = [f"{'x' * (i % 5)} {i}?" for i in range(15)]
threes = [(words[i % 6], words[(i + 1 + i % 3) % 6], words[(i + 5) % 6]) for i in range(15)]
rankings = [RankedResponses(prompt=p, responses=three[: 2 + i % 2], ranks=(0, 1, 2)[: 2 + i % 2])
            for i, (p, three) in enumerate(zip(prompts, threes))]
likes = [Liked(prompt=p, response=words[i % 6], liked=i % 3 == 0) for i, p in enumerate(prompts)]
shared = {"optimiser": OptimiserSettings(learning_rate=1e-3, adam_eps=1e-3), "seed": 3, "micro_batch_size": micro}
for method in METHODS:
    model, tokens = load_model(folder)
    encoder, kind = Encoder(tokens, 64, 24), method.removesuffix("-lora")
    model = add_lora(model, LoraSettings(rank=2 if method.endswith("-lora") else 0), 5)
    if kind == "sft":
        data = encode_examples(encoder, [Example(prompt=i.prompt, response=i.response) for i in likes])
        trainer = SFTTrainer(model, data, SFTSettings(batch_size=7, **shared), pad_id=tokens.pad_id, runtime=runtime)
    elif kind == "reward":
        model = RewardModel.from_policy(model, 1)
        trainer = RewardTrainer(model, encode_rankings(encoder, rankings),
                                RewardTrainingSettings(batch_size=7, **shared), pad_id=tokens.pad_id, runtime=runtime)
    elif kind in ("dpo", "kto"):
        settings = PreferenceSettings(method=kind, batch_size=7, **shared)
        trainer = PreferenceTrainer(model, encoder, likes if kind == "kto" else rankings, settings, runtime=runtime)
    else:
        settings = EstimatorSettings(samples_per_prompt=2, episodes=24, batch_size=12, minibatch_size=4, epochs=1,
                                     sampling=SamplingSettings(max_tokens=6), **shared)
        trainer = EstimatorTrainer(model, Encoder(tokens, 64, 6), prompts, lambda p, r: [float(len(x)) for x in r],
                                   settings, runtime=runtime)
    assert is_sharded(model) == runtime.shares
    rows = []
    trainer.train(rows.append)
    with runtime.whole(model):
        if runtime.is_main:
            weights = {name: value.clone() for name, value in plain_copy(model).state_dict().items()}
            safetensors.torch.save_file(weights, out / f"{method}.safetensors")
            (out / f"{method}.json").write_text(json.dumps(rows))
        runtime.wait()
""".replace("METHODS", repr(METHODS))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, what one process makes of it, and what two make that share the weights."""
    place = tmp_path_factory.mktemp("sharding")
    text_models.save(place / "model", attention_dropout=0.0)
    (place / "train.py").write_text(TRAIN)
    for name, start, more in (("one", [sys.executable], []), ("two", TORCHRUN, ["shared"])):
        _run([*start, str(place / "train.py"), str(place / "model"), "2", str(place / name), *more])
    rows = [{"prompt": f"{i}?", "response": "yes" if i % 2 else "no"} for i in range(40)]
    (place / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


def _run(command: list[str], status: int = 0, **env: str) -> str:
    env = os.environ | {"OMP_NUM_THREADS": "1"} | env
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False, env=env)
    assert (done.returncode == 0) == (status == 0), done.stderr[-3000:]
    return done.stderr


def _sft(place: Path, out: str, *more: str) -> list[str]:
    return [
        *TEXT, "sft", "--model", str(place / "model"), "--data", str(place / "examples.jsonl"), "--device", "cpu",
        "--training.batch-size", "7", "--out", str(place / out), "--quiet", *more,
    ]  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_that_share_the_weights_come_to_those_of_one(place: Path, method: str) -> None:
    ours, theirs = (safetensors.torch.load_file(place / name / f"{method}.safetensors") for name in ("one", "two"))
    assert ours.keys() == theirs.keys()
    start = safetensors.torch.load_file(place / "model" / "model.safetensors")
    for name, value in ours.items():
        assert (value - theirs[name]).abs().max() < 1e-5, name
    if method in ("sft", "dpo", "kto", "rloo"):
        assert max(float((ours[name] - start[name]).abs().max()) for name in start) > 5e-4
    rows, same = (json.loads((place / name / f"{method}.json").read_text()) for name in ("one", "two"))
    for row, other in zip(rows, same, strict=True):
        assert row == pytest.approx(other, rel=1e-4, abs=1e-5, nan_ok=True)


ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2"]
LAUNCHED = {
    "torchrun": (TORCHRUN, ["--shard", "True"]),
    "accelerate, shared": ([*ACCELERATE, "--use_fsdp"], []),
    "accelerate, each whole": ([*ACCELERATE, "--cpu"], []),
}


@pytest.fixture(scope="module")
def made_by_one(place: Path) -> Path:
    _run([sys.executable, *_sft(place, "sft-one")])
    return place / "sft-one"


@pytest.mark.parametrize("how", LAUNCHED)
def test_a_run_of_two_processes_is_the_folder_that_one_writes(place: Path, made_by_one: Path, how: str) -> None:
    start, more = LAUNCHED[how]
    made_by_two = place / f"sft-{how}"
    _run([*start, *_sft(place, made_by_two.name, *more)])
    both = (made_by_one, made_by_two)
    ours, theirs = (transformers.AutoModelForCausalLM.from_pretrained(run / "model") for run in both)
    assert ours.config.architectures == theirs.config.architectures == ["LlamaForCausalLM"]
    for (name, value), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (value - other).abs().max() < 1e-5, name
    files = [{path.name for path in run.iterdir()} - {".lock"} for run in both]
    assert files[0] == files[1]
    steps, same = ((run / "metrics.jsonl").read_text().splitlines() for run in both)
    assert len(steps) == len(same)
    assert json.loads(steps[-1])["loss"] == pytest.approx(json.loads(same[-1])["loss"], abs=1e-5)


def _begun(place: Path, out: str) -> tuple[subprocess.Popen[str], list[int]]:
    """Begin a long run of two processes that share the weights; return it, with the numbers of both once they train."""
    command = [*TORCHRUN, *_sft(place, out, "--shard", "True", "--training.epochs", "15")]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    metrics = place / out / "metrics.jsonl"
    until = time.monotonic() + 120
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < until:
        time.sleep(0.1)
    return run, [child.pid for child in psutil.Process(run.pid).children()]


def test_a_process_that_dies_ends_the_other_with_a_message(place: Path) -> None:
    run, processes = _begun(place, "died")
    os.kill(processes[1], signal.SIGKILL)
    _, said = run.communicate(timeout=120)
    assert run.returncode != 0
    assert "Another process of this training has ended" in said and "prefrl resume" in said


def test_a_signal_to_one_process_stops_both_and_the_run_goes_on_to_the_weights_of_one(place: Path) -> None:
    run, processes = _begun(place, "stopped")
    os.kill(processes[1], signal.SIGINT)
    _, said = run.communicate(timeout=120)
    assert said.count("Stopped; everything is saved") == 2
    assert len(list((place / "stopped" / "checkpoints").iterdir())) == 1
    _run([*TORCHRUN, *TEXT, "resume", str(place / "stopped"), "--quiet"])
    _run([sys.executable, *_sft(place, "unstopped", "--training.epochs", "15")])
    ours, theirs = (
        safetensors.torch.load_file(place / name / "model" / "model.safetensors") for name in ("stopped", "unstopped")
    )
    assert all((value - theirs[name]).abs().max() < 1e-5 for name, value in ours.items())

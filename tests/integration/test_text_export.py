"""Runs of prefrl text made by other programs: what is exported says the same, and trl trains on it as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from prefrl.errors import UserError
from prefrl.runs.codec import to_json
from prefrl.text.jobs import direct, policies, supervised
from prefrl.text.jobs.exporting import export_run
from prefrl.text.jobs.folder import TextFolder
from prefrl.text.jobs.parts import Place
from prefrl.text.jobs.serving import RewardScorer, make_app
from prefrl.text.learn.estimating import EstimatorSettings
from prefrl.text.learn.preference import PreferenceSettings
from prefrl.text.learn.reward_training import RewardTrainingSettings
from prefrl.text.model.generation import SamplingSettings
from prefrl.text.model.models import build_model, preset, save_model
from prefrl.text.model.tokens import Tokens, train_tokenizer

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "then", "it", "rests"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, comparisons and prompts."""
    place = tmp_path_factory.mktemp("world")
    tokens = Tokens(train_tokenizer([" ".join(WORDS)] * 4, 300))
    save_model(place / "model", build_model(preset("tiny"), tokens, architecture="llama", seed=0), tokens)
    rows = [
        {"prompt": f"{word} {i}", "chosen": f" {word} good", "rejected": " bad"} for i, word in enumerate(WORDS[:12])
    ]
    rows.append({"prompt": "tied", "responses": [" a", " b", " c"], "ranking": [[0, 1], 2]})
    (place / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"{w} {w}"}) + "\n" for w in set(WORDS)))
    return place


def job(verb: str, world: Path, **training: Any) -> Any:
    model, place = str(world / "model"), Place(device="cpu", max_tokens=8)
    if verb in ("dpo", "ipo"):
        kind = direct.IPOJob if verb == "ipo" else direct.DPOJob
        settings = PreferenceSettings(method=verb, batch_size=4, **training)
        return kind(model=model, data=str(world / "pairs.jsonl"), place=place, training=settings)
    if verb == "reward":
        settings = RewardTrainingSettings(batch_size=4, **training)
        return supervised.RewardJob(model=model, data=str(world / "pairs.jsonl"), place=place, training=settings)
    settings = EstimatorSettings(
        estimator="grpo", samples_per_prompt=2, beta=0.04, ratio="token", lengths="response", kl="loss", scale="group",
        episodes=8, batch_size=4, minibatch_size=4, sampling=SamplingSettings(max_tokens=8),
    )  # fmt: skip
    return policies.GRPOJob(
        model=model, reward=("judge.py:score",), data=str(world / "prompts.jsonl"), place=Place(device="cpu"),
        training=settings,
    )  # fmt: skip


def exported(verb: str, program: Any, world: Path, out: Path, **training: Any) -> list[str]:
    made = job(verb, world, **training)
    TextFolder.create(out / "run", verb, to_json(made))
    return export_run(out / "run", program, out / "there")


def rows_of(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_pairs_are_those_of_the_run_ties_left_out_and_prompts_held_out_together(world: Path, tmp_path: Path) -> None:
    assert exported("dpo", "trl", world, tmp_path, beta=0.3) == []
    learned, held_out = (rows_of(tmp_path / "there" / name) for name in ("train.jsonl", "held_out.jsonl"))
    assert len(learned) + len(held_out) == 14
    assert {row["prompt"] for row in learned} & {row["prompt"] for row in held_out} == set()
    tied = [row for row in learned + held_out if row["prompt"] == "tied"]
    assert {(row["chosen"], row["rejected"]) for row in tied} == {(" a", " c"), (" b", " c")}
    settings = json.loads((tmp_path / "there" / "settings.json").read_text())
    assert settings["beta"] == 0.3 and settings["per_device_train_batch_size"] == 4
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "there" / "model").num_parameters() > 0


def test_what_has_no_counterpart_is_said(world: Path, tmp_path: Path) -> None:
    remarks = exported("grpo", "trl", world, tmp_path)
    assert any("without an end" in remark for remark in remarks)
    readme = (tmp_path / "there" / "README.md").read_text()
    assert "prefrl text serve judge.py:score" in readme and "without an end" in readme
    assert any("means per token" in remark for remark in exported("ipo", "trl", world, tmp_path / "ipo"))


@pytest.mark.parametrize("verb", ["dpo", "reward", "grpo"])
def test_openrlhf_is_called_with_files_that_are_there(verb: str, world: Path, tmp_path: Path) -> None:
    exported(verb, "openrlhf", world, tmp_path)
    there = tmp_path / "there"
    command = (there / "train.sh").read_text()
    subprocess.run(["bash", "-n", str(there / "train.sh")], check=True)
    assert os.access(there / "train.sh", os.X_OK)
    data = "prompts.jsonl" if verb == "grpo" else "train.jsonl"
    assert data in command and (there / data).is_file() and "input_template '{}'" in command
    if verb == "grpo":
        assert '--reward.remote_url "$PREFRL_REWARD_URL"' in command and "estimator group_norm" in command
        assert "?token=TOKEN" in (there / "README.md").read_text()


def test_what_cannot_be_exported_is_refused(world: Path, tmp_path: Path) -> None:
    TextFolder.create(tmp_path / "run", "pretrain", to_json(supervised.PretrainJob()))
    with pytest.raises(UserError, match="one of prefrl text pretrain; what can be exported to trl are dpo"):
        export_run(tmp_path / "run", "trl", tmp_path / "there")
    TextFolder.create(tmp_path / "dpo", "dpo", to_json(job("dpo", world)))
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="exists already"):
        export_run(tmp_path / "dpo", "trl", tmp_path / "there")


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["dpo", "reward", "grpo"])
def test_trl_trains_on_what_is_exported_as_it_is(verb: str, world: Path, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    uvicorn = pytest.importorskip("uvicorn")
    exported(verb, "trl", world, tmp_path)
    env, server, asked = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}, None, []

    def score(prompts: list[str], responses: list[str]) -> list[float]:
        asked.extend(zip(prompts, responses, strict=True))
        return [float(len(response)) for response in responses]

    if verb == "grpo":
        import socket

        listening = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(make_app(RewardScorer(score, None), "secret"), log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True).start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/get_reward"
        env |= {"PREFRL_REWARD_URL": address, "PREFRL_REWARD_KEY": "secret"}
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=tmp_path / "there", env=env, capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip
    if server is not None:
        server.should_exit = True
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "there" / "result" / "model.safetensors").is_file()
    if verb == "grpo":
        assert len(asked) == 8 and all(prompt in {f"{word} {word}" for word in WORDS} for prompt, _ in asked)

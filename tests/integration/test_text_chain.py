"""The whole chain by its commands, on tiny models of three architectures, and what it says to nonsense."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from prefrl.cli import main
from prefrl.envs.service_desk import REMEDIES, ServiceDesk
from prefrl.errors import UserError
from prefrl.runs.guard import Interrupted
from prefrl.runs.optimisation import OptimiserSettings
from prefrl.text.jobs import jobs, policies, supervised
from prefrl.text.jobs.folder import TextFolder
from prefrl.text.jobs.parts import Place, Watch
from prefrl.text.learn.estimating import EstimatorSettings
from prefrl.text.learn.online import OnlineSettings
from prefrl.text.learn.ppo import TextPPOSettings
from prefrl.text.learn.reward_model import RewardModel
from prefrl.text.model.generation import SamplingSettings, sample
from prefrl.text.model.lora import LoraSettings
from prefrl.text.model.models import ARCHITECTURES, load_model, save_model

FAST = ["--device", "cpu", "--quiet"]


def run(*arguments: str | Path) -> int:
    try:
        return main(["text", *[str(argument) for argument in arguments]])
    except SystemExit as stopped:  # the parser's own exit
        return int(stopped.code or 0)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def start(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained and fine-tuned model, and comparisons of its answers."""
    path = tmp_path_factory.mktemp(request.param)
    size = ["--size", "tiny", "--architecture", request.param, "--paragraphs", "150"]
    assert run("pretrain", *size, "--out", path / "base", *FAST) == 0
    sft = ["--model", path / "base", "--examples", "100", "--pretraining", "servicedesk"]
    assert run("sft", *sft, "--training.optimiser.learning-rate", "1e-3", "--out", path / "sft", *FAST) == 0
    compare = ["--model", path / "sft", "--prompts", "24", "--max-tokens", "24", "--device", "cpu"]
    assert run("compare", *compare, "--responses", "4", "--out", path / "pairs.jsonl") == 0
    return path


def test_the_whole_chain(start: Path) -> None:
    data, sft = ["--data", start / "pairs.jsonl"], ["--model", start / "sft"]
    watch = ["--watch.times", "1", "--watch.prompts", "8"]
    assert run("reward", *sft, *data, "--out", start / "reward", "--members", "2", *FAST) == 0
    rewards = [start / "reward-0", start / "reward-1"]
    ppo = ["--training.episodes", "16", "--training.batch-size", "8", "--training.minibatch-size", "4",
           "--training.epochs", "1", "--max-tokens", "12", *watch]  # fmt: skip
    ptx = ["--pretraining", "servicedesk", "--training.ptx-coefficient", "1", "--training.ptx-batch-size", "4"]
    assert run("ppo", *sft, "--reward", *rewards, *ppo, *ptx, "--out", start / "ppo", *FAST) == 0
    for method, options in (("dpo", ["--training.rankings"]), ("dpo", []), ("ipo", ["--training.mean-log-probs"]),
                            ("simpo", ["--training.label-smoothing", "0.1"]), ("kto", [])):  # fmt: skip
        name = start / f"{method}{len(options)}"
        assert run(method, *sft, *data, *options, *watch, "--proxy", rewards[0], "--out", name, *FAST) == 0
    for verb, who in (("online-dpo", ["--reward", *rewards]), ("online-ipo", ["--judge", "rule"])):
        few = [*ppo[:6], "--max-tokens", "24", *watch]
        assert run(verb, *sft, *who, *few, "--out", start / verb, *FAST) == 0
        rows = TextFolder.open(start / verb).read_metrics()
        assert {"loss", "accuracy", "compared_share", "chosen_reward", "kl_nats", "beta"} <= set(rows[0])
        assert ("score" in rows[0]) == ("objective" in rows[0]) == (who[0] == "--reward")
    best = ["--draws", "4", "--prompts", "8", "--max-tokens", "12"]
    kept = ["--draws", "4", "--prompts", "16", "--max-tokens", "40", *watch]
    assert run("rejection", *sft, "--reward", rewards[0], *kept, "--out", start / "rejection", *FAST) == 0
    summary = TextFolder.open(start / "rejection").read_summary()
    assert summary["selected_score"] > summary["drawn_score"] and summary["examples"] <= 16
    assert run("bestofn", *sft, "--reward", rewards[0], *best, "--out", start / "best", *FAST) == 0

    row = TextFolder.open(start / "ppo").read_evaluations()
    assert [r["step"] for r in row] == [0, 2]
    assert row[0]["kl_nats"] == pytest.approx(0.0, abs=1e-5)
    assert {"gold", "proxy", "length", "repetition", "end_rate", "geography", "language_loss"} <= set(row[1])
    metrics = TextFolder.open(start / "ppo").read_metrics()
    assert {"objective", "kl_nats", "policy_loss", "value_loss", "ptx_loss", "step", "seconds"} <= set(metrics[0])
    assert [r["step"] for r in TextFolder.open(start / "best").read_evaluations()] == [1, 2, 4]
    figures = TextFolder.open(start / "reward-0").read_summary()
    assert {"accuracy", "calibration_error", "bins", "num_pairs"} <= set(figures)


def test_a_saved_policy_is_transformers_own_and_says_the_same(start: Path) -> None:
    model, tokens = load_model(start / "sft")
    theirs = AutoModelForCausalLM.from_pretrained(start / "sft" / "model")
    ids = tokens.encode_prompt(ServiceDesk(3).prompts(1)[0])
    out = theirs.generate(torch.tensor([ids]), max_new_tokens=10, do_sample=False, pad_token_id=tokens.pad_id)
    ours = sample(
        model, [ids], SamplingSettings(max_tokens=10, greedy=True), end_id=tokens.end_id, pad_id=tokens.pad_id
    )
    assert ours.sequences.token_lists()[0] == out[0, len(ids) :].tolist()


def test_a_reward_model_keeps_its_bias_and_scores_references_nought(start: Path, tmp_path: Path) -> None:
    policy, tokens = load_model(start / "sft")
    model = RewardModel.from_policy(policy, seed=1)
    prompts = [tokens.encode_prompt(text) for text in ServiceDesk(0).prompts(8)]
    responses = [[*tokens.encode("We will help."), tokens.end_id]] * 8
    model.recentre(prompts, responses, tokens.pad_id)
    scores = model.score(prompts, responses, tokens.pad_id)
    assert scores.mean().item() == pytest.approx(0.0, abs=1e-5)
    assert model.head.bias.item() != 0
    model.save(tmp_path / "reward", tokens)
    loaded, _ = RewardModel.load(tmp_path / "reward")
    assert torch.allclose(loaded.score(prompts, responses, tokens.pad_id), scores, atol=1e-5)


# ---------------------------------------------------------------------------- one architecture from here on


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama")
    assert run("pretrain", "--size", "tiny", "--paragraphs", "300", "--out", path / "base", *FAST) == 0
    compare = ["--model", path / "base", "--prompts", "24", "--max-tokens", "24", "--device", "cpu"]
    assert run("compare", *compare, "--out", path / "pairs.jsonl") == 0
    return path


def small_ppo(start: Path) -> policies.PPOJob:
    return policies.PPOJob(
        model=str(start / "base"),
        reward=("gold",),
        place=Place(device="cpu"),
        watch=Watch(times=2, prompts=4),
        training=TextPPOSettings(
            episodes=32, batch_size=8, minibatch_size=4, epochs=2, sampling=SamplingSettings(max_tokens=8),
            adaptive_kl_nats=6.0, optimiser=OptimiserSettings(learning_rate=1e-3, decay="linear"),
        ),
    )  # fmt: skip


def small_reinforce(start: Path) -> policies.ReinforceJob:
    ppo = small_ppo(start)
    training = EstimatorSettings(
        estimator="reinforce", samples_per_prompt=2, baseline="moving", episodes=32, batch_size=8, minibatch_size=4,
        epochs=2, sampling=SamplingSettings(max_tokens=8), optimiser=ppo.training.optimiser,
    )  # fmt: skip
    return policies.ReinforceJob(model=ppo.model, reward=("gold",), place=ppo.place, watch=ppo.watch, training=training)


def small_online(start: Path) -> policies.OnlineDPOJob:
    ppo = small_ppo(start)
    training = OnlineSettings(
        samples_per_prompt=4, episodes=32, batch_size=8, minibatch_size=4, epochs=2, adaptive_kl_nats=6.0,
        sampling=SamplingSettings(max_tokens=8), optimiser=ppo.training.optimiser,
    )  # fmt: skip
    return policies.OnlineDPOJob(model=ppo.model, reward=("gold",), place=ppo.place, watch=ppo.watch, training=training)


@pytest.mark.parametrize("make", [small_ppo, small_reinforce, small_online])
def test_a_run_that_was_stopped_ends_as_the_one_that_was_not(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], policies.PPOJob]
) -> None:
    job = make(llama)
    whole = jobs.start(job, tmp_path / "whole", quiet=True)
    from prefrl.runs import running
    from prefrl.text.learn.policy_gradient import PolicyGradientTrainer

    made = PolicyGradientTrainer.step

    def step(self: PolicyGradientTrainer[Any, Any]) -> Any:
        figures = made(self)
        if self.num_steps == 2:
            monkeypatch.setattr(PolicyGradientTrainer, "step", made)
            import os
            import signal

            os.kill(os.getpid(), signal.SIGTERM)
        return figures

    monkeypatch.setattr(PolicyGradientTrainer, "step", step)
    with pytest.raises(Interrupted, match="resume"):
        jobs.start(job, tmp_path / "stopped", quiet=True)
    resumed = jobs.resume(tmp_path / "stopped", quiet=True)
    strip = lambda rows: [{k: v for k, v in row.items() if k != "seconds"} for row in rows]  # noqa: E731
    assert strip(resumed.read_metrics()) == strip(whole.read_metrics())
    assert resumed.read_evaluations() == whole.read_evaluations()
    weights = [AutoModelForCausalLM.from_pretrained(folder.model_path).state_dict() for folder in (whole, resumed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert running.SECONDS_BETWEEN_CHECKPOINTS > 0
    assert run("resume", tmp_path / "stopped") == 2


def test_the_commands_of_every_run_take_one_of_text_and_say_what_does_not_apply(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(jobs.start(small_ppo(llama), tmp_path / "ppo", quiet=True).path)
    capsys.readouterr()
    assert main(["evaluate", out, "--seed", "1", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert {"kl_nats", "gold", "length"} <= set(figures)
    assert run("evaluate", out, "--seed", "1", "--json") == 0
    assert json.loads(capsys.readouterr().out) == figures
    assert main(["report", out, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["verb"] == "ppo" and report["evaluations"][0]["step"] == 0
    assert main(["report", out]) == 0
    assert "Evaluations along the way" in capsys.readouterr().out
    for arguments, told in (
        (["resume", out], f"is finished; look at it with: prefrl evaluate {out}"),
        (["evaluate", out, "--episodes", "3"], f"--episodes is for control runs.*prefrl text evaluate {out}"),
        (["video", out], f"nothing to film.*prefrl text sample {out}"),
        (["quality", out], "but by prefrl text. Give the folder of a run made by prefrl train"),
    ):
        assert main(arguments) == 2
        assert re.search(told, capsys.readouterr().err)
    reward = ["--model", llama / "base", "--data", llama / "pairs.jsonl", "--out", tmp_path / "reward"]
    assert run("reward", *reward, *FAST) == 0
    assert main(["evaluate", str(tmp_path / "reward")]) == 2
    assert "made a reward model; look at its figures with: prefrl report" in capsys.readouterr().err


def test_a_text_run_says_which_checkpoint_it_refuses_and_goes_on_from_the_one_before(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefrl.runs import running

    monkeypatch.setattr(running, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)

    def full(*_: Any) -> None:
        raise UserError("The disk is full.")

    with monkeypatch.context() as patched:
        patched.setattr(TextFolder, "finish", full)
        with pytest.raises(UserError, match="disk is full"):
            jobs.start(small_ppo(llama), tmp_path / "run", quiet=True)
    folder = TextFolder.open(tmp_path / "run")
    newest = max(folder.checkpoints.iterdir())
    (newest / "state.pt").write_bytes(b"")
    assert json.loads((newest / "manifest.json").read_text())["counter"] == "step"
    before = folder.read_metrics()
    with pytest.warns(UserWarning, match=f"{newest.name}.*damaged.*Going on from"):
        again = jobs.resume(folder.path, quiet=True)
    assert [row["objective"] for row in again.read_metrics()] == [row["objective"] for row in before]


def test_lora_trains_adapters_and_saves_a_plain_model(llama: Path, tmp_path: Path) -> None:
    job = small_ppo(llama)
    folder = jobs.start(replace(job, lora=LoraSettings(rank=4)), tmp_path / "lora", quiet=True)
    before = load_model(llama / "base")[0].state_dict()
    after = AutoModelForCausalLM.from_pretrained(folder.model_path).state_dict()
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.allclose(before[name], after[name], atol=1e-7)}
    assert any("q_proj" in name for name in changed)
    assert not any("embed" in name or "norm" in name for name in changed)
    assert folder.read_evaluations()[0]["kl_nats"] == pytest.approx(0.0, abs=1e-5)


def test_weights_saved_in_bfloat16_are_trained_in_float32(llama: Path, tmp_path: Path) -> None:
    model, tokens = load_model(llama / "base")
    save_model(tmp_path / "base", model.to(torch.bfloat16), tokens)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "base").dtype == torch.bfloat16
    given, data = ["--model", tmp_path / "base"], ["--data", llama / "pairs.jsonl"]
    few = ["--training.episodes", "8", "--training.batch-size", "8", "--training.minibatch-size", "8",
           "--max-tokens", "8"]  # fmt: skip
    assert run("sft", *given, "--examples", "16", "--out", tmp_path / "sft", *FAST) == 0
    assert run("reward", *given, *data, "--out", tmp_path / "reward", *FAST) == 0
    reward = ["--reward", tmp_path / "reward", "--watch.times", "0"]
    assert run("ppo", *given, *reward, *few, "--out", tmp_path / "ppo", *FAST) == 0
    assert run("dpo", *given, *data, "--watch.times", "0", "--out", tmp_path / "dpo", *FAST) == 0
    before = dict(load_model(tmp_path / "base")[0].named_parameters())
    for name in ("sft", "ppo", "dpo"):
        after = AutoModelForCausalLM.from_pretrained(tmp_path / name / "model").state_dict()
        changed = sum(int((after[key] != weights).sum()) for key, weights in before.items())
        assert after["model.norm.weight"].dtype == torch.float32
        assert changed > 0.8 * sum(weights.numel() for weights in before.values()), name


def test_a_reward_of_ones_own_and_evaluating_and_sampling(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text("def short(prompts, responses):\n    return [-len(r) / 100 for r in responses]\n")
    ppo = ["--training.episodes", "16", "--training.batch-size", "16", "--training.minibatch-size", "16",
           "--max-tokens", "8", "--watch.times", "0"]  # fmt: skip
    reward = ["--reward", f"{tmp_path / 'mine.py'}:short"]
    assert run("ppo", "--model", llama / "base", *reward, *ppo, "--out", tmp_path / "mine", *FAST) == 0
    capsys.readouterr()
    small = ["--prompts", "8", "--max-tokens", "12", "--device", "cpu", "--json"]
    assert run("evaluate", tmp_path / "mine", *small) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["kl_nats"] > 0, "a run is compared with the model it started from"
    asked = ["sample", llama / "base", "--prompt", "The capital of", "--max-tokens", "4", "--device", "cpu"]
    assert run(*asked, "--json") == 0
    row = json.loads(capsys.readouterr().out)
    assert row["prompt"] == "The capital of" and row["response"]
    assert run(*asked) == 0
    assert capsys.readouterr().out == f"The capital of{row['response']}{'' if row['ended'] else ' ...'}\n\n"


def test_a_programmatic_judge_makes_comparisons(llama: Path, tmp_path: Path) -> None:
    options = ["--model", llama / "base", "--prompts", "12", "--max-tokens", "24", "--device", "cpu"]
    assert run("judge", *options, "--out", tmp_path / "judged.jsonl") == 0
    rows = [json.loads(line) for line in (tmp_path / "judged.jsonl").read_text().splitlines()]
    assert all({"prompt", "chosen", "rejected", "certainty", "annotator"} <= set(row) for row in rows)
    again = ["--data", llama / "pairs.jsonl", "--judge", llama / "base", "--device", "cpu"]
    short = tmp_path / "short.txt"
    short.write_text("Be kind.")
    assert run("judge", *again, "--constitution", short, "--out", tmp_path / "again.jsonl") == 0


def test_a_judge_compares_every_pair_of_responses_and_needs_no_ranking(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = ServiceDesk(0).messages(1)[0]
    remedy = REMEDIES[message.fault]
    texts = ["No.", f"{remedy}.", f"{message.product}: {remedy}."]
    row = {"prompt": message.to_prompt(), "responses": texts}
    data, out = tmp_path / "data.jsonl", tmp_path / "judged.jsonl"
    data.write_text(json.dumps(row))
    assert run("judge", "--data", data, "--out", out) == 0
    judged = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(pair["chosen"], pair["rejected"]) for pair in judged] == [
        (texts[1], texts[0]),
        (texts[2], texts[0]),
        (texts[2], texts[1]),
    ]
    data.write_text(json.dumps(row | {"responses": texts[:1]}))
    assert run("judge", "--data", data, "--out", out) == 2
    assert "two or more" in capsys.readouterr().err


def test_what_is_held_out_of_rankings_can_judge_a_reward_however_many_ties_there_are(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": f"p{i}", "responses": ["a", "b"], "ranking": [[0, 1]]} for i in range(12)]
    ties, some = tmp_path / "ties.jsonl", tmp_path / "some.jsonl"
    ties.write_text("\n".join(map(json.dumps, rows)))
    some.write_text("\n".join(map(json.dumps, [*rows, rows[0] | {"ranking": [0, 1]}, rows[1] | {"ranking": [1, 0]}])))
    assert run("reward", "--model", llama / "base", "--data", some, "--out", tmp_path / "reward", *FAST) == 0
    figures = TextFolder.open(tmp_path / "reward").read_summary()
    assert figures["num_pairs"] == 1 and figures["rankings"] == 12, "all rows of a prompt"
    assert run("reward", "--model", llama / "base", "--data", ties, "--out", tmp_path / "no", *FAST) == 2
    assert "ties alone" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sft", "--model", "BASE", "--data", "EMPTY", "--out", "OUT"], "is empty"),
        (["sft", "--model", "BASE", "--data", "COLUMNS", "--out", "OUT"], "these columns: ask, reply. The nearest"),
        (["sft", "--model", "BASE", "--data", "LONG", "--out", "OUT"], "give --too-long cut"),
        (["dpo", "--model", "BASE", "--data", "MISSING", "--out", "OUT"], "leaves out response 2 of 3"),
        (["dpo", "--model", "no/such-model", "--data", "EMPTY", "--out", "OUT"], "no folder 'no/such-model'"),
        (["dpo", "--model", "BASE", "--data", "servicedesk", "--out", "OUT"], "holds no comparisons"),
        (["kto", "--model", "BASE", "--data", "ONESIDED", "--out", "OUT"], "needs both"),
        (["ppo", "--model", "BASE", "--reward", "BASE", "--out", "OUT"], "no reward model"),
        (["ppo", "--model", "BASE", "--reward", "BAD:nan", "--out", "OUT"], "returned nan"),
        (["ppo", "--model", "BASE", "--reward", "BAD:fails", "--out", "OUT"], "raised RuntimeError"),
        (["ppo", "--model", "BASE", "--reward", "BAD:short", "--out", "OUT"], "one float for each"),
        (["ppo", "--model", "BASE", "--reward", "DAMAGED", "--out", "OUT"], "cannot be read"),
        (["dpo", "--model", "BASE", "--data", "NULL", "--out", "OUT"], "holds no comparison or ranking"),
        (["dpo", "--model", "BASE", "--data", "NUMBER", "--out", "OUT"], "A ranking is a list"),
        (["sft", "--model", "BASE", "--data", "LATIN", "--out", "OUT"], "UTF-8"),
        (["dpo", "--model", "BASE", "--data", "PAIRS", "--proxy", "gold", "--out", "OUT"], "must be folders"),
        (["evaluate", "BASE", "--reward", "gold", "--device", "cpu"], "must be folders"),
        (["pretrain", "--paragraphs", "50", "--block-tokens", "0", "--out", "OUT"], "block_tokens must be"),
        (["reward", "--model", "BASE", "--data", "PAIRS", "--members", "0", "--out", "OUT"], "members must be"),
        (["compare", "--model", "BASE", "--prompts", "2", "--max-tokens", "1", "--out", "OUT"], "nothing to rank"),
        (["dpo", "--model", "BASE", "--data", "LONGER", "--out", "OUT"], "256 in all; the longest response has 302"),
        (
            ["ppo", "--model", "BASE", "--reward", "gold", "--training.sampling.max-tokens", "4", "--out", "OUT"],
            "--max-tokens",
        ),
        (
            ["grpo", "--model", "BASE", "--reward", "gold", "--training.estimator", "rloo", "--out", "OUT"],
            "The verb says",
        ),
        (["rl", "--model", "BASE", "--reward", "gold", "--estimator", "nope", "--out", "OUT"], "no estimator 'nope'"),
        (["rloo", "--model", "BASE", "--reward", "gold", "--training.scale", "group", "--out", "OUT"], "is for grpo"),
        (["online-dpo", "--model", "BASE", "--out", "OUT"], "one of --reward R, --judge J and --annotator human"),
        (
            ["online-dpo", "--model", "BASE", "--reward", "gold", "--annotator", "human", "--out", "OUT"],
            "and --annotat",
        ),
        (
            ["online-dpo", "--model", "BASE", "--judge", "rule", "--training.samples-per-prompt", "4", "--out", "OUT"],
            "A judge compares two",
        ),
        (
            ["online-ipo", "--model", "BASE", "--reward", "gold", "--training.samples-per-prompt", "4", "--out", "OUT"],
            "IPO compares two",
        ),
        (["online-dpo", "--model", "BASE", "--reward", "gold", "--training.loss", "ipo", "--out", "OUT"], "The verb"),
        (["dpo", "--model", "BASE", "--data", "PAIRS", "--training.gamma", "1", "--out", "OUT"], "gamma is for simpo"),
        (["rejection", "--model", "BASE", "--reward", "gold", "--draws", "1", "--out", "OUT"], "draws must be"),
        (
            ["rejection", "--model", "BASE", "--reward", "gold", "--prompts", "4", "--max-tokens", "1", "--out", "OUT"],
            "None of 32 responses ended",
        ),
        (["sft", "--model", "BASE", "--training.seed=4", "--out", "OUT"], "is called --seed"),
        (
            ["dpo", "--model", "BASE", "--data", "PAIRS", "--training.method", "kto", "--out", "OUT"],
            "prefrl text dpo, ipo",
        ),
        (["pretrain", "--size", "tiny", "--block-tokens", "5000", "--out", "OUT"], "--block-tokens"),
        (["judge", "--data", "PAIRS", "--judge", "http://127.0.0.1:9#m", "--out", "OUT"], "does not answer"),
        (["report", "EMPTYDIR"], "no evaluated methods"),
        (["resume", "EMPTYDIR"], "no run in"),
    ],
)
def test_nonsense_is_answered_in_one_line_and_leaves_nothing(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    files = {
        "EMPTY": "",
        "COLUMNS": json.dumps({"ask": "a", "reply": "b"}),
        "LONG": json.dumps({"prompt": "long " * 400, "response": "b"}),
        "MISSING": json.dumps({"prompt": "a", "responses": ["x", "y", "z"], "ranking": [1, 0]}),
        "LONGER": json.dumps({"prompt": "a", "chosen": "long " * 100, "rejected": "b"}),
        "NULL": json.dumps({"prompt": "a", "responses": ["x", "y"], "ranking": None}),
        "NUMBER": json.dumps({"prompt": "a", "responses": ["x", "y"], "ranking": 3}),
        "ONESIDED": json.dumps({"prompt": "a", "response": "x", "liked": True}),
    }
    names = {"BASE": llama / "base", "OUT": tmp_path / "out", "PAIRS": llama / "pairs.jsonl", "EMPTYDIR": tmp_path}
    for name, content in files.items():
        names[name] = tmp_path / f"{name}.jsonl"
        names[name].write_text(content)
    names["LATIN"] = tmp_path / "latin.jsonl"
    names["LATIN"].write_bytes(json.dumps({"prompt": "a", "response": "é"}, ensure_ascii=False).encode("latin-1"))
    names["DAMAGED"] = tmp_path / "damaged"
    names["DAMAGED"].mkdir()
    (names["DAMAGED"] / "reward_model.json").write_text('{"version": 1}')
    (names["DAMAGED"] / "reward_head.safetensors").write_bytes(b"cut")
    (tmp_path / "bad.py").write_text(
        "def nan(p, r):\n    return [float('nan')] * len(p)\n"
        "def fails(p, r):\n    raise RuntimeError('no')\n"
        "def short(p, r):\n    return [0.0]\n"
    )
    given = [
        str(tmp_path / "bad.py") + word[3:] if word.startswith("BAD:") else str(names.get(word, word))
        for word in arguments
    ]
    extra = [*FAST] if arguments[0] in ("pretrain", "sft", "reward", "dpo", "kto", "ppo") else []
    assert run(*given, *extra) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists(), "nothing half-made is left"


def test_the_seed_of_a_run_is_that_of_its_training(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = []
    for name, seed in zip("abc", "011", strict=True):
        options = ["--data", llama / "pairs.jsonl", "--training.batch-size", "4", "--watch.times", "0", "--seed", seed]
        assert run("dpo", "--model", llama / "base", *options, "--out", tmp_path / name, *FAST) == 0
        first.append(TextFolder.open(tmp_path / name).read_metrics()[0]["chosen_log_prob"])
    assert first[0] != first[1] == first[2]

    made: list[Any] = []
    monkeypatch.setattr(jobs, "start", lambda job, out, **_: made.append(job) or TextFolder(tmp_path / "a"))
    options = ["--members", "2", "--seed", "1", "--data", llama / "pairs.jsonl", "--out", tmp_path / "members"]
    assert run("reward", "--model", llama / "base", *options, *FAST) == 0
    assert [job.place.seeded(job.training).seed for job in made] == [100, 101]


def test_a_run_that_failed_before_its_first_step_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ValueError("a fault of our own")

    monkeypatch.setattr(supervised.SFTJob, "run", broken)
    with pytest.raises(ValueError, match="of our own"):
        jobs.start(supervised.SFTJob(model="m"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", [["--training.sampling.greedy"], ["--training.sampling.top-k", "5"]])
def test_ppo_refuses_sampling_that_changes_the_distribution(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    assert run("ppo", "--model", llama / "base", "--reward", "gold", *option, "--out", tmp_path / "out", *FAST) == 2
    assert "drawn from the policy itself" in " ".join(capsys.readouterr().err.split())


def test_parquet_and_jsonl_say_the_same(llama: Path, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    from prefrl.text.data.sources import read_rankings, read_rows

    rows = [{**row, "ranking": row["ranking"]} for row in read_rows(llama / "pairs.jsonl")]
    flat = [row for row in rows if all(isinstance(i, int) for i in row["ranking"])]
    (tmp_path / "flat.jsonl").write_text("\n".join(json.dumps(row) for row in flat))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(flat), tmp_path / "flat.parquet")
    assert read_rankings(str(tmp_path / "flat.parquet")) == read_rankings(str(tmp_path / "flat.jsonl"))


def test_a_full_disk_leaves_no_half_written_model(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefrl.errors import UserError
    from prefrl.text.model import models

    model, tokens = load_model(llama / "base")
    models.save_model(tmp_path / "m", model, tokens)
    before = sorted(p.name for p in (tmp_path / "m").iterdir())

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(models, "_save_both", full)
    with pytest.raises(UserError, match="untouched"):
        models.save_model(tmp_path / "m", model, tokens)
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == before
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    shutil.rmtree(tmp_path / "m")


def test_numbers_are_finite(llama: Path) -> None:
    rows = TextFolder.open(llama / "base").read_metrics()
    assert np.isfinite([row["loss"] for row in rows]).all()
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_the_demo_makes_every_method_side_by_side_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    out, small = (
        tmp_path / "demo",
        ["--paragraphs", "80", "--examples", "40", "--comparisons", "12", "--episodes", "64"],
    )
    small += ["--evaluations", "1", "--evaluation-prompts", "4", "--best-of", "2", "--members", "1", "--betas", "0.1"]
    assert run("demo", "--out", out, "--quiet", "--jobs", "1", "--device", "cpu", *small) == 0
    methods = {"ppo-beta0.1", "ppo-ensemble", "ppo-ptx", "dpo", "dpo-rankings", "ipo", "kto", "bestofn"}
    methods |= {"rloo", "grpo", "online-dpo", "simpo", "rejection"}
    assert all((out / name / "summary.json").is_file() for name in methods)
    assert (out / "curve.png").stat().st_size > 10_000
    page = (out / "answers.md").read_text()
    assert all(page.count(f"| {name} | ") == 20 for name in {"sft", *methods} - {"bestofn"})
    assert "# What they answer" in (out / "curve.md").read_text()
    shutil.rmtree(out / "kto")
    shutil.rmtree(out / "ipo")
    assert run("demo", "--out", out, "--quiet", "--jobs", "2", "--device", "cpu", *small) == 0
    assert all((out / name / "summary.json").is_file() for name in ("kto", "ipo"))

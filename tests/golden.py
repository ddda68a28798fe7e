"""Short runs of every kind, each reduced to digests of what it came to, to hold moves that must change nothing against.

    python tests/golden.py --check [NAME ...]     run them, and compare with tests/golden.json
    python tests/golden.py --write [NAME ...]     after a change that is meant to change them: keep the new digests

The digests depend on the processor and on the versions of the libraries; `golden.json` says which these were.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
import safetensors.torch
import torch

from prefrl.control import QuerySettings, TrainSettings, train
from prefrl.feedback import Answer, Comparison, Query
from prefrl.history import Episode
from prefrl.rewards import FitSettings
from prefrl.store import PreferenceStore

KEPT = Path(__file__).with_name("golden.json")
PACKAGES = ("torch", "numpy", "gymnasium", "stable-baselines3", "ale-py", "transformers")
TIMES = ("seconds", "steps_per_second")
ROW = (
    "num_env_steps",
    "labels",
    "episodes",
    "true_return",
    "learned_return",
    "correlation",
    "reward_accuracy",
    "reward_train_accuracy",
    "reward_loss",
    "reward_train_loss",
)
"""Figures of a control run that are compared, and below those at its end; others may be added."""
SUMMARY = ("true_return_mean", "true_return_std", "best_true_return_mean", "random_true_return_mean")

PPO = TrainSettings(
    env_id="Pendulum-v1", labels=12, steps=3200, num_envs=2, segment_length=20, warmup_steps=400, num_checkpoints=4,
    hyperparameters={"n_steps": 100, "batch_size": 50, "n_epochs": 2}, fit=FitSettings(num_steps=20, first_steps=40),
)  # fmt: skip
OFF_POLICY = replace(
    PPO, steps=1000, num_envs=1, hyperparameters={"batch_size": 32, "train_freq": 8, "gradient_steps": 2}
)
CONTROL: dict[str, TrainSettings] = {
    "ppo": PPO,
    "a2c": replace(PPO, agent="a2c", steps=1600, hyperparameters={"n_steps": 50}),
    "sb3-ppo": replace(PPO, agent="sb3-ppo", steps=1600),
    "sac": replace(OFF_POLICY, agent="sac"),
    "sb3-sac": replace(OFF_POLICY, agent="sb3-sac"),
    "td3": replace(OFF_POLICY, agent="td3"),
    "sb3-td3": replace(OFF_POLICY, agent="sb3-td3"),
    "dqn": replace(OFF_POLICY, agent="dqn", env_id="CartPole-v1"),
    "mixed": replace(
        PPO, labels=9, steps=1600, teacher="mistake", queries=QuerySettings(feedback="mixed", num_ranked=3),
        fit=FitSettings(estimate_reliability=True, num_steps=20, first_steps=40),
    ),
    "ranking": replace(
        PPO, labels=8, steps=1600, teacher="skip",
        queries=QuerySettings(feedback="ranking", method="k-center+disagreement"),
    ),
    "people": replace(PPO, labels=20, annotator="both", teacher_share=0.3, shared_share=0.3, wait=4),
    "atari": TrainSettings(
        env_id="prefrl/Atari-Pong-v0", env_options={"hide_life_loss": False, "frame_skip": 2}, fixed_horizon=20,
        segment_length=5, labels=6, steps=512, num_envs=4, warmup_steps=128, num_checkpoints=2,
        hyperparameters={"n_steps": 32, "batch_size": 64, "n_epochs": 1},
        queries=QuerySettings(num_sessions=2), fit=FitSettings(num_steps=1, first_steps=2),
    ),
}  # fmt: skip
QUICK = ("ppo", "mixed", "people", "sac")
NAMES = (*CONTROL, "text")


class Household:
    """Two people and a teacher who answer all that is open as soon as they are told of anything: nobody's clock counts.

    Now and then anna takes an answer back and gives another.
    """

    name = "oracle"

    def __init__(self, record: Path) -> None:
        self.record, self.calls = record, 0

    def observe(self, episodes: Sequence[Episode]) -> None:
        self._answer_through_the_record()

    def answer(self, queries: Sequence[Query]) -> list[Answer]:
        self._answer_through_the_record()
        return [_comparison(query, self.name) for query in queries]

    def state(self) -> dict[str, Any]:
        return {"calls": self.calls}

    def restore(self, state: dict[str, Any]) -> None:
        self.calls = state["calls"]

    def _answer_through_the_record(self) -> None:
        self.calls += 1
        if not self.record.exists():
            return
        with PreferenceStore(self.record) as store:
            for name in ("anna", "ben"):
                for claim in store.claim(name, 5, with_clips=False, repeat_share=0.0):
                    query = store.query(claim.query.id)
                    store.add_answers([_comparison(query, name, claim=claim.token)])
            mine = [row for row, answer in store.answers(standing=True) if answer.annotator == "anna"]
            if self.calls % 4 == 0 and mine:
                claim = store.undo(mine[0], "anna")
                query = store.query(claim.query.id)
                store.add_answers([replace(_comparison(query, "anna", claim=claim.token), preference=0.5)])


def _comparison(query: Query, annotator: str, claim: str | None = None) -> Comparison:
    first, second = (float(segment.true_rewards.sum()) for segment in query.segments)
    return Comparison(query_id=query.id, annotator=annotator, preference=float(first > second), claim=claim)


def run_control(name: str, place: Path) -> dict[str, str]:
    """Train one run and return its digests."""
    out = place / name
    household = Household(out / "record.sqlite") if name == "people" else None
    folder = train(CONTROL[name], out, quiet=True, annotator=household)
    with PreferenceStore(out / "record.sqlite") as store:
        answers = [[row, a.kind, a.annotator, a.query_id, getattr(a, "value", None)] for row, a in store.answers()]
    rows = [{key: row[key] for key in ROW if key in row} for row in folder.read_metrics()]
    summary = folder.read_summary()
    return {
        "answers": digest(answers),
        "policy": digest(torch.load(out / "policies" / "last.pt", weights_only=True)),
        "best": digest(torch.load(out / "policies" / "best.pt", weights_only=True)),
        "reward": digest(safetensors.torch.load_file(out / "reward.safetensors")),
        "metrics": digest(rows),
        "summary": digest({key: summary[key] for key in SUMMARY}),
    }


def run_text(place: Path) -> dict[str, str]:
    """Go the chain from pretraining to DPO with tiny models and return its digests."""
    from prefrl.cli import main

    def run(*arguments: object) -> None:
        if main(["text", *map(str, arguments)]) != 0:
            raise SystemExit(f"prefrl text {' '.join(map(str, arguments))} failed")

    fast = ["--device", "cpu", "--quiet"]
    run("pretrain", "--size", "tiny", "--paragraphs", "150", "--out", place / "base", *fast)
    sft = ["--model", place / "base", "--examples", "100", "--training.optimiser.learning-rate", "1e-3"]
    run("sft", *sft, "--out", place / "sft", *fast)
    model, data = ["--model", place / "sft"], ["--data", place / "pairs.jsonl"]
    compare = ["--prompts", "24", "--max-tokens", "24", "--device", "cpu", "--responses", "4"]
    run("compare", *model, *compare, "--out", place / "pairs.jsonl")
    run("reward", *model, *data, "--out", place / "reward", *fast)
    watch = ["--watch.times", "1", "--watch.prompts", "8"]
    ppo = ["--training.episodes", "16", "--training.batch-size", "8", "--training.minibatch-size", "4",
           "--training.epochs", "1", "--max-tokens", "12", *watch]  # fmt: skip
    run("ppo", *model, "--reward", place / "reward", *ppo, "--out", place / "ppo", *fast)
    run("dpo", *model, *data, *watch, "--out", place / "dpo", *fast)
    found = {}
    for name in ("base", "sft", "reward", "ppo", "dpo"):
        weights = sorted((place / name / "model").rglob("*.safetensors"))
        rows = [_untimed(json.loads(line)) for line in (place / name / "metrics.jsonl").read_text().splitlines()]
        evaluations = place / name / "evaluations.jsonl"
        if evaluations.exists():
            rows += [_untimed(json.loads(line)) for line in evaluations.read_text().splitlines()]
        rows.append(_untimed(json.loads((place / name / "summary.json").read_text())))
        found[f"{name} model"] = digest([safetensors.torch.load_file(path) for path in weights])
        found[f"{name} figures"] = digest(rows)
    found["pairs"] = digest((place / "pairs.jsonl").read_text())
    return found


def _untimed(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in TIMES}


def digest(value: Any) -> str:
    """Return the first half of the SHA-256 of nested values, with tensors by their type, shape and bytes."""
    sha = hashlib.sha256()
    _feed(sha.update, value)
    return sha.hexdigest()[:32]


def _feed(update: Callable[[bytes], None], value: Any) -> None:
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            update(f"{key}:".encode())
            _feed(update, value[key])
    elif isinstance(value, list | tuple):
        update(f"[{len(value)}]".encode())
        for item in value:
            _feed(update, item)
    elif isinstance(value, torch.Tensor):
        flat = value.detach().cpu().contiguous()
        update(f"{flat.dtype}{tuple(flat.shape)}".encode())
        update(flat.reshape(-1).view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    else:
        update(f"{value!r};".encode())


def machine() -> dict[str, str]:
    """Return what the digests depend on beside the code."""
    found = {"python": platform.python_version(), "processor": _processor()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "none"
    return found


def _processor() -> str:
    """Return the model by name and numbers: one name may stand for several, whose instructions round differently."""
    try:
        lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    except OSError:
        return platform.processor() or platform.machine()
    said = {name.strip(): value.strip() for name, _, value in reversed(lines)}
    names = ("model name", "cpu family", "model")
    return f"{', '.join(said.get(name, 'unknown') for name in names)}, {torch.backends.cpu.get_cpu_capability()}"


def run(name: str) -> dict[str, str]:
    """Make the run `name` in a temporary folder and return its digests."""
    torch.set_num_threads(1)
    place = Path(tempfile.mkdtemp(prefix="golden"))
    try:
        return run_text(place) if name == "text" else run_control(name, place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def kept() -> dict[str, Any]:
    """Return what `--write` kept: the machine, and the digests of every run."""
    found: dict[str, Any] = json.loads(KEPT.read_text())
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true")
    what.add_argument("--write", action="store_true")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; default: all")
    given = parser.parse_args()
    if unknown := set(given.names) - set(NAMES):
        parser.error(f"there is no {', '.join(unknown)}")
    before = kept() if KEPT.exists() else {"machine": machine(), "runs": {}}
    if given.check and before["machine"] != machine():
        print(f"The digests are of another machine, {before['machine']}; here: {machine()}", file=sys.stderr)
        return 2
    wrong = 0
    for name in given.names or NAMES:
        begin = time.monotonic()
        found = run(name)
        seconds = time.monotonic() - begin
        if given.write:
            before["runs"][name] = found
            KEPT.write_text(json.dumps({**before, "machine": machine()}, indent=2) + "\n")
            print(f"{name}: kept ({seconds:.1f} s)", flush=True)
            continue
        known = before["runs"].get(name, {})
        other = [key for key in {**known, **found} if known.get(key) != found.get(key)]
        wrong += bool(other)
        print(f"{name}: {'differs in ' + ', '.join(other) if other else 'the same'} ({seconds:.1f} s)", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

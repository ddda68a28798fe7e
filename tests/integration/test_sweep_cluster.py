"""A sweep on a cluster of several nodes: what dies goes on elsewhere, and nobody can tell from the results."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from prefrl.control.folder import ControlFolder
from prefrl.sweeps import cells
from prefrl.sweeps.engine import Resources
from prefrl.sweeps.plan import Plan, Sweep
from prefrl.sweeps.run import run_sweep

ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # noqa: E402

pytestmark = pytest.mark.slow
SETTINGS: dict[str, Any] = {
    "env_id": "Pendulum-v1", "labels": 20, "steps": 20_000, "num_envs": 2, "segment_length": 10, "warmup_steps": 400,
    "eval_episodes": 1, "hyperparameters": {"n_steps": 100, "batch_size": 50, "n_epochs": 2}, "num_checkpoints": 10,
}  # fmt: skip
ALONE = {**os.environ, "OMP_NUM_THREADS": "1"}  # as Ray gives a run with one processor


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head without processors, and two nodes of one each."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    one = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        one.add_node(num_cpus=1)
    ray.init(address=one.address, log_to_driver=False, logging_level="ERROR")
    yield one
    ray.shutdown()
    one.shutdown()


def results_of(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
    """Return all that a run came to, but for how long it took."""
    folder = ControlFolder.open(path)
    rows = [{k: v for k, v in row.items() if "second" not in k} for row in folder.read_metrics()]
    summary = {k: v for k, v in folder.read_summary().items() if "second" not in k}
    return rows, summary, folder.load_policy("last")


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def test_a_run_whose_node_is_killed_goes_on_elsewhere_and_ends_as_if_nothing_had_happened(
    cluster: Cluster, tmp_path: Path
) -> None:
    out = tmp_path / "sweep"
    sweep = Sweep(settings=SETTINGS, vary={"teacher": ["oracle", "noisy"]}, seeds=1)
    plan = Plan.of(sweep)
    runs = [out / cell.name for cell in plan.cells]
    killed = threading.Event()

    def kill() -> None:
        """Kill a node, without a word to its processes, once both runs have saved something and are not over."""
        while not all(any((run / "checkpoints").glob("*")) for run in runs):
            time.sleep(0.05)
        assert not any((run / "summary.json").exists() for run in runs)
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        killed.set()

    thread = threading.Thread(target=kill)
    thread.start()
    swept = run_sweep(sweep, out, quiet=True, resources=Resources(address="auto"))
    thread.join()
    assert killed.is_set() and swept.failed == {}
    assert swept.restarts == 1, "one of the two ran on the node that died"
    for cell in plan.cells:
        alone = tmp_path / "alone" / cell.name
        options = [
            "--teacher", cell.varied["teacher"], "--labels", "20", "--steps", "20000", "--num-envs", "2",
            "--segment-length", "10", "--warmup-steps", "400", "--eval-episodes", "1", "--num-checkpoints", "10",
            "--hyper", "n_steps=100", "batch_size=50", "n_epochs=2",
        ]  # fmt: skip
        words = [sys.executable, "-m", "prefrl.start", "train", "Pendulum-v1", *options, "--quiet", "--no-video"]
        subprocess.run([*words, "--out", str(alone)], check=True, env=ALONE, timeout=300, capture_output=True)
        assert same(results_of(out / cell.name), results_of(alone))


def test_a_sweep_that_is_stopped_saves_its_runs_and_goes_on_when_called_again(tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    words = [
        sys.executable, "-m", "prefrl.start", "sweep", "train", "Pendulum-v1", "--seeds", "2", "--labels", "20",
        "--steps", "100000", "--num-envs", "2", "--segment-length", "10", "--warmup-steps", "400",
        "--eval-episodes", "1", "--hyper", "n_steps=100", "batch_size=50", "n_epochs=2", "--out", str(out), "--json",
    ]  # fmt: skip
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as first:
        until = time.monotonic() + 240
        while not (training := [path for path in out.glob("*/*/metrics.jsonl") if path.stat().st_size]):
            assert first.poll() is None and time.monotonic() < until
            time.sleep(0.1)
        first.send_signal(signal.SIGINT)
        _, said = first.communicate(timeout=240)
    assert first.returncode == 130 and "Call the same command again" in said, said
    assert not list(out.glob("*/*/summary.json"))
    assert any((training[0].parent / "checkpoints").iterdir())
    again = subprocess.run(words, capture_output=True, text=True, timeout=400, check=False)
    assert again.returncode == 0, again.stderr
    found = json.loads(again.stdout)
    assert [run["state"] for run in found["runs"]] == ["done", "done"] and found["restarts"] >= 1


def test_a_run_waits_for_one_that_still_holds_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "SECONDS_BETWEEN_LOOKS", 0.1)
    settings = {**SETTINGS, "steps": 1600, "labels": 6}
    plan = Plan.of(Sweep(settings=settings, seeds=1))
    cell, path = plan.cells[0], tmp_path / "run"
    place = {"begun_in": os.getcwd(), "path": str(path), "log": str(tmp_path / "log")}
    program = "import sys, time; from pathlib import Path; from prefrl.runs.guard import locked\n"
    program += f"with locked(Path({str(path)!r})): print('held', flush=True); time.sleep(3)"
    folder = ControlFolder.create(path, ControlFolder.SETTINGS(**_resolved(settings)), baseline=False)
    folder.metrics_path.write_text('{"num_env_steps": 200, "labels": 0}\n')
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        begun = time.monotonic()
        outcome = cells.make_cell("train", cell.settings, cell.expected, plan.options, place)
        assert time.monotonic() - begun > 1.0
    assert outcome[0] in ("done", "failed") and "being trained" not in outcome[1]


def _resolved(settings: dict[str, Any]) -> dict[str, Any]:
    from dataclasses import fields

    from prefrl.control.settings import TrainSettings

    resolved = TrainSettings(**settings).resolve()
    return {one.name: getattr(resolved, one.name) for one in fields(resolved)}


def test_a_search_makes_its_trials_as_runs_and_looks_further_when_called_for_more(tmp_path: Path) -> None:
    out = tmp_path / "search"
    words = [
        sys.executable, "-m", "prefrl.start", "sweep", "train", "Pendulum-v1", "--search",
        "hyper.learning_rate=1e-4..1e-2:log", "teacher=oracle,noisy", "--seeds", "1", "--labels", "6", "--steps",
        "1600", "--num-envs", "2", "--segment-length", "10", "--warmup-steps", "200", "--eval-episodes", "1", "--hyper",
        "n_steps=100", "batch_size=50", "n_epochs=1", "--out", str(out), "--json", "--trials",
    ]  # fmt: skip
    found = []
    for trials in ("2", "3"):
        done = subprocess.run([*words, trials], capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    assert found[1]["trials"][:2] == found[0]["trials"] and len(found[1]["trials"]) == 3
    assert found[1]["best"]["value"] == max(one["value"] for one in found[1]["trials"])
    for one in found[1]["trials"]:
        settings = ControlFolder.open(out / f"trial-{one['number']:04d}" / "seed-0").settings
        assert settings.hyperparameters["learning_rate"] == one["varied"]["hyper.learning_rate"]
        assert settings.teacher == one["varied"]["teacher"] and settings.hyperparameters["n_epochs"] == 1

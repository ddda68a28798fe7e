"""Nodes of a cluster that die, one after another, under a sweep: do its runs come to what they come to undisturbed?

    python scripts/experiments/kill_nodes.py --runs 12 --every 20

A cluster of Ray is started on this machine: a head without processors and nodes of one processor each. Again and again
the oldest is killed without a word to its processes, and another joins. Each run is then made again by a plain command,
and everything that both hold is compared, bit for bit: metrics, answers, summary, policies and reward.
"""

import filecmp
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
import tyro
from ray.cluster_utils import Cluster

from prefrl.control.folder import ControlFolder
from prefrl.feedback import Answer
from prefrl.store import PreferenceStore
from prefrl.sweeps.engine import Resources
from prefrl.sweeps.plan import Plan, Sweep
from prefrl.sweeps.run import run_sweep

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}  # as Ray gives a run with one processor


def kill_until(over: Callable[[], bool], cluster: Cluster, every: float) -> int:
    """Kill the oldest node again and again, and let another join; return how many were killed.

    Args:
        over: tells when it is enough.
        cluster: whose nodes.
        every: seconds between two kills.
    """
    nodes, kills, due = list(cluster.worker_nodes), 0, time.monotonic() + every
    while not over():
        time.sleep(0.2)
        if time.monotonic() >= due:
            cluster.remove_node(nodes.pop(0), allow_graceful=False)
            nodes.append(cluster.add_node(num_cpus=1))
            kills, due = kills + 1, due + every
            print(f"{kills} nodes killed", flush=True)
    return kills


def held_by(path: Path) -> dict[str, Any]:
    """Return all that a run came to, but for when it was and how long it took."""
    folder = ControlFolder.open(path)
    rows = [{name: value for name, value in row.items() if "second" not in name} for row in folder.read_metrics()]
    summary = {name: value for name, value in folder.read_summary().items() if "second" not in name}
    with PreferenceStore(path / "record.sqlite") as store:
        answers = [answer.value for _, answer in store.answers() if isinstance(answer, Answer)]
    return {"metrics": rows, "summary": summary, "answers": answers}


def differences(one: Path, other: Path) -> list[str]:
    """Return what differs between two runs."""
    left, right = held_by(one), held_by(other)
    found = [name for name in left if json.dumps(left[name], default=str) != json.dumps(right[name], default=str)]
    names = {path.relative_to(one) for path in one.rglob("*.safetensors") if "checkpoints" not in path.parts}
    assert names, f"{one} has no weights to compare"
    found += [str(name) for name in sorted(names) if not filecmp.cmp(one / name, other / name, shallow=False)]
    return found


def main(
    env: str = "HalfCheetah-v5", labels: int = 100, steps: int = 300_000, runs: int = 12, nodes: int = 3,
    every: float = 20.0, out: Path | None = None,
) -> None:  # fmt: skip
    """Make the runs under fire, then alone, and compare.

    Args:
        env: trained in.
        labels: of each run.
        steps: of each run.
        runs: one for each seed.
        nodes: of one processor each.
        every: seconds between two kills.
        out: folder of all runs; None: a temporary one.
    """
    where = out or Path(tempfile.mkdtemp(prefix="kill-nodes-"))
    sweep = Sweep(settings={"env_id": env, "labels": labels, "steps": steps}, seeds=runs)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(nodes):
        cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    began = time.perf_counter()
    with ThreadPoolExecutor(1) as beside:  # nodes are started from the main thread
        making = beside.submit(run_sweep, sweep, where / "sweep", resources=Resources(address="auto", retries=100))
        kills = kill_until(making.done, cluster, every)
    swept = making.result()
    seconds = time.perf_counter() - began
    ray.shutdown()
    cluster.shutdown()
    print(
        f"{runs} runs in {seconds:.0f} s, {kills} nodes killed, runs gone on with {swept.restarts} times",
        flush=True,
    )
    print(f"failed: {swept.failed or 'none'}", flush=True)

    def alone(name: str, seed: int) -> list[str]:
        path = where / "alone" / name
        words = [
            "train",
            env,
            "--labels",
            str(labels),
            "--steps",
            str(steps),
            "--seed",
            str(seed),
            "--quiet",
            "--no-video",
        ]
        command = [sys.executable, "-m", "prefrl", *words, "--out", str(path)]
        subprocess.run(command, check=True, env=ONE_THREAD, stdout=subprocess.DEVNULL)
        return differences(where / "sweep" / name, path)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        names = [cell.name for cell in Plan.of(sweep).cells]
        found = dict(zip(names, pool.map(alone, names, range(runs)), strict=True))
    different = {name: what for name, what in found.items() if what}
    print(f"{runs - len(different)} of {runs} the same, bit for bit; different: {different or 'none'}")
    if out is None:
        shutil.rmtree(where)
    sys.exit(1 if different or swept.failed else 0)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

"""Five programs teach by the page's requests: two who look, one careless, one too fast, one who says the contrary.

    python scripts/benchmarks/benchmark_five_annotators.py                       # HalfCheetah, 400 answers
    python scripts/benchmarks/benchmark_five_annotators.py --labels 60 --steps 20000

`prefrl train ENV --annotator human --serve --fit.estimate-reliability` learns from all five. Printed are what
`prefrl quality` says of each, how reliable the fit takes them to be, and how often three rewards fitted to the same
record order pairs of its segments, put together anew, as the true reward does: from all as equals, with estimated
reliability, and from the two who look alone; and the difference of the last two with its 95 % interval over pairs.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from benchmark_many_people import Judge

from prefrl.control.folder import ControlFolder
from prefrl.rewards import RewardEnsemble
from prefrl.runs.streams import stream_seed
from prefrl.segments import Segment
from prefrl.store import PreferenceStore
from prefrl.studies.refit import fit_record

WHO = {"anna": 1.5, "ben": 1.5, "careless": 1.5, "hasty": 0.05, "contrary": 1.5}
"""Seconds for which each looks at a question."""
THREE = ("careless", "hasty", "contrary")


class Teacher(Judge):
    """Answers as somebody of `WHO` does.

    Args:
        port: of the page.
        token: of the person's link.
        name: of the person.
        store: the record, which says what the true returns are.
    """

    def __init__(self, port: int, token: str, name: str, store: PreferenceStore) -> None:
        super().__init__(port, token, WHO[name], store, sum(map(ord, name)))
        self.name = name

    def order(self, question: dict[str, Any]) -> list[list[int]]:
        """Return which of the two at the left and at the right is better, as the page sends it."""
        if self.name == "hasty":
            return [[0], [1]]
        if self.name == "careless":
            return [[0], [1]] if self._random.random() < 0.5 else [[1], [0]]
        truly = super().order(question)
        return truly[::-1] if self.name == "contrary" else truly


def main(
    env: str = "HalfCheetah-v5", labels: int = 400, steps: int | None = None, seed: int = 0, out: Path | None = None
) -> None:
    """Teach, then print what was found.

    Args:
        env: what to train on.
        labels: answers in all.
        steps: of the training; None: the environment's.
        seed: of the run.
        out: the run folder; None: a temporary one.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = out or Path(folder) / "run"
        command = [
            "train",
            env,
            "--annotator",
            "human",
            "--labels",
            str(labels),
            "--seed",
            str(seed),
            "--out",
            str(out),
        ]
        command += ["--serve", "--no-viewer", "--no-video", "--json", "--fit.estimate-reliability"]
        command += ["--steps", str(steps)] if steps else []
        training = subprocess.Popen([sys.executable, "-m", "prefrl", *command], stdout=subprocess.PIPE, text=True)
        wait_for(lambda: (out / "record.sqlite").exists(), training)
        with PreferenceStore(out / "record.sqlite") as store:
            wait_for(lambda: store.facts().get("served_at"), training)
            port = int(store.facts()["served_at"].rstrip("/").rpartition(":")[2])
            teachers = [Teacher(port, store.links.make(name), name, store) for name in WHO]
            threads = [threading.Thread(target=teacher.work, daemon=True) for teacher in teachers]
            for thread in threads:
                thread.start()
            said, _ = training.communicate()
            report(out, store, teachers, json.loads(said.splitlines()[-1]))


def wait_for(condition: Callable[[], Any], training: subprocess.Popen[str]) -> None:
    """Wait until something is there; end where the training is over before."""
    while not condition():
        if training.poll() is not None:
            raise SystemExit(f"The training ended with status {training.returncode}.")
        time.sleep(0.5)


def report(out: Path, store: PreferenceStore, teachers: list[Teacher], summary: dict[str, Any]) -> None:
    """Print what was found."""
    quality = prefrl("quality", str(out), "--json")
    print(f"true return {summary['true_return_mean']:.0f} (random actions {summary['random_true_return_mean']:.0f})")
    print("| annotator | answers | warnings of prefrl quality | reliability |\n|---|---|---|---|")
    reliability = quality["reliability"] or {}
    for one in quality["annotators"]:
        warnings = "; ".join(one["warnings"]) or "none"
        print(
            f"| {one['name']} | {one['num_answers']} | {warnings} | {reliability.get(one['name'], float('nan')):.2f} |"
        )
    for teacher in teachers:
        if teacher.error:
            print(f"{teacher.name} ended with {teacher.error}")
    segments = {part.id: part for name in store.query_ids() for part in store.query(name).segments}
    mixed = np.random.default_rng(0).permutation(list(segments))
    pairs = [(segments[a], segments[b]) for a, b in zip(mixed[::2], mixed[1::2], strict=False)]
    right = {}
    for name, without, estimated in (
        ("all as equals", (), False), ("estimated reliability", (), True), ("the two who look", THREE, False),
    ):  # fmt: skip
        right[name] = in_order(fitted(out, store, without, estimated), pairs)
    for name, found in right.items():
        print(f"{name}: {found.mean():.1%} of {len(found)} pairs in the true order")
    difference = right["estimated reliability"] - right["the two who look"]
    error = 1.96 * difference.std(ddof=1) / np.sqrt(len(difference))
    print(f"estimated reliability less the two: {difference.mean():+.1%} ± {error:.1%}")


def fitted(out: Path, store: PreferenceStore, without: tuple[str, ...], estimated: bool) -> RewardEnsemble:
    """Fit a reward anew, as `prefrl fit` does."""
    settings, old = ControlFolder.open(out).settings, RewardEnsemble.load(out / "reward.safetensors")
    seed = stream_seed(settings.seed, "refit")
    reward = RewardEnsemble(old.observation_space, old.action_space, settings.reward, seed=seed)
    fit = replace(settings.fit, estimate_reliability=estimated)
    fit_record(store, reward, fit, without=without, seed=seed)
    return reward


def in_order(reward: RewardEnsemble, pairs: list[tuple[Segment, Segment]]) -> np.ndarray:
    """Return 1.0 for each pair that a reward orders as the true one does, 0.0 for the others."""
    learned = [reward.segment_returns(list(side)).mean(0) for side in zip(*pairs, strict=True)]
    true = [np.array([one.true_rewards.sum() for one in side]) for side in zip(*pairs, strict=True)]
    return ((learned[0] > learned[1]) == (true[0] > true[1])).astype(float)


def prefrl(*words: str) -> dict[str, Any]:
    """Run a command that prints one JSON object."""
    done = subprocess.run([sys.executable, "-m", "prefrl", *words], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

"""What scripts/tools/compatibility.py runs in each virtual environment: one library, or one environment.

    python scripts/tools/compatibility_checks.py library --name skrl --env-id CartPole-v1 --packages skrl
    python scripts/tools/compatibility_checks.py environment --line "Taxi-v4"

The last line printed is a JSON object.

A library trains on the reward of a short run. Beside the environment, inside the learned reward, a witness keeps
every transition; when training is over, the saved reward scores each episode anew, and every return in the library's
own books must be one of these sums.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import runpy
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import tyro

from prefrl.cli import main as prefrl
from prefrl.clips.codec import decode_clip
from prefrl.control import ControlFolder
from prefrl.errors import UserError
from prefrl.rewards.ensemble import RewardEnsemble

EXAMPLES = Path(__file__).parents[1] / "examples"
TINY = [
    *("--labels", "8", "--steps", "600", "--num-envs", "2", "--segment-length", "5", "--warmup-steps", "200"),
    *("--queries.num-sessions", "2", "--fit.first-steps", "20", "--fit.num-steps", "10", "--num-checkpoints", "2"),
    *("--eval-episodes", "1", "--no-video", "--quiet"),
]


class Witness(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Keeps the transitions of each finished episode."""

    episodes: list[list[tuple[Any, Any, Any]]] = []  # noqa: RUF012  (of all copies)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._last, self._steps = np.array(observation), []
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._steps.append((self._last, np.array(action), np.array(observation)))
        self._last = np.array(observation)
        if terminated or truncated:
            Witness.episodes.append(self._steps)
            self._steps = []
        return observation, reward, terminated, truncated, info


def library(name: str, env_id: str, packages: tuple[str, ...] = ()) -> None:
    """Train with a library.

    Args:
        name: scripts/examples/with_NAME.py has the loop.
        env_id: to train in.
        packages: whose versions are told.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        run = Path(folder) / "run"
        assert prefrl(["train", env_id, *TINY, "--out", str(run)]) == 0
        train: Callable[..., list[float]] = runpy.run_path(str(EXAMPLES / f"with_{name}.py"))["train"]
        returns = train(str(run), make=lambda: Witness(gymnasium.make(env_id)))
        reward = RewardEnsemble.load(run)
    sums = [
        float(reward(*(np.stack(part) for part in zip(*steps, strict=True))).sum(dtype=np.float64))
        for steps in Witness.episodes
    ]
    left, differences = list(sums), []
    for found in returns:  # each is the sum of one of the episodes
        nearest = int(np.argmin(np.abs(np.array(left) - found)))
        differences.append(abs(left.pop(nearest) - found))
    outcome: dict[str, Any] = {
        "versions": versions("prefrl" if not packages else "", *packages, "gymnasium", "numpy"),
        "episodes": len(returns),
        "difference": float(max(differences, default=0.0)),
        "largest": float(max(map(abs, sums))),
    }
    if name in ("cleanrl", "stable_baselines3"):
        outcome["versions"] = versions(*([] if name == "cleanrl" else ["stable-baselines3"]), "gymnasium", "numpy")
        outcome["versions"][:0] = ["CleanRL's loop"] if name == "cleanrl" else []
    if len(returns) < 3 or outcome["difference"] > 1e-4 * max(1.0, outcome["largest"]):
        outcome["failed"] = f"its returns are not the learned ones: {returns[:3]} of {sums[:3]}"
    print(json.dumps(outcome))


def environment(line: str, packages: tuple[str, ...] = ()) -> None:
    """Train in an environment, and do whatever can be done with the run.

    Args:
        line: the words that follow `prefrl train`.
        packages: whose versions are told.
    """
    outcome: dict[str, Any] = {"versions": versions(*packages, "gymnasium")}
    with tempfile.TemporaryDirectory() as folder:
        run = str(Path(folder) / "run")
        hyper = ["--hyper", "n_steps=100", "batch_size=50", "n_epochs=2"]
        outcome["train"] = attempt(["train", *shlex.split(line), *TINY, *hyper, "--out", run])
        if outcome["train"] == "yes":
            outcome["evaluate"] = attempt(["evaluate", run, "--episodes", "1"])
            outcome["report"] = attempt(["report", run])
            outcome["video"] = attempt(["video", run, "--steps", "20"])
        outcome["clips"] = clips(line, Path(folder) / "taught")
    print(json.dumps(outcome))


def attempt(words: list[str]) -> str:
    """Run a command; return "yes", or "failed" and what it said."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            status = prefrl(words)
    except SystemExit as stopped:
        status = int(stopped.code or 0)
    text = " ".join(said.getvalue().split())
    return f"failed: {text}" if status or "No video" in text else "yes"


def clips(line: str, run: Path, seconds: float = 600) -> str:
    """Begin a run that people are to teach; return "yes" once what they are asked about can be seen."""
    words = [*shlex.split(line), *TINY, "--annotator", "human", "--no-viewer", "--out", str(run)]
    program = "import sys; from prefrl.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "train", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(1.0)
            if (verdict := _seen(run)) is not None:
                return verdict
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    return f"failed: {' '.join(said.split())[-300:] or 'no clip'}"


def _seen(run: Path) -> str | None:
    try:
        with ControlFolder.open(run).open_record() as store:
            names = [segment.id for query in store.open_queries() for segment in query.segments]
            failures = store.render_failures(names)
            found = store.clips(names)
    except UserError:  # not begun yet, or only just
        return None
    if failures:
        return f"failed: {next(iter(failures.values()))}"
    if len(found) < 2:
        return None
    frames = decode_clip(next(iter(found.values())).data).frames
    return "yes" if frames.max() > 8 else "failed: black"


def versions(*packages: str) -> list[str]:
    """Return names and versions of packages, extras left out."""
    names = [re.split(r"[\[<>=]", package)[0] for package in packages if package]
    return [f"{name} {version(name)}" for name in names]


if __name__ == "__main__":
    try:
        tyro.extras.subcommand_cli_from_dict({"library": library, "environment": environment}, description=__doc__)
    except Exception as error:  # of any of the packages
        traceback.print_exc()
        print(json.dumps({"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}))

"""A run that was killed and resumed ends exactly as one that was not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from prefrl.control import ControlFolder, Interrupted, TrainSettings, resume, summarise, train
from prefrl.control.duels import ask_duels
from prefrl.control.loop import Trainer
from prefrl.control.settings import QuerySettings
from prefrl.errors import UserError
from prefrl.files import write_json
from prefrl.rewards import FitSettings, RewardSettings
from prefrl.runs.checkpoint import newest_checkpoint
from prefrl.runs.codec import to_json
from prefrl.store import PreferenceStore
from tests.outcomes import assert_same, break_off, outcome

TINY = TrainSettings(
    env_id="Pendulum-v1", labels=12, steps=3200, num_envs=2, segment_length=20, warmup_steps=400, num_checkpoints=5,
    hyperparameters={"n_steps": 100, "batch_size": 50, "n_epochs": 2},
)  # fmt: skip
TINY_SAC = TrainSettings(
    env_id="Pendulum-v1", labels=6, steps=3000, num_envs=1, segment_length=20, warmup_steps=400, num_checkpoints=3,
    agent="sac", hyperparameters={"batch_size": 32, "train_freq": 8, "gradient_steps": 2},
)  # fmt: skip
TINY_MIXED = replace(
    TINY, steps=1600, labels=9, teacher="mistake", fit=FitSettings(estimate_reliability=True),
    queries=QuerySettings(feedback="mixed", num_ranked=3),
)  # fmt: skip


TINY_GROUPS = replace(
    TINY, steps=1600, panel=("oracle", "inverted", "oracle"), reward=RewardSettings(groups=2, serve="worst")
)


TINY_FEWER = replace(  # whatever is for fewer labels, together
    TINY_SAC, fit=FitSettings(dynamics_steps=10, bootstrap=True),
    queries=QuerySettings(drop_alike=0.3, drop_even=0.2),
    reward=RewardSettings(network="dynamics", bonus=0.3, bonus_decay=3e-4),
)  # fmt: skip


TINY_UNTOLD = replace(TINY, env_id="Acrobot-v1", labels=40)  # all answers are ties: the agent explores


def start(settings: TrainSettings, out: Path) -> subprocess.Popen[bytes]:
    code = (
        "import json, sys; from pathlib import Path; from prefrl.control import *; out = Path(sys.argv[2]); "
        "from prefrl.runs.codec import from_json; "
        "resume(out, quiet=True) if out.exists() else "
        "train(from_json(TrainSettings, json.loads(sys.argv[1])), out, quiet=True)"
    )
    command = [sys.executable, "-c", code, json.dumps(to_json(settings)), str(out)]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize(
    "settings",
    [
        TINY,
        TINY_SAC,
        replace(TINY_SAC, agent="td3"),
        replace(TINY_SAC, agent="sb3-sac"),
        TINY_MIXED,
        TINY_GROUPS,
        TINY_FEWER,
        TINY_UNTOLD,
        replace(TINY_UNTOLD, agent="dqn", hyperparameters={"batch_size": 32, "train_freq": 8, "gradient_steps": 2}),
    ],
    ids=["ppo", "sac", "td3", "sb3-sac", "mixed", "groups", "fewer", "ties", "dqn-ties"],
)
def test_run_killed_at_random_moments_ends_bit_identical(settings: TrainSettings, tmp_path: Path) -> None:
    whole = train(settings, tmp_path / "whole", quiet=True)
    chance = random.Random(0)
    out = tmp_path / "killed"
    kills = 0
    for _ in range(60):
        process = start(settings, out)
        while process.poll() is None and not (out / "metrics.jsonl").exists():
            time.sleep(0.01)
        try:
            process.wait(chance.uniform(0.1, 1.5) if kills < 3 else 120)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        if (out / "summary.json").exists():
            break
    assert kills > 0
    assert_same(outcome(whole), outcome(ControlFolder.open(out)))


class Careless(gymnasium.Env[Any, Any]):
    """A point that is pushed along a line; whatever is random in it comes from the global streams."""

    observation_space = spaces.Box(-10, 10, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.x = float(np.random.uniform(-2, 2)) + random.uniform(-0.5, 0.5) + float(torch.rand(()))  # noqa: NPY002
        return np.array([self.x], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.x = float(np.clip(self.x + 0.3 * float(action[0]) + 0.1 * np.random.randn(), -5, 5))  # noqa: NPY002
        return np.array([self.x], np.float32), -abs(self.x), False, False, {}


@pytest.mark.parametrize("agent", ["ppo", "sac", "td3", "sb3-ppo", "sb3-sac"])
def test_what_environments_draw_from_the_global_streams_is_the_same_after_a_crash(
    agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "Careless-v0" not in gymnasium.registry:
        gymnasium.register("Careless-v0", Careless, max_episode_steps=40)
    of_agent: dict[str, float | str] = {"n_steps": 100, "batch_size": 50, "n_epochs": 1}
    if agent.endswith(("sac", "td3")):
        of_agent = {"batch_size": 16, "train_freq": 8, "gradient_steps": 1}
    settings = replace(TINY, env_id="Careless-v0", agent=agent, steps=1600, hyperparameters=of_agent)
    whole = train(settings, tmp_path / "whole", quiet=True)
    break_off(settings, tmp_path / "run", monkeypatch)
    np.random.seed(7)  # noqa: NPY002
    random.seed(7)
    torch.manual_seed(7)
    assert_same(outcome(whole), outcome(resume(tmp_path / "run", quiet=True)))


def test_answers_newer_than_the_checkpoint_are_used_not_asked_again(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(TINY, out)
    while process.poll() is None and len(ControlFolder(out).read_metrics()) < 5:
        time.sleep(0.01)
    process.kill()
    process.wait()
    with PreferenceStore(out / "record.sqlite") as store:
        before = store.answers()
    resume(out, quiet=True)
    with PreferenceStore(out / "record.sqlite") as store:
        after = store.answers()
    assert after[: len(before)] == before
    assert len(after) == TINY.labels
    assert len({comparison.query_id for _, comparison in after}) == TINY.labels


def test_interrupted_run_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [
        sys.executable, "-m", "prefrl.cli", "train", "Pendulum-v1", "--labels", "12", "--steps", "60000", "--no-video",
        "--out", str(out),
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while process.poll() is None and not ControlFolder(out).read_metrics():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert f"prefrl resume {out}" in errors
    checkpoint, _ = newest_checkpoint(ControlFolder.open(out))
    assert checkpoint is not None
    assert checkpoint.count == ControlFolder.open(out).read_metrics()[-1]["num_env_steps"]


def test_what_is_asked_behind_the_end_is_asked_once(tmp_path: Path) -> None:
    folder = train(replace(TINY, panel=("oracle", "noisy")), tmp_path / "run", quiet=True)
    with folder.open_record() as store:
        asked, answers = store.num_judging(), store.answers()
        assert asked > 0
        assert ask_duels(folder, store) == asked  # as after a kill, before the summary was written
        assert (store.num_judging(), len(store.answers())) == (asked, len(answers))


def test_a_run_killed_before_its_baseline_was_made_has_one_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = ControlFolder.create

    def killed(path: Path, settings: Any, *, baseline: bool, beside: bool = False) -> ControlFolder:
        if baseline:
            raise KeyboardInterrupt
        return create(path, settings, baseline=baseline, beside=beside)

    with monkeypatch.context() as patch:
        patch.setattr(ControlFolder, "create", staticmethod(killed))
        with pytest.raises(KeyboardInterrupt):
            train(TINY, tmp_path / "run", baseline=True, quiet=True)
    assert not (tmp_path / "run" / "baseline").exists()
    assert "baseline_true_return_mean" in resume(tmp_path / "run", quiet=True).read_summary()


def test_run_stopped_in_its_baseline_goes_on_from_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, iterate = tmp_path / "run", Trainer._iterate

    def stopped(self: Trainer) -> None:
        iterate(self)
        if self.is_baseline:
            self.stop()

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_iterate", stopped)
        with pytest.raises(Interrupted, match=f"prefrl resume {out}$"):
            train(TINY, out, baseline=True, quiet=True)
    assert "baseline_true_return_mean" not in summarise(ControlFolder.open(out), num_episodes=1)
    with pytest.raises(UserError, match=f"prefrl resume {out}$"):
        resume(out / "baseline", quiet=True)
    assert "baseline_true_return_mean" in resume(out, quiet=True).read_summary()


def test_damaged_checkpoint_is_refused_and_the_one_before_used(tmp_path: Path) -> None:
    folder = train(TINY, tmp_path / "run", quiet=True)
    older, newest = sorted(path for path in folder.checkpoints.iterdir())
    content = (newest / "state.pt").read_bytes()
    (newest / "state.pt").write_bytes(content[: len(content) // 2])
    checkpoint, refused = newest_checkpoint(folder)
    assert checkpoint is not None and checkpoint.count == int(older.name)
    assert len(refused) == 1 and "damaged" in refused[0]


def test_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    folder = train(TINY, tmp_path / "run", quiet=True)
    write_json(folder.config_path, {**folder.config, "run_id": "0" * 32})
    checkpoint, refused = newest_checkpoint(folder)
    assert checkpoint is None
    assert all("another run" in reason for reason in refused)


def test_finished_run_is_not_resumed(tmp_path: Path) -> None:
    folder = train(TINY, tmp_path / "run", quiet=True)
    with pytest.raises(UserError, match="is finished"):
        resume(folder.path)

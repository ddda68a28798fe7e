"""The wrappers in other people's projects: other processes, stable-baselines3, and the example script."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from prefrl.rewards.ensemble import RewardEnsemble
from prefrl.wrappers import LearnedReward, VectorLearnedReward

pytestmark = pytest.mark.lowest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    env = gymnasium.make("CartPole-v1")
    path = tmp_path / "reward.safetensors"
    RewardEnsemble(env.observation_space, env.action_space, seed=3).save(path)
    return path


def test_environments_in_other_processes_give_what_those_in_this_one_give(saved: Path) -> None:
    spec = replace(gymnasium.spec("CartPole-v1"), additional_wrappers=(LearnedReward.wrapper_spec(reward=str(saved)),))
    rows = {}
    for mode in ("sync", "async"):
        envs = gymnasium.make_vec(spec, 2, mode, vector_kwargs={"context": "spawn"} if mode == "async" else None)
        envs.reset(seed=0)
        rows[mode] = [envs.step(np.array([0, 1])) for _ in range(25)]
        envs.close()
    for one, two in zip(rows["sync"], rows["async"], strict=True):
        np.testing.assert_array_equal(one[0], two[0])
        np.testing.assert_allclose(one[1], two[1], atol=1e-6)
        np.testing.assert_array_equal(one[4].get("true_return", 0), two[4].get("true_return", 0))


def test_a_vector_of_environments_in_other_processes_can_be_wrapped(saved: Path) -> None:
    rows = {}
    for mode in ("sync", "async"):
        envs = VectorLearnedReward(gymnasium.make_vec("CartPole-v1", 2, mode), saved)
        envs.reset(seed=0)
        rows[mode] = [envs.step(np.array([0, 1]))[1] for _ in range(25)]
        envs.close()
    np.testing.assert_array_equal(rows["sync"], rows["async"])


@pytest.mark.filterwarnings("ignore")
def test_stable_baselines3_accepts_it_and_trains_on_the_learned_reward(saved: Path) -> None:
    check_env(LearnedReward(gymnasium.make("CartPole-v1"), saved))

    def make() -> gymnasium.Env[np.ndarray, int]:
        env = LearnedReward(gymnasium.make("CartPole-v1"), saved)
        return Monitor(env, info_keywords=("true_return", "learned_return"))

    agent = PPO("MlpPolicy", DummyVecEnv([make, make]), n_steps=64, batch_size=64, seed=0, device="cpu")
    agent.learn(512)
    assert agent.ep_info_buffer
    for episode in agent.ep_info_buffer:
        assert episode["true_return"] == episode["l"]  # CartPole pays 1 per step
        assert episode["r"] == pytest.approx(episode["learned_return"], abs=1e-4)
    assert not np.allclose(agent.rollout_buffer.rewards, 1.0)


def test_stable_baselines3_can_run_it_in_processes_of_their_own(saved: Path) -> None:
    envs = SubprocVecEnv([lambda: LearnedReward(gymnasium.make("CartPole-v1"), saved)], start_method="spawn")
    envs.reset()
    _, rewards, _, infos = envs.step(np.array([0]))
    assert infos[0]["true_reward"] == 1.0
    assert rewards[0] != 1.0
    envs.close()


def run_example(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "examples" / "wrap_your_own.py"), *args],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=False,
    )


def test_the_example_trains_on_a_saved_reward(saved: Path) -> None:
    done = run_example(str(saved), "--steps", "1000")
    assert done.returncode == 0, done.stderr
    assert "true return" in done.stdout
    assert done.stdout.count("learned return") == 4
    assert "Warning" not in done.stderr


def test_the_example_explains_itself_and_refuses_what_is_no_reward(tmp_path: Path) -> None:
    done = run_example()
    assert done.returncode == 2
    assert "prefrl train" in done.stderr
    done = run_example(str(tmp_path / "nothing"))
    assert done.returncode == 2
    assert "no saved reward" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_example_is_short_and_imports_nothing_else_of_ours() -> None:
    lines = (ROOT / "scripts" / "examples" / "wrap_your_own.py").read_text().splitlines()
    assert len(lines) <= 60
    ours = [line for line in lines if line.lstrip().startswith(("from prefrl", "import prefrl"))]
    assert ours == ["from prefrl.wrappers import LearnedReward  # (1)"]

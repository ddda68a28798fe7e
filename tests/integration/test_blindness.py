"""The agent never sees the true reward, in any path."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from prefrl.control import TrainSettings, train
from prefrl.runs.checkpoint import newest_checkpoint
from tests.integration.test_resume import TINY, TINY_SAC
from tests.outcomes import assert_same

HEIGHT = "def upright(segment):\n    return segment.observations[1:, 0]\n"


class NanReward(gymnasium.RewardWrapper[Any, Any]):
    """Every true reward is NaN."""

    def reward(self, reward: Any) -> float:
        return float("nan")


def make_blind_pendulum(**kwargs: Any) -> gymnasium.Env[Any, Any]:
    return NanReward(gymnasium.make("Pendulum-v1", **kwargs).unwrapped)


@pytest.fixture
def blind_pendulum() -> Any:
    name = "PendulumWithoutReward-v1"
    gymnasium.register(name, make_blind_pendulum, max_episode_steps=200)
    yield name
    del gymnasium.registry[name]


@pytest.mark.parametrize(
    "settings",
    [
        TINY,
        replace(TINY, agent="sb3-ppo"),
        TINY_SAC,
        replace(TINY_SAC, agent="sb3-sac"),
        replace(TINY_SAC, agent="td3"),
    ],
    ids=["ppo", "sb3-ppo", "sac", "sb3-sac", "td3"],
)
def test_weights_do_not_depend_on_the_true_reward(settings: TrainSettings, tmp_path: Path, blind_pendulum: str) -> None:
    (tmp_path / "teacher.py").write_text(HEIGHT)
    judged = replace(settings, reward_function=f"{tmp_path}/teacher.py:upright")
    weights = []
    for env_id in ("Pendulum-v1", blind_pendulum):
        settings = replace(judged.resolve(), env_id=env_id)
        folder = train(settings, tmp_path / env_id, quiet=True)
        checkpoint, _ = newest_checkpoint(folder)
        assert checkpoint is not None
        weights.append({name: checkpoint.state.tensors[name] for name in ("agent", "learner", "best")})
    assert_same(*weights)
    returns = [row["learned_return"] for row in folder.read_metrics() if row["learned_return"] is not None]
    assert returns and np.isfinite(returns).all()

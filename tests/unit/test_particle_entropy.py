"""What an agent learns from before anything is asked: how far a state is from those seen before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from sklearn.neighbors import NearestNeighbors

from prefrl.control import TrainSettings, train
from prefrl.control.folder import ControlFolder
from prefrl.errors import UserError
from prefrl.rewards.particle_entropy import NEIGHBOUR, REMEMBERED, ParticleEntropy

LINE = spaces.Box(-np.inf, np.inf, (2,))


def test_it_is_the_distance_to_the_nth_nearest_neighbour() -> None:
    rng = np.random.default_rng(0)
    entropy = ParticleEntropy(LINE)
    before, batch = rng.normal(size=(300, 2)).astype(np.float32) * [1, 50], rng.normal(size=(40, 2)) * [1, 50]
    entropy.remember(before.astype(np.float32), rng)
    found = entropy(batch, np.zeros((40, 1)), batch.astype(np.float32))
    scale = 1 / before.astype(np.float32).std(0)
    pool = NearestNeighbors().fit(np.concatenate([batch, before]) * scale)
    distances, _ = pool.kneighbors(batch * scale, NEIGHBOUR + 1)
    np.testing.assert_allclose(found, np.log1p(distances[:, -1]), rtol=1e-3)


def test_what_is_far_from_everything_is_worth_more_and_a_feature_that_stands_still_says_nothing() -> None:
    entropy = ParticleEntropy(LINE)
    seen = np.stack([np.linspace(-1, 1, 500), np.zeros(500)], 1).astype(np.float32)
    entropy.remember(seen, np.random.default_rng(0))
    near, far, strange = ([[0.0, 0.0]], [[5.0, 0.0]], [[0.0, 5.0]])
    worth = [float(entropy(x, x, np.array(x, np.float32))[0]) for x in (near, far, strange)]  # type: ignore[arg-type]
    assert worth[1] > 5 * worth[0] and worth[2] == worth[0]


def test_a_random_choice_of_many_is_remembered() -> None:
    entropy = ParticleEntropy(LINE)
    for part in range(10):
        rng = np.random.default_rng(part)
        entropy.remember(np.full((1000, 2), part, np.float32) + rng.normal(size=(1000, 2)), rng)
    assert len(entropy.seen) == REMEMBERED
    assert np.histogram(entropy.seen[:, 0], np.arange(-0.5, 10.5))[0].min() > 20


def test_images_are_refused() -> None:
    with pytest.raises(UserError, match="--warmup policy or uniform"):
        ParticleEntropy(spaces.Box(0, 255, (64, 64, 3), np.uint8))


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["ppo", "sac"])
def test_a_run_explores_before_its_first_questions(agent: str, tmp_path: Path) -> None:
    small: dict[str, Any] = {
        "env_id": "Pendulum-v1",
        "labels": 6,
        "num_envs": 2,
        "segment_length": 20,
        "eval_episodes": 1,
    }
    hyper = (
        {"n_steps": 100, "batch_size": 50, "n_epochs": 2} if agent == "ppo" else {"batch_size": 16, "gradient_steps": 1}
    )
    runs = []
    for number in range(2):
        settings = TrainSettings(
            **small, steps=4000, warmup="entropy", warmup_steps=1600, agent=agent, hyperparameters=hyper, seed=1
        )
        runs.append(train(settings, tmp_path / f"{number}", quiet=True))
    first = runs[0].read_metrics()[0]
    assert first["num_env_steps"] > 1600 and isinstance(runs[0], ControlFolder)
    kept = ("num_env_steps", "true_return", "learned_return", "labels")
    rows = [[{name: row.get(name) for name in kept} for row in run.read_metrics()] for run in runs]
    assert rows[0] == rows[1]

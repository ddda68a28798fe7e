"""What each of two groups gets who want opposite things, by whose reward the agent is given.

    python scripts/experiments/groups_served.py --seeds 4

A point is pushed about on a square. All want it up; three of four want it right as well, and the fourth left. Policies
are measured by the wishes themselves, per step: at best 2 in the corner that a group wants, and 1 for both in the
middle of the upper side.
"""

import statistics
import tempfile
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import tyro
from gymnasium import spaces

from prefrl.control import TrainSettings, train
from prefrl.control.run import evaluate_run
from prefrl.rewards import RewardSettings
from prefrl.segments import Segment
from prefrl.spaces import Array

HERE = Path(__file__).resolve()
WAYS = {
    "one reward": RewardSettings(inputs="s"),
    "shares": RewardSettings(inputs="s", groups=2),
    "worst": RewardSettings(inputs="s", groups=2, serve="worst"),
    "left": RewardSettings(inputs="s", groups=2, serve="left"),
}


class Square(gymnasium.Env[Array, Array]):
    """A point in [-1, 1]^2 that begins near the middle and is pushed."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-0.2, 0.2, 2).astype(np.float32)
        return self.place, {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        self.place = np.clip(self.place + 0.1 * np.clip(action, -1, 1), -1, 1).astype(np.float32)
        return self.place, 0.0, False, False, {}


def for_right(observations: Array, actions: Array, following: Array) -> Array:
    return following[:, 1] + following[:, 0]


def for_left(observations: Array, actions: Array, following: Array) -> Array:
    return following[:, 1] - following[:, 0]


def right(segment: Segment) -> Array:
    return for_right(segment.observations[:-1], segment.actions, segment.observations[1:])


def left(segment: Segment) -> Array:
    return for_left(segment.observations[:-1], segment.actions, segment.observations[1:])


def main(seeds: int = 4, steps: int = 12_000, labels: int = 160, first_seed: int = 0) -> None:
    gymnasium.register("Square-v0", Square, max_episode_steps=50)
    out = Path(tempfile.mkdtemp())
    panel = (f"{HERE}:right",) * 3 + (f"{HERE}:left",)
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in range(first_seed, first_seed + seeds):
        for way, reward in WAYS.items():
            settings = TrainSettings(
                env_id="Square-v0", labels=labels, steps=steps, num_envs=4, segment_length=10, panel=panel,
                reward=reward, seed=seed, eval_episodes=4,
                hyperparameters={"n_steps": 128, "batch_size": 128, "n_epochs": 8, "learning_rate": 1e-3},
            )  # fmt: skip
            folder = train(settings, out / f"{way}-{seed}".replace(" ", "-"), quiet=True)
            got = [evaluate_run(folder, "last", 20, reward=one) for one in (for_right, for_left)]
            values = [statistics.mean(one.learned_returns or []) / max(one.lengths) for one in got]
            found.setdefault(way, []).append((values[0], values[1]))
            groups = [group["annotators"] for group in folder.read_summary().get("groups", [])]
            print(f"seed {seed}, {way}: right {values[0]:.2f}, left {values[1]:.2f} {groups}", flush=True)
    for way, each in found.items():
        told = [f"{statistics.mean(one):.2f} ({min(one):.2f} to {max(one):.2f})" for one in zip(*each, strict=True)]
        print(f"| {way} | {told[0]} | {told[1]} |")


if __name__ == "__main__":
    tyro.cli(main)

"""What each of two groups gets who want opposite things, by whose reward the agent is given.

    python scripts/experiments/groups_served.py --seeds 3

A pendulum is to turn left, say three of four, and right, says the fourth. Policies are measured by the wish itself: the
angular velocity, in radians a second, left counted positive.
"""

import statistics
import tempfile
from pathlib import Path

import tyro

from prefrl.control import TrainSettings, train
from prefrl.control.run import evaluate_run
from prefrl.rewards import RewardSettings
from prefrl.segments import Segment
from prefrl.spaces import Array

VELOCITY = 2  # place of the angular velocity in what a pendulum sees
HERE = Path(__file__).resolve()
WAYS = {
    "one reward": RewardSettings(),
    "worst": RewardSettings(groups=2, serve="worst"),
    "right": RewardSettings(groups=2, serve="right"),
    "shares": RewardSettings(groups=2),
}


def left(segment: Segment) -> Array:
    assert not isinstance(segment.observations, dict)
    return segment.observations[1:, VELOCITY]


def right(segment: Segment) -> Array:
    return -left(segment)


def velocity(observations: Array, actions: Array, following: Array) -> Array:
    return following[:, VELOCITY]


def main(seeds: int = 3, steps: int = 20_000, labels: int = 400, first_seed: int = 0) -> None:
    out = Path(tempfile.mkdtemp())
    panel = (f"{HERE}:left",) * 3 + (f"{HERE}:right",)
    found: dict[str, list[float]] = {}
    for seed in range(first_seed, first_seed + seeds):
        for way, reward in WAYS.items():
            settings = TrainSettings(
                env_id="Pendulum-v1", labels=labels, steps=steps, panel=panel, reward=reward, seed=seed, eval_episodes=4
            )
            folder = train(settings, out / f"{way}-{seed}".replace(" ", "-"), quiet=True)
            measured = evaluate_run(folder, "last", 20, reward=velocity)
            value = statistics.mean(measured.learned_returns or []) / max(measured.lengths)
            found.setdefault(way, []).append(value)
            groups = [group["annotators"] for group in folder.read_summary().get("groups", [])]
            print(f"seed {seed}, {way}: {value:.2f} {groups}", flush=True)
    for way, values in found.items():
        told = ", ".join(f"{value:.2f}" for value in values)
        print(f"| {way} | {statistics.mean(values):.2f} | {told} |")


if __name__ == "__main__":
    tyro.cli(main)

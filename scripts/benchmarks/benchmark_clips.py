"""What saving clips costs while an agent acts: one PPO agent with and without it, in turn, in CPU time.

    python scripts/benchmarks/benchmark_clips.py
    python scripts/benchmarks/benchmark_clips.py --env ALE/Breakout-v5

Each iteration acts for 512 steps in 8 environments and updates the policy by one minibatch, so nearly all of it is the
rollout: the policy's forward passes and the environments' steps. Printed are the ratio of the medians and its 95 %
interval by the bootstrap; the iterations are short and take turns, so that other programs slow down both alike.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import tyro
from gymnasium.vector import VectorEnv

from prefrl.agents import PpoAgent
from prefrl.clips.saver import SavesClips
from prefrl.envs import EnvLoop, make_env, make_vector_env

STEPS, COPIES = 64, 8


def make_envs(env_id: str) -> tuple[VectorEnv, Callable[[bool], None]]:
    """Return copies as a run makes them, and what turns saving on and off."""
    envs: Any = make_vector_env(env_id, COPIES)
    if hasattr(envs.unwrapped, "marks"):  # robots stepped all at once
        envs.unwrapped.save_clips()
        many, marks = envs.unwrapped, envs.unwrapped.marks

        def turn_many(on: bool) -> None:
            many.marks = marks if on else None

        return envs, turn_many
    loop = EnvLoop([lambda: SavesClips(make_env(env_id), 50)] * COPIES)
    saving, plain = loop.envs, [env.env for env in loop.envs]

    def turn(on: bool) -> None:
        loop.envs = saving if on else plain
        loop.find_savers()

    return loop, turn


def cpu_seconds(agent: PpoAgent) -> float:
    begin = time.process_time()
    agent.improve(None)
    return time.process_time() - begin


def main(
    env: tuple[str, ...] = ("HalfCheetah-v5", "Hopper-v5", "Pendulum-v1", "CartPole-v1"), pairs: int = 200
) -> None:
    torch.set_num_threads(1)
    for env_id in env:
        envs, turn = make_envs(env_id)
        settings = {"n_steps": STEPS, "n_epochs": 1, "batch_size": STEPS * COPIES}
        agent = PpoAgent(envs, total_env_steps=10**7, hyperparameters=settings)
        agent.reset_environments(0)
        agent.improve(None)
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for pair in range(pairs):
            for saving in (False, True) if pair % 2 else (True, False):
                turn(saving)
                seconds[saving].append(cpu_seconds(agent))
        without, saving_too = (np.array(seconds[saving]) for saving in (False, True))
        resampled = np.random.default_rng(0).integers(len(without), size=(2000, len(without)))
        costs = np.median(saving_too[resampled], axis=1) / np.median(without[resampled], axis=1) - 1
        low, high = np.percentile(costs, [2.5, 97.5])
        cost = np.median(saving_too) / np.median(without) - 1
        speed = STEPS * COPIES / np.median(without)
        print(f"{env_id}: {speed:,.0f} steps/s without; saving costs {cost:+.1%} ({low:+.1%} to {high:+.1%})")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

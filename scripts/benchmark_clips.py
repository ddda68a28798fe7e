"""What saving clips costs while an agent acts: one PPO agent with and without it, in turn, in CPU time.

    python scripts/benchmark_clips.py
    python scripts/benchmark_clips.py --env ALE/Breakout-v5

Each iteration acts for 2,048 steps in 8 environments and updates the policy by one minibatch, so nearly all of it is
the rollout: the policy's forward passes and the environments' steps.
"""

import argparse
import statistics
import time

import torch

from prefrl.agents import PpoAgent
from prefrl.clips.saver import SavesClips
from prefrl.envs import EnvLoop, make_env

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--env", nargs="+", default=["HalfCheetah-v5", "Hopper-v5", "Pendulum-v1", "CartPole-v1"])
parser.add_argument("--rollouts", type=int, default=15)
given = parser.parse_args()
torch.set_num_threads(1)


def cpu_seconds(agent: PpoAgent, loop: EnvLoop, envs: list) -> float:
    loop.envs = envs  # the same copies, with their savers or without
    loop.find_savers()
    begin = time.process_time()
    agent.improve(None)
    return time.process_time() - begin


for env_id in given.env:
    loop = EnvLoop([lambda name=env_id: SavesClips(make_env(name), 50)] * 8)
    saving, plain = loop.envs, [env.env for env in loop.envs]
    settings = {"n_steps": 256, "n_epochs": 1, "batch_size": 2048}
    agent = PpoAgent(loop, total_env_steps=10**7, hyperparameters=settings)
    agent.reset_environments(0)
    agent.improve(None)
    seconds = [[cpu_seconds(agent, loop, envs) for envs in (plain, saving)] for _ in range(given.rollouts)]
    ratios = sorted(with_clips / without - 1 for without, with_clips in seconds)
    speed = 256 * 8 / statistics.median(without for without, _ in seconds)
    print(f"{env_id}: {speed:,.0f} steps/s without; saving costs {statistics.median(ratios):+.1%}", end=" ")
    print(f"(least {min(s for _, s in seconds) / min(w for w, _ in seconds) - 1:+.1%} by the quickest of each)")

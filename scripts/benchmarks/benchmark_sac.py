"""Environment steps per second of our SAC beside stable-baselines3's, at the same hyper-parameters, in turn.

    python scripts/benchmarks/benchmark_sac.py --env HalfCheetah-v5 --steps 2000 --repeats 3

Both train on the environment's own reward with one environment and one update a step. Ours is shown, too, with more
environments side by side, at as many updates a step.
"""

import statistics
import time

import gymnasium
import torch
import tyro
from stable_baselines3 import SAC

from prefrl.agents.sac import SacAgent
from prefrl.envs import make_vector_env


def theirs(env: str, steps: int, before: int) -> float:
    """Return stable-baselines3's steps per second after `before` random ones."""
    model = SAC("MlpPolicy", gymnasium.make(env), learning_starts=before, device="cpu", seed=0)
    model.learn(before)
    began = time.perf_counter()
    model.learn(steps, reset_num_timesteps=False)
    return steps / (time.perf_counter() - began)


def ours(env: str, steps: int, before: int, num_envs: int) -> float:
    """Return our steps per second."""
    import numpy as np

    agent = SacAgent(
        make_vector_env(env, num_envs),
        total_env_steps=before + steps,
        hyperparameters={"gradient_steps": -1},
        pass_true_reward=True,
    )
    agent.reset_environments(0)
    agent.explore(before, np.random.default_rng(0))
    began, first = time.perf_counter(), agent.num_env_steps
    while agent.num_env_steps - first < steps:
        agent.improve(None)
    rate = (agent.num_env_steps - first) / (time.perf_counter() - began)
    agent.close()
    return rate


def main(
    env: str = "HalfCheetah-v5", steps: int = 2000, before: int = 1000, repeats: int = 3, threads: int = 2
) -> None:
    """Print a table.

    Args:
        env: a Gymnasium id.
        steps: measured, of each in each turn.
        before: random steps first.
        repeats: turns.
        threads: of PyTorch.
    """
    torch.set_num_threads(threads)
    rates: dict[str, list[float]] = {"stable-baselines3": [], "prefrl": [], "prefrl, 8 environments": []}
    for _ in range(repeats):
        rates["stable-baselines3"].append(theirs(env, steps, before))
        rates["prefrl"].append(ours(env, steps, before, 1))
        rates["prefrl, 8 environments"].append(ours(env, steps, before, 8))
    print(
        f"{env}, {steps} steps, {threads} threads, {repeats} turns\n\n"
        "| agent | steps/s | each | ratio |\n|---|---|---|---|"
    )
    base = statistics.median(rates["stable-baselines3"])
    for name, found in rates.items():
        middle = statistics.median(found)
        ratios = [a / b for a, b in zip(found, rates["stable-baselines3"], strict=True)]
        each = ", ".join(f"{rate:.0f}" for rate in found)
        print(f"| {name} | {middle:.0f} | {each} | {middle / base:.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

"""Steps a second of tasks seen in pictures and of MinAtar's games, one environment in one process.

    python scripts/benchmarks/benchmark_pixels.py

By the processor's time, which other programs disturb less than they do the clock; the best of several rounds.
"""

import time

import tyro

from prefrl.control.rendering import choose_gl_backend
from prefrl.envs.catalogue import make_env

NAMES = (
    "prefrl/Pixels-InvertedPendulum-v5",
    "prefrl/Pixels-Reacher-v5",
    "prefrl/Pixels-HalfCheetah-v5",
    "prefrl/Pixels-Hopper-v5",
    "prefrl/Pixels-Pendulum-v1",
    "prefrl/Pixels-CartPole-v1",
    "MinAtar/Breakout-v1",
    "MinAtar/SpaceInvaders-v1",
)


def main(names: tuple[str, ...] = NAMES, num_steps: int = 100, rounds: int = 3) -> None:
    choose_gl_backend()
    print("| environment | steps a second |\n|---|---|")
    for name in names:
        env = make_env(name)
        env.reset(seed=0)
        env.action_space.seed(0)
        taken = []
        for _ in range(rounds):
            begin = time.process_time()
            for _ in range(num_steps):
                *_, terminated, truncated, _ = env.step(env.action_space.sample())
                if terminated or truncated:
                    env.reset()
            taken.append(time.process_time() - begin)
        env.close()
        print(f"| {name} | {num_steps / min(taken):.0f} |")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

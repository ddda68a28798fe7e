"""A learned reward in SBX, stable-baselines3 in JAX: one wrapper around its vector of environments.

pip install sbx-rl
prefrl train Pendulum-v1 --out runs/pendulum
python scripts/examples/with_sbx.py runs/pendulum
"""

from collections.abc import Callable

import gymnasium
import numpy as np
import tyro
from sbx import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from prefrl.sb3_wrapper import VecLearnedReward


def train(
    reward: str, make: Callable[[], gymnasium.Env] = lambda: gymnasium.make("Pendulum-v1"), steps: int = 4096
) -> list[float]:
    """Return the returns of the finished episodes as VecMonitor has them, the last hundred."""
    envs = VecMonitor(VecLearnedReward(DummyVecEnv([make] * 4), reward))
    agent = PPO("MlpPolicy", envs, n_steps=128, batch_size=128, seed=0)
    agent.learn(steps)
    return [episode["r"] for episode in agent.ep_info_buffer]


def main(reward: tyro.conf.Positional[str], steps: int = 4096) -> None:
    """Train.

    Args:
        reward: a run folder of Pendulum-v1, or its reward.safetensors.
        steps: environment steps.
    """
    returns = train(reward, steps=steps)
    print(
        f"{len(returns)} episodes; learned return of the first ten {np.mean(returns[:10]):.2f}, "
        f"of the last ten {np.mean(returns[-10:]):.2f}"
    )


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

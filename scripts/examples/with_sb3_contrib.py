"""A learned reward in sb3-contrib: a wrapper of each environment, and Monitor outside, which sees what the agent sees.

pip install sb3-contrib
prefrl train Pendulum-v1 --out runs/pendulum
python scripts/examples/with_sb3_contrib.py runs/pendulum
"""

from collections.abc import Callable

import gymnasium
import numpy as np
import tyro
from sb3_contrib import TQC
from stable_baselines3.common.monitor import Monitor

from prefrl.wrappers import LearnedReward


def train(
    reward: str, make: Callable[[], gymnasium.Env] = lambda: gymnasium.make("Pendulum-v1"), steps: int = 1200
) -> list[float]:
    """Return the returns of the finished episodes as Monitor has them."""
    env = Monitor(LearnedReward(make(), reward), info_keywords=("true_return",))
    agent = TQC("MlpPolicy", env, learning_starts=200, seed=0, device="cpu", policy_kwargs={"net_arch": [32, 32]})
    agent.learn(steps)
    return env.get_episode_rewards()


def main(reward: tyro.conf.Positional[str], steps: int = 1200) -> None:
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

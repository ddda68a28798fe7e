"""A learned reward in RLlib: a wrapper of the environment that is registered with Ray.

pip install "ray[rllib]"        # pins a gymnasium of its own, which prefrl works with
prefrl train CartPole-v1 --out runs/cartpole
python scripts/examples/with_rllib.py runs/cartpole
"""

from collections.abc import Callable

import gymnasium
import numpy as np
import tyro
from ray.rllib.algorithms.ppo import PPOConfig
from ray.tune.registry import register_env

from prefrl.wrappers import LearnedReward


def train(
    reward: str, make: Callable[[], gymnasium.Env] = lambda: gymnasium.make("CartPole-v1"), steps: int = 4096
) -> list[float]:
    """Return the returns of the finished episodes as RLlib's episodes have them."""
    register_env("learned", lambda _: LearnedReward(make(), reward))
    returns: list[float] = []
    agent = (
        PPOConfig()
        .environment("learned")
        .env_runners(num_env_runners=0, batch_mode="complete_episodes")  # else its episodes are parts of episodes
        .training(train_batch_size=512, minibatch_size=128, num_epochs=4)
        .callbacks(on_episode_end=lambda *, episode, **_: returns.append(episode.get_return()))
        .debugging(seed=0)
        .build_algo()
    )
    for _ in range(steps // 512):
        agent.train()
    agent.stop()
    return returns


def main(reward: tyro.conf.Positional[str], steps: int = 4096) -> None:
    """Train.

    Args:
        reward: a run folder of CartPole-v1, or its reward.safetensors.
        steps: environment steps.
    """
    returns = train(reward, steps=steps)
    print(
        f"{len(returns)} episodes; learned return of the first ten {np.mean(returns[:10]):.2f}, "
        f"of the last ten {np.mean(returns[-10:]):.2f}"
    )


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

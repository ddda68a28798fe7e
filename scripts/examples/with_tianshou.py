"""A learned reward in Tianshou: a wrapper of each environment that its collector steps.

pip install tianshou
prefrl train CartPole-v1 --out runs/cartpole
python scripts/examples/with_tianshou.py runs/cartpole
"""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
import tyro
from tianshou.algorithm import PPO
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OnPolicyTrainerParams
from tianshou.utils.net.common import Net
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic

from prefrl.wrappers import LearnedReward


class Collecting(Collector):
    """A collector that writes the returns of its statistics down."""

    def __init__(self, returns: list[float], *arguments: Any) -> None:
        super().__init__(*arguments)
        self._returns = returns

    def collect(self, *arguments: Any, **named: Any) -> Any:
        found = super().collect(*arguments, **named)
        self._returns += found.returns.tolist()
        return found


def train(
    reward: str, make: Callable[[], gymnasium.Env] = lambda: gymnasium.make("CartPole-v1"), steps: int = 4096
) -> list[float]:
    """Return the returns of the finished episodes as Tianshou's collector has them."""
    torch.manual_seed(0)
    envs = DummyVectorEnv([lambda: LearnedReward(make(), reward) for _ in range(4)])
    observations, actions = envs.observation_space[0], envs.action_space[0]
    net = Net(state_shape=observations.shape, hidden_sizes=[64, 64])
    actor = DiscreteActor(preprocess_net=net, action_shape=actions.n, softmax_output=False)
    policy = DiscreteActorPolicy(actor=actor, action_space=actions)
    agent = PPO(policy=policy, critic=DiscreteCritic(preprocess_net=net), optim=AdamOptimizerFactory(lr=1e-3))
    returns: list[float] = []
    collector = Collecting(returns, agent, envs, VectorReplayBuffer(4096, 4))
    collector.reset()
    agent.run_training(
        OnPolicyTrainerParams(
            training_collector=collector,
            max_epochs=2,
            epoch_num_steps=steps // 2,
            collection_step_num_env_steps=512,
            update_step_num_repetitions=4,
            show_progress=False,
        )
    )
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

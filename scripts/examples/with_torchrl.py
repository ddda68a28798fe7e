"""A learned reward in torchrl: a wrapper of the environment, inside torchrl's own.

pip install torchrl
prefrl train CartPole-v1 --out runs/cartpole
python scripts/examples/with_torchrl.py runs/cartpole
"""

from collections.abc import Callable

import gymnasium
import numpy as np
import torch
import tyro
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.envs import GymWrapper, RewardSum, TransformedEnv
from torchrl.modules import OneHotCategorical, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from prefrl.wrappers import LearnedReward


def train(
    reward: str, make: Callable[[], gymnasium.Env] = lambda: gymnasium.make("CartPole-v1"), steps: int = 4096
) -> list[float]:
    """Return the returns of the finished episodes as torchrl's RewardSum has them."""
    torch.manual_seed(0)
    env = TransformedEnv(GymWrapper(LearnedReward(make(), reward)).auto_register_info_dict(), RewardSum())
    size, choices = env.observation_spec["observation"].shape[-1], env.action_spec.shape[-1]
    net = nn.Sequential(nn.Linear(size, 64), nn.Tanh(), nn.Linear(64, choices))
    actor = ProbabilisticActor(
        TensorDictModule(net, in_keys=["observation"], out_keys=["logits"]),
        in_keys=["logits"],
        distribution_class=OneHotCategorical,
        return_log_prob=True,
    )
    critic = ValueOperator(nn.Sequential(nn.Linear(size, 64), nn.Tanh(), nn.Linear(64, 1)), in_keys=["observation"])
    advantage, loss = GAE(gamma=0.99, lmbda=0.95, value_network=critic), ClipPPOLoss(actor, critic)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-3)
    returns: list[float] = []
    for batch in Collector(env, actor, frames_per_batch=512, total_frames=steps):
        ended = batch["next", "done"].squeeze(-1)
        returns += batch["next", "episode_reward"][ended].flatten().tolist()
        for _ in range(4):
            advantage(batch)
            losses = loss(batch)
            optimizer.zero_grad()
            sum(losses[name] for name in ("loss_objective", "loss_critic", "loss_entropy")).backward()
            optimizer.step()
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

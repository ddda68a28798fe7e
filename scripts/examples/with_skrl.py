"""A learned reward in skrl: one wrapper around a vector of Gymnasium's, then skrl's own around it.

pip install skrl
prefrl train CartPole-v1 --out runs/cartpole
python scripts/examples/with_skrl.py runs/cartpole
"""

import tempfile
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
import tyro
from skrl.agents.torch.ppo import PPO, PPO_CFG
from skrl.envs.wrappers.torch import wrap_env
from skrl.memories.torch import RandomMemory
from skrl.models.torch import CategoricalMixin, DeterministicMixin, Model
from skrl.trainers.torch import SequentialTrainer
from torch import nn

from prefrl.wrappers import VectorLearnedReward

NUM_ENVS = 4


class Policy(CategoricalMixin, Model):
    def __init__(self, **spaces: Any) -> None:
        Model.__init__(self, **spaces)
        CategoricalMixin.__init__(self)
        self.net = nn.Sequential(nn.Linear(self.num_observations, 64), nn.ELU(), nn.Linear(64, self.num_actions))

    def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[torch.Tensor, dict[str, Any]]:
        return self.net(inputs["observations"]), {}


class Value(DeterministicMixin, Model):
    def __init__(self, **spaces: Any) -> None:
        Model.__init__(self, **spaces)
        DeterministicMixin.__init__(self)
        self.net = nn.Sequential(nn.Linear(self.num_observations, 64), nn.ELU(), nn.Linear(64, 1))

    def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[torch.Tensor, dict[str, Any]]:
        return self.net(inputs["observations"]), {}


def train(
    reward: str, make: Callable[[], gymnasium.Env] = lambda: gymnasium.make("CartPole-v1"), steps: int = 4096
) -> list[float]:
    """Return the returns of the finished episodes as skrl's agent has them."""
    torch.manual_seed(0)
    mode = gymnasium.vector.AutoresetMode.SAME_STEP  # skrl counts every step it is given
    envs = gymnasium.vector.SyncVectorEnv([make] * NUM_ENVS, autoreset_mode=mode)
    env = wrap_env(VectorLearnedReward(envs, reward))
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space, "device": env.device}
    agent = PPO(
        models={"policy": Policy(**spaces), "value": Value(**spaces)},
        memory=RandomMemory(memory_size=128, num_envs=NUM_ENVS, device=env.device),
        cfg=PPO_CFG(
            rollouts=128,
            experiment={"directory": tempfile.mkdtemp(), "write_interval": 10**9, "checkpoint_interval": 0},
        ),
        **spaces,
    )
    SequentialTrainer(env=env, agents=agent, cfg={"timesteps": steps // NUM_ENVS, "headless": True}).train()
    return [found for row in agent._track_rewards for found in row]  # the last hundred


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

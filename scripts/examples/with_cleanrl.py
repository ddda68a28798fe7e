"""A learned reward in a loop of CleanRL's kind: PPO in one file, environments made by thunks, statistics outermost.

    prefrl train CartPole-v1 --out runs/cartpole
    python scripts/examples/with_cleanrl.py runs/cartpole

The one line that matters is marked. Everything else is what `cleanrl/ppo.py` does, without its logging.
"""

from collections.abc import Callable

import gymnasium
import numpy as np
import torch
import tyro
from torch import nn
from torch.distributions import Categorical

from prefrl.wrappers import LearnedReward

NUM_ENVS, NUM_STEPS, GAMMA, LAMBDA, CLIP = 4, 128, 0.99, 0.95, 0.2


def make_env(make: Callable[[], gymnasium.Env], reward: str) -> Callable[[], gymnasium.Env]:
    def thunk() -> gymnasium.Env:
        env = make()
        env = LearnedReward(env, reward)  # the one line
        return gymnasium.wrappers.RecordEpisodeStatistics(env)

    return thunk


class Agent(nn.Module):
    def __init__(self, envs: gymnasium.vector.VectorEnv) -> None:
        super().__init__()
        size = int(np.prod(envs.single_observation_space.shape))
        self.critic = nn.Sequential(nn.Linear(size, 64), nn.Tanh(), nn.Linear(64, 1))
        self.actor = nn.Sequential(nn.Linear(size, 64), nn.Tanh(), nn.Linear(64, envs.single_action_space.n))

    def policy(self, observations: torch.Tensor) -> Categorical:
        return Categorical(logits=self.actor(observations))


def train(
    reward: str, make: Callable[[], gymnasium.Env] = lambda: gymnasium.make("CartPole-v1"), steps: int = 4096
) -> list[float]:
    """Return the returns of the finished episodes as RecordEpisodeStatistics has them."""
    torch.manual_seed(0)
    envs = gymnasium.vector.SyncVectorEnv([make_env(make, reward) for _ in range(NUM_ENVS)])
    agent = Agent(envs)
    optimizer = torch.optim.Adam(agent.parameters(), lr=2.5e-3, eps=1e-5)
    returns: list[float] = []
    observation, ended = torch.as_tensor(envs.reset(seed=0)[0]), torch.zeros(NUM_ENVS)
    for _ in range(steps // (NUM_ENVS * NUM_STEPS)):
        rows = []
        for _ in range(NUM_STEPS):
            with torch.no_grad():
                policy, value = agent.policy(observation), agent.critic(observation)[:, 0]
            action = policy.sample()
            following, rewards, terminated, truncated, infos = envs.step(action.numpy())
            rows.append((observation, action, policy.log_prob(action), torch.as_tensor(rewards), ended, value))
            observation, ended = torch.as_tensor(following), torch.as_tensor(terminated | truncated).float()
            if "episode" in infos:
                returns += infos["episode"]["r"][infos["_episode"]].tolist()
        b_obs, b_actions, b_logprobs, b_rewards, b_ended, b_values = (
            torch.stack(part) for part in zip(*rows, strict=True)
        )
        with torch.no_grad():
            next_value, next_ended, last = agent.critic(observation)[:, 0], ended, torch.zeros(NUM_ENVS)
            advantages = torch.zeros_like(b_values)
            for t in reversed(range(NUM_STEPS)):
                delta = b_rewards[t] + GAMMA * next_value * (1 - next_ended) - b_values[t]
                advantages[t] = last = delta + GAMMA * LAMBDA * (1 - next_ended) * last
                next_value, next_ended = b_values[t], b_ended[t]
        targets = (advantages + b_values).flatten().float()
        observations, actions, logprobs = b_obs.flatten(0, 1), b_actions.flatten(), b_logprobs.flatten()
        normalised = ((advantages - advantages.mean()) / (advantages.std() + 1e-8)).flatten().float()
        for _ in range(4):
            for mb in torch.randperm(NUM_ENVS * NUM_STEPS).chunk(4):
                policy = agent.policy(observations[mb])
                ratio = (policy.log_prob(actions[mb]) - logprobs[mb]).exp()
                policy_loss = -torch.min(
                    normalised[mb] * ratio, normalised[mb] * ratio.clamp(1 - CLIP, 1 + CLIP)
                ).mean()
                value_loss = ((agent.critic(observations[mb])[:, 0] - targets[mb]) ** 2).mean()
                optimizer.zero_grad()
                (policy_loss + 0.25 * value_loss - 0.01 * policy.entropy().mean()).backward()
                nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                optimizer.step()
    envs.close()
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

"""Train an agent of your own on a reward that was learned from comparisons.

    prefrl train CartPole-v1 --out runs/cartpole
    python scripts/examples/wrap_your_own.py runs/cartpole --env CartPole-v1

The three lines that matter are marked. All the rest is somebody else's project: it knows Gymnasium and
stable-baselines3. The agent sees the learned reward alone; the environment's own is printed to show what it was worth.
"""

import sys

import gymnasium
import tyro
from stable_baselines3 import PPO

from prefrl.wrappers import LearnedReward  # (1)


def wrapped(env_id: str, reward: str) -> gymnasium.Env:
    env = gymnasium.make(env_id)  # (2)
    return LearnedReward(env, reward)  # (3)


def mean_returns(agent: PPO, env: gymnasium.Env, num_episodes: int = 3) -> tuple[float, float]:
    """Return the mean true and learned return of whole episodes."""
    true = learned = 0.0
    for episode in range(num_episodes):
        observation, info = env.reset(seed=1_000 + episode)
        while "true_return" not in info:
            action, _ = agent.predict(observation, deterministic=True)
            observation, _, _, _, info = env.step(action)
        true, learned = true + info["true_return"], learned + info["learned_return"]
    return true / num_episodes, learned / num_episodes


def main(reward: tyro.conf.Positional[str], env: str = "CartPole-v1", steps: int = 30_000) -> None:
    """Train.

    Args:
        reward: a saved reward, or the run folder that holds one: `prefrl train` makes it.
        env: the environment that the reward was learned in.
        steps: environment steps to train for.
    """
    try:
        training_env, test_env = wrapped(env, reward), wrapped(env, reward)
    except Exception as error:  # an environment or a reward that is not there: their messages say what to do
        print(error, file=sys.stderr)
        sys.exit(2)

    agent = PPO("MlpPolicy", training_env, seed=0, device="cpu", n_steps=512)
    for _ in range(4):
        agent.learn(steps // 4, reset_num_timesteps=False)
        true, learned = mean_returns(agent, test_env)
        print(f"{agent.num_timesteps:>9} steps   true return {true:8.1f}   learned return {learned:8.1f}")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

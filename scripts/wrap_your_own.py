"""Train an agent of your own on a reward that was learned from comparisons.

    prefrl train CartPole-v1 --out runs/cartpole
    python scripts/wrap_your_own.py runs/cartpole --env CartPole-v1

The three lines that matter are marked. All the rest is somebody else's project: it knows Gymnasium and
stable-baselines3. The agent sees the learned reward alone; the environment's own is printed to show what it was worth.
"""

import argparse
import sys

import gymnasium
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reward", nargs="?", help="a saved reward, or the run folder that holds one")
    parser.add_argument("--env", default="CartPole-v1", help="the environment the reward was learned in")
    parser.add_argument("--steps", type=int, default=30_000, help="environment steps to train for")
    args = parser.parse_args()
    if args.reward is None:
        parser.print_help(sys.stderr)
        return 2

    try:
        env, test_env = wrapped(args.env, args.reward), wrapped(args.env, args.reward)
    except Exception as error:  # an environment or a reward that is not there: their messages say what to do
        parser.error(str(error))

    agent = PPO("MlpPolicy", env, seed=0, device="cpu", n_steps=512)
    for _ in range(4):
        agent.learn(args.steps // 4, reset_num_timesteps=False)
        true, learned = mean_returns(agent, test_env)
        print(f"{agent.num_timesteps:>9} steps   true return {true:8.1f}   learned return {learned:8.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

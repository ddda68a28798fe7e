"""Scores policies that a run kept by the function that taught it, over whole episodes.

python scripts/experiments/score_policies.py RUN last best during
"""

from pathlib import Path

import numpy as np
import tyro

from prefrl.annotators import load_reward_function
from prefrl.control.folder import ControlFolder
from prefrl.control.policies import KeptPolicy, make_run_env
from prefrl.segments import Segment

EPISODES, SETTLED = 8, 300  # the first steps of an episode, in which the agent gets into its stride, are left out


def main(run: tyro.conf.Positional[Path], policies: tyro.conf.Positional[tuple[str, ...]] = ("last",)) -> None:
    folder = ControlFolder.open(run)
    judge, env = load_reward_function(folder.settings.reward_function), make_run_env(folder.settings)
    for name in policies:
        policy, means = KeptPolicy(folder, name), []
        for episode in range(EPISODES):
            observations, actions, over = [env.reset(seed=100 + episode)[0]], [], False
            while not over:
                actions.append(policy.act(observations[-1][None])[0])
                observation, _, terminated, truncated, _ = env.step(actions[-1])
                observations.append(observation)
                over = terminated or truncated
            seen = Segment(
                observations=np.array(observations), actions=np.array(actions), true_rewards=np.zeros(len(actions))
            )
            means.append(np.asarray(judge(seen))[SETTLED:].mean())
        print(f"{name}: " + ", ".join(f"{mean:.2f}" for mean in means))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

"""Environment steps per second of learning from comparisons, beside those of plain PPO on the true reward.

    python scripts/benchmark_speed.py --env HalfCheetah-v5 --steps 200000 --repeats 3 [--sb3-defaults]

They take turns on one thread. "whole run" counts our warm-up (random actions, no updates), "training proper" does not.
"""

import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import tyro
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from prefrl.training import RunFolder, TrainSettings, loop, policies

SB3 = {"n_steps": 2048, "batch_size": 64, "n_epochs": 10, "learning_rate": 3e-4, "gamma": 0.99, "policy_kwargs": None}
NAMES = ("plain PPO", "training proper", "whole run", "training proper / plain PPO", "whole run / plain PPO")


def plain_ppo(run: TrainSettings) -> float:
    hyper = {name: value for name, value in run.hyperparameters.items() if not name.startswith("normalize_")}
    for name in [name for name, value in hyper.items() if isinstance(value, str)]:  # "linear:X" falls from X to 0
        hyper[name] = lambda remaining, start=float(hyper[name][7:]): start * remaining
    envs = DummyVecEnv([lambda: policies.make_run_env(run)] * run.num_envs)
    envs = VecNormalize(envs, norm_reward=run.hyperparameters.get("normalize_returns", False), gamma=hyper["gamma"])
    agent = PPO("MlpPolicy", envs, device="cpu", seed=run.seed, **hyper).learn(run.steps)
    return agent.num_timesteps / (time.time_ns() - agent.start_time) * 1e9


def our_run(run: TrainSettings, spent: Counter[str]) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as out:
        times, folder = [], RunFolder.create(Path(out), run, baseline=False)
        trainer = loop.Trainer(folder, on_progress=lambda _: times.append(time.perf_counter()))
        times.append(time.perf_counter())
        trainer.run()
        in_all, proper = (time.perf_counter() - begin for begin in times[:2])
        trainer.close()
        first, *rows = folder.read_metrics()
    spent.update(sum((Counter(row["seconds"]) for row in rows), Counter({"in all": proper})))
    return (rows[-1]["num_env_steps"] - first["num_env_steps"]) / proper, rows[-1]["num_env_steps"] / in_all


def main(env: str = "HalfCheetah-v5", steps: int = 200_000, repeats: int = 3, sb3_defaults: bool = False) -> None:
    torch.set_num_threads(1)
    run = TrainSettings(env_id=env, steps=steps, hyperparameters=SB3 if sb3_defaults else {}, device="cpu").resolve()
    spent: Counter[str] = Counter()
    speeds = np.array([(plain_ppo(run), *our_run(run, spent)) for _ in range(repeats)]).T
    print(f"{run}\n\n| environment steps per second | median | least | most |\n|---|---|---|---|")
    for name, row in zip(NAMES, [*speeds, *speeds[1:] / speeds[0]], strict=True):
        print(f"| {name} | {np.median(row):.5g} | {row.min():.5g} | {row.max():.5g} |")
    print("\nShare of the training proper:", ", ".join(f"{k} {v / spent['in all']:.1%}" for k, v in spent.items()))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

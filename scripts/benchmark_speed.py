"""What learning from comparisons costs in speed: environment steps per second of a whole run and of plain PPO.

    python scripts/benchmark_speed.py --env HalfCheetah-v5 --steps 200000 --repeats 3 [--sb3-defaults]

stable-baselines3's PPO on the true reward and our run (queries, fits, record, metrics, checkpoints) take turns with the
same hyper-parameters on one thread. Our run begins with random actions, which count as environment steps and need no
update. So its speed is given for the training proper, from the end of its first iteration to the end, and for the whole.
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
        hyper[name] = lambda remaining, start=hyper[name].removeprefix("linear:"): float(start) * remaining
    envs = VecNormalize(DummyVecEnv([lambda: policies.make_run_env(run)] * run.num_envs), norm_reward=False)
    agent = PPO("MlpPolicy", envs, device="cpu", seed=run.seed, **hyper)
    begin = time.perf_counter()
    return agent.learn(run.steps).num_timesteps / (time.perf_counter() - begin)


def our_run(run: TrainSettings, spent: Counter[str]) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as out:
        times, folder = [], RunFolder.create(Path(out), run, baseline=False)
        trainer = loop.Trainer(folder, on_progress=lambda _: times.append(time.perf_counter()))
        begin = time.perf_counter()
        trainer.run()
        in_all, proper = time.perf_counter() - begin, time.perf_counter() - times[0]
        trainer.close()
        first, *rows = folder.read_metrics()
    spent.update(sum((Counter(row["seconds"]) for row in rows), Counter({"in all": proper})))
    return (rows[-1]["num_env_steps"] - first["num_env_steps"]) / proper, rows[-1]["num_env_steps"] / in_all


def main(env: str = "HalfCheetah-v5", steps: int = 200_000, repeats: int = 3, sb3_defaults: bool = False) -> None:
    torch.set_num_threads(1)
    run = TrainSettings(env_id=env, steps=steps, hyperparameters=SB3 if sb3_defaults else {}, device="cpu").resolve()
    spent: Counter[str] = Counter()
    speeds = np.array([(plain_ppo(run), *our_run(run, spent)) for _ in range(repeats)]).T
    print(f"{env}, {steps} steps, {run.num_envs} environments, {run.labels} labels: {run.hyperparameters}\n")
    print("| environment steps per second | median | least | most |\n|---|---|---|---|")
    for name, row in zip(NAMES, [*speeds, *speeds[1:] / speeds[0]], strict=True):
        print(f"| {name} | {np.median(row):.5g} | {row.min():.5g} | {row.max():.5g} |")
    print("\nShare of the training proper:", ", ".join(f"{k} {v / spent['in all']:.1%}" for k, v in spent.items()))


if __name__ == "__main__":
    tyro.cli(main)

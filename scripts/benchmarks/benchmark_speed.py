"""Environment steps per second: stable-baselines3's PPO, ours, and ours learning from comparisons, in turn.

    python scripts/benchmarks/benchmark_speed.py --envs HalfCheetah-v5 CartPole-v1 --steps 200000 --sb3-defaults
    python scripts/benchmarks/benchmark_speed.py --envs prefrl/Atari-Pong-v0 --image-steps 500000 --num-envs 128

On the CPU, and on the GPU where there is one. All with the same hyper-parameters: prefrl's own for the task, or
stable-baselines3's defaults. Our runs are whole ones, with warm-up, queries, fits, record and checkpoints. Two limits
are measured beside them: the environments alone with random actions, and the update alone on one rollout again and
again.
"""

import itertools
import os
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import tyro
from benchmark_speed_peers import limits, plain_ppo

from prefrl.control import ControlFolder, TrainSettings, loop

SB3 = {"n_steps": 2048, "batch_size": 64, "n_epochs": 10, "learning_rate": 3e-4, "gamma": 0.99, "ent_coef": 0.0}


def our_run(run: TrainSettings, baseline: bool, spent: Counter[str]) -> float:
    with tempfile.TemporaryDirectory() as out:
        folder = ControlFolder.create(Path(out), run, baseline=baseline)
        trainer = loop.Trainer(folder, fit_threads=len(os.sched_getaffinity(0)))
        begin = time.perf_counter()
        trainer.run()
        seconds = time.perf_counter() - begin
        rows = trainer.folder.read_metrics()
        trainer.close()
    spent.update(sum((Counter(row["seconds"]) for row in rows), Counter({"in all": seconds})))
    return rows[-1]["num_env_steps"] / seconds


def main(
    envs: tuple[str, ...] = ("HalfCheetah-v5", "Hopper-v5", "CartPole-v1", "prefrl/Atari-Pong-v0"),
    steps: int = 200_000, image_steps: int = 20_000, repeats: int = 3, sb3_defaults: bool = False,
    num_envs: int | None = None, devices: tuple[str, ...] = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",),
) -> None:  # fmt: skip
    torch.set_num_threads(1)
    head = ("environments alone", "update alone", "stable-baselines3", "ours, true reward", "ours, comparisons")
    head = ("task, device", *head, "ratio, true reward", "ratio, comparisons")
    print("| " + " | ".join(head) + " |\n" + "|---" * 8 + "|")
    shares = []
    for env, device in itertools.product(envs, devices):
        length = image_steps if "Atari" in env else steps
        run = TrainSettings(env_id=env, steps=length, hyperparameters=SB3 if sb3_defaults else {}, device=device)
        run = replace(run, num_envs=num_envs or (8 if sb3_defaults else None)).resolve()
        spent: tuple[Counter[str], Counter[str]] = Counter(), Counter()
        measured = [
            (*limits(run, device), plain_ppo(run, device), *(our_run(run, not i, spent[i]) for i in (0, 1)))
            for _ in range(repeats)
        ]
        columns = [*np.array(measured).T]
        columns += [columns[3] / columns[2], columns[4] / columns[2]]
        cells = [f"{np.median(c):.4g} ({c.min():.4g} to {c.max():.4g})" for c in columns]
        print(f"| {env}, {device} | " + " | ".join(cells) + " |", flush=True)
        for name, parts in zip(("true reward", "comparisons"), spent, strict=True):
            in_all = parts.pop("in all")
            parts["warm-up, first queries and fits, checkpoints"] = in_all - sum(parts.values())
            shares.append(f"{env}, {device}, {name}: " + ", ".join(f"{k} {v / in_all:.1%}" for k, v in parts.items()))
    print("\nShares of our runs:", *shares, sep="\n- ")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

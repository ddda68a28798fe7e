"""Environment steps per second of our SAC beside stable-baselines3's, at the same hyper-parameters, in turn.

    python scripts/benchmarks/benchmark_sac.py --env HalfCheetah-v5 --steps 2000 --repeats 3

stable-baselines3's trains on the environment's own reward with one environment and one update a step. Ours does the
same, also with more environments side by side, at as many updates a step; and it makes whole runs from comparisons,
with warm-up, queries, fits, record and checkpoints, which are compared with all that stable-baselines3 takes for as
many steps. At the end: the processor time of an update, of each in turn.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
import tyro
from stable_baselines3 import SAC

from prefrl.agents.sac import SacAgent
from prefrl.control import ControlFolder, TrainSettings
from prefrl.control.loop import Trainer
from prefrl.envs import make_vector_env
from prefrl.threads import one_thread

HYPER = {"gradient_steps": -1, "learning_rate": 3e-4}
UPDATES, TURNS = 20, 10


def theirs(env: str, steps: int, before: int) -> tuple[float, float]:
    """Return stable-baselines3's steps per second after `before` random ones, and of all."""
    first = time.perf_counter()
    model = SAC("MlpPolicy", gymnasium.make(env), learning_starts=before, device="cpu", seed=0)
    model.learn(before)
    began = time.perf_counter()
    model.learn(steps, reset_num_timesteps=False)
    ended = time.perf_counter()
    return steps / (ended - began), (before + steps) / (ended - first)


def made(env: str, steps: int, before: int, num_envs: int) -> SacAgent:
    """Return our agent after `before` random steps."""
    agent = SacAgent(
        make_vector_env(env, num_envs), total_env_steps=before + steps, hyperparameters=HYPER, pass_true_reward=True
    )
    agent.reset_environments(0)
    agent.explore(before, np.random.default_rng(0))
    return agent


def ours(env: str, steps: int, before: int, num_envs: int) -> float:
    """Return our steps per second on the true reward, after `before` random ones."""
    with one_thread():  # as a training does; one more is the agent's own
        agent = made(env, steps, before, num_envs)
        began, first = time.perf_counter(), agent.num_env_steps
        while agent.num_env_steps - first < steps:
            agent.improve(None)
        rate = (agent.num_env_steps - first) / (time.perf_counter() - began)
        agent.close()
    return rate


def from_comparisons(env: str, steps: int, before: int, num_envs: int, labels: int) -> float:
    """Return the steps per second of a whole run from comparisons."""
    settings = TrainSettings(
        env_id=env, agent="sac", labels=labels, steps=before + steps, warmup_steps=before, warmup="uniform",
        num_envs=num_envs, hyperparameters=HYPER,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as out, one_thread() as threads:
        began = time.perf_counter()
        trainer = Trainer(ControlFolder.create(Path(out), settings.resolve(), baseline=False), fit_threads=threads)
        trainer.run()
        rate = trainer.folder.read_metrics()[-1]["num_env_steps"] / (time.perf_counter() - began)
        trainer.close()
    return rate


def updates(env: str, before: int, threads: int) -> dict[str, tuple[float, float, float]]:
    """Return milliseconds of an update: of the thread that makes it, of the whole process, and of the clock."""
    from stable_baselines3.common.logger import configure

    model = SAC("MlpPolicy", gymnasium.make(env), learning_starts=before, device="cpu", seed=0)
    model.learn(before)
    model.set_logger(configure(None, []))
    agents = [made(env, 0, before, 1) for _ in range(2)]
    agents[0]._arrays = None

    def update(agent: SacAgent) -> Callable[[], object]:
        def one() -> None:
            with torch.inference_mode():
                agent._update(1, None)

        return one

    all_threads: Callable[[], AbstractContextManager[Any]] = nullcontext
    ways: dict[str, tuple[Callable[[], object], Callable[[], AbstractContextManager[Any]], int]] = {
        "stable-baselines3, one thread": (lambda: model.train(1, 256), one_thread, 1),
        f"stable-baselines3, {threads} threads": (lambda: model.train(1, 256), all_threads, threads),
        "prefrl in PyTorch, one thread": (update(agents[0]), one_thread, 1),
        "prefrl, one thread": (update(agents[1]), one_thread, 1),
        f"prefrl, {threads} threads": (update(agents[1]), one_thread, threads),
    }
    clocks = (time.thread_time, time.process_time, time.perf_counter)
    found: dict[str, list[list[float]]] = {name: [] for name in ways}
    for _ in range(TURNS):
        for name, (work, within, number) in ways.items():
            torch.set_num_threads(number)
            with within():
                work()
                began = [clock() for clock in clocks]
                for _ in range(UPDATES):
                    work()
                found[name].append([(clock() - b) / UPDATES * 1e3 for clock, b in zip(clocks, began, strict=True)])
    torch.set_num_threads(threads)
    return {name: tuple(np.median(rows, 0)) for name, rows in found.items()}  # type: ignore[misc]


def main(
    env: str = "HalfCheetah-v5", steps: int = 2000, before: int = 1000, repeats: int = 3, threads: int = 2,
    labels: int = 100,
) -> None:  # fmt: skip
    """Print two tables.

    Args:
        env: a Gymnasium id.
        steps: measured, of each in each turn.
        before: random steps first.
        repeats: turns.
        threads: of PyTorch in stable-baselines3; ours has the second for a critic.
        labels: of the whole runs.
    """
    torch.set_num_threads(threads)
    base = ("stable-baselines3", "stable-baselines3, all its steps")
    rates: dict[str, list[float]] = {name: [] for name in base}
    compared: dict[str, str] = dict.fromkeys(base, base[0]) | {base[1]: base[1]}
    for _ in range(repeats):
        for name, rate in zip(base, theirs(env, steps, before), strict=True):
            rates[name].append(rate)
        for num in (1, 8):
            beside = "" if num == 1 else f", {num} environments"
            for name, against, rate in (
                (f"prefrl{beside}", base[0], ours(env, steps, before, num)),
                (
                    f"prefrl from {labels} comparisons{beside}",
                    base[1],
                    from_comparisons(env, steps, before, num, labels),
                ),
            ):
                rates.setdefault(name, []).append(rate)
                compared[name] = against
    print(
        f"{env}, {steps} steps after {before}, {threads} threads, {repeats} turns\n\n"
        "| agent | steps/s | each | ratio |\n|---|---|---|---|"
    )
    for name, found in rates.items():
        ratios = [a / b for a, b in zip(found, rates[compared[name]], strict=True)]
        each = ", ".join(f"{rate:.0f}" for rate in found)
        middle = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {name} | {statistics.median(found):.0f} | {each} | {middle} |")
    print("\n| an update | its thread, ms | the process, ms | the clock, ms |\n|---|---|---|---|")
    for name, times in updates(env, before, threads).items():
        print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in times) + " |")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

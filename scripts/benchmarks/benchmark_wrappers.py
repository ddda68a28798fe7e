"""What a learned reward costs per step: `LearnedReward` around CartPole, `VecLearnedReward` around 64 of them.

    python scripts/benchmarks/benchmark_wrappers.py --peer peer/bin/python

Prints microseconds of processor time a step, all copies together, and how many times the environments' own that is: the
median over rounds in which all are measured in turn. `--peer` is an interpreter that has imitation 1.0.1
(`pip install imitation==1.0.1`, in an environment of its own), whose wrapper is then measured in the same rounds.
"""

import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gymnasium
import numpy as np
import torch
import tyro

NUM_ENVS = 64
STEPS = {1: 3_000, NUM_ENVS: 150}
WARM_UP = 0.1  # share of the steps made before


def single(env: gymnasium.Env, steps: int) -> float:
    """Return the microseconds per step of one environment."""
    env.reset(seed=0)
    begin = time.process_time()
    for step in range(steps):
        _, _, terminated, truncated, _ = env.step(step % 2)
        if terminated or truncated:
            env.reset()
    return (time.process_time() - begin) / steps * 1e6


def many(envs: object, steps: int) -> float:
    """Return the microseconds per step of a vector of stable-baselines3's, all copies together."""
    num = envs.num_envs  # type: ignore[attr-defined]
    envs.reset()  # type: ignore[attr-defined]
    actions = [np.arange(num) % 2, (np.arange(num) + 1) % 2]
    begin = time.process_time()
    for step in range(steps):
        envs.step(actions[step % 2])  # type: ignore[attr-defined]
    return (time.process_time() - begin) / steps * 1e6


def ours() -> dict[str, Callable[[int], float]]:
    """Return what is measured with prefrl: a reward of three perceptrons, two hidden layers of 64."""
    from stable_baselines3.common.vec_env import DummyVecEnv

    from prefrl.rewards.ensemble import RewardEnsemble
    from prefrl.rewards.settings import RewardSettings
    from prefrl.sb3_wrapper import VecLearnedReward
    from prefrl.wrappers import LearnedReward

    env = bare()
    reward = RewardEnsemble(env.observation_space, env.action_space, RewardSettings(num_members=3))
    learned, envs = LearnedReward(bare(), reward), DummyVecEnv([bare] * NUM_ENVS)
    wrapped = VecLearnedReward(DummyVecEnv([bare] * NUM_ENVS), reward)
    return {
        "one, bare": lambda steps: single(env, steps),
        "one, learned": lambda steps: single(learned, steps),
        f"{NUM_ENVS}, bare": lambda steps: many(envs, steps),
        f"{NUM_ENVS}, learned": lambda steps: many(wrapped, steps),
    }


def theirs() -> dict[str, Callable[[int], float]]:
    """Return what is measured with imitation: an ensemble of three of the same perceptrons in its own wrapper."""
    from imitation.rewards.reward_nets import BasicRewardNet, RewardEnsemble
    from imitation.rewards.reward_wrapper import RewardVecEnvWrapper
    from stable_baselines3.common.vec_env import DummyVecEnv

    env = bare()
    spaces = env.observation_space, env.action_space
    reward = RewardEnsemble(*spaces, [BasicRewardNet(*spaces, hid_sizes=(64, 64)) for _ in range(3)])
    wrapped = {num: RewardVecEnvWrapper(DummyVecEnv([bare] * num), reward.predict_processed) for num in (1, NUM_ENVS)}
    envs = DummyVecEnv([bare] * NUM_ENVS)
    return {
        "one, bare": lambda steps: single(env, steps),
        "one, learned": lambda steps: many(wrapped[1], steps),
        f"{NUM_ENVS}, bare": lambda steps: many(envs, steps),
        f"{NUM_ENVS}, learned": lambda steps: many(wrapped[NUM_ENVS], steps),
    }


def bare() -> gymnasium.Env:
    """Make CartPole as `gymnasium.make` does, without the check of its first steps."""
    return gymnasium.make("CartPole-v1", disable_env_checker=True)


def rounds(measures: dict[str, Callable[[int], float]]) -> Iterator[dict[str, float]]:
    """Give one round of measurements after the other."""
    torch.set_num_threads(1)
    numbers = {name: STEPS[1 if name.startswith("one") else NUM_ENVS] for name in measures}
    for name, measure in measures.items():
        measure(int(numbers[name] * WARM_UP))
    while True:
        gc.collect()
        yield {name: measure(numbers[name]) for name, measure in measures.items()}


def main(*, peer: Path | None = None, num_rounds: int = 7, worker: bool = False) -> None:
    """Measure.

    Args:
        peer: an interpreter that has imitation 1.0.1.
        num_rounds: of each.
        worker: measure imitation's, one round for each line of standard input.
    """
    if worker:
        its = rounds(theirs())
        for _ in sys.stdin:
            print(json.dumps(next(its)), flush=True)
        return
    found: dict[str, list[dict[str, float]]] = {"prefrl": [], "imitation": []}
    process = None
    if peer is not None:
        process = subprocess.Popen(
            [peer, __file__, "--worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
    own = rounds(ours())
    for _ in range(num_rounds):
        found["prefrl"].append(next(own))
        if process is not None and process.stdin is not None and process.stdout is not None:
            process.stdin.write("\n")
            process.stdin.flush()
            found["imitation"].append(json.loads(process.stdout.readline()))
    if process is not None:
        process.communicate()
    print("| | environments | bare, us | learned, us | times |\n|---|---|---|---|---|")
    for whose, measured in found.items():
        for number in ("one", str(NUM_ENVS)) if measured else ():
            plain, learned = ([each[f"{number}, {kind}"] for each in measured] for kind in ("bare", "learned"))
            times = statistics.median(b / a for a, b in zip(plain, learned, strict=True))
            print(
                f"| {whose} | {number} | {statistics.median(plain):.1f} | {statistics.median(learned):.1f} | "
                f"{times:.1f} |"
            )


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

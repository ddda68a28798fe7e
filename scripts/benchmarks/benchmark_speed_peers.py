"""What `benchmark_speed.py` holds our runs against."""

import time

import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from prefrl.control import TrainSettings, policies


def plain_ppo(run: TrainSettings, device: str) -> float:
    ours = ("normalize_", "scale_actions")  # not known to plain PPO, which pays nothing for them
    hyper = {name: value for name, value in run.hyperparameters.items() if not name.startswith(ours)}
    for name in [name for name, value in hyper.items() if isinstance(value, str)]:  # "linear:X" falls from X to 0
        hyper[name] = lambda remaining, start=float(hyper[name][7:]): start * remaining
    envs = DummyVecEnv([lambda: policies.make_run_env(run)] * run.num_envs)
    images = len(envs.observation_space.shape) == 3
    if not images:
        envs = VecNormalize(envs, norm_reward=run.hyperparameters.get("normalize_returns", False), gamma=hyper["gamma"])
    agent = PPO("CnnPolicy" if images else "MlpPolicy", envs, device=device, seed=0, **hyper).learn(run.steps)
    return agent.num_timesteps / (time.time_ns() - agent.start_time) * 1e9


def limits(run: TrainSettings, device: str) -> tuple[float, float]:
    """Steps per second of the environments alone, and of the update alone."""
    agent = policies.make_run_agent(run, seed=0, device=device)
    agent.reset_environments(0)
    begin = time.perf_counter()
    steps = agent.explore(agent.steps_per_iteration, np.random.default_rng(0)).num_steps
    alone = steps / (time.perf_counter() - begin)
    updates = [agent.improve(None) for _ in range(3)]
    return alone, agent.steps_per_iteration / min(update.seconds["update"] for update in updates)

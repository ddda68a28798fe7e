"""Hyper-parameters of an agent, tried on the environment's own reward: short runs in parallel processes.

    python scripts/experiments/search_agents.py HalfCheetah-v5 --variants '{}' '{"gamma": 0.98}' --seeds 100 10

A variant is a JSON object of hyper-parameters over the task's defaults; `steps`, `num_envs`, `agent`, `warmup` and
`warmup_steps` may be among them, and two that are no settings, of our PPO alone: `output_gain`, the scale of the
policy's last layer at the start (0.01), and `log_std_fall`, by how much the noise is made to fall over the run.
Results are kept in `runs/search/TASK.jsonl`, one line a run, so that a search goes on where it stopped and how many
variants were tried can be counted. Returns are over whole episodes of the final policy.
"""

import json
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import gymnasium
import numpy as np
import torch
import tyro
from scipy import stats

from prefrl.agents import networks
from prefrl.control import TrainSettings
from prefrl.control.evaluation import evaluate
from prefrl.control.policies import make_run_agent, make_run_env
from prefrl.envs.measures import measures_of
from prefrl.runs.streams import stream, stream_seed

TRIED_ONLY = ("output_gain", "log_std_fall")
OF_THE_RUN = ("steps", "num_envs", "agent", "warmup_steps", "warmup")


def train_once(task: str, variant: dict, seed: int, episodes: int) -> dict:
    """Train on the true reward and return what became of it."""
    torch.set_num_threads(1)
    own = {name: value for name, value in variant.items() if name in OF_THE_RUN}
    hyper = {name: value for name, value in variant.items() if name not in (*OF_THE_RUN, *TRIED_ONLY)}
    settings = TrainSettings(env_id=task, seed=seed, hyperparameters=hyper, **own).resolve()
    begin = time.perf_counter()
    networks.POLICY_GAIN = variant.get("output_gain", 0.01)
    agent = make_run_agent(settings, seed=stream_seed(seed, "agent"), device="cpu", pass_true_reward=True)
    agent.reset_environments(stream_seed(seed, "environments", 0))
    agent.explore(settings.warmup_steps, stream(seed, "explore"), uniform=settings.warmup == "uniform")
    curve, finished = [], []
    running = np.zeros(agent.num_envs)
    while agent.num_env_steps < settings.steps:
        rollout = agent.improve(None).rollout
        if "log_std_fall" in variant:
            agent._actions.log_std -= variant["log_std_fall"] * rollout.num_steps / settings.steps
        for rewards, ended in zip(rollout.true_rewards, rollout.ended, strict=True):
            running += rewards
            finished += running[ended].tolist()
            running[ended] = 0.0
        if finished and agent.num_env_steps / settings.steps * 10 > len(curve) + 1:
            curve.append(float(np.mean(finished[-20:])))
    deterministic = isinstance(agent.action_space, gymnasium.spaces.Box)

    def act(observations):
        return agent.act(observations, deterministic=deterministic)

    measures, seed_of_episodes = measures_of(task, agent.observation_space), stream_seed(seed, "evaluation")
    make = partial(make_run_env, settings)
    result = evaluate(make, act, num_episodes=episodes, seed=seed_of_episodes, measures=measures)
    agent.close()
    return {
        "task": task,
        "variant": variant,
        "seed": seed,
        "return": result.mean,
        "spread": result.std,
        "curve": curve,
        "seconds": time.perf_counter() - begin,
        "measures": result.measures,
    }


def key_of(variant: dict) -> str:
    return json.dumps(variant, sort_keys=True)


def main(
    task: tyro.conf.Positional[str],
    variants: tuple[str, ...] = ("{}",),
    seeds: tuple[int, int] = (100, 3),
    episodes: int = 10,
    jobs: int = 2,
    out: Path = Path("runs/search"),
) -> None:
    """Run what is missing, then print a table of the task's variants; `seeds` are the first and how many."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{task.replace('/', '-')}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    done = {(key_of(row["variant"]), row["seed"]) for row in rows}
    wanted = [json.loads(text) for text in variants]
    missing = [
        (variant, seed)
        for seed in range(seeds[0], seeds[0] + seeds[1])
        for variant in wanted
        if (key_of(variant), seed) not in done
    ]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(train_once, task, variant, seed, episodes) for variant, seed in missing]
        for future in as_completed(futures):
            row = future.result()
            rows.append(row)
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
    keys = [key_of(variant) for variant in wanted]
    print(f"## {task}: {len({json.dumps(row['variant'], sort_keys=True) for row in rows})} variants tried so far")
    for key in keys:
        these = [row for row in rows if key_of(row["variant"]) == key]
        returns = np.sort([row["return"] for row in these])
        middle = stats.trim_mean(returns, 0.25)
        names = these[0]["measures"]
        extra = "".join(f", {name} {np.median([row['measures'][name] for row in these]):.3g}" for name in names)
        seconds = np.median([row["seconds"] for row in these])
        print(
            f"{key:90s} iqm {middle:8.1f} med {np.median(returns):8.1f} min {returns[0]:8.1f} max {returns[-1]:8.1f} "
            f"n {len(returns)}{extra} {seconds:.0f}s",
            flush=True,
        )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    tyro.cli(main, description=__doc__)

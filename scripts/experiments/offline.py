"""Offline learning measured: data of mixed strength made here, policies from few answers about them, and the controls.

    python scripts/experiments/offline.py make HalfCheetah-v5 --to halfcheetah/mixed-v0
    python scripts/experiments/offline.py measure halfcheetah/mixed-v0 --out runs/offline --seeds 0 1 2
    python scripts/experiments/offline.py table runs/offline

Data lie where minari keeps them, in ~/.minari/datasets or $MINARI_DATASETS_PATH.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import gymnasium
import numpy as np
import torch
import tyro

from prefrl.agents import AGENTS
from prefrl.control.defaults import agent_defaults
from prefrl.envs import make_vector_env
from prefrl.offline.data import GivenEpisode
from prefrl.offline.minari_data import write_minari
from prefrl.offline.run import offline
from prefrl.offline.settings import OfflineSettings
from prefrl.runs.streams import stream_seed

STRENGTHS = (0.0, 0.1, 0.25, 0.5, 1.0)  # shares of the training of our PPO on the true reward

app = tyro.extras.SubcommandApp()


@app.command
def make(
    env_id: tyro.conf.Positional[str], *, to: str, steps: int | None = None, steps_each: int = 20_000, seed: int = 0
) -> None:
    """Train an agent on the true reward and keep what it does along the way, as one of Minari's data sets.

    Args:
        env_id: the environment.
        to: id of the data set.
        steps: of the training; default: what suits the environment.
        steps_each: of the data, at each of five strengths from untrained to trained.
        seed: of everything drawn.
    """
    torch.set_num_threads(1)
    known = agent_defaults("ppo", env_id)
    steps = steps or known.steps
    agent = AGENTS.find("ppo").make(
        make_vector_env(env_id, known.num_envs),
        total_env_steps=steps,
        hyperparameters=known.hyperparameters,
        seed=seed,
        device="cpu",
        pass_true_reward=True,
    )
    agent.reset_environments(seed)
    env, episodes = gymnasium.make(env_id), []
    for strength in STRENGTHS:
        while agent.num_env_steps < strength * steps:
            agent.improve(None)
        made, returns = 0, []
        while made < steps_each:
            one = play(env, agent, seed=stream_seed(seed, "episode", len(episodes)))
            episodes.append(one)
            returns.append(one.true_rewards.sum())
            made += len(one.actions)
        print(f"after {agent.num_env_steps:,} steps: {len(returns)} episodes, true return {np.mean(returns):.0f}")
    folder = write_minari(to, env, episodes)
    print(f"Wrote {len(episodes)} episodes to {folder}")


def play(env: gymnasium.Env, agent, seed: int) -> GivenEpisode:
    """Play one episode with the agent's noise."""
    seen, done, earned, terminated, truncated = [env.reset(seed=seed)[0]], [], [], False, False
    while not (terminated or truncated):
        done.append(agent.act(seen[-1][None], deterministic=False)[0])
        observation, reward, terminated, truncated, _ = env.step(done[-1])
        seen.append(observation)
        earned.append(float(reward))
    return GivenEpisode(
        observations=np.array(seen),
        actions=np.array(done),
        true_rewards=np.array(earned),
        terminated=terminated,
        seed=seed,
    )


Variant = Literal["iql", "transformer", "pessimistic", "ipl", "cpl"]


@app.command
def measure(
    dataset: tyro.conf.Positional[str], *, out: Path, seeds: tuple[int, ...] = (0, 1, 2),
    variants: tuple[Variant, ...] = ("iql", "pessimistic", "ipl", "cpl"), steps: int = 8_000, labels: int = 500,
    episodes: int = 10,
) -> None:  # fmt: skip
    """Learn from answers of a noisy teacher in several ways, and from the controls.

    Args:
        dataset: id or folder.
        out: where the runs are kept; those that are finished are not made again.
        seeds: of the runs.
        variants: ways of learning; the controls come with the first.
        steps: updates.
        labels: answers.
        episodes: that each policy is judged by.
    """
    torch.set_num_threads(1)
    asked = OfflineSettings(dataset=dataset, teacher="noisy", labels=labels, steps=steps, eval_episodes=episodes)
    for seed in seeds:
        for number, variant in enumerate(variants):
            one = of_variant(replace(asked, seed=seed), variant)
            place = out / dataset.replace("/", "-") / f"{variant}-seed{seed}"
            if (place / "summary.json").is_file():
                continue
            controls = ("true", "zero", "random", "cloning") if number == 0 else ()
            summary = offline(one, place, controls=controls, quiet=True).read_summary()
            print(
                place, summary["true_return_mean"], {n: c["true_return_mean"] for n, c in summary["controls"].items()}
            )


def of_variant(settings: OfflineSettings, variant: Variant) -> OfflineSettings:
    """Return the settings of one way of learning."""
    if variant == "pessimistic":
        return replace(settings, reward=replace(settings.reward, pessimism=1.0, num_members=5))
    if variant == "transformer":
        return replace(settings, reward=replace(settings.reward, network="transformer"))
    return replace(settings, method=variant)


@app.command
def table(out: tyro.conf.Positional[Path]) -> None:
    """Print what `measure` found: returns of each seed, and of all as a share of those on the true reward."""
    for data in sorted(path for path in out.iterdir() if path.is_dir()):
        found: dict[str, dict[int, float]] = {}
        for path in sorted(data.glob("*/summary.json")):
            summary = json.loads(path.read_text())
            variant, _, seed = path.parent.name.rpartition("-seed")
            found.setdefault(variant, {})[int(seed)] = summary["true_return_mean"]
            for name, control in summary["controls"].items():
                found.setdefault(f"control: {name}", {})[int(seed)] = control["true_return_mean"]
        true = found.get("control: true", {})
        print(f"\n{data.name}: the data {summary['data']['true_return_mean']:.0f} "
              f"({summary['data']['true_return_least']:.0f} to {summary['data']['true_return_most']:.0f})")  # fmt: skip
        for name, returns in found.items():
            shares = [returns[seed] / true[seed] for seed in returns if seed in true]
            share = f"{np.mean(shares):.0%} of true" if shares else ""
            print(f"| {name} | {', '.join(f'{value:.0f}' for value in returns.values())} | {share} |")


if __name__ == "__main__":
    app.cli(description=__doc__)
